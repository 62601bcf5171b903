"""Image files <-> arrays: header checks before decoding, upright photos with their colours, cut-outs.

Decoding and encoding are OpenCV's; here is what it leaves open: the size before decoding (a bomb must not be
unpacked), the EXIF orientation of images read unchanged, 16-bit scaling, alpha and ICC profiles.
"""

import struct
from dataclasses import dataclass

import cv2
import numpy as np

from keras_matting import png
from keras_matting.errors import ImageError, UsageError

MAX_MEGAPIXELS = 150  # the largest medium-format cameras
FORMATS = ("JPEG", "PNG", "WebP", "BMP", "TIFF")
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff")
ENCODABLE = (".png", ".webp", ".jpg", ".jpeg")
# zlib's level 1 on OpenCV's filters: half again as large as level 9, ten times faster.
_WEBP_LOSSLESS = 101  # OpenCV: any quality above 100
_SAMPLES_PER_PIXEL = 0x0115
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0")  # where ImageMagick puts an EXIF block
_ENCODER_OPTIONS = {
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95],  # of photos; cut-outs and masks are stored without loss
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
}


@dataclass(frozen=True)
class Photo:
    """An upright photo: `rgb` uint8 (H, W, 3); `alpha` uint8 (H, W) where the file has one; its RGB `icc` profile."""

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None


def decode(data, max_megapixels=MAX_MEGAPIXELS):
    """Decode JPEG, PNG, WebP, BMP or TIFF bytes into an upright `Photo`.

    16-bit values are scaled to 8 bits, grey becomes RGB, CMYK is converted, the EXIF orientation is applied. Raises
    `ImageError` on anything else, on a truncated file, and before decoding on more than `max_megapixels`.
    """
    kind, width, height = probe(data)
    if width * height > max_megapixels * 1e6:
        raise ImageError(
            f"Expected at most {max_megapixels:g} megapixels; received {width}x{height} "
            f"({width * height / 1e6:.0f}). Scale the image down or raise the limit (--max-megapixels)."
        )
    if kind == "PNG":
        data = _without_texts(data)
    try:
        image, kinds, blocks = cv2.imdecodeWithMetadata(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(f"Expected a whole {kind} file; this one is truncated or damaged. Save it again.")
    if {width, height} != set(image.shape[:2]):
        raise ImageError(f"Expected a {kind} of {width}x{height}, as its header says; it holds another size.")
    metadata = {kind: np.asarray(block).tobytes() for kind, block in zip(kinds, blocks, strict=True)}
    if kind == "PNG":
        image = _with_key_colour_alpha(image, data)
    if kind == "TIFF":  # OpenCV has turned it upright already, and multiplied 8-bit colours by alpha
        image = _straight(image, data)
    else:
        image = _upright(image, _orientation_of(metadata.get(cv2.IMAGE_METADATA_EXIF, b"")))
    return _photo(image, metadata.get(cv2.IMAGE_METADATA_ICCP))


def encode(image, extension, icc=None):
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
    if icc and image.ndim == 3:
        profile = np.frombuffer(icc, np.uint8)
        ok, data = cv2.imencodeWithMetadata(extension, image, [cv2.IMAGE_METADATA_ICCP], [profile], options)
    else:
        ok, data = cv2.imencode(extension, image, options)
    if not ok:
        raise ImageError(f"An image of {image.shape[1]}x{image.shape[0]} does not fit into {extension}; choose PNG.")
    return data.tobytes()


def probe(data):
    """Return (format, width, height) from the first bytes; raises `ImageError` if it is no image we read."""
    for signature, kind, read_size in _HEADERS:
        if data[: len(signature)] == signature and (kind != "WebP" or data[8:12] == b"WEBP"):
            try:
                width, height = read_size(data)
            except (struct.error, IndexError, ZeroDivisionError):
                width = height = 0
            if width < 1 or height < 1:
                raise ImageError(f"Expected a {kind} image with pixels; its header is cut off or says 0x0.")
            return kind, width, height
    if not data:
        raise ImageError("Expected an image; the file is empty.")
    raise ImageError(f"Expected an image ({', '.join(FORMATS)}); received something else. Convert it first.")


def exif_orientation(data):
    """Return the EXIF orientation (1 to 8) that a JPEG's or PNG's first bytes ask for; 1 where they say nothing."""
    try:
        if data[:2] == b"\xff\xd8":
            blocks = (data[at + 4 :] for marker, at in _jpeg_segments(data) if marker == 0xE1)
            return _orientation_of(next((block for block in blocks if block.startswith(b"Exif\0\0")), b""))
        at = data.find(b"eXIf", 33, data.find(b"IDAT"))
        return _orientation_of(data[at + 4 :]) if data[:4] == b"\x89PNG" and at > 0 else 1
    except (struct.error, IndexError):
        return 1


def _without_texts(data):
    """Return a PNG without its texts but the first EXIF block: libpng would unpack, and keep, 1000 of 8 MB each."""
    view, kept, start, position, exif = memoryview(data), [], 0, 8, False
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if data[position + 4 : position + 8] in _PNG_TEXTS:
            if not exif and data.startswith(_EXIF_TEXTS, position + 8):
                exif = True
            else:
                if position > start:
                    kept.append(view[start:position])
                start = end
        position = end
    return b"".join([*kept, view[start:]]) if start else data


def _with_key_colour_alpha(image, data):
    """Add the alpha of a grey PNG whose tRNS chunk names one transparent value: OpenCV drops it."""
    header_end, pixels = 33, data.find(b"IDAT")
    key = data.find(b"tRNS", header_end, pixels)
    if image.ndim != 2 or data[25] != 0 or key < 0:
        return image
    depth, value = data[24], int.from_bytes(data[key + 4 : key + 6], "big")
    if depth < 8:
        value = value * 255 // (2**depth - 1)
    full = np.iinfo(image.dtype).max
    alpha = np.where(image == value, 0, full).astype(image.dtype)
    return np.dstack([image, image, image, alpha])


def _straight(image, data):
    """Undo the multiplication of a TIFF's colours by its alpha."""
    if _tiff_tags(data).get(_SAMPLES_PER_PIXEL, 1) == 2:
        raise ImageError("Expected a TIFF of 1, 3 or 4 channels; received grey with alpha. Convert it to PNG.")
    if image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        return image
    alpha = np.maximum(image[..., 3:], 1).astype(np.float32)
    colours = np.minimum(np.rint(image[..., :3] * (255 / alpha)), 255).astype(np.uint8)
    return np.dstack([colours, image[..., 3]])


def _photo(image, icc):
    if image.dtype == np.uint16:
        image = scale_to_8_bits(image)
    elif image.dtype != np.uint8:
        raise ImageError(f"Expected 8 or 16 bits a channel; received {image.dtype}. Convert it to 16-bit PNG.")
    if icc and icc[16:20] != b"RGB ":  # a grey or CMYK profile says nothing of the RGB that we hold
        icc = None
    if image.ndim == 2:
        return Photo(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), None, icc)
    if image.shape[2] == 4:
        rgba = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)
        alpha = np.ascontiguousarray(rgba[..., 3])
        return Photo(np.ascontiguousarray(rgba[..., :3]), None if alpha.min() == 255 else alpha, icc)
    return Photo(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), None, icc)


def _upright(image, orientation):
    """Apply an EXIF orientation (1 to 8)."""
    if orientation in (5, 6, 7, 8):
        image = cv2.transpose(image)
    if orientation in (2, 3, 6, 7):
        image = cv2.flip(image, 1)
    if orientation in (3, 4, 7, 8):
        image = cv2.flip(image, 0)
    return image


def scale_to_8_bits(image):
    """Return uint16 values, of either byte order, as uint8: 65535 becomes 255, not clipped but rounded."""
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _orientation_of(exif):
    """Return the orientation tag of an EXIF block, 1 where it is missing or broken."""
    try:
        orientation = _tiff_tags(exif.removeprefix(b"Exif\0\0")).get(0x0112, 1)
    except (struct.error, IndexError):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _tiff_tags(data):
    """Return {tag: first value} of the short and long tags in a TIFF structure's first directory."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        return {}
    (offset,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, offset)
    tags = {}
    for entry in range(offset + 2, offset + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if kind in (3, 4):
            (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, entry + 8)
            tags.setdefault(tag, value)  # decoders take the first of a repeated tag, so the size check must too
    return tags


def _jpeg_size(data):
    for marker, position in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
    raise IndexError


def _jpeg_segments(data):
    """Yield (marker, position) of the segments before the pixels; raises `IndexError` where the file is broken."""
    position = 2
    while position < len(data):
        if data[position] != 0xFF:
            raise IndexError
        marker = data[position + 1]
        if marker == 0xDA:  # the pixels
            return
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
        else:
            yield marker, position
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]


def _png_size(data):
    return struct.unpack_from(">II", data, 16)


def _bmp_size(data):
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == 12:  # OS/2
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)


def _webp_size(data):
    chunk = data[12:16]
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    raise IndexError


def _tiff_size(data):
    tags = _tiff_tags(data)
    return tags.get(0x0100, 0), tags.get(0x0101, 0)


_HEADERS = (
    (b"\xff\xd8\xff", "JPEG", _jpeg_size),
    (b"\x89PNG\r\n\x1a\n", "PNG", _png_size),
    (b"RIFF", "WebP", _webp_size),
    (b"BM", "BMP", _bmp_size),
    (b"II*\0", "TIFF", _tiff_size),
    (b"MM\0*", "TIFF", _tiff_size),
)
