"""Collect pictures that clothing is composited on from Debian's packages of wallpapers, which are all free to use.

usage: python benchmarks/clothing_wallpapers.py OUT_DIR

Needs apt and dpkg (packages are fetched and unpacked, not installed) of Debian 12; other releases have other pictures.
OUT_DIR, a new folder, gets JPEGs, the same for the same packages; of pictures that look alike it gets the first by
path. `clothing_data.py` takes them as OUT/wallpapers.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np

PACKAGES = (
    "gnome-backgrounds",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "mate-backgrounds",
    "palapeli-data",
    "plasma-workspace-wallpapers",
    "sway-backgrounds",
    "ukui-wallpapers",
)
WORN = "Wine_by_Jakkub_Mede", "friends_by_Aitzol_Berasategi"  # somebody with clothes on
KINDS = ".jpg", ".jpeg", ".png", ".webp"
LEAST_SIDE, LEAST_BYTES = 300, 60_000  # below are icons and plain colours
SIDE = 800  # the longer one, as it is kept
THUMBNAIL, ALIKE = 16, 12  # pixels a side; mean absolute difference of grey levels below which two are the same


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            subprocess.run(["apt-get", "download", "--quiet", package], cwd=folder, check=True)
        for archive in sorted(Path(folder).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive, Path(folder, archive.stem)], check=True)
        kept = keep(wallpapers(Path(folder)), out)
    print(f"{out}: {kept} pictures of {len(PACKAGES)} packages")


def wallpapers(folder):
    """Yield the pictures in a folder and those below that are wallpapers, BGR uint8 (H, W, 3), by path."""
    for path in sorted(folder.rglob("*")):
        is_picture = path.suffix.lower() in KINDS and path.is_file() and not path.is_symlink()
        if is_picture and path.stem not in WORN and path.stat().st_size >= LEAST_BYTES:
            picture = cv2.imread(str(path))
            if picture is not None and min(picture.shape[:2]) >= LEAST_SIDE:
                yield picture


def keep(pictures, out):
    """Write those that are not like an earlier one; return how many."""
    seen = []
    for picture in pictures:
        thumbnail = cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
        if all(np.abs(thumbnail - other).mean() >= ALIKE for other in seen):
            scale = min(1, SIDE / max(picture.shape[:2]))
            kept = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(out / f"{len(seen):03d}.jpg"), kept, [cv2.IMWRITE_JPEG_QUALITY, 92])
            seen.append(thumbnail)
    return len(seen)


if __name__ == "__main__":
    main()
