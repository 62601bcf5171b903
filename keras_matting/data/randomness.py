"""Random numbers that are a pure function of a seed, int64 (2,), the same in a graph, compiled or eagerly."""

import tensorflow as tf

_ALGORITHM = "philox"  # by name, because XLA would choose another


def uniforms(seed, shape):
    """Return float32 of `shape` in [0, 1)."""
    return tf.random.stateless_uniform(shape, seed, alg=_ALGORITHM)


def uniform(seed, *ranges):
    """Return a float32 scalar in [low, high) for each range (low, high)."""
    low, high = (tf.constant(bounds, tf.float32) for bounds in zip(*ranges, strict=True))
    return tf.unstack(low + uniforms(seed, [len(ranges)]) * (high - low))


def chance(seed, *probabilities):
    """Return a boolean scalar for each probability of being true."""
    return tf.unstack(uniforms(seed, [len(probabilities)]) < tf.constant(probabilities, tf.float32))


def normal(seed, shape):
    """Return float32 of `shape`, of mean 0 and deviation 1."""
    return tf.random.stateless_normal(shape, seed, alg=_ALGORITHM)


def bits(seed, shape):
    """Return uint32 of `shape`, every bit random."""
    return tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg=_ALGORITHM)


def place(seed, count):
    """Return a random whole number from 0 to below `count`, an int32 scalar."""
    return tf.random.stateless_uniform([], seed, 0, count, tf.int32, alg=_ALGORITHM)


def fold_in(seed, number):
    """Return another seed for each number."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64), alg=_ALGORITHM)
