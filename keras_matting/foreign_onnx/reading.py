"""An ONNX file that somebody else made: what can be told from it, and what has to be asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, external_data_helper, helper, inliner

from keras_matting.engines.onnx import onnxruntime_module
from keras_matting.errors import UsageError, first_line
from keras_matting.files import StrPath, printable, stub_told

LAYOUTS = ("NCHW", "NHWC")
LEAST_OPSET = 11  # what is put around the network is written in it
_MOST_BYTES = 2**31 - 1  # of one file of protocol buffers
_INPUT_TYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8"}


@dataclass(frozen=True)
class Network:
    """What an ONNX file takes.

    `model`: with all data, functions inlined. `input_name`; `dtype`, as in `TensorProto`; `layout`, one of `LAYOUTS`;
    `size`, (height, width); `batch`, None where it is open.
    """

    path: Path
    model: Any
    input_name: str
    dtype: int
    layout: str
    size: tuple[int, int]
    batch: int | None

    @property
    def where(self) -> str:
        """The file's name, for messages."""
        return printable(self.path)

    def open(self) -> Any:
        """Return ONNX Runtime's session of the file as it is, on the CPU; raises `UsageError` if it cannot run it."""
        return open_session(str(self.path), self.where)


def read_network(path: StrPath, layout: str | None = None, size: tuple[int, int] | None = None) -> Network:
    """Return the `Network` of a file; `layout` and `size` are for what it leaves open.

    Raises `UsageError` where it is no whole ONNX file, takes other than one photo, or leaves more open.
    """
    path = Path(path)
    model = _read(path)
    told = printable(path)
    name, kind, dims = _only_input(model.graph, told)
    layout = _layout_of(dims, layout, told)
    at = layout.index("H")
    sides = [_side(dims[at + index], size[index] if size else None, dims, told) for index in (0, 1)]
    return Network(path, model, name, kind, layout, (sides[0], sides[1]), dims[0])


def open_session(model: str | bytes, told: str) -> Any:
    """Return ONNX Runtime's session of a path or a serialised model, on the CPU; raises `UsageError`."""
    onnxruntime = onnxruntime_module()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # declared shapes that batches contradict are warnings; what fails is raised
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many kinds
        raise UsageError(
            f"Expected a network that ONNX Runtime can run; {told} has {_complaint(error)}. Export it anew, "
            "in operators of ONNX only."
        ) from error


def _complaint(error: Exception) -> str:
    text = str(error)
    for pattern in (r"No Op registered for (\S+)", r"No opset import for domain '?(\S+?)'", r"(\S+)\(-?\d+\) is not a"):
        if found := re.search(pattern, text):
            return f"an operator that it does not know, {found[1]}"
    return first_line(text.rpartition("ONNXRuntimeError] : ")[2]).rstrip(".")


def dims_of(value: Any) -> list[int | None]:
    """Return the sides of a tensor as its `ValueInfoProto` declares them, None where one is open."""
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def _read(path: Path) -> Any:
    told = printable(path)
    if not path.is_file():
        raise UsageError(f"Expected an ONNX file; {told} does not exist or is no file.")
    if stub := stub_told(path):
        raise UsageError(f"Expected an ONNX file at {told}; {stub}.")
    _require_bytes([path], told)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protocol buffers' DecodeError, and what damaged text makes of strings
        raise UsageError(f"Expected an ONNX file; {told} is damaged or none. Copy or download it again.") from error
    if not model.graph.node or not model.opset_import:
        raise UsageError(f"Expected an ONNX file; {told} holds no network. Copy or download it again.")
    _load_external(model, path)
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), LEAST_OPSET)
    if opset < LEAST_OPSET:
        raise UsageError(f"Expected opset {LEAST_OPSET} or later; {told} has {opset}. Export it anew.")
    return inliner.inline_local_functions(model) if model.functions else model


def _load_external(model: Any, path: Path) -> None:
    """Read what tensors keep in files beside `path` into the model."""
    tensors = external_data_helper._get_all_tensors(model)
    names = {
        entry.value
        for tensor in tensors
        if external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    missing = sorted(name for name in names if not (path.parent / name).is_file())
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"Expected the network's data beside {printable(path)}; there is no {printable(missing[0])}{more}. "
            "Copy or download all files of it into one folder."
        )
    _require_bytes([path, *(path.parent / name for name in names)], printable(path))
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # a file that is cut off, or one outside the folder
        raise UsageError(
            f"Expected the network's data beside {printable(path)}; received: {first_line(error).rstrip('.')}. "
            "Copy or download all files of it again."
        ) from error


def _require_bytes(paths: Iterable[Path], told: str) -> None:
    total = sum(path.stat().st_size for path in paths)
    if total > _MOST_BYTES:
        raise UsageError(
            f"Expected a network of at most 2 GiB; {told} has {total / 2**30:.1f} GiB. Export it in float16."
        )


def _only_input(graph: Any, told: str) -> tuple[str, int, list[int | None]]:
    """Return (name, element type, sides) of the photo's tensor."""
    constants = {tensor.name for tensor in graph.initializer}  # older files list them as inputs, too
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UsageError(
            f"Expected a network with one input, the photo; {told} has {len(inputs)}: {names}. What needs a trimap, "
            "a prompt or the frame before cannot be served from a photo alone."
        )
    (value,) = inputs
    kind, dims = value.type.tensor_type.elem_type, dims_of(value)
    if kind not in _INPUT_TYPES:
        received = helper.tensor_dtype_to_string(kind) if kind else "no tensor"
        raise UsageError(f"Expected an input of {', '.join(_INPUT_TYPES.values())}; {told} takes {received}.")
    if len(dims) != 4:
        raise UsageError(
            f"Expected an input (N, 3, H, W) or (N, H, W, 3); {told} takes {shape_told(dims)}. Export it with a batch."
        )
    return value.name, kind, dims


def _layout_of(dims: Sequence[int | None], given: str | None, told: str) -> str:
    if given is not None and given not in LAYOUTS:
        raise UsageError(f"Expected a layout out of {', '.join(LAYOUTS)}; received {given!r}.")
    channels = {"NCHW": dims[1], "NHWC": dims[3]}
    possible = [layout for layout in LAYOUTS if channels[layout] in (3, None)]
    sure = [layout for layout in LAYOUTS if channels[layout] == 3]
    if given in possible:
        return given
    if given or not possible:
        raise UsageError(
            f"Expected 3 channels, RGB{f', as {given} has them' if given else ''}; {told} takes {shape_told(dims)}."
        )
    if len(sure) == 1 or len(possible) == 1:
        return (sure or possible)[0]
    raise UsageError(
        f"Expected --layout NCHW or NHWC: {told} takes {shape_told(dims)}, which does not tell where its channels are."
    )


def _side(declared: int | None, given: int | None, dims: Sequence[int | None], told: str) -> int:
    if declared is None and given is None:
        raise UsageError(
            f"Expected --size HxW, the size that the network was trained at: {told} takes {shape_told(dims)}, any size."
        )
    if declared is not None and given not in (None, declared):
        raise UsageError(
            f"Expected the size that {told} was exported for; it takes {shape_told(dims)}, and --size asks for another "
            "one. Leave --size out, or export the network anew."
        )
    return declared or given or 0


def shape_told(dims: Sequence[int | None]) -> str:
    """Return sides as users read them: (?, 3, 320, 320)."""
    return f"({', '.join('?' if side is None else str(side) for side in dims)})"
