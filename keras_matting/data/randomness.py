"""Random numbers that are a pure function of a seed, the same in a graph, compiled or eagerly."""

import tensorflow as tf

_ALGORITHM = "philox"  # by name, because XLA would choose another


def uniform(seed, *ranges):
    """Return a float32 scalar in [low, high) for each range (low, high)."""
    low, high = (tf.constant(bounds, tf.float32) for bounds in zip(*ranges, strict=True))
    draws = tf.random.stateless_uniform([len(ranges)], seed, alg=_ALGORITHM)
    return tf.unstack(low + draws * (high - low))


def chance(seed, *probabilities):
    """Return a boolean scalar for each probability of being true."""
    draws = tf.random.stateless_uniform([len(probabilities)], seed, alg=_ALGORITHM)
    return tf.unstack(draws < tf.constant(probabilities, tf.float32))


def normal(seed, shape):
    """Return float32 of `shape`, of mean 0 and deviation 1."""
    return tf.random.stateless_normal(shape, seed, alg=_ALGORITHM)


def fold_in(seed, number):
    """Return another seed, int64 (2,), for each number."""
    return tf.cast(tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64), alg=_ALGORITHM), tf.int64)
