"""TensorFlow on the exported SavedModel: as it is, compiled by XLA, or in bfloat16 by oneDNN."""

from keras_matting.config import SAVED_MODEL
from keras_matting.engines.artefacts import exported
from keras_matting.engines.base import cannot_open, checked_batch, missing_package
from keras_matting.engines.devices import cpu, cpu_name

_BF16_FLAGS = {"avx512f", "avx512_bf16", "amx_bf16"}  # below, oneDNN emulates bfloat16 more slowly than float32


def unavailable_reason(variant):
    """Return why TensorFlow cannot run `variant` here, or None."""
    if reason := missing_package("tensorflow", "cpu"):
        return reason
    if variant == "bf16" and not _BF16_FLAGS & set(cpu()["flags"]):
        return f"this processor computes no bfloat16: {cpu_name()}."
    return None


def build(model_dir, variant, options):
    """Check that the graph is there: TensorFlow compiles it when it is opened."""
    exported(model_dir, SAVED_MODEL, _name(variant))


def check_current(model_dir, variant):
    """Raise `EngineError` unless the graph is there and fits."""
    exported(model_dir, SAVED_MODEL, _name(variant))


def open_engine(model_dir, variant):
    """Load the SavedModel of a model folder."""
    return SavedModelEngine(exported(model_dir, SAVED_MODEL, _name(variant)), variant)


class SavedModelEngine:
    """A SavedModel's serving signature; `variant` is "plain", "xla" or "bf16"."""

    def __init__(self, path, variant):
        import tensorflow as tf

        self.name, self.path, self._variant = _name(variant), path, variant
        self._tensor = tf.constant
        if variant == "bf16":
            tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
        try:
            self._model = tf.saved_model.load(str(path))
            signature = self._model.signatures["serving_default"]
        except Exception as error:  # an IndexError where variables are cut short, and what else a file may hold
            raise cannot_open(self.name, path, error) from error
        (source,) = signature.structured_input_signature[1].values()
        self._input, self.size = source.name, tuple(source.shape[1:3])
        self._fixed_batch = source.shape[0]
        self._serve = tf.function(signature, jit_compile=True) if variant == "xla" else signature

    def predict(self, batch):
        """See `Engine.predict`."""
        batch = checked_batch(batch, self.size, self.name, self._fixed_batch)
        (matte,) = self._serve(**{self._input: self._tensor(batch)}).values()
        return matte.numpy()

    def describe(self):
        """See `Engine.describe`."""
        how = {"plain": "tf.function", "xla": "one XLA cluster", "bf16": "convolutions chosen by oneDNN"}
        return {"precision": "bf16" if self._variant == "bf16" else "f32", "coverage": how[self._variant]}

    def close(self):
        """Drop the model."""
        self._model = self._serve = None


def _name(variant):
    return "savedmodel" if variant == "plain" else f"savedmodel-{variant}"
