"""Colours that a file states without an ICC profile, as one.

PNG (third edition) does so by cICP, sRGB, gAMA and cHRM, AVIF and HEIC by an "nclx", a camera's JPEG by "R03" in its
EXIF block (DCF 2.0: Adobe RGB). cICP and nclx name primaries and a transfer function by numbers of ITU-T H.273. The
profile is a matrix with curves (ICC.1:2022), of the chromaticities adapted to D50 by Bradford's matrix.
"""

import struct
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from keras_matting.arrays import Float64
from keras_matting.photos.headers import code_points, is_adobe_rgb, png_header

_Chromaticities: TypeAlias = tuple[float, ...]  # x and y of white, red, green and blue
_Curve: TypeAlias = tuple[float, ...]  # an exponent alone, or followed by a, b, c, d of a curve with a linear part

_D65 = (0.3127, 0.3290)
_BT709 = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_PRIMARIES: dict[int, _Chromaticities] = {
    1: _BT709,
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),  # BT.601 of 625 lines
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),  # BT.601 of 525 lines
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),  # DCI-P3
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),  # Display P3
}
_SRGB_CURVE: _Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# A camera's curve (1, 6, 14, 15) is not what displays invert: viewers show such files as if they had sRGB's.
_CURVES: dict[int, _Curve] = {4: (2.2,), 5: (2.8,), 8: (1.0,)} | dict.fromkeys((1, 6, 13, 14, 15), _SRGB_CURVE)
_ADOBE_EXPONENT = 563 / 256
_SRGB_GAMMA, _NEARLY = 1 / 2.2, 0.02  # what PNGs said for sRGB's curve before they had a word for it
_MOST = 8  # of a matrix: what real colours need is below 2
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([(0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)])


def profile(kind: str, data: bytes, icc: bytes | None) -> bytes | None:
    """Return the profile by which a file's colours are read; `icc`: its own, or what EXIF states. None is sRGB.

    Only a PNG's cICP goes before that.
    """
    named = _named(kind, data)
    if icc and not (kind == "PNG" and named):
        return icc
    if named:
        return _profile(*named)
    return _of_png_chunks(data) if kind == "PNG" else None


def of_exif(exif: bytes) -> bytes | None:
    """Return the profile that a camera's EXIF block states, None for sRGB."""
    return _profile(_ADOBE_RGB, (_ADOBE_EXPONENT,)) if is_adobe_rgb(exif) else None


def _named(kind: str, data: bytes) -> tuple[_Chromaticities, _Curve] | None:
    """Return what cICP or an "nclx" names; None where there is none, or a number that is not known."""
    primaries, transfer = code_points(kind, data) or (None, None)
    if primaries in _PRIMARIES and transfer in _CURVES:
        return _PRIMARIES[primaries], _CURVES[transfer]
    return None


def _of_png_chunks(data: bytes) -> bytes | None:
    """Return the profile that a PNG's gAMA and cHRM make up; the chunk sRGB goes before both."""
    chunks = {name: data[start:end] for name, start, end in png_header(data)}
    gamma, chromaticities = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    if b"sRGB" in chunks or len(gamma) != 4 or not any(gamma):
        return None
    exponent = 1e5 / struct.unpack(">I", gamma)[0]
    curve = _SRGB_CURVE if abs(1 / exponent - _SRGB_GAMMA) <= _NEARLY else (exponent,)
    values = tuple(each / 1e5 for each in struct.unpack(">8I", chromaticities)) if len(chromaticities) == 32 else _BT709
    return _profile(values, curve)


@lru_cache(16)
def _profile(chromaticities: _Chromaticities, curve: _Curve) -> bytes | None:
    """Return an ICC profile; None for sRGB, and where chromaticities span no colours or a curve cannot be told."""
    is_srgb = curve == _SRGB_CURVE and np.abs(np.subtract(chromaticities, _BT709)).max() < 1e-3
    if is_srgb or not 0.1 <= curve[0] <= 10:
        return None
    try:
        colourants, adaptation = _adapted(chromaticities)
    except np.linalg.LinAlgError:
        return None
    if not (np.abs([colourants, adaptation]) < _MOST).all():
        return None
    tags = {b"desc": _text("Colours as the file states them"), b"cprt": _text("CC0"), b"wtpt": _xyz(_D50)}
    tags[b"chad"] = b"sf32\0\0\0\0" + _fixed(*adaptation.ravel())
    for channel, colourant in zip("rgb", colourants.T, strict=True):
        tags[f"{channel}XYZ".encode()] = _xyz(colourant)
        tags[f"{channel}TRC".encode()] = (
            b"para\0\0\0\0" + struct.pack(">2H", 3 if len(curve) > 1 else 0, 0) + _fixed(*curve)
        )
    return _written(tags)


def _adapted(chromaticities: _Chromaticities) -> tuple[Float64, Float64]:
    """Return (the colourants under D50, XYZ of red, green and blue as columns; the matrix that adapts to D50)."""
    x, y = np.array(chromaticities).reshape(4, 2).T
    if not ((y > 0) & (x <= 1) & (y <= 1)).all():
        raise np.linalg.LinAlgError
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    white, primaries = xyz[:, 0], xyz[:, 1:]
    colourants = primaries * np.linalg.solve(primaries, white)
    gains = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adaptation = np.linalg.solve(_BRADFORD, gains[:, None] * _BRADFORD)
    return adaptation @ colourants, adaptation


def _written(tags: dict[bytes, bytes]) -> bytes:
    """Return the bytes of a display's RGB profile, version 4."""
    position, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += struct.pack(">4s2I", name, position + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", position + len(body), b"", 4 << 24, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(*_D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _text(text: str) -> bytes:
    utf16 = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">2I4s2I", 1, 12, b"enUS", len(utf16), 28) + utf16


def _xyz(values: tuple[float, ...] | Float64) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _fixed(*values: float) -> bytes:
    """Return numbers as ICC's s15Fixed16."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)
