"""A training run: settings -> data, network, Keras's `fit`, and a folder that can be resumed and stripped."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_matting import architectures
from keras_matting.data.pipeline.batches import TrainingData
from keras_matting.errors import UsageError
from keras_matting.files import StrPath, locked_folder, printable, require_writable
from keras_matting.machine import missing_package
from keras_matting.model_folder import PRESET_FILE, Preset
from keras_matting.models import build_model
from keras_matting.training import contents, selection, start
from keras_matting.training.callbacks import (
    EpochLog,
    NaNGuard,
    Pictures,
    TeacherRefresh,
    telling_full_disk,
)
from keras_matting.training.optimizers import learning_rate_of, optimizer_of, recipe_of
from keras_matting.training.progress import BEST_FILE, CHECKPOINT, HISTORY_FILE, PROGRESS_FILE, Progress
from keras_matting.training.schedule import RateSchedule
from keras_matting.training.settings import SETTINGS_FILE, Settings
from keras_matting.training.steplog import StepLog
from keras_matting.training.trainers import Trainer
from keras_matting.training.validation import source_names

if TYPE_CHECKING:
    import tensorflow as tf

TENSORBOARD = "tensorboard"


def train(
    settings: Settings, run_dir: StrPath, *, resume: bool = False, overwrite: bool = False, verbose: int = 2
) -> Progress:
    """Train as `settings` say, into the folder `run_dir`; return the `Progress` that was made.

    `resume` continues a run that was cut off, from its last whole epoch: weights, optimiser state, learning rate, order
    of the data and best model as if it had not been. A run that exists is refused unless `resume` or `overwrite` says
    what to do with it. `verbose` is Keras's; at 2, for log files, a line every half minute is logged, too. Raises
    `UsageError` on settings or data that do not fit, `MattingError` if the loss becomes NaN or the disk is full; the
    last checkpoint stays.
    """
    if reason := missing_package("tensorboard", "train"):
        raise UsageError(f"Training writes to TensorBoard: {reason}")
    run_dir = Path(run_dir)
    settings = _settled(run_dir, settings, resume, overwrite)
    with locked_folder(run_dir):
        return _train(settings, run_dir, resume, overwrite, verbose)


def _train(settings: Settings, run_dir: Path, resume: bool, overwrite: bool, verbose: int) -> Progress:
    preset = _preset_of(settings)
    sources = selection.select(settings)
    progress = Progress(run_dir, settings.monitor, settings.patience)
    if resume:
        progress.read()
    progress.require_data(selection.fingerprint(*sources))
    held = contents.read_contents(*sources)
    if progress.state["checkpoint"]:
        contents.require_same_contents(run_dir, held)
    data, validation = selection.batches(*sources, settings, preset)
    with _precision(settings.precision), _strategy(settings.strategy), data.naming_unreadable():
        if settings.objective != "soc":
            selection.require_subjects(data)
        trainer = _trainer_of(settings, preset, data, fresh=not progress.epoch)
        if overwrite:  # not before data and start have proved to be usable
            _remove_run(run_dir)
        if not progress.epoch:
            settings.save(run_dir)
            preset.save(run_dir)
        contents.save_contents(run_dir, held)
        with telling_full_disk(run_dir / TENSORBOARD, progress):
            callbacks = _callbacks(settings, preset, data, validation, progress)
            if verbose == 2:
                callbacks.append(_step_log(settings, data, validation))
            _fit(trainer, settings, data, validation, progress, callbacks, verbose)
    return progress


def phases(settings: Settings) -> list[tuple[int, int | None]]:
    """Return [(end epoch, the backbone's first trained layer)], the layer None for all frozen, -1 for none frozen."""
    if not settings.freeze_backbone:
        return [(settings.epochs, -1)]
    if settings.unfreeze_from < 0:
        return [(settings.epochs, None)]
    frozen = min(settings.begun().freeze_epochs, settings.epochs)
    return [(frozen, None), (settings.epochs, settings.unfreeze_from)]


def _settled(run_dir: Path, settings: Settings, resume: bool, overwrite: bool) -> Settings:
    """Make `run_dir`, or check that what is there may be continued or replaced; return the settings of the run."""
    exists = (run_dir / SETTINGS_FILE).exists()
    if exists and not resume and not overwrite:
        raise UsageError(f"{run_dir} is a run already: continue it with --resume, or replace it with --overwrite.")
    if not exists and run_dir.exists() and any(run_dir.iterdir()):
        raise UsageError(f"Expected a new or empty folder for the run; {run_dir} holds other files.")
    settings = settings.continuing(Settings.load(run_dir)) if exists and resume else settings.begun()
    require_writable(run_dir)
    return settings


def _remove_run(run_dir: Path) -> None:
    shutil.rmtree(run_dir / TENSORBOARD, ignore_errors=True)
    names = (PROGRESS_FILE, BEST_FILE, HISTORY_FILE)
    for path in (*(run_dir / name for name in names), *run_dir.glob(CHECKPOINT.format("*"))):
        path.unlink(missing_ok=True)


def _preset_of(settings: Settings) -> Preset:
    """Return what the trained model will expect: its architecture's preset, or that of the folder it starts from."""
    preset = architectures.default_preset(settings.model, settings.model)
    if settings.init and (Path(settings.init) / PRESET_FILE).is_file():
        start_preset = Preset.load(settings.init)
        if start_preset.architecture == settings.model:
            preset = start_preset
    size = settings.input_size or preset.input_size
    # The weights will be others: their digest and source file are not the start's.
    return replace(preset, input_size=size, weights_sha256="", source_sha256="")


def _trainer_of(settings: Settings, preset: Preset, data: TrainingData, fresh: bool) -> Trainer:
    with _seeded(settings.seed):
        network = build_model(settings.model, preset.input_size)
    if settings.init and fresh:
        start.load_initial_weights(network, settings.init)
        if settings.objective != "soc":  # SOC leaves the statistics as they are
            count = max(1, start.RECALIBRATION_IMAGES // settings.batch_size)
            images = (batch[0].numpy() for batch in islice(data.dataset(), count))
            start.recalibrate_folded_norms(network, images)
    names = source_names(settings.val)
    return architectures.find(settings.model).trainer(settings.objective, network, names)


def _schedule(settings: Settings) -> str:
    return settings.schedule or recipe_of(settings).schedule


def _callbacks(
    settings: Settings, preset: Preset, data: TrainingData, validation: tf.data.Dataset | None, progress: Progress
) -> list[keras.callbacks.Callback]:
    """Return the callbacks in the order in which they must run; `progress` writes what those before it logged."""
    log_dir = progress.run_dir / TENSORBOARD
    callbacks = [NaNGuard(data.names, progress), EpochLog(), progress]
    if settings.objective == "soc":
        callbacks.insert(0, TeacherRefresh())
    if settings.warmup or _schedule(settings) != "constant":
        steps = {"epochs": settings.epochs, "steps": data.steps_per_epoch, "warmup": settings.warmup}
        callbacks.insert(0, RateSchedule(learning_rate_of(settings), _schedule(settings), **steps))
    callbacks.append(keras.callbacks.TensorBoard(log_dir, histogram_freq=int(settings.histograms), write_graph=False))
    if settings.images_every:
        batch = next(iter(validation or data.dataset()))
        alpha = batch[1]["alpha"].numpy() if len(batch) > 1 else None
        callbacks.append(Pictures(log_dir, batch[0].numpy(), alpha, preset, settings.images_every))
    _write_hyperparameters(log_dir, settings)
    return callbacks


def _step_log(settings: Settings, data: TrainingData, validation: tf.data.Dataset | None) -> StepLog:
    validation_steps = int(validation.cardinality()) if validation else None
    return StepLog(
        epochs=settings.epochs,
        steps=data.steps_per_epoch,
        batch_size=settings.batch_size,
        validation_steps=validation_steps if validation_steps and validation_steps > 0 else None,
    )


def _write_hyperparameters(log_dir: Path, settings: Settings) -> None:
    """Write the settings for TensorBoard's HParams page."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hparams

    writer = tf.summary.create_file_writer(str(log_dir / "train"))
    values = {
        name: value if isinstance(value, (int, float)) else printable(str(value))
        for name, value in asdict(settings).items()
    }
    with writer.as_default():
        hparams.hparams(values)
    writer.close()


def _fit(
    trainer: Trainer,
    settings: Settings,
    data: TrainingData,
    validation: tf.data.Dataset | None,
    progress: Progress,
    callbacks: list[keras.callbacks.Callback],
    verbose: int,
) -> None:
    """Fit phase after phase, from the epoch that `progress` has reached; a phase may end early."""
    for phase, (end, trained_from) in enumerate(phases(settings)):
        if phase < progress.phase or progress.epoch >= end or progress.has_ended(phase):
            continue
        if trained_from != -1:
            start.freeze_backbone(trainer.network, trained_from)
        if progress.begin(phase):  # other variables are trained than before: the optimiser starts anew
            progress.restore(trainer)
            trainer.compile(optimizer=optimizer_of(settings))
        else:
            trainer.compile(optimizer=optimizer_of(settings))
            progress.restore(trainer)
        if not progress.history and validation:
            talking = [callback for callback in callbacks if isinstance(callback, StepLog)]
            start_logs = trainer.evaluate(validation, verbose=0, return_dict=True, callbacks=talking)
            progress.record_start(trainer, start_logs)
        trainer.fit(
            data.dataset(progress.epoch),
            initial_epoch=progress.epoch,
            epochs=end,
            steps_per_epoch=data.steps_per_epoch,
            shuffle=False,  # the data is in its own random order
            validation_data=validation,
            callbacks=callbacks,
            verbose=verbose,
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let fresh weights depend on `seed`: Keras's initializers draw theirs from Python's generator, which is put back.

    `keras.utils.set_random_seed` would seed the caller's NumPy and TensorFlow, too, for good.
    """
    earlier = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(earlier)


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Build layers under a dtype policy, and put the earlier one back."""
    earlier = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(earlier)


def _strategy(name: str) -> AbstractContextManager[Any]:
    """Return the context in which a trainer for several devices is built.

    TensorFlow's strategy for several workers is not among them: Keras 3 does not support it
    (https://github.com/keras-team/keras/issues/20585). JAX with `keras.distribution` is what takes its place.
    """
    backends = {"mirrored": "tensorflow", "data-parallel": "jax"}
    needed = backends.get(name, keras.backend.backend())
    if keras.backend.backend() != needed:
        raise UsageError(f"Strategy {name} is for the {needed} backend; this is {keras.backend.backend()}.")
    if name == "mirrored":
        return _mirrored().scope()
    return keras.distribution.DataParallel().scope() if name == "data-parallel" else nullcontext()


def _mirrored() -> tf.distribute.Strategy:
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])
