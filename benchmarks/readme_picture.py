"""Draw the README's picture: photos of garments above what a model cuts out of them, on a colour.

usage: python benchmarks/readme_picture.py [PHOTO...] [--model MODEL_DIR] [--engine NAME] [--out JPEG]

Without PHOTO: six of the sample photos that come with the package (CC0). Each is cropped to a column of 3 by 4.
"""

import argparse
from pathlib import Path

import numpy as np

from keras_matting import matte
from keras_matting.files import write_atomically
from keras_matting.photos.files import decode, encode
from keras_matting.photos.imaging import cover
from keras_matting.photos.samples import FOLDER
from keras_matting.shipped import DEFAULT_MODEL

PHOTOS = ("0ff8c31c", "081b5ec1", "0903f4c9", "1d2e0956", "3cf61c2b", "4633e114")  # how their names begin
COLOUR = (226, 232, 222)
TILE_SIZE = (240, 180)  # height and width
GAP_PX = 6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="*", type=Path, help="photos (default: six samples)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"model folder or name (default: {DEFAULT_MODEL})")
    parser.add_argument("--engine", default="onnx-cpu")
    parser.add_argument("--out", type=Path, default=Path("docs/images/garments.jpg"))
    arguments = parser.parse_args()
    photos = arguments.photos or [next((FOLDER / "gate").glob(f"{name}*")) for name in PHOTOS]
    picture = beside([column(path, arguments.model, arguments.engine) for path in photos])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, encode(picture, ".jpg"))
    print(f"{arguments.out}: {picture.shape[1]}x{picture.shape[0]}, {arguments.out.stat().st_size / 1000:.0f} kB")


def column(path, model, engine):
    """Return a photo above its cut-out, uint8 (H, W, 3)."""
    rgb = decode(path.read_bytes()).rgb
    on_colour = matte(rgb, model=model, engine=engine, output="on-color", background=COLOUR)
    return np.concatenate([cover(image, TILE_SIZE) for image in (rgb, on_colour)])


def beside(columns):
    """Return the columns side by side with white gaps."""
    gap = np.full((columns[0].shape[0], GAP_PX, 3), 255, np.uint8)
    return np.concatenate([piece for column in columns for piece in (column, gap)][:-1], axis=1)


if __name__ == "__main__":
    main()
