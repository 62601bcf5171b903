"""ONNX Runtime."""

from keras_matting.config import ONNX_FILE
from keras_matting.engines.base import artefact, checked_batch, missing_package
from keras_matting.errors import EngineError

_PROVIDERS = {"cpu": "CPUExecutionProvider"}


def unavailable_reason(variant):
    """Return why ONNX Runtime cannot run `variant` here, or None."""
    if reason := missing_package("onnxruntime", "cpu"):
        return reason
    import onnxruntime

    provider = _PROVIDERS[variant]
    if provider not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {provider}."
    return None


def build(model_dir, variant, options=None):
    """Return the path of the artefact: ONNX Runtime reads the exported file as it is."""
    return artefact(model_dir, ONNX_FILE, f"onnx-{variant}")


def open_engine(model_dir, variant):
    """Open `model.onnx` of a model folder."""
    return OnnxEngine(build(model_dir, variant), variant)


class OnnxEngine:
    """An ONNX Runtime session on one execution provider."""

    def __init__(self, path, variant):
        import onnxruntime

        self.name = f"onnx-{variant}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[_PROVIDERS[variant]])
        except Exception as error:
            reason = str(error).splitlines()[0][:200]
            raise EngineError(f"Engine {self.name} cannot open {path}. Export it again. ({reason})") from error
        self._input = self._session.get_inputs()[0]
        self._output = self._session.get_outputs()[0].name
        self.size = tuple(self._input.shape[1:3])

    def predict(self, batch):
        """See `Engine.predict`."""
        batch = checked_batch(batch, self.size, self.name)
        return self._session.run([self._output], {self._input.name: batch})[0]

    def close(self):
        """Drop the session."""
        self._session = None
