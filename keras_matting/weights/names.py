"""Layers are called what their PyTorch parameters are called, dots included, but where Keras runs on PyTorch.

There Keras registers variables as PyTorch parameters under their paths, in which PyTorch allows no dots.
"""

import keras

_DOT = "-"  # which no name has


def layer_name(prefix: str) -> str:
    """Return the name of the layer with the PyTorch parameters `prefix`."""
    return prefix.replace(".", _DOT) if _is_on_pytorch() else prefix


def pytorch_prefix(name: str) -> str:
    """Return what `layer_name` was given, of a layer's name or a variable's path."""
    return name.replace(_DOT, ".") if _is_on_pytorch() else name


def _is_on_pytorch() -> bool:
    return keras.backend.backend() == "torch"
