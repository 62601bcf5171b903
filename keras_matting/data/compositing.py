"""RGBA cut-outs on random backgrounds, in graph mode: photos whose alpha is exactly known."""

import tensorflow as tf

from keras_matting.data.geometry import place, warp
from keras_matting.data.randomness import chance, fold_in, uniform

# The cut-out's longer side, relative to the photo's; how far its shape is stretched, as photos are to the input size;
# how far its centre lies from the photo's, relative to half of it.
SCALE, STRETCH, SHIFT = (0.5, 1.1), (0.8, 1.25), (-0.3, 0.3)
BACKGROUND_SCALE = 1.25  # backgrounds are kept that much larger than the photo, and a place is cut out


def composite(cutout, background, seed):
    """Place a cut-out on a background: {"image": float32 (H, W, 3), "alpha": float32 (H, W, 1)}, in [0, 1].

    `cutout`: uint8 (H, W, 4), straight colours. `background`: uint8 (at least H, at least W, 3).
    """
    cutout = tf.cast(cutout, tf.float32) / 255
    # Premultiplied, so that interpolation mixes no hidden colours into the edges.
    premultiplied = tf.concat([cutout[..., :3] * cutout[..., 3:], cutout[..., 3:]], axis=-1)
    placed = warp(premultiplied, _placement(fold_in(seed, 0)))
    colours, alpha = placed[..., :3], placed[..., 3:]
    ground = _place_of(background, alpha.shape[:2], fold_in(seed, 1))
    image = colours + ground * (1 - alpha)
    return {"image": tf.clip_by_value(image, 0, 1), "alpha": tf.clip_by_value(alpha, 0, 1)}


def _placement(seed):
    """Return a random matrix for `warp`: scale, stretch, shift and mirror."""
    scale, stretch, across, down = uniform(seed, SCALE, STRETCH, SHIFT, SHIFT)
    (mirrored,) = chance(fold_in(seed, 0), 0.5)
    width = tf.where(mirrored, -scale, scale) * tf.sqrt(stretch)
    height = scale / tf.sqrt(stretch)
    return tf.stack([[1 / width, 0.0, -across / width], [0.0, 1 / height, -down / height], [0.0, 0.0, 1.0]])


def _place_of(background, size, seed):
    """Return a random place of the background, mirrored at random: float32 (H, W, 3) in [0, 1]."""
    parts = uniform(seed, (0, 1), (0, 1))
    corner = [place(part, long - short) for part, long, short in zip(parts, background.shape, size, strict=False)]
    cut = tf.cast(tf.slice(background, [*corner, 0], [*size, 3]), tf.float32) / 255
    (mirrored,) = chance(fold_in(seed, 0), 0.5)
    return tf.where(mirrored, cut[:, ::-1], cut)
