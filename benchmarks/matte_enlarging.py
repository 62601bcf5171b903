"""Print how ways to bring a matte to its photo's size differ: bilinear, cubic, a fast guided filter.

usage: python benchmarks/matte_enlarging.py MODEL_DIR PAIRS_DIR... [--count 40]

PAIRS_DIR holds image/ and mask/. The guided filter is that of He and Sun, "Fast Guided Filter" (2015): its coefficients
are found at the matte's size and enlarged, the photo's luminance is the guide.
"""

import argparse
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from keras_matting import metrics
from keras_matting.engines import open_engine
from keras_matting.model_folder import Preset
from keras_matting.photos import imaging
from keras_matting.photos.files import decode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("pairs", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=40, help="photos of each folder")
    arguments = parser.parse_args()
    engine, preset = open_engine("onnx-cpu", arguments.model), Preset.load(arguments.model)
    ways = {"bilinear": partial(resized, how=cv2.INTER_LINEAR), "cubic": partial(resized, how=cv2.INTER_CUBIC)}
    ways |= {f"guided, radius {radius}, epsilon 1e-{digits}": partial(guided, radius=radius, epsilon=10.0**-digits)
             for radius in (1, 2, 4) for digits in (4, 3)}  # fmt: skip
    print("| photos | way | MAE | Grad |\n|---|---|---:|---:|")
    for folder in arguments.pairs:
        errors = {way: [] for way in ways}
        for path in sorted((folder / "image").iterdir())[: arguments.count]:
            alpha = cv2.imread(str(folder / "mask" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE) / 255
            photo = decode(path.read_bytes())
            matte = np.float32(engine.predict(imaging.prepare(photo, preset)[None])[0, ..., 0])
            guide = np.float32(cv2.cvtColor(photo.rgb, cv2.COLOR_RGB2GRAY)) / 255
            for way, enlarge in ways.items():
                found = enlarge(matte, guide)
                errors[way].append((metrics.mae(found, alpha), metrics.gradient_error(found, alpha)))
        for way, values in errors.items():
            mae, grad = np.mean(values, axis=0)
            print(f"| {folder.name} | {way} | {mae:.4f} | {grad:.2f} |", flush=True)


def resized(matte, guide, how):
    """Return a matte at the guide's size, float32 in [0, 1]."""
    return np.clip(cv2.resize(matte, guide.shape[::-1], interpolation=how), 0, 1)


def guided(matte, guide, radius, epsilon):
    """Return a matte at the guide's size, its edges drawn to the guide's."""
    mean = partial(cv2.blur, ksize=(2 * radius + 1, 2 * radius + 1))
    small = cv2.resize(guide, matte.shape[::-1], interpolation=cv2.INTER_AREA)
    slope = (mean(small * matte) - mean(small) * mean(matte)) / (mean(small * small) - mean(small) ** 2 + epsilon)
    offset = mean(matte) - slope * mean(small)
    slope, offset = (cv2.resize(mean(part), guide.shape[::-1]) for part in (slope, offset))
    return np.clip(slope * guide + offset, 0, 1)


if __name__ == "__main__":
    main()
