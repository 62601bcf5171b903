"""A network in this project's form: "image", normalised float32 (N, H, W, 3), to "matte", float32 (N, H, W, 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from keras_matting.foreign_onnx.reading import Network

IMAGE, MATTE = "image", "matte"
_PREFIX = "net/"  # of all that the network calls its own, which may be called image or matte, too
_FIRST_LAST = {"NCHW": [0, 3, 1, 2], "NHWC": [0, 1, 2, 3]}
_BACK = {"NCHW": [0, 2, 3, 1], "NHWC": [0, 1, 2, 3]}


@dataclass(frozen=True)
class Output:
    """Which of a network's outputs the matte is, and how it becomes one.

    `name`; `dtype`, as in `TensorProto`; `layout`: "NCHW", "NHWC", or "" of a map without channels; `size`: its own
    (height, width); `activation`: "none", "sigmoid" or "softmax"; `channel`: the subject's, of several; None of one.
    """

    name: str
    dtype: int
    layout: str
    size: tuple[int, int]
    activation: str = "none"
    channel: int | None = None


def wrap(network: Network, output: Output, batch: int | None) -> Any:
    """Return the `ModelProto` of `network` in this project's form, for a batch size, None for any.

    What does not lead to the output is left out. The network's own file is not changed.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    _prune(model.graph, output.name)
    graph, (height, width) = model.graph, network.size
    constants = {tensor.name: _PREFIX + tensor.name for tensor in graph.initializer}  # else branches keep the old names
    compose.add_prefix_graph(graph, _PREFIX, inplace=True, name_map=constants)
    before, after = _Chain(IMAGE), _Chain(_PREFIX + output.name)
    _take_image(before, network)
    _give_matte(after, output, network.size)
    # Identity gives the network's input and the result the names that they shall have
    nodes = [*before.nodes, helper.make_node("Identity", [before.name], [_PREFIX + network.input_name], "to_network")]
    nodes += [*graph.node, *after.nodes, helper.make_node("Identity", [after.name], [MATTE], "to_matte")]
    tensors = {node.output[0]: _tensor_of(node) for node in nodes if node.op_type == "Constant"}
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(node for node in nodes if node.op_type != "Constant")
    graph.initializer.extend([*tensors.values(), *before.constants, *after.constants])
    sides = "batch" if batch is None else batch
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, (sides, height, width, 3)))
    graph.output.append(helper.make_tensor_value_info(MATTE, TensorProto.FLOAT, (sides, height, width, 1)))
    model.ir_version = max(model.ir_version, 4)  # from which on constants need not be inputs
    return model


class _Chain:
    """Nodes one after another, each reading what the one before wrote."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *further: Any, **attributes: Any) -> None:
        """Add a node; `further` are arrays of constant inputs, "" for one that is left out."""
        names = []
        for array in further:
            names.append("" if isinstance(array, str) else f"{self.name}_{kind}_{len(self.constants)}")
            if names[-1]:
                self.constants.append(numpy_helper.from_array(array, names[-1]))
        result = f"{self.name}_{kind.lower()}"
        self.nodes.append(helper.make_node(kind, [self.name, *names], [result], result, **attributes))
        self.name = result


def _take_image(chain: _Chain, network: Network) -> None:
    if network.dtype == TensorProto.UINT8:
        chain.add("Round")
        chain.add("Clip", np.array(0, np.float32), np.array(255, np.float32))
    if network.dtype != TensorProto.FLOAT:
        chain.add("Cast", to=network.dtype)
    if network.layout == "NCHW":
        chain.add("Transpose", perm=_FIRST_LAST["NCHW"])


def _give_matte(chain: _Chain, output: Output, size: tuple[int, int]) -> None:
    if output.dtype != TensorProto.FLOAT:
        chain.add("Cast", to=TensorProto.FLOAT)
    if output.layout == "NCHW":
        chain.add("Transpose", perm=_BACK["NCHW"])
    elif not output.layout:
        chain.add("Reshape", np.array([-1, *output.size, 1], np.int64))
    if output.activation == "softmax":
        chain.add("Softmax", axis=3)  # the last: only there opsets before 13 mean the same
    if output.channel is not None:
        chain.add("Gather", np.array([output.channel], np.int64), axis=3)
    if output.activation == "sigmoid":
        chain.add("Sigmoid")
    if output.size != size:
        scales = [1, *(_scale(own, wanted) for own, wanted in zip(output.size, size, strict=True)), 1]
        chain.add(
            "Resize",
            "",
            np.array(scales, np.float32),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )


def _scale(own: int, wanted: int) -> np.float32:
    """Return the scale by which a side becomes another one, also where float32 would round it down."""
    scale = np.float32(wanted / own)
    while int(np.float32(own) * scale) < wanted:
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def _prune(graph: Any, output: str) -> None:
    """Leave out the nodes and constants that do not lead to `output`, and put each node after those that it reads.

    Some files have them in another order, which ONNX forbids and ONNX Runtime puts right.
    """
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    reads = {
        index: {makers[name] for name in _read_by(graph.node[index]) if name in makers}
        for index in range(len(graph.node))
    }
    kept = [graph.node[index] for index in _in_order(makers[output], reads)]
    wanted = {name for node in kept for name in _read_by(node)}
    constants = [tensor for tensor in graph.initializer if tensor.name in wanted]
    outputs = [value for value in graph.output if value.name == output]
    del graph.node[:], graph.initializer[:], graph.output[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants)
    graph.output.extend(outputs)


def _in_order(last: int, reads: Mapping[int, set[int]]) -> list[int]:
    """Return what leads to `last`, and itself at the end, each after what it reads."""
    needed, waiting = {last}, [last]
    while waiting:
        fresh = reads[waiting.pop()] - needed
        needed |= fresh
        waiting += fresh
    return list(TopologicalSorter({index: sorted(reads[index]) for index in sorted(needed)}).static_order())


def _read_by(node: Any) -> set[str]:
    """Return the names of what a node reads, also in the branches of a condition or loop."""
    branches = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    branches += [branch for attribute in node.attribute for branch in attribute.graphs]
    names = set(node.input)
    for branch in branches:
        names.update(value.name for value in branch.output)
        names.update(*(_read_by(inner) for inner in branch.node))
    return names


def _tensor_of(node: Any) -> Any:
    """Return what a Constant node holds as a tensor of its output's name: lower precisions look for it there."""
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name != "value":
        kind = np.float32 if attribute.type in (attribute.FLOAT, attribute.FLOATS) else np.int64
        return numpy_helper.from_array(np.array(value, kind), node.output[0])
    tensor = TensorProto()
    tensor.CopyFrom(value)
    tensor.name = node.output[0]
    return tensor
