"""Official PyTorch weights into Keras models, by a naming rule, strictly.

A layer's name is its PyTorch parameters' prefix, so a Keras variable `PREFIX/gamma` is the tensor `PREFIX.weight`.
Layouts follow PyTorch: convolutions OIHW, dense (out, in).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from keras_matting.architectures import ARCHITECTURES
from keras_matting.arrays import Float32
from keras_matting.errors import UsageError, WeightsError, first_line

if TYPE_CHECKING:
    import keras

_Array: TypeAlias = npt.NDArray[np.generic]
# Keras variable -> PyTorch parameter, and how to turn PyTorch's layout into Keras's
_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_COUNTER = "num_batches_tracked"  # of a batch norm: how many steps it was trained, which evaluation does not need
_LISTED = 5


def load_state_dict(model: keras.Model, state_dict: Mapping[str, npt.ArrayLike]) -> None:
    """Set every variable of `model` from `state_dict`, a mapping of PyTorch names to arrays in PyTorch's layouts.

    `module.` prefixes (DataParallel) are accepted, and the architecture's `checkpoint_aliases`, where the later entry
    wins, as in PyTorch. Every tensor must be finite and used, and every variable set; else `WeightsError` lists what is
    missing, left over or of another shape, and the model is unchanged.
    """
    architecture = ARCHITECTURES.get(model.name)
    tensors = _checked_tensors(state_dict, architecture.checkpoint_aliases if architecture else {})
    variables = {pytorch_name(variable): variable for variable in model.weights}
    counters = {name.removesuffix("running_mean") + _COUNTER for name in variables if name.endswith("running_mean")}
    left_over = [name for name in tensors if name not in variables and name not in counters]
    missing = [name for name in variables if name not in tensors]
    values, misshapen = [], []
    for name, variable in variables.items():
        if name in tensors:
            value = _to_keras_layout(tensors[name], variable)
            values.append((variable, value))
            if value.shape != tuple(variable.shape):
                misshapen.append(f"{name} {tensors[name].shape} (into {tuple(variable.shape)})")
    if left_over or missing or misshapen:
        raise WeightsError(
            f"The checkpoint is not one of {model.name}: missing {_some(missing)}; left over {_some(left_over)}; "
            f"of another shape {_some(misshapen)}. Choose the model that the file was saved from."
        )
    for variable, value in values:
        variable.assign(value)


def state_dict(model: keras.Model) -> dict[str, npt.NDArray[np.float32]]:
    """Return {PyTorch name: float32 array in PyTorch's layout} of every variable of `model`.

    Dense layers that are 1x1 convolutions here come as such: (out, in, 1, 1).
    """
    import keras

    depthwise = {layer.kernel.path for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)}
    arrays = {}
    for variable in model.weights:
        array = keras.ops.convert_to_numpy(variable)
        if array.ndim == 4:
            array = array.transpose(2, 3, 0, 1) if variable.path in depthwise else array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        arrays[pytorch_name(variable)] = np.ascontiguousarray(array, np.float32)
    return arrays


def pytorch_name(variable: keras.Variable) -> str:
    """Return the PyTorch parameter's name of a Keras variable: "stage1.x/gamma" is "stage1.x.weight"."""
    from keras_matting.weights.names import pytorch_prefix

    *prefix, kind = pytorch_prefix(variable.path).split("/")
    return ".".join([*prefix, _VARIABLES[kind]])


def _checked_tensors(state_dict: Mapping[str, npt.ArrayLike], aliases: Mapping[str, str]) -> dict[str, _Array]:
    """Return {name without prefixes: array}; raises `WeightsError` on what no checkpoint of ours contains."""
    tensors: dict[str, _Array] = {}
    sources: dict[str, str] = {}
    for name, array in state_dict.items():
        array = np.asarray(array)
        if not isinstance(name, str) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise WeightsError(f"Expected finite numbers under a name; received {array.dtype} as {name!r}.")
        canonical, bare = _canonical(name, aliases), name.removeprefix("module.")
        if sources.get(canonical) == bare:
            raise WeightsError(f"Expected each tensor once; received {bare} with and without the prefix module.")
        tensors[canonical], sources[canonical] = array, bare
    return tensors


def _canonical(name: str, aliases: Mapping[str, str]) -> str:
    name = name.removeprefix("module.")
    for alias, target in aliases.items():
        if name.startswith(alias):
            return target + name.removeprefix(alias)
    return name


def _to_keras_layout(array: _Array, variable: keras.Variable) -> _Array:
    if array.ndim == 2:  # a dense layer, which may be a 1x1 convolution here
        return array.T.reshape((1,) * max(0, len(variable.shape) - 2) + array.shape[::-1])
    if array.ndim == 4 and len(variable.shape) == 4:
        hwio = array.transpose(2, 3, 1, 0)
        # PyTorch stores a depthwise kernel as (C, 1, H, W), Keras as (H, W, C, 1).
        depthwise = array.shape[1] == 1 and variable.shape[3] == 1 and variable.shape[2] == array.shape[0]
        return hwio.swapaxes(2, 3) if depthwise else hwio
    return array


def read_state_dict(path: Path) -> dict[str, Float32]:
    """Return the state dict of a PyTorch file as {name: float32 array}, read with `weights_only=True`.

    Raises `UsageError` without PyTorch, `WeightsError` on what is no dictionary of tensors.
    """
    try:
        import torch
    except ImportError:
        raise UsageError(
            f"Reading {path.name} needs PyTorch: pip install 'keras-matting[torch]', or import the .onnx file."
        ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"Expected a PyTorch state dict; {path.name} cannot be read as one "
            f"({first_line(error)}). Download it again, or save the model's state_dict()."
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(torch.is_tensor(value) for value in content.values()):
        raise WeightsError(f"Expected a dictionary of tensors in {path.name}; save the model's state_dict().")
    return {name: tensor.detach().to(torch.float32).numpy() for name, tensor in content.items()}


def _some(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    listed = ", ".join(names[:_LISTED])
    return listed if len(names) <= _LISTED else f"{listed} and {len(names) - _LISTED} more"
