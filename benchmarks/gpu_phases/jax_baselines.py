"""Keras on JAX, compiled by XLA, on the same models, weights and inputs; see `variants.measure_variants`.

It needs Keras and h5py, which a machine without a network is carried (gpu.md). JAX hands out no streams, so times are
the host's.
"""

import numpy as np

from gpu_phases.prepare import error_from_float32
from gpu_phases.timing import WALL, wall_ms
from keras_matting.architectures import ARCHITECTURES
from keras_matting.model_folder import KERAS_FILE, Preset

PHASE, NAME = "jax", "Keras on JAX"
VARIANTS = {
    "jax-strict": {"precision": "f32", "matmul": "float32"},
    "jax-tf32": {"precision": "tf32", "matmul": "tensorfloat32"},
    "jax-half": {"precision": "fp16", "policy": "mixed_float16"},
}


def has(model_dir):
    """Tell whether the model's weights are here."""
    return (model_dir / KERAS_FILE).is_file()


class Variant:
    """One model in one precision, compiled; the weights are arguments, so that XLA does not fold them."""

    def __init__(self, model_dir, device, precision, matmul=None, policy="float32"):
        import jax

        if jax.default_backend() != {"cuda": "gpu"}.get(device, device):
            raise RuntimeError(f"JAX computes on {jax.default_backend()} here")
        self.jax, self._matmul = jax, matmul
        model = _model(model_dir, policy)
        weights = [[v.value for v in some] for some in (model.trainable_variables, model.non_trainable_variables)]
        call = jax.jit(lambda weights, image: model.stateless_call(*weights, image, training=False)[0])
        self._call = lambda image: call(weights, image)

    def __call__(self, image):
        with self.jax.default_matmul_precision(self._matmul):
            return self._call(image)

    def error(self, prepared):
        """See `prepare.error_from_float32`."""
        mattes = [np.asarray(self(image[None]), np.float32) for image in prepared["images"]]
        return error_from_float32(np.concatenate(mattes), prepared)

    def runner(self, batch):
        """See `timing.runner`."""
        return _Runner(self, batch)


def _model(model_dir, policy):
    """Return the model whose layers compute as the dtype `policy` says, but for those of ours that stay in float32."""
    import keras

    from keras_matting.models.folder import load_model, served_model
    from keras_matting.models.layers import clone_with

    def in_policy(layer):
        if isinstance(layer, keras.layers.InputLayer):
            return None
        return layer.__class__.from_config(layer.get_config() | {"dtype": policy})

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = served_model(load_model(model_dir))
        # What Keras loads as it was saved has the policies that it was saved with.
        return model if Preset.load(model_dir).architecture in ARCHITECTURES else clone_with(model, in_policy)
    finally:
        keras.config.set_dtype_policy(before)


class _Runner:
    clock = WALL

    def __init__(self, variant, batch):
        self._variant, self._batch = variant, batch
        self._image = variant.jax.device_put(batch)
        variant(self._image).block_until_ready()  # compiled for this batch

    def host_ms(self, calls):
        return wall_ms(lambda: np.asarray(self._variant(self._batch)), calls)

    def device_ms(self, calls):
        return wall_ms(lambda: self._variant(self._image).block_until_ready(), calls)

    def graph_ms(self, calls):
        return None
