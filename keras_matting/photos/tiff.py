"""TIFF and BigTIFF photos: only bytes are decompressed elsewhere, what they mean is applied here.

What decoders make of photometric interpretations, planes, depths and kinds of alpha differs, and is often wrong without
a word. So libtiff, by Pillow, is given plain grey bytes, a few strips at a time; JPEG strips are `jpeg`'s.
"""

import io
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Uint8, Uint8Or16
from keras_matting.errors import ImageError
from keras_matting.photos import colour_profiles, jpeg, tiff_checksums
from keras_matting.photos import tiff_layout as tiff
from keras_matting.photos.headers import Tags, probe, tiff_directory

_BAND_BYTES = 1 << 22


def decode(data: bytes) -> tuple[Uint8, Uint8 | None, bytes | None, int]:
    """Return (RGB, alpha or None, tiff.ICC profile or None, orientation) of the first page of TIFF bytes.

    Samples of 16 bits are scaled to 8, colours that were multiplied by their alpha divided again; a sample of
    unspecified meaning is left out. Raises `ImageError` on what is not whole, or not known here.
    """
    try:
        tags = tiff_directory(data, tiff.READ)
        layout = tiff.layout_of(tags, data)
    except (struct.error, IndexError, KeyError, OverflowError):
        raise ImageError(tiff.BROKEN) from None
    palette = _palette(tags[tiff.COLOUR_MAP]) if layout.photometric == tiff.PALETTE else None
    profile = tags.get(tiff.ICC)
    icc = profile if isinstance(profile, bytes) else None
    rgb = np.empty((layout.height, layout.width, 3), np.uint8)
    alpha = None if layout.alpha is None else np.empty((layout.height, layout.width), np.uint8)
    for top, samples in _bands(data, layout, tags):
        bottom = top + samples[0].shape[0]
        rgb[top:bottom] = _colours(samples, layout, palette, icc)
        if alpha is not None and layout.alpha is not None:
            alpha[top:bottom] = to_8_bits(samples[layout.alpha])
    orientation, *_ = tags.get(tiff.ORIENTATION, (1,))
    if layout.photometric == tiff.CMYK:
        icc = None  # inks are in sRGB already
    return rgb, alpha, icc, orientation if orientation in range(1, 9) else 1


def to_8_bits(values: Uint8Or16) -> Uint8:
    """Return uint16 values, of either byte order, as uint8: 65535 becomes 255, not clipped but rounded."""
    return (
        values.astype(np.uint8, copy=False)
        if values.dtype == np.uint8
        else ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    )


def _bands(data: bytes, layout: tiff.Layout, tags: Tags) -> Iterator[tuple[int, dict[int, Uint8Or16]]]:
    """Yield (first row, {index: samples of one kind}) for bands of rows of a few megabytes."""
    wanted = [*range(layout.colours), *([] if layout.alpha is None else [layout.alpha])]
    down = layout.offsets.shape[1]
    step = max(1, _BAND_BYTES // max(1, layout.row_bytes(layout.width) * layout.rows))
    for start in range(0, down, step):
        strips = range(start, min(start + step, down))
        if layout.planes == 1:
            pixels = _pixels(data, layout, tags, 0, strips)
            samples = {index: pixels[..., index] for index in wanted}
        else:
            samples = {index: _pixels(data, layout, tags, index, strips)[..., 0] for index in wanted}
        rows = next(iter(samples.values())).shape[0]
        part = max(1, _BAND_BYTES // layout.width)  # a strip may be the whole page
        for first in range(0, rows, part):
            band = {index: values[first : first + part] for index, values in samples.items()}
            yield start * layout.rows + first, band


def _colours(samples: Mapping[int, Uint8Or16], layout: tiff.Layout, palette: Uint8 | None, icc: bytes | None) -> Uint8:
    """Return the RGB, or grey, that samples mean."""
    if palette is not None:
        return palette[samples[0]]
    full = 255 if layout.bits <= 8 else 65535
    colours = [samples[index] for index in range(layout.colours)]
    if layout.photometric == tiff.WHITE_IS_0:
        colours = [full - colours[0]]
    if layout.is_associated and layout.alpha is not None:
        alpha = samples[layout.alpha].astype(np.uint32)
        colours = [_divided(colour, alpha, full) for colour in colours]
    colours = [to_8_bits(colour) for colour in colours]
    if layout.photometric == tiff.CMYK:
        return colour_profiles.rgb_of_inks(np.stack(colours, axis=-1), icc)
    return np.stack(colours if len(colours) == 3 else colours * 3, axis=-1)


def _divided(colour: Uint8Or16, alpha: npt.NDArray[np.uint32], full: int) -> Uint8Or16:
    """Return a colour that was multiplied by alpha as it was before."""
    straight = (colour.astype(np.uint32) * full + alpha // 2) // np.maximum(alpha, 1)
    return np.minimum(straight, full).astype(np.uint8 if full == 255 else np.uint16)


def _palette(values: Sequence[int]) -> Uint8:
    """Return RGB of 8 bits for every index."""
    colours = np.array(values, np.uint16).reshape(3, -1).T
    return colours.astype(np.uint8) if colours.max() < 256 else to_8_bits(colours)  # some writers leave 8 bits


def _pixels(data: bytes, layout: tiff.Layout, tags: Tags, plane: int, strips: range) -> Uint8Or16:
    """Return the samples (rows, width, samples) of a plane's strips: uint8, or uint16; depths below 8 as 8 bits."""
    if layout.compression == tiff.JPEG:
        return _joined(layout, strips, lambda down, across: _jpeg_tile(data, layout, tags, plane, down, across))
    if layout.compression == tiff.NONE:
        rows = _joined(layout, strips, lambda down, across: _plain_tile(data, layout, plane, down, across))
        rows = rows[..., 0]
    else:
        rows = _decompressed(data, layout, tags, plane, strips)
    if layout.bits == 16:
        rows = rows.view(f"{layout.order}u2")
    elif layout.bits < 8 and layout.compression not in tiff.FAX:
        rows = _unpacked(rows, layout)
    pixels = rows.reshape(len(rows), layout.width, layout.samples)
    return _summed(pixels, layout) if layout.is_predicted else pixels


def _joined(layout: tiff.Layout, strips: range, read: Callable[[int, int], Uint8]) -> Uint8:
    """Return tiles side by side and below each other, without what hangs over the page."""
    width = layout.width if layout.compression == tiff.JPEG else layout.row_bytes(layout.width)
    bands = []
    for down in strips:
        tiles = [read(down, across)[: layout.rows_of(down)] for across in range(layout.offsets.shape[2])]
        bands.append((tiles[0] if len(tiles) == 1 else np.concatenate(tiles, axis=1))[:, :width])
    return bands[0] if len(bands) == 1 else np.concatenate(bands)


def _plain_tile(data: bytes, layout: tiff.Layout, plane: int, down: int, across: int) -> Uint8:
    row_bytes = layout.row_bytes(layout.tile_width)
    rows = min(layout.rows, int(layout.counts[plane, down, across]) // row_bytes)
    values = np.frombuffer(data, np.uint8, rows * row_bytes, int(layout.offsets[plane, down, across]))
    return values.reshape(rows, row_bytes, 1)


def _jpeg_tile(data: bytes, layout: tiff.Layout, tags: Tags, plane: int, down: int, across: int) -> Uint8:
    """Return a JPEG strip's pixels; its own size is checked before it is decoded."""
    tables = tags.get(tiff.JPEG_TABLES, b"\xff\xd8\xff\xd9")
    if not isinstance(tables, bytes):
        raise ImageError(tiff.BROKEN)
    start = int(layout.offsets[plane, down, across])
    strip = data[start : start + int(layout.counts[plane, down, across])]
    transform = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([layout.photometric == tiff.YCBCR])
    stream = b"".join([b"\xff\xd8", transform, tables[2:-2], strip[2:]])
    _, width, height = probe(stream)
    widest, tallest = (-(-side // 16) * 16 for side in (layout.tile_width, layout.rows))  # some fill up the last blocks
    if not layout.tile_width <= width <= widest or not layout.rows_of(down) <= height <= tallest:
        raise ImageError(tiff.BROKEN)
    return jpeg.decode(stream)[0][:, : layout.tile_width, : layout.samples]


def _decompressed(data: bytes, layout: tiff.Layout, tags: Tags, plane: int, strips: range) -> Uint8:
    """Return the bytes (rows, bytes of a row) of compressed strips, of fax compression grey (rows, width)."""
    from PIL.TiffImagePlugin import TiffImageFile

    rows = sum(layout.rows_of(down) for down in strips)
    tiled = tiff.TILE_WIDTH in tags
    is_fax = layout.compression in tiff.FAX
    across = (lambda pixels: pixels) if is_fax else layout.row_bytes
    directory = {
        tiff.WIDTH: across(layout.width),
        tiff.HEIGHT: rows,
        tiff.BITS: 1 if is_fax else 8,
        tiff.COMPRESSION: layout.compression,
        tiff.PHOTOMETRIC: tiff.BLACK_IS_0,
        tiff.SAMPLES: 1,
    }
    directory |= {tiff.TILE_WIDTH: across(layout.tile_width), tiff.TILE_HEIGHT: layout.rows} if tiled else {}
    directory |= {} if tiled else {tiff.ROWS_PER_STRIP: layout.rows}
    directory |= {
        tag: tags[tag][0] for tag in (tiff.FILL_ORDER, tiff.FAX3_OPTIONS, tiff.FAX4_OPTIONS) if is_fax and tag in tags
    }
    places = zip(layout.offsets[plane, strips].flat, layout.counts[plane, strips].flat, strict=True)
    chunks = [data[start : start + count] for start, count in places]
    for chunk, down in zip(chunks, np.repeat(strips, layout.offsets.shape[2]), strict=True):
        row_bytes = layout.row_bytes(layout.tile_width)
        least, most = layout.rows_of(int(down)) * row_bytes, layout.rows * row_bytes
        if not tiff_checksums.is_whole(layout.compression, chunk, most if tiled else least, most):
            raise ImageError(tiff.BROKEN)
    try:
        with TiffImageFile(io.BytesIO(_tiff(directory, chunks, tiled))) as image:
            return np.asarray(image.convert("L") if is_fax else image)
    except (OSError, ValueError, SyntaxError, RuntimeError):
        raise ImageError(tiff.BROKEN) from None


def _tiff(directory: Mapping[int, int], chunks: Sequence[bytes], tiled: bool) -> bytes:
    """Return a TIFF of one page: numbers by tag, and the bytes of its strips or tiles."""
    entries, places, number = 2 + len(directory), 8, len(chunks)
    lists = places + 2 + 12 * entries + 4
    start = lists + 8 * number
    counts = np.array([len(chunk) for chunk in chunks], "<u4")
    offsets = (start + np.concatenate([[0], np.cumsum(counts[:-1])])).astype("<u4")
    tags = {tag: (1, value) for tag, value in directory.items()}
    tags[tiff.TILE_OFFSETS if tiled else tiff.OFFSETS] = (number, lists if number > 1 else offsets[0])
    tags[tiff.TILE_COUNTS if tiled else tiff.COUNTS] = (number, lists + 4 * number if number > 1 else counts[0])
    packed = [struct.pack("<HHII", tag, 4, *tags[tag]) for tag in sorted(tags)]
    head = [b"II*\0", struct.pack("<IH", places, entries), *packed, bytes(4), offsets.tobytes(), counts.tobytes()]
    return b"".join([*head, *chunks])


def _unpacked(rows: Uint8, layout: tiff.Layout) -> Uint8:
    """Return samples below 8 bits one a byte: spread over 0 to 255, but for those that point into a palette."""
    bits = layout.bits
    values = np.unpackbits(rows, axis=1).reshape(len(rows), -1, bits)[:, : layout.width]
    values = np.packbits(values, axis=2)[..., 0] >> np.uint8(8 - bits)
    return values if layout.photometric == tiff.PALETTE else values * np.uint8(255 // (2**bits - 1))


def _summed(pixels: Uint8Or16, layout: tiff.Layout) -> Uint8Or16:
    """Undo the horizontal predictor, tile by tile."""
    summed = np.empty_like(pixels, pixels.dtype.newbyteorder("="))
    for left in range(0, layout.width, layout.tile_width):
        columns = slice(left, left + layout.tile_width)
        np.cumsum(pixels[:, columns], axis=1, dtype=summed.dtype, out=summed[:, columns])
    return summed
