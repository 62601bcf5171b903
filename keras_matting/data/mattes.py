"""Which masks of a source are mattes: each is judged by itself (`masks.fault`), and then all of them together.

Class ids scaled to 0 to 255 may look like a matte in one mask, where the largest class is white and the others are no
more than a veil. That the same flat levels come back in mask after mask tells them.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2

from keras_matting.arrays import Uint8
from keras_matting.data import masks
from keras_matting.data.base import Problem, Sample, Source, read_sample, read_truth
from keras_matting.data.prepare import in_threads
from keras_matting.errors import MattingError, first_line

NAMES_SHOWN = 3
_FEWEST = 3  # masks in which a level comes back
_OFTEN = 0.1  # of the masks with flat levels: no veil is found there by chance
_MOST = 0.5  # of the masks with a subject, that the levels which come back explain
_UNREADABLE = (MattingError, OSError, cv2.error, MemoryError)

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """What one mask shows: its `masks.fault`, whether that misleads, and the flat levels it has (`masks.levels`)."""

    fault: tuple[str, str] | None
    misleads: bool = False
    levels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """A source without the samples whose truth would mislead, and these as problems.

    `doubtful`: problems with truths that are used as they are: masks without a subject or a background, faint ones, and
    those that look inverted.
    """

    source: Source
    left_out: tuple[Problem, ...] = ()
    doubtful: tuple[Problem, ...] = ()

    @property
    def shows_nothing(self) -> bool:
        """Whether no mask has both a subject and a background."""
        plain = sum(problem.kind in (masks.EMPTY, masks.WHITE) for problem in self.doubtful)
        return plain == len(self.source.samples)


def judge(source: Source, *, with_photos: bool) -> Judgement:
    """Decode the truths of a source and return its `Judgement`.

    `with_photos`: also decode photos and backgrounds, and leave out what cannot be read; else that is told where it is
    used.
    """
    found = in_threads(lambda sample: _look(source, sample, with_photos), source.samples, "masks")
    looks = together([one if isinstance(one, Look) else None for one in found])
    kept: list[Sample] = []
    left_out: list[Problem] = []
    doubtful: list[Problem] = []
    for sample, one, look in zip(source.samples, found, looks, strict=True):
        problem = one if isinstance(one, Problem) else look and look.fault and _problem(sample, look.fault)
        if problem and (look is None or look.misleads):
            left_out.append(problem)
        else:
            kept.append(sample)
            doubtful += [problem] if problem else []
    backgrounds = source.backgrounds
    if with_photos:
        damaged = in_threads(_damage, backgrounds, "backgrounds")
        backgrounds = tuple(one for one, problem in zip(backgrounds, damaged, strict=True) if not problem)
        left_out += [problem for problem in damaged if problem]
    used = replace(source, samples=tuple(kept), backgrounds=backgrounds) if left_out else source
    return Judgement(used, tuple(left_out), tuple(doubtful))


def counted(problems: Iterable[Problem]) -> str:
    """Return how many problems there are of each kind, as "empty mask (2)"."""
    kinds = Counter(problem.kind for problem in problems)
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())


def first_names(problems: Sequence[Problem]) -> str:
    """Return the first names, and of the first what is wrong and the remedy."""
    names = ", ".join(problem.stem for problem in problems[:NAMES_SHOWN])
    more = ", ..." if len(problems) > NAMES_SHOWN else ""
    return f"{names}{more}; {problems[0].detail}"


def tell_doubtful(judged: Judgement) -> None:
    """Log which masks are used though they look wrong."""
    if problems := judged.doubtful:
        _LOGGER.warning(
            "doubtful in %s, and used; data check names them: %s: %s",
            judged.source.name,
            counted(problems),
            first_names(problems),
        )


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


def _look(source: Source, sample: Sample, with_photo: bool) -> Look | Problem | None:
    """Return how a sample's truth looks, or what is wrong with the sample, or None where there is no truth to see."""
    try:
        alpha = read_sample(sample)[1] if with_photo else read_truth(sample)
    except _UNREADABLE as error:
        return _unreadable(sample, error) if with_photo else None
    if source.kind == "unlabelled":
        return None
    if source.kind == "composite" and (alpha is None or alpha.min() == 255):
        return Problem("no transparency", sample.stem, f"{sample.image} is opaque: no cut-out")
    return None if alpha is None else look(alpha)


def _damage(sample: Sample) -> Problem | None:
    try:
        read_sample(sample)
    except _UNREADABLE as error:
        return _unreadable(sample, error)
    return None


def _unreadable(sample: Sample, error: Exception) -> Problem:
    files = " and ".join(map(str, sample.origins or filter(None, (sample.image, sample.alpha))))
    return Problem("unreadable", sample.stem, f"{files}: {first_line(error)}")


def _problem(sample: Sample, fault: tuple[str, str]) -> Problem:
    file = sample.origins[-1] if sample.origins else sample.alpha or sample.image
    return Problem(fault[0], sample.stem, f"{file}: {fault[1]}")
