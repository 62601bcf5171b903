"""How good a matte is: the errors of matting and the scores of segmentation and saliency (NumPy, OpenCV).

Everywhere `matte` (prediction) and `alpha` (truth) are (H, W) in [0, 1]. `region` is a boolean (H, W) of pixels to
count, by default all; of a region without pixels means are NaN and sums 0. Nothing is rescaled before comparing.
`UsageError` is raised where shapes differ or values are out of range.
"""

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Bools, Float32, Float64, Uint8
from keras_matting.errors import UsageError

FOREGROUND = 0.5  # from this value on, a pixel is foreground where a score needs a yes or no
BAND_PX = 10
THOUSAND = 1000  # sums are given in thousands, as the literature does
GRADIENT_SIGMA = 1.4
_GRADIENT_RADIUS = 4  # pixels; where a Gaussian of that sigma falls below 0.01, as in the official code
CONNECTIVITY_STEPS = 10  # levels of 0.1
CONNECTIVITY_TOLERANCE = 0.15
THRESHOLDS = 255
BETA_SQUARED = 0.3


def mae(matte: npt.ArrayLike, alpha: npt.ArrayLike, region: Bools | None = None) -> float:
    """Return the mean absolute error."""
    return _mean(_absolute_error(matte, alpha), region)


def mse(matte: npt.ArrayLike, alpha: npt.ArrayLike, region: Bools | None = None) -> float:
    """Return the mean squared error."""
    return _mean(_absolute_error(matte, alpha) ** 2, region)


def sad(matte: npt.ArrayLike, alpha: npt.ArrayLike, region: Bools | None = None) -> float:
    """Return the sum of absolute differences, in thousands."""
    return _thousands(_absolute_error(matte, alpha), region)


def gradient_error(matte: npt.ArrayLike, alpha: npt.ArrayLike, region: Bools | None = None) -> float:
    """Return the summed squared difference of gradient magnitudes, in thousands (Rhemann et al., CVPR 2009).

    Gradients are taken with first derivatives of a Gaussian of sigma 1.4 whose 9x9 kernel has an L2 norm of 1, edges
    replicated, as in the evaluation code of Deep Image Matting that later papers share. That code stretches both maps
    to [0, 1] first (`mat2gray`), which this does not: they agree where each map reaches both 0 and 1.
    """
    return _thousands(_gradient_difference(matte, alpha), region)


def connectivity_error(matte: npt.ArrayLike, alpha: npt.ArrayLike, region: Bools | None = None) -> float:
    """Return how much of the matte hangs loose, against the truth, in thousands (Rhemann et al., CVPR 2009).

    A pixel is connected up to the level, in steps of 0.1, to which it belongs to the largest 4-connected component
    that matte and alpha share; what exceeds that by at least 0.15 is loose. As in the evaluation code of Deep Image
    Matting.
    """
    return _thousands(_connectivity_difference(matte, alpha), region)


def matting_errors(
    matte: npt.ArrayLike, alpha: npt.ArrayLike, regions: Iterable[Bools | None]
) -> list[dict[str, float]]:
    """Return for each region {"mae", "mse", "sad", "grad", "conn"}, as the five functions above, but in one pass."""
    absolute = _absolute_error(matte, alpha)
    gradient, connectivity = _gradient_difference(matte, alpha), _connectivity_difference(matte, alpha)
    return [
        {
            "mae": _mean(absolute, region),
            "mse": _mean(absolute**2, region),
            "sad": _thousands(absolute, region),
            "grad": _thousands(gradient, region),
            "conn": _thousands(connectivity, region),
        }
        for region in regions
    ]


def _absolute_error(matte: npt.ArrayLike, alpha: npt.ArrayLike) -> Float64:
    matte, alpha = _pair(matte, alpha)
    return np.abs(matte - alpha)


def _gradient_difference(matte: npt.ArrayLike, alpha: npt.ArrayLike) -> Float64:
    matte, alpha = _pair(matte, alpha)
    return (_gradient_magnitude(matte) - _gradient_magnitude(alpha)) ** 2


def _gradient_magnitude(image: Float64) -> Float64:
    x = np.arange(-_GRADIENT_RADIUS, _GRADIENT_RADIUS + 1, dtype=np.float64)
    smooth = np.exp(-(x**2) / (2 * GRADIENT_SIGMA**2))
    smooth /= np.linalg.norm(smooth)
    slope = x * smooth
    slope /= np.linalg.norm(slope)
    along_x = cv2.sepFilter2D(image, cv2.CV_64F, slope, smooth, borderType=cv2.BORDER_REPLICATE)
    along_y = cv2.sepFilter2D(image, cv2.CV_64F, smooth, slope, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(along_x, along_y)


def _connectivity_difference(matte: npt.ArrayLike, alpha: npt.ArrayLike) -> Float64:
    matte, alpha = _pair(matte, alpha)
    shared = np.minimum(matte, alpha)
    connected = np.ones_like(shared)
    undecided = np.ones(shared.shape, bool)
    for step in range(1, CONNECTIVITY_STEPS + 1):
        left = undecided & ~_largest_component(shared >= step / CONNECTIVITY_STEPS)
        connected[left] = (step - 1) / CONNECTIVITY_STEPS
        undecided &= ~left
    return np.abs(_looseness(matte, connected) - _looseness(alpha, connected))


def _looseness(image: Float64, connected: Float64) -> Float64:
    excess = image - connected
    return excess * (excess >= CONNECTIVITY_TOLERANCE)


def _largest_component(mask: Bools) -> Bools:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]  # label 0 is the background
    return labels == areas.argmax() + 1 if len(areas) else np.zeros(mask.shape, bool)


def iou(matte: npt.ArrayLike, alpha: npt.ArrayLike) -> float:
    """Return the intersection over union of the foregrounds at threshold 0.5; 1 where both are empty."""
    matte, alpha = _pair(matte, alpha)
    return _overlap(matte >= FOREGROUND, alpha >= FOREGROUND)


def iou_nonzero(matte: npt.ArrayLike, alpha: npt.ArrayLike) -> float:
    """Return the intersection over union where every pixel above 0 of the 8-bit images counts as foreground.

    Lenient to faint mattes and hard on noise; only for comparison with figures that were measured so.
    """
    matte, alpha = _pair(matte, alpha)
    return _overlap(_levels(matte) > 0, _levels(alpha) > 0)


def _overlap(first: Bools, second: Bools) -> float:
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def precision_recall(matte: npt.ArrayLike, alpha: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Return (precision, recall) of one image, each float64 (255,), where 8-bit values from t = 0 to 254 on count.

    As in the evaluation code of BASNet and U-2-Net: alpha is split at 0.5, and precision is 0 where nothing is found.
    Of an image without foreground both are NaN.
    """
    matte, alpha = _pair(matte, alpha)
    levels, foreground = _levels(matte), alpha >= FOREGROUND
    if not foreground.any():
        return np.full(THRESHOLDS, np.nan), np.full(THRESHOLDS, np.nan)
    hits, positives = _count_from_each_level(levels[foreground]), _count_from_each_level(levels.ravel())
    return _ratio(hits, positives), hits / np.count_nonzero(foreground)


def _count_from_each_level(levels: Uint8) -> npt.NDArray[np.intp]:
    """Return for t = 0 to 254 how many values are at least t."""
    return np.bincount(levels, minlength=256)[::-1].cumsum()[::-1][:THRESHOLDS]


def max_f(precisions: npt.ArrayLike, recalls: npt.ArrayLike) -> float:
    """Return the best F-measure (beta squared 0.3) on the curve averaged over images, each (images, 255).

    Images without foreground are left out, where the code of U-2-Net counts them as 0 whatever the matte is; NaN where
    no image has any.
    """
    precisions, recalls = np.asarray(precisions), np.asarray(recalls)
    has_foreground = ~np.isnan(recalls).any(axis=1)
    if not has_foreground.any():
        return float("nan")
    precision, recall = precisions[has_foreground].mean(axis=0), recalls[has_foreground].mean(axis=0)
    scores = _ratio((1 + BETA_SQUARED) * precision * recall, BETA_SQUARED * precision + recall)
    return float(scores.max())


def unknown_band(alpha: npt.ArrayLike, band_px: float = BAND_PX) -> Bools:
    """Return boolean (H, W): pixels with both something and something else than 1 within `band_px` pixels.

    That is where 0 < alpha < 1, dilated, and the same band around the border of a truth that is only 0 and 1.
    """
    if band_px < 0:
        raise UsageError(f"Expected a band of 0 pixels or more; received {band_px}.")
    alpha = np.asarray(alpha)
    subject, rest = alpha > 0, alpha < 1
    if not subject.any() or not rest.any():
        return np.zeros(alpha.shape, bool)
    return (_distance_px(subject) <= band_px) & (_distance_px(rest) <= band_px)


def _distance_px(mask: Bools) -> Float32:
    """Return each pixel's distance to the nearest pixel of the mask, which has some."""
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _levels(image: Float64) -> Uint8:
    return np.rint(image * 255).astype(np.uint8)


def _ratio(numerator: npt.NDArray[np.intp] | Float64, denominator: npt.NDArray[np.intp] | Float64) -> Float64:
    """Divide; 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def _pair(matte: npt.ArrayLike, alpha: npt.ArrayLike) -> tuple[Float64, Float64]:
    matte, alpha = np.asarray(matte, np.float64), np.asarray(alpha, np.float64)
    if matte.shape != alpha.shape or matte.ndim != 2 or not matte.size:
        shapes = f"{matte.shape} and {alpha.shape}"
        raise UsageError(f"Expected a matte and an alpha of one shape (H, W); received {shapes}.")
    for image in (matte, alpha):
        if not (image.min() >= 0 and image.max() <= 1):  # so that NaN is refused, too
            raise UsageError(f"Expected values from 0 to 1; received {image.min():g} to {image.max():g}.")
    return matte, alpha


def _mean(values: Float64, region: Bools | None) -> float:
    values = values if region is None else values[region]
    return float(values.mean()) if values.size else float("nan")


def _thousands(values: Float64, region: Bools | None) -> float:
    return float((values if region is None else values[region]).sum()) / THOUSAND
