"""Count, without a GPU, into how many pieces TF-TRT cuts each model: as exported, and in the form that is made for it.

usage: python benchmarks/tftrt_segments.py [--out FILE]

Needs the TF-TRT environment (`make tftrt-env`). A piece becomes one TensorRT engine; what lies between pieces stays in
TensorFlow. Each figure is written when it is there; started again, the script goes on with those that are not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from keras_matting.engines import tftrt, tftrt_worker
from keras_matting.export import save_saved_model, serving_function
from keras_matting.files import write_atomically
from keras_matting.models import MODELS, build_model, inference_model
from keras_matting.models.tftrt_form import tftrt_form

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "tftrt_segments.json"
SIZES = {"u2netp": 320, "u2net": 320, "modnet": 512, "resnet50": 224}
FORMS = {"as exported": lambda model: model, "in the form for TF-TRT": tftrt_form}
PRECISION = "fp16"


def build(name, size):
    """Return the model with random weights: what TF-TRT takes depends on the operations alone."""
    if name in MODELS:
        return inference_model(build_model(name, size))
    return keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))


def count(model, size):
    """Return what TF-TRT's segmenter makes of a model: {"engines", "nodes_in_engines", "left": {operation: number}}."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "saved_model"
        save_saved_model(model, serving_function(model, (size, size)), path)
        script = str(ROOT / "tests" / "tftrt_segments.py")
        command = [str(tftrt.python()), script, tftrt_worker.__file__, str(path), PRECISION]
        environment = tftrt._environment() | {"CUDA_VISIBLE_DEVICES": ""}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"TF-TRT's segmenter ended with status {ended.returncode}: {ended.stderr.strip()[-500:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help=f"default: {OUT.relative_to(ROOT)}")
    arguments = parser.parse_args()
    if tftrt.python() is None:
        sys.exit("There is no TF-TRT environment; run make tftrt-env.")
    rows = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else []
    done = {(row["model"], row["form"]) for row in rows}
    with tftrt.Worker("tftrt-fp16") as worker:
        probed = worker.ask("probe")
    versions = f"tensorflow {probed['tensorflow']}, tensorrt {probed['tensorrt_loaded']}"
    for name, size in SIZES.items():
        for form, rewrite in FORMS.items():
            if (name, form) in done:
                continue
            found = count(rewrite(build(name, size)), size)
            made = {"precision": PRECISION, "versions": versions, "date": date.today().isoformat()}
            rows.append({"model": name, "size": size, "form": form, **found, **made})
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(arguments.out, (json.dumps(rows, indent=1) + "\n").encode())
            print(name, size, form, found["engines"], "pieces", flush=True)


if __name__ == "__main__":
    main()
