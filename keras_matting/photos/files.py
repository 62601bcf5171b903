"""Image files <-> arrays: upright photos with their colours and alpha, cut-outs.

PNG and WebP are OpenCV's, JPEG, TIFF and the rest have modules of their own; what a file says before its pixels is read
by `headers`. Every file comes out right, or is refused.
"""

import zlib
from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np

from keras_matting.arrays import Uint8, Uint8Or16
from keras_matting.errors import ImageError, UsageError
from keras_matting.photos import colour_profiles, jpeg, pillow, png, stated_colours, tiff
from keras_matting.photos.headers import (
    FORMATS,
    exif_orientation,
    extensions,
    orientation_of,
    png_chunks,
    png_header,
    probe,
    require_standard_range,
)
from keras_matting.photos.jpeg import ScansError
from keras_matting.photos.photo import Photo as Photo

__all__ = ["ENCODABLE", "EXTENSIONS", "FORMATS", "MAX_MEGAPIXELS", "Photo", "ScansError", "decode", "encode"]
__all__ += ["exif_orientation", "extensions", "probe", "scale_to_8_bits"]
MAX_MEGAPIXELS = 150  # the largest medium-format cameras
EXTENSIONS = extensions()
ENCODABLE = (".png", ".webp", ".jpg", ".jpeg")
_WEBP_LOSSLESS = 101  # OpenCV: any quality above 100
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0")  # where ImageMagick puts an EXIF block
_PNG_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_MAX_ICC_BYTES = 1 << 24
_GREY = 0  # PNG's colour type
_BAND_VALUES = 1 << 22
_ENCODER_OPTIONS = {
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95],  # of photos; cut-outs and masks are stored without loss
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
}

# RGB, alpha, ICC profile, EXIF orientation
_Decoded: TypeAlias = tuple[Uint8, Uint8 | None, bytes | None, int]


def decode(data: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> Photo:
    """Decode JPEG, PNG, WebP, BMP, TIFF, AVIF or HEIC bytes into an upright `Photo`, the first of several.

    16-bit values are scaled to 8 bits, grey becomes RGB (by its profile, if it has one, sRGB), CMYK is converted, the
    EXIF orientation is applied, colours multiplied by their alpha are divided by it. Raises `ImageError` on anything
    else, on a truncated file, before decoding on more than `max_megapixels`, and on more work than the size says
    (`ScansError`).
    """
    kind, width, height = probe(data)
    if width * height > max_megapixels * 1e6:
        raise ImageError(
            f"Expected at most {max_megapixels:g} megapixels; received {width}x{height} "
            f"({width * height / 1e6:.0f}). Scale the image down or raise the limit (--max-megapixels)."
        )
    require_standard_range(kind, data)
    rgb, alpha, icc, orientation = _DECODERS[kind](data)
    if {width, height} != set(rgb.shape[:2]):
        raise ImageError(f"Expected a {kind} of {width}x{height}, as its header says; it holds another size.")
    if alpha is not None:
        alpha = None if alpha.min() == 255 else np.ascontiguousarray(upright(alpha, orientation))
    photo = Photo(np.ascontiguousarray(upright(rgb, orientation)), alpha)
    return colour_profiles.with_profile(photo, stated_colours.profile(kind, data, icc))


def encode(image: Uint8Or16, extension: str, icc: bytes | None = None) -> bytes:
    """Encode uint8 or uint16 (H, W), (H, W, 3) RGB or (H, W, 4) RGBA as ".png", ".webp" or ".jpg" bytes."""
    extension = ".jpg" if extension == ".jpeg" else extension
    if extension not in ENCODABLE:
        raise UsageError(f"Expected an output of {', '.join(ENCODABLE)}; received {extension!r}.")
    if extension == ".jpg" and image.ndim == 3 and image.shape[2] == 4:
        raise UsageError("JPEG has no transparency: choose PNG or WebP, or --output on-color or mask.")
    if image.dtype == np.uint16 and extension != ".png":
        raise UsageError(f"A 16-bit matte needs PNG; received {extension!r}.")
    if extension == ".png":
        return png.encode(image, icc if image.ndim == 3 else None)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    options = _ENCODER_OPTIONS[extension]
    if extension == ".webp" and image.shape[2:] != (3,):
        options = [cv2.IMWRITE_WEBP_QUALITY, _WEBP_LOSSLESS]
    if icc and image.ndim == 3 and extension == ".webp":
        profile = np.frombuffer(icc, np.uint8)
        ok, data = cv2.imencodeWithMetadata(extension, image, [cv2.IMAGE_METADATA_ICCP], [profile], options)
    else:
        ok, data = cv2.imencode(extension, image, options)
    if not ok:
        raise ImageError(f"An image of {image.shape[1]}x{image.shape[0]} does not fit into {extension}; choose PNG.")
    if icc and image.ndim == 3 and extension == ".jpg":
        return jpeg.with_icc(data.tobytes(), icc)
    return data.tobytes()


def scale_to_8_bits(image: Uint8Or16) -> Uint8:
    """Return uint16 values, of either byte order, as uint8: 65535 becomes 255, not clipped but rounded."""
    scaled = np.empty(image.shape, np.uint8)
    step = max(1, _BAND_VALUES // max(1, image[:1].size))
    for top in range(0, len(image), step):  # the sums need 32 bits, but not of a whole photo at once
        scaled[top : top + step] = tiff.to_8_bits(image[top : top + step])
    return scaled


def _decode_jpeg(data: bytes) -> _Decoded:
    rgb, icc, orientation = jpeg.decode(data)
    return rgb, None, icc, orientation


def _decode_png(data: bytes) -> _Decoded:
    image, exif, _ = _decode_by_opencv("PNG", _with_end(_without_texts(data)))
    alpha = _key_colour_alpha(image, data)
    rgb, own_alpha = _rgb_and_alpha(image)
    return rgb, own_alpha if alpha is None else alpha, _png_icc(data), orientation_of(exif)


def _decode_webp(data: bytes) -> _Decoded:
    image, exif, icc = _decode_by_opencv("WebP", data)
    return *_rgb_and_alpha(image), icc, orientation_of(exif)


def _decode_by_opencv(kind: str, data: bytes) -> tuple[Uint8Or16, bytes, bytes]:
    """Return (image, EXIF block, ICC profile), the latter two empty where there are none."""
    try:
        image, kinds, blocks = cv2.imdecodeWithMetadata(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(f"Expected a whole {kind} file; this one is truncated or damaged. Save it again.")
    metadata = {kind: np.asarray(block).tobytes() for kind, block in zip(kinds, blocks, strict=True)}
    return image, *(metadata.get(kind, b"") for kind in (cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_ICCP))


def _rgb_and_alpha(image: Uint8Or16) -> tuple[Uint8, Uint8 | None]:
    """Return OpenCV's image as RGB and alpha of 8 bits."""
    pixels = scale_to_8_bits(image) if image.dtype == np.uint16 else image.astype(np.uint8, copy=False)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), None
    if pixels.shape[2] == 4:
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), pixels[..., 3]
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), None


def _without_texts(data: bytes) -> bytes:
    """Return a PNG without its texts but the first EXIF block: libpng would unpack, and keep, 1000 of 8 MB each."""
    view, kept, start, exif = memoryview(data), [], 0, False
    for name, content, end in png_chunks(data):
        if name not in _PNG_TEXTS:
            continue
        if not exif and data.startswith(_EXIF_TEXTS, content):
            exif = True
        else:
            if content - 8 > start:
                kept.append(view[start : content - 8])
            start = end + 4
    return b"".join([*kept, view[start:]]) if start else data


def _with_end(data: bytes) -> bytes:
    """Return a PNG that ends, where all of its pixels are there but its last chunk is cut off."""
    last, after = b"", 0
    for name, _, end in png_chunks(data):
        if name == b"IEND":
            return data
        last, after = name, end + 4
    return data[:after] + _PNG_END if last == b"IDAT" and _PNG_END.startswith(data[after:]) else data


def _png_icc(data: bytes) -> bytes | None:
    """Return a PNG's profile, None where there is none: libpng drops those that it finds fault with."""
    profile = next((data[start:end] for name, start, end in png_header(data) if name == b"iCCP"), b"")
    compressed = profile.partition(b"\0")[2][1:]
    try:
        return zlib.decompressobj().decompress(compressed, _MAX_ICC_BYTES) or None
    except zlib.error:
        return None


def _key_colour_alpha(image: Uint8Or16, data: bytes) -> Uint8 | None:
    """Return the alpha of a grey PNG whose tRNS chunk names one transparent value, which OpenCV drops; else None."""
    depth, colours = data[24:26]
    if colours != _GREY:
        return None
    key = next((content for name, content, _ in png_header(data) if name == b"tRNS"), None)
    if key is None:
        return None
    value = int.from_bytes(data[key : key + 2], "big") & (2**depth - 1)
    if depth < 8:
        value = value * 255 // (2**depth - 1)
    return np.where(image == value, 0, 255).astype(np.uint8)


def upright(image: Uint8, orientation: int) -> Uint8:
    """Apply an EXIF orientation (1 to 8)."""
    if orientation in (5, 6, 7, 8):
        image = cv2.transpose(image)
    if orientation in (2, 3, 6, 7):
        image = cv2.flip(image, 1)
    if orientation in (3, 4, 7, 8):
        image = cv2.flip(image, 0)
    return image


_DECODERS: dict[str, Callable[[bytes], _Decoded]] = {
    "JPEG": _decode_jpeg,
    "PNG": _decode_png,
    "WebP": _decode_webp,
    "BMP": lambda data: (*pillow.decode_bmp(data), 1),
    "TIFF": tiff.decode,
    "AVIF": pillow.decode_avif,
    "HEIC": lambda data: (*pillow.decode_heif(data), 1),  # libheif has turned it upright
}
