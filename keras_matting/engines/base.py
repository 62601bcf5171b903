"""What every engine offers, and the checks that all share."""

from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from keras_matting.errors import EngineError


class Engine(Protocol):
    """A model ready to run on one device."""

    name: str

    def predict(self, batch):
        """Return mattes float32 (N, H, W, 1) in [0, 1] for a normalised float32 batch (N, H, W, 3)."""

    def close(self):
        """Free what the engine holds; it is not used afterwards."""


def missing_package(package, extra):
    """Return why an engine cannot run if `package` is not installed, else None; the package is not imported."""
    if find_spec(package) is None:
        return f"the package {package} is not installed; pip install 'keras-matting[{extra}]'."
    return None


def artefact(model_dir, relative, engine):
    """Return the path of a file or folder of the model folder; raises `EngineError` if it is not there."""
    path = Path(model_dir) / relative
    if not path.exists():
        raise EngineError(f"Engine {engine} needs {path}, which does not exist; run keras-matting export {model_dir}.")
    return path


def checked_batch(batch, size, engine):
    """Return `batch` as contiguous float32 (N, height, width, 3); raises `EngineError` on another shape or dtype."""
    batch = np.asarray(batch)
    if batch.ndim != 4 or batch.shape[1:] != (*size, 3) or batch.dtype != np.float32:
        raise EngineError(
            f"Engine {engine} expects a float32 batch (N, {size[0]}, {size[1]}, 3); "
            f"received {batch.dtype} {batch.shape}. Prepare photos with imaging.prepare."
        )
    return np.ascontiguousarray(batch)
