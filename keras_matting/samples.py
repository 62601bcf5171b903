"""Photos to try things on: those that scikit-image carries in its wheel."""

from pathlib import Path

from keras_matting.errors import ImageError, UsageError
from keras_matting.image_files import EXTENSIONS, Photo, decode

SAMPLES = ("astronaut", "cat", "coffee")


def sample_arrays():
    """Return {name: uint8 (H, W, 3)} of the sample photos; raises `UsageError` without scikit-image."""
    try:
        from skimage import data
    except ImportError:
        raise UsageError(
            "Sample photos need scikit-image: pip install 'keras-matting[demo]', or pass photos."
        ) from None
    return {name: getattr(data, name)() for name in SAMPLES}


def sample_photos():
    """Return the samples as `Photo`s."""
    return [Photo(rgb) for rgb in sample_arrays().values()]


def folder_photos(folder, limit=None):
    """Return the `Photo`s of a folder in order, at most `limit`; hidden files are left out.

    Raises `UsageError` if there is none, `ImageError` that names the first that cannot be read.
    """
    files = (path for path in Path(folder).rglob("*") if not path.name.startswith("."))
    paths = sorted(path for path in files if path.suffix.lower() in EXTENSIONS)[:limit]
    if not paths:
        raise UsageError(f"Expected photos ({', '.join(EXTENSIONS)}) in {folder}; found none.")
    return [_read(path) for path in paths]


def _read(path):
    try:
        return decode(path.read_bytes())
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
