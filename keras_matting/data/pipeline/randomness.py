"""Random numbers that are a pure function of a seed, int64 (2,), the same in a graph, compiled or eagerly."""

from collections.abc import Sequence

import tensorflow as tf

_ALGORITHM = "philox"  # by name, because XLA would choose another


def uniforms(seed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Return float32 of `shape` in [0, 1)."""
    return tf.random.stateless_uniform(shape, seed, alg=_ALGORITHM)


def uniform(seed: tf.Tensor, *ranges: tuple[float, float]) -> list[tf.Tensor]:
    """Return a float32 scalar in [low, high) for each range (low, high)."""
    low, high = (tf.constant(bounds, tf.float32) for bounds in zip(*ranges, strict=True))
    return tf.unstack(low + uniforms(seed, [len(ranges)]) * (high - low))


def chance(seed: tf.Tensor, *probabilities: float) -> list[tf.Tensor]:
    """Return a boolean scalar for each probability of being true."""
    return tf.unstack(uniforms(seed, [len(probabilities)]) < tf.constant(probabilities, tf.float32))


def normal(seed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Return float32 of `shape`, of mean 0 and deviation 1."""
    return tf.random.stateless_normal(shape, seed, alg=_ALGORITHM)


def bits(seed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Return uint32 of `shape`, every bit random."""
    return tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg=_ALGORITHM)


def places(seed: tf.Tensor, *counts: int) -> list[tf.Tensor]:
    """Return a whole number from 0 to below each count, int32 scalars."""
    parts = uniforms(seed, [len(counts)]) * tf.constant(counts, tf.float32)
    # In float32 the largest draws may round up to the count itself.
    return tf.unstack(tf.minimum(tf.cast(parts, tf.int32), tf.constant(counts) - 1))


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Return so many other seeds."""
    return tf.unstack(tf.random.experimental.stateless_split(seed, count, alg=_ALGORITHM))
