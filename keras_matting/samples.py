"""Photos to try things on: those that scikit-image carries in its wheel."""

from keras_matting.errors import ImageError, UsageError
from keras_matting.image_files import Photo, decode
from keras_matting.photo_folders import list_folder, none_found

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


def folder_photos(folder, limit=None, log=lambda message: None):
    """Return the `Photo`s of a folder in order, at most `limit`; `log` is told what was left out.

    Raises `UsageError` if there is none, `ImageError` that names the first that cannot be read.
    """
    listing = list_folder(folder)
    if not listing.photos:
        raise UsageError(none_found(folder, listing))
    for line in listing.told():
        log(line)
    return [_read(path) for path in listing.photos[:limit]]


def _read(path):
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
