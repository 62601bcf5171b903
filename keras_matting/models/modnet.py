"""MODNet: semantic, detail and fusion branches over MobileNetV2 (official: `src/models/modnet.py`).

Paper: Ke et al., "MODNet: Real-Time Trimap-Free Portrait Matting via Objective Decomposition", AAAI 2022.
"""

from functools import partial

import keras
from keras import layers

from keras_matting.architectures import Size
from keras_matting.models.layers import IBNorm, ResizeLike, Tensor, conv, probability, pytorch_default
from keras_matting.models.mobilenet_v2 import mobilenet_v2_features
from keras_matting.weights.names import layer_name

DETAIL_CHANNELS = 32  # `hr_channels` in the official code
SE_REDUCTION = 4


def modnet(input_size: Size) -> keras.Model:
    """Build MODNet for `input_size` (height, width), or (None, None) for any multiple of 32.

    Input: float32 (N, H, W, 3), RGB scaled to [-1, 1]. Outputs in [0, 1]: "matte" and "detail" (N, H, W, 1),
    "semantic" (N, H/16, W/16, 1). "semantic" and "detail" serve training only.
    """
    image = keras.Input((*input_size, 3), name="image")
    enc2x, enc4x, enc8x, enc16x, enc32x = mobilenet_v2_features(image, "backbone.model")
    semantic, lr8x = _semantic_branch(enc8x, enc16x, enc32x)
    detail, hr2x = _detail_branch(image, enc2x, enc4x, lr8x)
    matte = _fusion_branch(image, enc2x, enc4x, lr8x, hr2x)
    return keras.Model(image, {"matte": matte, "semantic": semantic, "detail": detail}, name="modnet")


def _semantic_branch(enc8x: Tensor, enc16x: Tensor, enc32x: Tensor) -> tuple[Tensor, Tensor]:
    """Decode where the subject is, at low resolution."""
    name = "lr_branch"
    x = _squeeze_excite(enc32x, f"{name}.se_block")
    lr16x = _conv_ibn_relu(ResizeLike()([x, enc16x]), enc16x.shape[-1], 5, f"{name}.conv_lr16x")
    lr8x = _conv_ibn_relu(ResizeLike()([lr16x, enc8x]), enc8x.shape[-1], 5, f"{name}.conv_lr8x")
    semantic = conv(lr8x, 1, 3, f"{name}.conv_lr.layers.0", stride=2)
    return probability(semantic), lr8x


def _detail_branch(image: Tensor, enc2x: Tensor, enc4x: Tensor, lr8x: Tensor) -> tuple[Tensor, Tensor]:
    """Decode the boundary at high resolution, guided by the semantic features."""
    name, channels = "hr_branch", DETAIL_CHANNELS
    image2x, image4x = ResizeLike()([image, enc2x]), ResizeLike()([image, enc4x])

    enc2x = _conv_ibn_relu(enc2x, channels, 1, f"{name}.tohr_enc2x")
    hr4x = _conv_ibn_relu(_concat(image2x, enc2x), channels, 3, f"{name}.conv_enc2x", stride=2)
    enc4x = _conv_ibn_relu(enc4x, channels, 1, f"{name}.tohr_enc4x")
    hr4x = _conv_ibn_relu(_concat(hr4x, enc4x), 2 * channels, 3, f"{name}.conv_enc4x")

    x = _concat(hr4x, ResizeLike()([lr8x, enc4x]), image4x)
    for index, filters in enumerate((2 * channels, 2 * channels, channels)):
        x = _conv_ibn_relu(x, filters, 3, f"{name}.conv_hr4x.{index}")

    x = _concat(ResizeLike()([x, enc2x]), enc2x)
    for index, filters in enumerate((2 * channels, channels, channels, channels)):
        x = _conv_ibn_relu(x, filters, 3, f"{name}.conv_hr2x.{index}")
    hr2x = x

    x = _concat(ResizeLike()([hr2x, image]), image)
    x = _conv_ibn_relu(x, channels, 3, f"{name}.conv_hr.0")
    detail = conv(x, 1, 1, f"{name}.conv_hr.1.layers.0")
    return probability(detail), hr2x


def _fusion_branch(image: Tensor, enc2x: Tensor, enc4x: Tensor, lr8x: Tensor, hr2x: Tensor) -> Tensor:
    """Merge semantics and detail into the matte."""
    name, channels = "f_branch", DETAIL_CHANNELS
    lr4x = _conv_ibn_relu(ResizeLike()([lr8x, enc4x]), channels, 5, f"{name}.conv_lr4x")
    x = _concat(ResizeLike()([lr4x, enc2x]), hr2x)
    x = _conv_ibn_relu(x, channels, 3, f"{name}.conv_f2x")
    x = _concat(ResizeLike()([x, image]), image)
    x = _conv_ibn_relu(x, channels // 2, 3, f"{name}.conv_f.0")
    matte = conv(x, 1, 1, f"{name}.conv_f.1.layers.0")
    return probability(matte)


def _squeeze_excite(x: Tensor, name: str) -> Tensor:
    """Weigh the channels by their global means (https://arxiv.org/abs/1709.01507).

    The dense layers are 1x1 convolutions: equal, and no engine has to transpose between layouts for them.
    """
    channels = x.shape[-1]
    linear = partial(conv, kernel_size=1, use_bias=False, initializer=pytorch_default())
    weights = layers.GlobalAveragePooling2D(keepdims=True)(x)
    weights = layers.ReLU()(linear(weights, channels // SE_REDUCTION, name=f"{name}.fc.0"))
    weights = layers.Activation("sigmoid")(linear(weights, channels, name=f"{name}.fc.2"))
    return layers.Multiply()([x, weights])


def _conv_ibn_relu(x: Tensor, filters: int, kernel_size: int, name: str, stride: int = 1) -> Tensor:
    x = conv(x, filters, kernel_size, f"{name}.layers.0", stride=stride)
    return layers.ReLU()(IBNorm(name=layer_name(f"{name}.layers.1"))(x))


def _concat(*tensors: Tensor) -> Tensor:
    return layers.Concatenate()(tensors)
