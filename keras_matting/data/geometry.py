"""Paired geometry: photo and alpha moved together, interpolated once, alpha kept soft.

Written with gathers, because XLA, which compiles a preset's operations into one, has no ImageProjectiveTransformV3; the
values are the same.
"""

import math
from dataclasses import dataclass

import tensorflow as tf

from keras_matting.data.operation import Operation
from keras_matting.data.randomness import chance, uniform


@dataclass(frozen=True)
class RandomCrop(Operation):
    """Photos are loaded at `resize` times the model's input size; cut out a place of that size."""

    resize: float

    def draw(self, seed):
        return uniform(seed, (0, 1), (0, 1))

    def transform(self, sample, down, across):
        pixels = _stack(sample)
        for axis, part in enumerate((down, across)):
            side = round(pixels.shape[axis] / self.resize)
            start = place(part, pixels.shape[axis] - side)
            # Not tf.slice: XLA would compile it anew for every place.
            pixels = tf.gather(pixels, start + tf.range(side), axis=axis)
        return _unstack(pixels)


@dataclass(frozen=True)
class RandomFlip(Operation):
    """Mirror, with these probabilities."""

    horizontal: float = 0.0
    vertical: float = 0.0

    def draw(self, seed):
        return chance(seed, self.horizontal, self.vertical)

    def transform(self, sample, across, down):
        pixels = _stack(sample)
        pixels = tf.where(across, pixels[:, ::-1], pixels)
        return _unstack(tf.where(down, pixels[::-1], pixels))


@dataclass(frozen=True)
class RandomWarp(Operation):
    """Rotate by degrees, scale by a factor and tilt, all at random within these bounds, in one interpolation.

    `perspective`: how much nearer or farther the photo's edges may come, relative to its centre. What lies beyond the
    border is black with alpha 0, or with `reflect` the mirrored photo and alpha.
    """

    rotation: tuple = (0.0, 0.0)
    scale: tuple = (1.0, 1.0)
    perspective: float = 0.0
    reflect: bool = False

    def draw(self, seed):
        tilt = (-self.perspective, self.perspective)
        degrees, zoom, across, down = uniform(seed, self.rotation, self.scale, tilt, tilt)
        angle = degrees * (math.pi / 180)
        cosine, sine = tf.cos(angle) / zoom, tf.sin(angle) / zoom
        return (tf.stack([[cosine, -sine, 0.0], [sine, cosine, 0.0], [across, down, 1.0]]),)

    def transform(self, sample, matrix):
        return _unstack(tf.clip_by_value(warp(_stack(sample), matrix, self.reflect), 0, 1))


def place(part, spare):
    """Return a whole number from 0 to `spare`, int32, out of a uniform draw from [0, 1)."""
    # Float32 times a large number may round up to the very end.
    return tf.minimum(tf.cast(part * (spare + 1), tf.int32), spare)


def warp(pixels, matrix, reflect=False):
    """Return float32 (H, W, C): where a pixel lies, what `pixels` shows where `matrix` maps it to, bilinearly.

    `matrix`: float32 (3, 3), homogeneous, of (x, y, 1) from the centre in halves of the longer side. Beyond the border
    is 0, or with `reflect` the mirror image.
    """
    height, width, channels = pixels.shape
    x, y = _sources(matrix, height, width)
    left, top = tf.floor(x), tf.floor(y)
    right_part, lower_part = x - left, y - top
    flat = tf.reshape(pixels, [height * width, channels])
    result = 0.0
    for row, row_part in ((top, 1 - lower_part), (top + 1, lower_part)):
        for column, column_part in ((left, 1 - right_part), (left + 1, right_part)):
            weight = row_part * column_part
            if reflect:
                row_index, column_index = _mirrored(row, height), _mirrored(column, width)
            else:
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                weight = tf.where(inside, weight, 0.0)
                row_index, column_index = tf.clip_by_value(row, 0, height - 1), tf.clip_by_value(column, 0, width - 1)
            index = tf.cast(row_index, tf.int32) * width + tf.cast(column_index, tf.int32)
            result += weight[..., None] * tf.gather(flat, index)
    return result


def _sources(matrix, height, width):
    """Return x and y, float32 (H, W): the places, in pixels, that `matrix` maps the pixels to."""
    unit = max(height, width) / 2
    across = (tf.range(width, dtype=tf.float32) - (width - 1) / 2) / unit
    down = (tf.range(height, dtype=tf.float32)[:, None] - (height - 1) / 2) / unit
    x, y, depth = (matrix[row, 0] * across + matrix[row, 1] * down + matrix[row, 2] for row in range(3))
    return x / depth * unit + (width - 1) / 2, y / depth * unit + (height - 1) / 2


def _mirrored(index, length):
    """Return whole-numbered float indices folded into [0, length): ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ..."""
    index = tf.math.floormod(index, 2.0 * length)
    return tf.minimum(index, 2 * length - 1 - index)


def _stack(sample):
    return tf.concat([sample["image"], sample["alpha"]], axis=-1)


def _unstack(pixels):
    return {"image": pixels[..., :3], "alpha": pixels[..., 3:]}
