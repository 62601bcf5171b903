"""RGBA cut-outs on random backgrounds, in graph mode: photos whose alpha is exactly known."""

import tensorflow as tf

from keras_matting.data.pipeline.geometry import warp
from keras_matting.data.pipeline.randomness import places, split, uniform

# The cut-out's longer side, relative to the photo's; how far its shape is stretched, as photos are to the input size;
# how far its centre lies from the photo's, relative to half the longer side.
SCALE, STRETCH, SHIFT = (0.5, 1.1), (0.8, 1.25), (-0.3, 0.3)
BACKGROUND_SCALE = 1.25  # backgrounds are kept that much larger than the photo, and a place is cut out
SHADOW_PROBABILITY, SHADOW_DARKNESS = 0.5, (0.1, 0.5)
_SHADOW_CELLS, _SHADOW_SHIFT = 32, 2  # cells a side, and how many of them a shadow is shifted at most


def composite(cutout: tf.Tensor, background: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return uint8 (H, W, 4), a photo and its alpha: the cut-out at a random place, scale and stretch.

    `cutout`: uint8 (H, W, 4), premultiplied. `background`: uint8 (at least H, at least W, 3); a random place of it is
    shown, mirrored at random, with or without the cut-out's soft shadow on it.
    """
    placement_seed, ground_seed, shadow_seed = split(seed, 3)
    placed = warp(cutout, _placement(placement_seed))
    ground = _place_of(background, cutout.shape[:2], ground_seed)
    return _blend(placed, ground, _shadow(placed[..., 3:], shadow_seed))


def _placement(seed: tf.Tensor) -> tf.Tensor:
    """Return a random matrix for `warp`: scale, stretch, shift and mirror."""
    scale, stretch, across, down, side = uniform(seed, SCALE, STRETCH, SHIFT, SHIFT, (-1, 1))
    width = tf.sign(side) * scale * tf.sqrt(stretch)
    height = scale / tf.sqrt(stretch)
    return tf.stack([[1 / width, 0.0, -across / width], [0.0, 1 / height, -down / height], [0.0, 0.0, 1.0]])


def _place_of(background: tf.Tensor, size: tuple[int, int], seed: tf.Tensor) -> tf.Tensor:
    """Return a random place of the background, mirrored at random: uint8 (H, W, 3)."""
    rooms = [background.shape[axis] - size[axis] + 1 for axis in (0, 1)]
    top, left, mirrored = places(seed, *rooms, 2)
    shown = tf.slice(background, [top, left, 0], [*size, 3])
    return tf.cond(mirrored == 1, lambda: tf.reverse(shown, [1]), lambda: shown)


def _shadow(alpha: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return what a soft shadow leaves of the light, float32 (H, W, 1): alpha in coarse cells, shifted, smoothed."""
    size = alpha.shape[:2]
    margin = _SHADOW_SHIFT
    cells = tf.image.resize(alpha, [_SHADOW_CELLS] * 2, "area") / 255
    places_seed, darkness_seed = split(seed, 2)
    shifts = places(places_seed, 2 * margin + 1, 2 * margin + 1)
    cells = tf.slice(tf.pad(cells, [[margin] * 2, [margin] * 2, [0, 0]]), [*shifts, 0], cells.shape)
    cells = tf.nn.avg_pool2d(cells[None], 3, 1, "SAME")
    part, darkness = uniform(darkness_seed, (0, 1), SHADOW_DARKNESS)
    return 1 - tf.where(part < SHADOW_PROBABILITY, darkness, 0.0) * tf.image.resize(cells, size)[0]


@tf.function(autograph=False, jit_compile=True)
def _blend(placed: tf.Tensor, ground: tf.Tensor, light: tf.Tensor) -> tf.Tensor:
    alpha = placed[..., 3:]
    behind = tf.cast(ground, tf.float32) * light * (1 - tf.cast(alpha, tf.float32) / 255)
    colours = tf.minimum(tf.round(tf.cast(placed[..., :3], tf.float32) + behind), 255)
    return tf.concat([tf.cast(colours, tf.uint8), alpha], axis=-1)
