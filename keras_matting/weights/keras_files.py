"""Keras's `.keras` files: a damaged one, or one that is something else, is one sentence."""

import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import keras

from keras_matting.errors import UsageError, first_line
from keras_matting.files import StrPath, stub_told

_Loaded = TypeVar("_Loaded")
_WEIGHTS = "model.weights.h5"
_CONFIG = "config.json"
_REMEDY = "Copy or download it again, or choose the model that it was saved from."


def read_keras(path: StrPath) -> keras.Model:
    """Return the model that a `.keras` file holds, not compiled; raises `UsageError`."""
    return _told(path, lambda: keras.saving.load_model(path, compile=False), (_CONFIG, _WEIGHTS))


def load_weights(model: keras.Model, path: StrPath) -> None:
    """Set the weights of `model` from a `.keras` file of the same architecture; raises `UsageError`."""
    _told(path, lambda: _load_weights(model, path), (_WEIGHTS,), f" of {model.name}")


def _load_weights(model: keras.Model, path: StrPath) -> None:
    """Load out of a copy: within the archive, for every step back Keras would read from the member's beginning again.

    Where there is no room for a copy, within the archive.
    """
    with ExitStack() as stack:
        with suppress(OSError), zipfile.ZipFile(path) as archive:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="keras_matting."))
            path = archive.extract(_WEIGHTS, folder)
        model.load_weights(path)


def _told(path: StrPath, load: Callable[[], _Loaded], members: Sequence[str], whose: str = "") -> _Loaded:
    expected = f"Expected a Keras model{whose} in {path}"
    if not Path(path).is_file():
        raise UsageError(f"{expected}; it does not exist or is no file.")
    if told := stub_told(path):
        raise UsageError(f"{expected}; {told}.")
    try:
        _require_whole(path, members)
        return load()
    except MemoryError:
        raise
    except Exception as error:  # HDF5, Keras and the layers raise of all kinds
        raise UsageError(f"{expected}; received: {first_line(error).rstrip('.')}. {_REMEDY}") from error


def _require_whole(path: StrPath, members: Sequence[str]) -> None:
    """Raise `ValueError` unless the file is a ZIP archive with these members, all of which have their checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            missing = [name for name in members if name not in archive.namelist()]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"a file that is cut off, damaged or no ZIP archive: {first_line(error)}") from None
    if damaged:
        raise ValueError(f"a damaged file: {damaged} in it has another checksum")
    if missing:
        raise ValueError(f"an archive without {', '.join(missing)}")
