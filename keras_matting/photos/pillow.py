"""What Pillow and pillow-heif read for us: BMP, AVIF, HEIC. Neither is loaded before such a file comes.

Their own classes are opened, not `Image.open`: its check for bombs warns where ours has let a photo through already,
and its registry is everyone's.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from keras_matting.arrays import Uint8
from keras_matting.errors import ImageError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image
    from pillow_heif import HeifFile

_Opened = TypeVar("_Opened")
_FAILURES = (OSError, ValueError, SyntaxError, IndexError, EOFError, struct.error, RuntimeError)
_BITFIELDS = 3
_PROFILE_EMBEDDED = b"DEBM"  # the number "MBED", little end first
_NEEDS_HEIF = "Expected pillow-heif to read HEIC and HEIF; it is not installed. Run: pip install '.[heif]'"


def decode_bmp(data: bytes) -> tuple[Uint8, Uint8 | None, bytes | None]:
    """Return (RGB, alpha or None, ICC profile or None) of a BMP of any header: OpenCV misreads several."""
    from PIL.BmpImagePlugin import BmpImageFile

    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes >= 56 and len(data) >= 70:
        bits, compression = struct.unpack_from("<HI", data, 28)
        if bits == 16 and compression == _BITFIELDS and struct.unpack_from("<I", data, 66)[0]:
            raise ImageError("Expected a BMP of 8 bits a channel; received 16 a pixel, with alpha. Convert it to PNG.")
    rgb, alpha, _ = _arrays("BMP", _opened("BMP", BmpImageFile, data))
    if alpha is not None and not alpha.any():  # some writers leave it 0 everywhere
        alpha = None
    return rgb, alpha, _embedded_profile(data, header_bytes)


def _embedded_profile(data: bytes, header_bytes: int) -> bytes | None:
    """Return the ICC profile in a BMP of version 5, None where there is none; Pillow does not read it."""
    if header_bytes < 124 or len(data) < 138 or data[70:74] != _PROFILE_EMBEDDED:
        return None
    start, size = struct.unpack_from("<II", data, 126)
    return bytes(data[14 + start : 14 + start + size]) or None


def open_avif(data: bytes) -> Image:
    """Return Pillow's image of AVIF bytes, not decoded yet."""
    from PIL import features

    if not features.check("avif"):
        raise ImageError("Expected a Pillow that reads AVIF; this one was built without it. Convert the photo to PNG.")
    from PIL.AvifImagePlugin import AvifImageFile

    return _opened("AVIF", AvifImageFile, data)


def open_heif(data: bytes) -> HeifFile:
    """Return pillow-heif's image of HEIC or HEIF bytes, upright and not decoded yet."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(_NEEDS_HEIF) from None
    return _opened("HEIC", lambda file: pillow_heif.open_heif(file, convert_hdr_to_8bit=True), data)


def decode_avif(data: bytes) -> tuple[Uint8, Uint8 | None, bytes | None, int]:
    """Return (RGB, alpha or None, ICC profile or None, EXIF orientation) of the first image of AVIF bytes."""
    image = open_avif(data)
    orientation = image.getexif().get(0x0112, 1)
    return *_arrays("AVIF", image), orientation if orientation in range(1, 9) else 1


def decode_heif(data: bytes) -> tuple[Uint8, Uint8 | None, bytes | None]:
    """Return (RGB, alpha or None, ICC profile or None) of the primary image of HEIC or HEIF bytes, upright."""
    image = open_heif(data)
    try:
        decoded = image.to_pillow()
    except _FAILURES as error:
        raise _damaged("HEIC", error) from None
    return _arrays("HEIC", decoded)


def _opened(kind: str, opener: Callable[[io.BytesIO], _Opened], data: bytes) -> _Opened:
    try:
        return opener(io.BytesIO(data))
    except _FAILURES as error:
        raise _damaged(kind, error) from None


def _arrays(kind: str, image: Image) -> tuple[Uint8, Uint8 | None, bytes | None]:
    try:
        if image.mode not in ("RGB", "RGBA"):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        array = np.asarray(image)
    except _FAILURES as error:
        raise _damaged(kind, error) from None
    return array[..., :3], array[..., 3] if array.shape[2] == 4 else None, image.info.get("icc_profile")


def _damaged(kind: str, error: Exception) -> ImageError:
    return ImageError(
        f"Expected a whole {kind} file, as Pillow reads them; received: {first_line(error)}. Save it again as PNG."
    )
