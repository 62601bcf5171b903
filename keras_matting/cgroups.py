"""What Linux lets this process have: the limits of its control groups, of either version, and of those above.

A container's limit is set on its group or on one above it, so the least of all counts. `root` is where /proc and /sys
are found; every function reads anew, and gives None where there is no limit or no control group.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from keras_matting.files import StrPath

_NO_LIMIT = 2**60  # version 1 writes about the largest integer where nothing was set


def cpu_quota(root: StrPath = "/") -> float | None:
    """Return how many cores' worth of time this process may use, a float, or None."""
    quotas = []
    for group in _groups("cpu", root):
        words = _words(group / "cpu.max") or (
            *_words(group / "cpu.cfs_quota_us"),
            *_words(group / "cpu.cfs_period_us"),
        )
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):  # else "max", or -1
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def usable_memory(root: StrPath = "/") -> int | None:
    """Return how many bytes this process can have at most: the machine's, or its group's; None if neither is known."""
    return min(filter(None, (memory_limit(root), physical_memory())), default=None)


def memory_limit(root: StrPath = "/") -> int | None:
    """Return how many bytes this process and the others of its group may use, or None."""
    files = ("memory.max", "memory.high", "memory.limit_in_bytes")
    found = [_words(group / file) for group in _groups("memory", root) for file in files]
    limits = [int(words[0]) for words in found if words and words[0].isdecimal()]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def physical_memory() -> int | None:
    """Return the machine's memory in bytes, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _groups(controller: str, root: StrPath) -> Iterator[Path]:
    """Yield the folders of this process's groups that have `controller`, each before the one above it."""
    root = Path(root)
    paths: dict[str, str] = {}  # of this process within each hierarchy, by controller; version 2 has no name
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        top, place = (_unescaped(field) for field in fields.split(" ")[3:5])
        if kind == "cgroup2":
            name = ""
        elif kind == "cgroup" and controller in options.split(" ")[-1].split(","):
            name = controller
        else:
            continue
        if name in paths:
            yield from _upwards(root / place.lstrip("/"), top, paths[name])


def _upwards(mounted: Path, top: str, path: str) -> Iterator[Path]:
    """Yield the folder of the group `path` and those above it; `mounted` shows the hierarchy from `top` downward.

    In a container the path may be the host's, of which nothing is mounted but the container's own group, as `top`.
    """
    group = PurePosixPath(path)
    below = group.relative_to(top) if group.is_relative_to(top) and ".." not in group.parts else PurePosixPath()
    for part in (below, *below.parents):
        yield mounted / part


def _unescaped(text: str) -> str:
    """Return a field of mountinfo as it is meant: blanks and backslashes are written in octal."""
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (OSError, ValueError):
        return []
