"""What else the machine was doing while engines were timed, as Linux counts it; nothing is told where it does not."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_matting.machine import usable_cores

# The share of the usable cores that others took, on average, from which on the machine is called busy: system services
# take less.
BUSY_SHARE = 0.1
_STAT = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_WORKING = ("user", "nice", "system", "irq", "softirq")


class Load:
    """The processor time that others than this process and its children took, lap by lap."""

    def __init__(self) -> None:
        self._before, self._load_before = _processor_seconds(), _load_average()
        self.laps: list[dict[str, float]] = []

    def lap(self, keep: bool = True) -> None:
        """Note what others took since the last lap, in cores; "stolen" is what the hypervisor gave to other guests.

        Where it is not to `keep`, a lap only begins.
        """
        now, before = _processor_seconds(), self._before
        self._before = now
        if not keep or now is None or before is None or now["time"] <= before["time"]:
            return
        spent = {key: (now[key] - before[key]) / (now["time"] - before["time"]) for key in ("all", "own", "stolen")}
        others = max(0.0, spent["all"] - spent["own"])
        self.laps.append({"others": round(others, 2), "stolen": round(max(0.0, spent["stolen"]), 2)})

    def summary(self) -> dict[str, Any]:
        """Return what goes into the report: load averages, cores taken in each round, and whether that was much."""
        taken = [lap["others"] + lap["stolen"] for lap in self.laps]
        mean, cores = (sum(taken) / len(taken) if taken else None), usable_cores()
        return {
            "load_average": self._load_before and {"before": self._load_before, "after": _load_average()},
            "cores": cores,
            "rounds": self.laps,
            "cores_taken": None if mean is None else round(mean, 2),
            "busy": mean is not None and mean > BUSY_SHARE * cores,
        }


def sentence(summary: Mapping[str, Any]) -> str:
    """Return "The machine was busy: ...", or "" where it was not or cannot be known."""
    if not summary["busy"]:
        return ""
    taken, cores = summary["cores_taken"], summary["cores"]
    return f"The machine was busy: {taken:.1f} of {cores} cores were used by others. Benchmark again when it is quiet."


def described(summary: Mapping[str, Any]) -> str:
    """Return the load in a line, with `sentence` where the machine was busy."""
    average, taken = summary["load_average"], summary["cores_taken"]
    told = "" if average is None else f"Load average {average['before'][0]} before, {average['after'][0]} after. "
    if summary["busy"]:
        return told + sentence(summary)
    return told + ("" if taken is None else f"Others used {taken:.1f} of {summary['cores']} cores.")


def _load_average() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def _processor_seconds() -> dict[str, float] | None:
    """Return seconds now, worked by this process and its children ("own"), by all, and stolen; None where not counted.

    Of the processors that this process may use only: what others do on the rest costs nothing here.
    """
    usable = {f"cpu{index}" for index in os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else set()
    try:
        rows = [line.split() for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    counts = [dict(zip(_STAT, map(int, row[1:]), strict=False)) for row in rows if row and row[0] in usable]
    if not any(map(any, (count.values() for count in counts))):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    working = sum(count.get(key, 0) for count in counts for key in _WORKING)
    stolen = sum(count.get("steal", 0) for count in counts)
    own = _process_seconds(os.getpid())
    return {"time": time.monotonic(), "own": own, "all": working / ticks, "stolen": stolen / ticks}


def _process_seconds(pid: int | str) -> float:
    """Return the processor seconds of a process, its live children's and its dead ones'; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        children = [
            child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
        ]
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + sum(_process_seconds(child) for child in children)
