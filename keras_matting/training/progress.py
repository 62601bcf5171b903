"""What a run has reached: checkpoints that survive a kill at any moment, the best model, and when to stop."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Self, TypedDict

import keras
import numpy as np

from keras_matting.errors import MattingError, UsageError, first_line
from keras_matting.files import StrPath, file_sha256, write_atomically
from keras_matting.training.validation import is_better_higher
from keras_matting.weights.keras_files import load_weights

if TYPE_CHECKING:
    from keras_matting.training.trainers import Trainer

PROGRESS_FILE = "progress.json"
HISTORY_FILE = "history.csv"
BEST_FILE = "best.keras"
CHECKPOINT = "checkpoint-{}.npz"


class Fingerprint(TypedDict):
    """What data a run learns from: how many photos there are to train and validate on, and a digest of their names."""

    training: int
    validation: int
    sha256: str


class State(TypedDict):
    """What `progress.json` holds: how far the run is, the `checkpoint` that goes with it, and the best epoch.

    `phase`: see `Progress.phase`; it began after `phase_start` epochs. `best`: the monitored figure of `best_epoch`.
    `history`: a row of figures for every epoch, from the untrained start on.
    """

    epoch: int
    checkpoint: str | None
    phase: int
    phase_start: int
    data: Fingerprint | None
    best_epoch: int
    best: float | None
    best_sha256: str | None
    history: list[dict[str, float]]


class Progress(keras.callbacks.Callback):
    """After every epoch writes weights, optimiser state, best model and history into `run_dir`.

    `progress.json` names the checkpoint that belongs to it and is replaced last, in one step: whatever moment a run is
    killed at, what the file says is whole, and `restore` continues from there. Raises `MattingError` where the disk
    is full; the last checkpoint stays.
    """

    def __init__(self, run_dir: StrPath, monitor: str, patience: int = 0) -> None:
        super().__init__()
        self.run_dir = Path(run_dir)
        self.monitor, self.sign = monitor, 1 if is_better_higher(monitor) else -1
        self.patience = patience
        self.state: State = {
            "epoch": 0,
            "checkpoint": None,
            "phase": 0,
            "phase_start": 0,
            "data": None,
            "best_epoch": 0,
            "best": None,
            "best_sha256": None,
            "history": [],
        }

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.state["epoch"]

    @property
    def phase(self) -> int:
        """Which phase of the run trains, from 0: with a frozen backbone, say, or without."""
        return self.state["phase"]

    @property
    def history(self) -> list[dict[str, float]]:
        """One dict of metrics for every epoch done, after one of epoch 0: what validation said of the start."""
        return self.state["history"]

    def read(self) -> Self:
        """Read how far the run came, nothing done if there is no file yet; return itself."""
        path = self.run_dir / PROGRESS_FILE
        try:
            self.state |= json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except ValueError as error:
            raise UsageError(f"Expected {path} to be JSON; received: {error}. Start the run anew.") from None
        return self

    def require_data(self, fingerprint: Fingerprint) -> None:
        """Raise `UsageError` if the run has learned from other data than what this `selection.fingerprint` is of."""
        earlier, self.state["data"] = self.state["data"] or fingerprint, fingerprint
        if earlier != fingerprint:
            counts = [f"{data['training']} and {data['validation']}" for data in (earlier, fingerprint)]
            raise UsageError(
                f"--resume continues a run on the same photos: it began with {counts[0]} to train and validate on; "
                f"now there are {counts[1]}, or others. Put them back, or start another run with --init "
                f"{self.run_dir / BEST_FILE}."
            )

    def begin(self, phase: int) -> bool:
        """Note which phase trains now; return whether it is new, so that no optimiser's state belongs to it."""
        if phase != self.phase:
            self.state |= {"phase": phase, "phase_start": self.epoch}
        return self.epoch == self.state["phase_start"]

    def has_ended(self, phase: int) -> bool:
        """Whether `phase` trains now, and has had `patience` epochs without a better one."""
        since = self.epoch - max(self.state["best_epoch"], self.state["phase_start"])
        return phase == self.phase and 0 < self.patience <= since

    def restore(self, trainer: Trainer) -> None:
        """Load the last checkpoint, if there is one: weights, and the optimiser's state if `trainer` is compiled."""
        if not self.state["checkpoint"]:
            return
        path = self.run_dir / self.state["checkpoint"]
        try:
            with path.open("rb") as file, np.load(file) as checkpoint:
                for name, variable in _variables(trainer).items():
                    variable.assign(checkpoint[name])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UsageError(
                f"Expected the run's checkpoint {path} to be whole; received: {first_line(error)}. Start the run anew."
            ) from None

    def record_start(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        """Write what validation says of the untrained start, which is the best model until an epoch is better."""
        self.set_model(trainer)
        self._write(0, {f"val_{name}": value for name, value in logs.items()})

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write everything that a resumed run needs."""
        self._write(epoch + 1, logs or {})
        if self.has_ended(self.phase):
            self.model.stop_training = True

    def metrics_of(self, epoch: int) -> dict[str, float]:
        """Return the metrics of an epoch, 0 being the start."""
        return next(row for row in self.history if row["epoch"] == epoch)

    def _write(self, epoch: int, logs: Mapping[str, float]) -> None:
        logs = {name: float(value) for name, value in logs.items()}
        state: State = {**self.state, "epoch": epoch, "history": [*self.history, {"epoch": epoch, **logs}]}
        checkpoint = state["checkpoint"] = CHECKPOINT.format(epoch)
        with _told_when_full(self.run_dir, self.epoch):
            write_atomically(self.run_dir / checkpoint, _as_npz(_variables(self.model)))
            if self._is_better(logs):
                state["best"], state["best_epoch"] = logs.get(self.monitor), epoch
                with self.model.averaged():
                    _save_model(self.model.network, self.run_dir / BEST_FILE)
                state["best_sha256"] = file_sha256(self.run_dir / BEST_FILE)
            write_atomically(self.run_dir / PROGRESS_FILE, json.dumps(state, indent=1).encode())
            self.state = state
            write_atomically(self.run_dir / HISTORY_FILE, _as_csv(self.history))
        self._remove_older()

    def load_best(self, network: keras.Model) -> None:
        """Load the best epoch's weights; raises `UsageError` if they cannot be read, or are another epoch's."""
        path = self.run_dir / BEST_FILE
        try:
            if self.state["best_sha256"] not in (None, file_sha256(path)):
                raise ValueError("the run was cut off while it was replaced. Continue it with --resume.")
            load_weights(network, path)
        except (OSError, ValueError, UsageError) as error:
            raise UsageError(f"Expected the run's best model in {path}; {first_line(error)}") from None

    def _is_better(self, logs: Mapping[str, float]) -> bool:
        """Whether this epoch's model is the best; without validation the last one always is."""
        value, best = logs.get(self.monitor, math.nan), self.state["best"]
        return math.isnan(value) or best is None or self.sign * value > self.sign * best

    def _remove_older(self) -> None:
        for path in self.run_dir.glob(CHECKPOINT.format("*")):
            if path.name != self.state["checkpoint"]:
                path.unlink(missing_ok=True)


@contextmanager
def _told_when_full(run_dir: Path, last_epoch: int) -> Iterator[None]:
    """Turn what HDF5 and the system say of a disk into one sentence."""
    try:
        yield
    except (OSError, RuntimeError, UsageError) as error:
        # Both say what failed; what the one for users proposes is not what helps here.
        reason = error.__context__ or error if isinstance(error, UsageError) else error
        kept = f"the checkpoint of epoch {last_epoch} is whole" if last_epoch else "no checkpoint was written yet"
        raise MattingError(
            f"Expected to write a checkpoint into {run_dir}; received: {first_line(reason)}. Free some space and "
            f"continue with --resume: {kept}."
        ) from error


def _variables(trainer: Trainer) -> dict[str, keras.Variable]:
    """Return what a run consists of by name: the network, the optimiser where there is one, averages that it keeps.

    SOC's teacher is not among them: it is made anew at the start of every epoch.
    """
    variables = {variable.path: variable for variable in trainer.network.weights}
    if trainer.compiled:
        if not trainer.optimizer.built:  # a loss-scaled one would begin anew
            trainer.optimizer.build(trainer.trainable_variables)
        state = trainer.optimizer.variables
        variables |= {f"optimizer/{index}/{variable.name}": variable for index, variable in enumerate(state)}
        variables |= {f"averages/{index}": variable for index, variable in enumerate(trainer.averages.variables)}
    return variables


def _as_npz(variables: Mapping[str, keras.Variable]) -> bytes:
    """Return the bytes of an .npz file: written in one go, unlike HDF5, which leaves a full disk in a muddle."""
    file = io.BytesIO()
    np.savez(file, **{name: variable.numpy() for name, variable in variables.items()})
    return file.getvalue()


def _save_model(network: keras.Model, path: Path) -> None:
    """Save a Keras model under a temporary name, then rename."""
    temporary = path.with_name(f".{token_hex(4)}.partial{path.suffix}")
    try:
        network.save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _as_csv(history: Sequence[Mapping[str, float]]) -> bytes:
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()
