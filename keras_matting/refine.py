"""Optional finishing with pymatting: clean foreground colours, and a sharper matte in the unknown band."""

from dataclasses import dataclass

import cv2
import numpy as np

from keras_matting.errors import ImageError, UsageError, first_line

KNOWN_FOREGROUND, KNOWN_BACKGROUND = 0.95, 0.05
BAND_FRACTION = 1 / 100  # of the photo's longer side: how far the band reaches beyond uncertain pixels
# Closed-form matting solves for every pixel: a megapixel takes some ten seconds and a gigabyte.
MAX_REFINED_PIXELS = 1_000_000
_WINDOW = 3  # closed-form matting looks at 3x3 pixels


def estimate_foreground(rgb, matte):
    """Return the colours that the subject has by itself, uint8 (H, W, 3), where the background shines through.

    Multi-level estimation (Germer et al., https://arxiv.org/abs/2006.14970). `rgb` uint8 (H, W, 3), `matte` float
    (H, W) in [0, 1]. Needs the `refine` extra.
    """
    pymatting = _pymatting()

    if matte.size == 1:  # pymatting divides by its side less one
        return rgb
    foreground = pymatting.estimate_foreground_ml(rgb / 255.0, matte.astype(np.float64))
    return np.rint(np.clip(foreground, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Thresholds:
    """Where a matte counts as certain, in rembg's way: beyond two values, and so many pixels away from the rest."""

    foreground: float = 240 / 255
    background: float = 10 / 255
    erode_px: int = 10

    def trimap(self, matte):
        """Return float64 (H, W): 1, 0, or 0.5 where the matte (H, W) in [0, 1] is uncertain."""
        kernel = np.ones((max(1, self.erode_px),) * 2, np.uint8)
        sure, empty = (
            cv2.erode(mask.astype(np.uint8), kernel) for mask in (matte > self.foreground, matte < self.background)
        )
        return np.where(sure == 1, 1.0, np.where(empty == 1, 0.0, 0.5))


def refine_matte(rgb, matte, thresholds=None):
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
    image, known = rgb[box], trimap[box]
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in known.shape[::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        known = cv2.resize(known, size, interpolation=cv2.INTER_NEAREST)
    try:
        solved = pymatting.estimate_alpha_cf(image / 255.0, known).astype(np.float32)
    except ValueError as error:
        raise ImageError(f"Refining found no solution for this photo ({first_line(error)}); do without it.") from None
    if scale < 1:
        solved = cv2.resize(solved, matte[box].shape[::-1], interpolation=cv2.INTER_LINEAR)
    refined = matte.copy()
    refined[box] = np.where(band[box], np.clip(solved, 0, 1), matte[box])
    return refined


def _pymatting():
    """Import it: when first used on a machine it compiles itself (a minute, once), and needs a place to keep that."""
    try:
        import pymatting
    except RuntimeError as error:  # neither its own folder nor the user's home can be written
        raise UsageError(
            f"Expected a folder in which pymatting keeps what it compiles; received: {first_line(error)}. "
            "Set NUMBA_CACHE_DIR to a folder that can be written."
        ) from None
    return pymatting


def trimap_of(matte):
    """Return float64 (H, W): 1 and 0 where the matte is certain, 0.5 in a band around where it is not."""
    certain = ((matte <= KNOWN_BACKGROUND) | (matte >= KNOWN_FOREGROUND)).astype(np.uint8)
    radius = max(1, round(max(matte.shape) * BAND_FRACTION))
    band = cv2.distanceTransform(certain, cv2.DIST_L2, cv2.DIST_MASK_5) <= radius if not certain.all() else certain == 0
    return np.where(band, 0.5, (matte >= 0.5).astype(np.float64))


def _bounding_box(mask, margin):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )
