"""The lowered ONNX files of a model folder: written on any CPU, judged there, carried to machines with a GPU.

`keras-matting export --for tensorrt` writes those of `model_folder.LOWERED_ONNX` that pass the gate, with a manifest
that holds their errors. An engine that finds none lowers the graph itself, where the packages for that are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from keras_matting import telemetry
from keras_matting.arrays import Float32, Uint8
from keras_matting.engines.artefacts import exported, write_manifest
from keras_matting.engines.base import BuildOptions, sensitive_layers
from keras_matting.errors import EngineError, MattingError, first_line
from keras_matting.files import StrPath, put_in_place
from keras_matting.model_folder import LOWERED_ONNX, ONNX_FILE, Preset, export_manifest

if TYPE_CHECKING:
    from keras_matting.photos.files import Photo

# The largest mean error against float32 that an engine may have, over all photos and on one, for mattes in [0, 1].
GATE_MAE = 0.005
GATE_WORST_PHOTO_MAE = 0.02


@dataclass(frozen=True)
class Lowered:
    """One lowered file: its precision, its errors against float32, and why it was refused, "" if it was written."""

    precision: str
    mae: float
    worst_photo_mae: float
    refused: str = ""


def export_lowered(model_dir: StrPath, options: BuildOptions, photos: Iterable[Photo]) -> list[Lowered]:
    """Lower a model folder's ONNX file, write what passes the gate on `photos`, and return a `Lowered` for each.

    `options`: a `BuildOptions` with calibration batches, of other photos. What stood there of an earlier export and
    does not pass now is removed: it is of other weights, or was calibrated on other photos.
    """
    from keras_matting.photos import imaging  # which a machine that only takes the files need not have

    model_dir, preset = Path(model_dir), Preset.load(model_dir)
    source = exported(model_dir, ONNX_FILE, "tensorrt")
    photos = list(photos)
    images: dict[str, list[Float32 | Uint8]] = {"float": [imaging.prepare(photo, preset)[None] for photo in photos]}
    images["uint8"] = [imaging.sized(photo, preset)[None] for photo in photos]

    def mattes(path: Path, precision: str = "float") -> list[Float32]:
        inputs = images["uint8" if precision.endswith("uint8") else "float"]
        return [imaging.apply_output_rule(output, preset) for output in _outputs(path, inputs)]

    expected = mattes(source)
    with TemporaryDirectory(prefix=".lowered.", dir=model_dir) as scratch:
        folder = Path(scratch)
        for precision, name in LOWERED_ONNX.items():
            _lower(source, folder / name, precision, options, _kept(model_dir, precision), preset)
        judged = [_judged(name, mattes(folder / file, name), expected) for name, file in LOWERED_ONNX.items()]
        passed = [LOWERED_ONNX[lowered.precision] for lowered in judged if not lowered.refused]
        for name in LOWERED_ONNX.values():
            if name in passed:
                put_in_place(folder / name, model_dir / name)
            else:
                (model_dir / name).unlink(missing_ok=True)
    errors = {LOWERED_ONNX[lowered.precision]: lowered.mae for lowered in judged}
    fields = {"weights_sha256": preset.weights_sha256, "input_size": list(preset.input_size), "mae": errors}
    fields |= {"kept_in_f32": _kept(model_dir, "int8"), **options.calibration_fields}
    write_manifest(model_dir / export_manifest(LOWERED_ONNX["fp16"]), model_dir, passed, **fields)
    return judged


def lowered_onnx(model_dir: StrPath, precision: str, folder: Path, options: BuildOptions, engine: str) -> Path:
    """Return the path of a model folder's graph in `precision`: what `export_lowered` wrote, else made in `folder`.

    Raises `EngineError` if what is there does not fit, or if it cannot be lowered here.
    """
    name = LOWERED_ONNX[precision]
    if (Path(model_dir) / name).exists():
        return exported(model_dir, name, engine)
    source, target = exported(model_dir, ONNX_FILE, engine), folder / name
    try:
        _lower(source, target, precision, options, _kept(model_dir, precision), Preset.load(model_dir), engine)
    except ImportError as error:
        raise EngineError(
            f"Engine {engine} needs {name}, which cannot be made here ({error}); run keras-matting export {model_dir} "
            "--for tensorrt where onnx and onnxruntime are, and copy it here with its manifest."
        ) from error
    return target


def _kept(model_dir: StrPath, precision: str) -> tuple[str, ...]:
    return sensitive_layers(model_dir, precision.partition("-")[0])


def _lower(
    source: Path,
    target: Path,
    precision: str,
    options: BuildOptions,
    kept: Sequence[str],
    preset: Preset,
    engine: str = "tensorrt-int8",
) -> None:
    from keras_matting.engines import lower

    try:
        if precision.startswith("fp16"):
            lower.to_float16(source, target)
            if precision == "fp16-uint8":
                lower.to_uint8_input(target, target, preset)
            return
        quantised = target.with_name(LOWERED_ONNX["int8"])
        if not quantised.exists():
            lower.to_int8(source, quantised, options.calibration_for(engine), kept)
        if precision == "int8-fp16":
            lower.to_float16(quantised, target)
    except (ImportError, MattingError):
        raise
    except Exception as error:  # ONNX's and ONNX Runtime's tools raise of all kinds at graphs of other people's
        raise EngineError(
            f"Engine {engine} needs the graph in {precision}, in which it cannot be written: {first_line(error)}. "
            "Choose an engine of float32."
        ) from error


def _outputs(path: Path, images: Iterable[Float32 | Uint8]) -> Iterator[Float32]:
    """Yield the output for each image, computed by ONNX Runtime as the graph says.

    Its optimiser is off: that of 1.31 makes nonsense of quantisation with float16 scales.
    """
    with telemetry.switched_off():
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    yield from (session.run(None, {name: image})[0][0] for image in images)


def _judged(precision: str, mattes: Iterable[Float32], expected: Iterable[Float32]) -> Lowered:
    maes = [float(np.abs(one - other).mean()) for one, other in zip(mattes, expected, strict=True)]
    mae, worst = float(np.mean(maes)), max(maes)
    refused = ""
    if not mae <= GATE_MAE:
        refused = f"its mean error {mae:.4f} is above {GATE_MAE}"
    elif not worst <= GATE_WORST_PHOTO_MAE:
        refused = f"its worst photo's mean error {worst:.4f} is above {GATE_WORST_PHOTO_MAE}"
    return Lowered(precision, mae, worst, refused)
