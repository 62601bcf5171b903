"""OpenVINO on the CPU, in float32, bfloat16 and int8; layers that a low precision ruins stay in float32."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from keras_matting import telemetry
from keras_matting.arrays import Float32
from keras_matting.engines import openvino_mixed
from keras_matting.engines.artefacts import building, built, exported, read_manifest
from keras_matting.engines.base import BuildOptions, cannot_open, check_found, checked_batch, sensitive_layers
from keras_matting.errors import EngineError
from keras_matting.machine import cpu_name, missing_package, runtime
from keras_matting.model_folder import MANIFEST, ONNX_FILE

if TYPE_CHECKING:
    import openvino

_IR = "model.xml"
_BUILT = ("bf16", "int8")
_MAX_ISA = "ONEDNN_MAX_CPU_ISA"
_ISAS_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")


def unavailable_reason(variant: str) -> str | None:
    """Return why OpenVINO cannot run `variant` here, or None."""
    if reason := missing_package("openvino", "cpu"):
        return reason
    if variant == "bf16":
        if reason := held_below_bfloat16():
            return reason
        with telemetry.switched_off():
            import openvino

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return f"this processor computes no bfloat16: {cpu_name()}."
    return None


def held_below_bfloat16() -> str | None:
    """Return which environment variable keeps oneDNN from computing bfloat16, or None.

    OpenVINO asks the processor alone whether it has bfloat16, and then finds no kernel.
    """
    isa = os.environ.get(_MAX_ISA, "").upper()
    return f"{_MAX_ISA}={isa} leaves no bfloat16." if isa in _ISAS_WITHOUT_BFLOAT16 else None


def build_unavailable_reason(variant: str) -> str | None:
    """Return why `variant` cannot be built here, or None: int8 needs NNCF, which serving it does not."""
    if reason := unavailable_reason(variant):
        return reason
    return missing_package("nncf", "quantize") if variant == "int8" else None


def build(model_dir: Path, variant: str, options: BuildOptions) -> None:
    """Quantise for int8 with the calibration photos; cut out for bf16 what stays in float32; f32 needs nothing."""
    engine, kept = f"openvino-{variant}", sensitive_layers(model_dir, variant)
    path = exported(model_dir, ONNX_FILE, engine)
    if variant not in _BUILT:
        return
    with telemetry.switched_off():
        import openvino

    with building(model_dir, engine, _runtime(), cpu_name(), kept_in_f32=kept) as (folder, extra):
        model = openvino.Core().read_model(path)
        if variant == "bf16":
            pieces = openvino_mixed.save(model, kept, folder)
        else:
            pieces = [(_IR, "f32")]  # what is not quantised stays in float32
            extra |= options.calibration_fields
            quantised = _quantised(model, options.calibration_for(engine), kept)
            openvino.save_model(quantised, folder / _IR, compress_to_fp16=False)
        extra["pieces"] = [
            {
                "file": file,
                "requested_precision": precision,
                "compiled": openvino_mixed.compile_ahead(folder / file, precision).name,
            }
            for file, precision in pieces
        ]


def check_current(model_dir: Path, variant: str) -> None:
    """Raise `EngineError` unless what `build` makes is there and fits."""
    if variant in _BUILT:
        manifest = read_manifest(built(model_dir, f"openvino-{variant}", _runtime(), cpu_name()) / MANIFEST)
        if manifest.get("kept_in_f32") != list(sensitive_layers(model_dir, variant)):
            raise EngineError(f"Engine openvino-{variant} was built with other layers in float32; build it again.")
    exported(model_dir, ONNX_FILE, f"openvino-{variant}")


def open_engine(model_dir: Path, variant: str) -> OpenVinoEngine:
    """Compile a model folder's graph for this CPU."""
    engine = f"openvino-{variant}"
    if variant not in _BUILT:
        path = exported(model_dir, ONNX_FILE, engine)
        return OpenVinoEngine(path, variant, [(path, variant)])
    folder = built(model_dir, engine, _runtime(), cpu_name())
    pieces = read_manifest(folder / MANIFEST).get("pieces", [{"file": _IR, "requested_precision": "f32"}])
    files = [folder / piece.get("compiled", piece["file"]) for piece in pieces]
    precisions = [piece["requested_precision"] for piece in pieces]
    return OpenVinoEngine(folder, variant, list(zip(files, precisions, strict=True)))


class OpenVinoEngine:
    """A model compiled by OpenVINO, whole or as a chain of `pieces`, (file, precision) each."""

    def __init__(self, path: Path, variant: str, pieces: Sequence[tuple[Path, str]]) -> None:
        self.name, self.path = f"openvino-{variant}", path
        self._requested = [precision for _, precision in pieces]
        try:
            self._chain = openvino_mixed.Chain(pieces)
        except RuntimeError as error:
            raise cannot_open(self.name, path, _told(error)) from error
        batch, height, width, _ = self._chain.input.partial_shape
        self.size = (height.get_length(), width.get_length())
        self._fixed_batch = batch.get_length() if batch.is_static else None

    def predict(self, batch: Float32) -> Float32:
        """See `Engine.predict`."""
        return self._chain(checked_batch(batch, self.size, self.name, self._fixed_batch))

    def describe(self) -> dict[str, str]:
        """See `Engine.describe`: the precision in which the compiled convolutions really run, and what was asked for.

        The two differ where a processor lacks bfloat16: OpenVINO then computes in float32 without a word.
        """
        precisions = Counter(
            precision
            for kind, _, precision in self._chain.runtime_nodes()
            if kind in ("Convolution", "GroupConvolution")
        )
        total = sum(precisions.values())
        listed = ", ".join(f"{count} of {total} convolutions {name}" for name, count in precisions.most_common())
        lowest = "int8" if {"i8", "u8"} & set(precisions) else "bf16" if "bf16" in precisions else "f32"
        if len(self._requested) > 1:
            listed += f"; pieces asked for {', '.join(self._requested)}"
        return {"precision": lowest, "coverage": listed}

    def close(self) -> None:
        """Drop the compiled model."""
        self._chain = None  # type: ignore[assignment]


def _told(error: BaseException) -> str:
    """Return OpenVINO's message without the lines that only say where in its source it was raised."""
    return "\n".join(line for line in str(error).splitlines() if not line.startswith("Exception from"))


def _quantised(model: openvino.Model, calibration: Sequence[Float32], kept: Sequence[str]) -> openvino.Model:
    with telemetry.switched_off(), warnings.catch_warnings():  # NNCF adds filters for the whole process
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    check_found(kept, openvino_mixed.computing_layers(model))
    patterns = [f".*{layer.replace('.', chr(92) + '.')}.*" for layer in kept]
    with _errors_only(logging.getLogger("nncf")):
        return nncf.quantize(
            model,
            nncf.Dataset(list(calibration)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(patterns=patterns, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # NNCF's default range is the mean of the photos' extremes, and clips what lies beyond: of a cap on a
                # red cloth the visor went (error .14; with the whole range .0008).
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                # Corrected biases triple U2NetP's error (mean .0062 instead of .0021 on 47 unseen photos). Until shapes
                # are folded NNCF finds none to correct; this does not depend on that.
                disable_bias_correction=True,
            ),
        )


@contextmanager
def _errors_only(logger: logging.Logger) -> Iterator[None]:
    """Let a library's logger pass errors only, and put its level back: it is the caller's, too."""
    earlier = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(earlier)


def _runtime() -> str:
    return runtime("openvino")
