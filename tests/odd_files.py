"""PNG, BMP and JPEG files of every kind, written byte by byte and by nothing that reads them."""

import struct
import zlib

import numpy as np
from bad_photos import chunk

# x, y of the first pixel and the steps of PNG's seven passes
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG = b"\x89PNG\r\n\x1a\n"


def png(samples, bits, colour_type, *chunks, interlaced=False, edit=lambda pixels: pixels):
    """Return a PNG of samples (H, W, samples). `edit`: what is done to its compressed pixels."""
    height, width, _ = samples.shape
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in _PASSES] if interlaced else [samples]
    rows = b"".join(b"\0" + row for part in passes if part.size for row in packed_rows(part, bits))
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    pixels = chunk(b"IDAT", edit(zlib.compress(rows)))
    return _PNG + chunk(b"IHDR", header) + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def packed_rows(samples, bits):
    """Return the rows' bytes; samples below 8 bits share them."""
    if bits >= 8:
        return [row.astype(f">u{bits // 8}").tobytes() for row in samples]
    ones = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return [np.packbits(row.ravel()).tobytes() for row in ones]


def bmp(header_bytes, rows, size, bits, compression=0, *, top_down=False, masks=None, palette=None):
    """Return a BMP. `rows`: bytes each, from the top, or the compressed bytes of all. `masks`: of up to 4 channels."""
    width, height = size
    if isinstance(rows, list):
        rows = b"".join(row + bytes(-len(row) % 4) for row in (rows if top_down else rows[::-1]))
    entry = b"" if header_bytes == 12 else b"\0"
    colours = b"" if palette is None else b"".join(bytes(colour[::-1]) + entry for colour in palette.tolist())
    after = b""
    if header_bytes == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        tall = -height if top_down else height
        sizes = (len(rows), 2835, 2835, 0 if palette is None else len(palette), 0)
        header = struct.pack("<IiiHHIIiiII", header_bytes, width, tall, 1, bits, compression, *sizes)
        masks = struct.pack("<4I", *(masks or (0, 0, 0, 0)))
        if header_bytes == 40:
            after = masks[:12] if compression == 3 else b""
        else:
            header = (header + masks)[:header_bytes].ljust(header_bytes, b"\0")
        header = header[:16] if header_bytes == 16 else header
    start = 14 + len(header) + len(after) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + after + colours + rows


def jpeg(samplings, width=100, height=70, names=(1, 2, 3, 4), adobe=None, extreme=False):
    """Return a baseline JPEG of flat blocks. `samplings`: (across, down) of each component; `adobe`: its transform.

    `extreme`: whether blocks differ by all that they can, which makes bytes of FF.
    """
    across, down = (max(factors) for factors in zip(*samplings, strict=True))
    alone = len(samplings) == 1  # its sampling has no meaning then
    blocks = 1 if alone else sum(x * y for x, y in samplings)
    units = -(-width // (8 if alone else 8 * across)) * -(-height // (8 if alone else 8 * down))
    random, bits = np.random.default_rng(0), ""
    for _ in range(units * blocks):  # a difference, or none; then the block's end
        difference = "01"[random.integers(2)] * 11 if extreme else f"{random.integers(0, 32):05b}"
        bits += f"10{difference}0" if random.random() < 0.3 else "00"
    bits += "1" * (-len(bits) % 8)
    pixels = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    components = list(zip(names, samplings, strict=False))
    frame = b"".join(bytes([name, x << 4 | y, 0]) for name, (x, y) in components)
    scan = b"".join(bytes([name, 0]) for name, _ in components)
    segments = [] if adobe is None else [(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe]))]
    segments += [(0xDB, b"\0" + bytes([16]) * 64)]
    segments += [(0xC0, struct.pack(">BHHB", 8, height, width, len(samplings)) + frame)]
    segments += [
        (0xC4, b"\x00\1\1" + bytes(14) + bytes([0, 11 if extreme else 5])),
        (0xC4, b"\x10\1" + bytes(15) + b"\x00"),
    ]
    segments += [(0xDA, bytes([len(samplings)]) + scan + b"\0\x3f\0")]
    head = b"".join(struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content for kind, content in segments)
    return b"\xff\xd8" + head + pixels + b"\xff\xd9"
