"""A training run -> a model folder that serves: no optimiser, no trainer, float32."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import keras

from keras_matting import architectures
from keras_matting.errors import UsageError
from keras_matting.files import StrPath, text_bytes, write_atomically
from keras_matting.model_folder import Preset
from keras_matting.models import build_model
from keras_matting.models.folder import write_model_folder
from keras_matting.training.progress import Progress
from keras_matting.training.settings import Settings

TRAINING_FILE = "training.json"
CARD_FILE = "MODEL_CARD.md"


def strip(
    run_dir: StrPath, out_dir: StrPath, *, name: str | None = None, last: bool = False, force: bool = False
) -> Preset:
    """Write the model folder `out_dir` from a run's best epoch, or its `last` one; return its preset.

    Beside the preset and the weights it gets `training.json` (settings and the epoch's metrics) and a model card to
    complete. Raises `UsageError` if the run has no whole epoch yet, or `out_dir` exists and `force` is not given.
    """
    run_dir, out_dir = Path(run_dir), Path(out_dir)
    settings, preset = Settings.load(run_dir), Preset.load(run_dir)
    progress = Progress(run_dir, settings.monitor)
    progress.read()
    if not progress.epoch:
        raise UsageError(f"Expected a run with one whole epoch at least; {run_dir} has none. Continue it first.")
    network = build_model(settings.model, preset.input_size)
    if last:
        epoch = _load_last(network, settings, progress)
    else:
        epoch = progress.state["best_epoch"]
        progress.load_best(network)
    preset = replace(preset, name=name or out_dir.name, source=f"trained by keras-matting from {_origin(settings)}")
    preset = write_model_folder(network, preset, out_dir, force)
    metrics = progress.metrics_of(epoch)
    record = {"epoch": epoch, "metrics": metrics, "settings": asdict(settings)}
    write_atomically(out_dir / TRAINING_FILE, (json.dumps(record, indent=2) + "\n").encode())
    write_atomically(out_dir / CARD_FILE, text_bytes(_card(preset, settings, metrics)))
    return preset


def _load_last(network: keras.Model, settings: Settings, progress: Progress) -> int:
    """Load the last checkpoint and return its epoch; a run that goes on may have replaced the one it told of."""
    trainer = architectures.find(settings.model).trainer(settings.objective, network)
    while True:
        checkpoint = progress.state["checkpoint"]
        try:
            progress.restore(trainer)
            return progress.epoch
        except UsageError:
            progress.read()
            if progress.state["checkpoint"] == checkpoint:
                raise


def _origin(settings: Settings) -> str:
    return f"{Path(settings.init).name}" if settings.init else "random weights"


def _validation(settings: Settings) -> str:
    told = ", ".join(settings.val)
    if settings.val_fraction:
        part = f"a part of {settings.val_fraction:g}"
        return f"{part} of {told}" if told else f"{part}, split off the data"
    return told or "none; these are the weights of the last epoch"


def _card(preset: Preset, settings: Settings, metrics: Mapping[str, float]) -> str:
    """Return a model card: what is known is filled in, what only people know is asked for."""
    height, width = preset.input_size
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in metrics.items())
    return f"""# {preset.name}

{preset.architecture} at {height}x{width}, trained by keras-matting ({settings.objective}, start: {_origin(settings)}).

| | |
|---|---|
{rows}

- **Data**: {", ".join(settings.data)}; augmentation {settings.augment}.
- **Validation**: {_validation(settings)}.
- **Licence**: TODO: the weights stand under the terms of the data and of the weights they started from.
- **Limits**: TODO: what the model was not trained on, and where it fails.
"""
