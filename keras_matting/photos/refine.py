"""Optional finishing with pymatting: clean foreground colours, and a sharper matte in the unknown band."""

import logging
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import cv2
import numpy as np

from keras_matting.arrays import Bools, Float32, Floats, Uint8
from keras_matting.errors import ImageError, LackingError, UsageError, first_line

_LOGGER = logging.getLogger(__name__)
_Array = TypeVar("_Array", Uint8, Float32)
KNOWN_FOREGROUND, KNOWN_BACKGROUND = 0.95, 0.05
BAND_FRACTION = 1 / 100  # of the photo's longer side: how far the band reaches beyond uncertain pixels
# Closed-form matting solves for every pixel: a megapixel takes some ten seconds and a gigabyte.
MAX_REFINED_PIXELS = 1_000_000
MAX_FOREGROUND_PIXELS = 2_000_000  # estimated together; each takes some seventy bytes
_BAND_PIXELS = 2**16
_WINDOW = 3  # closed-form matting looks at 3x3 pixels


def estimate_foreground(rgb: Uint8, matte: Floats) -> Uint8:
    """Return the colours that the subject has by itself, uint8 (H, W, 3), where the background shines through.

    Multi-level estimation (Germer et al., https://arxiv.org/abs/2006.14970). `rgb` uint8 (H, W, 3), `matte` float
    (H, W) in [0, 1]. Pixels that are opaque or transparent keep the photo's colours, so what is looked at is the soft
    pixels' bounding box. Above `MAX_FOREGROUND_PIXELS` that is done at a smaller scale, and each soft pixel then gets
    the colours nearest to those found that add up to the photo's own. Needs the `refine` extra.
    """
    pymatting = _pymatting()

    alpha = cv2.convertScaleAbs(matte, alpha=255)  # softer than 8 bits can tell is not soft
    soft = cv2.inRange(alpha, 1, 254)
    if not soft.any() or matte.size == 1:  # pymatting divides by its side less one
        return rgb
    box = _bounding_box(soft, margin=round(max(matte.shape) * BAND_FRACTION) + 1)
    scale = min(1.0, (MAX_FOREGROUND_PIXELS / matte[box].size) ** 0.5)
    # float32 is what pymatting computes in; anything else it would copy
    colours, subject = (
        _scaled(rgb[box], scale) * np.float32(1 / 255),
        _scaled(np.asarray(matte[box], np.float32), scale),
    )
    layers = pymatting.estimate_foreground_ml(colours, subject, return_background=True)
    result = rgb.copy()
    _fill(result[box], soft[box], matte[box], layers)
    return result


def _fill(photo: Uint8, soft: Uint8, matte: Floats, layers: tuple[Float32, Float32]) -> None:
    """Put the subject's colours where `soft` says; `layers`: estimated (foreground, background), perhaps smaller."""
    height, width = matte.shape
    same_size = layers[0].shape[:2] == matte.shape
    step = max(1, _BAND_PIXELS // width)
    for top in range(0, height, step):
        rows = slice(top, min(height, top + step))
        wanted = soft[rows] > 0
        if not wanted.any():
            continue
        if same_size:
            colours = layers[0][rows][wanted]
        else:
            subject, rest = (_enlarged(layer, rows, (height, width))[wanted] for layer in layers)
            share = matte[rows][wanted][:, None].astype(np.float32)
            missing = photo[rows][wanted] * np.float32(1 / 255) - share * subject - (1 - share) * rest
            colours = subject + share * missing / (share**2 + (1 - share) ** 2)
        photo[rows][wanted] = np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def _enlarged(layer: Float32, rows: slice, size: tuple[int, int]) -> Float32:
    """Return rows of `layer` (h, w, 3) as they are when it is scaled to `size` (height, width), linearly."""
    height, width = size
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * (layer.shape[0] / height) - 0.5
    x = (np.arange(width, dtype=np.float32) + 0.5) * (layer.shape[1] / width) - 0.5
    x, y = np.meshgrid(x, y)
    return cv2.remap(layer, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _scaled(image: _Array, scale: float, interpolation: int = cv2.INTER_AREA) -> _Array:
    """Return the image with its sides times `scale`, itself where that is 1."""
    if scale == 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=interpolation)


@dataclass(frozen=True)
class Thresholds:
    """Where a matte counts as certain, in rembg's way: beyond two values, and so many pixels away from the rest.

    Raises `UsageError` unless 0 <= background <= foreground <= 1 and `erode_px` >= 0.
    """

    foreground: float = 240 / 255
    background: float = 10 / 255
    erode_px: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.background <= self.foreground <= 1:
            raise UsageError(
                f"Expected thresholds from 0 to 1, the foreground's not below the background's; received "
                f"{self.foreground:.3g} and {self.background:.3g} ({self.foreground * 255:.0f} and "
                f"{self.background * 255:.0f} of 255). Give the foreground's first."
            )
        if self.erode_px < 0:
            raise UsageError(f"Expected 0 or more pixels to erode; received {self.erode_px}.")

    def trimap(self, matte: Floats) -> Float32:
        """Return float32 (H, W): 1, 0, or 0.5 where the matte (H, W) in [0, 1] is uncertain."""
        kernel = np.ones((max(1, self.erode_px),) * 2, np.uint8)
        sure, empty = (
            cv2.erode(mask.astype(np.uint8), kernel) for mask in (matte > self.foreground, matte < self.background)
        )
        trimap = np.full(matte.shape, 0.5, np.float32)
        trimap[empty == 1] = 0
        trimap[sure == 1] = 1
        return trimap


def refine_matte(rgb: Uint8, matte: Float32, thresholds: Thresholds | None = None) -> Float32:
    """Return the matte solved anew where it is uncertain, float32 (H, W); elsewhere it is unchanged.

    `thresholds`: the `Thresholds` that tell where, by default a band around soft pixels. Closed-form matting (Levin et
    al., 2008) on the band's bounding box, with everything outside the band as known. A box above `MAX_REFINED_PIXELS`
    is solved at a smaller scale. Needs the `refine` extra.
    """
    pymatting = _pymatting()

    trimap = thresholds.trimap(matte) if thresholds else trimap_of(matte)
    band = trimap == 0.5
    solvable = band.any() and (trimap == 1).any() and (trimap == 0).any() and min(matte.shape) >= _WINDOW
    if not solvable:
        return matte
    box = _bounding_box(band, margin=round(max(matte.shape) * BAND_FRACTION) + 1)
    scale = min(1.0, (MAX_REFINED_PIXELS / matte[box].size) ** 0.5)
    image, known = _scaled(rgb[box], scale), _scaled(trimap[box], scale, cv2.INTER_NEAREST)
    try:
        solved = pymatting.estimate_alpha_cf(image / 255.0, known.astype(np.float64)).astype(np.float32)
    except ValueError as error:
        raise ImageError(f"Refining found no solution for this photo ({first_line(error)}); do without it.") from None
    if scale < 1:
        solved = cv2.resize(solved, matte[box].shape[::-1], interpolation=cv2.INTER_LINEAR)
    refined = matte.copy()
    refined[box] = np.where(band[box], np.clip(solved, 0, 1), matte[box])
    return refined


def _was_compiled() -> bool | None:
    """Tell whether pymatting has compiled itself where it is installed, or is told to; None if it is not installed."""
    found = find_spec("pymatting")
    if not found or not found.origin:
        return None
    places = [Path(found.origin).parent.glob("*/__pycache__/*.nbi")]  # as numba calls its index
    if told := os.environ.get("NUMBA_CACHE_DIR"):
        places.append(Path(told).glob("*/*.nbi"))
    return any(any(place) for place in places)


def _pymatting() -> ModuleType:
    """Import it: when first used on a machine it compiles itself (a minute, once), and needs a place to keep that."""
    if "pymatting" not in sys.modules and _was_compiled() is False:
        _LOGGER.info("pymatting may have to compile itself now: about a minute, once on a machine.")
    try:
        import pymatting
    except RuntimeError as error:  # neither its own folder nor the user's home can be written
        raise LackingError(
            f"Expected a folder in which pymatting keeps what it compiles; received: {first_line(error)}. "
            "Set NUMBA_CACHE_DIR to a folder that can be written."
        ) from None
    return pymatting


def trimap_of(matte: Floats) -> Float32:
    """Return float32 (H, W): 1 and 0 where the matte is certain, 0.5 in a band around where it is not."""
    certain = ((matte <= KNOWN_BACKGROUND) | (matte >= KNOWN_FOREGROUND)).astype(np.uint8)
    radius = max(1, round(max(matte.shape) * BAND_FRACTION))
    band = cv2.distanceTransform(certain, cv2.DIST_L2, cv2.DIST_MASK_5) <= radius if not certain.all() else certain == 0
    trimap = (matte >= 0.5).astype(np.float32)
    trimap[band] = 0.5
    return trimap


def _bounding_box(mask: Uint8 | Bools, margin: int) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )
