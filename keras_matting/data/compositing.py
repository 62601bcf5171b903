"""RGBA cut-outs on random backgrounds, in graph mode: photos whose alpha is exactly known."""

import tensorflow as tf

from keras_matting.data.geometry import warp
from keras_matting.data.randomness import chance, fold_in, place, uniform

# The cut-out's longer side, relative to the photo's; how far its shape is stretched, as photos are to the input size;
# how far its centre lies from the photo's, relative to half the longer side.
SCALE, STRETCH, SHIFT = (0.5, 1.1), (0.8, 1.25), (-0.3, 0.3)
BACKGROUND_SCALE = 1.25  # backgrounds are kept that much larger than the photo, and a place is cut out
SHADOW_PROBABILITY, SHADOW_DARKNESS = 0.5, (0.1, 0.5)
_SHADOW_CELL_PX, _SHADOW_SHIFT_CELLS = 16, 2


def composite(cutout, background, seed):
    """Return uint8 (H, W, 4), a photo and its alpha: the cut-out at a random place, scale and stretch.

    `cutout`: uint8 (H, W, 4), premultiplied. `background`: uint8 (at least H, at least W, 3); a random place of it is
    shown, mirrored at random, with or without the cut-out's soft shadow on it.
    """
    placed = warp(cutout, _placement(fold_in(seed, 0)))
    ground = _place_of(background, cutout.shape[:2], fold_in(seed, 1))
    return _blend(placed, ground, _shadow(placed[..., 3:], fold_in(seed, 2)))


def _placement(seed):
    """Return a random matrix for `warp`: scale, stretch, shift and mirror."""
    scale, stretch, across, down = uniform(fold_in(seed, 0), SCALE, STRETCH, SHIFT, SHIFT)
    (mirrored,) = chance(fold_in(seed, 1), 0.5)
    width = tf.where(mirrored, -scale, scale) * tf.sqrt(stretch)
    height = scale / tf.sqrt(stretch)
    return tf.stack([[1 / width, 0.0, -across / width], [0.0, 1 / height, -down / height], [0.0, 0.0, 1.0]])


def _place_of(background, size, seed):
    """Return a random place of the background, mirrored at random: uint8 (H, W, 3)."""
    corner = [place(fold_in(seed, axis), background.shape[axis] - size[axis] + 1) for axis in (0, 1)]
    shown = tf.slice(background, [*corner, 0], [*size, 3])
    (mirrored,) = chance(fold_in(seed, 2), 0.5)
    return tf.cond(mirrored, lambda: tf.reverse(shown, [1]), lambda: shown)


def _shadow(alpha, seed):
    """Return what a soft shadow leaves of the light, float32 (H, W, 1): alpha in coarse cells, shifted, smoothed."""
    size = alpha.shape[:2]
    margin = _SHADOW_SHIFT_CELLS
    cells = tf.image.resize(alpha, [-(-side // _SHADOW_CELL_PX) for side in size], "area") / 255
    shifts = [place(fold_in(seed, axis), 2 * margin + 1) for axis in (0, 1)]
    cells = tf.slice(tf.pad(cells, [[margin] * 2, [margin] * 2, [0, 0]]), [*shifts, 0], cells.shape)
    cells = tf.nn.avg_pool2d(cells[None], 3, 1, "SAME")
    (darkness,) = uniform(fold_in(seed, 2), SHADOW_DARKNESS)
    (cast,) = chance(fold_in(seed, 3), SHADOW_PROBABILITY)
    return 1 - tf.where(cast, darkness, 0.0) * tf.image.resize(cells, size)[0]


@tf.function(autograph=False, jit_compile=True)
def _blend(placed, ground, light):
    alpha = placed[..., 3:]
    behind = tf.cast(ground, tf.float32) * light * (1 - tf.cast(alpha, tf.float32) / 255)
    colours = tf.minimum(tf.round(tf.cast(placed[..., :3], tf.float32) + behind), 255)
    return tf.concat([tf.cast(colours, tf.uint8), alpha], axis=-1)
