"""A few layers of an OpenVINO model in float32, the others in bfloat16.

The CPU plugin takes one INFERENCE_PRECISION_HINT for a whole model. Since 2026 its graph obeys a tag that keeps a node
as it is (`ov::DisablePrecisionConversion`, made for float16 but heeded for bfloat16 too; nothing documents it for
users). So the tag is written, and the plugin asked what it made of it. Where it did not obey, the graph is cut: pieces
of the two precisions take turns, and what crosses a cut is a float32 tensor that one infer request hands to the next
without a copy.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keras_matting import telemetry
from keras_matting.arrays import Float32
from keras_matting.engines.base import check_found
from keras_matting.machine import engine_threads

if TYPE_CHECKING:
    import openvino

# By piece, what it reads or writes
_Ends: TypeAlias = dict[int, list[Any]]
# Layers that compute have a precision; what lies between them (activations, sums, resizes) follows its neighbours.
_COMPUTING = ("Convolution", "GroupConvolution", "MatMul")
# What makes a tensor larger goes to the next precision, unless a float32 layer reads it: so less crosses a cut.
_ENLARGING = ("Concat", "Interpolate")
COMPILED = ".blob"
_TAG = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:f16"}


def save(model: openvino.Model, kept: Sequence[str], folder: Path) -> list[tuple[str, str]]:
    """Write an `openvino.Model` into `folder` as one graph or several; return [(file name, precision)] in order.

    `kept`: parts of the names of the computing layers to keep in float32, with what lies between them; the rest is
    bfloat16. The model itself is used up.
    """
    with telemetry.switched_off():
        import openvino

    check_found(kept, computing_layers(model))
    path = folder / "model.xml"
    names = {node.get_friendly_name() for node, place in _places(model, kept) if place % 2}
    _settle_resizes(model, names)
    openvino.save_model(model, path, compress_to_fp16=False)
    _tag(path, names)
    if _obeyed(path, names):
        return [(path.name, "bf16")]
    for suffix in (".xml", ".bin", COMPILED):
        path.with_suffix(suffix).unlink(missing_ok=True)
    pieces = [(f"piece{index}.xml", *piece) for index, piece in enumerate(split(model, kept))]
    for file, piece, _ in pieces:
        openvino.save_model(piece, folder / file, compress_to_fp16=False)
    return [(file, precision) for file, _, precision in pieces]


def _settle_resizes(model: openvino.Model, names: Collection[str]) -> None:
    """Write the resizes called one of `names` as the older operation that the plugin would replace them with.

    A tag is lost where the plugin replaces the node that bears it.
    """
    with telemetry.switched_off():
        from openvino import op
        from openvino.utils.node_factory import NodeFactory

    for node in model.get_ordered_ops():
        if not _is(node, "Interpolate") or node.get_friendly_name() not in names or node.get_input_size() != 2:
            continue
        image, scales = (source.get_source_output() for source in node.inputs())
        unused = op.Constant(np.ones(scales.get_shape(), np.int64)).output(0)  # the sizes, where scales decide
        older = NodeFactory("opset4").create("Interpolate", [image, unused, scales], node.get_attributes())
        older.set_friendly_name(node.get_friendly_name())
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(older.output(0))


def _tag(path: Path, names: Collection[str]) -> None:
    """Tag the layers of an IR file that are called one of `names`: they keep their precision."""
    tree = ET.parse(path)
    for layer in tree.getroot().iterfind("layers/layer"):
        if layer.get("name") not in names or layer.get("type") == "Const":
            continue
        info = layer.find("rt_info")
        if info is None:
            info = ET.Element("rt_info")
            layer.insert(0 if layer.find("data") is None else 1, info)
        ET.SubElement(info, "attribute", _TAG)
    tree.write(path)


def _obeyed(path: Path, names: set[str]) -> bool:
    """Return whether the plugin, asked for bfloat16, computes the layers called `names` in float32.

    It is asked as it will be opened: a tag that got lost in what is compiled ahead would be of no use.
    """
    nodes = Chain([(compile_ahead(path, "bf16"), "bf16")]).runtime_nodes() if names else []
    return all(precision == "f32" for _, layers, precision in nodes if names & set(layers.split(",")))


def split(model: openvino.Model, kept: Sequence[str]) -> list[tuple[openvino.Model, str]]:
    """Cut a model (see `save`) into [(model, precision)], to be run in order; the model itself is used up.

    Tensors are passed on by name: every input of a piece is called as an output of an earlier one, or as an input of
    the model. A model without layers to keep is one piece.
    """
    with telemetry.switched_off():
        import openvino

    nodes = _places(model, kept)
    place = {node.get_name(): index for node, index in nodes}
    inputs: _Ends = {}
    outputs: _Ends = {}
    for parameter in model.get_parameters():
        inputs.setdefault(place[parameter.get_name()], []).append(parameter)
    for result in model.get_results():
        outputs.setdefault(place[result.get_name()], []).append(result)
    for node, _ in nodes:
        for output in node.outputs():
            _cut(output, node, place, inputs, outputs)
    return [
        (openvino.Model(outputs[index], inputs[index], f"piece{index}"), "f32" if index % 2 else "bf16")
        for index in sorted(outputs)
    ]


def _places(model: openvino.Model, kept: Sequence[str]) -> list[tuple[openvino.Node, int]]:
    """Return [(node, index of its piece)] in order, odd where it stays in float32; no node reads from a later piece."""
    with telemetry.switched_off():
        from openvino.passes import ConstantFolding, Manager

    passes = Manager()
    passes.register_pass(ConstantFolding())  # else a piece may compute a shape from another piece's tensor
    passes.run_passes(model)
    nodes = [node for node in model.get_ordered_ops() if not _is(node, "Constant")]

    def is_kept(node: openvino.Node) -> bool:
        return _is(node, *_COMPUTING) and any(part in node.get_friendly_name() for part in kept)

    leads: dict[str, bool] = {}  # to a kept layer, with no other computing layer on the way
    for node in reversed(nodes):
        leads[node.get_name()] = any(
            is_kept(reader) or (leads[reader.get_name()] and not _is(reader, *_COMPUTING)) for reader in _readers(node)
        )
    place: dict[str, int] = {}
    for node in nodes:
        name, before = node.get_name(), [place[source.get_name()] for source in _sources(node)]
        if _is(node, *_COMPUTING):
            single = is_kept(node)
        elif not before:
            single = leads[name]
        else:
            single = any(index % 2 for index in before) and (leads[name] or not _is(node, *_ENLARGING))
        latest = max(before, default=0)
        place[name] = latest if latest % 2 == single else latest + 1
    return [(node, place[node.get_name()]) for node in nodes]


def _cut(output: openvino.Output, node: openvino.Node, place: dict[str, int], inputs: _Ends, outputs: _Ends) -> None:
    """Where later pieces read `output`, let them read an input of the same name instead."""
    with telemetry.switched_off():
        from openvino import op

    here = place[node.get_name()]
    later: _Ends = {}
    for reader in output.get_target_inputs():
        index = place[reader.get_node().get_name()]
        if index != here:
            later.setdefault(index, []).append(reader)
    if not later:
        return
    if _is(node, "Parameter"):
        name = output.get_any_name()
    else:
        name = f"cut_{node.get_name()}_{output.get_index()}"
        output.get_tensor().set_names({name})
        outputs.setdefault(here, []).append(op.Result(output))
    for index, readers in later.items():
        parameter = op.Parameter(output.get_element_type(), output.get_partial_shape())
        parameter.output(0).get_tensor().set_names({name})
        for reader in readers:
            reader.replace_source_output(parameter.output(0))
        inputs.setdefault(index, []).append(parameter)


def computing_layers(model: openvino.Model) -> list[str]:
    """Return the names of a model's convolutions and products of matrices."""
    return [node.get_friendly_name() for node in model.get_ops() if _is(node, *_COMPUTING)]


def _is(node: openvino.Node, *kinds: str) -> bool:
    return node.get_type_name() in kinds


def _sources(node: openvino.Node) -> list[openvino.Node]:
    sources = (source.get_source_output().get_node() for source in node.inputs())
    return [source for source in sources if not _is(source, "Constant")]


def _readers(node: openvino.Node) -> list[openvino.Node]:
    return [reader.get_node() for output in node.outputs() for reader in output.get_target_inputs()]


def compile_ahead(path: Path, precision: str) -> Path:
    """Write what OpenVINO makes of a graph for this CPU beside it, and return its path.

    Read by a `Chain`, it saves a second of compiling at every start. OpenVINO checks only its own version in it.
    """
    with telemetry.switched_off():
        import openvino

    compiled = openvino.Core().compile_model(path, "CPU", _hints(precision))
    target = path.with_suffix(COMPILED)
    target.write_bytes(compiled.export_model().getvalue())
    return target


def _hints(precision: str) -> dict[str, str | int]:
    """Return what every compilation is told. Left alone, the plugin computes in bfloat16 where the processor can."""
    hints: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    threads = engine_threads()
    return hints | {"INFERENCE_NUM_THREADS": threads} if threads else hints


class Chain:
    """Graphs compiled for the CPU that run one after another as one model.

    `pieces`: (`openvino.Model`, or path of one or of what `compile_ahead` wrote, precision) in order. Raises
    `RuntimeError` where OpenVINO cannot read or compile.
    """

    def __init__(self, pieces: Sequence[tuple[Path | openvino.Model, str]]) -> None:
        with telemetry.switched_off():
            import openvino

        core = openvino.Core()
        self._tensor, self._steps = openvino.Tensor, []
        for model, precision in pieces:
            if not isinstance(model, openvino.Model) and model.suffix == COMPILED:
                compiled = core.import_model(model.read_bytes(), "CPU", _hints(precision))
            else:
                compiled = core.compile_model(model, "CPU", _hints(precision))
            reads, writes = ([port.get_any_name() for port in ports] for ports in (compiled.inputs, compiled.outputs))
            self._steps.append((compiled, compiled.create_infer_request(), reads, writes))
        self.input = self._steps[0][0].input(0)

    def __call__(self, batch: Float32) -> Float32:
        """Return the last graph's output for a contiguous batch."""
        tensors = {self.input.get_any_name(): self._tensor(batch, shared_memory=True)}
        for _, request, reads, writes in self._steps:
            for name in reads:
                request.set_tensor(name, tensors[name])
            request.infer()
            tensors |= {name: request.get_tensor(name) for name in writes}
        return tensors[writes[0]].data.copy()

    def runtime_nodes(self) -> list[tuple[str, str, str]]:
        """Return [(kind, names of the layers it computes, precision)] of what the plugin really runs."""
        return [
            (_info(node, "layerType"), _info(node, "originalLayersNames"), _info(node, "runtimePrecision").lower())
            for compiled, *_ in self._steps
            for node in compiled.get_runtime_model().get_ops()
        ]


def _info(node: openvino.Node, key: str) -> str:
    return node.get_rt_info()[key].astype(str)
