"""Photos as a caller has them (a file, an array, a PIL image), and as they are inside: a `Photo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Uint8Or16
from keras_matting.errors import ImageError, UsageError, first_line
from keras_matting.files import StrPath, printable
from keras_matting.photos import colour_profiles, stated_colours
from keras_matting.photos import files as photo_files
from keras_matting.photos.photo import Photo

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def is_pil(image: object) -> TypeGuard[Image]:
    """Tell whether an object is a PIL image, without importing Pillow."""
    return "PIL.Image" in sys.modules and isinstance(image, sys.modules["PIL.Image"].Image)


def photo_of_pil(image: Image) -> Photo:
    """Return the `Photo` of a PIL image, upright; raises `UsageError` on modes I and F, `ImageError` if broken."""
    from PIL import ImageOps

    if image.mode in ("I", "F"):
        raise UsageError(f"Expected a PIL image of 8 or 16 bits a channel; received mode {image.mode}. Convert it.")
    try:
        upright = ImageOps.exif_transpose(image)
        icc = _profile_of_pil(image)
        if upright.mode == "CMYK" and all(upright.size):
            return Photo(colour_profiles.rgb_of_inks(np.asarray(upright), icc))
        if not upright.mode.startswith("I;16"):
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"Expected a whole PIL image; received: {first_line(error)}.") from error
    return colour_profiles.with_profile(photo_of_array(np.asarray(upright)), icc)


def _profile_of_pil(image: Image) -> bytes | None:
    """Return a PIL image's profile: what its plug-in found, or what a camera's JPEG states."""
    icc, exif = (found if isinstance(found := image.info.get(name), bytes) else b"" for name in ("icc_profile", "exif"))
    return icc or (stated_colours.of_exif(exif) if image.format in ("JPEG", "MPO") else None)


def pil_of_result(result: Uint8Or16, icc: bytes | None) -> Image:
    """Return the PIL image of an output, uint8 or uint16 (H, W), (H, W, 3) or (H, W, 4), with its ICC profile."""
    from PIL import Image

    image = Image.fromarray(result)
    if icc:
        image.info["icc_profile"] = icc
    return image


def read_photo(path: StrPath, max_megapixels: float = photo_files.MAX_MEGAPIXELS) -> Photo:
    """Return the `Photo` in a file; raises `UsageError` if it cannot be read, `ImageError` if it is no photo."""
    return photo_files.decode(read_file(path), max_megapixels)


def read_background(path: StrPath) -> Photo:
    """Return the `Photo` of a background; raises what `read_photo` raises, which names the file."""
    try:
        return read_photo(path)
    except ImageError as error:
        raise ImageError(f"Background {printable(path)}: {error}") from None


def read_file(path: StrPath) -> bytes:
    """Return the bytes of a photo's file; raises `UsageError` if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"Expected a photo at {path}; received: {error.strerror}.") from None


def as_photo(photo: Photo | Pixels) -> Photo:
    """Return a `Photo`, or that of an array; raises `UsageError` on anything else."""
    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, np.ndarray):
        return photo_of_array(photo)
    raise UsageError(f"Expected a Photo or a NumPy array; received {type(photo).__name__}. read_photo reads a file.")


def photo_of_array(array: npt.NDArray[Any]) -> Photo:
    """Return the `Photo` of an array, uint8 or uint16 (H, W), (H, W, 3) or (H, W, 4); raises `UsageError` on others."""
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = photo_files.scale_to_8_bits(array)
    if array.ndim == 2:
        array = np.dstack([array] * 3)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4) or 0 in array.shape:
        raise UsageError(
            f"Expected a uint8 array (H, W, 3), (H, W, 4) or (H, W); received {array.dtype} {array.shape}."
        )
    if array.shape[2] == 4:
        return Photo(np.ascontiguousarray(array[..., :3]), np.ascontiguousarray(array[..., 3]))
    return Photo(np.ascontiguousarray(array))
