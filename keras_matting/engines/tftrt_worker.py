"""The TF-TRT side, run by the Python of the TF-TRT environment (`make tftrt-env`), driven by tftrt.py.

usage: tftrt_worker.py DESCRIPTOR

Reads one JSON request a line from standard input and answers one a line; arrays lie in `SharedArray`, the memory behind
DESCRIPTOR. It runs on Python 3.10 and TensorFlow 2.14 to 2.17, so it imports nothing of the package but this file.
"""

from __future__ import annotations

import collections
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt
    from tensorflow.core.framework.graph_pb2 import GraphDef

    _Array: TypeAlias = npt.NDArray[np.float32]

_WORKSPACE_BYTES = 2 << 30
_MIN_SEGMENT_NODES = 3
_LISTED_OPS = 8
_ENGINE = "TRTEngineOp"
_FALLBACK = "TF_TRT_ALLOW_ENGINE_NATIVE_SEGMENT_EXECUTION"
_SETTINGS = {
    # A segment whose engine is missing or fails is an error, not a reason to run TensorFlow's own kernels.
    _FALLBACK: "False",
    "TF_TRT_SHOW_DETAILED_REPORT": "1",  # which operations were left out, and why
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # other engines live on the same GPU
}


class SharedArray:
    """One float32 array that two processes see: memory behind a file descriptor, which grows with what is put there."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | bytes = b""

    def view(self, shape: Sequence[int]) -> _Array:
        """Return the memory as an array of `shape`; what another shape left there is overwritten by whoever writes."""
        count = int(np.prod(shape))
        if len(self._map) < 4 * count:
            size = max(4 * count, os.fstat(self._descriptor).st_size)
            os.ftruncate(self._descriptor, size)
            self._map = mmap.mmap(self._descriptor, size)
        return np.frombuffer(self._map, np.float32, count).reshape(shape)


def probe() -> dict[str, Any]:
    """Return the versions of TensorFlow and TensorRT here, and how many GPUs TensorFlow sees."""
    import tensorflow as tf
    from tensorflow.compiler.tf2tensorrt import _pywrap_py_utils

    return {
        "tensorflow": tf.__version__,
        "tensorrt_enabled": _pywrap_py_utils.is_tensorrt_enabled(),
        "tensorrt_linked": ".".join(map(str, _pywrap_py_utils.get_linked_tensorrt_version())),
        "tensorrt_loaded": ".".join(map(str, _pywrap_py_utils.get_loaded_tensorrt_version())),
        "gpus": len(tf.config.list_physical_devices("GPU")),
        "native_fallback": os.environ.get(_FALLBACK) != "False",
    }


def convert(
    source: str, target: str, precision: str, batches: Sequence[int], size: Sequence[int], calibration: str | None
) -> dict[str, Any]:
    """Convert a SavedModel, build its engines for `batches`, save it as `target`; return what became of the graph.

    `batches`: sizes, from the smallest to the largest to serve, each of which gets kernels of its own. `calibration`:
    path of a .npy file of inputs (n, H, W, 3) for int8, else None. A segment that TensorRT cannot build, or could not
    calibrate, is an error.
    """
    if not probe()["gpus"]:
        raise RuntimeError("TF-TRT converts on an NVIDIA GPU only, and TensorFlow sees none here")
    converter = new_converter(source, precision, len(batches))
    photos = np.load(calibration) if calibration else ()
    converter.convert(calibration_input_fn=(lambda: ((photo[None],) for photo in photos)) if calibration else None)
    converter.build(input_fn=lambda: ((np.zeros((n, *size, 3), np.float32),) for n in batches))
    if calibration:
        require_calibration(converter._converted_graph_def)
    converter.save(target)
    require_engines(converter._converted_graph_def, target)
    return coverage(converter._converted_graph_def)


def new_converter(source: str, precision: str, profiles: int) -> Any:
    """Return TensorFlow's converter of a SavedModel for `profiles` batch sizes and all between them."""
    from tensorflow.python.compiler.tensorrt import trt_convert as trt

    return trt.TrtGraphConverterV2(
        input_saved_model_dir=source,
        precision_mode=precision.upper(),
        max_workspace_size_bytes=_WORKSPACE_BYTES,
        minimum_segment_size=_MIN_SEGMENT_NODES,
        maximum_cached_engines=profiles,
        use_calibration=precision == "int8",
        use_dynamic_shape=True,
        dynamic_shape_profile_strategy="Range+Optimal",
        allow_build_at_runtime=False,
    )


def require_calibration(graph: GraphDef) -> None:
    """Raise `RuntimeError` if an engine of a converted graph has no calibration: TF-TRT only logs that it failed."""
    if missing := [node.name for node in engines_of(graph) if not node.attr["calibration_data"].s]:
        raise RuntimeError(f"TF-TRT could not calibrate {', '.join(missing)}")


def require_engines(graph: GraphDef, saved_model: str) -> None:
    """Raise `RuntimeError` unless every engine of a converted graph was built and lies in its SavedModel."""
    assets = Path(saved_model) / "assets"
    files = {node.name: assets / f"trt-serialized-engine.{node.name.split('/')[-1]}" for node in engines_of(graph)}
    if not files:
        raise RuntimeError("TF-TRT found nothing in this graph that TensorRT takes")
    if missing := [name for name, file in files.items() if not (file.is_file() and file.stat().st_size)]:
        raise RuntimeError(f"TF-TRT built no engine for {', '.join(missing)}")


def engines_of(graph: GraphDef) -> list[Any]:
    """Return the nodes that stand for TensorRT engines, also those within functions."""
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return [node for node in nodes if node.op == _ENGINE]


def coverage(graph: GraphDef) -> dict[str, Any]:
    """Count what TensorRT took of a converted graph and what it left."""
    segments = [function for function in graph.library.function if _ENGINE in function.signature.name]
    ignored = (_ENGINE, "Const", "Identity", "Placeholder", "NoOp")
    left = collections.Counter(node.op for node in graph.node if node.op not in ignored)
    return {
        "engines": len(engines_of(graph)),
        "nodes_in_engines": sum(len(segment.node_def) for segment in segments),
        "left": dict(left.most_common(_LISTED_OPS)),
    }


class _Model:
    """A SavedModel, converted or plain."""

    def __init__(self, path: str) -> None:
        import tensorflow as tf

        self._tf = tf
        self._loaded = tf.saved_model.load(path)
        self._serve = self._loaded.signatures["serving_default"]
        self._input = next(iter(self._serve.structured_input_signature[1]))

    def predict(self, batch: _Array) -> _Array:
        (matte,) = self._serve(**{self._input: self._tf.constant(batch)}).values()
        return np.ascontiguousarray(matte.numpy(), np.float32)

    def times(self, batch: _Array, calls: int, resident: bool) -> list[float]:
        """Return the milliseconds of `calls` calls from host memory to host memory, or on the device alone."""
        image = self._tf.identity(self._tf.constant(batch))  # where TensorFlow computes: on the GPU if it sees one
        milliseconds = []
        for _ in range(calls):
            start = time.perf_counter()
            if resident:
                self._serve(**{self._input: image})
                self._tf.test.experimental.sync_devices()
            else:
                self.predict(batch)
            milliseconds.append((time.perf_counter() - start) * 1000)
        return milliseconds


class _Server:
    """Answers the parent's requests."""

    def __init__(self, shared: SharedArray) -> None:
        self._shared = shared
        self._model: _Model | None = None
        self._operations: dict[str, Callable[..., dict[str, Any]]] = {
            "probe": probe,
            "convert": convert,
            "open": self._open,
            "predict": self._predict,
            "times": self._times,
        }

    def answer(self, op: str, **arguments: Any) -> dict[str, Any]:
        return self._operations[op](**arguments)

    def _open(self, path: str) -> dict[str, Any]:
        self._model = _Model(path)
        return {}

    def _opened(self) -> _Model:
        if self._model is None:
            raise RuntimeError("No model was opened")
        return self._model

    def _predict(self, shape: Sequence[int]) -> dict[str, Any]:
        matte = self._opened().predict(self._shared.view(shape))
        self._shared.view(matte.shape)[:] = matte
        return {"shape": matte.shape}

    def _times(self, shape: Sequence[int], calls: int, resident: bool) -> dict[str, Any]:
        return {"calls_ms": self._opened().times(self._shared.view(shape), calls, resident)}


def main(descriptor: int) -> None:
    """Answer requests until standard input closes."""
    os.environ.update(_SETTINGS)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever TensorFlow prints must not get between the answers
    sys.path.pop(0)  # this file's folder, whose tensorflow.py is not TensorFlow
    server = _Server(SharedArray(descriptor))
    for line in iter(sys.stdin.buffer.readline, b""):
        try:
            answer = server.answer(**json.loads(line))
        except Exception as error:  # every failure goes to the parent, which turns it into its own error
            answer = {"error": str(error) or type(error).__name__}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
