"""ONNX Runtime's TensorRT provider in float16: an engine for single photos and one for more.

The provider keeps one optimisation profile, so each of the two has a session of its own. Their engines are built once,
into the model folder; what opens them works on a copy, because ONNX Runtime writes into its cache when it reads it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_matting.arrays import Float32
from keras_matting.engines import onnx
from keras_matting.engines.artefacts import building, built, exported, read_manifest
from keras_matting.engines.base import BuildOptions
from keras_matting.engines.lowered import lowered_onnx
from keras_matting.engines.onnx import OnnxEngine, onnxruntime_module, version_of
from keras_matting.errors import EngineError
from keras_matting.files import StrPath
from keras_matting.machine import gpu_name, runtime
from keras_matting.model_folder import MANIFEST, ONNX_FILE, Preset

_ENGINE, _GRAPH = "onnx-tensorrt", "graph.onnx"
_SINGLE, _MANY = "one", "more"
_EXPLICIT_PROFILES = (1, 15)  # the first version that takes them; earlier ones grow a profile with the batches they see


def unavailable_reason(variant: str) -> str | None:
    """Return why ONNX Runtime's TensorRT provider cannot run here, or None."""
    return onnx.unavailable_reason(variant)


def build(model_dir: StrPath, variant: str, options: BuildOptions) -> None:
    """Let TensorRT build its engines for `options.batches` into the folder that `open_engine` reads."""
    fields = {"precision": "fp16", "max_batch": options.max_batch}
    with building(model_dir, _ENGINE, _runtime(), gpu_name(), **fields) as (folder, extra):
        _graph(model_dir, folder, options).replace(folder / _GRAPH)
        extra["batches"], size = options.batches, Preset.load(model_dir).input_size
        for part, batches in parts(options.batches).items():
            (folder / part).mkdir()
            session = _session(folder, part, batches, size)
            for n in reversed(batches):  # where the profile grows, the last to come is the smallest
                session.predict(np.zeros((n, *size, 3), np.float32))
            session.close()


def check_current(model_dir: StrPath, variant: str) -> None:
    """Raise `EngineError` unless what `build` makes is there and fits."""
    built(model_dir, _ENGINE, _runtime(), gpu_name())


def open_engine(model_dir: StrPath, variant: str) -> OnnxTensorRtEngine:
    """Open the built engines on the GPU."""
    folder = built(model_dir, _ENGINE, _runtime(), gpu_name())
    return OnnxTensorRtEngine(folder, read_manifest(folder / MANIFEST)["batches"], Preset.load(model_dir).input_size)


class OnnxTensorRtEngine:
    """The sessions for one photo and for more, on a copy of what was built."""

    def __init__(self, folder: Path, batches: Sequence[int], size: tuple[int, int]) -> None:
        self.name, self.path, self.size, self._largest = _ENGINE, folder, size, batches[-1]
        self._copy = tempfile.TemporaryDirectory(prefix="keras-matting-tensorrt-")
        copy = Path(self._copy.name) / "engine"
        shutil.copytree(folder, copy)
        before = _engines(copy)
        try:
            self._sessions = {part: _session(copy, part, of_part, size) for part, of_part in parts(batches).items()}
            for part, of_part in parts(batches).items():
                self._sessions[part].predict(np.zeros((of_part[0], *size, 3), np.float32))
            if _engines(copy) != before:
                raise EngineError(f"Engine {_ENGINE}: ONNX Runtime did not take what was built; build it again.")
        except EngineError:
            self.close()
            raise

    def predict(self, batch: Float32) -> Float32:
        """See `Engine.predict`."""
        return self._for(batch).predict(batch)

    def bind_host(self, image: Float32, matte: Float32) -> Callable[[], object]:
        """See `OnnxEngine.bind_host`."""
        return self._for(image).bind_host(image, matte)

    def bind_device(self, batch: Float32) -> Callable[[], object]:
        """See `OnnxEngine.bind_device`."""
        return self._for(batch).bind_device(batch)

    def describe(self) -> dict[str, str]:
        """See `Engine.describe`."""
        return self._sessions[_SINGLE].describe()

    def close(self) -> None:
        """Drop the sessions and their copy."""
        self._sessions = {}
        self._copy.cleanup()

    def _for(self, batch: Float32) -> OnnxEngine:
        """Return the session for a batch; whatever is no batch is refused by the one for single photos."""
        count = len(batch) if np.ndim(batch) == 4 else 1
        if count > self._largest:
            raise EngineError(f"Engine {_ENGINE} was built for batches up to {self._largest}; build it again.")
        return self._sessions[_MANY if count > 1 else _SINGLE]


def parts(batches: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return {part: its batch sizes, the smallest, the best, the largest} of `BuildOptions.batches`."""
    more = [n for n in batches if n > 1]
    return {_SINGLE: (1,)} | ({_MANY: (2, more[0], more[-1])} if more else {})


def provider_options(
    version: tuple[int, ...], cache: Path, size: tuple[int, int], batches: Sequence[int]
) -> dict[str, Any]:
    """Return what the TensorRT provider of ONNX Runtime `version`, (major, minor), is told.

    `cache`: its folder. `batches`: of `parts`. A name that it does not know is an error to it.
    """
    options = {
        "trt_fp16_enable": True,
        "trt_layer_norm_fp32_fallback": True,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache),
    }
    if version >= _EXPLICIT_PROFILES:
        smallest, best, largest = batches[0], batches[len(batches) // 2], batches[-1]
        for name, n in (("min", smallest), ("opt", best), ("max", largest)):
            options[f"trt_profile_{name}_shapes"] = f"image:{n}x{size[0]}x{size[1]}x3"
    return options


def _graph(model_dir: StrPath, folder: Path, options: BuildOptions) -> Path:
    """Return a copy of the graph in `folder`: float16 in the graph, or by the builder's flag in early versions.

    1.14 dies (SIGSEGV) of float16 where it considers the CPU for a node, as it does for what TensorRT leaves.
    """
    if version_of(onnxruntime_module()) < _EXPLICIT_PROFILES:
        source = exported(model_dir, ONNX_FILE, _ENGINE)
    else:
        source = lowered_onnx(model_dir, "fp16", folder, options, _ENGINE)
    return source if source.parent == folder else Path(shutil.copy(source, folder))


def _session(folder: Path, part: str, batches: Sequence[int], size: tuple[int, int]) -> OnnxEngine:
    options = provider_options(version_of(onnxruntime_module()), folder / part, size, batches)
    return OnnxEngine(folder / _GRAPH, "tensorrt", options)


def _engines(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return what tells whether an engine file was written: name, time and size."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*.engine")}


def _runtime() -> str:
    return runtime("onnxruntime-gpu")
