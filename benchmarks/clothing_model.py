"""Make the model folder that is committed out of training runs: half-precision values, a picture of the curves.

usage: python benchmarks/clothing_model.py RUN... OUT_DIR [--size 320] [--last] [--gain 2]
           [--data SPEC... [--start MODEL_DIR --kept 0.8]]

The weights are those of the last run's best epoch (or of its last one); the curves are those of all runs, one after
the other. With --data the batch norms' statistics are measured anew, on photos of the training as they are: what
training leaves are those of its last ten batches or so. With --start the weights are mixed with those that training
began with (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022), which brings back some of what it forgot;
the folder may be where another run starts. Cross-entropy hedges where it is unsure: --gain multiplies what the last
convolution gives, before the sigmoid. Weights are rounded to half precision, which `model.keras`
stores as float32 with zeros that deflate: it loads everywhere. Mattes are given as they are, not stretched to [0, 1]
as the official model's.
"""

import argparse
import csv
import tempfile
import zipfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from keras_matting.data.pipeline.batches import TrainingData
from keras_matting.data.sources import read_sources
from keras_matting.model_folder import KERAS_FILE, Preset
from keras_matting.models.folder import load_model, write_model_folder
from keras_matting.models.layers import IBNorm
from keras_matting.training.progress import HISTORY_FILE
from keras_matting.training.start import recalibrate_folded_norms
from keras_matting.training.strip import strip

LICENCE = "research and demonstration only: trained on data without a licence for more"
BATCH, BATCHES = 8, 60  # to measure batch norms on
FOLDED_BATCHES = 4  # those of an official model, which came folded
LAST_CONVOLUTION = {"u2netp": "outconv", "modnet": "f_branch.conv_f.1.layers.0"}
_FIGURES = {"miou": "mIoU", "mae": "MAE"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=320, help="input size (default: 320)")
    parser.add_argument("--last", action="store_true", help="of the last run take the last epoch, not the best")
    parser.add_argument("--data", nargs="+", default=(), metavar="SPEC", help="training data, as train takes it")
    parser.add_argument("--start", type=Path, help="the model that training began with; needs --data")
    parser.add_argument("--kept", type=float, default=0.8, help="the part of the trained weights in the mix")
    parser.add_argument("--gain", type=float, default=1.0, help="what the logits are multiplied by (default: 1)")
    arguments = parser.parse_args()
    if arguments.start and not arguments.data:
        parser.error("--start needs --data")
    with tempfile.TemporaryDirectory() as folder:
        stripped = Path(folder) / arguments.out.name
        preset = strip(arguments.runs[-1], stripped, last=arguments.last)
        preset = replace(preset, input_size=(arguments.size, arguments.size))
        model = load_model(stripped, preset)
    if arguments.start:
        mix(model, arguments.start, arguments.kept, islice(training_images(arguments.data, preset), FOLDED_BATCHES))
    if arguments.data:
        measure_norms(model, training_images(arguments.data, preset))
    last = model.get_layer(LAST_CONVOLUTION[preset.architecture])
    last.set_weights([weights * arguments.gain for weights in last.get_weights()])
    model.set_weights([halved(weights) for weights in model.get_weights()])
    preset = replace(preset, output="identity", licence=LICENCE)
    write_model_folder(model, preset, arguments.out, force=True)
    deflate(arguments.out / KERAS_FILE)
    load_model(arguments.out, Preset.load(arguments.out))  # raises unless the digest fits
    draw([row for run in arguments.runs for row in history(run)], arguments.out / "curves.png")
    keras.utils.clear_session()
    print(f"{arguments.out}: {(arguments.out / KERAS_FILE).stat().st_size / 1e6:.1f} MB")


def training_images(specs, preset):
    """Yield batches of training photos as they are, normalised: float32 (N, height, width, 3)."""
    data = TrainingData(read_sources(specs), preset, batch_size=BATCH, seed=1)
    for image, _ in islice(data.dataset(), BATCHES):
        yield image


def mix(model, start, kept, batches):
    """Move the weights to `kept` times themselves and the rest of those in the model folder `start`."""
    other = load_model(start, replace(Preset.load(start), input_size=model.input_shape[1:3]))
    recalibrate_folded_norms(other, [image.numpy() for image in batches])  # as training did when it began
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    model.set_weights([kept * trained + (1 - kept) * before for trained, before in pairs])


def measure_norms(model, batches):
    """Make the batch norms' moving statistics the mean of those of `batches`."""
    inner = [layer.bnorm if isinstance(layer, IBNorm) else layer for layer in model.layers]
    norms = [layer for layer in inner if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # what is left is the last batch's
    forward = tf.function(lambda image: model(image, training=True)["matte"], jit_compile=False)
    seen = []
    for image in batches:
        forward(image)
        seen.append([(norm.moving_mean.numpy(), norm.moving_variance.numpy()) for norm in norms])
    for index, (norm, momentum) in enumerate(zip(norms, momenta, strict=True)):
        means, variances = (np.array([batch[index][part] for batch in seen], np.float64) for part in (0, 1))
        norm.moving_mean.assign(means.mean(axis=0))
        norm.moving_variance.assign((variances + means**2).mean(axis=0) - means.mean(axis=0) ** 2)
        norm.momentum = momentum


def halved(weights):
    """Return weights rounded to what half precision holds, as float32; those beyond its range as they are."""
    rounded = weights.astype(np.float16).astype(np.float32)
    is_held = np.isfinite(rounded) & ((np.abs(weights) >= 2**-14) | (weights == 0))
    return np.where(is_held, rounded, weights)


def deflate(path):
    """Write a ZIP archive anew, compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def history(run):
    """Return a run's epochs as dictionaries of numbers."""
    with (run / HISTORY_FILE).open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def draw(rows, path):
    """Draw the validation figures of each source, and the loss, against the photos' order of training."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    names = sorted({key[4 : -len("_miou")] for row in rows for key in row if key.startswith("val_") and "_miou" in key})
    sources = [name for name in names if name and name != "worst"]
    for axis, (metric, label) in zip(figure.subplots(1, 2), _FIGURES.items(), strict=True):
        for source in sources:
            points = [
                (epoch, row[f"val_{source}_{metric}"])
                for epoch, row in enumerate(rows)
                if f"val_{source}_{metric}" in row
            ]
            axis.plot(*zip(*points, strict=True), marker=".", label=source)
        axis.set(xlabel="epoch", ylabel=f"{label}, held-out photos")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
