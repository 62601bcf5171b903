"""Learning rates over a run, as functions of the step alone: a resumed run has those that it would have had."""

import math

import keras

DECAY = 0.1  # torch.optim.lr_scheduler.StepLR in the official example: a tenth after every quarter of the epochs
DECAY_EVERY = 0.25
COSINE_FLOOR = 0.01  # what is left of the rate at the end


class RateSchedule(keras.callbacks.Callback):
    """Sets the learning rate before every step: `rate` times what the schedule and the warm-up leave of it.

    `schedule`: "constant"; "step", a tenth after every quarter of the `epochs`; "cosine", down to 1 % over all steps.
    `warmup`: over how many of the run's first steps the rate rises linearly from 0.

    Keras's SGD stores a velocity that the learning rate has scaled already, PyTorch's does not: after a decay, the
    momentum of the steps before it fades in some ten steps, where PyTorch scales it down at once.
    """

    def __init__(self, rate: float, schedule: str, *, epochs: int, steps: int, warmup: int = 0) -> None:
        super().__init__()
        self.rate, self.schedule, self.epochs, self.steps, self.warmup = rate, schedule, epochs, steps, warmup
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Set the step's rate."""
        self.model.optimizer.learning_rate = self.rate_at(self._epoch, batch)

    def rate_at(self, epoch: int, batch: int) -> float:
        """Return the learning rate of a step, both counted from 0."""
        done = epoch * self.steps + batch
        warm = min(1.0, (done + 1) / self.warmup) if self.warmup else 1.0
        return self.rate * warm * self._part(epoch, done)

    def _part(self, epoch: int, done: int) -> float:
        if self.schedule == "step":
            return DECAY ** (epoch // max(1, int(DECAY_EVERY * self.epochs)))
        if self.schedule == "cosine":
            half_turn = math.pi * done / (self.epochs * self.steps)
            return COSINE_FLOOR + (1 - COSINE_FLOOR) * (1 + math.cos(half_turn)) / 2
        return 1.0
