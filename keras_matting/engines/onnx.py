"""ONNX Runtime on its CPU and CUDA execution providers; onnx_tensorrt.py adds what its TensorRT provider needs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from keras_matting import telemetry
from keras_matting.arrays import Float32
from keras_matting.engines.artefacts import exported
from keras_matting.engines.base import BuildOptions, cannot_open, checked_batch
from keras_matting.errors import EngineError
from keras_matting.files import StrPath
from keras_matting.machine import engine_threads, gpu_float32, missing_gpu, missing_package
from keras_matting.model_folder import ONNX_FILE

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_REFUSES_FALLBACK = (1, 16)  # the first version that knows session.disable_cpu_ep_fallback


def unavailable_reason(variant: str) -> str | None:
    """Return why ONNX Runtime cannot run `variant` here, or None."""
    if reason := missing_package("onnxruntime", "cpu" if variant == "cpu" else "gpu"):
        return reason
    if _PROVIDERS[variant] not in onnxruntime_module().get_available_providers():
        return f"this onnxruntime has no {_PROVIDERS[variant]}; pip install 'keras-matting[gpu]'."
    return None if variant == "cpu" else missing_gpu()


def build(model_dir: StrPath, variant: str, options: BuildOptions) -> None:
    """Check that the graph is there."""
    exported(model_dir, ONNX_FILE, f"onnx-{variant}")


def check_current(model_dir: StrPath, variant: str) -> None:
    """Raise `EngineError` unless the graph is there and fits."""
    exported(model_dir, ONNX_FILE, f"onnx-{variant}")


def open_engine(model_dir: StrPath, variant: str) -> OnnxEngine:
    """Open `model.onnx` of a model folder on the provider `variant`, and on no other."""
    return OnnxEngine(exported(model_dir, ONNX_FILE, f"onnx-{variant}"), variant)


class OnnxEngine:
    """An ONNX Runtime session on one execution provider, verified after it was made.

    `provider_options`: a dict for that provider.
    """

    def __init__(self, path: Path, variant: str, provider_options: Mapping[str, Any] | None = None) -> None:
        onnxruntime = onnxruntime_module()
        self.name, self.path, self._variant = f"onnx-{variant}", path, variant
        provider, self._on_device = _PROVIDERS[variant], variant != "cpu"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads := engine_threads():
            options.intra_op_num_threads = threads
        asks_profile = False
        if self._on_device:
            if hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()  # CUDA's libraries where pip puts them
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            asks_profile = options.enable_profiling = version_of(onnxruntime) < _REFUSES_FALLBACK
            options.profile_file_prefix = str(Path(tempfile.gettempdir()) / "keras-matting-profile")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=[(provider, provider_options or {})]
            )
        except Exception as error:
            raise cannot_open(self.name, path, error) from error
        # ONNX Runtime falls back to the CPU with a warning; a named engine must not.
        if (actual := self._session.get_providers()[0]) != provider:
            raise EngineError(f"Engine {self.name} asked for {provider}; ONNX Runtime gave {actual}. Check its CUDA.")
        self._input = self._session.get_inputs()[0]
        self._output = self._session.get_outputs()[0].name
        height, width = self._input.shape[1:3]
        self.size = (height, width)
        self._fixed_batch = self._input.shape[0] if isinstance(self._input.shape[0], int) else None
        if asks_profile:
            self._require_whole_graph(provider)

    def predict(self, batch: Float32) -> Float32:
        """See `Engine.predict`."""
        batch = checked_batch(batch, self.size, self.name, self._fixed_batch)
        if not self._on_device:
            return self._session.run([self._output], {self._input.name: batch})[0]
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._input.name, batch)
        binding.bind_output(self._output)  # to host memory, copied once when the run has ended
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()[0]

    def bind_host(self, image: Float32, matte: Float32) -> Callable[[], object]:
        """Return a function that runs the float32 batch that lies in `image` then, and writes into `matte`.

        Both are contiguous arrays in host memory, which is best pinned.
        """
        checked_batch(image, self.size, self.name, self._fixed_batch)
        binding = self._session.io_binding()
        binding.bind_input(self._input.name, "cpu", 0, np.float32, image.shape, image.ctypes.data)
        binding.bind_output(self._output, "cpu", 0, np.float32, matte.shape, matte.ctypes.data)
        return lambda: self._session.run_with_iobinding(binding)

    def bind_device(self, batch: Float32, *, waits: bool = True) -> Callable[[], object]:
        """Return a function that runs a float32 batch, put into device memory now, and leaves its output there.

        It returns when the device has ended, or, unless it `waits`, as soon as the work is queued.
        """
        batch = checked_batch(batch, self.size, self.name, self._fixed_batch)
        binding, device = self._session.io_binding(), "cuda" if self._on_device else "cpu"
        image = onnxruntime_module().OrtValue.ortvalue_from_numpy(batch, device, 0)
        binding.bind_ortvalue_input(self._input.name, image)
        binding.bind_output(self._output, device)
        options = onnxruntime_module().RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "0" if waits else "1")
        return lambda: self._session.run_with_iobinding(binding, options)

    def describe(self) -> dict[str, str]:
        """See `Engine.describe`."""
        precision = {"cpu": "f32", "cuda": gpu_float32(), "tensorrt": "fp16"}[self._variant]
        return {"precision": precision, "coverage": "whole graph"}

    def close(self) -> None:
        """Drop the session."""
        self._session = None

    def _require_whole_graph(self, provider: str) -> None:
        """Raise `EngineError` if a run's profile names nodes elsewhere; versions that know no better only warn."""
        self.predict(np.zeros((self._fixed_batch or 1, *self.size, 3), np.float32))
        path = Path(self._session.end_profiling())
        try:
            elsewhere = nodes_elsewhere(json.loads(path.read_text()), provider)
        finally:
            path.unlink(missing_ok=True)
        if elsewhere:
            raise EngineError(
                f"Engine {self.name} expects the whole graph on {provider}; elsewhere ran {', '.join(elsewhere[:8])}."
            )


def nodes_elsewhere(events: Iterable[Mapping[str, Any]], provider: str) -> list[str]:
    """Return the kinds of nodes that ran on another provider, from the events of ONNX Runtime's profile."""
    ran = (event["args"] for event in events if event.get("cat") == "Node" and "provider" in event.get("args", {}))
    return sorted({arguments["op_name"] for arguments in ran if arguments["provider"] != provider})


def version_of(onnxruntime: ModuleType) -> tuple[int, ...]:
    """Return the version as (major, minor)."""
    return tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])


def onnxruntime_module() -> ModuleType:
    """Return ONNX Runtime, imported without its telemetry."""
    with telemetry.switched_off():
        import onnxruntime

    return onnxruntime
