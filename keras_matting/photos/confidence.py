"""How sure a matte is of itself: which of many cut-outs somebody should look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Float32
from keras_matting.errors import UsageError
from keras_matting.photos.given import is_pil
from keras_matting.photos.imaging import bands

if TYPE_CHECKING:
    from PIL.Image import Image

LOOK_BELOW = 0.9  # docs/evaluation.md says what is found so, and what is not
DIGITS = 3  # all who tell or compare a confidence have the same number


def confidence(matte: npt.NDArray[np.generic] | Image) -> float:
    """Return the intersection over union with the true matte that a matte lets expect, from 0 to 1.

    `matte`: (H, W) or (H, W, 1): bool, float in [0, 1], or an output "mask" or "matte16" as it is, uint8 or uint16,
    also as a PIL image. What `predict` and the service tell is of the matte as the model gave it, before it is refined,
    hardened or framed. Raises `UsageError` on anything else.

    Each value is read as the probability that its pixel is the subject's, and what is above a half as what was taken:
    the expected intersection over the expected union (Nowozin, "Optimal decisions from probabilistic models: the
    intersection-over-union case", 2014). Where nothing was taken it is 0. Truly half-transparent cloth lowers it, and
    a model that is wrong and sure of it is not found out.
    """
    return expected_overlap(_checked(np.asarray(matte) if is_pil(matte) else matte))


def is_unsure(confidence: float | None) -> bool:
    """Tell whether somebody should look at an output; nobody knows of one without a confidence."""
    return confidence is not None and confidence < LOOK_BELOW


def expected_overlap(matte: Float32) -> float:
    """Return the `confidence` of a matte that is known to be float32 (H, W) in [0, 1]."""
    right, all_probable, taken = 0.0, 0.0, 0
    for rows in bands(matte):
        band = matte[rows]
        is_taken = band > 0.5
        right += float(np.multiply(band, is_taken).sum(dtype=np.float64))
        all_probable += float(band.sum(dtype=np.float64))
        taken += int(np.count_nonzero(is_taken))
    return round(min(1.0, right / (taken + all_probable - right)), DIGITS) if taken else 0.0


def _checked(matte: object) -> Float32:
    """Return a matte as float32 (H, W) in [0, 1]."""
    expected = "Expected a matte (H, W): floats from 0 to 1, bool, or an output mask (uint8) or matte16 (uint16)"
    if not isinstance(matte, np.ndarray):
        raise UsageError(f"{expected}; received {type(matte).__name__}.")
    if matte.ndim == 3 and matte.shape[2] == 1:
        matte = matte[..., 0]
    if matte.ndim != 2 or not matte.size:
        raise UsageError(f"{expected}; received {matte.shape}. Of a cut-out, pass the alpha: rgba[..., 3].")
    if matte.dtype.kind == "f" or matte.dtype == bool:
        values = matte.astype(np.float32)
    elif matte.dtype in (np.uint8, np.uint16) and matte.max() == 1:
        raise UsageError(f"{expected}; received {matte.dtype} of 0 and 1. Make it bool: matte > 0.")
    elif matte.dtype in (np.uint8, np.uint16):
        values = np.asarray(matte / np.float32(np.iinfo(matte.dtype).max), np.float32)
    else:
        raise UsageError(f"{expected}; received {matte.dtype}.")
    if not (values.min() >= 0 and values.max() <= 1):  # which NaN is neither
        raise UsageError(f"{expected}; received values from {values.min():g} to {values.max():g}.")
    return values
