"""TensorFlow: the exported SavedModel as it is."""

from keras_matting.config import SAVED_MODEL
from keras_matting.engines.base import artefact, checked_batch, missing_package
from keras_matting.errors import EngineError


def unavailable_reason(variant):
    """Return why TensorFlow cannot run here, or None."""
    return missing_package("tensorflow", "cpu")


def build(model_dir, variant, options=None):
    """Return the path of the artefact: TensorFlow loads the exported folder as it is."""
    return artefact(model_dir, SAVED_MODEL, variant)


def open_engine(model_dir, variant):
    """Load the SavedModel of a model folder."""
    return SavedModelEngine(build(model_dir, variant))


class SavedModelEngine:
    """A SavedModel's serving signature."""

    name = "savedmodel"

    def __init__(self, path):
        import tensorflow as tf

        self._tensor = tf.constant
        try:
            self._model = tf.saved_model.load(str(path))
            self._serve = self._model.signatures["serving_default"]
        except (OSError, KeyError, ValueError) as error:
            raise EngineError(f"Engine {self.name} cannot open {path}. Export it again. ({error})") from error
        (source,) = self._serve.structured_input_signature[1].values()
        self._input = source.name
        self.size = tuple(source.shape[1:3])

    def predict(self, batch):
        """See `Engine.predict`."""
        batch = checked_batch(batch, self.size, self.name)
        (matte,) = self._serve(**{self._input: self._tensor(batch)}).values()
        return matte.numpy()

    def close(self):
        """Drop the model."""
        self._model = self._serve = None
