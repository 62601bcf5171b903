"""Draw photos beside the cut-outs of several models: what figures do not tell.

usage: python benchmarks/clothing_sheet.py PHOTOS_DIR OUT.png MODEL_DIR... [--stems FILE] [--count 24] [--engine NAME]
"""

import argparse
from pathlib import Path

import cv2

from keras_matting.data.sheet import Group, contact_sheet, on_checkerboard, shrunk
from keras_matting.matting import OutputOptions, Session
from keras_matting.photos.files import decode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--stems", type=Path, help="a list of photos by stem, as in splits/ (default: all)")
    parser.add_argument("--count", type=int, default=24, help="photos, spread evenly (default: 24)")
    parser.add_argument("--engine", default="onnx-cpu")
    arguments = parser.parse_args()
    stems = set(arguments.stems.read_text(encoding="utf-8").split()) if arguments.stems else None
    paths = [path for path in sorted(arguments.photos.iterdir()) if stems is None or path.stem in stems]
    step = max(1, len(paths) // arguments.count)
    sessions = [Session(model, arguments.engine) for model in arguments.models]
    groups = [group(path, sessions) for path in paths[::step][: arguments.count]]
    page = contact_sheet(groups)
    cv2.imwrite(str(arguments.out), cv2.cvtColor(page, cv2.COLOR_RGB2BGR))


def group(path, sessions):
    """Return a photo and its cut-out by each session."""
    photo = decode(path.read_bytes())
    mattes = [session.matte(photo, OutputOptions(kind="mask")) for session in sessions]
    pictures = [photo.rgb, *(on_checkerboard(photo.rgb, matte) for matte in mattes)]
    return Group(path.stem[:8], tuple(shrunk(picture) for picture in pictures))


if __name__ == "__main__":
    main()
