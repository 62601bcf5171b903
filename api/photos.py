"""Photo bytes in, output bytes out: the service's limits before decoding, sRGB without metadata after it."""

from dataclasses import dataclass

from keras_matting.arrays import Uint8Or16
from keras_matting.errors import ImageError
from keras_matting.matting import OutputOptions
from keras_matting.photos import colour_profiles
from keras_matting.photos import files as photo_files
from keras_matting.photos.files import Photo

from .negotiation import EXTENSIONS
from .problems import ProblemError

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
_SHORTEST = 12  # no image, of any format, is shorter


@dataclass(frozen=True)
class Limits:
    """What is refused before it is unpacked."""

    max_megapixels: float = 25
    max_side_px: int = 16384


def decode(data: bytes, limits: Limits) -> Photo:
    """Decode JPEG, PNG or WebP bytes into an upright `Photo` in sRGB, without metadata.

    What the file says of its name or type does not count. Raises `ProblemError`: 415 for another format, 413 for too
    many pixels (known from the header), 422 for what is no whole image.
    """
    check(data, limits)
    try:
        return colour_profiles.in_srgb(photo_files.decode(data, limits.max_megapixels))
    except photo_files.ScansError as error:
        raise ProblemError(
            "undecodable_image", f"a JPEG of at most {error.limit} scans", "one of more scans", "Save it again."
        ) from None
    except ImageError:
        raise _damaged() from None


def check(data: bytes, limits: Limits) -> None:
    """Raise `ProblemError` on what is known from a file's first bytes; see `decode`."""
    if len(data) < _SHORTEST:
        raise ProblemError(
            "undecodable_image", "a JPEG, PNG or WebP image", f"{len(data)} bytes", "Send the file's content."
        )
    if not data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] != b"WEBP"):
        raise ProblemError(
            "unsupported_format", "a JPEG, PNG or WebP image", "something else", "Convert it to one of these."
        )
    try:
        check_size(*photo_files.probe(data)[1:], limits)
    except ImageError:
        raise _damaged() from None


def check_canvas(options: OutputOptions, limits: Limits) -> None:
    """Raise `ProblemError` where the canvas that is asked for is larger than photos may be.

    How large a crop with its margins is, only the matte tells: `check_size` it then.
    """
    if options.framing and options.framing.canvas:
        check_size(*options.framing.canvas, limits)


def _damaged() -> ProblemError:
    return ProblemError(
        "undecodable_image", "a whole JPEG, PNG or WebP image", "one that is cut off or damaged", "Save it again."
    )


def check_size(width: int, height: int, limits: Limits) -> None:
    """Raise `ProblemError` where a photo or an output has more pixels, or longer sides, than it may."""
    if max(width, height) > limits.max_side_px or width * height > limits.max_megapixels * 1e6:
        raise ProblemError(
            "image_too_large",
            f"at most {limits.max_megapixels:g} megapixels and {limits.max_side_px} pixels a side",
            f"{width}x{height}",
            "Scale the image, or the canvas with its margins, down.",
        )


def encode(image: Uint8Or16, media_type: str) -> bytes:
    """Return the bytes of an output image, without metadata."""
    try:
        return photo_files.encode(image, EXTENSIONS[media_type])
    except ImageError as error:  # WebP ends at 16,383 pixels a side
        raise ProblemError(
            "not_acceptable", f"a photo that fits into {media_type}", "a larger one", str(error)
        ) from None
