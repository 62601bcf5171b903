"""Training objectives as pure functions of `keras.ops`: each returns its terms by name, scaled; a loss is their sum.

Images are normalised (N, H, W, 3), alpha, trimap and outputs (N, H, W, 1), all of one floating dtype.
"""

import math
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_matting.arrays import Float32
from keras_matting.models.layers import Tensor, enlarge, shrink

SEMANTIC_STRIDE = 16  # of MODNet's "semantic" output
# src/trainer.py, `supervised_training_iter`
SEMANTIC_SCALE = 10.0
DETAIL_SCALE = 10.0
MATTE_SCALE = 1.0
BOUNDARY_WEIGHT = 4.0
# src/trainer.py, `soc_adaptation_iter`
SOC_SEMANTIC_SCALE = 100.0
SOC_DETAIL_SCALE = 1.0
SOC_FOREGROUND = 0.1  # above this a prediction counts as subject
SOC_NOISE = 0.01  # pseudo truth below this is 0
SOC_BOUNDARY_WIDTH = 0.05  # of the mean of height and width
LOG_FLOOR = -100.0  # PyTorch's BCELoss clamps its logarithms here


def modnet_supervised(image: Tensor, alpha: Tensor, trimap: Tensor, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return {"semantic", "detail", "matte"}, scalars, for MODNet's three outputs.

    `trimap` is 0, 0.5 or 1. Follows `supervised_training_iter` of the official `src/trainer.py`: the detail counts in
    the unknown region only, the matte everywhere and there four times more, each also composited on black.
    """
    known = ops.not_equal(trimap, 0.5)
    semantic = _mse(outputs["semantic"], blur(shrink(alpha, SEMANTIC_STRIDE)))
    detail = _l1(ops.where(known, trimap, outputs["detail"]), ops.where(known, trimap, alpha))
    matte = outputs["matte"]
    at_boundary = ops.where(known, trimap, matte)
    matte_loss = _l1(matte, alpha) + BOUNDARY_WEIGHT * _l1(at_boundary, alpha)
    compositional = _l1(image * matte, image * alpha) + BOUNDARY_WEIGHT * _l1(image * at_boundary, image * alpha)
    return {
        "semantic": SEMANTIC_SCALE * semantic,
        "detail": DETAIL_SCALE * detail,
        "matte": MATTE_SCALE * (matte_loss + compositional),
    }


def modnet_soc(outputs: Mapping[str, Tensor], teacher_outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return {"soc_semantic", "soc_detail"}, scalars: self-supervised sub-objective consistency of MODNet.

    `teacher_outputs` are those of the model as it was before the epoch. Follows `soc_adaptation_iter` of the official
    `src/trainer.py`; an image without a boundary contributes 0, where that code divides 0 by 0.
    """
    semantic, matte = outputs["semantic"], outputs["matte"]
    coarse_matte = blur(shrink(matte, SEMANTIC_STRIDE))
    consistency = _mse(semantic, _without_noise(coarse_matte)) + _mse(coarse_matte, _without_noise(semantic))

    boundary = _soc_boundary(semantic, matte)
    size = ops.sum(boundary, axis=(1, 2, 3))
    kept = 0.0
    for name in ("detail", "matte"):
        change = ops.abs(outputs[name] - ops.stop_gradient(teacher_outputs[name]))
        kept += ops.mean(ops.sum(boundary * change, axis=(1, 2, 3)) / ops.maximum(size, 1))
    return {"soc_semantic": SOC_SEMANTIC_SCALE * consistency, "soc_detail": SOC_DETAIL_SCALE * kept}


def deep_supervision(alpha: Tensor, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return {output's name: binary cross-entropy}, scalars, for U2Net's fused map and its six sides.

    Follows `muti_bce_loss_fusion` of the official `u2net_train.py`, which adds them up unweighted.
    """
    return {name: binary_cross_entropy(alpha, matte) for name, matte in outputs.items()}


def binary_cross_entropy(alpha: Tensor, matte: Tensor) -> Tensor:
    """Return the mean cross-entropy, a scalar, of `matte` in [0, 1] against soft `alpha`, as PyTorch's `BCELoss`."""
    tiny = max(math.exp(LOG_FLOOR), float(np.finfo(keras.backend.standardize_dtype(matte.dtype)).tiny))
    log_matte, log_rest = ops.log(ops.maximum(matte, tiny)), ops.log(ops.maximum(1 - matte, tiny))
    return -ops.mean(alpha * log_matte + (1 - alpha) * log_rest)


def blur(x: Tensor) -> Tensor:
    """Blur (N, H, W, 1) by the trainer's 3x3 Gaussian, reflecting at the edges (official `GaussianBlurLayer`)."""
    padded = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    kernel = ops.convert_to_tensor(_gaussian_kernel()[..., None, None], x.dtype)
    return ops.conv(padded, kernel, padding="valid")


def _gaussian_kernel() -> Float32:
    """Return the official kernel (3, 3): SciPy's Gaussian of a 3x3 impulse, whose tails are reflected back into it.

    The official layer stores it in float32, and what it rounds away shows after some steps in float64.
    """
    sigma, radius = 0.8, 3
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    impulse = np.pad([0.0, 1.0, 0.0], radius, mode="symmetric")
    row = np.convolve(impulse, weights / weights.sum(), mode="valid")
    return np.outer(row, row).astype("float32")


def _soc_boundary(semantic: Tensor, matte: Tensor) -> Tensor:
    """Return 1 around the edge of what both outputs hold for the subject, else 0: (N, H, W, 1)."""
    subject = _above(semantic, SOC_FOREGROUND)
    for axis in (1, 2):
        subject = enlarge(subject, axis, SEMANTIC_STRIDE)
    subject = subject * _above(matte, SOC_FOREGROUND)
    side = int((matte.shape[1] + matte.shape[2]) / 2 * SOC_BOUNDARY_WIDTH)
    if side < 2:  # a window of one pixel has no edge
        return ops.zeros_like(subject)
    return ops.cast(ops.not_equal(dilate(subject, side), erode(subject, side)), matte.dtype)


def dilate(x: Tensor, side: int) -> Tensor:
    """Return the largest value in the square window of `side` pixels, as `scipy.ndimage.grey_dilation` does."""
    for size in ((side, 1), (1, side)):
        x = ops.max_pool(x, size, strides=1, padding="same")
    return x


def erode(x: Tensor, side: int) -> Tensor:
    """Return the smallest value in the window of `side` pixels, as `scipy.ndimage.grey_erosion` does.

    An even window is the mirror image of `dilate`'s.
    """
    return -ops.flip(dilate(ops.flip(-x, axis=(1, 2)), side), axis=(1, 2))


def _above(x: Tensor, threshold: float) -> Tensor:
    return ops.cast(ops.stop_gradient(x) > threshold, x.dtype)


def _without_noise(x: Tensor) -> Tensor:
    return ops.stop_gradient(x) * _above(x, SOC_NOISE)


def _l1(x: Tensor, y: Tensor) -> Tensor:
    return ops.mean(ops.abs(x - y))


def _mse(x: Tensor, y: Tensor) -> Tensor:
    return ops.mean(ops.square(x - y))
