"""Shop pictures, the geometry: where the subject of a matte is, and where it goes on a canvas; `placing` draws them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keras_matting.errors import UsageError

OPTIONS = ("crop", "margin", "canvas", "position", "scale", "shadow")
SHADOWS = ("off", "soft")
MAX_CANVAS_MEGAPIXELS = 100
# How far the soft shadow reaches over the subject, as a share of its longer side: top, right, bottom, left
_SHADOW_REACH = (0.03, 0.05, 0.07, 0.05)
_LENGTH = re.compile(r"(\d{1,5}(?:\.\d{1,3})?)(px|%)|0")
_CANVAS = re.compile(r"(\d{1,6})\s*[xX×]\s*(\d{1,6})")
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)%")
_HORIZONTAL, _VERTICAL = {"left": 0.0, "right": 1.0}, {"top": 0.0, "bottom": 1.0}


class CanvasTooLargeError(UsageError):
    """A canvas, or a crop with its margins, has too many pixels."""


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns) of an array."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class Placement(NamedTuple):
    """A `box` of a photo, scaled to the size of `target`, its place on a canvas of `size` (height, width).

    `subject`: where the subject is on it: the target itself, but for a photo that stays whole.
    """

    box: Box
    target: Box
    size: tuple[int, int]
    subject: Box


class Length(NamedTuple):
    """Pixels of the output, and a share of the subject's box in the same direction."""

    px: float = 0.0
    share: float = 0.0


@dataclass(frozen=True)
class Framing:
    """What is asked of a shop picture, understood; `of` reads it.

    `margin`: top, right, bottom, left. `canvas`: (width, height), None: the photo's size, or with `crop` the subject's
    with its margins. `position`: (across, down), the shares of the free space that are left of it and above, None where
    the subject stays in its place. `scale`: the most of the canvas that the subject fills, as far as margins let it; 0
    is its size in the photo.
    """

    crop: bool = False
    margin: tuple[Length, Length, Length, Length] = (Length(),) * 4
    canvas: tuple[int, int] | None = None
    position: tuple[float, float] | None = None
    scale: float = 0.0
    shadow: bool = False

    @staticmethod
    def of(
        crop: bool = False,
        margin: str | None = None,
        canvas: str | Sequence[int] | None = None,
        position: str | None = None,
        scale: str | None = None,
        shadow: str | None = None,
    ) -> Framing | None:
        """Return what the options of `predict` and `matte` ask for, None where that is nothing; raises `UsageError`."""
        size = None if canvas is None else _canvas_of(canvas)
        share, place = _scale_of(scale), _position_of(position)
        if shadow not in (None, *SHADOWS):
            raise UsageError(f"Expected a shadow out of {', '.join(SHADOWS)}; received {str(shadow)[:40]!r}.")
        if margin is not None and not crop and size is None:
            raise UsageError("Expected a crop or a canvas to keep a margin in; received neither. Ask for one of them.")
        if crop and size is None and (share or place):
            raise UsageError(
                "Expected a canvas to scale and position the subject on; received a crop, which leaves no room. Give a "
                "canvas, or leave out the crop, for one of the photo's size."
            )
        if size or share:
            if position is not None and place is None:
                raise UsageError("Expected a position on the canvas, as center; received 'original'. Name another.")
            place = place or (0.5, 0.5)
        if share is None:
            share = 1.0 if size else 0.0
        framing = Framing(crop, _margin_of(margin), size, place, share, shadow == "soft")
        if size:
            framing._check_margins(size)
        return None if framing == Framing() else framing

    def place(self, box: Box, height: int, width: int) -> Placement:
        """Return where the subject's box in a photo of height and width goes; raises `UsageError` where it does not.

        Without a crop, a canvas, a position and a scale the whole photo stays as it is.
        """
        if self.canvas is None and self.position is None and not self.crop:
            whole = Box(0, 0, width, height)
            return Placement(whole, whole, (height, width), box)
        if self.canvas is None and self.crop:
            top, right, bottom, left = self._sides(box, 1)
            size = (top + box.height + bottom, left + box.width + right)
            _check_canvas(size[1], size[0])
            target = box._replace(left=left, top=top)
            return Placement(box, target, size, target)
        canvas = self.canvas or (width, height)
        factor = self._factor(box, canvas)
        scaled_width, scaled_height = (max(1, round(side * factor)) for side in (box.width, box.height))
        top, right, bottom, left = self._sides(box, factor)
        if self.scale == 0 and (left + scaled_width + right > canvas[0] or top + scaled_height + bottom > canvas[1]):
            top, right, bottom, left = self._margins(box, factor)  # at its own size, a shadow has what room there is
        across, down = self.position or (0.5, 0.5)
        x = _between(left, canvas[0] - right - scaled_width, across, canvas[0] - scaled_width)
        y = _between(top, canvas[1] - bottom - scaled_height, down, canvas[1] - scaled_height)
        target = Box(x, y, scaled_width, scaled_height)
        return Placement(box, target, (canvas[1], canvas[0]), target)

    def largest(self, height: int, width: int) -> int:
        """Return the most pixels that an output of a photo of height and width can have, either way up."""
        if self.canvas is not None:
            return self.canvas[0] * self.canvas[1]
        if not self.crop:
            return height * width
        most = 0
        for box in (Box(0, 0, width, height), Box(0, 0, height, width)):
            top, right, bottom, left = self._sides(box, 1)
            most = max(most, (top + box.height + bottom) * (left + box.width + right))
        return min(most, MAX_CANVAS_MEGAPIXELS * 10**6)

    def _factor(self, box: Box, canvas: tuple[int, int]) -> float:
        """Return what the subject's box is multiplied by."""
        top, right, bottom, left = self.margin
        room = min(_room(canvas[0], box.width, left, right), _room(canvas[1], box.height, top, bottom))
        if round(room * max(box.width, box.height)) < 1:
            raise UsageError(
                f"Expected margins that leave room for the subject of {box.width}x{box.height}; received ones that "
                f"leave none on {canvas[0]}x{canvas[1]}. Make them smaller."
            )
        if self.scale == 0:
            if room < 1:
                raise UsageError(
                    f"Expected a canvas that holds the subject of {box.width}x{box.height} at its original size; "
                    f"received {canvas[0]}x{canvas[1]}. Enlarge it, or choose another scale."
                )
            return 1
        room = min(room, self.scale * canvas[0] / box.width, self.scale * canvas[1] / box.height)
        if not self.shadow:
            return room
        up, aside, down, _ = (reach * max(box.width, box.height) for reach in _SHADOW_REACH)
        for margins, extent, side, reach in (
            ((left, right), canvas[0], box.width, (aside, aside)),
            ((top, bottom), canvas[1], box.height, (up, down)),
        ):
            shadows = [Length(0, one / side) for one in reach]
            for first in (margins[0], shadows[0]):
                for last in (margins[1], shadows[1]):
                    room = min(room, _room(extent, side, first, last))
        return room

    def _sides(self, box: Box, factor: float) -> tuple[int, int, int, int]:
        """Return what is kept free around a subject: its margins, and more where its shadow needs more."""
        margins = self._margins(box, factor)
        if not self.shadow:
            return margins
        longer = max(box.width, box.height) * factor
        top, right, bottom, left = (
            max(one, math.ceil(reach * longer)) for one, reach in zip(margins, _SHADOW_REACH, strict=True)
        )
        return top, right, bottom, left

    def _margins(self, box: Box, factor: float) -> tuple[int, int, int, int]:
        along = (box.height, box.width, box.height, box.width)
        top, right, bottom, left = (
            round(one.px + one.share * side * factor) for one, side in zip(self.margin, along, strict=True)
        )
        return top, right, bottom, left

    def _check_margins(self, canvas: tuple[int, int]) -> None:
        top, right, bottom, left = (one.px for one in self.margin)
        if canvas[0] - left - right < 1 or canvas[1] - top - bottom < 1:
            raise UsageError(
                f"Expected margins that leave room on a canvas of {canvas[0]}x{canvas[1]}; received "
                f"{left + right:g} pixels across and {top + bottom:g} down. Make them smaller."
            )


def _room(extent: int, side: int, first: Length, last: Length) -> float:
    """Return the largest factor for a side that, with its margins, fits into an extent."""
    return (extent - first.px - last.px) / (side * (1 + first.share + last.share))


def _between(first: int, last: int, share: float, most: int) -> int:
    """Return the place between two that is a share of the way, within the canvas, whatever rounding did."""
    return min(max(round(first + (last - first) * share), 0), most)


def _margin_of(text: str | None) -> tuple[Length, Length, Length, Length]:
    """Read one, two or four lengths, in the order of CSS: top, right, bottom, left."""
    words = ["0"] if text is None else re.split(r"[\s,]+", str(text).strip())
    matches = [_LENGTH.fullmatch(word) for word in words]
    if len(words) not in (1, 2, 4) or not all(matches):
        raise UsageError(
            f"Expected a margin of one, two or four values, as 3% or '30px 5%'; received {str(text)[:40]!r}."
        )
    read = [
        Length(px=float(match[1])) if match[2] == "px" else Length(share=float(match[1] or 0) / 100)
        for match in matches
        if match
    ]
    top, right, bottom, left = read * (4 // len(read))
    return top, right, bottom, left


def _canvas_of(value: str | Sequence[int]) -> tuple[int, int]:
    text = value if isinstance(value, str) else "x".join(map(str, value)) if isinstance(value, Iterable) else str(value)
    match = _CANVAS.fullmatch(text.strip())
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(width, height) < 1:
        raise UsageError(f"Expected a canvas as WIDTHxHEIGHT in pixels, as 1600x2000; received {str(value)[:40]!r}.")
    _check_canvas(width, height)
    return width, height


def _check_canvas(width: int, height: int) -> None:
    if width * height > MAX_CANVAS_MEGAPIXELS * 10**6:
        raise CanvasTooLargeError(
            f"Expected a canvas of at most {MAX_CANVAS_MEGAPIXELS} megapixels; received {width}x{height} "
            f"({math.ceil(width * height / 1e4) / 100:g}). Make it, or the margins, smaller."
        )


def _scale_of(text: str | None) -> float | None:
    if text is None:
        return None
    word = str(text).strip().lower()
    if word == "original":
        return 0.0
    match = _PERCENT.fullmatch(word)
    if not match or not 1 <= float(match[1]) <= 100:
        raise UsageError(f"Expected a scale from 1% to 100%, or original; received {str(text)[:40]!r}.")
    return float(match[1]) / 100


def _position_of(text: str | None) -> tuple[float, float] | None:
    """Read center, top, bottom-right, or one or two percentages (across, down); original is None."""
    words = [] if text is None else re.split(r"[\s,-]+", str(text).strip().lower())
    if words in ([], ["original"]):
        return None
    if all(_PERCENT.fullmatch(word) for word in words) and len(words) <= 2:
        across, down = ([float(word[:-1]) / 100 for word in words] * 2)[:2]
        if max(across, down) <= 1:
            return across, down
    names = [word for word in words if word != "center"]
    across_names, down_names = ([word for word in names if word in known] for known in (_HORIZONTAL, _VERTICAL))
    if len(words) <= 2 and len(across_names) <= 1 and len(down_names) <= 1 and {*across_names, *down_names} == {*names}:
        return (
            _HORIZONTAL[across_names[0]] if across_names else 0.5,
            _VERTICAL[down_names[0]] if down_names else 0.5,
        )
    raise UsageError(
        f"Expected a position as center, top, bottom-left and so on, or 'X% Y%' of at most 100%; received "
        f"{str(text)[:40]!r}."
    )
