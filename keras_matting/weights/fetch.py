"""Official or own checkpoints into model folders: download, import, verify, export."""

import logging
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from keras_matting.architectures import default_preset
from keras_matting.errors import UsageError
from keras_matting.files import StrPath, file_sha256, replaced_folder, require_new_folder, require_writable
from keras_matting.model_folder import PRESET_FILE, Preset, models_home
from keras_matting.weights import pretrained

_LOGGER = logging.getLogger(__name__)


def fetch(name: str, out_dir: StrPath, local_file: StrPath | None = None, force: bool = False) -> Preset:
    """Write the model folder `out_dir` with the official weights of `name`; return its preset."""
    require_new_folder(out_dir, force, PRESET_FILE)
    with tempfile.TemporaryDirectory() as folder:
        path = pretrained.download(name, folder, local_file)
        return _import(path, pretrained.PRETRAINED[name].preset(name), out_dir, force)


def import_file(path: StrPath, architecture: str, out_dir: StrPath, force: bool = False) -> Preset:
    """Write the model folder `out_dir` with the weights of any checkpoint of `architecture`; return its preset."""
    preset = default_preset(architecture, Path(out_dir).name)
    if Path(path).is_file():
        preset = replace(preset, source=Path(path).name, source_sha256=file_sha256(path))
    return _import(path, preset, out_dir, force)


def fetch_on_demand(name: str) -> Path:
    """Fetch and export official weights into `models_home()`; raises `UsageError` if `name` is no known model."""
    if name not in pretrained.PRETRAINED:
        raise UsageError(
            f"Expected a model folder (with preset.json) or one of {', '.join(pretrained.PRETRAINED)}; "
            f"received {name!r}."
        )
    for package in ("keras", "tensorflow", "onnx", "tf2onnx"):
        if find_spec(package) is None:
            raise UsageError(
                f"Model {name} is not here yet, and fetching it needs {package}: pip install 'keras-matting[cpu]', "
                "or copy an exported model folder and pass its path."
            )
    from keras_matting.export import export

    try:
        require_writable(models_home())
    except UsageError as error:
        told = str(error).replace("Choose another place.", "Set KERAS_MATTING_HOME to a folder that can be written.")
        raise UsageError(told) from None
    with replaced_folder(models_home() / name) as folder:
        fetch(name, folder, force=True)
        _LOGGER.info("%s: exporting for the engines", name)
        export(folder)
    return models_home() / name


def _import(path: StrPath, preset: Preset, out_dir: StrPath, force: bool) -> Preset:
    from keras_matting.models import build_model
    from keras_matting.models.folder import write_model_folder
    from keras_matting.weights.checkpoints import import_checkpoint

    require_new_folder(out_dir, force, PRESET_FILE)
    _LOGGER.info("%s: importing %s into %s", preset.name, Path(path).name, preset.architecture)
    model = build_model(preset.architecture, preset.input_size)
    untouched = import_checkpoint(model, path)
    if untouched:
        fresh = ", ".join(untouched)
        _LOGGER.info("%s: the file serves inference only; fresh training heads: %s", preset.name, fresh)
    if Path(path).suffix.lower() == ".onnx" and find_spec("onnxruntime"):
        from keras_matting.weights.onnx import verify

        error = verify(model, path)
        _LOGGER.info("%s: agrees with the file under ONNX Runtime within %.1e", preset.name, error)
    return write_model_folder(model, preset, out_dir, force)
