"""Print how far an engine is from float32 on folders of photos, and what that says of photos to come, as Markdown.

usage: python benchmarks/gate.py MODEL_DIR FOLDER... [--engine openvino-int8] [--reference onnx-cpu] [--limit N]

The mean absolute difference of mattes in [0, 1], as users get them. Photos that the engine was calibrated on are left
out. The last column is the 95 % upper confidence bound of the share of such photos above the bound.
"""

import argparse
from pathlib import Path

import numpy as np

from keras_matting.benchmarking.selection import Gate, photos_above
from keras_matting.engines import open_engine
from keras_matting.engines.artefacts import read_manifest
from keras_matting.engines.base import photo_sha256
from keras_matting.model_folder import MANIFEST, Preset, engine_dir
from keras_matting.photos import imaging
from keras_matting.photos.samples import named_photos


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--engine", default="openvino-int8")
    parser.add_argument("--reference", default="onnx-cpu", help="an engine in float32 (default: onnx-cpu)")
    parser.add_argument("--max-worst", type=float, default=Gate.worst_photo_mae)
    parser.add_argument("--limit", type=int, help="photos of each folder, spread evenly (default: all)")
    arguments = parser.parse_args()
    preset = Preset.load(arguments.model_dir)
    engines = [open_engine(name, arguments.model_dir) for name in (arguments.engine, arguments.reference)]
    manifest = read_manifest(engine_dir(arguments.model_dir, arguments.engine) / MANIFEST)
    calibrated_on = set(manifest.get("calibration_photos", ()))
    gate = Gate(worst_photo_mae=arguments.max_worst)
    print(f"{arguments.engine} against {arguments.reference}, {preset.name} at {preset.input_size}:\n")
    print(f"| photos | n | mean | 99 % of them below | worst | above {gate.worst_photo_mae} | at most (95 %) |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for folder in arguments.folders:
        maes = errors(folder, engines, preset, calibrated_on, arguments.limit)
        seen = photos_above({"photo_maes": maes}, gate)
        spread = f"{np.mean(maes):.4f} | {np.quantile(maes, 0.99):.4f} | {max(maes):.4f}"
        print(f"| {folder.name} | {len(maes)} | {spread} | {seen['above']} | {seen['share_at_most']:.1%} |", flush=True)


def errors(folder, engines, preset, calibrated_on, limit):
    """Return each photo's mean absolute difference between two engines."""
    photos = list(named_photos(folder).values())
    if limit:
        photos = photos[:: max(1, len(photos) // limit)][:limit]
    maes = []
    for photo in photos:
        image = imaging.prepare(photo, preset)
        if photo_sha256(image) not in calibrated_on:
            one, other = (imaging.apply_output_rule(engine.predict(image[None])[0], preset) for engine in engines)
            maes.append(float(np.abs(one.astype(np.float64) - other).mean()))
    return maes


if __name__ == "__main__":
    main()
