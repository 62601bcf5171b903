"""OpenVINO on the CPU, in float32, bfloat16 and int8."""

import logging
from collections import Counter

from keras_matting.config import ONNX_FILE
from keras_matting.engines.artefacts import building, built, exported
from keras_matting.engines.base import cannot_open, checked_batch, missing_package, runtime, sensitive_layers
from keras_matting.engines.devices import cpu_name

_IR = "model.xml"
_PRECISIONS = {"f32": "f32", "bf16": "bf16", "int8": "f32"}  # int8: what is not quantised stays float32


def unavailable_reason(variant):
    """Return why OpenVINO cannot run `variant` here, or None."""
    if reason := missing_package("openvino", "cpu"):
        return reason
    if variant == "bf16":
        import openvino

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return f"this processor computes no bfloat16: {cpu_name()}."
    return None


def build_unavailable_reason(variant):
    """Return why `variant` cannot be built here, or None: int8 needs NNCF, which serving it does not."""
    if reason := unavailable_reason(variant):
        return reason
    return missing_package("nncf", "quantize") if variant == "int8" else None


def build(model_dir, variant, options):
    """Quantise for int8 with the calibration photos; the other precisions are decided when the graph is compiled."""
    path = exported(model_dir, ONNX_FILE, f"openvino-{variant}")
    if variant != "int8":
        return
    import openvino

    kept = sensitive_layers(model_dir)
    with building(model_dir, "openvino-int8", _runtime(), cpu_name(), kept_in_f32=kept) as (folder, _):
        model = _quantised(openvino.Core().read_model(path), options.calibration_for("openvino-int8"), kept)
        openvino.save_model(model, folder / _IR, compress_to_fp16=False)


def check_current(model_dir, variant):
    """Raise `EngineError` unless what `build` makes is there and fits."""
    if variant == "int8":
        built(model_dir, "openvino-int8", _runtime(), cpu_name())
    exported(model_dir, ONNX_FILE, f"openvino-{variant}")


def open_engine(model_dir, variant):
    """Compile a model folder's graph for this CPU."""
    engine = f"openvino-{variant}"
    if variant == "int8":
        return OpenVinoEngine(built(model_dir, engine, _runtime(), cpu_name()) / _IR, variant)
    return OpenVinoEngine(exported(model_dir, ONNX_FILE, engine), variant)


class OpenVinoEngine:
    """A model compiled by OpenVINO."""

    def __init__(self, path, variant):
        import openvino

        self.name = f"openvino-{variant}"
        self.path = path.parent if variant == "int8" else path
        hints = {"INFERENCE_PRECISION_HINT": _PRECISIONS[variant], "PERFORMANCE_HINT": "LATENCY"}
        core = openvino.Core()
        try:
            self._compiled = core.compile_model(core.read_model(path), "CPU", hints)
        except RuntimeError as error:
            raise cannot_open(self.name, path, error) from error
        batch, height, width, _ = self._compiled.input(0).partial_shape
        self.size = (height.get_length(), width.get_length())
        self._fixed_batch = batch.get_length() if batch.is_static else None
        self._request = self._compiled.create_infer_request()

    def predict(self, batch):
        """See `Engine.predict`."""
        batch = checked_batch(batch, self.size, self.name, self._fixed_batch)
        self._request.infer({0: batch}, share_inputs=True)
        return self._request.get_output_tensor(0).data.copy()

    def describe(self):
        """See `Engine.describe`: the precision in which the compiled convolutions really run."""
        precisions = Counter(
            _rt_info(node, "runtimePrecision")
            for node in self._compiled.get_runtime_model().get_ops()
            if _rt_info(node, "layerType") in ("Convolution", "GroupConvolution")
        )
        total = sum(precisions.values())
        listed = ", ".join(f"{count} of {total} convolutions {name}" for name, count in precisions.most_common())
        lowest = "int8" if {"i8", "u8"} & set(precisions) else "bf16" if "bf16" in precisions else "f32"
        return {"precision": lowest, "coverage": listed}

    def close(self):
        """Drop the compiled model."""
        self._request = self._compiled = None


def _quantised(model, calibration, kept):
    import nncf

    nncf.set_log_level(logging.ERROR)
    patterns = [f".*{layer.replace('.', chr(92) + '.')}.*" for layer in kept]
    return nncf.quantize(
        model,
        nncf.Dataset(list(calibration)),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(patterns=patterns, validate=False),
    )


def _runtime():
    return runtime("openvino")


def _rt_info(node, key):
    info = node.get_rt_info()
    return info[key].astype(str).lower() if key == "runtimePrecision" else info[key].astype(str)
