"""Contact sheets: captioned groups of pictures, in rows, on one page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Uint8
from keras_matting.files import printable
from keras_matting.photos.imaging import composite

_Picture = TypeVar("_Picture", bound=npt.NDArray[Any])
_KEPT_PX = 440  # height; enough for rows of twice the usual one
_PAGE, _INK = (246, 246, 246), (40, 40, 40)
_MARGIN_PX, _GAP_PX, _SEAM_PX = 24, 18, 2
_CAPTION_PX, _FONT_PX = 22, 13
_SQUARE_PX, _LIGHT, _DARK = 12, 255, 205


@dataclass(frozen=True)
class Group:
    """Pictures that belong together, each uint8 (H, W, 3) RGB or (H, W) grey, with one caption above them."""

    caption: str
    pictures: tuple[Uint8, ...]


def contact_sheet(groups: Iterable[Group], *, height_px: int = 220, width_px: int = 1920) -> Uint8:
    """Return the page, uint8 (H, at most `width_px`, 3) RGB: the groups in order, in as few rows as they need.

    Pictures are `height_px` high, lower where their group would take more than half of the width.
    """
    inner_px = width_px - 2 * _MARGIN_PX
    rows: list[list[Uint8]] = [[]]
    free_px = inner_px
    for group in groups:
        picture = _draw(group, height_px, (inner_px - _GAP_PX) // 2)
        if rows[-1] and free_px < picture.shape[1]:
            rows, free_px = [*rows, []], inner_px
        rows[-1].append(picture)
        free_px -= picture.shape[1] + _GAP_PX
    strips = [_beside(row, _GAP_PX) for row in rows]
    widest_px = max(strip.shape[1] for strip in strips)
    page = np.vstack([_padded(strip, strip.shape[0], widest_px) for strip in strips])
    sides = (_MARGIN_PX, _MARGIN_PX, _MARGIN_PX, _MARGIN_PX)
    return cv2.copyMakeBorder(page, *sides, cv2.BORDER_CONSTANT, value=_PAGE)


def shrunk(picture: _Picture) -> _Picture:
    """Return a picture (H, W) or (H, W, 3), of any type, at the height that is enough to keep it for a sheet."""
    scale = min(1.0, _KEPT_PX / picture.shape[0])
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    return cast(_Picture, cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def on_checkerboard(rgb: Uint8, alpha: Uint8) -> Uint8:
    """Return uint8 (H, W, 3): `rgb` cut out by `alpha`, uint8 (H, W), on a checkerboard."""
    rows, columns = np.indices(alpha.shape) // max(1, round(_SQUARE_PX * max(alpha.shape) / 400))
    board = np.where((rows + columns) % 2, _DARK, _LIGHT).astype(np.uint8)
    return composite(rgb, alpha / np.float32(255), cv2.cvtColor(board, cv2.COLOR_GRAY2RGB))


def _draw(group: Group, height_px: int, most_px: int) -> Uint8:
    """Return a group, at most `most_px` wide; its pictures stand on a common height, on page where they are lower."""
    seams_px = _SEAM_PX * (len(group.pictures) - 1)
    width_px = sum(height_px * picture.shape[1] / picture.shape[0] for picture in group.pictures)
    scaled_px = height_px * min(1, (most_px - seams_px - len(group.pictures)) / width_px)
    strip = _beside([_scaled(picture, scaled_px) for picture in group.pictures], _SEAM_PX)
    caption = np.full((_CAPTION_PX, strip.shape[1], 3), _PAGE, np.uint8)
    font = cv2.FontFace("sans")
    text = _shortened(printable(group.caption), strip.shape[1], font)
    cv2.putText(caption, text, (0, _CAPTION_PX - 7), _INK, font, _FONT_PX)
    return _padded(np.vstack([caption, strip]), _CAPTION_PX + height_px + _GAP_PX, strip.shape[1])


def _scaled(picture: Uint8, height_px: float) -> Uint8:
    """Return the picture as RGB, about `height_px` high."""
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    scale = height_px / picture.shape[0]
    size = max(1, round(picture.shape[1] * scale)), max(1, round(height_px))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _beside(pictures: Sequence[Uint8], gap_px: int) -> Uint8:
    spaced = [_padded(picture, picture.shape[0], picture.shape[1] + gap_px) for picture in pictures[:-1]]
    return np.hstack([*spaced, pictures[-1]])


def _padded(picture: Uint8, height_px: int, width_px: int) -> Uint8:
    """Return the picture with page below it and to its right, `height_px` high and `width_px` wide."""
    below, right = height_px - picture.shape[0], width_px - picture.shape[1]
    return cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_CONSTANT, value=_PAGE)


def _shortened(text: str, width_px: int, font: cv2.FontFace) -> str:
    """Return the text, without its middle where it is wider than `width_px`."""
    for kept in range(len(text), 0, -1):
        short = text if kept == len(text) else f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
        if cv2.getTextSize((0, 0), short, (0, 0), font, _FONT_PX)[2] <= width_px:
            return short
    return ""
