"""What is built and measured: the package's engines for GPUs, and one that takes bytes; float32 also strictly."""

import os
from pathlib import Path

from keras_matting import engines
from keras_matting.engines import tensorrt
from keras_matting.errors import EngineError
from keras_matting.model_folder import engine_dir

UINT8 = f"tensorrt-{tensorrt.UINT8}"
GPU_ENGINES = (
    *(name for name in engines.ENGINES if name.startswith(("onnx-cuda", "onnx-tensorrt", "tensorrt", "tftrt"))),
    UINT8,
)
# What computes float32 in TensorFloat-32 unless it is told otherwise
FLOAT32 = ("onnx-cuda", "tensorrt-fp32", "tftrt-fp32")


def be_strict():
    """Let no library of NVIDIA's compute float32 in TensorFloat-32, in this process and its children."""
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


def strict_folder(model_dir):
    """Return a folder of the same name and content, where engines are built that compute float32 as such."""
    model_dir = Path(model_dir).absolute()
    folder = engine_dir(model_dir, "strict") / model_dir.name
    folder.mkdir(parents=True, exist_ok=True)
    for path in model_dir.iterdir():
        link = folder / path.name
        if path.name != "engines" and not link.exists():
            link.symlink_to(path)
    return folder


def unavailable_reason(name):
    """See `keras_matting.engines.unavailable_reason`."""
    return tensorrt.unavailable_reason(tensorrt.UINT8) if name == UINT8 else engines.unavailable_reason(name)


def build_unavailable_reason(name):
    """See `keras_matting.engines.build_unavailable_reason`."""
    if name == UINT8:
        return tensorrt.build_unavailable_reason(tensorrt.UINT8)
    return engines.build_unavailable_reason(name)


def build(name, model_dir, options):
    """See `keras_matting.engines.build`."""
    if name == UINT8:
        tensorrt.build(model_dir, tensorrt.UINT8, options)
    else:
        engines.build(name, model_dir, options)


def open_engine(name, model_dir):
    """See `keras_matting.engines.open_engine`."""
    if name != UINT8:
        return engines.open_engine(name, model_dir)
    if reason := unavailable_reason(name):
        raise EngineError(f"Engine {name} cannot run here: {reason}")
    return tensorrt.open_engine(model_dir, tensorrt.UINT8)
