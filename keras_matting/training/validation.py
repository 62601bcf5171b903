"""What a run is judged by: validation sources, their names, and the figures that may choose the best epoch."""

import re
from collections.abc import Sequence
from pathlib import PurePath

from keras_matting.errors import UsageError

RESERVED = "worst"
_NAMED = re.compile(r"([A-Za-z][\w-]*)=(.+)", re.DOTALL)


def named(specs: Sequence[str]) -> list[tuple[str, str]]:
    """Return [(name, spec)] of validation specs, each `NAME=SPEC`, or named after what it reads.

    Raises `UsageError` if a name is given twice, or is that of the worst of them. Names that are derived get a number
    where they would collide.
    """
    given = [_NAMED.fullmatch(spec) for spec in specs]
    taken = [match[1] for match in given if match]
    for name in taken:
        if name == RESERVED or taken.count(name) > 1:
            raise UsageError(f"Expected names of validation data, each once, none {RESERVED}; received {name}=...")
    pairs: list[tuple[str, str]] = []
    for match, spec in zip(given, specs, strict=True):
        name = match[1] if match else _derived(spec, {RESERVED, *taken, *(name for name, _ in pairs)})
        pairs.append((name, match[2] if match else spec))
    return pairs


def source_names(specs: Sequence[str]) -> tuple[str, ...]:
    """Return the names by which figures are told: none where there is one source, whose figures are the whole's."""
    return tuple(name for name, _ in named(specs)) if len(specs) > 1 else ()


def monitors(specs: Sequence[str]) -> tuple[str, ...]:
    """Return the figures that may choose the best epoch: of all sources, of the worst, and of each by name."""
    parts = ["", *(f"{name}_" for name in (RESERVED, *source_names(specs)) if len(specs) > 1)]
    return tuple(f"val_{part}{figure}" for part in parts for figure in ("miou", "mae"))


def is_better_higher(monitor: str) -> bool:
    """Whether a greater value of this figure is the better one."""
    return monitor.endswith("miou")


def _derived(spec: str, taken: set[str]) -> str:
    """Return a name of letters, digits, `-` and `_` after the spec's first path."""
    path = spec.partition(":")[2] or spec
    stem = PurePath(path.split(",")[0].partition("@")[0]).stem
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "set"
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(other for other in numbered if other not in taken)
