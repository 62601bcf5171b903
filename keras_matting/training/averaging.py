"""The moving average of what a network does not train but measures: its batch norms' statistics.

Keras's optimizers average the trained weights alone. Statistics of the weights themselves do not fit those of the
average: layer by layer the features have other means.
"""

from collections.abc import Sequence

import keras
from keras import backend, ops


class StatisticsAverage:
    """Averages of a network's statistics, which begin at their first value, as Keras's do of weights.

    `statistics`: what the network does not train before any of it is frozen. `variables`: none before `begin`.
    """

    def __init__(self, network: keras.Model) -> None:
        self.statistics = [one for one in network.non_trainable_variables if backend.is_float_dtype(one.dtype)]
        self.variables: list[keras.Variable] = []
        self.momentum = 0.0

    def begin(self, trainer: keras.Model, momentum: float) -> None:
        """Begin (anew) with this `momentum` a batch; the variables are made once, as weights of `trainer`."""
        self.momentum = momentum
        if not self.variables:
            self.variables.append(_variable(trainer, (), "begun", "float32"))
            self.variables += [_variable(trainer, one.shape, "average", one.dtype) for one in self.statistics]
        self._begun.assign(0.0)

    @property
    def _begun(self) -> keras.Variable:
        """1 where there is an average, else 0."""
        return self.variables[0]

    def update(self) -> None:
        """Move the averages, after a batch's forward pass: part of its step, on any backend."""
        for average, statistic in zip(self.variables[1:], self.statistics, strict=True):
            kept = ops.cast(self.momentum * self._begun, average.dtype)
            average.assign(statistic + kept * (average - statistic))
        self._begun.assign(1.0)

    def apply(self) -> None:
        """Set the network's statistics to the averages, if there are any."""
        if float(ops.convert_to_numpy(self._begun)):
            for average, statistic in zip(self.variables[1:], self.statistics, strict=True):
                statistic.assign(average)


def _variable(trainer: keras.Model, shape: Sequence[int], name: str, dtype: str) -> keras.Variable:
    return trainer.add_weight(
        shape=shape, initializer="zeros", dtype=dtype, trainable=False, autocast=False, name=f"statistics_{name}"
    )
