"""Check, for a model of every family in keras.applications, that it exports, and that TensorRT parses and builds it.

usage: python benchmarks/keras_applications.py [NAME ...] [--size HxW] [--out FILE]

Weights are random: what is asked is whether the operations of the graph pass, not what the model knows. Needs no GPU
where TensorRT for RTX is installed. Each model runs in a process of its own, and its line is written when it is done;
started again, the script goes on with those that have no line for this size yet.
"""

import argparse
import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from keras_matting.cli.models import size
from keras_matting.files import write_atomically

# A family is a module of keras.applications; of each, one of its smallest members.
REPRESENTATIVES = {
    "convnext": "ConvNeXtTiny",
    "densenet": "DenseNet121",
    "efficientnet": "EfficientNetB0",
    "efficientnet_v2": "EfficientNetV2B0",
    "inception_resnet_v2": "InceptionResNetV2",
    "inception_v3": "InceptionV3",
    "mobilenet": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3": "MobileNetV3Small",
    "nasnet": "NASNetMobile",
    "resnet": "ResNet50",
    "resnet_v2": "ResNet50V2",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "xception": "Xception",
}
STEPS = ("exports", "parses", "builds")
COLUMNS = ("family", "model", "size", "parameters", *STEPS, "layers", "engine_mb", "build_s", "error")
COLUMNS += ("device", "versions", "date")
ENGINE = "tensorrt-fp32"
OUT = Path(__file__).parent / "results" / "keras_applications.csv"


def check(name, input_size, folder):
    """Take one model through every step in `folder`; return its row, with the first step that fails in "error"."""
    import keras

    from keras_matting import engines, machine
    from keras_matting.engines.artefacts import MANIFEST, engine_dir, read_manifest
    from keras_matting.errors import MattingError
    from keras_matting.export import export
    from keras_matting.foreign import write_application_folder
    from keras_matting.models.folder import load_model

    model_dir = folder / name.lower()
    write_application_folder(name, model_dir, size=input_size)
    row = {
        "family": getattr(keras.applications, name).__module__.rpartition(".")[2],
        "model": name,
        "size": "x".join(map(str, input_size)),
        "parameters": load_model(model_dir).count_params(),
        **dict.fromkeys(STEPS, "no"),
        "device": f"{machine.cpu_name()}; {machine.gpu_name()}",
        "versions": _versions(),
        "date": date.today().isoformat(),
    }
    try:
        export(model_dir)
        row["exports"] = "yes"
        start = time.perf_counter()
        engines.build(ENGINE, model_dir, engines.BuildOptions(max_batch=1))
    except MattingError as error:
        # The engine says "cannot parse" of the parser, and anything else of what comes after it.
        if row["exports"] == "yes" and "cannot parse" not in str(error):
            row["parses"] = "yes"
        return row | {"error": " ".join(str(error).split())[:300]}
    built = engine_dir(model_dir, ENGINE)
    layers = read_manifest(built / MANIFEST)["layers"]
    megabytes = round(sum(path.stat().st_size for path in built.iterdir()) / 1e6, 1)
    seconds = round(time.perf_counter() - start, 1)
    return row | {"parses": "yes", "builds": "yes", "layers": layers, "engine_mb": megabytes, "build_s": seconds}


def _versions():
    names = ("keras", "tensorflow-cpu", "tensorflow", "tf2onnx", "tensorrt-rtx-cu13", "tensorrt")
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def check_apart(name, input_size):
    """Return the row of `check` from a process of its own, so that a crash costs one row; None if it crashed."""
    command = [sys.executable, __file__, name, "--size", "x".join(map(str, input_size)), "--row"]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode == 0:
        return json.loads(ended.stdout.splitlines()[-1])
    last = (ended.stderr.strip().splitlines() or [""])[-1]
    print(f"{name}: its process ended with status {ended.returncode}: {last}", file=sys.stderr)
    return None


def read_rows(path):
    """Return the rows of an earlier run, none if there was none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path, rows):
    """Write the table, families in the order of the alphabet."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: (row["family"], row["model"])))
    write_atomically(path, text.getvalue().encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="models (default: one of every family)")
    parser.add_argument("--size", type=size, default=(96, 96), metavar="HxW", help="input size (default: 96x96)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"default: {OUT.relative_to(OUT.parents[2])}")
    parser.add_argument("--row", action="store_true", help="check one model here and print its row as JSON")
    arguments = parser.parse_args()
    if arguments.row:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(check(arguments.names[0], arguments.size, Path(folder))))
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = read_rows(arguments.out)
    written = "x".join(map(str, arguments.size))
    done = {row["model"] for row in rows if row["size"] == written}
    crashed = 0
    for name in arguments.names or REPRESENTATIVES.values():
        if name in done:
            continue
        if row := check_apart(name, arguments.size):
            rows.append(row)
            write_rows(arguments.out, rows)
            print(name, *(f"{step} {row[step]}" for step in STEPS), row.get("error", ""), flush=True)
        else:
            crashed += 1
    sys.exit(1 if crashed else 0)


if __name__ == "__main__":
    main()
