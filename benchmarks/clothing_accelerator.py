"""Train the clothing models on an accelerator: Keras's `fit` on JAX, photos made by all processors meanwhile.

usage: python benchmarks/clothing_feed.py PACKED_DIR POOLS_DIR &
       KERAS_BACKEND=jax python benchmarks/clothing_accelerator.py MODEL PACKED_DIR POOLS_DIR OUT_DIR --start START.npz
           --minutes M [--sizes 256 / 256 320] [--shrink-to 320] [--batch 24] [--rate 4e-4] [--ema 0.998]
           [--keep-statistics] [--only PREFIX ...]

Needs no TensorFlow. MODEL is u2netp or modnet; PACKED_DIR is what `clothing_pack.py` wrote, START.npz what
`clothing_weights.py` did. The clock decides: training takes `--minutes`, whatever the device manages, and the rate
falls to nothing by then; a number in OUT_DIR/minutes goes before it, also one that is written later. OUT_DIR gets
`history.csv`, one line an epoch, and `weights.npz`, written anew after every validation. Several runs may share pools.
Where there is no accelerator, KERAS_BACKEND=tensorflow tunes further what was trained on one: small batches, to which
batch norms do not adapt with `--keep-statistics`.
"""

import argparse
import csv
import json
import math
import time
from pathlib import Path

import cv2
import keras
import numpy as np
from clothing_feed import VALIDATION, Pool, load
from clothing_weights import restore, save
from keras import ops

from keras_matting import architectures
from keras_matting.models import build_model
from keras_matting.training import losses
from keras_matting.training.optimizers import FusedAdam
from keras_matting.training.trainers import MODNetTrainer, U2NetTrainer

ABSOLUTE, OVERLAP, EDGES = 3.0, 1.0, 2.0  # weights beside the official terms; cross-entropy alone hedges
STEPS = 50  # of an epoch
WARMUP = 2  # epochs
TRIMAP_DILATE, TRIMAP_ERODE = 25 / 512, 5 / 512  # of the height


class Sharper:
    """What both trainers have here: uint8 samples in, as pools hold them, and terms that leave no haze."""

    EXTRA = "absolute", "overlap", "edges"
    keeps_statistics = False

    def call(self, image, training=None):
        """Return the network's outputs; without dropout, only batch norms can tell training from use."""
        return super().call(image, training=training and not self.keeps_statistics)

    def train_step(self, *state_and_data):
        """Normalise the samples on the device, then train as Keras does; on JAX with its state."""
        *state, data = state_and_data
        return super().train_step(*state, self.prepared(*data[:2]))

    def test_step(self, *state_and_data):
        """Normalise the samples on the device, then evaluate as Keras does."""
        *state, data = state_and_data
        return super().test_step(*state, self.prepared(*data[:2]))

    def prepared(self, samples, source):
        """Return (image, targets) of samples, uint8 (N, H, W, 4), and the numbers of their sources (N,)."""
        image, alpha = normalised(samples, self.network.name)
        dilate, erode = (max(3, round(part * samples.shape[1])) for part in (TRIMAP_DILATE, TRIMAP_ERODE))
        possible = losses.dilate(ops.cast(alpha > 0.5 / 255, "float32"), dilate)
        certain = losses.erode(ops.cast(alpha >= 0.9, "float32"), erode)
        return image, {"alpha": alpha, "trimap": (possible + certain) / 2, "source": source}

    def terms(self, image, targets, outputs):
        """Return the official terms, absolute differences of mattes and of slopes, and what overlaps too little."""
        alpha, matte = targets["alpha"], outputs["matte"]
        return {
            **self.official_terms(image, targets, outputs),
            "absolute": ABSOLUTE * ops.mean(ops.abs(matte - alpha)),
            "overlap": OVERLAP * missed_overlap(alpha, matte),
            "edges": EDGES * slopes(alpha - matte),
        }


class SharpU2Net(Sharper, U2NetTrainer):
    """U2NetP."""

    TERMS = (*U2NetTrainer.TERMS, *Sharper.EXTRA)

    def official_terms(self, image, targets, outputs):
        """Return the cross-entropy of each map."""
        return U2NetTrainer.terms(self, image, targets, outputs)


class SharpMODNet(Sharper, MODNetTrainer):
    """MODNet; cross-entropy in the place of the mean square and beside the matte's term, since it learns sooner."""

    TERMS = (*MODNetTrainer.TERMS, "entropy", *Sharper.EXTRA)

    def official_terms(self, image, targets, outputs):
        """Return the branches' terms."""
        alpha = targets["alpha"]
        coarse = losses.shrink(alpha, losses.SEMANTIC_STRIDE)
        return {
            **MODNetTrainer.terms(self, image, targets, outputs),
            "semantic": losses.binary_cross_entropy(coarse, outputs["semantic"]),
            "entropy": losses.binary_cross_entropy(alpha, outputs["matte"]),
        }


TRAINERS = {"u2netp": SharpU2Net, "modnet": SharpMODNet}


def normalised(samples, architecture):
    """Return (image, alpha) of samples, uint8 (N, H, W, 4): float32, as the architecture's own code prepares photos."""
    preset = architectures.default_preset(architecture, architecture)
    pixels = ops.cast(samples, "float32")
    image, alpha = pixels[..., :3], pixels[..., 3:] / 255
    brightest = ops.maximum(ops.max(image, axis=(1, 2, 3), keepdims=True), 1.0)
    image = image / (brightest if preset.scale == "image-max" else 255.0)
    return (image - np.float32(preset.mean)) / np.float32(preset.std), alpha


def missed_overlap(alpha, matte):
    """Return 1 less the soft intersection over union, mean over the photos; a hundredth of a photo is forgiven."""
    forgiven = 0.01 * alpha.shape[1] * alpha.shape[2]
    both = ops.sum(alpha * matte, axis=(1, 2, 3))
    either = ops.sum(alpha + matte - alpha * matte, axis=(1, 2, 3))
    return 1 - ops.mean((both + forgiven) / (either + forgiven))


def slopes(difference):
    """Return the mean absolute slope of (N, H, W, 1), down and across."""
    down = difference[:, 1:] - difference[:, :-1]
    across = difference[:, :, 1:] - difference[:, :, :-1]
    return ops.mean(ops.abs(down)) + ops.mean(ops.abs(across))


class Clock(keras.callbacks.Callback):
    """The rate by the part of the time that is over; the end when it is."""

    def __init__(self, minutes, rate, file):
        super().__init__()
        self.minutes, self.rate, self.file, self.start = minutes, rate, file, None

    def part(self):
        """Return how much of the time is over, from the first step's end: what is compiled before does not count."""
        return min(1.0, (time.monotonic() - self.start) / 60 / self.minutes) if self.start else 0.0

    def on_train_batch_end(self, batch, logs=None):
        """Start the clock."""
        self.start = self.start or time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        """Set the epoch's rate."""
        if self.file.exists():
            self.minutes = float(self.file.read_text(encoding="utf-8"))
        rate = self.rate * (1 + math.cos(math.pi * self.part())) / 2
        self.model.optimizer.learning_rate = rate * min(1.0, (epoch + 1) / (WARMUP + 1))

    def on_epoch_end(self, epoch, logs=None):
        """Stop when the time is over."""
        self.model.stop_training = self.part() >= 1


class Record(keras.callbacks.Callback):
    """An epoch's figures, printed and in `history.csv`; validation and `weights.npz` every so many seconds."""

    def __init__(self, out, clock, validation, seconds):
        super().__init__()
        self.out, self.clock, self.validation, self.seconds = out, clock, validation, seconds
        self.rows, self.last = [], time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Record the epoch."""
        row = {
            "epoch": epoch,
            "part": self.clock.part(),
            "seconds": time.monotonic() - self.clock.start,
            **(logs or {}),
        }
        if time.monotonic() - self.last > self.seconds or self.model.stop_training:
            samples, source = self.validation
            figures = self.model.evaluate(
                samples, source, batch_size=len(samples) // len(VALIDATION), verbose=0, return_dict=True
            )
            row |= {f"val_{name}": value for name, value in figures.items() if "miou" in name or "mae" in name}
            with self.model.averaged():
                save(self.model.network, self.out / "weights.npz")
            self.last = time.monotonic()
        self.rows.append({name: float(value) for name, value in row.items()})
        names = list(dict.fromkeys(name for each in self.rows for name in each))
        with (self.out / "history.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)
        shown = {name: round(row[name], 4) for name in row if "miou" in name or "mae" in name}
        print(f"{epoch} {row['seconds']:.0f} s, loss {row['loss']:.3f}, {shown}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=TRAINERS)
    parser.add_argument("packed", type=Path)
    parser.add_argument("pools", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, help="weights that training begins with, all or some")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["256", "/", "256", "320"],
        help="of the batches, by turns; those behind / in the second half of the time",
    )
    parser.add_argument("--shrink-to", type=int, metavar="SIZE", help="at which the pools' samples are learned from")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--count", type=int, default=3072, help="samples of a pool")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--validate-every", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--ema", type=float, help="of a moving average of the weights, which is judged and kept")
    parser.add_argument("--only", nargs="+", metavar="PREFIX", help="learn only layers whose names begin so")
    parser.add_argument("--keep-statistics", action="store_true", help="of batch norms, for small batches")
    arguments = parser.parse_args()
    if arguments.shrink_to and arguments.shrink_to > min(pools_used(arguments.sizes)):
        parser.error(f"argument --shrink-to: expected no more than the pools' sizes; received {arguments.shrink_to}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(arguments.precision)
    trainer = TRAINERS[arguments.model](build_model(arguments.model), tuple(VALIDATION))
    if arguments.start:
        found = restore(trainer.network, arguments.start)
        print(f"{found} of {len(trainer.network.weights)} variables from {arguments.start.name}", flush=True)
    if arguments.only:
        for layer in trainer.network.layers:
            layer.trainable = layer.name.startswith(tuple(arguments.only))
    clock = Clock(arguments.minutes, arguments.rate, arguments.out / "minutes")
    trainer.keeps_statistics = arguments.keep_statistics
    average = {"use_ema": True, "ema_momentum": arguments.ema} if arguments.ema else {}
    trainer.compile(optimizer=FusedAdam(arguments.rate, epsilon=1e-8, **average))
    validation = validation_set(load(arguments.packed)[0], arguments.shrink_to or max(pools_used(arguments.sizes)))
    pools = {size: Pool(arguments.pools, size, arguments.count) for size in pools_used(arguments.sizes)}
    batches = drawn(pools, arguments.sizes, arguments.batch, clock, arguments.shrink_to)
    record = Record(arguments.out, clock, validation, arguments.validate_every)
    (arguments.out / "arguments.json").write_text(json.dumps(vars(arguments), default=str), encoding="utf-8")
    endless = {"steps_per_epoch": arguments.steps, "epochs": 10**6, "shuffle": False}
    trainer.fit(batches, **endless, callbacks=[clock, record], verbose=0)
    print("done", flush=True)


def pools_used(sizes):
    return [int(size) for size in sizes if size != "/"]


def drawn(pools, sizes, batch, clock, shrink_to=None):
    """Yield (samples, sources) by the sizes before "/" in the first half of the time, those behind it in the second.

    `shrink_to`: the size that samples are shrunk to, so that models of several sizes share a pool.
    """
    middle = sizes.index("/") if "/" in sizes else len(sizes)
    halves = pools_used(sizes[:middle]), pools_used(sizes[middle:] or sizes)
    rng, turn = np.random.default_rng(2), 0
    while True:
        turns = halves[clock.part() >= 0.5]
        samples = pools[turns[turn % len(turns)]].draw(batch, rng)
        if shrink_to:
            samples = np.stack([cv2.resize(each, (shrink_to,) * 2, interpolation=cv2.INTER_AREA) for each in samples])
        yield samples, np.zeros(batch, np.int32)
        turn += 1


def validation_set(pairs, size):
    """Return (samples, sources): the packed photos of each validation set, shaped as a pool's samples."""
    samples, source = [], []
    for number, folder in enumerate(VALIDATION.values()):
        for picture, alpha in pairs[folder]:
            both = (cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA) for part in (picture, alpha))
            samples.append(np.dstack(list(both)))
            source.append(number)
    return np.stack(samples), np.array(source, np.int32)


if __name__ == "__main__":
    main()
