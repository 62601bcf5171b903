"""Make the model folder that is committed out of a run of `clothing_accelerator.py`.

usage: python benchmarks/clothing_model.py ARCHITECTURE RUN_DIR OUT_DIR [--size 320] [--curves curves.png]
           [--start START.npz --share 0.7]

RUN_DIR holds `weights.npz` and `history.csv`. Weights are rounded to half precision, which `model.keras` stores as
float32 with zeros that deflate: it loads everywhere. Mattes are given as they are, not stretched to [0, 1] as the
official U2NetP's. With `--share`, the weights are so far on the way from what the run began with to its end: what was
learned without what was forgotten (WiSE-FT, Wortsman et al., 2022). The curves of the validation figures are drawn
beside them; a model card and curves that are there stay.
"""

import argparse
import csv
import zipfile
from pathlib import Path

import keras
import numpy as np
from clothing_weights import restore
from matplotlib.figure import Figure

from keras_matting import architectures
from keras_matting.model_folder import KERAS_FILE, Preset
from keras_matting.models import build_model
from keras_matting.models.folder import load_model, write_model_folder

LICENCE = "research and demonstration only: trained on data without a licence for more"
START = {"u2netp": "u2netp", "modnet": "MobileNetV2 of the npm package nsfwjs"}
_FIGURES = {"miou": "mIoU", "mae": "MAE"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture", choices=START)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=320, help="input size (default: 320)")
    parser.add_argument("--curves", default="curves.png", help="their picture's name (default: curves.png)")
    parser.add_argument("--start", type=Path, help="weights that the run began with")
    parser.add_argument("--share", type=float, default=1.0, help="of the way from there to the run's end (default: 1)")
    arguments = parser.parse_args()
    known = architectures.find(arguments.architecture)
    settings = known.preset | {
        "name": arguments.out.name,
        "architecture": known.name,
        "input_size": (arguments.size, arguments.size),
        "output": "identity",
        "source": f"trained by keras-matting from {START[known.name]}",
        "licence": LICENCE,
    }
    model = build_model(known.name, settings["input_size"])
    if (found := restore(model, arguments.run / "weights.npz")) != len(model.weights):
        raise SystemExit(f"Expected all {len(model.weights)} weights in {arguments.run}; received {found}.")
    weights = model.get_weights()
    if arguments.start:
        restore(model, arguments.start)
        start, share = model.get_weights(), arguments.share
        weights = [(1 - share) * before + share * after for before, after in zip(start, weights, strict=True)]
    model.set_weights([halved(each) for each in weights])
    kept = {path: path.read_bytes() for kind in ("*.md", "*.png") for path in arguments.out.glob(kind)}
    write_model_folder(model, Preset(**settings), arguments.out, force=True)
    for path, content in kept.items():
        path.write_bytes(content)
    deflate(arguments.out / KERAS_FILE)
    load_model(arguments.out, Preset.load(arguments.out))  # raises unless the digest fits
    draw(history(arguments.run), arguments.out / arguments.curves)
    keras.utils.clear_session()
    print(f"{arguments.out}: {(arguments.out / KERAS_FILE).stat().st_size / 1e6:.1f} MB")


def halved(weights):
    """Return weights rounded to what half precision holds, as float32; those beyond its range as they are."""
    rounded = weights.astype(np.float16).astype(np.float32)
    is_held = np.isfinite(rounded) & ((np.abs(weights) >= 2**-14) | (weights == 0))
    return np.where(is_held, rounded, weights)


def deflate(path):
    """Write a ZIP archive anew, compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def history(run):
    """Return a run's epochs that were validated, as dictionaries of numbers."""
    with (run / "history.csv").open(encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in rows if "val_mae" in row]


def draw(rows, path):
    """Draw the validation figures of each source against the seconds of training."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    sources = [
        key[4 : -len("_miou")]
        for key in rows[0]
        if key.startswith("val_") and key.endswith("_miou") and key != "val_miou"
    ]
    for axis, (metric, label) in zip(figure.subplots(1, 2), _FIGURES.items(), strict=True):
        for source in (name for name in sources if name != "worst"):
            axis.plot(
                [row["seconds"] for row in rows],
                [row[f"val_{source}_{metric}"] for row in rows],
                marker=".",
                label=source,
            )
        axis.set(xlabel="seconds", ylabel=f"{label}, held-out photos")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
