"""Checksums of a TIFF's compressed strips, which libtiff does not read: it stops at the last pixel (RFC 1950; xz)."""

import lzma
import zlib

from keras_matting.photos.tiff_layout import DEFLATE, LZMA

_STEP = 1 << 12  # bytes: a thousand times as many, or several, may come of them
_SLACK = 1 << 16  # bytes that some writers leave after the pixels
_LZMA_MEMORY = 1 << 27  # bytes: the dictionary of the largest preset takes half


def is_whole(compression: int, chunk: bytes, least: int, most: int) -> bool:
    """Tell whether a strip of Deflate or LZMA ends, with the checksum of what it unpacks to; True of any other.

    `least`: the bytes of its pixels; `most`: those of a full strip, which the last of a page may be. What unpacks to
    far more is not unpacked any further, and is not whole.
    """
    if compression in DEFLATE:
        return _ends(zlib.decompressobj(), chunk, least, most)
    if compression == LZMA:
        return _ends(lzma.LZMADecompressor(memlimit=_LZMA_MEMORY), chunk, least, most)
    return True


def _ends(stream: "zlib._Decompress | lzma.LZMADecompressor", chunk: bytes, least: int, most: int) -> bool:
    unpacked = 0
    try:
        for at in range(0, len(chunk), _STEP):
            unpacked += len(stream.decompress(chunk[at : at + _STEP]))
            if stream.eof or unpacked > most + _SLACK:
                break
    except (zlib.error, lzma.LZMAError):
        return False
    return stream.eof and unpacked >= least
