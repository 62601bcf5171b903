"""U2Net and its small sibling U2NetP: nested U-shapes with deep supervision (official: `model/u2net.py`).

Paper: Qin et al., "U2-Net: Going deeper with nested U-structure for salient object detection", 2020.
"""

from collections.abc import Mapping
from typing import NamedTuple

import keras
from keras import layers

from keras_matting.architectures import Size
from keras_matting.models.layers import ResizeLike, Tensor, batch_norm, conv, probability, pytorch_default


class Block(NamedTuple):
    """One residual U-block (RSU): its height, its inner and outer channels, and whether it dilates, not pools."""

    height: int
    inner: int
    outer: int
    dilated: bool = False


SIDE_OUTPUTS = 6

U2NET = {
    "stage1": Block(7, 32, 64),
    "stage2": Block(6, 32, 128),
    "stage3": Block(5, 64, 256),
    "stage4": Block(4, 128, 512),
    "stage5": Block(4, 256, 512, dilated=True),
    "stage6": Block(4, 256, 512, dilated=True),
    "stage5d": Block(4, 256, 512, dilated=True),
    "stage4d": Block(4, 128, 256),
    "stage3d": Block(5, 64, 128),
    "stage2d": Block(6, 32, 64),
    "stage1d": Block(7, 16, 64),
}

U2NETP = {name: block._replace(inner=16, outer=64) for name, block in U2NET.items()}


def u2net(input_size: Size) -> keras.Model:
    """Build U2Net; see `_build`."""
    return _build("u2net", U2NET, input_size)


def u2netp(input_size: Size) -> keras.Model:
    """Build U2NetP, the 4.5 MB version; see `_build`."""
    return _build("u2netp", U2NETP, input_size)


def _build(name: str, blocks: Mapping[str, Block], input_size: Size) -> keras.Model:
    """Build the model for `input_size` (height, width), or (None, None) for any size.

    Input: float32 (N, H, W, 3), RGB normalised by ImageNet's mean and deviation. Outputs, all (N, H, W, 1) in
    [0, 1]: "matte" (the fused map, d0 in the official code) and "side1" to "side6" (d1 to d6), from fine to coarse.
    """
    image = keras.Input((*input_size, 3), name="image")
    encoded, x = [], image
    for stage in range(1, SIDE_OUTPUTS + 1):
        x = _rsu(x if stage == 1 else _pool(x), blocks[f"stage{stage}"], f"stage{stage}")
        encoded.append(x)

    decoded = [encoded.pop()]
    while encoded:
        skip, prefix = encoded.pop(), f"stage{len(encoded) + 1}d"
        x = layers.Concatenate()([ResizeLike()([decoded[0], skip]), skip])
        decoded.insert(0, _rsu(x, blocks[prefix], prefix))

    sides: list[Tensor] = []
    for index, features in enumerate(decoded, start=1):
        side = _conv(features, 1, 3, f"side{index}")
        sides.append(side if index == 1 else ResizeLike()([side, sides[0]]))
    matte = _conv(layers.Concatenate()(sides), 1, 1, "outconv")

    maps = {"matte": matte, **{f"side{index}": side for index, side in enumerate(sides, start=1)}}
    outputs = {key: probability(x) for key, x in maps.items()}
    return keras.Model(image, outputs, name=name)


def _rsu(x: Tensor, block: Block, name: str) -> Tensor:
    """A small U-Net whose output is added to its first convolution's: (N, H, W, any) to (N, H, W, outer)."""

    def conv_bn_relu(x: Tensor, part: int | str, filters: int, dilation: int = 1) -> Tensor:
        prefix = f"{name}.rebnconv{part}"
        x = _conv(x, filters, 3, f"{prefix}.conv_s1", dilation)
        return layers.ReLU()(batch_norm(f"{prefix}.bn_s1")(x))

    def dilation_at(level: int) -> int:
        return 2 ** (level - 1) if block.dilated else 1

    residual = x = conv_bn_relu(x, "in", block.outer)
    skips = []
    for level in range(1, block.height):
        if level > 1 and not block.dilated:
            x = _pool(x)
        x = conv_bn_relu(x, level, block.inner, dilation_at(level))
        skips.append(x)

    x = conv_bn_relu(x, block.height, block.inner, dilation_at(block.height) if block.dilated else 2)
    for level in range(block.height - 1, 0, -1):
        skip = skips.pop()
        if level < block.height - 1 and not block.dilated:
            x = ResizeLike()([x, skip])
        filters = block.inner if level > 1 else block.outer
        x = conv_bn_relu(layers.Concatenate()([x, skip]), f"{level}d", filters, dilation_at(level))
    return layers.Add()([x, residual])


def _conv(x: Tensor, filters: int, kernel_size: int, name: str, dilation: int = 1) -> Tensor:
    return conv(x, filters, kernel_size, name, dilation=dilation, initializer=pytorch_default())


def _pool(x: Tensor) -> Tensor:
    # PyTorch's ceil_mode on 2x2 windows: an odd last row or column is a window by itself.
    return layers.MaxPooling2D(2, padding="same")(x)
