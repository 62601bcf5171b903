"""What an augmentation operation is."""

from abc import ABC, abstractmethod


class Operation(ABC):
    """A frozen callable, `op(sample, seed) -> sample`, in graph mode.

    `sample`: {"image": float32 (H, W, 3) in [0, 1], "alpha": float32 (H, W, 1) in [0, 1]}. `seed`: int64 (2,).
    Drawing and transforming are apart, because XLA, which compiles the latter, would draw anew for every pixel.
    """

    def __call__(self, sample, seed):
        """Return the sample transformed as the seed decides."""
        return self.transform(sample, *self.draw(seed))

    @abstractmethod
    def draw(self, seed):
        """Return what is random about it: some small tensors, a pure function of the seed."""

    @abstractmethod
    def transform(self, sample, *drawn):
        """Return the sample, transformed as `drawn` says; no randomness here."""
