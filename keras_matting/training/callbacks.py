"""Callbacks of a run: the guard against NaN, SOC's teacher, and TensorBoard's pictures and disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_matting.arrays import Float32
from keras_matting.errors import MattingError
from keras_matting.model_folder import Preset
from keras_matting.training.progress import Progress

PICTURES = 4
CHECKER = 16  # pixels


class EpochLog(keras.callbacks.Callback):
    """Adds the learning rate and the epoch's seconds to its logs, for the callbacks after this one."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write both into the logs."""
        if logs is not None:
            logs["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
            logs["seconds"] = time.monotonic() - self.started


class NaNGuard(keras.callbacks.Callback):
    """Stops a run whose loss is no number any more; `names(epoch, step)` are the samples of a batch."""

    def __init__(self, names: Callable[[int, int], Sequence[str]], progress: Progress) -> None:
        super().__init__()
        self.names, self.progress = names, progress
        self.epoch = self.batch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Raise `MattingError` that says where it happened and what is left."""
        self.batch = batch
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            self._stop(f"The loss became {loss}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Raise if the last step spoilt what would be kept: weights, or what validation says of them."""
        spoilt = [name for name, value in (logs or {}).items() if not math.isfinite(value)]
        spoilt += [weight.path for weight in self.model.network.weights if not ops.all(ops.isfinite(weight))]
        if spoilt:
            self._stop(f"{spoilt[0]} became no finite number")

    def _stop(self, what: str) -> None:
        raise MattingError(
            f"{what} in epoch {self.epoch + 1}, step {self.batch + 1}, on "
            f"{', '.join(self.names(self.epoch, self.batch))}; {_kept(self.progress)}. Look at these files with data "
            "check, or lower --learning-rate."
        )


def _kept(progress: Progress) -> str:
    return f"the checkpoint of epoch {progress.epoch} is kept" if progress.epoch else "nothing was kept"


@contextmanager
def telling_full_disk(log_dir: Path, progress: Progress) -> Iterator[None]:
    """Turn TensorFlow's complaint of TensorBoard's files in `log_dir` into a `MattingError` of one sentence."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        if str(log_dir) not in str(error):
            raise
        reason = str(error).splitlines()[0].rpartition("; ")[2]  # what the system says of the file before it
        raise MattingError(
            f"Expected to write into {log_dir}; received: {reason}. Free some space and continue with --resume: "
            f"{_kept(progress)}."
        ) from error


class TeacherRefresh(keras.callbacks.Callback):
    """Makes SOC's teacher what the network is at the start of every epoch."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Refresh it."""
        self.model.refresh_teacher()


class Pictures(keras.callbacks.Callback):
    """Writes rows of photo, truth, matte and cut-out to TensorBoard every few epochs.

    `image` and `alpha` (or None) are a batch as the model takes it, normalised by `preset`'s mean and std.
    """

    def __init__(self, log_dir: Path, image: Float32, alpha: Float32 | None, preset: Preset, every: int) -> None:
        super().__init__()
        self.log_dir, self.every, self.preset = str(log_dir), every, preset
        self.image = image[:PICTURES]
        self.alpha = None if alpha is None else alpha[:PICTURES]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the pictures if it is their turn: after the first epoch, and every `every` epochs."""
        if epoch and (epoch + 1) % self.every:
            return
        import tensorflow as tf

        with self.model.averaged():
            matte = ops.convert_to_numpy(self.model.network(self.image, training=False)["matte"])
        writer = tf.summary.create_file_writer(f"{self.log_dir}/pictures")
        with writer.as_default():
            tf.summary.image("photo, truth, matte, cut-out", self._rows(matte), step=epoch, max_outputs=PICTURES)
        writer.close()

    def _rows(self, matte: Float32) -> Float32:
        """Return float32 (N, H, 4 W, 3) in [0, 1], the truth left out where there is none."""
        mean, std = (np.asarray(values, np.float32) for values in (self.preset.mean, self.preset.std))
        photo = np.clip(self.image * std + mean, 0, 1)
        height, width = photo.shape[1:3]
        rows, columns = np.mgrid[:height, :width] // CHECKER
        checkerboard = np.where((rows + columns) % 2, 0.8, 1.0)[..., None]
        panels = [photo, self.alpha, matte, photo * matte + checkerboard * (1 - matte)]
        shape = photo.shape
        return np.concatenate([np.broadcast_to(panel, shape) for panel in panels if panel is not None], axis=2)
