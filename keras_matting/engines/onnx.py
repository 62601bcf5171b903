"""ONNX Runtime on its CPU, CUDA and TensorRT execution providers."""

from keras_matting import telemetry
from keras_matting.engines.artefacts import building, built, exported
from keras_matting.engines.base import cannot_open, checked_batch
from keras_matting.errors import EngineError
from keras_matting.machine import engine_threads, gpu_name, missing_gpu, missing_package, runtime
from keras_matting.model_folder import ONNX_FILE

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def unavailable_reason(variant):
    """Return why ONNX Runtime cannot run `variant` here, or None."""
    if reason := missing_package("onnxruntime", "cpu" if variant == "cpu" else "gpu"):
        return reason
    with telemetry.switched_off():
        import onnxruntime

    if _PROVIDERS[variant] not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {_PROVIDERS[variant]}; pip install 'keras-matting[gpu]'."
    return None if variant == "cpu" else missing_gpu()


def build(model_dir, variant, options):
    """Check that the graph is there; for TensorRT, build its engines into the cache that `open_engine` reads."""
    exported(model_dir, ONNX_FILE, f"onnx-{variant}")
    if variant == "tensorrt":
        with building(model_dir, "onnx-tensorrt", _runtime(), gpu_name(), precision="fp16") as (folder, _):
            OnnxEngine(exported(model_dir, ONNX_FILE, "onnx-tensorrt"), variant, folder, options.max_batch).close()


def check_current(model_dir, variant):
    """Raise `EngineError` unless what `build` makes is there and fits."""
    exported(model_dir, ONNX_FILE, f"onnx-{variant}")
    if variant == "tensorrt":
        built(model_dir, "onnx-tensorrt", _runtime(), gpu_name())


def open_engine(model_dir, variant):
    """Open `model.onnx` of a model folder on the provider `variant`, and on no other."""
    path = exported(model_dir, ONNX_FILE, f"onnx-{variant}")
    cache = built(model_dir, "onnx-tensorrt", _runtime(), gpu_name()) if variant == "tensorrt" else None
    return OnnxEngine(path, variant, cache)


class OnnxEngine:
    """An ONNX Runtime session on one execution provider, verified after it was made."""

    def __init__(self, path, variant, cache=None, max_batch=16):
        with telemetry.switched_off():
            import onnxruntime

        self.name, self.path = f"onnx-{variant}", path
        provider = _PROVIDERS[variant]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads := engine_threads():
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=[(provider, _provider_options(variant, cache))]
            )
        except Exception as error:
            raise cannot_open(self.name, path, error) from error
        # ONNX Runtime falls back to the CPU with a warning; a named engine must not.
        if (actual := self._session.get_providers()[0]) != provider:
            raise EngineError(f"Engine {self.name} asked for {provider}; ONNX Runtime gave {actual}. Check its CUDA.")
        self._input = self._session.get_inputs()[0]
        self._output = self._session.get_outputs()[0].name
        self._on_device = variant != "cpu"
        self.size = tuple(self._input.shape[1:3])
        self._fixed_batch = self._input.shape[0] if isinstance(self._input.shape[0], int) else None
        if cache:
            self._warm_cache(max_batch)

    def predict(self, batch):
        """See `Engine.predict`."""
        batch = checked_batch(batch, self.size, self.name, self._fixed_batch)
        if not self._on_device:
            return self._session.run([self._output], {self._input.name: batch})[0]
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._input.name, batch)
        binding.bind_output(self._output)  # to host memory, copied once when the run has ended
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()[0]

    def describe(self):
        """See `Engine.describe`."""
        return {"precision": "fp16" if self.name == "onnx-tensorrt" else "f32", "coverage": "whole graph"}

    def close(self):
        """Drop the session."""
        self._session = None

    def _warm_cache(self, max_batch):
        """Let TensorRT build for the smallest and the largest batch, so that no request waits for it."""
        import numpy as np

        for n in (1, max_batch):
            self.predict(np.zeros((n, *self.size, 3), np.float32))


def _runtime():
    return runtime("onnxruntime-gpu")


def _provider_options(variant, cache):
    if variant != "tensorrt":
        return {}
    return {
        "trt_fp16_enable": True,
        "trt_engine_cache_enable": True,
        "trt_timing_cache_enable": True,
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_path": str(cache),
    }
