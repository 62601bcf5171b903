"""TensorFlow-TensorRT, driven in an environment of its own: TensorFlow dropped TF-TRT after 2.17.

`make tftrt-env` builds the environment (.venv-tftrt: Python 3.10, TensorFlow 2.14.1, TensorRT 8.5.3.1); the variable
KERAS_MATTING_TFTRT_PYTHON names the Python of another one, with TensorFlow 2.15 to 2.17 and TensorRT 8.6.1, say.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from keras_matting.arrays import Float32
from keras_matting.engines import tftrt_worker
from keras_matting.engines.artefacts import building, built, exported, read_manifest
from keras_matting.engines.base import BuildOptions, checked_batch
from keras_matting.engines.child_log import ChildLog
from keras_matting.engines.tftrt_worker import SharedArray
from keras_matting.errors import EngineError
from keras_matting.files import StrPath
from keras_matting.machine import gpu_float32, gpu_name, missing_gpu
from keras_matting.model_folder import MANIFEST, TFTRT_SAVED_MODEL, Preset

PYTHON_VARIABLE = "KERAS_MATTING_TFTRT_PYTHON"
_MODEL = "saved_model"


def unavailable_reason(variant: str) -> str | None:
    """Return why TF-TRT cannot run here, or None."""
    if python() is None:
        return f"there is no TF-TRT environment; run make tftrt-env, or set {PYTHON_VARIABLE}."
    return missing_gpu()


def build(model_dir: StrPath, variant: str, options: BuildOptions) -> None:
    """Convert `saved_model_tftrt/` with engines for `options.batches` and what lies between."""
    engine = f"tftrt-{variant}"
    source, size = exported(model_dir, TFTRT_SAVED_MODEL, engine), Preset.load(model_dir).input_size
    with TfTrtProcess(engine) as worker, building(model_dir, engine, _runtime(worker), gpu_name()) as (folder, extra):
        calibration = folder / "calibration.npy" if variant == "int8" else None
        if calibration:
            np.save(calibration, np.concatenate(options.calibration_for(engine)))
        extra["coverage"] = worker.ask(
            "convert",
            source=str(source),
            target=str(folder / _MODEL),
            precision=variant,
            batches=options.batches,
            size=size,
            calibration=calibration and str(calibration),
        )
        if calibration:
            calibration.unlink()
            extra |= options.calibration_fields


def check_current(model_dir: StrPath, variant: str) -> None:
    """Raise `EngineError` unless what `build` makes is there and fits."""
    with TfTrtProcess(f"tftrt-{variant}") as worker:
        built(model_dir, worker.engine, _runtime(worker), gpu_name())


def open_engine(model_dir: StrPath, variant: str) -> TfTrtEngine:
    """Load a converted SavedModel in the TF-TRT environment."""
    worker = TfTrtProcess(f"tftrt-{variant}")
    try:
        folder = built(model_dir, worker.engine, _runtime(worker), gpu_name())
        return TfTrtEngine(worker, folder / _MODEL, Preset.load(model_dir).input_size)
    except EngineError:
        worker.close()
        raise


class TfTrtEngine:
    """A SavedModel served by the TF-TRT environment, through memory that both processes share."""

    def __init__(self, worker: TfTrtProcess, path: Path, size: tuple[int, int]) -> None:
        self.name, self.path, self.size, self._worker = worker.engine, path, tuple(size), worker
        worker.ask("open", path=str(path))

    def predict(self, batch: Float32) -> Float32:
        """See `Engine.predict`."""
        return self._worker.predict(checked_batch(batch, self.size, self.name))

    def times(self, batch: Float32, calls: int, *, resident: bool) -> list[float]:
        """Return the milliseconds of `calls` calls as the TF-TRT process itself takes them, without its parent.

        `resident`: input and output stay on the device; else they come from, and go to, that process's host memory.
        """
        return self._worker.times(checked_batch(batch, self.size, self.name), calls, resident)

    def describe(self) -> dict[str, str]:
        """See `Engine.describe`: how much of the graph TensorRT took."""
        coverage = read_manifest(self.path.parent / MANIFEST).get("coverage", {})
        counts = f"{coverage.get('engines')} engines, {coverage.get('nodes_in_engines')} nodes"
        # Where int8 is allowed, TF-TRT allows float16, too.
        precisions = {"fp32": gpu_float32(), "fp16": "fp16", "int8": "int8+fp16"}
        precision = precisions[self.name.removeprefix("tftrt-")]
        return {"precision": precision, "coverage": f"{counts}; left {coverage.get('left')}"}

    def close(self) -> None:
        """End the worker."""
        self._worker.close()


class TfTrtProcess:
    """The parent's end of `tftrt_worker`."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self._log, self._descriptor = ChildLog(), os.memfd_create("keras-matting-tftrt")
        self._shared = SharedArray(self._descriptor)
        self._process = subprocess.Popen(
            [str(_found_python()), tftrt_worker.__file__, str(self._descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.file,
            env=_environment(),
            pass_fds=[self._descriptor],
        )
        self._requests = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and return the answer; raises `EngineError` if it failed or the process died."""
        try:
            self._requests.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            self._requests.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise EngineError(
                f"Engine {self.engine}: the TF-TRT environment ended with status {self._process.wait()}; "
                f"check that {python()} imports tensorflow.{self._log.told()}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise EngineError(f"Engine {self.engine}: {answer['error'][:500]}{self._log.told()}")
        return answer

    def predict(self, batch: Float32) -> Float32:
        """Return the matte of a float32 batch."""
        self._shared.view(batch.shape)[:] = batch
        return self._shared.view(self.ask("predict", shape=batch.shape)["shape"]).copy()

    def times(self, batch: Float32, calls: int, resident: bool) -> list[float]:
        """See `TfTrtEngine.times`."""
        self._shared.view(batch.shape)[:] = batch
        return self.ask("times", shape=batch.shape, calls=calls, resident=resident)["calls_ms"]

    def close(self) -> None:
        """End the process, which it does when its input closes."""
        self._process.communicate()
        self._log.close()
        os.close(self._descriptor)

    def __enter__(self) -> TfTrtProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _environment() -> dict[str, str]:
    """Return the worker's environment: that of this process without what belongs to this process's Python alone."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return inherited | {"LD_LIBRARY_PATH": _library_path(), "TF_CPP_MIN_LOG_LEVEL": "1"}


def python() -> Path | None:
    """Return the Python of the TF-TRT environment, or None."""
    named = os.environ.get(PYTHON_VARIABLE)
    places = [Path(named)] if named else [_beside_the_package()]
    return next((place.absolute() for place in places if place.is_file()), None)


def _found_python() -> Path:
    found = python()
    if found is None:
        raise EngineError(
            f"Expected a TF-TRT environment; there is none. Run make tftrt-env, or set {PYTHON_VARIABLE}."
        )
    return found


def _beside_the_package() -> Path:
    return Path(__file__).parents[2] / ".venv-tftrt" / "bin" / "python"


def _library_path() -> str:
    """Return where that environment's wheels keep TensorRT and CUDA, for the dynamic linker."""
    packages = sorted(_found_python().parents[1].glob("lib/python3.*/site-packages"))
    folders = [folder for site in packages for folder in (site / "tensorrt", *sorted(site.glob("nvidia/*/lib")))]
    inherited = os.environ.get("LD_LIBRARY_PATH", "")
    return ":".join([*map(str, folders), *filter(None, [inherited])])


def _runtime(worker: TfTrtProcess) -> str:
    probed = worker.ask("probe")
    return f"tensorflow {probed['tensorflow']}, tensorrt {probed['tensorrt_loaded']}"
