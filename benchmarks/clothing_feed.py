"""Training photos made without end, by all processors, into pools that trainers draw from: no TensorFlow needed.

usage: python benchmarks/clothing_feed.py PACKED_DIR POOLS_DIR [--sizes 256 320] [--makers N] [--count 3072] [--once]
           [--shares street=0.27 ...]

A pool is a file of uint8 RGBA samples of one size, the alpha in the fourth channel. Makers overwrite it all the time,
and trainers read it without a lock: a sample that is overwritten while it is read is part one photo, part another, its
alpha likewise, so it still is a sample. PACKED_DIR is what `clothing_pack.py` wrote; parts may come later. `--once`
fills the pools and ends, where making and training would be in each other's way.
"""

import argparse
import os
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import clothing_groups as groups
import clothing_scenes as scenes
import cv2
import numpy as np
from clothing_scenes import Stock

PAIRS = "street", "flatlays"
GROUND = "ground-"  # how the names of packed backgrounds begin; a number, that of their kind, comes behind
VALIDATION = {
    "street": "val-street",
    "composites": "val-composites",
    "scenes": "val-scenes",
    "portraits": "val-portraits",
    "groups": "val-groups",
}
# How often a sample is a street photo, a part of one, its head and shoulders, a scene, a plain one, a flat-lay, a scene
# with nothing to take, and a group of people.
SHARES = {
    "street": 0.22,
    "crop": 0.08,
    "portrait": 0.07,
    "scene": 0.3,
    "simple": 0.1,
    "flatlay": 0.07,
    "nothing": 0.04,
    "group": 0.12,
}
EXACT = "scene", "simple", "nothing"  # kinds whose alpha is exact
PHOTO_SIZE = 480, 480  # of scenes with one garment
ROTATED, ROTATION = 0.5, 15  # degrees either way
SCALE = 0.88, 1.3
HUE, BLUR, NOISE, JPEG = 0.3, 0.25, 0.3, 0.3  # how often
MANY = 8  # batches that must be in a pool before it is drawn from
LEFT_OUT = 255  # a flag of samples that were made and are not drawn any more
LOOK = 50  # samples between two looks for another packed file
SMOOTHED = 0.5  # how often a photo that shrinks is smoothed first: what predict gets was shrunk in either way


def load(folder):
    """Return {folder: [(picture, alpha)]}, uint8 RGB and grey, and the `Stock` of scenes, out of the packed files."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as packed:
            for name in packed.files:
                if not name.endswith("/alpha"):
                    found.setdefault(name.split("/")[0], []).append(_read(packed, name))
    garments = *found["garment"], *found["garment"], *found["laid"]  # twice: these have exact edges
    grounds = tuple(found[kind] for kind in sorted(found) if kind.startswith(GROUND))
    if not grounds:
        raise SystemExit(f"Expected backgrounds among what was packed in {folder}: pack it anew.")
    people = tuple(found.get("person", ()))
    if not people:
        raise SystemExit(f"Expected people among what was packed in {folder}: pack it anew.")
    stock = Stock(garments, grounds, tuple(found["outfit"]), tuple(found["bare"]), people, is_varied=True)
    return {name: found.get(name, []) for name in (*PAIRS, *VALIDATION.values())}, stock


def _read(packed, name):
    """Return a picture, or (picture, alpha) where it has one."""
    picture, of_alpha = _decoded(packed[name]), f"{name}/alpha"
    return (picture, _decoded(packed[of_alpha])[..., 0]) if of_alpha in packed.files else picture


def _decoded(encoded):
    picture = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA if picture.shape[2] == 4 else cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class Pool:
    """A file of `count` samples (count, size, size, 4), and one that says of which kind each is, or that it is none."""

    folder: Path
    size: int
    count: int

    def samples(self, mode="r"):
        """Return the samples, uint8, as a memory map."""
        shape = self.count, self.size, self.size, 4
        return np.memmap(self.folder / f"{self.size}.samples", np.uint8, mode, shape=shape)

    def flags(self, mode="r"):
        """Return what each sample is, uint8 (count,): 0 until it is made, `LEFT_OUT`, or 1 and its kind in `SHARES`."""
        return np.memmap(self.folder / f"{self.size}.flags", np.uint8, mode, shape=(self.count,))

    def draw(self, count, rng):
        """Return `count` of the samples to be drawn, uint8 (count, size, size, 4); wait until many were made.

        Raises `ValueError` if too many were left out.
        """
        while np.count_nonzero(flags := self._flags_now()) < min(self.count, MANY * count):
            time.sleep(0.5)
        drawn = np.flatnonzero((flags != 0) & (flags != LEFT_OUT))
        if drawn.size < count:
            found = f"received {self.folder} with {drawn.size} of {self.count} not left out"
            raise ValueError(f"Expected a pool of at least {count} samples to draw; {found}. Fill it anew.")
        return self.samples()[np.sort(rng.choice(drawn, count, replace=False))]

    def _flags_now(self):
        """Return the flags, read anew; none while there is no pool yet."""
        path = self.folder / f"{self.size}.flags"
        return np.fromfile(path, np.uint8) if path.exists() else np.zeros(0, np.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packed", type=Path)
    parser.add_argument("pools", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 320])
    parser.add_argument("--makers", type=int, default=os.cpu_count())
    parser.add_argument("--count", type=int, default=3072, help="samples of a pool")
    parser.add_argument("--once", action="store_true", help="end when the pools are full")
    parser.add_argument(
        "--shares", nargs="+", default=[], metavar="KIND=SHARE", help="how often a sample is of a kind; in sum 1"
    )
    arguments = parser.parse_args()
    pools = [Pool(arguments.pools, size, arguments.count) for size in arguments.sizes]
    shares = {kind: float(share) for kind, share in (each.split("=") for each in arguments.shares)} or SHARES
    if unknown := set(shares) - set(SHARES):
        parser.error(f"argument --shares: expected kinds out of {', '.join(SHARES)}; received {', '.join(unknown)}")
    makers = start_makers(arguments.packed, pools, arguments.makers, shares=shares, is_endless=not arguments.once)
    for maker in makers:
        maker.join()
    if any(maker.exitcode for maker in makers):
        raise SystemExit("A maker failed, so the pools are not full: the reason stands above.")


def start_makers(packed, pools, processes, seed=0, shares=SHARES, is_endless=True):
    """Start processes that fill the pools out of a folder of packed files, those that come later, too."""
    for pool in pools:
        pool.samples("w+")
        pool.flags("w+")
    context = get_context("spawn")
    arguments = [(packed, pools, number, processes, seed, shares, is_endless) for number in range(processes)]
    makers = [context.Process(target=_make, args=each, daemon=True) for each in arguments]
    for maker in makers:
        maker.start()
    return makers


def _make(packed, pools, number, processes, seed, shares, is_endless):
    cv2.setNumThreads(1)
    os.nice(10)
    parts, rng = 0, np.random.default_rng([seed, number])
    opened = [(pool, pool.samples("r+"), pool.flags("r+")) for pool in pools]
    parent, turn = os.getppid(), 0
    while os.getppid() == parent and (is_endless or number + turn * processes < max(pool.count for pool in pools)):
        if turn % LOOK == 0 and (now := len(list(packed.glob("*.npz")))) > parts:
            parts, (pairs, stock) = now, load(packed)
        for pool, samples, flags in opened:
            slot = (number + turn * processes) % pool.count
            kind = rng.choice(list(shares), p=list(shares.values()))
            samples[slot] = sample(pairs, stock, pool.size, rng, kind)
            flags[slot] = 1 + list(SHARES).index(kind)
        turn += 1


def sample(pairs, stock, size, rng, kind):
    """Return a photo and its alpha: uint8 (size, size, 4), of a kind out of `SHARES`."""
    picture, alpha = _drawn(kind, pairs, stock, rng)
    picture, alpha = _moved(picture, alpha, size, rng)
    return np.dstack([_coloured(picture, rng), alpha])


def _drawn(kind, pairs, stock, rng):
    """Return (picture, alpha) of a kind out of `SHARES`, uint8 (H, W, 3) and (H, W)."""
    if kind == "scene":
        return scenes.scene(stock, rng)
    if kind == "simple":
        return scenes.simple_scene(stock, rng, PHOTO_SIZE)
    if kind == "nothing":
        return scenes.bare_scene(stock, rng)
    if kind == "group":
        return groups.group(stock, rng)
    if kind == "flatlay":
        return _any(pairs["flatlays"], rng)
    picture, alpha = _any(pairs["street"], rng)
    part = {"crop": scenes.crop, "portrait": scenes.portrait}.get(kind)
    return part(picture, alpha, rng) if part else (picture, alpha)


def _any(things, rng):
    return things[rng.integers(len(things))]


def _moved(picture, alpha, size, rng):
    """Return both stretched to the size and moved together: mirrored, turned, scaled; borders are mirrored."""
    height, width = alpha.shape
    shrink = max(height, width) / size
    if shrink > 1.1 and rng.random() < SMOOTHED:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.45 * shrink)
    turn = np.radians(rng.uniform(-ROTATION, ROTATION)) if rng.random() < ROTATED else 0.0
    scale = np.exp(rng.uniform(*np.log(SCALE)))
    stretch = np.exp(rng.uniform(-0.12, 0.12))
    mirror = rng.choice([-1, 1])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = np.diag([size / width, size / height]) @ rotation @ np.diag([mirror * scale * stretch, scale / stretch])
    room = max(0.0, scale - 1) / 2 + 0.05
    centre = size * (0.5 + rng.uniform(-room, room, 2))
    matrix = np.column_stack([matrix, centre - matrix @ [width / 2, height / 2]])
    options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REFLECT_101}
    return cv2.warpAffine(picture, matrix, (size, size), **options), cv2.warpAffine(
        alpha, matrix, (size, size), **options
    )


def _coloured(picture, rng):
    """Return the picture in another light, with other colours, perhaps blurred, noisy or compressed: uint8."""
    size = picture.shape[0]
    if rng.random() < HUE:
        hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(-6, 7)) % 180
        picture = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    values = picture.astype(np.float32) / 255
    grey = values.mean(axis=-1, keepdims=True)
    saturation = rng.uniform(0.7, 1.3) if rng.random() > 0.03 else 0.0
    values = grey + (values - grey) * np.float32(saturation)
    middle = np.float32(grey.mean())
    values = middle + (values - middle) * np.float32(rng.uniform(0.75, 1.25))
    light = cv2.resize(rng.normal(0, 0.15, (3, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    tint = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3)).astype(np.float32)
    values = np.clip(values, 0, 1) * np.exp(light)[..., None] * tint
    values = np.clip(values, 0, 1)
    values *= 1 + np.float32(rng.uniform(-0.4, 0.4)) * (1 - values)
    if rng.random() < BLUR:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 1.5))
    if rng.random() < NOISE:
        values += rng.standard_normal(values.shape, np.float32) * np.float32(rng.uniform(0, 0.04))
    picture = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    if rng.random() < JPEG:
        _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))])
        picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return picture


if __name__ == "__main__":
    main()
