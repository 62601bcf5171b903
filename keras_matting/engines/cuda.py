"""The five calls of the CUDA runtime that a TensorRT engine needs, by ctypes: no further package."""

import ctypes
import functools
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_matting.errors import EngineError

_TO_DEVICE, _TO_HOST = 1, 2


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
