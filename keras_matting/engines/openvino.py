"""OpenVINO on the CPU."""

from keras_matting.config import ONNX_FILE
from keras_matting.engines.base import artefact, checked_batch, missing_package
from keras_matting.errors import EngineError


def unavailable_reason(variant):
    """Return why OpenVINO cannot run `variant` here, or None."""
    return missing_package("openvino", "cpu")


def build(model_dir, variant, options=None):
    """Return the path of the artefact: OpenVINO reads the exported ONNX file as it is."""
    return artefact(model_dir, ONNX_FILE, f"openvino-{variant}")


def open_engine(model_dir, variant):
    """Compile `model.onnx` of a model folder for this CPU."""
    return OpenVinoEngine(build(model_dir, variant), variant)


class OpenVinoEngine:
    """A model compiled by OpenVINO; `variant` is the precision that it computes in."""

    def __init__(self, path, variant):
        import openvino

        self.name = f"openvino-{variant}"
        core = openvino.Core()
        hints = {"INFERENCE_PRECISION_HINT": variant, "PERFORMANCE_HINT": "LATENCY"}
        try:
            self._compiled = core.compile_model(core.read_model(path), "CPU", hints)
        except RuntimeError as error:
            raise EngineError(f"Engine {self.name} cannot open {path}. Export it again. ({error})") from error
        shape = self._compiled.input(0).partial_shape
        self.size = (shape[1].get_length(), shape[2].get_length())
        self._request = self._compiled.create_infer_request()

    def predict(self, batch):
        """See `Engine.predict`."""
        batch = checked_batch(batch, self.size, self.name)
        self._request.infer({0: batch}, share_inputs=True)
        return self._request.get_output_tensor(0).data.copy()

    def close(self):
        """Drop the compiled model."""
        self._request = self._compiled = None
