"""What stands in for a GPU: CUDA on host memory, TensorRT's runtime, ONNX Runtime's sessions, TF-TRT's Python.

Everything around them is real: engines, files, processes, and TensorRT for RTX's builder, which needs no GPU.
"""

import ctypes
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from keras_matting import machine, telemetry
from keras_matting.engines import onnx, tftrt

with telemetry.switched_off():
    import onnxruntime

InferenceSession = onnxruntime.InferenceSession
CARD = ("a stand-in", "1.0", "8.9")


@contextmanager
def a_gpu(monkeypatch):
    """Let nvidia-smi list a GPU that TensorRT for RTX supports."""

    def nvidia_smi(query):
        return [] if "apps" in query else [CARD if "compute_cap" in query else ["1"] * (query.count(",") + 1)]

    # By the records' own name for it, too, where they are loaded.
    for module in (machine, sys.modules.get("gpu_phases.records")):
        if module:
            monkeypatch.setattr(module, "nvidia_smi", nvidia_smi)
    machine.gpu.cache_clear()
    yield
    machine.gpu.cache_clear()


class FakeCuda:
    """The functions of the CUDA runtime that `engines.cuda` calls, where device memory is host memory."""

    def __init__(self):
        self.blocks, self.launched = {}, 0

    def cudaMalloc(self, pointer, size):  # noqa: N802
        block = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(block)
        self.blocks[pointer._obj.value] = block
        return 0

    cudaMallocHost = cudaMalloc  # noqa: N815

    def cudaFree(self, address):  # noqa: N802
        del self.blocks[address.value]
        return 0

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaMemcpyAsync(self, target, source, size, kind, stream):  # noqa: N802
        ctypes.memmove(target, source, size.value)
        return 0

    def cudaStreamCreate(self, stream):  # noqa: N802
        stream._obj.value = 4096
        return 0

    def cudaEventCreate(self, event):  # noqa: N802
        event._obj.value = len(self.blocks) + 1
        return 0

    def cudaEventElapsedTime(self, elapsed, start, end):  # noqa: N802
        elapsed._obj.value = 0.5
        return 0

    def cudaGraphLaunch(self, graph, stream):  # noqa: N802
        self.launched += 1
        return 0

    def __getattr__(self, name):
        if name.startswith(("cudaStream", "cudaEvent", "cudaGraph")):
            return lambda *arguments: 0
        raise AttributeError(name)


def tensorrt_runtime(size):
    """Return what stands in for `tensorrt.Runtime`: its engines answer with the image's first channel, halved.

    The image is uint8 where the plan has the layer that casts it.
    """

    class Context:
        def __init__(self, dtype):
            self.addresses, self.profile, self.dtype = {}, 0, np.dtype(dtype)

        def set_optimization_profile_async(self, profile, stream):
            self.profile = profile
            return True

        def set_input_shape(self, name, shape):
            self.shape = tuple(shape)
            return (shape[0] == 1) == (self.profile == 0)

        def get_tensor_shape(self, name):
            return (*self.shape[:3], 1)

        def set_tensor_address(self, name, address):
            self.addresses[name] = address

        def execute_async_v3(self, stream):
            count = int(np.prod(self.shape))
            memory = (ctypes.c_byte * (count * self.dtype.itemsize)).from_address(self.addresses["image"])
            image = np.frombuffer(memory, self.dtype)
            matte = (ctypes.c_float * (count // 3)).from_address(self.addresses["matte"])
            np.frombuffer(matte, np.float32)[:] = image[::3] / 2
            return True

    def engine(plan):
        dtype = np.uint8 if b"image__plain" in plan else np.float32
        return SimpleNamespace(
            create_execution_context=lambda: Context(dtype),
            num_optimization_profiles=2,
            num_layers=1,
            get_tensor_shape=lambda name: (-1, *size, 3),
        )

    return lambda log: SimpleNamespace(deserialize_cuda_engine=engine)


class FakeSession:
    """Makes sessions of ONNX Runtime on the CPU that say they are on a GPU; `asked` keeps what was asked for."""

    def __init__(self, version):
        self.asked, self._version = [], version

    def __call__(self, path, sess_options=None, providers=(), **others):
        if not _names_a_gpu(providers):  # what the quantiser opens, and what is compared with
            return InferenceSession(path, sess_options, providers=providers, **others)
        ((provider, provider_options),), options = providers, sess_options
        if unknown := [name for name in provider_options if "profile" in name and self._version < (1, 15)]:
            raise RuntimeError(f"Invalid TensorRT EP option: {unknown[0]}")
        self.asked.append(
            (provider, provider_options, options.get_session_config_entry("session.disable_cpu_ep_fallback"))
        )
        plain = onnxruntime.SessionOptions()
        plain.enable_profiling, plain.profile_file_prefix = options.enable_profiling, options.profile_file_prefix
        session = InferenceSession(path, plain, providers=["CPUExecutionProvider"])
        if "trt_engine_cache_path" in provider_options:  # which it writes whenever it is opened
            (Path(provider_options["trt_engine_cache_path"]) / "now.profile").write_text(str(time.time_ns()))
        binding = session.io_binding
        session.get_providers = lambda: [provider]
        session.io_binding = lambda: _HostBinding(binding())
        return session


def _names_a_gpu(providers):
    return any(isinstance(entry, tuple) and entry[0] != "CPUExecutionProvider" for entry in providers)


class _HostBinding:
    """A binding whose device memory is host memory."""

    def __init__(self, real):
        self._iobinding, self._real = real._iobinding, real

    def bind_output(self, name, device="cpu", *arguments):
        self._real.bind_output(name, "cpu", *arguments)

    def __getattr__(self, name):
        return getattr(self._real, name)


def put_onnx_on_a_gpu(monkeypatch, version="1.31.1"):
    """Start ONNX Runtime, of some version, as if on a GPU; return the list of what its sessions are asked for."""
    session = FakeSession(tuple(map(int, version.split(".")[:2])))
    from_numpy = onnxruntime.OrtValue.ortvalue_from_numpy
    monkeypatch.setattr(onnxruntime, "__version__", version)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(onnx._PROVIDERS.values()))
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", lambda array, *device: from_numpy(array))
    monkeypatch.setattr(onnx, "missing_gpu", lambda: None)
    return session.asked


def put_tftrt(monkeypatch, folder):
    """Let this Python, whose TensorFlow has no TF-TRT, be the TF-TRT environment's: it converts to what there was."""
    program, worker = folder / "python", Path(__file__).with_name("stand_in_tftrt_worker.py")
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{worker}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv(tftrt.PYTHON_VARIABLE, str(program))
