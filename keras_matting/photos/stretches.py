"""Frames that somebody should look at: not each by itself, but those beside one another as one stretch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from keras_matting.photos.confidence import is_unsure


@dataclass(frozen=True)
class Stretch:
    """Unsure frames beside one another: where the first and the last are, how many, and the confidence of the worst.

    `first` and `last` are seconds from a clip's start, or a stream's frames, counted from 0.
    """

    first: float
    last: float
    frames: int
    confidence: float


class Stretches:
    """The unsure frames of a clip or stream; those at most `gap` apart are one stretch, sure ones between them or not.

    `gap` is in the unit in which frames are added. What is kept grows with the stretches, not with the frames.
    """

    def __init__(self, gap: float) -> None:
        self._gap = gap
        self._found: list[Stretch] = []

    def add(self, position: float, confidence: float) -> None:
        """Note a frame: its confidence as `photos.confidence` counts it, its position not before the last one's."""
        if not is_unsure(confidence):
            return
        last = self._found[-1] if self._found else None
        if last and position - last.last <= self._gap:
            least = min(last.confidence, confidence)
            self._found[-1] = replace(last, last=position, frames=last.frames + 1, confidence=least)
        else:
            self._found.append(Stretch(position, position, 1, confidence))

    @property
    def worst_first(self) -> tuple[Stretch, ...]:
        """The stretches, that with the least sure frame first."""
        return tuple(sorted(self._found, key=lambda stretch: (stretch.confidence, stretch.first)))
