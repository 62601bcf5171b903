"""Building blocks shared by the models, with PyTorch's arithmetic on channels-last tensors.

Convolutions are named after the PyTorch parameters' prefix, because `weights.py` finds a variable's official
tensor by its name.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops

from keras_matting.arrays import Float64
from keras_matting.weights.names import layer_name

Tensor: TypeAlias = keras.KerasTensor  # or the backend's own, when a model runs
Shape: TypeAlias = tuple[Any, ...]  # None where a size is open

# PyTorch's defaults; Keras has 1e-3 and 0.99, and counts momentum the other way round (PyTorch: 0.1).
BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9
_LARGEST_WINDOW_FACTOR = 4


@keras.saving.register_keras_serializable("keras_matting")
class ResizeLike(layers.Layer):
    """Resize `x` to the height and width of `reference`, bilinear with half-pixel centres.

    Equals PyTorch's `interpolate(mode="bilinear", align_corners=False)` (no anti-aliasing).
    Call with `[x, reference]`, shapes (N, h, w, C) and (N, H, W, any); returns (N, H, W, C).
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        """Resize the first input to the size of the second."""
        x, reference = inputs
        static = tuple(x.shape[1:3])
        if None not in static and static == tuple(reference.shape[1:3]):
            return x
        # Keras would clip what it rounds to half precision, which costs more than the resize; TensorFlow computes in
        # float32 anyway.
        full = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        return ops.cast(ops.image.resize(full, ops.shape(reference)[1:3], interpolation="bilinear"), x.dtype)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        """Return the output's shape."""
        x, reference = input_shape
        return (x[0], *reference[1:3], x[3])


@keras.saving.register_keras_serializable("keras_matting")
class ExactResizeLike(ResizeLike):
    """The same resize out of operations that every converter takes (TF-TRT refuses half-pixel bilinear resizes).

    Equal to `ResizeLike` up to rounding, for static sizes: enlarging by even factors, or halving or quartering both
    sides. Raises `ValueError` for another factor.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        """Resize the first input to the size of the second."""
        x, reference = inputs
        before, after = np.array(x.shape[1:3]), np.array(reference.shape[1:3])
        if (before == after).all():
            return x
        factors, divisors = after // before, before // after
        if (after == before * factors).all() and ((factors == 1) | (factors % 2 == 0)).all():
            return _enlarged(x, factors)
        if (before == after * divisors).all() and divisors[0] == divisors[1] and divisors[0] in (2, 4):
            return _shrunk(x, int(divisors[0]))
        raise ValueError(
            f"Exact resizing takes even factors, or 1/2 or 1/4 of both sides; received {before} to {after}."
        )


def _enlarged(x: Tensor, factors: npt.NDArray[np.int64]) -> Tensor:
    """Enlarge (N, H, W, C) by even `factors` of height and width (or 1): repeat each sample, then take a sliding mean.

    See `enlarge`. Where the window leaves the image, its zeros stand for copies of the edge, which all samples within
    the window equal there: what a factor for each pixel makes good.
    """
    size = tuple(int(side) for side in factors * x.shape[1:3])
    x = ops.image.resize(x, size, interpolation="nearest")
    rows, columns = (_ramp(int(factor)) for factor in factors)
    inside = (np.convolve(np.ones(size[0]), rows, "same"), np.convolve(np.ones(size[1]), columns, "same"))
    # One window of 33 x 33 would add up a thousand numbers, in which float32 loses digits.
    together = max(factors) <= _LARGEST_WINDOW_FACTOR
    for kernels in [(rows, columns)] if together else [(rows, np.ones(1)), (np.ones(1), columns)]:
        x = ops.depthwise_conv(x, _depthwise(kernels, x), strides=1, padding="same")
    return x * ops.convert_to_tensor(1 / np.outer(*inside)[None, :, :, None], x.dtype)


def _shrunk(x: Tensor, factor: int) -> Tensor:
    """Shrink (N, H, W, C) to 1/2 or 1/4: the mean of the two by two samples around each new sample's centre."""
    if factor == 2:
        return ops.average_pool(x, 2, strides=2, padding="valid")
    middle = np.array([0, 0.5, 0.5, 0])
    return ops.depthwise_conv(x, _depthwise([middle, middle], x), strides=factor, padding="valid")


def _depthwise(kernels: Sequence[Float64], x: Tensor) -> Tensor:
    """Return the depthwise kernel (h, w, C, 1) that applies one kernel along the height and one along the width."""
    kernel = np.outer(*kernels)[:, :, None, None]
    return ops.convert_to_tensor(np.broadcast_to(kernel, (*kernel.shape[:2], x.shape[-1], 1)), x.dtype)


def _ramp(factor: int) -> Float64:
    """Return [1, 2, ..., 2, 1] / (2 factor), and [1] for a factor of 1."""
    if factor == 1:
        return np.ones(1)
    kernel = np.full(factor + 1, 1 / factor)
    kernel[[0, -1]] /= 2
    return kernel


def enlarge(x: Tensor, axis: int, factor: int) -> Tensor:
    """Resize an axis by an even `factor`, bilinear with half-pixel centres, in the dtype of `x`.

    Repeats each sample `factor` times, then smooths with [1, 2, ..., 2, 1] / (2 factor), edges repeated.

    The samples of the repeated signal lie where bilinear interpolation's ramps begin and end, so their sliding mean
    is the interpolation itself.
    """
    repeated = ops.repeat(x, factor, axis=axis)
    size, half = repeated.shape[axis], factor // 2
    first, last = _slice(repeated, axis, 0, half), _slice(repeated, axis, size - half, size)
    padded = ops.concatenate([first, repeated, last], axis=axis)
    kernels = [_ramp(factor), np.ones(1)] if axis == 1 else [np.ones(1), _ramp(factor)]
    return ops.depthwise_conv(padded, _depthwise(kernels, x), strides=1, padding="valid")


def shrink(x: Tensor, factor: int) -> Tensor:
    """Resize (N, H, W, C) by 1 / `factor`, an even number that divides H and W, as `ResizeLike` does.

    In the dtype of `x`, where TensorFlow's own bilinear resize computes in float32.
    """
    for axis in (1, 2):
        x = _shrink_axis(x, axis, factor)
    return x


def _shrink_axis(x: Tensor, axis: int, factor: int) -> Tensor:
    """Average the two samples around each new sample's centre."""
    length = x.shape[axis]
    first = _slice(x, axis, factor // 2 - 1, length, factor)
    second = _slice(x, axis, factor // 2, length, factor)
    return (first + second) * 0.5


def _slice(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    index = slice(start, stop, step)
    return x[:, index] if axis == 1 else x[:, :, index]


def exact_resize(layer: keras.Layer) -> ExactResizeLike | None:
    """Return the `ExactResizeLike` for a `ResizeLike`, None for another layer."""
    return ExactResizeLike(name=layer.name) if isinstance(layer, ResizeLike) else None


def clone_with(model: keras.Model, replace: Callable[[keras.Layer], keras.Layer | None]) -> keras.Model:
    """Return a copy of `model` with its weights' values; `replace(layer)` returns another layer for one, or None."""

    def clone(layer: keras.Layer) -> keras.Layer:
        return replace(layer) or layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


@keras.saving.register_keras_serializable("keras_matting")
class IBNorm(layers.Layer):
    """Batch norm on the first half of the channels, instance norm without scale on the rest (MODNet's IBNorm).

    Shapes (N, H, W, C) to (N, H, W, C). Setting `trainable = False` freezes the batch statistics, as in Keras's
    `BatchNormalization`. The instance statistics are always computed in at least float32: 65,536 elements of
    mean 1 already exceed float16's largest number.
    """

    def build(self, input_shape: Shape) -> None:
        """Create the batch norm of the first half of the channels."""
        self.batch_channels = input_shape[-1] // 2
        self.bnorm = batch_norm("bnorm", dtype=self.dtype_policy)
        self.bnorm.build((*input_shape[:-1], self.batch_channels))
        super().build(input_shape)

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        """Normalise each half in its own way."""
        batch_part = self.bnorm(x[..., : self.batch_channels], training=training)
        return ops.concatenate([batch_part, _instance_norm(x[..., self.batch_channels :])], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the output's shape."""
        return input_shape


def _instance_norm(x: Tensor) -> Tensor:
    dtype = x.dtype
    x = ops.cast(x, keras.backend.result_type(dtype, "float32"))
    mean = ops.mean(x, axis=(1, 2), keepdims=True)
    centred = x - mean
    variance = ops.mean(ops.square(centred), axis=(1, 2), keepdims=True)
    return ops.cast(centred * ops.rsqrt(variance + BATCH_NORM_EPSILON), dtype)


@keras.saving.register_keras_serializable("keras_matting")
class BatchNormalization(layers.BatchNormalization):
    """Keras's batch normalisation of the last axis, in one kernel where TensorFlow trains in float32 or bfloat16.

    Keras composes it of some forty operations, backward pass included, casts bfloat16 to float32 for them, and keeps
    their results in memory. Here statistics and weights are float32, too, and the running variance is the biased one,
    as Keras has it. It has Keras's name, too: a `.keras` file calls its weights by the class.
    """

    _FUSED_DTYPES = ("float32", "bfloat16")

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        """Normalise (N, H, W, C)."""
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        is_fused = keras.backend.backend() == "tensorflow" and dtype in self._FUSED_DTYPES and len(inputs.shape) == 4
        if not (training and self.trainable and is_fused) or isinstance(inputs, keras.KerasTensor):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon, is_training=True
        )
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), "float32")
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance * (count - 1) / count)):
            moving.assign(moving * self.momentum + value * (1 - self.momentum))
        return outputs


def batch_norm(name: str, **kwargs: Any) -> BatchNormalization:
    """Return a batch normalisation with PyTorch's epsilon and momentum."""
    return BatchNormalization(epsilon=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, name=layer_name(name), **kwargs)


def conv(
    x: Tensor,
    filters: int | None,
    kernel_size: int,
    name: str,
    *,
    stride: int = 1,
    dilation: int = 1,
    use_bias: bool = True,
    depthwise: bool = False,
    initializer: keras.Initializer | None = None,
) -> Tensor:
    """Apply a convolution padded as PyTorch pads it: `kernel_size // 2` on every side (times the dilation).

    At stride 2, Keras's "same" would pad the bottom and right only, so the padding is written out.
    `filters` is ignored where `depthwise` is true.
    """
    padding = "same"
    if stride > 1 and kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    common = {"strides": stride, "padding": padding, "dilation_rate": dilation, "use_bias": use_bias}
    common["name"] = layer_name(name)
    initializer = initializer or he_uniform()
    if depthwise:
        return layers.DepthwiseConv2D(kernel_size, depthwise_initializer=initializer, **common)(x)
    return layers.Conv2D(filters, kernel_size, kernel_initializer=initializer, **common)(x)


def he_uniform() -> keras.Initializer:
    """Return MODNet's initializer: PyTorch's `kaiming_uniform_(a=0, mode="fan_in", nonlinearity="relu")`."""
    return keras.initializers.HeUniform()


def pytorch_default() -> keras.Initializer:
    """Return PyTorch's own initializer of a convolution: uniform in plus or minus 1 / sqrt(fan_in)."""
    return keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")


def probability(x: Tensor) -> Tensor:
    """Apply the sigmoid in at least float32, also under mixed precision: float16 would quantise the matte."""
    dtype = "float64" if keras.config.floatx() == "float64" else "float32"
    return layers.Activation("sigmoid", dtype=dtype)(x)
