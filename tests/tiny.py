"""A model of two convolutions that trains in a second, for what runs do whatever the architecture.

It is added as CONTRIBUTING.md says: a file with a builder (and a trainer, since none of ours fits), and a row.
"""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np

from keras_matting.architectures import ARCHITECTURES, Architecture, Recipe
from keras_matting.models.layers import batch_norm, conv, probability
from keras_matting.training import losses, trainers
from keras_matting.training.settings import Settings

SIZE = 16


def build(input_size):
    image = keras.Input((*input_size, 3), name="image")
    x = keras.layers.ReLU()(batch_norm("norm")(conv(image, 8, 3, "first")))
    return keras.Model(image, {"matte": probability(conv(x, 1, 3, "last"))}, name="tiny")


class TinyTrainer(trainers.Trainer):
    TERMS = ("matte",)

    def terms(self, image, targets, outputs):
        return losses.deep_supervision(targets["alpha"], outputs)


ROW = Architecture(
    name="tiny",
    builder="tiny:build",
    preset={"input_size": (SIZE, SIZE), "mean": (0.5,) * 3, "std": (0.5,) * 3},
    recipes={
        "supervised": Recipe(
            trainer="tiny:TinyTrainer", optimizer="keras.optimizers:Adam", learning_rate=1e-3, tuning_rate=1e-4
        ),
    },
)


def register():
    """Make "tiny" an architecture that runs can train."""
    ARCHITECTURES["tiny"] = ROW


def unregister():
    """Make it unknown again."""
    ARCHITECTURES.pop("tiny", None)


def write_pairs(folder, count=12, white=255):
    """Write photos of bright discs on dark ground and their masks, and return the folder."""
    random = np.random.default_rng(0)
    for part in ("image", "mask"):
        (folder / part).mkdir(parents=True)
    for index in range(count):
        centre, radius = random.integers(8, 24, 2), random.integers(5, 9)
        disc = np.hypot(*(np.mgrid[:32, :32] - centre[:, None, None])) < radius
        noise = random.integers(0, 60, (32, 32, 3))
        photo = np.where(disc[..., None], (220, 180, 140), noise).astype(np.uint8)
        cv2.imwrite(str(folder / "image" / f"{index:02}.png"), photo)
        cv2.imwrite(str(folder / "mask" / f"{index:02}.png"), (disc * white).astype(np.uint8))
    return folder


def settings(folder, **changes):
    """Return the settings of a short run of the tiny model on a folder of pairs."""
    options = {"model": "tiny", "data": [str(folder)], "val_fraction": 0.25, "epochs": 4, "batch_size": 2}
    options |= {"augment": "none", "steps_per_epoch": 3, "images_every": 0}
    return Settings(**{**options, **changes})


def losses_of(progress):
    """Return the training loss of every epoch."""
    return [row["loss"] for row in progress.history if "loss" in row]


def in_process(script, *arguments, **environment):
    """Run a script that has `tiny` and `train` at hand."""
    header = (
        "import sys, os, signal, tiny\n"
        "from keras_matting.training import callbacks, run\n"
        "from keras_matting.training.run import train\n"
        "tiny.register()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)} | environment
    command = [sys.executable, "-c", header + script, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
