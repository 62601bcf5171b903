"""What a network gives: seen by running it on a photo, and from the operators that it ends in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from keras_matting.arrays import Float32
from keras_matting.errors import UsageError, first_line
from keras_matting.foreign_onnx.reading import Network, shape_told
from keras_matting.foreign_onnx.wrapping import Output

OUTPUT_RULES = ("none", "sigmoid", "softmax", "minmax")
_SLACK = 1e-3  # beyond 0 and 1, of rounding
# What changes the values' places, or how they are stored, and not their range
_KEEPS_RANGE = ("Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split")
_DTYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.UINT8: np.uint8}
_LOOKS_LIKE = 0.02  # by which a map's sides may differ from the photo's proportion


def run(session: Any, network: Network, name: str, images: Float32) -> npt.NDArray[Any]:
    """Return the output `name` of the network as its file is, for normalised images (N, H, W, 3).

    Raises `UsageError` where the network cannot take them: a size that it is not made for, say.
    """
    array = images.transpose(0, 3, 1, 2) if network.layout == "NCHW" else images
    if network.dtype == TensorProto.UINT8:
        array = np.clip(np.rint(array), 0, 255)
    try:
        return session.run([name], {network.input_name: np.ascontiguousarray(array, _DTYPES[network.dtype])})[0]
    except Exception as error:  # of many kinds
        height, width = network.size
        raise UsageError(
            f"Expected {network.where} to take a photo of {height}x{width}; received: "
            f"{first_line(error)[:120]}. Pass another --size: many networks take multiples of 32 only."
        ) from error


def output_name(network: Network, given: str | None) -> str:
    """Return the name of the output that is the matte: the given one, or the only one."""
    names = [value.name for value in network.model.graph.output]
    if given is not None and given in names:
        return given
    if given is None and len(names) == 1:
        return names[0]
    received = f"received {given!r}" if given else f"{network.where} has {len(names)}, and does not tell which it is"
    raise UsageError(f"Expected --output-name, the one that is the matte, out of {', '.join(names)}; {received}.")


def judge(
    network: Network, name: str, raw: npt.NDArray[Any], rule: str | None = None, channel: int | None = None
) -> Output:
    """Return the `Output` that `raw`, what the network gives under `name` for one photo, is.

    `rule`: one of `OUTPUT_RULES`, None to read it from the file; `channel`: of the subject, among several. Raises
    `UsageError` where it is no map, where the file does not tell, or where the rule cannot be right.
    """
    if rule is not None and rule not in OUTPUT_RULES:
        raise UsageError(f"Expected an output rule out of {', '.join(OUTPUT_RULES)}; received {rule!r}.")
    layout, size, channels = _map_of(raw.shape, network)
    channel = _channel(channels, channel, network)
    if not np.isfinite(raw).all():
        raise UsageError(f"Expected numbers; {network.where} gives NaN or infinity on a photo. Check --mean and --std.")
    dtype = helper.np_dtype_to_tensor_dtype(raw.dtype)
    ends = _end_of(network.model.graph, name)
    rule = rule or _rule_of(ends, network, raw)
    activation = rule if rule in ("sigmoid", "softmax") else "none"
    if activation != "none" and ends in ("Sigmoid", "Softmax"):
        raise UsageError(f"Expected --output {activation} for logits; {network.where} ends in {ends}. Leave it out.")
    if activation == "softmax" and channel is None:
        raise UsageError(f"Expected several channels for --output softmax; {network.where} gives one. Use sigmoid.")
    output = Output(name, dtype, layout, size, activation, channel)
    if rule == "none":
        _require_matte(output, network, raw)
    return output


def matte_of(output: Output, raw: npt.NDArray[Any], size: tuple[int, int]) -> Float32:
    """Return what `wrap` is to make of raw outputs, computed without it: float32 (N, H, W, 1), before min-max."""
    array = raw.astype(np.float32)
    if output.layout == "NCHW":
        array = array.transpose(0, 2, 3, 1)
    elif not output.layout:
        array = array.reshape(-1, *output.size, 1)
    if output.activation == "softmax":
        array = np.exp(array - array.max(axis=-1, keepdims=True))
        array /= array.sum(axis=-1, keepdims=True)
    if output.channel is not None:
        array = array[..., [output.channel]]
    if output.activation == "sigmoid":
        array = (1 / (1 + np.exp(-array.astype(np.float64)))).astype(np.float32)
    if output.size == size:
        return array
    resized = [cv2.resize(one[..., 0], size[::-1], interpolation=cv2.INTER_LINEAR) for one in array]
    return np.stack(resized)[..., None]


def _map_of(shape: Sequence[int], network: Network) -> tuple[str, tuple[int, int], int]:
    """Return (layout, size, number of channels) of an output for one photo: that of the photo's proportion."""
    candidates: list[tuple[str, tuple[int, int], int]] = []
    if len(shape) == 4:
        first, last = ("NCHW", (shape[2], shape[3]), shape[1]), ("NHWC", (shape[1], shape[2]), shape[3])
        candidates = [first, last] if network.layout == "NCHW" else [last, first]
    elif len(shape) in (2, 3) and (len(shape) == 2 or shape[0] == 1):
        candidates = [("", (shape[-2], shape[-1]), 1)]
    height, width = network.size
    for layout, (high, wide), channels in candidates:
        if min(high, wide) > 1 and abs(high * width / (wide * height) - 1) <= _LOOKS_LIKE:
            return layout, (high, wide), channels
    raise UsageError(
        f"Expected a network that gives a map of the photo; {network.where} gives {shape_told(shape)} for one of "
        f"{height}x{width}. Choose another output with --output-name, or another network."
    )


def _channel(channels: int, given: int | None, network: Network) -> int | None:
    if given is not None and not 0 <= given < channels:
        raise UsageError(f"Expected --channel from 0 to {channels - 1}; received {given}.")
    if channels == 1:
        return None
    if given is None and channels > 2:
        raise UsageError(
            f"Expected --channel, the one that is the subject: {network.where} gives {channels}, counted from 0."
        )
    return 1 if given is None else given  # of background and subject


def _end_of(graph: Any, name: str) -> str:
    """Return the operator that decides the range of an output; "Clip" only where it clips to 0 and 1."""
    makers = {output: node for node in graph.node for output in node.output}
    while (node := makers.get(name)) is not None and node.op_type in _KEEPS_RANGE:
        name = node.input[0]
    if node is None:
        return "an input"
    return "" if node.op_type == "Clip" and _bounds(graph, node) != (0, 1) else node.op_type


def _bounds(graph: Any, node: Any) -> tuple[float, ...]:
    """Return (least, most) of a Clip, as far as they are constants."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {one.output[0]: one.attribute[0].t for one in graph.node if one.op_type == "Constant"}
    found = [constants[name] for name in node.input[1:] if name in constants]
    return tuple(float(numpy_helper.to_array(tensor).reshape(-1)[0]) for tensor in found)


def _rule_of(ends: str, network: Network, raw: npt.NDArray[Any]) -> str:
    if ends in ("Sigmoid", "HardSigmoid", "Softmax", "Clip"):
        return "none"
    raise UsageError(
        f"Expected --output {', '.join(OUTPUT_RULES[:-1])} or {OUTPUT_RULES[-1]}: {network.where} ends in "
        f"{ends or 'Clip'}, which does not tell what its values mean; on a sample photo they are from {raw.min():.3g} "
        f"to {raw.max():.3g}."
    )


def _require_matte(output: Output, network: Network, raw: npt.NDArray[Any]) -> None:
    matte = matte_of(output, raw, output.size)
    low, high = float(matte.min()), float(matte.max())
    if low < -_SLACK or high > 1 + _SLACK:
        raise UsageError(
            f"Expected values from 0 to 1 without an output rule; {network.where} gives {low:.3g} to {high:.3g} on a "
            "sample photo. Pass --output sigmoid, softmax or minmax."
        )
