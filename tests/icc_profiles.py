"""ICC profiles, made by bytes (ICC.1): matrices with curves, tables that lead one way only, grey and inks."""

import struct

import numpy as np

# Colourants as they are seen under D50, columns of red, green and blue in XYZ
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
D50 = (0.9642, 1.0, 0.8249)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
GRID, INK_GRID = 17, 9


def matrix_profile(colourants, curve, description="", version=2, black=None):
    """Return an RGB profile; `curve` is an exponent, or the five parameters of a curve with a linear part."""
    tags = {b"desc": _text(description, version), b"wtpt": _xyz(D50)}
    for name, colourant in zip("rgb", colourants, strict=True):
        tags[f"{name}XYZ".encode()], tags[f"{name}TRC".encode()] = _xyz(colourant), _curve(curve)
    if black:
        tags[b"bkpt"] = _xyz(black)
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags, version)


def table_profile(colourants, exponent):
    """Return an RGB profile of a scanner: a table from numbers to Lab, and none back."""
    light = _grid(3, GRID) ** exponent
    return _profile(b"scnr", b"RGB ", b"Lab ", _table_tags("Scanner", light @ np.array(colourants), 3, GRID), 2)


def ink_profile(covers=(0.9, 0.8, 0.7), black=0.95):
    """Return a profile of four inks, each of which takes so much of the light of red, green and blue, black of all."""
    inks = _grid(4, INK_GRID)
    light = (1 - inks[:, :3] * covers) * (1 - inks[:, 3:] * black)
    return _profile(b"prtr", b"CMYK", b"Lab ", _table_tags("Inks", light @ np.array(SRGB), 4, INK_GRID), 2)


def _grid(channels, side):
    """Return every combination of `side` steps from 0 to 1, the last channel's first: (side ** channels, channels)."""
    steps = [np.linspace(0, 1, side)] * channels
    return np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, channels)


def _table_tags(name, xyz, channels, side):
    """Return the tags of a profile that leads from a grid of numbers to XYZ under D50 (N, 3), stored as Lab."""
    t = xyz / D50
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    encoded = np.stack([lab[:, 0] * 652.8, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], axis=1)
    table = np.clip(np.rint(encoded), 0, 65535).astype(">u2").tobytes()
    identity = b"".join(struct.pack(">i", 65536 * (index in (0, 4, 8))) for index in range(9))
    ramp = struct.pack(">2H", 0, 65535)
    lut = b"mft2\0\0\0\0" + bytes((channels, 3, side, 0)) + identity + struct.pack(">2H", 2, 2)
    return {
        b"desc": _text(name, 2),
        b"wtpt": _xyz(D50),
        b"A2B0": lut + ramp * channels + table + ramp * 3,
    }


def grey_profile(exponent):
    """Return a profile of one channel."""
    tags = {b"desc": _text("Grey", 2), b"wtpt": _xyz(D50), b"kTRC": _curve(exponent)}
    return _profile(b"mntr", b"GRAY", b"XYZ ", tags, 2)


def _profile(kind, space, connection, tags, version):
    """Return header, table of tags and tags; the equal ones are stored once each, which is allowed."""
    position, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += struct.pack(">4s2I", name, position + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = position + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", version << 24, kind, space, connection)
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(D50)
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + body


def _text(text, version):
    if version < 4:
        return b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text.encode() + b"\0" + bytes(78)
    utf16 = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">2I4s2I", 1, 12, b"enUS", len(utf16), 28) + utf16


def _curve(curve):
    if isinstance(curve, tuple):
        return b"para\0\0\0\0" + struct.pack(">2H", 3, 0) + _fixed(curve)
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(curve * 256))


def _xyz(values):
    return b"XYZ \0\0\0\0" + _fixed(values)


def _fixed(values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)
