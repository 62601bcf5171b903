"""What a mask file says: which of its channels is the matte, and whether its values are one at all.

An alpha channel that varies is the matte (a cut-out's), but for a few stray pixels beside grey colours that vary, too;
else the colours are, which then must be grey. Whoever reads a mask, into the cache or by itself, reads it by
`decode_truth`, and what trains or compares judges its values by `fault`.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Uint8
from keras_matting.errors import ImageError
from keras_matting.photos.files import Photo, decode

COLOURED, EMPTY, WHITE = "coloured mask", "empty mask", "all-white mask"  # what data sets call the problems
# The largest difference between a grey pixel's channels: JPEG rounds them apart by 2 or 3, and the palest of VOC's
# class colours has 32.
_CHROMA = 24
_FAINT = 128  # a mask that nowhere reaches half of 255 is rather class ids than alpha
_OPAQUE = 192  # up to here one flat grey is rather a class's colour turned grey than a veil
_MOST_CLASSES = 64  # in one mask; a soft matte has more levels
_NEARLY = 4  # steps that JPEG takes off 0 and 255
_FLAT = np.ones((3, 3), np.uint8)
_LARGE_SHARE, _SMALL_SHARE = 0.3, 0.01
_MARGIN = 8  # levels next to black and white that a network or a lossy file makes of them
_TINY = 512  # of 65535
_STRAY = 0.005  # of all pixels; fewer that differ say nothing beside colours that do


class NotAMatteError(ImageError):
    """A mask file that says something else; `kind` is what data sets call the problem."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def decode_truth(data: bytes) -> Uint8:
    """Return the alpha that the bytes of a mask file carry, uint8 (H, W).

    Raises `NotAMatteError` where it has colours and no alpha channel that varies: what they stand for is not to be
    guessed, and as grey they would be half-transparent. And where 16 bits hold numbers that 8 bits round away. Else
    raises `ImageError` as `decode` does.
    """
    alpha = _truth(decode(data))
    if alpha.max() <= 1 and 0 < (peak := _peak_of_16_bits(data)) < _TINY:
        raise NotAMatteError(
            "faint mask",
            f"Expected a mask whose white is 65535, its 16 bits' largest; it ends at {peak} of 65535: class ids, or "
            "numbers of 8 bits? Write 255 in 8 bits where the subject is.",
        )
    return alpha


def _peak_of_16_bits(data: bytes) -> int:
    """Return the largest number of a 16-bit file, 0 of any other."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return int(image.max()) if image is not None and image.dtype == np.uint16 else 0


def _truth(photo: Photo) -> Uint8:
    chroma = photo.rgb.max(axis=2) - photo.rgb.min(axis=2)
    peak = int(chroma.argmax())
    is_coloured = bool(chroma.flat[peak] > _CHROMA)
    if photo.alpha is not None:
        is_cutout = _spread(photo.alpha) > _STRAY or (is_coloured and np.ptp(photo.alpha) > _NEARLY)
        if is_cutout or photo.rgb.min() == photo.rgb.max():
            return photo.alpha
    if is_coloured:
        colour = ",".join(str(value) for value in photo.rgb.reshape(-1, 3)[peak])
        raise NotAMatteError(
            COLOURED,
            f"Expected a grey mask, 0 to 255; received colours, as ({colour}). Write 255 where the subject is, else 0.",
        )
    return cv2.cvtColor(photo.rgb, cv2.COLOR_RGB2GRAY)


def fault(alpha: Uint8) -> tuple[str, str] | None:
    """Return (kind, detail) of what is wrong with a mask's values, uint8 (H, W), or None.

    Kinds: "empty mask", "all-white mask", "0/1 mask", "class map" (few flat levels, none of which is opaque enough to
    be the subject), "faint mask", "inverted mask".
    """
    low, high = int(alpha.min()), int(alpha.max())
    if high == 0 or (high <= _NEARLY and _is_noise(alpha)):
        return EMPTY, "no foreground"
    if low >= 255 - _NEARLY:
        return WHITE, "no background"
    if high == 1:
        return "0/1 mask", "the largest value is 1, not 255: multiply by 255"
    levels = _flat_levels(alpha)
    if levels and (len(levels) > 1 or high >= _FAINT):
        return class_map(levels)
    if high < _FAINT:
        return "faint mask", f"the largest value is {high} of 255: are these class ids?"
    if _looks_inverted(alpha):
        return "inverted mask", "white all around and black within: is the background white?"
    return None


def class_map(levels: Sequence[int], where: str = "") -> tuple[str, str]:
    """Return the `fault` of a mask in which these flat levels stand for classes; `where`: what else is to be said."""
    told = ", ".join(map(str, levels[:5])) + (", ..." if len(levels) > 5 else "")
    return "class map", f"flat levels ({told}){where} where a matte has 255: write 255 where the subject is"


def levels(alpha: Uint8) -> tuple[int, ...]:
    """Return the flat levels between black and white of a mask that has little else there, none of a soft matte."""
    counts, flat = np.bincount(alpha.ravel(), minlength=256), _flat_counts(alpha)
    large = flat > max(1.0, _SMALL_SHARE * counts[_NEARLY + 1 :].sum())
    found = np.flatnonzero(large[_MARGIN:-_MARGIN]) + _MARGIN
    is_plain = flat[found].sum() > 0.5 * counts[_MARGIN:-_MARGIN].sum()
    return tuple(map(int, found)) if is_plain else ()


def misleading(alpha: Uint8) -> tuple[str, str] | None:
    """Return the `fault` of a mask that would teach, or be compared as, something else than was drawn; else None."""
    found = fault(alpha)
    if found and found[0] == "faint mask":
        return found if _flat_levels(alpha) else None  # a veil may be faint all over
    return found if found and found[0] in ("0/1 mask", "class map") else None


def _spread(values: Uint8) -> float:
    """Return the share of pixels that have another than the most frequent value."""
    return 1 - float(np.bincount(values.ravel()).max()) / values.size


def _flat_levels(alpha: Uint8) -> list[int]:
    """Return the values between 0 and 255 that flat areas have, if these are few and are much of what is not 0."""
    counts = np.bincount(alpha.ravel(), minlength=256)
    is_plain = np.count_nonzero(counts) <= _MOST_CLASSES // 2 and counts[0]  # no JPEG, whose black may be 1 or 2
    flat = _flat_counts(alpha)
    first, last = (1, 254) if is_plain else (_NEARLY, 255 - _NEARLY)
    between = flat[first : last + 1]
    levels = np.flatnonzero(between > between.sum() // 1000) + first
    if not len(levels) or len(levels) > _MOST_CLASSES or between.sum() <= _LARGE_SHARE * counts[first:].sum():
        return _trimap_level(counts, flat)
    if len(levels) == 1 and levels[0] >= _OPAQUE:
        return []
    return [int(level) for level in levels]


def _is_noise(alpha: Uint8) -> bool:
    """Whether what is not 0 is mostly not flat, as where JPEG blurs black; ids of classes are areas."""
    return bool(2 * _flat_counts(alpha)[1:].sum() < np.count_nonzero(alpha))


def _flat_counts(alpha: Uint8) -> npt.NDArray[np.intp]:
    """Return of how many pixels of each value the neighbours have it, too."""
    return np.bincount(alpha[cv2.dilate(alpha, _FLAT) == cv2.erode(alpha, _FLAT)], minlength=256)


def _trimap_level(counts: npt.NDArray[np.intp], flat: npt.NDArray[np.intp]) -> list[int]:
    """Return [the grey] of a trimap: black, white and one level between, and nothing else."""
    values = np.flatnonzero(counts)
    if len(values) == 3 and values[0] == 0 and values[2] == 255 and 100 <= values[1] <= 155:
        return [int(values[1])] if flat[values[1]] > 0 else []
    return []


def _looks_inverted(alpha: Uint8) -> bool:
    """Whether the frame is white, but where the subject leaves it, and something is black: few subjects fill it."""
    frame = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    return bool((frame > 255 - _NEARLY).mean() > 0.85 and (alpha < _NEARLY).mean() > 0.02)
