"""What is held out of the clothing data, by stem: lists in `splits/`, and how they were drawn.

usage: python benchmarks/clothing_splits.py DATA_DIR

Writes the lists anew. Garments are held out in groups of one silhouette, so that no recoloured copy is on the other
side; street photos that look alike (`keras-matting data check`) stay on one side, too.
"""

import sys
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from keras_matting.data.check import check
from keras_matting.data.sources import read_source
from keras_matting.photos import samples
from keras_matting.photos.files import decode

LISTS = Path(__file__).parent / "splits"
HELD_OUT = {"ccp": 60, "garments": 30, "backgrounds": 40, "clothing_cc0": 60}
SAME_SILHOUETTE = 0.95  # intersection over union of two garments' shapes, each scaled to its bounding box
_SIDE = 48


def held_out(name):
    """Return the stems of a data set that training never sees."""
    return set((LISTS / f"{name}.txt").read_text(encoding="utf-8").split())


def shipped_photos():
    """Return the stems of the photos that come with the package, to calibrate engines and to judge them."""
    return {path.stem for path in samples.FOLDER.glob("*/*.jpg")}


def main():
    root = Path(sys.argv[1])
    LISTS.mkdir(exist_ok=True)
    groups = {
        "ccp": _alike(f"ccp:{root}/ccp"),
        "garments": _silhouettes(root / "garments/rgba"),
        "backgrounds": _alike(f"unlabelled:{root}/backgrounds/image"),
        "clothing_cc0": _without(_alike(f"unlabelled:{root}/clothing_cc0/image"), shipped_photos()),
    }
    for name, found in groups.items():
        chosen = _drawn(found, HELD_OUT[name])
        (LISTS / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in sorted(chosen)), encoding="utf-8")
        print(f"{name}: {len(found)} groups, {len(chosen)} of {sum(map(len, found))} photos held out")


def _drawn(groups, count):
    """Return the stems of whole groups, in the order of their hashes, until there are `count`; none of the largest."""
    groups = sorted(groups, key=lambda group: sha256(min(group).encode()).hexdigest())
    chosen = []
    for group in groups:
        if len(group) <= count // 4 and len(chosen) + len(group) <= count:
            chosen += group
    return chosen


def _without(groups, stems):
    return [group for group in groups if not stems & set(group)]


def _alike(spec):
    """Return groups of stems, those that look alike together."""
    source = read_source(spec)
    pairs = [
        (problem["stem"], problem["detail"])
        for problem in check([source])["problems"]
        if problem["kind"] in ("duplicate", "near duplicate")
    ]
    return _grouped([sample.stem for sample in source.samples], pairs)


def _silhouettes(folder):
    paths = sorted(folder.glob("*.png"))
    shapes = np.stack([_shape(decode(path.read_bytes()).alpha) for path in paths])
    pairs = []
    for index, shape in enumerate(shapes):
        for mirrored in (shape, shape[:, ::-1]):
            shared = np.minimum(shapes, mirrored).sum(axis=(1, 2)) / np.maximum(shapes, mirrored).sum(axis=(1, 2))
            pairs += [(paths[index].stem, paths[other].stem) for other in np.flatnonzero(shared > SAME_SILHOUETTE)]
    return _grouped([path.stem for path in paths], pairs)


def _shape(alpha):
    """Return a garment's alpha in [0, 1], scaled to its bounding box: (48, 48)."""
    left, top, width, height = cv2.boundingRect((alpha > 127).astype(np.uint8))
    box = alpha[top : top + height, left : left + width]
    return cv2.resize(box, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) / 255


def _grouped(stems, pairs):
    """Return lists of stems, those of a pair in one list."""
    group_of = {stem: [stem] for stem in stems}
    for one, other in pairs:
        joined, taken = group_of[one], group_of[other]
        if joined is not taken:
            joined += taken
            group_of.update(dict.fromkeys(taken, joined))
    return list({id(group): group for group in group_of.values()}.values())


if __name__ == "__main__":
    main()
