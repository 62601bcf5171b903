"""Shipped, official or own weights into model folders: copy or download, import, verify, export."""

import logging
import shutil
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from keras_matting.architectures import default_preset
from keras_matting.engines.artefacts import is_exported
from keras_matting.errors import UsageError
from keras_matting.files import (
    StrPath,
    file_sha256,
    locked_folder,
    replaced_folder,
    require_new_folder,
    require_writable,
)
from keras_matting.model_folder import PRESET_FILE, Preset, find_model_dir, models_home
from keras_matting.shipped import SHIPPED, SHIPPED_FILES, shipped_dir
from keras_matting.weights import pretrained

_LOGGER = logging.getLogger(__name__)


def fetch(name: str, out_dir: StrPath, local_file: StrPath | None = None, force: bool = False) -> Preset:
    """Write the model folder `out_dir` with the shipped or official weights of `name`; return its preset.

    `local_file`: the official file, if it is here already.
    """
    if name in SHIPPED:
        return _copy_shipped(name, Path(out_dir), local_file, force)
    require_new_folder(out_dir, force, PRESET_FILE)
    with tempfile.TemporaryDirectory() as folder:
        path = pretrained.download(name, folder, local_file)
        return _import(path, pretrained.PRETRAINED[name].preset(name), out_dir, force)


def _copy_shipped(name: str, out_dir: Path, local_file: StrPath | None, force: bool) -> Preset:
    source = shipped_dir(name)
    if local_file:
        raise UsageError(f"--file is for official weights; {name} comes with keras_matting. Leave --file out.")
    if source is None:
        raise UsageError(
            f"Expected the weights of {name} in this installation of keras_matting; received one without them. "
            "Install it again from a whole checkout or wheel, or name another model."
        )
    if out_dir.exists() and source.samefile(out_dir):
        _LOGGER.info("%s: here already, nothing to fetch", name)
        return Preset.load(source)
    require_new_folder(out_dir, force, PRESET_FILE)
    with replaced_folder(out_dir) as folder:
        for file in filter(Path.is_file, (source / file for file in SHIPPED_FILES)):
            shutil.copyfile(file, folder / file.name)
    return Preset.load(out_dir)


def import_file(path: StrPath, architecture: str, out_dir: StrPath, force: bool = False) -> Preset:
    """Write the model folder `out_dir` with the weights of any checkpoint of `architecture`; return its preset."""
    preset = default_preset(architecture, Path(out_dir).name)
    if Path(path).is_file():
        preset = replace(preset, source=Path(path).name, source_sha256=file_sha256(path))
    return _import(path, preset, out_dir, force)


def ready_model_dir(model: StrPath) -> Path:
    """Return the folder of `model`, a path or a name, after fetching and exporting what is not there yet.

    Raises `UsageError` on an unknown model, `WeightsError` where official weights cannot be fetched.
    """
    if model_dir := usable_model_dir(model):
        return model_dir
    model_dir = find_model_dir(model)
    if model_dir is None or _is_outdated_copy(model_dir):
        return fetch_on_demand(model_dir.name if model_dir else str(model))
    return _exported_in_place(model_dir)


def usable_model_dir(model: StrPath) -> Path | None:
    """Return the folder of `model`, a path or a name, if nothing has to be fetched or exported first; else None.

    What is shipped is exported at its first use, and again when an update has brought other weights. The folders of
    other models are as their users made them.
    """
    model_dir = find_model_dir(model)
    if model_dir is None or model_dir.absolute().name not in SHIPPED:
        return model_dir
    return model_dir if is_exported(model_dir) and not _is_outdated_copy(model_dir) else None


def _exported_in_place(model_dir: Path) -> Path:
    """Export a shipped model where it stands, or a copy of it where nothing can be written there."""
    name = model_dir.absolute().name
    try:
        require_writable(model_dir)
    except UsageError:
        copy = models_home() / name
        is_usable = (copy / PRESET_FILE).is_file() and is_exported(copy) and not _is_outdated_copy(copy)
        return copy if is_usable else fetch_on_demand(name)
    with locked_folder(model_dir, wait=True):
        if not is_exported(model_dir):  # another process may just have done it
            _export(name, model_dir)
    return model_dir


def _is_outdated_copy(model_dir: Path) -> bool:
    """Tell whether a folder is the copy at home of a shipped model, and an update has brought other weights."""
    source = shipped_dir(model_dir.absolute().name)
    if source is None or not _is_at_home(model_dir):
        return False
    return Preset.load(model_dir).weights_sha256 != Preset.load(source).weights_sha256


def _is_at_home(model_dir: Path) -> bool:
    try:
        return model_dir.absolute().parent == models_home().absolute()
    except UsageError:  # there is no home
        return False


def fetch_on_demand(name: str) -> Path:
    """Copy or fetch a known model into `models_home()` and export it; raises `UsageError` if `name` is none."""
    if name not in (*SHIPPED, *pretrained.PRETRAINED):
        raise UsageError(
            f"Expected a model folder (with preset.json) or one of {', '.join((*SHIPPED, *pretrained.PRETRAINED))}; "
            f"received {name!r}."
        )
    _require_packages(f"Model {name} is not here yet, and fetching it")
    try:
        require_writable(models_home())
    except UsageError as error:
        told = str(error).replace("Choose another place.", "Set KERAS_MATTING_HOME to a folder that can be written.")
        raise UsageError(told) from None
    with replaced_folder(models_home() / name) as folder:
        fetch(name, folder, force=True)
        _export(name, folder)
    return models_home() / name


def _export(name: str, model_dir: Path) -> None:
    _require_packages(f"Model {name} is not exported for the engines yet, and that")
    from keras_matting.export import export

    _LOGGER.info("%s: exporting for the engines, once", name)
    export(model_dir)


def _require_packages(what: str) -> None:
    for package in ("keras", "tensorflow", "onnx", "tf2onnx"):
        if find_spec(package) is None:
            raise UsageError(
                f"{what} needs {package}: pip install 'keras-matting[cpu]', "
                "or copy an exported model folder and pass its path."
            )


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
