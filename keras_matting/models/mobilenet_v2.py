"""The MobileNetV2 encoder of MODNet (official: `src/models/backbones/mobilenetv2.py`, `wrapper.py`).

`keras.applications.MobileNetV2` cannot stand in: it pads stride-2 convolutions on one side only and uses another
batch-norm epsilon, so that equal weights give other features.
"""

from typing import Any, NamedTuple

from keras import layers

from keras_matting.models.layers import Tensor, batch_norm, conv


class Stage(NamedTuple):
    """Inverted residual blocks of one width; only the first has the stride."""

    expansion: int
    channels: int
    repeats: int
    stride: int


# Table 2 of https://arxiv.org/abs/1801.04381
STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


def mobilenet_v2_features(image: Tensor, name: str) -> list[Tensor]:
    """Return the features of `image` (N, H, W, 3) at 1/2, 1/4, 1/8, 1/16 and 1/32 of its size.

    Channels: 16, 24, 32, 96, 1280. `name` is the parameters' prefix, "backbone.model" in MODNet.
    """
    x = _conv_bn(image, STEM_CHANNELS, f"{name}.features.0", ("0", "1"), kernel_size=3, stride=2)
    index, features = 1, []
    for stage in STAGES:
        if stage.stride == 2:
            features.append(x)
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            x = _inverted_residual(x, stage.expansion, stage.channels, stride, f"{name}.features.{index}.conv")
            index += 1
    x = _conv_bn(x, HEAD_CHANNELS, f"{name}.features.{index}", ("0", "1"))
    return [*features, x]


def _inverted_residual(x: Tensor, expansion: int, channels: int, stride: int, name: str) -> Tensor:
    """Expand, filter each channel by itself, project; add the input where the shapes agree."""
    inputs, position = x, 0
    if expansion != 1:
        x = _conv_bn(x, x.shape[-1] * expansion, name, ("0", "1"))
        position = 3
    x = _conv_bn(x, None, name, (position, position + 1), kernel_size=3, stride=stride, depthwise=True)
    x = _conv_bn(x, channels, name, (position + 3, position + 4), relu6=False)
    if stride == 1 and inputs.shape[-1] == channels:
        return layers.Add()([inputs, x])
    return x


def _conv_bn(
    x: Tensor,
    filters: int | None,
    name: str,
    positions: tuple[int | str, int | str],
    *,
    kernel_size: int = 1,
    relu6: bool = True,
    **kwargs: Any,
) -> Tensor:
    """Convolve without bias and normalise; `positions` are the two layers' indices in PyTorch's Sequential."""
    x = conv(x, filters, kernel_size, f"{name}.{positions[0]}", use_bias=False, **kwargs)
    x = batch_norm(f"{name}.{positions[1]}")(x)
    return layers.ReLU(max_value=6.0)(x) if relu6 else x
