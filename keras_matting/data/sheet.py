"""Contact sheets: captioned groups of pictures, in rows, on one page."""

from dataclasses import dataclass

import cv2
import numpy as np

from keras_matting.imaging import composite

_PAGE, _INK = (246, 246, 246), (40, 40, 40)
_MARGIN_PX, _GAP_PX, _SEAM_PX = 24, 18, 2
_CAPTION_PX, _FONT_PX = 22, 13
_SQUARE_PX, _LIGHT, _DARK = 12, 255, 205
_WIDEST = 1.8  # width by height of a picture; what is wider is drawn lower


@dataclass(frozen=True)
class Group:
    """Pictures that belong together, each uint8 (H, W, 3) RGB or (H, W) grey, with one caption above them."""

    caption: str
    pictures: tuple


def contact_sheet(groups, *, height_px=220, width_px=1920):
    """Return the page, uint8 (H, `width_px` at most, 3) RGB: the groups in order, in as few rows as they need.

    Every picture is `height_px` high, lower only where it is very wide.
    """
    drawn = [_draw(group, height_px) for group in groups]
    rows, free = [[]], width_px - 2 * _MARGIN_PX
    for picture in drawn:
        if rows[-1] and free < picture.shape[1]:
            rows, free = [*rows, []], width_px - 2 * _MARGIN_PX
        rows[-1].append(picture)
        free -= picture.shape[1] + _GAP_PX
    strips = [_beside(row, _GAP_PX) for row in rows if row]
    inner = max(strip.shape[1] for strip in strips)
    page = [_widened(strip, inner) for strip in strips]
    return cv2.copyMakeBorder(np.vstack(page), *[_MARGIN_PX] * 4, cv2.BORDER_CONSTANT, value=_PAGE)


def on_checkerboard(rgb, alpha):
    """Return uint8 (H, W, 3): `rgb` cut out by `alpha`, uint8 (H, W), on a checkerboard."""
    rows, columns = np.indices(alpha.shape) // max(1, round(_SQUARE_PX * max(alpha.shape) / 400))
    board = np.where((rows + columns) % 2, _DARK, _LIGHT).astype(np.uint8)
    return composite(rgb, alpha / np.float32(255), cv2.cvtColor(board, cv2.COLOR_GRAY2RGB))


def _draw(group, height_px):
    strip = _beside([_scaled(picture, height_px) for picture in group.pictures], _SEAM_PX)
    caption = np.full((_CAPTION_PX, strip.shape[1], 3), _PAGE, np.uint8)
    font = cv2.FontFace("sans")
    text = _shortened(group.caption, strip.shape[1], font)
    cv2.putText(caption, text, (0, _CAPTION_PX - 7), _INK, font, _FONT_PX)
    return cv2.copyMakeBorder(np.vstack([caption, strip]), 0, _GAP_PX, 0, 0, cv2.BORDER_CONSTANT, value=_PAGE)


def _scaled(picture, height_px):
    """Return the picture as RGB, `height_px` high, with page below it where it is very wide."""
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    rows, columns = picture.shape[:2]
    scale = min(height_px / rows, _WIDEST * height_px / columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return cv2.copyMakeBorder(picture, 0, height_px - size[1], 0, 0, cv2.BORDER_CONSTANT, value=_PAGE)


def _beside(pictures, gap_px):
    parts = [_widened(picture, picture.shape[1] + gap_px) for picture in pictures[:-1]]
    return np.hstack([*parts, pictures[-1]])


def _widened(picture, width_px):
    return cv2.copyMakeBorder(picture, 0, 0, 0, width_px - picture.shape[1], cv2.BORDER_CONSTANT, value=_PAGE)


def _shortened(text, width_px, font):
    """Return the text, without its middle where it is wider than `width_px`."""
    for kept in range(len(text), 0, -1):
        short = text if kept == len(text) else f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
        if cv2.getTextSize((0, 0), short, (0, 0), font, _FONT_PX)[2] <= width_px:
            return short
    return ""
