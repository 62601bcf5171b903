"""Train a network where it decides what is clothing and not where its edges are: several times as many photos a minute.

usage: KERAS_BACKEND=tensorflow python benchmarks/clothing_coarse.py MODEL POOLS_DIR OUT_DIR --start START.npz
           --minutes M [--size 384] [--shrink-to 320] [--mirror] [--count 8192] [--batch 16] [--rate 2e-4] [--ema 0.99]
           [--threads 1]

Most of a step's time goes into what sees the photo at its full and half resolution. Here U2NetP's two finest encoders
are frozen and their decoders left out: what learns are the levels from a quarter downwards, by the maps 3 to 6 at their
own resolutions, which the official training looks at, too. Of MODNet the semantic branch learns, by its own map, and
the backbone from an eighth downwards. Statistics of batch norms stay. Afterwards what was left out has to learn what
the rest gives it now: `clothing_accelerator.py --only stage1d. stage2d. side1 side2 outconv`, or `--only hr_branch.
f_branch.`. POOLS_DIR may be filled meanwhile, by `clothing_feed.py`; `--mirror` every other sample where it is filled
more slowly than drawn from. START.npz is what `clothing_weights.py` wrote, and OUT_DIR gets `weights.npz`, the moving
average of all weights, every five minutes and at the end.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np
from clothing_accelerator import ABSOLUTE, OVERLAP, STEPS, Clock, drawn, missed_overlap, normalised
from clothing_feed import Pool
from clothing_weights import restore, save
from keras import ops

from keras_matting.models import build_model
from keras_matting.training import losses
from keras_matting.training.optimizers import FusedAdam

FROZEN = {
    "u2netp": ("stage1.", "stage2.", "stage1d.", "stage2d.", "side1", "side2", "outconv"),
    "modnet": ("hr_branch.", "f_branch.", *(f"backbone.model.features.{number}." for number in range(7))),
}
U2NETP_MAPS = range(3, 7)
WHOLE = 2  # maps, the finest, of which also the whole matte's terms are asked, at half their weight
SAVED_EVERY_S = 300


class CoarseMaps(keras.Model):
    """A network's coarse maps, each at its own resolution: {"halvings": (N, h, w, 1) in [0, 1]}."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        for layer in network.layers:
            layer.trainable = not layer.name.startswith(FROZEN[network.name])
        if network.name == "modnet":
            maps = {losses.SEMANTIC_STRIDE.bit_length() - 1: network.output["semantic"]}
        else:
            sides = {number - 1: network.get_layer(f"side{number}").output for number in U2NETP_MAPS}
            maps = {level: ops.sigmoid(ops.cast(side, "float32")) for level, side in sides.items()}
        self.maps = keras.Model(network.input, {str(level): found for level, found in maps.items()})

    def call(self, image, training=None):
        """Return the maps, with the batch norms' statistics as they are."""
        return {level: ops.cast(found, "float32") for level, found in self.maps(image, training=False).items()}

    def train_step(self, *state_and_data):
        """Normalise the samples, uint8 (N, H, W, 4), on the device, then train as Keras does."""
        *state, (samples, _) = state_and_data
        return super().train_step(*state, normalised(samples, self.network.name))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the maps' cross-entropy, and of the finest what they miss: half as much as of a whole matte."""
        total = 0.0
        finest = sorted(map(int, y_pred))[:WHOLE]
        for level in map(int, y_pred):
            alpha, found = losses.shrink(y, 2**level), y_pred[str(level)]
            total += losses.binary_cross_entropy(alpha, found)
            if level in finest:
                total += ABSOLUTE / 2 * ops.mean(ops.abs(alpha - found)) + OVERLAP / 2 * missed_overlap(alpha, found)
        return total


class Record(keras.callbacks.Callback):
    """An epoch's loss, printed; the averaged weights every so often."""

    def __init__(self, path, clock):
        super().__init__()
        self.path, self.clock, self.last = path, clock, time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Print and perhaps save."""
        print(f"{epoch} {time.monotonic() - self.clock.start:.0f} s, loss {logs['loss']:.4f}", flush=True)
        if time.monotonic() - self.last > SAVED_EVERY_S or self.model.stop_training:
            learned = self.model.trainable_variables
            now = [np.copy(ops.convert_to_numpy(variable)) for variable in learned]
            self.model.optimizer.finalize_variable_values(learned)  # the moving average in their place
            save(self.model.network, self.path)
            for variable, value in zip(learned, now, strict=True):
                variable.assign(value)
            self.last = time.monotonic()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=FROZEN)
    parser.add_argument("pools", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--shrink-to", type=int, metavar="SIZE", help="at which the pool's samples are learned from")
    parser.add_argument("--mirror", action="store_true", help="every other sample, whichever")
    parser.add_argument("--count", type=int, default=8192, help="samples of the pool")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--threads", type=int, help="of TensorFlow: on a busy machine, fewer are faster")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.threads:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = build_model(arguments.model, (arguments.shrink_to or arguments.size,) * 2)
    if (found := restore(network, arguments.start)) != len(network.weights):
        raise SystemExit(f"Expected all {len(network.weights)} weights in {arguments.start}; received {found}.")
    model = CoarseMaps(network)
    model.compile(FusedAdam(arguments.rate, epsilon=1e-8, use_ema=True, ema_momentum=arguments.ema))
    clock = Clock(arguments.minutes, arguments.rate, arguments.out / "minutes")
    pools = {arguments.size: Pool(arguments.pools, arguments.size, arguments.count)}
    batches = drawn(pools, [str(arguments.size)], arguments.batch, clock, arguments.shrink_to)
    if arguments.mirror:
        batches = mirrored(batches)
    endless = {"steps_per_epoch": STEPS, "epochs": 10**6, "shuffle": False, "verbose": 0}
    model.fit(batches, **endless, callbacks=[clock, Record(arguments.out / "weights.npz", clock)])


def mirrored(batches):
    """Yield the batches with every other sample mirrored, whichever; seeded."""
    rng = np.random.default_rng(5)
    for samples, sources in batches:
        chosen = rng.random(len(samples)) < 0.5
        samples[chosen] = samples[chosen, :, ::-1]
        yield samples, sources


if __name__ == "__main__":
    main()
