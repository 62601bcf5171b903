"""Draw the pictures of docs/shop.md: a page of a shop, and what each option makes of one photo.

usage: python benchmarks/shop_pictures.py [PHOTOS_DIR] [--model MODEL_DIR] [--engine NAME] [--out DIR] [--feature STEM]

PHOTOS_DIR: by default the 24 photos that come with the package for judging engines (CC0), none left out. The page is
made of all of them, with the same options. `--feature`: how the name of the one photo begins.
"""

import argparse
from pathlib import Path

import numpy as np

from keras_matting import OutputOptions, open_session
from keras_matting.data.sheet import Group, contact_sheet, on_checkerboard
from keras_matting.errors import MattingError
from keras_matting.files import write_atomically
from keras_matting.photos.files import decode, encode
from keras_matting.photos.samples import FOLDER
from keras_matting.shipped import DEFAULT_MODEL

COLUMNS, GAP_PX, PAPER = 6, 10, 255
SHOP = {"canvas": "176x220", "scale": "84%", "shadow": "soft"}
CARD = (240, 239, 236)
SKY = np.linspace((196, 214, 222), (238, 232, 222), 250).round().astype(np.uint8)[:, None].repeat(200, axis=1)
# Caption, options; without options the photo itself
FEATURES = (
    ("the photo", None),
    ("--crop", {"crop": True}),
    ("--crop --margin 10%", {"crop": True, "margin": "10%"}),
    ("--canvas 300x375", {"canvas": "300x375"}),
    ("... --scale 70%", {"canvas": "300x375", "scale": "70%"}),
    ("... --position bottom", {"canvas": "300x375", "scale": "70%", "position": "bottom"}),
    ("... --shadow soft", {"canvas": "300x375", "scale": "70%", "shadow": "soft"}),
    ("on-color", {"canvas": "300x375", "scale": "70%", "shadow": "soft", "kind": "on-color", "background": CARD}),
    ("on-image", {"canvas": "300x375", "scale": "70%", "shadow": "soft", "kind": "on-image", "background": SKY}),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", type=Path, default=FOLDER / "gate", help="default: 24 samples")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"model folder or name (default: {DEFAULT_MODEL})")
    parser.add_argument("--engine", default="onnx-cpu")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--feature", default="1d2e0956", help="how the name of the photo for the options begins")
    arguments = parser.parse_args()
    paths = sorted(arguments.photos.iterdir())
    with open_session(arguments.model, arguments.engine) as session:
        write(arguments.out / "shop.jpg", page([tile(session, path) for path in paths]))
        feature = next(path for path in paths if path.name.startswith(arguments.feature))
        write(arguments.out / "framing.jpg", features(session, feature))


def tile(session, path):
    """Return a photo as the shop shows it, uint8 (H, W, 3)."""
    options = OutputOptions("on-color", CARD, **SHOP)
    try:
        return session.matte(decode(path.read_bytes()), options)
    except MattingError as error:
        raise SystemExit(f"{path.name}: {error}") from None


def page(tiles):
    """Return tiles of one size in rows, on white."""
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // COLUMNS)
    sheet = np.full((rows * (height + GAP_PX) + GAP_PX, COLUMNS * (width + GAP_PX) + GAP_PX, 3), PAPER, np.uint8)
    for index, picture in enumerate(tiles):
        row, column = divmod(index, COLUMNS)
        top, left = GAP_PX + row * (height + GAP_PX), GAP_PX + column * (width + GAP_PX)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def features(session, path):
    """Return what each option makes of a photo, with captions."""
    photo = decode(path.read_bytes())
    groups = []
    for caption, options in FEATURES:
        picture = photo.rgb if options is None else session.matte(photo, OutputOptions(**options))
        if picture.shape[2] == 4:
            picture = on_checkerboard(picture[..., :3], picture[..., 3])
        groups.append(Group(caption, (picture,)))
    return contact_sheet(groups, height_px=230, width_px=1100)


def write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encode(picture, ".jpg"))
    print(f"{path}: {picture.shape[1]}x{picture.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
