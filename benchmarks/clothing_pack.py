"""Pack what the clothing models learn from into a few files that a machine with an accelerator can be given.

usage: python benchmarks/clothing_pack.py DATA_DIR PREPARED_DIR OUT_DIR [--models saved_models] [--parts 2]

PREPARED_DIR is what `clothing_data.py` wrote. Pictures and mattes are WebP at the size at which they are learned from;
scenes are not packed but made where training runs. The first part has the validation photos, and each its share of all
else, so that training can begin with the first while the others are still on their way.
"""

import argparse
from itertools import islice
from pathlib import Path

import clothing_data
import cv2
import numpy as np
from clothing_feed import GROUND, PAIRS, VALIDATION

QUALITY, ALPHA_QUALITY = 80, 95
GARMENT_SIDE, OUTFIT_SIDE, GROUND_SIDE = 480, 400, 560  # the longer sides
WATCHED = 2  # one of so many validation photos: enough to see how training goes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", type=Path, default=Path("saved_models"))
    parser.add_argument("--parts", type=int, default=2)
    arguments = parser.parse_args()
    data = clothing_data.Data(arguments.data, arguments.prepared, arguments.models, "onnx-cpu")
    arguments.out.mkdir(parents=True, exist_ok=True)
    parts = [{} for _ in range(arguments.parts)]
    for number, encoded in enumerate(pictures(data, arguments.prepared)):
        is_watched = next(iter(encoded)).startswith("val-")
        parts[0 if is_watched else number % len(parts)] |= encoded
    for number, part in enumerate(parts):
        path = arguments.out / f"part-{number}.npz"
        np.savez(path, **part)
        print(f"{path}: {len(part)} pictures, {path.stat().st_size / 2**20:.1f} MiB")


def pictures(data, prepared):
    """Yield {name: encoded} of every pair and every picture that scenes are made of."""
    steps = dict.fromkeys(PAIRS, 1) | dict.fromkeys(VALIDATION.values(), WATCHED)
    for folder, step in steps.items():
        for stem, picture, alpha in islice(clothing_data.pairs(prepared / folder), None, None, step):
            name = f"{folder}/{stem}"
            yield {name: _webp(picture, QUALITY), f"{name}/alpha": _webp(alpha, ALPHA_QUALITY)}
    stock, exact = data.stock(), len(data.garments())
    kinds = {
        "garment": (stock.garments[:exact], GARMENT_SIDE),
        "laid": (stock.garments[2 * exact :], OUTFIT_SIDE),
        "outfit": (stock.outfits, OUTFIT_SIDE),
        "bare": (stock.bare, OUTFIT_SIDE),
    }
    kinds |= {f"{GROUND}{number}": (found, GROUND_SIDE) for number, found in enumerate(stock.grounds)}
    for kind, (found, side) in kinds.items():
        for index, picture in enumerate(found):
            name = f"{kind}/{index:04d}"
            yield {name: _webp(_within(picture, side), QUALITY)}
    for index, (person, clothes) in enumerate(stock.people):
        name = f"person/{index:04d}"
        clothes = _webp(_within(clothes, OUTFIT_SIDE), ALPHA_QUALITY)
        yield {name: _webp(_within(person, OUTFIT_SIDE), QUALITY), f"{name}/alpha": clothes}


def _within(picture, side):
    """Return a picture, with or without alpha, whose longer side is at most `side`."""
    scale = side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _webp(picture, quality):
    code = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, code[picture.shape[2]])
    _, encoded = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return encoded


if __name__ == "__main__":
    main()
