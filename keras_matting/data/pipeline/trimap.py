"""Trimaps in graph mode: known foreground, known background and the unknown band between them."""

from collections.abc import Sequence

import tensorflow as tf

from keras_matting.errors import UsageError

# The clothing project's windows, made for images of this height.
DILATE_PX, ERODE_PX, REFERENCE_HEIGHT_PX = 25, 3, 512
MIN_PX = 3
# Half a step of 8 bits: what interpolation leaves of an empty background is not foreground.
_BACKGROUND = 0.5 / 255
# From here on a pixel counts as foreground, as in the trimaps that MODNet is commonly trained with.
_FOREGROUND = 0.9


@tf.function(autograph=False, jit_compile=True)
def trimap(alpha: tf.Tensor, dilate_px: int = DILATE_PX, erode_px: int = ERODE_PX) -> tf.Tensor:
    """Return float32 of the shape of `alpha`, in {0, 0.5, 1}, from float (..., H, W, 1) in [0, 1], soft or binary.

    0.5 lies where scipy's `grey_dilation(alpha > 0, (dilate_px, dilate_px))` and `grey_erosion(alpha >= 0.9,
    (erode_px, erode_px))` differ: square windows of so many pixels a side, nothing beyond the border.
    """
    # scipy puts the spare pixel of an even window after the centre when it dilates, before it when it erodes.
    possible = _window_max(alpha > _BACKGROUND, (dilate_px - 1) // 2, dilate_px // 2)
    missing = _window_max(alpha < _FOREGROUND, erode_px // 2, (erode_px - 1) // 2)
    return (tf.cast(possible, tf.float32) + tf.cast(1 - missing, tf.float32)) / 2


def scaled_px(height: int, trimap_px: Sequence[int] | None = None) -> tuple[int, int]:
    """Return (dilate, erode) in pixels for images of `height`: `trimap_px` if given, else the originals scaled."""
    if trimap_px is None:
        dilate, erode = (max(MIN_PX, round(px * height / REFERENCE_HEIGHT_PX)) for px in (DILATE_PX, ERODE_PX))
        return dilate, erode
    if len(trimap_px) != 2 or any(type(px) is not int or px < 1 for px in trimap_px):
        raise UsageError(f"Expected the trimap's windows as 2 whole numbers of pixels above 0; received {trimap_px}.")
    return trimap_px[0], trimap_px[1]


def _window_max(mask: tf.Tensor, before: int, after: int) -> tf.Tensor:
    """Return uint8 0 or 1 (..., H, W, 1): whether the mask is set within so many rows and columns of a pixel.

    By windows that double, in each direction; tf.nn.max_pool2d takes a hundred times as long.
    """
    values = tf.cast(mask, tf.uint8)
    values = tf.pad(values, [[0, 0]] * (values.shape.rank - 3) + [[before, after], [before, after], [0, 0]])
    covered, window = 1, before + 1 + after
    while covered < window:
        step = min(covered, window - covered)
        values = tf.maximum(values[..., :-step, :, :], values[..., step:, :, :])
        values = tf.maximum(values[..., :-step, :], values[..., step:, :])
        covered += step
    return values
