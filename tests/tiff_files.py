"""TIFF files of every layout, written byte by byte and by nothing that reads them."""

import struct
import zlib

import numpy as np

NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5


def tiff(samples, photometric, bits=8, **options):
    """Return a TIFF of samples (H, W, samples), values of `bits` bits.

    Options: `planar`, `extra` (ExtraSamples), `compression`, `tile` (a side), `rows` a strip, `predictor`, `order`,
    `big` (BigTIFF), `tags` {tag: numbers, or bytes} to add or change.
    """
    order, big, tile = options.get("order", "<"), options.get("big", False), options.get("tile")
    height, width, count = samples.shape
    planes = np.moveaxis(samples, 2, 0)[..., None] if options.get("planar") else [samples]
    rows = tile or options.get("rows", 7)
    columns = tile or width
    chunks = []
    for plane in planes:
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                part = plane[top : top + rows, left : left + columns]
                if tile:
                    part = np.pad(part, ((0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0)))
                chunks.append(compressed(packed(part, bits, order, options.get("predictor", 1)), options))
    tags = {256: width, 257: height, 258: [bits] * count, 259: options.get("compression", NONE), 262: photometric}
    tags |= {277: count, 284: 2 if options.get("planar") else 1, 317: options.get("predictor", 1)}
    tags |= {322: tile, 323: tile} if tile else {278: rows}
    tags |= {338: options["extra"]} if "extra" in options else {}
    return directory(tags | options.get("tags", {}), chunks, order, big, tile)


def packed(part, bits, order, predictor):
    """Return a strip's or tile's bytes before compression."""
    if predictor == 2:
        part = np.concatenate([part[:, :1], part[:, 1:].astype(int) - part[:, :-1]], axis=1) % 2**bits
    if bits >= 8:
        return part.astype(f"{order}u{bits // 8}").tobytes()
    ones = np.unpackbits(part.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return np.packbits(ones.reshape(len(part), -1), axis=1).tobytes()


def compressed(data, options):
    kind = options.get("compression", NONE)
    return {NONE: bytes, LZW: lzw, DEFLATE: zlib.compress, PACKBITS: packbits}.get(kind, bytes)(data)


def lzw(data):
    """Return TIFF's LZW of bytes as nothing but literals: the table is cleared before codes grow to ten bits."""
    codes = []
    for at in range(0, len(data), 200):
        codes += [256, *data[at : at + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def packbits(data):
    return b"".join(bytes([len(data[at : at + 128]) - 1]) + data[at : at + 128] for at in range(0, len(data), 128))


def directory(tags, chunks, order="<", big=False, tile=None):
    """Return a TIFF of tags and the bytes of its strips or tiles."""
    number, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    offsets, counts = (324, 325) if tile else (273, 279)
    body, where = bytearray(), []
    start = 16 if big else 8
    for chunk in chunks:
        where.append(start + len(body))
        body += chunk + bytes(len(chunk) % 2)
    tags = {offsets: where, counts: [len(chunk) for chunk in chunks]} | tags
    tags = {tag: value for tag, value in tags.items() if value is not None}
    size, entries = struct.calcsize(number), []
    for tag in sorted(tags):
        value = tags[tag]
        value = value if isinstance(value, (bytes, list, tuple)) else [value]
        kind, letter = (7, "B") if isinstance(value, bytes) else (3, "H") if max(value, default=0) < 65536 else (4, "I")
        content = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}{letter}", *value)
        if len(content) > size:
            place = struct.pack(order + number, start + len(body))
            body += content + bytes(len(content) % 2)
        else:
            place = content.ljust(size, b"\0")
        entries.append(struct.pack(f"{order}HH{number}", tag, kind, len(value)) + place)
    assert all(len(one) == entry for one in entries)
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}H", 43 if big else 42)
    head += struct.pack(f"{order}HH", 8, 0) if big else b""
    head += struct.pack(order + number, start + len(body))
    return bytes(head + body + struct.pack(order + count, len(entries)) + b"".join(entries) + bytes(size))
