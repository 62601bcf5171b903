"""How sure a matte is of itself: which of many cut-outs somebody should look at."""

from __future__ import annotations

import cv2
import numpy as np

from keras_matting.arrays import Float32, Uint8Or16

LOOK_BELOW = 0.9  # docs/evaluation.md says what is found so, and what is not
_SIDE = 320  # of the longer side, in pixels: a large photo's edges are soft because its matte was enlarged


def confidence(matte: Float32 | Uint8Or16) -> float:
    """Return the intersection over union with the true matte that a matte lets expect, from 0 to 1.

    `matte`: (H, W), float32 in [0, 1], or an output "mask" or "matte16" as it is. Each value is read as the probability
    that its pixel is the subject's, and what is above a half as what was taken: the expected intersection over the
    expected union (Nowozin, "Optimal decisions from probabilistic models: the intersection-over-union case", 2014).
    Where nothing was taken it is 0. A model that is wrong and sure of it is not found out.
    """
    probable = _shrunk(matte)
    taken = probable > 0.5
    right = probable[taken].sum(dtype=np.float64)
    either = np.count_nonzero(taken) + probable[~taken].sum(dtype=np.float64)
    return float(right / either) if either else 0.0


def _shrunk(matte: Float32 | Uint8Or16) -> Float32:
    """Return the matte as float32 in [0, 1], its longer side at most `_SIDE`."""
    height, width = matte.shape
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(matte, size, interpolation=cv2.INTER_AREA)
    most = {np.uint8: 255, np.uint16: 65535}.get(matte.dtype.type, 1)
    return np.asarray(small / np.float32(most), np.float32)
