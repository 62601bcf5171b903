"""A model folder, written and read: `model.keras` beside its `preset.json`."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np

from keras_matting.architectures import ARCHITECTURES
from keras_matting.errors import UsageError
from keras_matting.files import StrPath, replaced_folder, require_new_folder
from keras_matting.model_folder import KERAS_FILE, PRESET_FILE, Preset
from keras_matting.models import build_model, inference_model
from keras_matting.weights.keras_files import load_weights, read_keras
from keras_matting.weights.names import pytorch_prefix


def write_model_folder(model: keras.Model, preset: Preset, out_dir: StrPath, force: bool = False) -> Preset:
    """Write `preset.json` and `model.keras` as the folder `out_dir`; return the preset with the weights' digest.

    Raises `UsageError` if the folder exists, unless `force`: then it is replaced as a whole, if it is a model folder.
    """
    out_dir = Path(out_dir)
    require_new_folder(out_dir, force, PRESET_FILE)
    preset = replace(preset, weights_sha256=weights_digest(model))
    with replaced_folder(out_dir) as folder:
        preset.save(folder)
        model.save(folder / KERAS_FILE)
    return preset


def load_model(model_dir: StrPath, preset: Preset | None = None) -> keras.Model:
    """Return the model of a folder with its weights, built at the input size of `preset` (the folder's by default).

    A model that is not of ours (see `keras_matting.foreign`) is loaded as it was saved. Raises `UsageError` where
    `model.keras` is damaged, of another model, or holds other weights than the preset's digest says.
    """
    preset, path = preset or Preset.load(model_dir), Path(model_dir) / KERAS_FILE
    if preset.architecture not in ARCHITECTURES:
        return _of_size(read_keras(path), preset)
    model = build_model(preset.architecture, preset.input_size)
    load_weights(model, path)
    require_weights(model, preset, path)
    return model


def require_weights(model: keras.Model, preset: Preset, path: StrPath) -> None:
    """Raise `UsageError` unless the weights loaded from `path` have the digest that `preset` has, if it has one.

    Only of our architectures: Keras may name the variables of others differently when it loads them.
    """
    if preset.architecture not in ARCHITECTURES:
        return
    if preset.weights_sha256 and (received := weights_digest(model)) != preset.weights_sha256:
        raise UsageError(
            f"Expected the weights {preset.weights_sha256[:12]}, as {PRESET_FILE} says, in {path}; received "
            f"{received[:12]}. Copy the folder again, or write it anew with fetch, import or strip."
        )


def _of_size(model: keras.Model, preset: Preset) -> keras.Model:
    """Return `model`, which is not ours, so its size is settled; raises `UsageError` if `preset` has another."""
    height, width = model.input_shape[1:3]
    if (height, width) != tuple(preset.input_size):
        wanted = "x".join(map(str, preset.input_size))
        raise UsageError(
            f"Expected the size {height}x{width}, for which {preset.name} was built; received {wanted}. Build it anew, "
            f"as with from-keras --size {wanted}."
        )
    return model


def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 of the weights' names and values: equal weights have equal digests, saved anywhere."""
    digest = sha256()
    for variable in sorted(model.weights, key=_path):
        digest.update(_path(variable).encode())
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value), "float32").tobytes())
    return digest.hexdigest()


def _path(variable: keras.Variable) -> str:
    return pytorch_prefix(variable.path)


def served_model(model: keras.Model) -> keras.Model:
    """Return what of `model` is exported: the matte of ours, the whole of any other model with one output."""
    return inference_model(model) if isinstance(model.output, dict) else model
