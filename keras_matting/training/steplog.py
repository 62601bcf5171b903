"""What a long run logs: a line every half minute, where no terminal shows a bar."""

import logging
import time
from collections.abc import Callable

import keras

EVERY_S = 30.0

_LOGGER = logging.getLogger(__name__)


class StepLog(keras.callbacks.Callback):
    """Logs epoch, step, loss, images/s and the time left, at most every `every_s` seconds, also while it validates.

    `epochs`, `steps`: how many the run has, and each epoch. `validation_steps`: how many validation has, or None.
    `clock` returns seconds. The rate is that since the last line, and does not count an epoch's first step, in which
    graphs are compiled; the time left of the run counts validation as soon as an epoch is done.
    """

    def __init__(
        self,
        *,
        epochs: int,
        steps: int,
        batch_size: int,
        validation_steps: int | None = None,
        every_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.epochs, self.steps, self.batch_size = epochs, steps, batch_size
        self.validation_steps = validation_steps
        self.every_s = EVERY_S if every_s is None else every_s
        self._epoch, self._is_training = 0, False
        self._epoch_s: float | None = None  # what the last whole epoch took
        self._begun = self._told = self._since = clock()
        self._counted = 0  # the steps done at `_since`

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self._epoch, self._is_training = epoch, True
        self._begun = self._told = self._since = self.clock()
        self._counted = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Say how far the epoch is, if it is time."""
        now, done = self.clock(), batch + 1
        if now - self._told >= self.every_s:
            _LOGGER.info(self._line(now, done, (logs or {}).get("loss")))
            self._told, self._since, self._counted = now, now, done
        elif done == 1:
            self._since, self._counted = now, done

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Say how far validation is, if it is time."""
        now = self.clock()
        if now - self._told >= self.every_s:
            of = f" of {self.validation_steps}" if self.validation_steps else ""
            _LOGGER.info("%s, validation, step %d%s", self._name(), batch + 1, of)
            self._told = now

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember how long a whole epoch takes."""
        self._epoch_s, self._is_training = self.clock() - self._begun, False

    def _name(self) -> str:
        return f"epoch {self._epoch + 1} of {self.epochs}" if self._is_training else "start"

    def _line(self, now: float, done: int, loss: float | None) -> str:
        told = f"{self._name()}, step {done} of {self.steps}"
        if loss is not None:
            told += f", loss {float(loss):.4f}"
        steps, seconds = done - self._counted, now - self._since
        if done == 1 or seconds <= 0:
            return told
        step_s = seconds / steps
        epoch_left_s = (self.steps - done) * step_s
        run_left_s = epoch_left_s + (self.epochs - self._epoch - 1) * (self._epoch_s or self.steps * step_s)
        return (
            f"{told}, {self.batch_size / step_s:.1f} images/s, {duration(epoch_left_s)} left of the epoch, "
            f"{duration(run_left_s)} of the run"
        )


def duration(seconds: float) -> str:
    """Return hours, minutes and seconds: 1:02:03, or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
