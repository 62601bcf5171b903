"""The exported ONNX graph in lower precision, for runtimes that take precision from the graph (TensorRT).

float16: everything but the instance norms and the sigmoids, which stay float32: 65,536 elements of mean 1
pass float16's largest number, 65,504. int8: quantise-dequantise pairs with symmetric scales, calibrated on photos, at
the inputs of convolutions only: a pair between a convolution and its ReLU rounds once more and keeps them from being
fused. uint8: the normalisation within the graph, so that a quarter of the bytes goes to the GPU. `lowered.py` writes
these files and judges them.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from keras_matting import telemetry
from keras_matting.arrays import Float32
from keras_matting.engines.base import check_found
from keras_matting.files import StrPath
from keras_matting.model_folder import Preset

_COMPUTING = ("Conv", "ConvTranspose", "Gemm", "MatMul")
KEEP_FLOAT32 = ("GlobalAveragePool", "InstanceNormalization", "ReduceMean", "Sqrt", "Reciprocal", "Sigmoid")
# Inputs that ONNX wants in float32 whatever the data are: Resize's roi and scales.
_ALWAYS_FLOAT32 = {"Resize": (1, 2)}
_LARGEST_HALF = float(np.finfo(np.float16).max)
_SMALLEST_SCALE = float(np.finfo(np.float16).tiny)  # what is smaller would become 0, by which nothing can be divided
_AXES_INPUT_OPSET = 18
_HALF_SCALES_OPSET = 19  # the first in which quantisation takes float16


def to_float16(source: StrPath, target: StrPath) -> None:
    """Write the ONNX file `source` as `target` with float16 weights and activations, float32 input and output.

    `source` may be what `to_int8` wrote: its scales become float16, too, for which the opset is raised. Nodes that stay
    float32 read and write tensors called NAME__single; between two of them nothing is rounded.
    """
    model = onnx.load(source)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        model = version_converter.convert_version(model, _HALF_SCALES_OPSET)
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    activations = _float_activations(graph)
    image, matte = graph.input[0].name, graph.output[0].name
    single = {image} | {name for node in graph.node if _stays_float32(node) for name in node.output}

    nodes = [_cast(f"{image}__single", image, TensorProto.FLOAT16)]
    halves: dict[str, str] = {}
    singles: dict[str, str] = {}
    for node in graph.node:
        stays = _stays_float32(node)
        for index, name in enumerate(node.input):
            if name in constants and index not in _ALWAYS_FLOAT32.get(node.op_type, ()):
                suffix, store = ("__single", singles) if stays else ("__half", halves)
                store[name] = node.input[index] = name + suffix
            elif name in activations and stays:
                node.input[index] = f"{name}__single"
                if name not in single:
                    single.add(name)
                    nodes.append(_cast(name, f"{name}__single", TensorProto.FLOAT))
        if node.op_type == "Cast" and set(node.output) <= activations:  # of a graph that mixes precisions already
            node.attribute[0].i = TensorProto.FLOAT16
        nodes.append(node)
        if stays:
            outputs = list(node.output)
            node.output[:] = [f"{name}__single" for name in outputs]
            nodes += [_cast(f"{name}__single", name, TensorProto.FLOAT16) for name in outputs]
    if matte not in single:
        nodes.append(_cast(matte, f"{matte}__single", TensorProto.FLOAT))

    _rename(nodes, {f"{image}__single": image, image: f"{image}__half"})
    _rename(nodes, {f"{matte}__single": matte, matte: f"{matte}__half"})
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _replace_constants(graph, constants, halves, singles, _scales(graph))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def _float_activations(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all float32 tensors that nodes compute, and of the input."""
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}


def _stays_float32(node: onnx.NodeProto) -> bool:
    return node.op_type in KEEP_FLOAT32


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_to_{target}", to=kind)


def _rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _scales(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the constants by which tensors are quantised."""
    return {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}


def _replace_constants(
    graph: onnx.GraphProto,
    constants: Mapping[str, onnx.TensorProto],
    halves: Mapping[str, str],
    singles: Mapping[str, str],
    scales: Container[str],
) -> None:
    """Store each constant in the precisions that its nodes read, and under its own name only if somebody still does."""
    for name, stored in halves.items():
        smallest = _SMALLEST_SCALE if stored in scales else -_LARGEST_HALF
        array = np.clip(numpy_helper.to_array(constants[name]), smallest, _LARGEST_HALF)
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), stored))
    for name, stored in singles.items():
        graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(constants[name]), stored))
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def to_uint8_input(source: StrPath, target: StrPath, preset: Preset) -> None:
    """Write the ONNX file `source` as `target` with a uint8 input (N, H, W, 3) that it normalises as `preset` says.

    The input, `imaging.sized`, goes nowhere but into a cast: TensorRT takes uint8 nowhere else.
    """
    model = onnx.load(source)
    graph = model.graph
    image = graph.input[0].name
    plain, divisor, normalised = f"{image}__plain", f"{image}__divisor", f"{image}__normalised"
    std = np.asarray(preset.std, np.float32)
    constants: dict[str, Any] = {f"{image}__offset": np.asarray(preset.mean, np.float32) / std}
    nodes = [_cast(image, plain, TensorProto.FLOAT)]
    if preset.scale == "image-max":  # of each photo; of one that is all black, 1 does as well as 255
        opset = next(entry.version for entry in model.opset_import if not entry.domain)
        constants |= {f"{image}__one": np.float32(1), f"{image}__std": std}
        nodes += [
            _largest(plain, f"{image}__largest", opset, constants),
            helper.make_node("Max", [f"{image}__largest", f"{image}__one"], [divisor]),
            helper.make_node("Mul", [divisor, f"{image}__std"], [f"{image}__range"]),
            helper.make_node("Div", [f"{image}__one", f"{image}__range"], [f"{image}__scale"]),
        ]
    else:
        constants[f"{image}__scale"] = 1 / (255 * std)
    nodes += [
        helper.make_node("Mul", [plain, f"{image}__scale"], [f"{image}__scaled"]),
        helper.make_node("Sub", [f"{image}__scaled", f"{image}__offset"], [normalised]),
    ]
    rest = list(graph.node)
    _rename(rest, {image: normalised})
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def _largest(source: str, target: str, opset: int, constants: dict[str, Any]) -> onnx.NodeProto:
    """Return the node that takes each photo's largest value; its axes are an input from opset 18 on."""
    axes = [1, 2, 3]
    if opset < _AXES_INPUT_OPSET:
        return helper.make_node("ReduceMax", [source], [target], axes=axes)
    constants[f"{target}__axes"] = np.asarray(axes)
    return helper.make_node("ReduceMax", [source, f"{target}__axes"], [target])


def to_int8(source: StrPath, target: StrPath, calibration: Iterable[Float32], kept: Sequence[str] = ()) -> None:
    """Write `source` as `target` with int8 convolutions (QDQ), calibrated on float32 batches (1, H, W, 3).

    Layers whose name contains one of `kept` stay float32, and so does all that is no convolution. Scales are symmetric,
    as TensorRT demands.
    """
    with telemetry.switched_off():
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

    class Photos(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(calibration)

        def get_next(self) -> dict[str, Float32] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": np.asarray(batch, np.float32)}

    prepared = Path(target).with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    nodes = onnx.load(prepared).graph.node
    check_found(kept, [node.name for node in nodes if node.op_type in _COMPUTING])
    quantize_static(
        prepared,
        target,
        Photos(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=[node.name for node in nodes if any(layer in node.name for layer in kept)],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options=dict.fromkeys(("ActivationSymmetric", "WeightSymmetric", "AddQDQPairToWeight"), True)
        | {"QuantizeBias": False, "OpTypesToExcludeOutputQuantization": ["Conv"]},
    )
    prepared.unlink()
