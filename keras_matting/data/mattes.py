"""Which masks of a source are mattes: each is judged by itself (`masks.fault`), and then all of them together.

Class ids scaled to 0 to 255 may look like a matte in one mask, where the largest class is white and the others are no
more than a veil. That the same flat levels come back in mask after mask tells them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from keras_matting.arrays import Uint8
from keras_matting.data import masks
from keras_matting.data.base import Problem, Sample, Source, read_truth
from keras_matting.data.prepare import in_threads
from keras_matting.errors import MattingError

_FEWEST = 3  # masks in which a level comes back
_OFTEN = 0.1  # of the masks with flat levels: no veil is found there by chance
_MOST = 0.5  # of the masks with a subject, that the levels which come back explain


@dataclass(frozen=True)
class Look:
    """What one mask shows: its `masks.fault`, whether that misleads, and the flat levels it has (`masks.levels`)."""

    fault: tuple[str, str] | None
    misleads: bool = False
    levels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """A source without the samples whose truth would mislead, and these as problems."""

    source: Source
    left_out: tuple[Problem, ...] = ()


def judge(source: Source) -> Judgement:
    """Decode the truths of a source and return its `Judgement`; what cannot be read is told where it is used."""
    found = in_threads(lambda sample: _look(source, sample), source.samples, "masks")
    looks = together([one if isinstance(one, Look) else None for one in found])
    problems = [
        one if isinstance(one, Problem) else look and look.misleads and look.fault and _problem(sample, look.fault)
        for sample, one, look in zip(source.samples, found, looks, strict=True)
    ]
    left_out = tuple(problem for problem in problems if problem)
    kept = tuple(sample for sample, problem in zip(source.samples, problems, strict=True) if not problem)
    return Judgement(replace(source, samples=kept) if left_out else source, left_out)


def look(alpha: Uint8) -> Look:
    """Return what a mask, uint8 (H, W), shows by itself."""
    return Look(masks.fault(alpha), masks.misleading(alpha) is not None, masks.levels(alpha))


def together(looks: Sequence[Look | None]) -> list[Look | None]:
    """Return the looks of a source's masks (None: there is none), judged as a set: class maps are found by it."""
    shown = [one for one in looks if one and not (one.fault and one.fault[0] == masks.EMPTY)]
    recurring = _recurring([one.levels for one in shown])
    return [one if one is None or one.misleads else _in_set(one, recurring) for one in looks]


def _in_set(look: Look, recurring: set[int]) -> Look:
    levels = [level for level in look.levels if level in recurring]
    return replace(look, fault=masks.class_map(levels, " as in other masks"), misleads=True) if levels else look


def _recurring(levels: Sequence[Iterable[int]]) -> set[int]:
    """Return the levels that come back, if most masks have some of them."""
    flat = [set(one) for one in levels if one]
    counts = Counter(level for one in flat for level in one)
    recurring = {level for level, count in counts.items() if count >= max(_FEWEST, _OFTEN * len(flat))}
    return recurring if sum(bool(one & recurring) for one in flat) > _MOST * len(levels) else set()


def _look(source: Source, sample: Sample) -> Look | Problem | None:
    """Return how a sample's truth looks, or what is wrong with the sample, or None where there is no truth to see."""
    try:
        alpha = read_truth(sample)
    except (MattingError, OSError):
        return None
    if source.kind == "composite" and (alpha is None or alpha.min() == 255):
        return Problem("no transparency", sample.stem, f"{sample.image} is opaque: no cut-out")
    return None if alpha is None else look(alpha)


def _problem(sample: Sample, fault: tuple[str, str]) -> Problem:
    return Problem(fault[0], sample.stem, f"{sample.alpha or sample.image}: {fault[1]}")
