"""TensorFlow on the exported SavedModel: as it is, or compiled by XLA, always in float32.

oneDNN's bfloat16 is not offered: TensorFlow switches it for all graphs of the process at once, so that another model,
or a training, would lose its precision too (and U2NetP's mean error in it is twice what the gate admits). Its threads
are the process's, too, so a CPU quota does not reach it.
"""

from __future__ import annotations

from pathlib import Path

from keras_matting.arrays import Float32
from keras_matting.engines.artefacts import exported
from keras_matting.engines.base import BuildOptions, cannot_open, checked_batch
from keras_matting.machine import missing_package
from keras_matting.model_folder import SAVED_MODEL


def unavailable_reason(variant: str) -> str | None:
    """Return why TensorFlow cannot run `variant` here, or None."""
    return missing_package("tensorflow", "cpu")


def build(model_dir: Path, variant: str, options: BuildOptions) -> None:
    """Check that the graph is there: TensorFlow compiles it when it is opened."""
    exported(model_dir, SAVED_MODEL, _name(variant))


def check_current(model_dir: Path, variant: str) -> None:
    """Raise `EngineError` unless the graph is there and fits."""
    exported(model_dir, SAVED_MODEL, _name(variant))


def open_engine(model_dir: Path, variant: str) -> SavedModelEngine:
    """Load the SavedModel of a model folder."""
    return SavedModelEngine(exported(model_dir, SAVED_MODEL, _name(variant)), variant)


class SavedModelEngine:
    """A SavedModel's serving signature; `variant` is "plain" or "xla"."""

    def __init__(self, path: Path, variant: str) -> None:
        import tensorflow as tf

        self.name, self.path, self._variant = _name(variant), path, variant
        self._tensor = tf.constant
        try:
            self._model = tf.saved_model.load(str(path))
            signature = self._model.signatures["serving_default"]
        except Exception as error:  # an IndexError where variables are cut short, and what else a file may hold
            raise cannot_open(self.name, path, error) from error
        (source,) = signature.structured_input_signature[1].values()
        self._input, self.size = source.name, tuple(source.shape[1:3])
        self._fixed_batch = source.shape[0]
        self._serve = tf.function(signature, jit_compile=True) if variant == "xla" else signature

    def predict(self, batch: Float32) -> Float32:
        """See `Engine.predict`."""
        batch = checked_batch(batch, self.size, self.name, self._fixed_batch)
        (matte,) = self._serve(**{self._input: self._tensor(batch)}).values()
        return matte.numpy()

    def describe(self) -> dict[str, str]:
        """See `Engine.describe`."""
        return {"precision": "f32", "coverage": {"plain": "tf.function", "xla": "one XLA cluster"}[self._variant]}

    def close(self) -> None:
        """Drop the model."""
        self._model = self._serve = None


def _name(variant: str) -> str:
    return "savedmodel" if variant == "plain" else f"savedmodel-{variant}"
