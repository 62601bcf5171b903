"""One engine in a process of its own, driven over standard input: nothing that one engine loads disturbs another.

Each request is a line of JSON, each answer too. Requests: {"op": "open"}, {"op": "outputs", "inputs": FILE (.npy),
"to": FOLDER}, {"op": "round", "batch": N, "seconds": S, "min_calls": N}, {"op": "memory"}.
"""

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from keras_matting import machine
from keras_matting.arrays import Float32
from keras_matting.engines import Engine, open_engine
from keras_matting.engines.artefacts import size_mb
from keras_matting.files import StrPath
from keras_matting.model_folder import KERAS_FILE

# What a model costs without any engine: Keras called as it is, compiled into a graph by tf.function, and called on its
# PyTorch backend, where that is installed.
REFERENCE = "keras-eager"
TORCH_BASELINE = "keras-torch"
BASELINES = (REFERENCE, "keras-function", TORCH_BASELINE)
_HOW = {REFERENCE: "eager", "keras-function": "tf.function", TORCH_BASELINE: "eager PyTorch"}


def baselines() -> tuple[str, ...]:
    """Return the baselines that can run here."""
    return tuple(name for name in BASELINES if name != TORCH_BASELINE or find_spec("torch"))


class KerasBaseline:
    """The Keras model itself as an `Engine`, called without `predict()`, which would hide batching and callbacks."""

    def __init__(self, model_dir: StrPath, name: str) -> None:
        from keras_matting.models.folder import load_model, served_model

        self.name, self.path = name, Path(model_dir) / KERAS_FILE
        model = served_model(load_model(model_dir))
        self.size: tuple[int, int] = tuple(model.input_shape[1:3])
        self._call: Callable[[Float32], Float32] = lambda batch: np.asarray(model(batch, training=False))
        if name == "keras-function":
            import tensorflow as tf

            call = tf.function(lambda batch: model(batch, training=False))
            self._call = lambda batch: call(batch).numpy()
        elif name == TORCH_BASELINE:
            import torch

            self._call = torch.no_grad()(lambda batch: model(batch, training=False).cpu().numpy())

    def predict(self, batch: Float32) -> Float32:
        """See `Engine.predict`."""
        return self._call(batch)

    def describe(self) -> dict[str, str]:
        """See `Engine.describe`."""
        return {"precision": "f32", "coverage": _HOW[self.name]}

    def close(self) -> None:
        """See `Engine.close`: there is nothing to free but the model itself."""
        self._call = None  # type: ignore[assignment]


class EngineRunner:
    """Answers the requests of one benchmark about one engine."""

    _engine: Engine  # from `open` on
    _batch: Float32  # the first of `outputs`

    def __init__(self, model_dir: StrPath, name: str) -> None:
        self._model_dir, self._name = model_dir, name
        self._gpu_memory_mb: list[int] = []

    def open(self) -> dict[str, Any]:
        """Open the engine and predict once; return how long that took and what the engine is."""
        start = time.perf_counter()
        if self._name in BASELINES:
            self._engine = KerasBaseline(self._model_dir, self._name)
        else:
            self._engine = open_engine(self._name, self._model_dir)
        load_s = time.perf_counter() - start
        self._sample_gpu()
        return {"load_s": load_s, "file_mb": size_mb(self._engine.path), **self._engine.describe()}

    def outputs(self, inputs: StrPath, to: StrPath) -> dict[str, Any]:
        """Predict each input by itself and store it, so that memory is the engine's, however many there are."""
        Path(to).mkdir()
        for index in range(len(np.load(inputs, mmap_mode="r"))):
            image = np.array(np.load(inputs, mmap_mode="r")[index : index + 1])
            np.save(Path(to) / f"{index}.npy", self._engine.predict(image)[0])
            self._batch = self._batch if index else image
        return {}

    def round(self, batch: int, seconds: float, min_calls: int) -> dict[str, Any]:
        """Call the engine for `seconds`, at least `min_calls` times; each call ends when its result is in memory."""
        images = np.repeat(self._batch, batch, axis=0)
        calls: list[float] = []
        end = time.perf_counter() + seconds
        while len(calls) < min_calls or time.perf_counter() < end:
            start = time.perf_counter()
            self._engine.predict(images)
            calls.append((time.perf_counter() - start) * 1000)
        return {"calls_ms": calls}

    def memory(self) -> dict[str, float | None]:
        """Return the most memory held: of the machine, and of the GPU as sampled after the load and now (or None)."""
        self._sample_gpu()
        return {"peak_memory_mb": _peak_memory_mb(), "peak_gpu_memory_mb": max(self._gpu_memory_mb, default=None)}

    def _sample_gpu(self) -> None:
        if machine.gpu() and (held := machine.gpu_memory_mb(_own_processes())) is not None:
            self._gpu_memory_mb.append(held)


def _peak_memory_mb() -> float:
    """Return the most memory this process has held, in 2^20 bytes.

    Linux keeps `ru_maxrss` across fork and exec, so there it would be the parent's if that was larger.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _own_processes() -> set[int]:
    """Return the ids of this process and its children: TF-TRT computes in one."""
    lists = Path("/proc/self/task").glob("*/children")
    return {os.getpid(), *(int(pid) for path in lists for pid in path.read_text().split())}


def main(model_dir: StrPath, name: str) -> None:
    """Answer requests until standard input closes."""
    if name == TORCH_BASELINE:
        os.environ["KERAS_BACKEND"] = "torch"  # before anything imports Keras
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # else TensorFlow takes the GPU's whole memory
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    runner = EngineRunner(model_dir, name)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(runner, request.pop("op"))(**request)
        except Exception as error:  # of whatever kind: the benchmark goes on without this engine
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(*sys.argv[1:])
