"""Trimaps in graph mode: known foreground, known background and the unknown band between them."""

import tensorflow as tf

from keras_matting.errors import UsageError

# The clothing project's windows, made for images of this height.
DILATE_PX, ERODE_PX, REFERENCE_HEIGHT = 25, 3, 512
MIN_PX = 3
# Half a step of 8 bits: below it, what interpolation leaves of an empty background is not foreground.
_BACKGROUND = 0.5 / 255
# From here on a pixel counts as foreground, as in the trimaps that MODNet is commonly trained with.
_FOREGROUND = 0.9


def trimap(alpha, dilate_px=DILATE_PX, erode_px=ERODE_PX):
    """Return float32 of the shape of `alpha`, in {0, 0.5, 1}, from float (..., H, W, 1) in [0, 1], soft or binary.

    0.5 lies where scipy's `grey_dilation(alpha > 0, (dilate_px, dilate_px))` and `grey_erosion(alpha >= 0.9,
    (erode_px, erode_px))` differ: square windows of that many pixels a side, nothing beyond the border.
    """
    possible = _window_max(tf.cast(alpha > _BACKGROUND, tf.float32), dilate_px)
    # Eroding is dilating the complement, mirrored: an even window is not centred.
    outside = tf.cast(alpha < _FOREGROUND, tf.float32)
    certain = 1 - tf.reverse(_window_max(tf.reverse(outside, [-2, -3]), erode_px), [-2, -3])
    return (possible + certain) / 2


def scaled_px(height, trimap_px=None):
    """Return (dilate, erode) in pixels for images of `height`: `trimap_px` if given, else the originals scaled."""
    if trimap_px is None:
        return tuple(max(MIN_PX, round(px * height / REFERENCE_HEIGHT)) for px in (DILATE_PX, ERODE_PX))
    if len(trimap_px) != 2 or any(type(px) is not int or px < 1 for px in trimap_px):
        raise UsageError(f"Expected the trimap's windows as 2 whole numbers of pixels above 0; received {trimap_px}.")
    return tuple(trimap_px)


def _window_max(values, px):
    for _ in range(2):  # down the columns, then along the rows
        values = tf.linalg.matrix_transpose(_column_max(values[..., 0], px))[..., None]
    return values


def _column_max(values, px):
    """Return the maxima over `px` rows of (..., H, W).

    The columns are the pool's channels: TensorFlow's CPU kernel is a hundred times slower with a single one.
    """
    shape = tf.shape(values)
    rows = tf.reshape(values, [-1, shape[-2], 1, shape[-1]])
    return tf.reshape(tf.nn.max_pool2d(rows, (px, 1), 1, "SAME"), shape)
