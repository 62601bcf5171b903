"""Train U2NetP where it decides what is clothing and not where its edges are: several times as many photos a minute.

usage: KERAS_BACKEND=tensorflow python benchmarks/clothing_coarse.py POOLS_DIR OUT_DIR --start START.npz --minutes M
           [--size 384] [--count 8192] [--batch 16] [--rate 2e-4] [--ema 0.99] [--threads 1]

Three quarters of a step's time go into U2NetP's two finest levels, at the photo's full and half resolution. Here their
encoders are frozen and their decoders left out: what learns are the levels from a quarter downwards, by the maps 3 to 6
at their own resolutions, which the official training looks at, too. Statistics of batch norms stay. Afterwards the two
finest decoders have to learn what the others give them now: `clothing_accelerator.py --only stage1d. stage2d. side1
side2 outconv`. POOLS_DIR may be filled meanwhile, by `clothing_feed.py`; START.npz is what `clothing_weights.py` wrote,
and OUT_DIR gets `weights.npz`, the moving average of all weights, every five minutes and at the end.
"""

import argparse
import time
from itertools import repeat
from pathlib import Path

import keras
import numpy as np
from clothing_accelerator import ABSOLUTE, OVERLAP, STEPS, Clock, missed_overlap, normalised
from clothing_feed import Pool
from clothing_weights import restore, save
from keras import ops

from keras_matting.models import build_model
from keras_matting.training import losses
from keras_matting.training.optimizers import FusedAdam

FINEST, COARSEST = 3, 6  # maps
FROZEN = "stage1.", "stage2.", "stage1d.", "stage2d.", "side1", "side2", "outconv"
SAVED_EVERY_S = 300


class CoarseMaps(keras.Model):
    """U2NetP's maps from `FINEST` to `COARSEST`, each at its own resolution, (N, h, w, 1) in [0, 1]."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        for layer in network.layers:
            layer.trainable = not layer.name.startswith(FROZEN)
        maps = [network.get_layer(f"side{number}").output for number in range(FINEST, COARSEST + 1)]
        self.maps = keras.Model(network.input, maps)

    def call(self, image, training=None):
        """Return the maps, with the batch norms' statistics as they are."""
        return [ops.sigmoid(ops.cast(each, "float32")) for each in self.maps(image, training=False)]

    def train_step(self, *state_and_data):
        """Normalise the samples, uint8 (N, H, W, 4), on the device, then train as Keras does."""
        *state, (samples, _) = state_and_data
        return super().train_step(*state, normalised(samples, self.network.name))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the maps' cross-entropy, and of the two finest what they miss: half as much as of a whole matte."""
        total = 0.0
        for level, found in enumerate(y_pred, FINEST - 1):
            alpha = losses.shrink(y, 2**level)
            total += losses.binary_cross_entropy(alpha, found)
            if level < FINEST + 1:
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
    parser.add_argument("pools", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--size", type=int, default=384)
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
    network = build_model("u2netp", (arguments.size,) * 2)
    if (found := restore(network, arguments.start)) != len(network.weights):
        raise SystemExit(f"Expected all {len(network.weights)} weights in {arguments.start}; received {found}.")
    model = CoarseMaps(network)
    model.compile(FusedAdam(arguments.rate, epsilon=1e-8, use_ema=True, ema_momentum=arguments.ema))
    clock = Clock(arguments.minutes, arguments.rate, arguments.out / "minutes")
    pool, rng = Pool(arguments.pools, arguments.size, arguments.count), np.random.default_rng(2)
    batches = ((pool.draw(arguments.batch, rng), np.zeros(arguments.batch, np.int32)) for _ in repeat(None))
    endless = {"steps_per_epoch": STEPS, "epochs": 10**6, "shuffle": False, "verbose": 0}
    model.fit(batches, **endless, callbacks=[clock, Record(arguments.out / "weights.npz", clock)])


if __name__ == "__main__":
    main()
