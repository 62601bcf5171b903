"""The matting models, by name."""

from collections.abc import Sequence

import keras

from keras_matting import architectures
from keras_matting.architectures import Size
from keras_matting.errors import UsageError
from keras_matting.models import layers as layers  # which `keras.models.load_model` finds once they are imported


def build_model(name: str, input_size: int | Sequence[int] | None = None) -> keras.Model:
    """Build a model by name, with fresh weights.

    `name` is one of `architectures.ARCHITECTURES`. `input_size` is a side in pixels, a pair (height, width), or None
    for any size (a multiple of 32 for MODNet). The outputs are a dict: every model has "matte", float32 (N, H, W, 1) in
    [0, 1]; see the builders for the others. Raises `UsageError` on an unknown name or a size that does not fit.
    """
    return architectures.find(name).build(checked_size(name, input_size))


def inference_model(model: keras.Model) -> keras.Model:
    """Return the part of `model` that computes its matte: same weights, one output (N, H, W, 1)."""
    return keras.Model(model.input, model.output["matte"], name=f"{model.name}_inference")


def checked_size(name: str, size: int | Sequence[int] | None) -> Size:
    """Return the (height, width) that `build_model` takes for `size`; raises `UsageError` as it does."""
    multiple = architectures.find(name).size_multiple
    if size is None:
        return (None, None)
    size = (size, size) if isinstance(size, int) else tuple(size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UsageError(f"Expected input_size as a positive number or (height, width); received {size}.")
    if any(side % multiple for side in size):
        nearest = "x".join(str(max(multiple, round(side / multiple) * multiple)) for side in size)
        raise UsageError(f"Height and width of {name} must be multiples of {multiple}; received {size}. Use {nearest}.")
    return size[0], size[1]
