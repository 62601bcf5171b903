"""Build every engine that this machine can build, and say why it cannot build the rest."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_matting.arrays import Float32
from keras_matting.engines import ENGINES, BuildOptions, build, build_unavailable_reason, check_current
from keras_matting.engines.artefacts import read_manifest
from keras_matting.errors import MattingError, UsageError, first_line
from keras_matting.files import StrPath
from keras_matting.model_folder import MANIFEST, Preset, engine_dir
from keras_matting.photos import imaging
from keras_matting.photos.samples import folder_photos, sample_photos

_LOGGER = logging.getLogger(__name__)

CALIBRATION_PHOTOS = 64
DEFAULT_MAX_BATCH = 16


@dataclass(frozen=True)
class Outcome:
    """What became of one engine: "built", "current" (nothing to do), "unavailable" or "failed", and why."""

    engine: str
    status: str
    reason: str = ""
    seconds: float = 0.0


def optimize(
    model_dir: StrPath,
    names: Sequence[str] | None = None,
    calibration: StrPath | None = None,
    *,
    max_batch: int = DEFAULT_MAX_BATCH,
    force: bool = False,
) -> Iterator[Outcome]:
    """Build the engines `names` (all by default) of a model folder and yield an `Outcome` for each.

    `calibration`: a folder of photos for int8, the calibration half of the samples by default. What is built already
    for these weights, runtime and device is kept, unless `force`, or where int8 was calibrated on other photos than
    those now named, or on photos that it does not name. A build that fails or is interrupted leaves what was there
    before.
    """
    preset = Preset.load(model_dir)
    names = list(ENGINES) if names is None else names
    if unknown := [name for name in names if name not in ENGINES]:
        raise UsageError(f"Expected engines out of {', '.join(ENGINES)}; received {', '.join(unknown)}.")
    options = BuildOptions(calibration_inputs(preset, calibration), max_batch)
    for name in names:
        anew = force or _was_calibrated_otherwise(model_dir, name, options if calibration else None)
        yield _build_one(Path(model_dir), name, options, anew)


def calibration_inputs(preset: Preset, folder: StrPath | None = None) -> tuple[Float32, ...]:
    """Return what int8 is calibrated on: batches (1, H, W, 3) of a folder's photos, or of the samples for it."""
    photos = folder_photos(folder, CALIBRATION_PHOTOS) if folder else sample_photos("calibration").values()
    return tuple(imaging.prepare(photo, preset)[None] for photo in photos)


def _was_calibrated_otherwise(model_dir: StrPath, name: str, options: BuildOptions | None) -> bool:
    manifest = read_manifest(engine_dir(model_dir, name) / MANIFEST)
    if not name.endswith("-int8") or not manifest:
        return False
    if options is None:  # whatever it was calibrated on, if it says so
        return "calibration_photos" not in manifest
    return manifest.get("calibration_sha256") != options.calibration_sha256


def _build_one(model_dir: Path, name: str, options: BuildOptions, anew: bool) -> Outcome:
    """Return the `Outcome` of one engine, whatever its runtime raises: the other engines are built all the same."""
    try:
        if reason := build_unavailable_reason(name):
            return Outcome(name, "unavailable", reason)
        if not anew and check_current(name, model_dir) is None:
            return Outcome(name, "current")
        _LOGGER.info("%s: building", name)
        start = time.perf_counter()
        build(name, model_dir, options)
    except MattingError as error:
        return Outcome(name, "failed", str(error))
    except Exception as error:  # runtimes raise of all kinds
        return Outcome(name, "failed", f"{type(error).__name__}: {first_line(error)}")
    return Outcome(name, "built", seconds=time.perf_counter() - start)
