"""What every engine offers, and the checks that all share."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from keras_matting.architectures import ARCHITECTURES
from keras_matting.arrays import Float32, Uint8
from keras_matting.errors import EngineError, first_line
from keras_matting.files import StrPath
from keras_matting.model_folder import Preset


@runtime_checkable
class Engine(Protocol):
    """A model ready to run on one device. `predict` is called by one thread at a time."""

    name: str  # as in `engines.ENGINES`
    path: Path  # the artefact on disk, a file or a folder
    size: tuple[int, int]  # (height, width) of its input, in pixels

    def predict(self, batch: Float32) -> Float32:
        """Return mattes float32 (N, H, W, 1) in [0, 1] for a normalised float32 batch (N, H, W, 3).

        Raises `EngineError` on a batch of another shape or dtype (see `checked_batch`), and what its runtime raises:
        callers that show errors to people go through `matting.Session`.
        """

    def describe(self) -> dict[str, str]:
        """Return what it really does: {"precision": ..., "coverage": ...} as the runtime tells it."""

    def close(self) -> None:
        """Free what the engine holds; it is not used afterwards."""


def engine_failed(engine: Engine, error: Exception) -> EngineError:
    """Return the error to raise where an engine's runtime raises one of its own while it predicts."""
    said = f"{type(error).__name__}: {first_line(error)}"
    return EngineError(f"Engine {engine.name} failed: {said}. Try another engine.")


class EngineModule(Protocol):
    """What a module in `engines/` offers, for each of its variants ("int8", say).

    It imports its runtime inside these functions only, so that all engines can be listed anywhere.
    """

    def unavailable_reason(self, variant: str) -> str | None:
        """Return why the engine cannot run on this machine, as a sentence with the remedy, or None if it can."""

    def build(self, model_dir: Path, variant: str, options: "BuildOptions") -> None:
        """Leave the engine's artefact in the model folder, through `artefacts.building`; see `BuildOptions`."""

    def check_current(self, model_dir: Path, variant: str) -> None:
        """Raise `EngineError` unless the artefact is there and fits this model, runtime and device."""

    def open_engine(self, model_dir: Path, variant: str) -> Engine:
        """Return an `Engine`; raises `EngineError` where the artefact is missing, stale or damaged."""


class BuildingElsewhere(EngineModule, Protocol):
    """A module that can build where it cannot run, or the other way round."""

    def build_unavailable_reason(self, variant: str) -> str | None:
        """Return why the engine cannot be built on this machine, or None if it can."""


_A_FEW = 8
_MADE_UP_NAME = re.compile(r"[A-Za-z]+__\d+(/|$)")  # tf2onnx's, of what it changed: "Conv__597"


def sensitive_layers(model_dir: StrPath, precision: str) -> tuple[str, ...]:
    """Return parts of the names of the layers that engines of this model and `precision` leave in float32."""
    architecture = ARCHITECTURES.get(Preset.load(model_dir).architecture)  # None: not one of ours
    return architecture.sensitive_layers.get(precision, ()) if architecture else ()


def check_found(kept: Collection[str], layers: Collection[str]) -> None:
    """Raise `EngineError` if layers to keep in float32, see `sensitive_layers`, are not found among the `layers`.

    `layers`: names of the graph's convolutions and products of matrices. Rounding what is to be kept ruins the matte,
    and nothing else would tell that it is done.
    """
    missing = [part for part in kept if not any(part in name for name in layers)]
    nameless = [name for name in layers if _MADE_UP_NAME.match(name)]  # whose it is cannot be told
    if missing or (kept and nameless):
        raise EngineError(
            f"Expected layers called {', '.join(missing or kept)} in the exported graph, to keep them in float32; "
            f"received {', '.join(nameless[:_A_FEW]) or 'none'}. Export the model again."
        )


@dataclass(frozen=True)
class BuildOptions:
    """What a build may need.

    `calibration`: float32 batches (1, H, W, 3) of prepared photos, for int8. `max_batch`: the largest batch to serve.
    """

    calibration: tuple[Float32, ...] = ()
    max_batch: int = 16

    @property
    def batches(self) -> list[int]:
        """The batch sizes for which engines choose kernels: one photo, a few, and the most."""
        return sorted({1, min(_A_FEW, self.max_batch), self.max_batch})

    @cached_property
    def calibration_sha256(self) -> str:
        """The SHA-256 of the calibration batches, by which an engine's manifest names them."""
        digest = sha256()
        for batch in self.calibration:
            digest.update(np.ascontiguousarray(batch))
        return digest.hexdigest()

    @property
    def calibration_fields(self) -> dict[str, Any]:
        """What an engine's manifest says of its calibration: the digest of all batches, and each photo's."""
        photos = sorted(photo_sha256(photo) for batch in self.calibration for photo in batch)
        return {"calibration_sha256": self.calibration_sha256, "calibration_photos": photos}

    def calibration_for(self, engine: str) -> tuple[Float32, ...]:
        """Return the calibration batches; raises `EngineError` if there are none."""
        if not self.calibration:
            raise EngineError(f"Engine {engine} needs photos to calibrate; pass a folder with --calibration.")
        return self.calibration


def photo_sha256(image: Float32) -> str:
    """Return the SHA-256 of a prepared photo (H, W, 3), by which it is known again."""
    return sha256(np.ascontiguousarray(image)).hexdigest()


def cannot_open(engine: str, path: Path, error: Exception | str) -> EngineError:
    """Return the `EngineError` for an artefact that a runtime refuses."""
    again = "Build" if "engines" in path.parts else "Export"
    return EngineError(f"Engine {engine} cannot open {path}. {again} it again. ({first_line(error)})")


def checked_batch(batch: npt.ArrayLike, size: Sequence[int], engine: str, fixed_batch: int | None = None) -> Float32:
    """Return `batch` as contiguous float32 (N, height, width, 3); raises `EngineError` on another shape or dtype.

    N is at least 1; `fixed_batch` where the graph was exported for one N only.
    """
    batch = np.asarray(batch)
    _require(batch, size, engine, fixed_batch, np.float32, "prepare")
    return np.ascontiguousarray(batch)


def checked_bytes(batch: npt.ArrayLike, size: Sequence[int], engine: str) -> Uint8:
    """Return `batch` as contiguous uint8 (N, height, width, 3), N at least 1, like `checked_batch`."""
    batch = np.asarray(batch)
    _require(batch, size, engine, None, np.uint8, "sized")
    return np.ascontiguousarray(batch)


def _require(
    batch: npt.NDArray[Any], size: Sequence[int], engine: str, fixed_batch: int | None, dtype: type, remedy: str
) -> None:
    fits = batch.ndim == 4 and len(batch) > 0 and batch.shape[1:] == (*size, 3) and batch.dtype == dtype
    if not fits or fixed_batch not in (None, len(batch)):
        raise EngineError(
            f"Engine {engine} expects a {np.dtype(dtype)} batch ({fixed_batch or 'N'}, {size[0]}, {size[1]}, 3); "
            f"received {batch.dtype} {batch.shape}. Prepare photos with imaging.{remedy}."
        )
