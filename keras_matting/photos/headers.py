"""What image files say before their pixels: format, size, EXIF orientation, segments, chunks, TIFF directories."""

import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TypeAlias

from keras_matting.errors import ImageError
from keras_matting.photos import heif_boxes, pillow

Tags: TypeAlias = Mapping[int, Sequence[int]]  # bytes where a TIFF says that they are bytes
FORMATS = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "AVIF", "HEIC")
_EXIF = b"Exif\0\0"
_ORIENTATION, _EXIF_DIRECTORY = 0x0112, 0x8769
_COLOUR_SPACE, _INTEROPERABILITY, _INTEROPERABILITY_INDEX, _UNCALIBRATED = 0xA001, 0xA005, 1, 0xFFFF
_WEBP_HAS_EXIF = 0x08
_MOST_SEGMENTS = 10_000  # of 64 KiB each; millions of empty ones would only cost time
# As libjpeg finds them: what stands between two is skipped. Restarts, and two more, have no length and no content.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_END, _PIXELS = 0xD9, 0xDA
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_HDR_TRANSFERS = {16: "HDR (PQ)", 18: "HDR (HLG)"}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
# TIFF: bytes and struct's letter of each type of value
_TIFF_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}


def extensions() -> tuple[str, ...]:
    """Return the extensions of the files that can be read here."""
    heif = (".heic", ".heif", ".hif") if find_spec("pillow_heif") else ()
    return (*(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"), *heif)


def probe(data: bytes) -> tuple[str, int, int]:
    """Return (format, width, height) from the first bytes; raises `ImageError` if it is no image we read."""
    kind = _kind_of(data)
    try:
        width, height = _SIZES[kind](data)
    except (struct.error, IndexError, KeyError):
        width = height = 0
    if width < 1 or height < 1:
        raise ImageError(f"Expected a {kind} image with pixels; its header is cut off or says 0x0.")
    return kind, width, height


def exif_orientation(data: bytes) -> int:
    """Return the EXIF orientation (1 to 8) that an image's bytes ask for; 1 where they say nothing.

    HEIC turns its images itself. See `exif_comes_late`.
    """
    return orientation_of(exif_block(data))


def exif_comes_late(kind: str, data: bytes) -> bool:
    """Whether an EXIF block may come after the first bytes, `data`: a TIFF's has the size, too, so it was read."""
    return kind == "AVIF" or (kind == "WebP" and data[12:16] == b"VP8X" and bool(data[20] & _WEBP_HAS_EXIF))


def exif_block(data: bytes) -> bytes:
    """Return the EXIF block of a JPEG, PNG, WebP, TIFF (which is one) or AVIF; empty where there is none."""
    try:
        if data[:2] == b"\xff\xd8":
            segments = (
                slice(at + 4, at + 2 + jpeg_length(data, at)) for marker, at in jpeg_segments(data) if marker == 0xE1
            )
            return next((data[segment] for segment in segments if data.startswith(_EXIF, segment.start)), b"")
        if data[:4] == b"\x89PNG":
            return next((data[at:end] for name, at, end in png_header(data) if name == b"eXIf"), b"")
        kind = _kind_of(data)
        if kind == "WebP":
            return next((data[at:end] for name, at, end in _webp_chunks(data) if name == b"EXIF"), b"")
        if kind == "AVIF":
            return pillow.open_avif(data).info.get("exif", b"")
        return data if kind == "TIFF" else b""
    except (struct.error, IndexError, ImageError):
        return b""


def orientation_of(exif: bytes) -> int:
    """Return the orientation tag of an EXIF block, 1 where it is missing or broken."""
    try:
        directory = tiff_directory(exif.removeprefix(_EXIF), {_ORIENTATION})
        orientation = directory.get(_ORIENTATION, (1,))[0]
    except (struct.error, IndexError, ValueError):
        return 1
    return orientation if orientation in range(1, 9) else 1


def is_adobe_rgb(exif: bytes) -> bool:
    """Whether an EXIF block says so, as cameras' do (DCF 2.0), most without an ICC profile: "R03", and uncalibrated."""
    tiff = exif.removeprefix(_EXIF)
    try:
        (start, *_) = tiff_directory(tiff, {_EXIF_DIRECTORY})[_EXIF_DIRECTORY]
        tags = tiff_directory(tiff, {_COLOUR_SPACE, _INTEROPERABILITY}, start)
        (start, *_) = tags[_INTEROPERABILITY]
        index = tiff_directory(tiff, {_INTEROPERABILITY_INDEX}, start)[_INTEROPERABILITY_INDEX]
        return bytes(index[:3]) == b"R03" and tags[_COLOUR_SPACE][0] == _UNCALIBRATED
    except (struct.error, IndexError, KeyError, OverflowError):
        return False


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, position) of the segments before the pixels; raises `IndexError` where the file is broken."""
    for marker, position in jpeg_markers(data):
        if marker == _PIXELS:
            return
        if marker == _END:
            break
        yield marker, position
    raise IndexError


def jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, position) of what has a length, and of the end of the image."""
    position = 2
    for _ in range(_MOST_SEGMENTS):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            return
        marker, position = found[1][0], found.end() - 2
        yield marker, position
        if marker == _END:
            return
        position += 2 + jpeg_length(data, position)
    raise ImageError(f"Expected a JPEG of at most {_MOST_SEGMENTS} segments; received more. Save it again.")


def jpeg_length(data: bytes, position: int) -> int:
    """Return the length that the segment at a position says."""
    (length,) = struct.unpack_from(">H", data, position + 2)
    if length < 2:
        raise IndexError
    return length


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of the content of a PNG's chunks, as far as they are whole."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return
        yield bytes(data[position + 4 : position + 8]), position + 8, end
        position = end + 4


def png_header(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of the chunks before the pixels."""
    for name, start, end in png_chunks(data):
        if name == b"IDAT":
            return
        yield name, start, end


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    position = 12
    while position + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, position + 4)
        yield bytes(data[position : position + 4]), position + 8, position + 8 + length
        position += 8 + length + length % 2


def code_points(kind: str, data: bytes) -> tuple[int, int] | None:
    """Return the numbers (ITU-T H.273) of primaries and transfer function in a PNG's cICP, or in an "nclx".

    In that of an AVIF's or HEIC's primary image. None where there is none.
    """
    if kind == "PNG":
        chunk = next((data[at:end] for name, at, end in png_header(data) if name == b"cICP"), b"")
        return (chunk[0], chunk[1]) if len(chunk) == 4 else None
    boxes = heif_boxes.colour_boxes(data) if kind in ("AVIF", "HEIC") else []
    return next((struct.unpack_from(">2H", box, 4) for box in boxes if box[:4] == b"nclx" and len(box) >= 8), None)


def require_standard_range(kind: str, data: bytes) -> None:
    """Raise `ImageError` where a file says that it holds high dynamic range: read plainly, it is dull."""
    _, transfer = code_points(kind, data) or (None, None)
    if transfer in _HDR_TRANSFERS:
        raise ImageError(
            f"Expected a {kind} of standard dynamic range; received {_HDR_TRANSFERS[transfer]}. Save it as SDR."
        )


def tiff_directory(data: bytes, wanted: Collection[int], start: int | None = None) -> Tags:
    """Return {tag: values} of whole numbers, or bytes, of the wanted tags in a TIFF structure's first directory.

    Or in the one at `start`, a position.
    Of a repeated tag, the first: decoders take it, so the checks must too. One without values is none.
    Raises `struct.error` where it is cut off.
    """
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        return {}
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    count_format, entry_bytes, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    if start is None:
        (start,) = struct.unpack_from(order + offset_format, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_format, data, start)
    start += struct.calcsize(order + count_format)
    if start + count * entry_bytes > len(data):
        raise struct.error
    tags: dict[int, Sequence[int]] = {}
    for at in range(start, start + count * entry_bytes, entry_bytes):
        tag, kind, length = struct.unpack_from(f"{order}HH{offset_format}", data, at)
        if tag in wanted and kind in _TIFF_TYPES and length and tag not in tags:
            tags[tag] = _tiff_values(data, at + (12 if big else 8), order, kind, length, offset_format)
    return tags


def _tiff_values(data: bytes, at: int, order: str, kind: int, length: int, offset_format: str) -> Sequence[int]:
    letter = _TIFF_TYPES[kind]
    size = struct.calcsize(f"{order}{letter}") * length
    if size > struct.calcsize(order + offset_format):
        (at,) = struct.unpack_from(order + offset_format, data, at)
    if at + size > len(data):
        raise struct.error
    if letter == "B":
        return bytes(data[at : at + size])
    return struct.unpack_from(f"{order}{length}{letter}", data, at)


def _kind_of(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    for signature, kind in _SIGNATURES:
        if data[: len(signature)] == signature:
            return kind
    if data[4:8] == b"ftyp":
        # A file may name several brands; still AVIF images call themselves mif1 as well.
        end = min(int.from_bytes(data[:4], "big"), 4096)
        brands = {bytes(data[at : at + 4]) for at in range(8, end, 4) if at != 12}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIC"
    if not data:
        raise ImageError("Expected an image; the file is empty.")
    raise ImageError(f"Expected an image ({', '.join(FORMATS)}); received something else. Convert it first.")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, position in jpeg_segments(data):
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
    raise IndexError


def _png_size(data: bytes) -> tuple[int, int]:
    return struct.unpack_from(">II", data, 16)


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == 12:  # OS/2
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)


def _webp_size(data: bytes) -> tuple[int, int]:
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


def _tiff_size(data: bytes) -> tuple[int, int]:
    tags = tiff_directory(data, {0x0100, 0x0101})
    return tags[0x0100][0], tags[0x0101][0]


def _avif_size(data: bytes) -> tuple[int, int]:
    return pillow.open_avif(data).size


def _heif_size(data: bytes) -> tuple[int, int]:
    return pillow.open_heif(data).size


_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0\x08\0\0\0", "TIFF"),  # BigTIFF
    (b"MM\0+\0\x08\0\0", "TIFF"),
)
_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "JPEG": _jpeg_size,
    "PNG": _png_size,
    "WebP": _webp_size,
    "BMP": _bmp_size,
    "TIFF": _tiff_size,
    "AVIF": _avif_size,
    "HEIC": _heif_size,
}
