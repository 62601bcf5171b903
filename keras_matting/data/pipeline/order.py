"""Which sample comes when: a pure function of the seed and the draw's number, so that a run resumes where it was."""

from collections.abc import Sequence

import tensorflow as tf

_ROUNDS = 8  # of the cipher behind the shuffle; after TensorFlow's own 4, neighbours are still correlated


class Order:
    """The endless order of draws from weighted sources.

    Each source is walked in shuffled order until exhausted, then shuffled anew. Sources take turns in proportion to
    their weights: at any time each has had its share, give or take as many draws as there are sources.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.sizes = tf.constant(sizes, tf.int64)
        self.offsets = tf.cumsum(self.sizes, exclusive=True)
        self.weights = [float(weight) for weight in weights]
        self.seed = seed

    def rows(self, draws: tf.Tensor) -> tf.Tensor:
        """Return the rows, int64 (n,), of the draws with these numbers, int64 (n,): sources joined end to end."""
        before = self._drawn(draws)
        source = tf.argmax(self._drawn(draws + 1) - before, axis=-1)
        drawn = tf.gather(before, source, batch_dims=1)
        size = tf.gather(self.sizes, source)
        seeds = tf.stack([tf.fill(tf.shape(draws), tf.constant(self.seed, tf.int64)), source, drawn // size], axis=-1)
        # A permutation per seed without storing any. The public index_shuffle of TensorFlow 2.21 refuses many seeds.
        place = tf.raw_ops.RandomIndexShuffle(index=drawn % size, seed=seeds, max_index=size - 1, rounds=_ROUNDS)
        return tf.gather(self.offsets, source) + place

    def _drawn(self, draws: tf.Tensor) -> tf.Tensor:
        """Return how many of the first `draws` went to each source, int64 (n, sources).

        The first source gets its share of them, rounded down; the next its share of what is left; and so on. Each
        count grows with the draws, and exactly one of them by one at every draw.
        """
        counts, left = [], draws
        for index, weight in enumerate(self.weights):
            share = weight / sum(self.weights[index:])
            counts.append(tf.cast(tf.floor(tf.cast(left, tf.float64) * share), tf.int64))
            left -= counts[-1]
        return tf.stack(counts, axis=-1)
