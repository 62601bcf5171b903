"""JPEG files, by libjpeg-turbo in its strict mode: half a photo is no photo (ITU-T T.81; ICC.1, annex B.4).

OpenCV swallows libjpeg's warnings, and with them what says that pixels are missing. simplejpeg hands them over, and is
no slower: its answer is OpenCV's, bit for bit.
"""

import io
import re
import struct

import cv2
import numpy as np
import simplejpeg

from keras_matting.arrays import Uint8
from keras_matting.errors import ImageError
from keras_matting.photos import colour_profiles, stated_colours
from keras_matting.photos.headers import FRAMES, exif_block, jpeg_length, jpeg_markers, jpeg_segments, orientation_of

MAX_SCANS = 200  # encoders write about ten; each costs the decoder a pass over the image, however few its bytes
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_ARITHMETIC = {0xC9, 0xCA}
_PIXELS, _ICC, _END = 0xDA, 0xE2, b"\xff\xd9"
_ICC_NAME = b"ICC_PROFILE\0"
_ICC_SEGMENT = 65519  # bytes: 65,535 less the length, the name and two numbers
_TABLES = {0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE}  # and what JFIF and Adobe say of the colours
_STRAY = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
# Of libjpeg's warnings, those that pixels may be whole behind; each decoding takes its time.
_UNUSUAL = "Could not determine subsampling"
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_CURABLE = re.compile(
    f"{_UNUSUAL}|Adobe color transform|extraneous bytes|Premature end of JPEG file|Invalid SOS|JFIF revision|ICC marker"
)
# What a decoder is given after the last byte. To Huffman's code it differs at once from the zeros that stand in for
# lost bytes. Arithmetic coding leaves zeros at its end out: a whole file's decoder takes some, a cut one's far more.
_AFTER_HUFFMAN = b"\x55" * 64
_AFTER_ARITHMETIC = bytes(16) + _AFTER_HUFFMAN
_SHORT_STRAY = 4  # bytes: some cameras leave that many
_DAMAGED = "Expected a whole JPEG file; this one is truncated or damaged. Save it again."


class ScansError(ImageError):
    """A JPEG of more scans than any encoder writes. `limit`: how many are read."""

    limit = MAX_SCANS


def decode(data: bytes) -> tuple[Uint8, bytes | None, int]:
    """Return (RGB, ICC profile or None, EXIF orientation) of JPEG bytes; inks are in sRGB already.

    What browsers show whole is read: stray bytes between segments, a missing end. Raises `ImageError` where pixels are
    missing, `ScansError` where decoding would take far longer than the size says.
    """
    try:
        colours = "CMYK" if _check_scans(data) == 4 else "RGB"
        icc = _icc_of(data)
    except (IndexError, struct.error):
        raise ImageError(_DAMAGED) from None
    try:
        pixels = simplejpeg.decode_jpeg(data, colours)
    except ValueError as error:
        if not _CURABLE.search(str(error)):
            raise ImageError(_DAMAGED) from None
        pixels = _pixels_of_odd_file(_as_written(data), colours)
    if _is_arithmetic(data):
        _pixels_by_opencv(_as_written(data))  # refuses what ends early: there are no warnings of that
    exif = exif_block(data)
    if colours == "CMYK":
        is_read = pixels.shape[2] == 4  # as Adobe began to write inks: inverted
        inks = cv2.bitwise_not(pixels, dst=pixels) if is_read else _inks_by_pillow(data)
        return colour_profiles.rgb_of_inks(inks, icc), None, orientation_of(exif)
    return pixels, icc or stated_colours.of_exif(exif), orientation_of(exif)


def with_icc(data: bytes, icc: bytes) -> bytes:
    """Return JPEG bytes with an ICC profile in as many segments as it needs."""
    parts = [icc[at : at + _ICC_SEGMENT] for at in range(0, len(icc), _ICC_SEGMENT)]
    if len(parts) > 255:
        raise ImageError(
            f"Expected a colour profile of at most {255 * _ICC_SEGMENT} bytes for a JPEG; received {len(icc)}. "
            "Choose PNG."
        )
    segments = [_segment(_ICC, _ICC_NAME + bytes([number, len(parts)]) + part) for number, part in enumerate(parts, 1)]
    at = next((at for marker, at in jpeg_segments(data) if marker != 0xE0), 2)  # JFIF's own comes first
    return b"".join([data[:at], *segments, data[at:]])


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def _pixels_of_odd_file(data: bytes, colours: str) -> Uint8:
    """Decode what is whole but for bytes before its end that belong to nothing.

    They are left out, not skipped by the decoder: zeros in place of lost pixels are pixels to it, of a kind.
    """
    strays = []
    for candidate in (data, data[:-2].rstrip(data[-3:-2]) + _END):
        try:
            return simplejpeg.decode_jpeg(candidate, colours)
        except ValueError as error:
            if _UNUSUAL in str(error):
                return _pixels_by_opencv(data)
            if not _CURABLE.search(str(error)):
                break
            strays.append(_STRAY.search(str(error)))
    if strays and strays[0] is not None and int(strays[0][1]) <= _SHORT_STRAY:
        try:
            return simplejpeg.decode_jpeg(data, colours, strict=False)
        except ValueError:
            pass
    raise ImageError(_DAMAGED)


def _pixels_by_opencv(data: bytes) -> Uint8:
    """Decode what simplejpeg does not: samplings that hardly any encoder writes.

    OpenCV takes what follows lost pixels for pixels, so two files whose rests differ look different then. Fill bytes at
    the end are left out: after one, what is appended would be a marker.
    """
    body, rest = data[:-2].rstrip(b"\xff"), _AFTER_ARITHMETIC if _is_arithmetic(data) else _AFTER_HUFFMAN
    files = [body + _END, body + rest + _END]
    first, second = (cv2.imdecode(np.frombuffer(file, np.uint8), _AS_STORED) for file in files)
    if first is None or second is None or not np.array_equal(first, second):
        raise ImageError(_DAMAGED)
    return first


def _inks_by_pillow(data: bytes) -> Uint8:
    """Return the inks (H, W, 4), 255 for full ink, of a whole file whose sampling simplejpeg does not read.

    OpenCV has read it, but gives no inks, only what they would be without a profile.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        with JpegImageFile(io.BytesIO(_as_written(data))) as image:
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError):
        raise ImageError(_DAMAGED) from None


def _is_arithmetic(data: bytes) -> bool:
    return any(marker in _ARITHMETIC for marker, _ in jpeg_segments(data))


def _check_scans(data: bytes) -> int:
    """Return the number of components; raise `ImageError` if the scans are too many or leave something out.

    A progressive file that was cut between two scans is no damaged one to a decoder, only a blurred one.
    """
    bits, progressive, scans = {}, False, 0
    for marker, at in jpeg_markers(data):
        if marker in FRAMES:
            if data[at + 4] != 8:
                raise ImageError(f"Expected a JPEG of 8 bits a channel; received {data[at + 4]}. Convert it to PNG.")
            progressive = marker in _PROGRESSIVE
            names = data[at + 10 : at + 10 + 3 * data[at + 9] : 3]
            bits = {name: np.full(64, 255, np.uint8) for name in names}
        elif marker == _PIXELS:
            scans += 1
            if scans > MAX_SCANS:
                raise ScansError(f"Expected a JPEG of at most {MAX_SCANS} scans; received more. Save it again.")
            _note_scan(bits, data, at, progressive)
    if not bits or any(missing.any() for missing in bits.values()):
        raise ImageError(_DAMAGED)
    return len(bits)


def _note_scan(bits: dict[int, Uint8], data: bytes, at: int, progressive: bool) -> None:
    """Note, for each component's 64 coefficients, how many low bits are still to come."""
    count = data[at + 4]
    first, last, low = data[at + 5 + 2 * count], data[at + 6 + 2 * count], data[at + 7 + 2 * count] & 15
    for component in data[at + 5 : at + 5 + 2 * count : 2]:
        if component in bits:
            bits[component][slice(first, last + 1) if progressive else slice(None)] = low if progressive else 0


def _as_written(data: bytes) -> bytes:
    """Return the file as a careful encoder would have written it: tables, frame, scans and an end."""
    parts, start, progressive = [b"\xff\xd8"], None, False
    for marker, at in jpeg_markers(data):
        if start is not None:
            parts.append(data[start:at])  # the scan before ends here
        start = None
        if marker in (*_TABLES, *FRAMES, _PIXELS):
            segment = bytearray(data[at : at + 2 + jpeg_length(data, at)])
            progressive |= marker in _PROGRESSIVE
            if marker == _PIXELS:
                start = at + len(segment)
                if not progressive:
                    segment[-3:] = b"\0\x3f\0"  # nothing else has a meaning, but some writers leave zeros
            elif segment[4:9] == b"JFIF\0":
                segment[9] = 1  # the version: there is no other
            elif segment[4:9] == b"Adobe" and segment[15:16] > b"\2":
                segment[15] = 1  # what unknown colours are taken for: YCbCr
            parts.append(bytes(segment))
    return b"".join([*parts, b"" if start is None else data[start:], _END])


def _icc_of(data: bytes) -> bytes | None:
    """Return the profile that a JPEG's segments make up; None where one is missing."""
    parts: dict[int, bytes] = {}
    count = 0
    for marker, at in jpeg_segments(data):
        content = data[at + 4 : at + 2 + jpeg_length(data, at)] if marker == _ICC else b""
        if content.startswith(_ICC_NAME) and len(content) > len(_ICC_NAME) + 2:
            number, count = content[len(_ICC_NAME) : len(_ICC_NAME) + 2]
            parts.setdefault(number, content[len(_ICC_NAME) + 2 :])
    if parts.keys() != {*range(1, count + 1)}:
        return None
    return b"".join(parts[number] for number in range(1, count + 1))
