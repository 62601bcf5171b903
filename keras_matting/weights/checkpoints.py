"""A file of official weights into a Keras model, by the reader that its suffix asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keras_matting.errors import UsageError, WeightsError
from keras_matting.files import StrPath, stub_told
from keras_matting.weights import onnx, pytorch

if TYPE_CHECKING:
    import keras

_SUFFIXES = (".pth", ".pt", ".ckpt", ".onnx")


def import_checkpoint(model: keras.Model, path: StrPath) -> list[str]:
    """Load an official file into `model`: `.pth`, `.pt`, `.ckpt` (PyTorch) or `.onnx` (batch norms folded or not).

    PyTorch files need the `torch` extra and are read with `weights_only=True`. Returns the names of the variables
    that the file cannot contain and that kept their values: an inference-only ONNX export of MODNet lacks the two
    training heads. Raises `WeightsError` if the file is unreadable or of another model, `UsageError` on a wrong path.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"Expected a checkpoint file; {path} does not exist or is no file.")
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES and (told := stub_told(path)):
        raise WeightsError(f"Expected the weights of {model.name} in {path}; {told}.")
    if suffix == ".onnx":
        return onnx.load_onnx(model, path)
    if suffix not in _SUFFIXES:
        raise UsageError(f"Expected a .pth, .pt, .ckpt or .onnx file; received {path.name}.")
    pytorch.load_state_dict(model, pytorch.read_state_dict(path))
    return []
