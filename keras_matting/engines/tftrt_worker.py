"""The TF-TRT side, run by the Python of the TF-TRT environment (`make tftrt-env`), driven by tftrt.py.

Reads one JSON request a line from standard input and answers one a line; arrays follow their line as raw float32. It
runs on Python 3.10 and TensorFlow 2.14 to 2.17, so it imports nothing of the package but this file.
"""

import collections
import json
import os
import sys

import numpy as np

_WORKSPACE_BYTES = 2 << 30
_MIN_SEGMENT_NODES = 3
_LISTED_OPS = 8


def probe():
    """Return the versions of TensorFlow and TensorRT here, and how many GPUs TensorFlow sees."""
    import tensorflow as tf
    from tensorflow.compiler.tf2tensorrt import _pywrap_py_utils

    return {
        "tensorflow": tf.__version__,
        "tensorrt_enabled": _pywrap_py_utils.is_tensorrt_enabled(),
        "tensorrt_linked": ".".join(map(str, _pywrap_py_utils.get_linked_tensorrt_version())),
        "tensorrt_loaded": ".".join(map(str, _pywrap_py_utils.get_loaded_tensorrt_version())),
        "gpus": len(tf.config.list_physical_devices("GPU")),
    }


def convert(source, target, precision, batches, size, calibration):
    """Convert a SavedModel, build its engines for `batches`, save it as `target`; return what became of the graph.

    `calibration`: path of a .npy file of inputs (n, H, W, 3) for int8, else None. A segment that TensorRT cannot build
    is an error: falling back to TensorFlow's own kernels is switched off.
    """
    if not probe()["gpus"]:
        raise RuntimeError("TF-TRT converts on an NVIDIA GPU only, and TensorFlow sees none here")
    os.environ["TF_TRT_ALLOW_ENGINE_NATIVE_SEGMENT_EXECUTION"] = "False"
    from tensorflow.python.compiler.tensorrt import trt_convert as trt

    converter = trt.TrtGraphConverterV2(
        input_saved_model_dir=source,
        precision_mode=precision.upper(),
        max_workspace_size_bytes=_WORKSPACE_BYTES,
        minimum_segment_size=_MIN_SEGMENT_NODES,
        maximum_cached_engines=len(batches),
        use_calibration=precision == "int8",
        use_dynamic_shape=True,
        dynamic_shape_profile_strategy="Range",
        allow_build_at_runtime=False,
    )
    photos = np.load(calibration) if calibration else None
    converter.convert(calibration_input_fn=(lambda: ((photo[None],) for photo in photos)) if calibration else None)
    converter.build(input_fn=lambda: ((np.zeros((n, *size, 3), np.float32),) for n in batches))
    converter.save(target)
    return _coverage(converter)


def _coverage(converter):
    """Count what TensorRT took and what it left, from the converted graph."""
    graph = converter._converted_graph_def
    engines = [node for node in graph.node if node.op == "TRTEngineOp"]
    segments = [function for function in graph.library.function if "TRTEngineOp" in function.signature.name]
    ignored = ("TRTEngineOp", "Const", "Identity", "Placeholder", "NoOp")
    left = collections.Counter(node.op for node in graph.node if node.op not in ignored)
    return {
        "engines": len(engines),
        "nodes_in_engines": sum(len(segment.node_def) for segment in segments),
        "left": dict(left.most_common(_LISTED_OPS)),
    }


class _Model:
    """A SavedModel, converted or plain."""

    def __init__(self, path):
        import tensorflow as tf

        self._tensor = tf.constant
        self._loaded = tf.saved_model.load(path)
        self._serve = self._loaded.signatures["serving_default"]
        self._input = next(iter(self._serve.structured_input_signature[1]))

    def predict(self, batch):
        (matte,) = self._serve(**{self._input: self._tensor(batch)}).values()
        return np.ascontiguousarray(matte.numpy(), np.float32)


def main():
    """Answer requests until standard input closes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever TensorFlow prints must not get between the answers
    sys.path.pop(0)  # this file's folder, whose tensorflow.py is not TensorFlow
    model = None
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        operation, payload = request.pop("op"), b""
        try:
            if operation == "open":
                model, answer = _Model(request["path"]), {}
            elif operation == "predict":
                count = int(np.prod(request["shape"]))
                data = np.frombuffer(sys.stdin.buffer.read(4 * count), np.float32)
                matte = model.predict(data.reshape(request["shape"]))
                answer, payload = {"shape": matte.shape}, matte.tobytes()
            else:
                answer = {"probe": probe, "convert": convert}[operation](**request)
        except Exception as error:  # every failure goes to the parent, which turns it into its own error
            answer = {"error": str(error) or type(error).__name__}
        answers.write(json.dumps(answer).encode() + b"\n" + payload)
        answers.flush()


if __name__ == "__main__":
    main()
