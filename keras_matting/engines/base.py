"""What every engine offers, and the checks that all share."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Protocol

import numpy as np

from keras_matting.errors import EngineError, first_line
from keras_matting.model_folder import Preset


class Engine(Protocol):
    """A model ready to run on one device."""

    name: str
    path: object  # the artefact on disk

    def predict(self, batch):
        """Return mattes float32 (N, H, W, 1) in [0, 1] for a normalised float32 batch (N, H, W, 3)."""

    def describe(self):
        """Return what it really does: {"precision": ..., "coverage": ...} as the runtime tells it."""

    def close(self):
        """Free what the engine holds; it is not used afterwards."""


# Layers whose rounding ruins the matte, by precision and name: they stay in float32. Found for the official weights on
# clothing photos: in U2NetP two convolutions, with the resize between them, cause most of the error (with bfloat16
# emulated on 30 photos, MAE falls from .0100 to .0004). For int8 the worst photos count: with stage 1 and those two
# convolutions in float32, six of 140 garments composited on backgrounds came out worst, by .0228 at most; with stages 2
# and 2d whole they differ by .0114 at most. What the stages 3 to 6 round matters little.
_SENSITIVE_LAYERS = {
    ("u2netp", "bf16"): ("stage2d.rebnconv2d", "stage2d.rebnconv1d"),
    ("u2netp", "int8"): ("stage1.", "stage2.", "stage2d."),
}


def sensitive_layers(model_dir, precision):
    """Return parts of the names of the layers that engines of this model and `precision` leave in float32."""
    return _SENSITIVE_LAYERS.get((Preset.load(model_dir).architecture, precision), ())


_A_FEW = 8


@dataclass(frozen=True)
class BuildOptions:
    """What a build may need.

    `calibration`: float32 batches (1, H, W, 3) of prepared photos, for int8. `max_batch`: the largest batch to serve.
    `log`: called with a line for the user.
    """

    calibration: tuple = ()
    max_batch: int = 16
    log: callable = lambda message: None

    @property
    def batches(self):
        """The batch sizes for which engines choose kernels: one photo, a few, and the most."""
        return sorted({1, min(_A_FEW, self.max_batch), self.max_batch})

    @cached_property
    def calibration_sha256(self):
        """The SHA-256 of the calibration batches, by which an engine's manifest names them."""
        digest = sha256()
        for batch in self.calibration:
            digest.update(np.ascontiguousarray(batch))
        return digest.hexdigest()

    @property
    def calibration_fields(self):
        """What an engine's manifest says of its calibration: the digest of all batches, and each photo's."""
        photos = sorted(photo_sha256(photo) for batch in self.calibration for photo in batch)
        return {"calibration_sha256": self.calibration_sha256, "calibration_photos": photos}

    def calibration_for(self, engine):
        """Return the calibration batches; raises `EngineError` if there are none."""
        if not self.calibration:
            raise EngineError(f"Engine {engine} needs photos to calibrate; pass a folder with --calibration.")
        return self.calibration


def photo_sha256(image):
    """Return the SHA-256 of a prepared photo (H, W, 3), by which it is known again."""
    return sha256(np.ascontiguousarray(image)).hexdigest()


def cannot_open(engine, path, error):
    """Return the `EngineError` for an artefact that a runtime refuses."""
    again = "Build" if "engines" in path.parts else "Export"
    return EngineError(f"Engine {engine} cannot open {path}. {again} it again. ({first_line(error)})")


def checked_batch(batch, size, engine, fixed_batch=None):
    """Return `batch` as contiguous float32 (N, height, width, 3); raises `EngineError` on another shape or dtype.

    N is at least 1; `fixed_batch` where the graph was exported for one N only.
    """
    batch = np.asarray(batch)
    fits = batch.ndim == 4 and len(batch) > 0 and batch.shape[1:] == (*size, 3) and batch.dtype == np.float32
    if not fits or fixed_batch not in (None, len(batch)):
        raise EngineError(
            f"Engine {engine} expects a float32 batch ({fixed_batch or 'N'}, {size[0]}, {size[1]}, 3); "
            f"received {batch.dtype} {batch.shape}. Prepare photos with imaging.prepare."
        )
    return np.ascontiguousarray(batch)
