"""Photos to try things on: garments that come with the package, people and things that scikit-image carries.

They are split once into halves that share no photo: engines are calibrated on one and judged on the other.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_matting.arrays import Uint8
from keras_matting.errors import ImageError, UsageError
from keras_matting.files import StrPath
from keras_matting.photos.files import Photo, decode
from keras_matting.photos.folders import list_folder, none_found

_LOGGER = logging.getLogger(__name__)

HALVES = ("calibration", "gate")
FOLDER = Path(__file__).parents[1] / "sample_photos"
_OF_SCIKIT_IMAGE = {
    "calibration": ("astronaut", "coffee", "rocket"),
    "gate": ("camera", "cat", "stereo_motorcycle"),
}


_DEMO = ("astronaut", "cat", "coffee")
_DEMO_GARMENTS = 3


def sample_photos(half: str = "gate") -> dict[str, Photo]:
    """Return {name: `Photo`} of a half of the samples, those of scikit-image where it is installed."""
    return named_photos(FOLDER / half) | _of_scikit_image(_OF_SCIKIT_IMAGE[half])


def demo_photos() -> dict[str, Photo]:
    """Return {name: `Photo`} of a few to look at: some garments, and people and things where there are any."""
    return named_photos(FOLDER / "gate", _DEMO_GARMENTS) | _of_scikit_image(_DEMO)


def _of_scikit_image(names: Sequence[str]) -> dict[str, Photo]:
    try:
        from skimage import data
    except ImportError:
        return {}
    return {name: Photo(_rgb(getattr(data, name)())) for name in names}


def _rgb(image: Uint8 | tuple[Uint8, ...]) -> Uint8:
    image = image[0] if isinstance(image, tuple) else image  # of a stereo pair, the left
    return np.ascontiguousarray(np.broadcast_to(image if image.ndim == 3 else image[..., None], (*image.shape[:2], 3)))


def folder_photos(folder: StrPath, limit: int | None = None) -> list[Photo]:
    """Return the `Photo`s of a folder in order, at most `limit`; what was left out is logged.

    Raises `UsageError` if there is none, `ImageError` that names the first that cannot be read.
    """
    return list(named_photos(folder, limit).values())


def named_photos(folder: StrPath, limit: int | None = None) -> dict[str, Photo]:
    """Return what `folder_photos` returns as {path within the folder: `Photo`}."""
    listing = list_folder(folder)
    if not listing.photos:
        raise UsageError(none_found(folder, listing))
    for line in listing.told():
        _LOGGER.warning(line)
    return {str(path.relative_to(folder)): _read(path) for path in listing.photos[:limit]}


def _read(path: Path) -> Photo:
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
