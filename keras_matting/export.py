"""Keras model -> model folder -> SavedModel and ONNX, each checked against Keras."""

import shutil
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np

from keras_matting.config import KERAS_FILE, ONNX_FILE, SAVED_MODEL, Preset
from keras_matting.errors import EngineError, UsageError
from keras_matting.files import replaced_folder
from keras_matting.models import build_model, inference_model

OPSET = 17  # the newest that TensorRT 8.5 parses
MAX_ERROR = 1e-4


def write_model_folder(model, preset, out_dir, force=False):
    """Write `preset.json` and `model.keras` as the folder `out_dir`; return the preset with the weights' digest.

    Raises `UsageError` if the folder exists, unless `force`: then it is replaced as a whole.
    """
    out_dir = Path(out_dir)
    if out_dir.exists() and not force:
        raise UsageError(f"{out_dir} exists; choose another folder, or replace it with --force.")
    preset = Preset(**{**vars(preset), "weights_sha256": weights_digest(model)})
    with replaced_folder(out_dir) as folder:
        preset.save(folder)
        model.save(folder / KERAS_FILE)
    return preset


def load_model(model_dir, input_size=None):
    """Build the model of a folder at `input_size` (the preset's by default) with the folder's weights."""
    preset = Preset.load(model_dir)
    model = build_model(preset.architecture, input_size or preset.input_size)
    try:
        model.load_weights(Path(model_dir) / KERAS_FILE)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"Expected weights of {preset.architecture} in {Path(model_dir) / KERAS_FILE}; {str(error)[:200]}"
        ) from error
    return model


def weights_digest(model):
    """Return the SHA-256 of the weights' names and values: equal weights have equal digests, saved anywhere."""
    digest = sha256()
    for variable in sorted(model.weights, key=lambda variable: variable.path):
        digest.update(variable.path.encode())
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value), "float32").tobytes())
    return digest.hexdigest()


def export(model_dir, opset=OPSET):
    """Write `saved_model/` and `model.onnx` of a model folder: the matte only, static size, dynamic batch.

    Each is checked against Keras on noise in the input's range; raises `EngineError` above `MAX_ERROR`. Returns
    {artefact: largest error}.
    """
    model_dir = Path(model_dir)
    preset = Preset.load(model_dir)
    model = inference_model(load_model(model_dir))
    image = np.random.default_rng(0).uniform(-1, 1, (2, *preset.input_size, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(image, training=False))

    with replaced_folder(model_dir / f".{SAVED_MODEL}") as folder:
        serve = serving_function(model, preset.input_size)
        save_saved_model(model, serve, folder / SAVED_MODEL)
        _export_onnx(serve, folder / ONNX_FILE, opset, preset)
        errors = {
            SAVED_MODEL: _error_of("tensorflow", "savedmodel", folder, image, expected),
            ONNX_FILE: _error_of("onnx", "cpu", folder, image, expected),
        }
        shutil.rmtree(model_dir / SAVED_MODEL, ignore_errors=True)
        (folder / SAVED_MODEL).rename(model_dir / SAVED_MODEL)
        (folder / ONNX_FILE).replace(model_dir / ONNX_FILE)
    (model_dir / f".{SAVED_MODEL}").rmdir()
    return errors


def serving_function(model, input_size):
    """Return `model` as a TensorFlow function of "image", float32 (N, height, width, 3), to its named outputs.

    A model with a single output names it "matte". The function is traced once and serves every export.
    """
    import tensorflow as tf

    def serve(image):
        outputs = model(image, training=False)
        return outputs if isinstance(outputs, dict) else {"matte": outputs}

    return tf.function(serve, input_signature=[tf.TensorSpec((None, *input_size, 3), tf.float32, name="image")])


def save_saved_model(model, serve, path):
    """Write `serve`, the `serving_function` of `model`, as the SavedModel folder `path`.

    Keras's own `model.export` writes the same graph, but traces it four times.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.weights]
    module.serve = serve
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})


def _export_onnx(serve, path, opset, preset):
    import onnx
    import tf2onnx

    graph, _ = tf2onnx.convert.from_function(serve, serve.input_signature, opset=opset)
    onnx.helper.set_model_props(graph, {"weights_sha256": preset.weights_sha256, "preset": preset.name})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def _error_of(module, variant, folder, image, expected):
    from importlib import import_module

    engine = import_module(f"keras_matting.engines.{module}").open_engine(folder, variant)
    error = float(np.abs(engine.predict(image) - expected).max())
    engine.close()
    if not error <= MAX_ERROR:
        raise EngineError(f"Expected {engine.name} to agree with Keras within {MAX_ERROR}; differs by {error:.2g}.")
    return error
