"""Colour operations on photos in [0, 1]; alpha is read by some and changed by none.

An operation is a frozen callable, `op(image, alpha, seed) -> image`, in graph mode: float32 (H, W, 3) and (H, W, 1) in
[0, 1]; `seed`, int64 (2,), decides. KerasCV's layers do what they can, with factors drawn from the seed: their
deterministic half is called, so the order of calls does not matter.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import tensorflow as tf

from keras_matting.data.pipeline.randomness import bits, chance, normal, split, uniform, uniforms
from keras_matting.errors import UsageError


class ColourOp(ABC):
    """An operation in two halves: `draw` what is random, `apply` it.

    They are apart because XLA compiles the second of all operations into a few loops (if `compiles`), and would repeat
    the first for every pixel.
    """

    compiles = True

    def __call__(self, image: tf.Tensor, alpha: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the image changed as the seed decides."""
        return self.apply(image, alpha, *self.draw(seed))

    @abstractmethod
    def draw(self, seed: tf.Tensor) -> Sequence[tf.Tensor]:
        """Return some small tensors that the seed decides."""

    @abstractmethod
    def apply(self, image: tf.Tensor, alpha: tf.Tensor, *drawn: tf.Tensor) -> tf.Tensor:
        """Return the image changed as `drawn` says."""


@cache
def _keras_cv_layer(name: str, **options: Any) -> keras.Layer:
    try:
        import keras_cv
    except ImportError:
        raise UsageError("Augmentation needs KerasCV: pip install 'keras-matting[train]'.") from None
    return getattr(keras_cv.layers, name)(**options)


@dataclass(frozen=True)
class ColourJitter(ColourOp):
    """Change brightness, contrast, saturation and hue as torchvision's ColorJitter does, in this order.

    The first three are scaled by factors from 1 - x to 1 + x; the hue turns by up to `hue` of the circle either way.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def draw(self, seed: tf.Tensor) -> Sequence[tf.Tensor]:
        """Return the three factors and the turn."""
        spans = (self.brightness, self.contrast, self.saturation)
        return uniform(seed, *((1 - span, 1 + span) for span in spans), (-self.hue, self.hue))

    def apply(
        self,
        image: tf.Tensor,
        alpha: tf.Tensor,
        brightness: tf.Tensor,
        contrast: tf.Tensor,
        saturation: tf.Tensor,
        turn: tf.Tensor,
    ) -> tf.Tensor:
        """Return the image with its colours changed."""
        # KerasCV's RandomBrightness adds and its RandomContrast keeps the mean of each channel: not torchvision's.
        image = tf.clip_by_value(image * brightness, 0, 1)
        grey = tf.reduce_mean(tf.image.rgb_to_grayscale(image))
        image = tf.clip_by_value(grey + (image - grey) * contrast, 0, 1)[None]
        image = _keras_cv_layer("RandomColorDegeneration", factor=0.5).augment_images(image, 1 - saturation)
        hue = _keras_cv_layer("RandomHue", factor=0.5, value_range=(0, 1))
        return hue.augment_images(tf.clip_by_value(image, 0, 1), turn[None])[0]


@dataclass(frozen=True)
class Invert(ColourOp):
    """Make the photo its negative."""

    probability: float = 0.5

    def draw(self, seed: tf.Tensor) -> Sequence[tf.Tensor]:
        """Return whether."""
        return chance(seed, self.probability)

    def apply(self, image: tf.Tensor, alpha: tf.Tensor, inverted: tf.Tensor) -> tf.Tensor:
        """Return the image or its negative."""
        return tf.where(inverted, 1 - image, image)


@dataclass(frozen=True)
class Relight(ColourOp):
    """Shine a soft light: a smooth field of factors, and a bent tone curve.

    `strength`: the deviation of the light's logarithm. `bend`: how far the middle of the curve rises or falls, in
    quarters, as a gamma would do it.
    """

    strength: float = 0.2
    bend: float = 0.4

    _WAVES = 3  # half waves along a side: constant, a slope, a bulge

    def draw(self, seed: tf.Tensor) -> Sequence[tf.Tensor]:
        """Return the field's coefficients and the bend."""
        field_seed, bend_seed = split(seed, 2)
        coefficients = self.strength / self._WAVES * normal(field_seed, [self._WAVES, self._WAVES])
        return coefficients, *uniform(bend_seed, (-self.bend, self.bend))

    def apply(self, image: tf.Tensor, alpha: tf.Tensor, coefficients: tf.Tensor, bend: tf.Tensor) -> tf.Tensor:
        """Return the image in that light."""
        down, across = (self._cosines(side) for side in image.shape[:2])
        light = tf.exp(tf.transpose(down) @ coefficients @ across)[..., None]
        return tf.clip_by_value(image * (1 + bend * (1 - image)) * light, 0, 1)

    def _cosines(self, side: int) -> tf.Tensor:
        phase = (tf.range(side, dtype=tf.float32) + 0.5) * (math.pi / side)
        return tf.cos(tf.range(self._WAVES, dtype=tf.float32)[:, None] * phase)


@dataclass(frozen=True)
class CutOut(ColourOp):
    """Paint patches of the background over, each a rectangle of one colour; the foreground stays.

    `patches`: how many. `size`: bounds of their sides, relative to the photo's.
    """

    patches: int = 4
    size: tuple[float, float] = (0.05, 0.3)

    def draw(self, seed: tf.Tensor) -> Sequence[tf.Tensor]:
        """Return each patch's centre, half sides and colour."""
        draws = uniforms(seed, [self.patches, 7])
        low, high = self.size
        return draws[:, :2], (low + draws[:, 2:4] * (high - low)) / 2, draws[:, 4:]

    def apply(
        self, image: tf.Tensor, alpha: tf.Tensor, centres: tf.Tensor, halves: tf.Tensor, colours: tf.Tensor
    ) -> tf.Tensor:
        """Return the image with its background in patches."""
        down, across = ((tf.range(side, dtype=tf.float32) + 0.5) / side for side in image.shape[:2])
        for patch in range(self.patches):
            rows = tf.abs(down - centres[patch, 0]) < halves[patch, 0]
            columns = tf.abs(across - centres[patch, 1]) < halves[patch, 1]
            painted = alpha * image + (1 - alpha) * colours[patch]
            image = tf.where((rows[:, None] & columns)[..., None], painted, image)
        return image


@dataclass(frozen=True)
class Blur(ColourOp):
    """Blur by a Gaussian of up to `sigma_px` pixels, with this probability."""

    probability: float = 0.3
    sigma_px: float = 1.5

    _RADIUS_PX = 4

    def draw(self, seed: tf.Tensor) -> Sequence[tf.Tensor]:
        """Return the kernel's weights; those of no blur are one 1."""
        part, sigma = uniform(seed, (0, 1), (0, self.sigma_px))
        blurred = part < self.probability
        distances = tf.range(-self._RADIUS_PX, self._RADIUS_PX + 1, dtype=tf.float32)
        # At a tenth of a pixel all but the centre vanish.
        weights = tf.exp(-((distances / tf.maximum(tf.where(blurred, sigma, 0.0), 0.1)) ** 2) / 2)
        return (weights / tf.reduce_sum(weights),)

    def apply(self, image: tf.Tensor, alpha: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Return the image blurred, mirrored at its borders."""
        for axis in (0, 1):
            padding = [[self._RADIUS_PX] * 2 if axis == dimension else [0, 0] for dimension in range(3)]
            padded = tf.pad(image, padding, "SYMMETRIC")
            shifts = range(2 * self._RADIUS_PX + 1)
            side = image.shape[axis]
            image = sum(weights[at] * tf.gather(padded, tf.range(at, at + side), axis=axis) for at in shifts)
        return image


@dataclass(frozen=True)
class Noise(ColourOp):
    """Add noise, evenly distributed, of a deviation of up to `deviation`."""

    deviation: float = 0.03

    def draw(self, seed: tf.Tensor) -> Sequence[tf.Tensor]:
        """Return the deviation and the noise's own seed."""
        deviation_seed, noise_seed = split(seed, 2)
        return *uniform(deviation_seed, (0, self.deviation)), noise_seed

    def apply(self, image: tf.Tensor, alpha: tf.Tensor, deviation: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the image with noise."""
        # Ten random bits for each channel out of one number: the numbers are what takes the time.
        numbers = bits(seed, [*image.shape[:2], 1])
        steps = tf.bitwise.right_shift(numbers, tf.constant([0, 10, 20], tf.uint32)) & 1023
        even = tf.cast(steps, tf.float32) / 1023 - 0.5
        return tf.clip_by_value(image + deviation * math.sqrt(12) * even, 0, 1)


@dataclass(frozen=True)
class Jpeg(ColourOp):
    """Compress as JPEG of a quality within these bounds, with this probability."""

    probability: float = 0.3
    quality: tuple[int, int] = (40, 95)

    compiles = False

    def draw(self, seed: tf.Tensor) -> Sequence[tf.Tensor]:
        """Return whether, and the quality."""
        part, quality = uniform(seed, (0, 1), self.quality)
        return part < self.probability, tf.cast(quality, tf.int32)

    def apply(self, image: tf.Tensor, alpha: tf.Tensor, compressed: tf.Tensor, quality: tf.Tensor) -> tf.Tensor:
        """Return the image with what JPEG leaves of it."""
        layer = _keras_cv_layer("RandomJpegQuality", factor=self.quality)
        return tf.cond(compressed, lambda: layer.augment_image(image, transformation=quality), lambda: image)
