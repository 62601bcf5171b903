"""What the boxes of an AVIF or HEIC say of its primary image (ISO/IEC 14496-12 and 23008-12).

A file holds several: thumbnails, depth, gain maps, and derived ones in high dynamic range, each with properties of its
own, in one list that all share.
"""

import struct
from collections.abc import Iterator

_FULL = 4  # bytes: version and flags
_MOST_BOXES = 10_000  # in one
_CONTAINERS = {b"meta": _FULL, b"iprp": 0, b"ipco": 0, b"iref": _FULL}


def colour_boxes(data: bytes) -> list[bytes]:
    """Return the contents of the primary image's "colr" boxes, its tiles' where it has none itself.

    Empty where there are none, or where boxes are damaged.
    """
    try:
        return _colour_boxes(data)
    except (struct.error, IndexError, KeyError):
        return []


def _colour_boxes(data: bytes) -> list[bytes]:
    meta = _children(data, _first(_boxes(data, 0, len(data)), b"meta"))
    at, _ = _first(meta, b"pitm")
    (primary,) = struct.unpack_from(">I" if data[at] else ">H", data, at + _FULL)
    within = _children(data, _first(meta, b"iprp"))
    properties = _children(data, _first(within, b"ipco"))
    associated = [pair for kind, start, end in within if kind == b"ipma" for pair in _associations(data, start)]
    for items in ({primary}, _tiles(data, meta, primary)):
        indices = [index for item, index in associated if item in items and 0 < index <= len(properties)]
        found = [properties[index - 1] for index in dict.fromkeys(indices)]
        if colours := [data[start:end] for kind, start, end in found if kind == b"colr"]:
            return colours
    return []


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of the content of each box in a place."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = start + size if size else end
        if not content <= stop <= end:
            return
        yield kind, content, stop
        start = stop


def _children(data: bytes, box: tuple[int, int]) -> list[tuple[bytes, int, int]]:
    return list(_boxes(data, *box))


def _first(boxes: Iterator[tuple[bytes, int, int]] | list[tuple[bytes, int, int]], wanted: bytes) -> tuple[int, int]:
    """Return (start, end) of the first box of a type, behind its version; raises `KeyError` where there is none."""
    for kind, start, end in boxes:
        if kind == wanted:
            return start + _CONTAINERS.get(kind, 0), end
    raise KeyError(wanted)


def _associations(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Yield (item, index of a property, from 1) of an "ipma" box."""
    version, wide = data[at], data[at + 3] & 1
    (entries,) = struct.unpack_from(">I", data, at + _FULL)
    at += _FULL + 4
    for _ in range(min(entries, _MOST_BOXES)):
        (item,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        count = data[at]
        at += 1
        for _ in range(count):
            yield item, struct.unpack_from(">H", data, at)[0] & 0x7FFF if wide else data[at] & 0x7F
            at += 2 if wide else 1


def _tiles(data: bytes, meta: list[tuple[bytes, int, int]], item: int) -> set[int]:
    """Return the items that one is derived from."""
    at = next((start for kind, start, _ in meta if kind == b"iref"), None)
    if at is None:
        return set()
    number = "I" if data[at] else "H"
    tiles = set()
    for kind, start, _ in _children(data, _first(meta, b"iref")):
        source, count = struct.unpack_from(f">{number}H", data, start)
        if kind == b"dimg" and source == item:
            tiles |= set(struct.unpack_from(f">{count}{number}", data, start + struct.calcsize(f">{number}H")))
    return tiles
