"""Where a TIFF's samples are and what they mean; what is not known here is refused (TIFF 6.0, BigTIFF)."""

from dataclasses import dataclass

import numpy as np

from keras_matting.arrays import Int64
from keras_matting.errors import ImageError
from keras_matting.photos.headers import Tags

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
OFFSETS, SAMPLES, ROWS_PER_STRIP, COUNTS, FAX3_OPTIONS, FAX4_OPTIONS = 273, 277, 278, 279, 292, 293
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325
COLOUR_MAP, JPEG_TABLES, ICC, ORIENTATION = 320, 347, 34675, 274
_SUBFILE, _PLANAR, _PREDICTOR, _INK_SET, _EXTRA, _FORMAT = 254, 284, 317, 332, 338, 339
READ = {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, OFFSETS, SAMPLES, ROWS_PER_STRIP, COUNTS}
READ |= {FAX3_OPTIONS, FAX4_OPTIONS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, COLOUR_MAP, JPEG_TABLES, ICC}
READ |= {ORIENTATION, _SUBFILE, _PLANAR, _PREDICTOR, _INK_SET, _EXTRA, _FORMAT}
NONE, LZW, JPEG, PACKBITS = 1, 5, 7, 32773
FAX = (2, 3, 4)
DEFLATE, LZMA = (8, 32946), 34925
_PREDICTED = (LZW, *DEFLATE, LZMA, 50000)  # and Zstandard
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLOURS = {WHITE_IS_0: 1, BLACK_IS_0: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
_NAMES = {4: "a transparency mask", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "raw sensor data"}
_NAMES |= {32844: "LogL", 32845: "LogLuv", 34892: "linear raw data"}
_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_LARGEST_SMALL_TILE = 1 << 22
BROKEN = "Expected a whole TIFF file; this one is truncated or damaged. Save it again."


@dataclass(frozen=True)
class Layout:
    """A page of `height` rows in strips, or tiles of `tile_width`, of `rows`: a strip is a tile as wide as the page.

    `offsets`, `counts`: (planes, tiles down, tiles across), in bytes of the file. `samples`: those of a pixel that are
    stored together; `planes`: how often. `alpha`: the index, of all samples, of the one that is alpha; None without.
    """

    width: int
    height: int
    bits: int
    samples: int
    planes: int
    photometric: int
    compression: int
    is_predicted: bool
    order: str
    rows: int
    tile_width: int
    offsets: Int64
    counts: Int64
    alpha: int | None
    is_associated: bool

    @property
    def colours(self) -> int:
        """The number of samples that are colours; they come first."""
        return COLOURS[self.photometric]

    def row_bytes(self, pixels: int) -> int:
        """Return the bytes of so many pixels in a row."""
        return -(-pixels * self.samples * self.bits // 8)

    def rows_of(self, down: int) -> int:
        """Return the number of the page's rows in a strip."""
        return min(self.rows, self.height - down * self.rows)


def layout_of(tags: Tags, data: bytes) -> Layout:
    """Return the `Layout` that tags tell; raises `ImageError` where it is unknown or points outside of the file."""

    def first(tag: int, default: int) -> int:
        return tags[tag][0] if tags.get(tag) else default

    width, height, photometric = tags[WIDTH][0], tags[HEIGHT][0], tags[PHOTOMETRIC][0]
    compression, count, tiled = first(COMPRESSION, NONE), first(SAMPLES, 1), TILE_WIDTH in tags
    bits = _known_bits(tags, count)
    planes = count if first(_PLANAR, 1) == 2 and count > 1 else 1
    extra = tuple(tags.get(_EXTRA, ()))[: max(count - COLOURS.get(photometric, 0), 0)]
    alphas = [index for index, meaning in enumerate(extra) if meaning in (_ASSOCIATED, _UNASSOCIATED)]
    is_associated = bool(alphas) and extra[alphas[0]] == _ASSOCIATED
    predictor = first(_PREDICTOR, 1) if compression in _PREDICTED else 1
    _check_colours(tags, photometric, count, bits, is_associated)
    _check_compression(tags, compression, photometric, bits, predictor, planes)
    rows = first(TILE_HEIGHT, 0) if tiled else min(first(ROWS_PER_STRIP, height), height)
    tile_width = first(TILE_WIDTH, 0) if tiled else width
    most = max(_LARGEST_SMALL_TILE, 4 * width * height)  # a decoder takes memory for all of a tile
    if rows < 1 or tile_width < 1 or (tiled and (rows % 16 or tile_width % 16 or rows * tile_width > most)):
        raise ImageError(BROKEN)
    layout = Layout(
        width,
        height,
        bits,
        count // planes,
        planes,
        photometric,
        compression,
        predictor == 2,
        ">" if data[:2] == b"MM" else "<",
        rows,
        tile_width,
        *_places(tags, tiled, (planes, -(-height // rows), -(-width // tile_width))),
        COLOURS[photometric] + alphas[0] if alphas else None,
        is_associated,
    )
    return _checked(layout, tiled, len(data))


def unknown(what: str) -> ImageError:
    """Return the error for a TIFF that is not of the kinds known here."""
    return ImageError(f"Expected a TIFF of a kind that photos have; received {what}. Convert it to PNG.")


def _known_bits(tags: Tags, count: int) -> int:
    """Return the bits of every sample."""
    every = tuple(tags.get(BITS, (1,)))
    bits = every[0]
    if len(set(every)) > 1:
        raise unknown("samples of several depths")
    if any(one in _FORMATS for one in tags.get(_FORMAT, ())):
        raise unknown(f"{_FORMATS[next(one for one in tags[_FORMAT] if one in _FORMATS)]} samples of {bits} bits")
    if bits not in (8, 16) and not (bits in (1, 2, 4) and count == 1):
        raise unknown(f"{count} samples of {bits} bits; 8 or 16 bits a channel are read")
    return bits


def _check_colours(tags: Tags, photometric: int, count: int, bits: int, is_associated: bool) -> None:
    if photometric not in COLOURS:
        raise unknown(_NAMES.get(photometric, f"photometric interpretation {photometric}"))
    if count < COLOURS[photometric]:
        raise ImageError(BROKEN)
    if tags.get(_SUBFILE, (0,))[0] & 5:
        raise unknown("a reduced image or a mask on its first page")
    if photometric == CMYK and tags.get(_INK_SET, (1,))[0] != 1:
        raise unknown("other inks than cyan, magenta, yellow and black")
    if is_associated and photometric in (WHITE_IS_0, CMYK):
        raise unknown("inks multiplied by alpha")
    if photometric == PALETTE and (count > 1 or bits == 16 or len(tags.get(COLOUR_MAP, ())) != 3 << bits):
        raise unknown("a palette of another size")


def _check_compression(tags: Tags, compression: int, photometric: int, bits: int, predictor: int, planes: int) -> None:
    if compression not in (NONE, JPEG, PACKBITS, *FAX, *_PREDICTED):
        raise unknown(f"compression {compression}")
    if predictor not in (1, 2) or (predictor == 2 and bits < 8):
        raise unknown(f"predictor {predictor} at {bits} bits")
    if compression in FAX and bits != 1:
        raise unknown(f"fax compression of {bits} bits")
    if compression not in FAX and tags.get(FILL_ORDER, (1,))[0] != 1:
        raise unknown("bits in reverse order")
    if photometric == YCBCR and (compression != JPEG or planes > 1):
        raise unknown("YCbCr that is not compressed as JPEG")
    if compression == JPEG and (bits != 8 or photometric in (CMYK, PALETTE)):
        raise unknown("JPEG compression of other samples than grey or colours of 8 bits")


def _places(tags: Tags, tiled: bool, shape: tuple[int, int, int]) -> tuple[Int64, Int64]:
    """Return (offsets, counts), each of a shape; counts of 0 where the file does not say."""
    offsets, counts = (tags.get(tag, ()) for tag in ((TILE_OFFSETS, TILE_COUNTS) if tiled else (OFFSETS, COUNTS)))
    number = shape[0] * shape[1] * shape[2]
    if len(offsets) < number or (counts and len(counts) < number):
        raise ImageError(BROKEN)
    counts = counts or (0,) * number
    first, second = (np.array(tuple(values[:number]), np.uint64).astype(np.int64) for values in (offsets, counts))
    return first.reshape(shape), second.reshape(shape)


def _checked(layout: Layout, tiled: bool, file_bytes: int) -> Layout:
    """Return the layout, its counts filled in; raises `ImageError` where a strip is short or ends after the file."""
    counts = layout.counts
    if layout.compression == NONE:
        down = np.arange(counts.shape[1])
        rows = np.full_like(down, layout.rows) if tiled else np.minimum(layout.rows, layout.height - down * layout.rows)
        needed = (rows * layout.row_bytes(layout.tile_width))[None, :, None]
        if not counts.any():  # old writers leave them out
            counts[:] = needed
        if (counts < needed).any():
            raise ImageError(BROKEN)
    ends = layout.offsets + counts
    if (counts < 1).any() or (layout.offsets < 8).any() or (ends > file_bytes).any() or (ends < 8).any():
        raise ImageError(BROKEN)
    return layout
