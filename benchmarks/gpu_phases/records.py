"""Figures on disk: one JSON file each, written when it is there, so that a phase that is cut goes on where it was."""

import json
import platform
import time
from datetime import datetime, timezone
from importlib.metadata import distributions

from keras_matting.files import write_atomically
from keras_matting.machine import gpu, nvidia_smi

_STATE = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "clocks_throttle_reasons.active")
_PACKAGES = ("numpy", "tensorflow", "tensorrt", "tensorrt", "torch", "jax", "onnx", "onnxruntime", "cuda", "cudnn")


class Records:
    """The figures of one folder, each filed under its phase and what it is of."""

    def __init__(self, folder):
        self._folder = folder

    def has(self, phase, *names):
        return self._path(phase, names).is_file()

    def write(self, phase, *names, **content):
        content = {"phase": phase, "names": names, "date": _now(), "python": platform.python_version(), **content}
        write_atomically(self._path(phase, names), (json.dumps(content, indent=2) + "\n").encode())

    def read(self, phase):
        """Return every record of a phase, in the order of their names."""
        return [json.loads(path.read_text()) for path in sorted(self._folder.glob(f"{phase}.*.json"))]

    def _path(self, phase, names):
        return self._folder / ".".join([phase, *map(str, names), "json"])


class Budget:
    """The seconds that a phase may take: it starts nothing new when they are used up, and says what it left."""

    def __init__(self, seconds):
        self._end = time.monotonic() + seconds

    def is_left(self):
        return time.monotonic() < self._end


def card():
    """Return what the figures are of: the GPU, its driver and its power limit."""
    rows = nvidia_smi("--query-gpu=power.limit,clocks.max.sm,clocks.max.mem")
    names = ("power_limit_w", "max_sm_mhz", "max_memory_mhz")
    return (gpu() or {}) | dict(zip(names, rows[0] if rows else (), strict=False))


def state():
    """Return the GPU's clocks, power and temperature now, {} where it does not tell."""
    rows = nvidia_smi(f"--query-gpu={','.join(_STATE)}")
    return dict(zip(_STATE, rows[0], strict=False)) if rows else {}


def versions():
    """Return the versions of what may have a part in the figures."""
    names = {dist.metadata["Name"]: dist.version for dist in distributions() if dist.metadata["Name"]}
    return {name: names[name] for name in sorted(names, key=str.lower) if any(part in name for part in _PACKAGES)}


def _now():
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
