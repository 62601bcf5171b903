"""Keep of the training photos in a pool only those that a model is worst at, so that a short training is spent on them.

usage: python benchmarks/clothing_hard.py MODEL_DIR POOLS_DIR --size 384 --count 8192 [--keep 0.4]
           [--kinds simple ...] [--engine onnx-cpu]

For a pool that `clothing_feed.py --once` filled, before training, and once: a second time takes a part of the part. A
model that is right about nearly everything learns next to nothing from most photos, and to look at one takes a quarter
of the time of a step of training (online hard example mining, Shrivastava et al., 2016, done beforehand). The others
stay in the file and are no longer drawn. Photos whose alpha is not exact all stay: what a model misses there may be the
truth's fault, as it rarely is in a scene, whose background may hold clothing that was not taken out. MODEL_DIR may be
an export of the same weights at a smaller size.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from clothing_accelerator import missed_overlap
from clothing_feed import EXACT, LEFT_OUT, SHARES, Pool

from keras_matting.matting import OutputOptions, Session
from keras_matting.photos.files import Photo


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("pools", type=Path)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="samples of the pool")
    parser.add_argument("--keep", type=float, default=0.4, help="the share of each kind that is kept")
    parser.add_argument(
        "--kinds", nargs="+", choices=EXACT, default=EXACT, help="those that are looked at (default: all)"
    )
    parser.add_argument("--engine", default="onnx-cpu")
    arguments = parser.parse_args()
    if not 0 < arguments.keep <= 1:
        parser.error(f"argument --keep: expected a share above 0, at most 1; received {arguments.keep}")
    pool = Pool(arguments.pools, arguments.size, arguments.count)
    session = Session(arguments.model, arguments.engine)
    keep_hardest(pool, partial(_matte, session), arguments.keep, arguments.kinds)


def _matte(session, rgb):
    return session.matte(Photo(rgb), OutputOptions(kind="mask"))


def keep_hardest(pool, matte, share, kinds=EXACT):
    """Leave to be drawn, of each kind with exact alpha, only a share of a pool's samples: the worst.

    `matte`: a function of a photo, uint8 RGB (H, W, 3), that returns a matte, uint8 (H, W).
    """
    samples, flags = pool.samples(), pool.flags("r+")
    for kind in kinds:
        numbers = np.flatnonzero(flags == 1 + list(SHARES).index(kind))
        all_missed = np.array([missed(samples[number], matte) for number in numbers])
        order = np.argsort(all_missed)
        easy = len(numbers) - round(share * len(numbers))
        flags[numbers[order[:easy]]] = LEFT_OUT
        if len(numbers):
            worst = all_missed[order[easy:]].mean()
            print(f"{kind}: {len(numbers)} miss {all_missed.mean():.4f}, those that stay {worst:.4f}", flush=True)


def missed(sample, matte):
    """Return how much of a sample's overlap `matte` misses, as training counts it."""
    found = matte(np.ascontiguousarray(sample[..., :3]))
    both = (part[None, ..., None] / np.float32(255) for part in (sample[..., 3], found))
    return float(missed_overlap(*both))


if __name__ == "__main__":
    main()
