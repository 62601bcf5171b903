"""A mark in every image that is written for a user: that it is ours, of which photo, and how it was made.

By it a file of somebody else's is not overwritten, and a run that goes on knows what to make anew. It moves with the
file that it is in: PNG has it as a text, JPEG as a comment, WebP as a chunk of its own. Names stand in it as digests.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from keras_matting.arrays import Uint8
from keras_matting.files import StrPath, is_stream, name_bytes, printable
from keras_matting.photos.files import Photo

if TYPE_CHECKING:
    from keras_matting.model_folder import Preset
from keras_matting.photos.options import Options

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


def made_of(path: StrPath, data: bytes) -> Mark:
    """Return what identifies a photo: its name, and the bytes of its file."""
    return {"name": name_digest(path), "photo": _digest(data)}


def name_digest(path: StrPath) -> str:
    """Return the digest of a file's name, without its folder."""
    return _digest(name_bytes(Path(path).name))


def why_otherwise(mark: Mark | None, wanted: Mark) -> str | None:
    """Return in a few words why an output with this mark is not what is `wanted` (made_by and made_of), else None."""
    if not mark:
        return "of unknown making"
    return next((reason for key, reason in _REASONS.items() if mark.get(key) != wanted.get(key)), None)


def why_not_own(target: StrPath, photo: StrPath | None = None) -> str | None:
    """Return why a file that is there must not be replaced: it is no output of ours, or one of another photo's.

    None where it may be, or where there is none.
    """
    target = Path(target)
    if not target.is_file():
        return None
    mark = read_mark(target)
    if mark is None:
        return f"{printable(target)} exists and was not made by keras-matting"
    if photo is not None and mark.get("name", name_digest(photo)) != name_digest(photo):
        return f"{printable(target)} exists and was made of another photo than {printable(photo)}"
    return None


def marked(data: bytes, mark: Mark) -> bytes:
    """Return a PNG's, JPEG's or WebP's bytes with a mark, a dictionary of plain values, instead of what it had."""
    text = _KEYWORD + json.dumps(mark).encode()
    if data[:4] == b"\x89PNG":
        end = 33  # of the header
        chunk = b"tEXt" + text
        return b"".join([data[:end], struct.pack(">I", len(text)), chunk, _crc(chunk), data[end:]])
    if data[:2] == b"\xff\xd8":
        start = 4 + struct.unpack_from(">H", data, 4)[0] if data[2:4] == b"\xff\xe0" else 2  # after JFIF's segment
        return b"".join([data[:start], b"\xff\xfe", struct.pack(">H", 2 + len(text)), text, data[start:]])
    if data[:4] == b"RIFF":
        return _marked_webp(data, text)
    return data


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


def _marked_webp(data: bytes, text: bytes) -> bytes:
    """Put the mark into a chunk before the pixels, which only WebP's extended form has room for."""
    chunk = _WEBP_CHUNK + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
    if data[12:16] == b"VP8X":
        header, rest = data[12:_WEBP_HEADER], data[_WEBP_HEADER:]
    else:
        flags, width, height = _webp_header(data)
        sides = [(side - 1).to_bytes(3, "little") for side in (width, height)]
        header, rest = b"VP8X" + struct.pack("<II", 10, flags) + b"".join(sides), data[12:]
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
