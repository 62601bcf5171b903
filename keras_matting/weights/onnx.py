"""Official ONNX exports into Keras models, also where the exporter folded the batch norms and dropped the names.

The exporter keeps the network's topology, so both graphs are walked from the matte backwards in the same way (depth
first, inputs in order) and their layers with parameters meet in the same order. Shapes are checked by
`load_state_dict`, and `verify` compares the results with ONNX Runtime.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import keras
import numpy as np
import numpy.typing as npt
import onnx
from keras import layers
from onnx import numpy_helper

from keras_matting import telemetry
from keras_matting.errors import WeightsError, first_line
from keras_matting.files import StrPath
from keras_matting.models import inference_model
from keras_matting.models.layers import BATCH_NORM_EPSILON, IBNorm
from keras_matting.weights.names import pytorch_prefix
from keras_matting.weights.pytorch import load_state_dict, pytorch_name

_Tensor: TypeAlias = npt.NDArray[np.generic]
_Record: TypeAlias = tuple[str, list[_Tensor]]  # "linear" or "norm", and its parameters
_Node = TypeVar("_Node", bound=Hashable)
# Float32 noise between two runtimes over a hundred layers is about 1e-6; a wrong weight shows above 1e-2.
VERIFY_TOLERANCE = 1e-4
_FREE_SIDE = 128  # the size to verify at, where the file leaves height and width open


def load_onnx(model: keras.Model, path: StrPath) -> list[str]:
    """Set the variables of `model` from the ONNX file at `path`; return the names of those that it cannot contain.

    A folded batch norm becomes the identity with the convolution's bias, so evaluation equals the file's. An
    inference-only export lacks the layers that do not feed the matte: these keep their values and are returned.
    Raises `WeightsError` if the file is no ONNX model or not one of `model`'s architecture.
    """
    records = _parameters_in_order(_read(path), path)
    served = inference_model(model)
    state_dict = _pair(_layers_in_order(model.output["matte"]), records, model.name, path)
    names = {pytorch_name(variable) for variable in served.weights}
    load_state_dict(served, {name: array for name, array in state_dict.items() if name in names})
    return sorted({pytorch_name(variable) for variable in model.weights} - names)


def verify(model: keras.Model, path: StrPath) -> float:
    """Raise `WeightsError` unless `model` computes the same matte as the ONNX file; return the largest difference."""
    with telemetry.switched_off():
        import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise WeightsError(f"ONNX Runtime cannot open {path}: {first_line(error)}") from error
    source = session.get_inputs()[0]
    if len(source.shape) != 4 or source.shape[1] != 3:
        raise WeightsError(
            f"Expected an official export with an input (N, 3, H, W); {path} takes {source.shape}. "
            "An exported model folder of ours needs no import: use its model.keras."
        )
    height, width = (side if isinstance(side, int) else _FREE_SIDE for side in source.shape[2:])
    image = np.random.default_rng(0).uniform(-1, 1, (1, height, width, 3)).astype("float32")
    expected = session.run([session.get_outputs()[0].name], {source.name: image.transpose(0, 3, 1, 2)})[0]
    matte = np.asarray(model(image, training=False)["matte"]).transpose(0, 3, 1, 2)
    difference = float(np.abs(matte - expected).max())
    if not difference <= VERIFY_TOLERANCE:
        raise WeightsError(
            f"Expected {model.name} with the weights of {path} to agree with ONNX Runtime within "
            f"{VERIFY_TOLERANCE}; they differ by {difference:.2g}. The file is of another architecture."
        )
    return difference


def _read(path: StrPath) -> onnx.GraphProto:
    try:
        return onnx.load(path).graph
    except Exception as error:
        raise WeightsError(
            f"Expected an ONNX model; {path} cannot be read as one ({type(error).__name__}). Download it again."
        ) from error


def _parameters_in_order(graph: onnx.GraphProto, path: StrPath) -> list[_Record]:
    """Return [(operator, its parameter arrays)] of all nodes with parameters, from the input to the first output."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    nodes = list(graph.node)
    producer = {output: index for index, node in enumerate(nodes) for output in node.output}

    def inputs_of(index: int) -> list[int]:
        return [producer[name] for name in nodes[index].input if name in producer]

    if not graph.output or graph.output[0].name not in producer:
        raise WeightsError(f"Expected an ONNX model with an output; {path} has none. Download it again.")
    order = _post_order(producer[graph.output[0].name], inputs_of)
    records = [(index, _record(nodes[index], constants)) for index in order]
    unreached = [node.name for index, node in enumerate(nodes) if index not in set(order) and _record(node, constants)]
    if unreached:
        raise WeightsError(f"Layers of {path} do not feed its first output, the matte: {', '.join(unreached[:5])}.")
    return [record for _, record in records if record]


def _record(node: onnx.NodeProto, constants: Mapping[str, _Tensor]) -> _Record | None:
    """Return (kind, arrays in PyTorch's layouts) of a node with parameters, else None."""
    arrays = [constants[name] for name in node.input[1:] if name in constants]
    if node.op_type == "Conv" and arrays:
        return "linear", arrays
    if node.op_type == "MatMul" and arrays and arrays[0].ndim == 2:
        return "linear", [arrays[0].T]
    if node.op_type == "Gemm" and arrays:
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return "linear", [arrays[0] if transposed else arrays[0].T, *arrays[1:]]
    if node.op_type == "BatchNormalization":
        return "norm", arrays
    return None


def _layers_in_order(tensor: keras.KerasTensor) -> list[keras.Layer]:
    """Return the Keras layers with weights that feed `tensor`, in the order of `_parameters_in_order`."""

    def inputs_of(operation: keras.Operation) -> list[keras.Operation]:
        return [x._keras_history.operation for x in operation._inbound_nodes[0].input_tensors]

    return [layer for layer in _post_order(tensor._keras_history.operation, inputs_of) if layer.weights]


def _post_order(root: _Node, inputs_of: Callable[[_Node], Sequence[_Node]]) -> list[_Node]:
    """Return all nodes that feed `root`, each after its inputs; inputs are visited in order, depth first."""
    order: list[_Node] = []
    seen, stack = {root}, [(root, iter(inputs_of(root)))]
    while stack:
        node, pending = stack[-1]
        source = next((source for source in pending if source not in seen), None)
        if source is None:
            order.append(node)
            stack.pop()
        else:
            seen.add(source)
            stack.append((source, iter(inputs_of(source))))
    return order


def _pair(
    keras_layers: Iterable[keras.Layer], records: Iterable[_Record], model_name: str, path: StrPath
) -> dict[str, _Tensor]:
    """Return a PyTorch state dict that gives each Keras layer the next record, in step."""
    records = list(records)
    state: dict[str, _Tensor] = {}
    folded_bias: _Tensor | None = None
    for layer in keras_layers:
        kind = "norm" if isinstance(layer, (layers.BatchNormalization, IBNorm)) else "linear"
        name = pytorch_prefix(layer.name)
        prefix = f"{name}.bnorm" if isinstance(layer, IBNorm) else name
        if kind == "norm" and not (records and records[0][0] == "norm"):
            state |= _identity_norm(prefix, int(layer.weights[0].shape[0]), folded_bias)
            continue
        if not records or records[0][0] != kind:
            received = f"a {records[0][0]} layer" if records else "the end of the file"
            raise WeightsError(
                f"{path} is not an export of {model_name}: expected parameters of {layer.name} ({kind}), "
                f"received {received}. Choose the model that the file was exported from."
            )
        arrays = records.pop(0)[1]
        folded_bias = None
        if kind == "norm":
            state |= {f"{prefix}.{part}": a for part, a in zip(_NORM_PARTS, arrays, strict=True)}
        else:
            state[f"{prefix}.weight"] = arrays[0]
            if layer.use_bias:
                state[f"{prefix}.bias"] = arrays[1] if len(arrays) > 1 else np.zeros(len(arrays[0]), "float32")
            elif len(arrays) > 1:
                folded_bias = arrays[1]
    if records:
        raise WeightsError(
            f"{path} is not an export of {model_name}: {len(records)} layers are left over. "
            "Choose the model that the file was exported from."
        )
    return state


_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def _identity_norm(prefix: str, channels: int, bias: _Tensor | None) -> dict[str, _Tensor]:
    """Return parameters with which a batch norm only adds `bias`: its scale 1 / sqrt(variance + epsilon) is 1."""
    ones, zeros = np.ones(channels, "float32"), np.zeros(channels, "float32")
    arrays = (ones, zeros if bias is None else bias, zeros, ones - np.float32(BATCH_NORM_EPSILON))
    return {f"{prefix}.{part}": array for part, array in zip(_NORM_PARTS, arrays, strict=True)}
