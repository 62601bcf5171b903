"""What TF-TRT makes of a SavedModel, as JSON, on a machine without a GPU; run by the TF-TRT environment's Python.

usage: tftrt_segments.py TFTRT_WORKER SAVED_MODEL PRECISION

TF-TRT's segmenter needs no GPU. Only Python asks, before it, where a tensor lies, and is answered here.
"""

import importlib.util
import json
import os
import sys
from types import SimpleNamespace


class OnAGpu:
    """TensorFlow's `array_ops`, whose `zeros` says that it lies on a GPU."""

    def __init__(self, real):
        self._real = real

    def __getattr__(self, name):
        return getattr(self._real, name)

    def zeros(self, *_):
        return SimpleNamespace(device="/device:GPU:0")


def main(worker_file, saved_model, precision):
    os.environ["TF_TRT_MAX_ALLOWED_ENGINES"] = "1000"
    spec = importlib.util.spec_from_file_location("tftrt_worker", worker_file)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    from tensorflow.python.compiler.tensorrt import trt_convert

    trt_convert.array_ops = OnAGpu(trt_convert.array_ops)
    converter = worker.new_converter(saved_model, precision, 3)
    converter.convert(calibration_input_fn=(lambda: iter(())) if precision == "int8" else None)
    sys.stdout.write(json.dumps(worker.coverage(converter._converted_graph_def)))


if __name__ == "__main__":
    main(*sys.argv[1:])
