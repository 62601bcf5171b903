"""A model in operations that TF-TRT takes whole: exact resizes, dilated convolutions as one operation each."""

import keras

from keras_matting.models.layers import Tensor, clone_with, exact_resize


class DilatedConv2D(keras.layers.Conv2D):
    """`Conv2D` that leaves dilation to the operation, where Keras rearranges the image around a dense convolution.

    TensorRT has dilated convolutions; it has no SpaceToBatchND, which would cut U2NetP into dozens of pieces.
    """

    def call(self, inputs: Tensor) -> Tensor:
        """Convolve (N, H, W, C)."""
        import tensorflow as tf

        padding, dilations = self.padding.upper(), list(self.dilation_rate)
        outputs = tf.nn.conv2d(inputs, self.kernel, list(self.strides), padding, dilations=dilations)
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)
        return self.activation(outputs)


def tftrt_form(model: keras.Model) -> keras.Model:
    """Return a copy of `model`, equal up to rounding, that TF-TRT converts to a single engine."""
    return clone_with(model, lambda layer: exact_resize(layer) or _dilated(layer))


def _dilated(layer: keras.Layer) -> DilatedConv2D | None:
    if type(layer) is keras.layers.Conv2D and max(layer.dilation_rate) > 1 and layer.groups == 1:
        return DilatedConv2D.from_config(layer.get_config())
    return None
