"""A mark in every image that is written for a user: that it is ours, of which photo, and how it was made.

By it neither a file of somebody else's nor an output that somebody has retouched is overwritten, and a run that goes on
knows what to make anew. It moves with the file that it is in: PNG has it as a text, JPEG as a comment, WebP as a chunk
of its own. Names stand in it as digests.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from keras_matting.arrays import Uint8
from keras_matting.errors import ImageError
from keras_matting.files import StrPath, is_stream, name_bytes, printable
from keras_matting.photos import files
from keras_matting.photos.files import Photo
from keras_matting.photos.options import Options

if TYPE_CHECKING:
    from keras_matting.model_folder import Preset

Mark: TypeAlias = dict[str, str | bool | float]
_Content: TypeAlias = bytes | Uint8
_KEYWORD = b"keras-matting\0"
_WEBP_CHUNK = b"kmat"
_LONGEST = 1 << 12  # bytes; a mark has a few hundred
_WEBP_ALPHA, _WEBP_HEADER = 0x10, 30
# What an output may have been made otherwise in, in the order in which it is told.
_REASONS = {
    "photo": "other photo",
    "kind": "other kind",
    "background": "other background",
    "refine": "other refinement",
    "foreground": "other foreground",
    "harden": "other hardening",
    "framing": "other framing",
    "model": "other model",
}


def made_by(preset: Preset, options: Options) -> Mark:
    """Return how a model's `Preset` and `OutputOptions` make an output; the engine is not part of it."""
    framing: Mark = {"framing": _digest(repr(options.framing).encode())} if options.framing else {}
    return {
        "kind": options.kind,
        "background": _digest_of_background(options) if options.kind in ("on-color", "on-image") else "",
        "refine": str(options.refine),
        "foreground": bool(options.foreground),
        "harden": bool(options.harden),
        "model": _digest(json.dumps(asdict(preset), sort_keys=True).encode()),
        **framing,
    }


def made_of(path: StrPath | None, data: bytes) -> Mark:
    """Return what identifies a photo: the bytes of its file, its name and its place; None: it came in a stream."""
    named: Mark = {"name": name_digest(path), "place": _place_digest(path)} if path is not None else {}
    return {"photo": _digest(data), **named}


def name_digest(path: StrPath) -> str:
    """Return the digest of a file's name, without its folder."""
    return _digest(name_bytes(Path(path).name))


def _place_digest(path: StrPath) -> str:
    return _digest(name_bytes(Path(path).absolute()))


def why_otherwise(mark: Mark | None, wanted: Mark) -> str | None:
    """Return in a few words why an output with this mark is not what is `wanted` (made_by and made_of), else None."""
    if not mark:
        return "of unknown making"
    return next((reason for key, reason in _REASONS.items() if mark.get(key) != wanted.get(key)), None)


@dataclass(frozen=True)
class Refusal:
    """Why a file that is there must not be replaced, its text, and whether it is the output of another photo."""

    reason: str
    is_of_another: bool = False

    def __str__(self) -> str:
        return self.reason


def why_not_own(target: StrPath, photo: StrPath | None = None, data: bytes | None = None) -> Refusal | None:
    """Return why a file that is there must not be replaced, if so: it is not ours, was changed, or is another photo's.

    `photo`: the path of the photo that is to be matted, None of one out of a stream. `data`: the bytes of its file;
    without them the name alone is compared, which tells less. None where it may be replaced, or where there is none.
    """
    target = Path(target)
    if not target.is_file():
        return None
    mark = read_mark(target)
    if mark is None:
        return Refusal(f"{printable(target)} exists and was not made by keras-matting")
    if _is_retouched(target, mark):
        return Refusal(f"{printable(target)} exists and was changed since keras-matting made it")
    if not _is_of(mark, photo, data):
        name = "this one" if photo is None else printable(photo)
        return Refusal(f"{printable(target)} exists and was made of another photo than {name}", is_of_another=True)
    return None


def _is_of(mark: Mark, photo: StrPath | None, data: bytes | None) -> bool:
    """Tell whether an output was made of a photo: of these bytes, or of what was in its place before it was changed."""
    if data is None:
        return photo is None or mark.get("name", name_digest(photo)) == name_digest(photo)
    has_same_bytes = mark.get("photo") == _digest(data)
    if photo is None or "name" not in mark:
        return has_same_bytes
    has_same_place = mark.get("place", _place_digest(photo)) == _place_digest(photo)  # earlier versions have none
    return mark["name"] == name_digest(photo) and (has_same_bytes or has_same_place)


def _is_retouched(target: Path, mark: Mark) -> bool:
    """Tell whether a whole image stands behind an output's mark that is not what was written there.

    What is damaged is not worth keeping, and of earlier versions' outputs nobody knows.
    """
    if "made" not in mark:
        return False
    try:
        data = target.read_bytes()
        if mark["made"] == _digest(data[_end_of_mark(data) :]):
            return False
        files.decode(data, math.inf)
    except (OSError, ImageError):
        return False
    return True


def marked(data: bytes, mark: Mark) -> bytes:
    """Return a PNG's, JPEG's or WebP's bytes with a mark, a dictionary of plain values.

    What stands behind it is in it as a digest, "made".
    """
    if data[:4] == b"\x89PNG":
        head, rest = data[:33], data[33:]  # of the header
        chunk = b"tEXt" + _text(mark, rest)
        return b"".join([head, struct.pack(">I", len(chunk) - 4), chunk, _crc(chunk), rest])
    if data[:2] == b"\xff\xd8":
        start = 4 + struct.unpack_from(">H", data, 4)[0] if data[2:4] == b"\xff\xe0" else 2  # after JFIF's segment
        text = _text(mark, data[start:])
        return b"".join([data[:start], b"\xff\xfe", struct.pack(">H", 2 + len(text)), text, data[start:]])
    if data[:4] == b"RIFF":
        return _marked_webp(data, mark)
    return data


def _text(mark: Mark, rest: bytes) -> bytes:
    return _KEYWORD + json.dumps(mark | {"made": _digest(rest)}).encode()


def _end_of_mark(data: bytes) -> int:
    """Return where, in a file with a mark, what `marked` put there ends."""
    start = data.find(_KEYWORD)
    if data[:4] == b"\x89PNG":
        (length,) = struct.unpack_from(">I", data, start - 8)
        return start + length + 4  # its checksum
    if data[:2] == b"\xff\xd8":
        (length,) = struct.unpack_from(">H", data, start - 2)
        return start - 2 + length
    (length,) = struct.unpack_from("<I", data, start - 4)
    return start + length + length % 2


def read_mark(path: StrPath) -> Mark | None:
    """Return the mark of an image file, or None if it has none or cannot be read."""
    try:
        if is_stream(path):  # nobody may write to it, and it has nothing of ours
            return None
        with Path(path).open("rb") as file:
            data = file.read(_LONGEST)
    except OSError:
        return None
    start = data.find(_KEYWORD)
    if start < 0:
        return None
    try:
        mark, _ = json.JSONDecoder().raw_decode(data[start + len(_KEYWORD) :].decode("latin-1"))
    except ValueError:
        return None
    return mark if isinstance(mark, dict) else None


def confidence_in(path: StrPath) -> float | None:
    """Return how sure the matte was that an output was made with, or None where the file does not tell."""
    told = (read_mark(path) or {}).get("confidence")
    return told if isinstance(told, float) and 0 <= told <= 1 else None


def is_marked(data: bytes) -> bool:
    """Tell whether the first bytes of a file have a mark."""
    return _KEYWORD in data


def _marked_webp(data: bytes, mark: Mark) -> bytes:
    """Put the mark into a chunk before the pixels, which only WebP's extended form has room for."""
    if data[12:16] == b"VP8X":
        header, rest = data[12:_WEBP_HEADER], data[_WEBP_HEADER:]
    else:
        flags, width, height = _webp_header(data)
        sides = [(side - 1).to_bytes(3, "little") for side in (width, height)]
        header, rest = b"VP8X" + struct.pack("<II", 10, flags) + b"".join(sides), data[12:]
    text = _text(mark, rest)
    chunk = _WEBP_CHUNK + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
    body = b"WEBP" + header + chunk + rest
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_header(data: bytes) -> tuple[int, int, int]:
    """Return (flags of the extended form, width, height) of a WebP of one chunk, lossless or not."""
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return _WEBP_ALPHA * (bits >> 28 & 1), (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return 0, width & 0x3FFF, height & 0x3FFF


def _digest_of_background(options: Options) -> str:
    if isinstance(options.background, Photo):
        alpha = b"" if options.background.alpha is None else np.ascontiguousarray(options.background.alpha)
        rgb = np.ascontiguousarray(options.background.rgb)
        return _digest(str(rgb.shape).encode(), rgb, alpha, options.background.icc or b"")
    array = np.ascontiguousarray(options.background)
    array = array.astype(np.uint8) if array.ndim == 1 else array
    return _digest(str(array.shape).encode(), array)


def _digest(*parts: _Content) -> str:
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _crc(chunk: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(chunk))
