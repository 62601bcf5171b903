"""Colour operations: alpha is left alone. KerasCV's layers do the work, with factors drawn from the seed."""

from dataclasses import dataclass
from functools import cache

import tensorflow as tf

from keras_matting.data.operation import Operation
from keras_matting.data.randomness import chance, uniform
from keras_matting.errors import UsageError


@cache
def _layer(name, **options):
    """Return a KerasCV layer, made once. It draws nothing itself: its deterministic half is called with our factors."""
    try:
        import keras_cv
    except ImportError:
        raise UsageError("Augmentation needs KerasCV: pip install 'keras-matting[train]'.") from None
    return getattr(keras_cv.layers, name)(**options)


@dataclass(frozen=True)
class ColourJitter(Operation):
    """torchvision's ColorJitter: brightness, contrast, saturation, hue, in random order.

    The first three are scaled by factors in [1 - x, 1 + x]; the hue is turned by up to `hue` of the circle.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def draw(self, seed):
        ranges = [(max(0.0, 1 - span), 1 + span) for span in (self.brightness, self.contrast, self.saturation)]
        return uniform(seed, *ranges, (-self.hue, self.hue))

    def transform(self, sample, brightness, contrast, saturation, turn):
        image = sample["image"]
        # KerasCV's brightness adds and its contrast keeps each channel's mean; torchvision's scale, and keep the grey.
        image = tf.clip_by_value(image * brightness, 0, 1)
        mean = tf.reduce_mean(tf.image.rgb_to_grayscale(image))
        image = tf.clip_by_value(mean + (image - mean) * contrast, 0, 1)
        grey = tf.image.rgb_to_grayscale(image)
        image = tf.clip_by_value(grey + (image - grey) * saturation, 0, 1)
        hue = _layer("RandomHue", factor=self.hue, value_range=(0, 1))
        return sample | {"image": hue.augment_images(image[None], turn[None])[0]}


@dataclass(frozen=True)
class RandomInvert(Operation):
    """Turn the photo into its negative."""

    probability: float = 0.5

    def draw(self, seed):
        return chance(seed, self.probability)

    def transform(self, sample, inverted):
        return sample | {"image": tf.where(inverted, 1 - sample["image"], sample["image"])}
