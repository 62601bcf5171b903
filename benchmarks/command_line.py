"""Print, from one run, how `keras-matting predict` on a folder compares with `rembg p`, whole processes, as Markdown.

usage: python benchmarks/command_line.py PHOTOS --model MODEL_DIR --rembg COMMAND [--runs N]

COMMAND is the rembg of an environment of its own (pip install 'rembg[cpu,cli]'). Runs alternate; ratios are medians.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from keras_matting.photos.folders import list_folder


def seconds(command, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rembg", default="rembg")
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        photos, ours_out, theirs_out = (Path(scratch) / name for name in ("photos", "ours", "theirs"))
        photos.mkdir()
        for path in list_folder(arguments.photos).photos[: arguments.limit]:
            shutil.copy(path, photos)
        ours = [sys.executable, "-m", "keras_matting.cli", "predict", photos, ours_out, "--model", arguments.model]
        theirs = [arguments.rembg, "p", "-m", "u2netp", photos, theirs_out]
        times = [(seconds(ours, ours_out), seconds(theirs, theirs_out)) for _ in range(arguments.runs)]
        count = len(list(ours_out.iterdir()))
    ours_s, theirs_s = np.median(times, axis=0)
    ratio = np.median([theirs / ours for ours, theirs in times])
    print(f"| {count} photos, whole process | seconds | images/s |\n|---|---:|---:|")
    print(f"| keras-matting predict | {ours_s:.1f} | {count / ours_s:.2f} |")
    print(f"| rembg p -m u2netp | {theirs_s:.1f} | {count / theirs_s:.2f} |")
    print(f"\nkeras-matting is faster by {ratio:.2f} x (median of {arguments.runs} alternating runs).")


if __name__ == "__main__":
    main()
