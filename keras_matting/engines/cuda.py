"""What a TensorRT engine, and whoever times one, needs of the CUDA runtime, by ctypes: no further package."""

from __future__ import annotations

import ctypes
import functools
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_matting.errors import EngineError

_TO_DEVICE, _TO_HOST = 1, 2
_CAPTURE_THIS_THREAD = 1


@functools.cache
def _runtime() -> ctypes.CDLL:
    packaged = Path(sysconfig.get_paths()["purelib"]).glob("nvidia/**/libcudart.so*")
    for name in (*map(str, packaged), "libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise EngineError("The CUDA runtime (libcudart) was not found; install nvidia-cuda-runtime for your driver.")


def _call(function: str, *arguments: Any) -> None:
    status = getattr(_runtime(), function)(*arguments)
    if status != 0:
        raise EngineError(f"CUDA: {function} failed with status {status}; check the driver with nvidia-smi.")


class Stream:
    """A CUDA stream."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()
        _call("cudaStreamCreate", ctypes.byref(self.handle))

    def synchronize(self) -> None:
        """Wait until everything queued has run."""
        _call("cudaStreamSynchronize", self.handle)

    def close(self) -> None:
        """Destroy the stream."""
        _call("cudaStreamDestroy", self.handle)


class Buffer:
    """Device memory that grows with the largest array it has held."""

    def __init__(self) -> None:
        self.address, self._bytes = ctypes.c_void_p(), 0

    def reserve(self, nbytes: int) -> int | None:
        """Make room; return the device address as an integer."""
        if nbytes > self._bytes:
            self.close()
            _call("cudaMalloc", ctypes.byref(self.address), ctypes.c_size_t(nbytes))
            self._bytes = nbytes
        return self.address.value

    def upload(self, array: npt.NDArray[np.generic], stream: Stream) -> None:
        """Queue a copy of a contiguous array to the device."""
        self.reserve(array.nbytes)
        _copy(self.address, ctypes.c_void_p(array.ctypes.data), array.nbytes, _TO_DEVICE, stream)

    def download(self, array: npt.NDArray[np.generic], stream: Stream) -> None:
        """Queue a copy from the device into a contiguous array."""
        _copy(ctypes.c_void_p(array.ctypes.data), self.address, array.nbytes, _TO_HOST, stream)

    def close(self) -> None:
        """Free the memory."""
        if self._bytes:
            _call("cudaFree", self.address)
            self._bytes = 0


def _copy(target: ctypes.c_void_p, source: ctypes.c_void_p, nbytes: int, direction: int, stream: Stream) -> None:
    _call("cudaMemcpyAsync", target, source, ctypes.c_size_t(nbytes), ctypes.c_int(direction), stream.handle)


class PinnedArray:
    """An `array` in host memory that the device reads and writes without the driver's own copy."""

    def __init__(self, shape: Sequence[int], dtype: npt.DTypeLike = np.float32) -> None:
        self._address, size = ctypes.c_void_p(), int(np.prod(shape)) * np.dtype(dtype).itemsize
        _call("cudaMallocHost", ctypes.byref(self._address), ctypes.c_size_t(size))
        memory = (ctypes.c_byte * size).from_address(self._address.value or 0)
        self.array: npt.NDArray[Any] | None = np.frombuffer(memory, dtype).reshape(shape)

    def close(self) -> None:
        """Free the memory; `array` is not used afterwards."""
        self.array = None
        _call("cudaFreeHost", self._address)


class Event:
    """A point in a stream's work, at which the device notes the time."""

    def __init__(self) -> None:
        self._handle = ctypes.c_void_p()
        _call("cudaEventCreate", ctypes.byref(self._handle))

    def record(self, stream: Stream) -> None:
        """Queue this point."""
        _call("cudaEventRecord", self._handle, stream.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Wait for this point and return the device's time since another."""
        elapsed = ctypes.c_float()
        _call("cudaEventSynchronize", self._handle)
        _call("cudaEventElapsedTime", ctypes.byref(elapsed), earlier._handle, self._handle)
        return elapsed.value

    def close(self) -> None:
        """Destroy the event."""
        _call("cudaEventDestroy", self._handle)


class Graph:
    """What `queue()` puts into a stream, recorded once, to be launched by a single call."""

    def __init__(self, stream: Stream, queue: Callable[[], None]) -> None:
        self._stream, self._graph, self._executable = stream, ctypes.c_void_p(), ctypes.c_void_p()
        _call("cudaStreamBeginCapture", stream.handle, ctypes.c_int(_CAPTURE_THIS_THREAD))
        queue()
        _call("cudaStreamEndCapture", stream.handle, ctypes.byref(self._graph))
        _call("cudaGraphInstantiateWithFlags", ctypes.byref(self._executable), self._graph, ctypes.c_ulonglong(0))

    def launch(self) -> None:
        """Queue it all."""
        _call("cudaGraphLaunch", self._executable, self._stream.handle)

    def close(self) -> None:
        """Destroy the graph."""
        _call("cudaGraphExecDestroy", self._executable)
        _call("cudaGraphDestroy", self._graph)
