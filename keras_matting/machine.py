"""What this machine is, in the words that artefacts and benchmarks are filed under."""

import functools
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from keras_matting import cgroups
from keras_matting.files import StrPath

# What decides which kernels a runtime picks
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_TIMEOUT_S = 20
_TF32_CAPABILITY = 8.0


class Cpu(TypedDict):
    """A processor: its model, the instruction sets that matter to inference, the cores that this process may use."""

    model: str
    flags: list[str]
    cores: int


class Gpu(TypedDict):
    """The first NVIDIA GPU, as nvidia-smi tells it."""

    name: str
    driver: str
    compute_capability: str


@functools.cache
def cpu() -> Cpu:
    """Return what tells this processor from others."""
    info: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            info.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    flags = set(info.get("flags", "").split())
    return {
        "model": info.get("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in _TELLING_FLAGS if flag in flags],
        "cores": usable_cores(),
    }


def usable_cores(root: StrPath = "/") -> int:
    """Return how many cores this process may use: those it may run on, and no more than its control group's quota.

    Python's own count is taken where it has one, since PYTHON_CPU_COUNT may lower it. `root`: see `cgroups`.
    """
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        cores = os.process_cpu_count()
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cgroups.cpu_quota(root)
    return max(1, min(cores or 1, math.ceil(quota) if quota else sys.maxsize))


def engine_threads() -> int | None:
    """Return how many threads an engine is told to use, or None: without a CPU quota its own choice fits the cores.

    Runtimes count cores and know nothing of quotas: their threads would be halted together for most of each period.
    """
    return usable_cores() if cgroups.cpu_quota() else None


def cpu_name() -> str:
    """Return the processor as one line: model, instruction sets, cores."""
    return f"{cpu()['model']} ({' '.join(cpu()['flags']) or 'no AVX2'}), {cpu()['cores']} cores"


@functools.cache
def gpu() -> Gpu | None:
    """Return the first NVIDIA GPU, or None."""
    try:
        name, driver, capability = nvidia_smi("--query-gpu=name,driver_version,compute_cap")[0]
    except (ValueError, IndexError):
        return None
    return {"name": name, "driver": driver, "compute_capability": capability}


def gpu_name() -> str:
    """Return the GPU as one line, or "no GPU"."""
    found = gpu()
    return f"{found['name']} (compute capability {found['compute_capability']})" if found else "no GPU"


def missing_gpu() -> str | None:
    """Return why a CUDA engine cannot run here, or None."""
    return None if gpu() else "no NVIDIA GPU was found (nvidia-smi lists none)."


def gpu_float32() -> str:
    """Return what GPU runtimes compute float32 convolutions in unless told otherwise: TensorFloat-32 where there is it.

    It has float32's range and ten bits of mantissa, on GPUs of compute capability 8.0 and later. The variable
    NVIDIA_TF32_OVERRIDE=0 forbids it to all of NVIDIA's libraries.
    """
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return "f32"
    return "tf32" if (here := gpu()) and float(here["compute_capability"]) >= _TF32_CAPABILITY else "f32"


def gpu_memory_mb(pids: Iterable[int]) -> int | None:
    """Return the GPU memory that the processes `pids` hold together, in 2^20 bytes; None where no GPU lists them."""
    rows, names = nvidia_smi("--query-compute-apps=pid,used_memory"), set(map(str, pids))
    held = [int(row[-1]) for row in rows if row[0] in names and row[-1].isdecimal()]
    return sum(held) if held else None


def nvidia_smi(query: str) -> list[list[str]]:
    """Return the rows of a query of nvidia-smi as lists of text, none where it cannot be asked."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.split(", ") for line in done.stdout.splitlines()]


def missing_package(package: str, extra: str) -> str | None:
    """Return why an engine cannot run if `package` is not installed, else None; the package is not imported."""
    if find_spec(package) is None:
        return f"the package {package} is not installed; pip install 'keras-matting[{extra}]'."
    return None


def runtime(package: str) -> str:
    """Return the runtime as artefacts are filed under it: "openvino 2026.4.1"."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
