"""TIFF: every layout comes out as what was written, or is refused."""

import io
import lzma
import struct
import zlib
from itertools import product

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiff_files import BLACK_IS_0, CMYK, DEFLATE, LZW, NONE, PACKBITS, PALETTE, RGB, WHITE_IS_0, directory, tiff

from keras_matting.errors import ImageError
from keras_matting.photos import tiff as tiff_reader
from keras_matting.photos import tiff_checksums
from keras_matting.photos.files import decode

HEIGHT, WIDTH = 21, 37
ADOBE_DEFLATE, LZMA = 32946, 34925
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
COLOURS = np.stack([COLUMNS * 6 + 20, ROWS * 11 + 10, COLUMNS + ROWS * 2 + 30], axis=-1).astype(np.uint8)
ALPHA = (COLUMNS * 7).astype(np.uint8)
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
COLOURS_OF = {WHITE_IS_0: 1, BLACK_IS_0: 1, RGB: 3, CMYK: 4}


def written(photometric, bits, meaning):
    """Return samples of `bits` bits that mean COLOURS, or their first channel as grey, and ALPHA."""
    full = 2**bits - 1
    colours = COLOURS.astype(float) / 255
    if photometric != RGB:
        colours = colours[..., :1]
    if photometric == WHITE_IS_0:
        colours = 1 - colours
    if photometric == CMYK:  # of one grey: black only
        colours = np.concatenate([np.zeros((HEIGHT, WIDTH, 3)), 1 - colours], axis=-1)
    if meaning == ASSOCIATED:
        colours = colours * (ALPHA[..., None] / 255)
    extra = [] if meaning is None else [ALPHA[..., None] / 255]
    return np.rint(np.concatenate([colours, *extra], axis=-1) * full).astype(int)


def assert_right_or_refused(data, photometric, meaning, what):
    """Assert that a file is refused, or means COLOURS and ALPHA; tell whether it was read."""
    try:
        photo = decode(data)
    except ImageError:
        return False
    truth = (COLOURS if photometric == RGB else COLOURS[..., :1]).astype(int)
    if meaning in (ASSOCIATED, UNASSOCIATED):
        np.testing.assert_allclose(photo.alpha.astype(int), ALPHA, atol=1, err_msg=what)
    else:
        assert photo.alpha is None, what
    if meaning == ASSOCIATED:  # a faint pixel's colour is as exact as what is left of it
        error = np.abs(photo.rgb.astype(int) - truth) * (ALPHA[..., None] / 255)
        assert error.max() <= 1, what
    else:
        np.testing.assert_allclose(photo.rgb.astype(int), np.broadcast_to(truth, photo.rgb.shape), atol=1, err_msg=what)
    return True


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("meaning", [None, UNSPECIFIED, ASSOCIATED, UNASSOCIATED])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [WHITE_IS_0, BLACK_IS_0, RGB, CMYK])
def test_every_layout_is_right_or_refused(photometric, bits, meaning, planar):
    """Faults: tiff16_silently_wrong (planes), tiff_extra_channel_as_alpha (unspecified)."""
    samples = written(photometric, bits, meaning)
    extra = {} if meaning is None else {"extra": meaning}
    kinds = product((NONE, LZW, DEFLATE, PACKBITS), (None, 16), (1, 2), ("<", ">"), (False, True))
    for compression, tile, predictor, order, big in kinds:
        if predictor == 2 and compression not in (LZW, DEFLATE):
            continue
        options = {"compression": compression, "tile": tile, "predictor": predictor, "order": order, "big": big}
        data = tiff(samples, photometric, bits, planar=planar, **extra, **options)
        read = assert_right_or_refused(data, photometric, meaning, f"{options}")
        assert read == (meaning != ASSOCIATED or photometric in (BLACK_IS_0, RGB)), options


@pytest.mark.parametrize("band_bytes", [1, 300, 2000])
@pytest.mark.parametrize("planar", [False, True])
def test_bands_of_a_large_photo_fit_together(planar, band_bytes, monkeypatch):
    monkeypatch.setattr(tiff_reader, "_BAND_BYTES", band_bytes)
    samples = written(RGB, 16, ASSOCIATED)
    kinds = product((NONE, LZW, DEFLATE), ({"tile": 16}, {"rows": 1}, {"rows": 5}, {"rows": HEIGHT}), (1, 2))
    for compression, strips, predictor in kinds:
        if predictor == 1 or compression != NONE:
            options = {"compression": compression, "predictor": predictor, "order": ">"} | strips
            data = tiff(samples, RGB, 16, planar=planar, extra=ASSOCIATED, **options)
            assert assert_right_or_refused(data, RGB, ASSOCIATED, f"{options}"), options


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
def test_the_writer_of_these_files_is_right(bits, planar):
    samples = written(RGB, bits, UNASSOCIATED)
    for tile, order in product((None, 16), "<>"):
        data = tiff(samples, RGB, bits, planar=planar, extra=2, tile=tile, order=order, compression=DEFLATE)
        read = tifffile.imread(io.BytesIO(data))
        np.testing.assert_array_equal(np.moveaxis(read, 0, 2) if planar else read, samples)
    if bits == 8 and not planar:
        for compression in (LZW, PACKBITS):
            read = np.asarray(Image.open(io.BytesIO(tiff(samples, RGB, bits, extra=2, compression=compression))))
            np.testing.assert_array_equal(read, samples)


@pytest.mark.parametrize("writer", ["zlib", "lzma", "packbits", None])
def test_files_of_another_writer_are_read(writer):
    for shape, tile in product([(), (1,)], [None, (16, 16)]):
        array = (COLOURS.astype(np.uint16) * 257).astype(np.uint16) if shape else COLOURS
        file = io.BytesIO()
        try:
            tifffile.imwrite(file, array, photometric="rgb", compression=writer, tile=tile, metadata=None)
        except (ValueError, RuntimeError, KeyError):
            pytest.skip(f"tifffile writes no {writer} here")
        np.testing.assert_array_equal(decode(file.getvalue()).rgb, COLOURS)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("order", ["<", ">"])
def test_depths_below_a_byte_and_palettes_are_read(bits, order):
    full = 2**bits - 1
    index = (COLOURS[..., :1] * (full / 255)).astype(int)
    grey = np.rint(index * (255 / full)).repeat(3, axis=2)
    palette = np.random.default_rng(bits).integers(0, 65536, (3, full + 1))
    for compression, tile in product((NONE, LZW, DEFLATE, PACKBITS), (None, 16)):
        options = {"compression": compression, "tile": tile, "order": order}
        np.testing.assert_array_equal(decode(tiff(index, BLACK_IS_0, bits, **options)).rgb, grey)
        np.testing.assert_array_equal(decode(tiff(index, WHITE_IS_0, bits, **options)).rgb, 255 - grey)
        coloured = tiff(index, PALETTE, bits, **options, tags={320: palette.ravel().tolist()})
        np.testing.assert_array_equal(decode(coloured).rgb, np.rint(palette.T[index[..., 0]] / 257))
        coloured = tiff(index, PALETTE, bits, **options, tags={320: (palette.ravel() // 256).tolist()})
        np.testing.assert_array_equal(decode(coloured).rgb, palette.T[index[..., 0]] // 256)


@pytest.mark.parametrize("samples", [3, 4])
def test_cyan_magenta_yellow_and_black_become_rgb(samples):
    inks = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4))
    for bits, planar in product((8, 16), (False, True)):
        rgb = decode(tiff(inks * (257 if bits == 16 else 1), CMYK, bits, planar=planar)).rgb
        np.testing.assert_allclose(rgb, (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255, atol=1)


def test_of_several_extra_samples_the_one_that_is_alpha_counts():
    samples = np.concatenate([COLOURS, 255 - ALPHA[..., None], ALPHA[..., None]], axis=-1)
    for planar in (False, True):
        photo = decode(tiff(samples, RGB, planar=planar, extra=[UNSPECIFIED, UNASSOCIATED]))
        np.testing.assert_array_equal(photo.alpha, ALPHA)
        np.testing.assert_array_equal(photo.rgb, COLOURS)
        assert decode(tiff(samples, RGB, planar=planar)).alpha is None  # no word on what the two are


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_every_orientation_becomes_upright(orientation, bits):
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: a[::-1, ::-1], 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2)}
    undo |= {6: np.rot90, 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1)}
    stored = undo[orientation](COLOURS).astype(int) * (257 if bits == 16 else 1)
    photo = decode(tiff(stored, RGB, bits, planar=bits == 16, tags={274: orientation}))
    np.testing.assert_array_equal(photo.rgb, COLOURS)


@pytest.mark.parametrize("mode", ["RGB", "L", "YCbCr"])
@pytest.mark.parametrize("strip", [16, 64])
def test_jpeg_strips_are_read_whole_or_refused(mode, strip):
    smooth = Image.fromarray(COLOURS).resize((96, 64)).convert(mode)
    file = io.BytesIO()
    smooth.save(file, "TIFF", compression="jpeg", quality=95, tiffinfo={278: strip})
    data = file.getvalue()
    np.testing.assert_allclose(decode(data).rgb, np.asarray(smooth.convert("RGB")), atol=12)
    cut = bytearray(data)
    start = data.rindex(b"\xff\xda")
    end = data.index(b"\xff\xd9", start)
    cut[start + 30 : end + 2] = (b"\xff\xd9" + bytes(end))[: end - start - 28]
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(bytes(cut))


@pytest.mark.parametrize("photometric", [BLACK_IS_0, RGB])
@pytest.mark.parametrize("tile", [None, 32])
def test_jpeg_tiles_of_colours_as_they_are_are_read(photometric, tile):
    smooth = Image.fromarray(COLOURS).resize((64, 64)).convert("RGB" if photometric == RGB else "L")
    chunks = []
    for top in range(0, 64, 32):
        for left in range(0, 64, tile or 64):
            file = io.BytesIO()
            part = smooth.crop((left, top, left + (tile or 64), top + 32))
            part.save(file, "JPEG", quality=98, keep_rgb=photometric == RGB)
            chunks.append(file.getvalue())
    tags = {256: 64, 257: 64, 258: [8] * len(smooth.getbands()), 259: 7, 262: photometric}
    tags |= {277: len(smooth.getbands())} | ({322: 32, 323: 32} if tile else {278: 32})
    rgb = decode(directory(tags, chunks, tile=tile)).rgb
    np.testing.assert_allclose(rgb.astype(int), np.asarray(smooth.convert("RGB")).astype(int), atol=8)


def test_a_jpeg_strip_that_fills_up_its_last_blocks_is_read():
    smooth = Image.fromarray(COLOURS).convert("L").resize((64, 64))
    file = io.BytesIO()
    smooth.save(file, "JPEG", quality=98)
    tags = {256: 60, 257: 50, 258: 8, 259: 7, 262: BLACK_IS_0, 277: 1, 278: 64}
    rgb = decode(directory(tags, [file.getvalue()])).rgb
    np.testing.assert_allclose(rgb[..., 0].astype(int), np.asarray(smooth)[:50, :60].astype(int), atol=8)


def test_a_tile_far_larger_than_the_page_takes_no_memory():
    tags = {256: 8, 257: 8, 258: 8, 259: DEFLATE, 262: BLACK_IS_0, 277: 1, 322: 1 << 16, 323: 1 << 16}
    with pytest.raises(ImageError):
        decode(directory(tags, [zlib.compress(bytes(64))], tile=True))


def test_a_jpeg_strip_of_another_size_is_not_unpacked():
    file = io.BytesIO()
    Image.new("L", (640, 640)).save(file, "JPEG")
    tags = {256: 64, 257: 64, 258: 8, 259: 7, 262: BLACK_IS_0, 277: 1, 278: 64}
    with pytest.raises(ImageError):
        decode(directory(tags, [file.getvalue()]))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_pages_are_read(compression):
    page = Image.fromarray(COLOURS).convert("1")
    file = io.BytesIO()
    page.save(file, "TIFF", compression=compression)
    np.testing.assert_array_equal(decode(file.getvalue()).rgb[..., 0], np.asarray(page) * 255)


@pytest.mark.parametrize(
    ("bits", "photometric", "tags", "message"),
    [
        (8, 8, {}, r"CIE L\*a\*b\*"),
        (8, 6, {}, "YCbCr"),
        (8, 32803, {}, "raw sensor"),
        (8, 4711, {}, "4711"),
        (8, RGB, {259: 6}, "compression 6"),
        (8, RGB, {259: 34712}, "compression 34712"),
        (8, RGB, {259: LZW, 317: 3}, "predictor 3"),
        (16, RGB, {339: [3, 3, 3]}, "floating-point samples of 16 bits"),
        (16, RGB, {339: [2, 2, 2]}, "signed"),
        (32, RGB, {}, "32 bits"),
        (8, RGB, {258: [8, 8, 16]}, "several depths"),
        (8, RGB, {266: 2}, "reverse order"),
        (8, RGB, {254: 1}, "reduced image"),
        (8, PALETTE, {}, "palette"),
    ],
)
def test_what_is_not_known_is_refused_by_name(bits, photometric, tags, message):
    with pytest.raises(ImageError, match=message):
        decode(tiff(COLOURS.astype(int), photometric, bits, tags=tags))


@pytest.mark.parametrize(("tag", "compression"), [(274, NONE), (34675, NONE), (266, 3), (292, 3)])
def test_a_tag_without_values_is_none(tag, compression):
    page = Image.fromarray(COLOURS).convert("1")
    file = io.BytesIO()
    page.save(file, "TIFF", compression="group3" if compression == 3 else None)
    strips = tifffile.TiffFile(io.BytesIO(file.getvalue())).pages[0]
    data = [file.getvalue()[at : at + size] for at, size in zip(strips.dataoffsets, strips.databytecounts, strict=True)]
    tags = {256: WIDTH, 257: HEIGHT, 258: 1, 259: compression, 262: BLACK_IS_0, 277: 1, 278: HEIGHT, tag: []}
    np.testing.assert_array_equal(decode(directory(tags, data)).rgb[..., 0], np.asarray(page) * 255)


def test_jpeg_tables_that_are_no_bytes_are_refused():
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "JPEG")
    tags = {256: WIDTH, 257: HEIGHT, 258: [8] * 3, 259: 7, 262: 6, 277: 3, 278: HEIGHT, 347: [1, 2, 3]}
    with pytest.raises(ImageError, match="damaged"):
        decode(directory(tags, [file.getvalue()]))


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE, PACKBITS])
@pytest.mark.parametrize("tile", [None, 16])
def test_strips_that_are_not_there_are_refused(compression, tile):
    good = {"compression": compression, "tile": tile}
    data = tiff(COLOURS, RGB, **good)
    offsets, counts = (324, 325) if tile else (273, 279)
    number = len(tifffile.TiffFile(io.BytesIO(data)).pages[0].dataoffsets)
    sizes = tifffile.TiffFile(io.BytesIO(data)).pages[0].databytecounts
    places = tifffile.TiffFile(io.BytesIO(data)).pages[0].dataoffsets
    wrong = {
        "last beyond the end": {offsets: [*places[:-1], len(data) + 100]},
        "last of no bytes": {counts: [*sizes[:-1], 0]},
        "last too short": {counts: [*sizes[:-1], sizes[-1] // 3]},
        "none": {offsets: None, counts: None},
        "too few": {offsets: list(places[: number - 1]), counts: list(sizes[: number - 1])},
        "in the header": {offsets: [0] * number},
    }
    for what, tags in wrong.items():
        with pytest.raises(ImageError):
            decode(tiff(COLOURS, RGB, **good, tags=tags))
            pytest.fail(what)
    if compression != PACKBITS:
        damaged = bytearray(data)
        damaged[places[1] + 20 : places[1] + 40] = bytes(20)
        if compression == DEFLATE:
            with pytest.raises(ImageError):
                decode(bytes(damaged))


def tile_bytes(compression):
    """Return (TIFF, position of its first strip, its bytes) of noise, compressed under a number."""
    noise = np.random.default_rng(0).integers(0, 16, (64, 80, 3))
    chunk = (lzma.compress if compression == LZMA else zlib.compress)(noise.astype(np.uint8).tobytes())
    tags = {256: 80, 257: 64, 258: [8] * 3, 259: compression, 262: RGB, 277: 3, 278: 64}
    return directory(tags, [chunk]), 8, len(chunk)


@pytest.mark.parametrize("compression", [DEFLATE, ADOBE_DEFLATE, LZMA])
def test_a_strip_whose_checksum_says_that_it_is_damaged_is_refused(compression):
    """libtiff takes what unpacks to enough bytes: it does not read on to the checksum."""
    data, start, size = tile_bytes(compression)
    assert decode(data).rgb.shape == (64, 80, 3)
    for what, first, zeros in [("half", size // 2, size // 2), ("pixels", size // 3, 4), ("the end", size - 30, 30)]:
        damaged = bytearray(data)
        damaged[start + first : start + first + zeros] = bytes(zeros)
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode(bytes(damaged))
            pytest.fail(what)


@pytest.mark.parametrize("compress", [zlib.compress, lzma.compress])
def test_a_strip_that_unpacks_to_gigabytes_is_not_unpacked(compress, monkeypatch):
    kind = DEFLATE if compress is zlib.compress else LZMA
    monkeypatch.setattr(tiff_checksums, "_STEP", 64)
    assert tiff_checksums.is_whole(kind, compress(bytes(5000)), 5000, 5000)
    assert tiff_checksums.is_whole(kind, compress(bytes(5000)), 4000, 5000)  # rows that fill up the last strip
    assert not tiff_checksums.is_whole(kind, compress(bytes(5000)), 5001, 5001)
    assert not tiff_checksums.is_whole(kind, compress(bytes(1 << 22)), 5000, 5000)


def test_byte_counts_may_be_missing_where_nothing_is_compressed():
    np.testing.assert_array_equal(decode(tiff(COLOURS, RGB, tags={279: None})).rgb, COLOURS)
    with pytest.raises(ImageError):
        decode(tiff(COLOURS, RGB, compression=LZW, tags={279: None}))


def test_the_first_of_several_pages_is_read_and_a_loop_of_pages_ends():
    first, second = Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)
    file = io.BytesIO()
    first.save(file, "TIFF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(file.getvalue()).rgb, COLOURS)
    data = bytearray(tiff(COLOURS, RGB))
    (start,) = struct.unpack_from("<I", data, 4)
    struct.pack_into("<I", data, len(data) - 4, start)
    np.testing.assert_array_equal(decode(bytes(data)).rgb, COLOURS)


def test_a_profile_is_kept():
    """Fault: tiff_icc_lost."""
    profile = bytes(16) + b"RGB " + bytes(range(200))
    for big, order in product((False, True), "<>"):
        assert decode(tiff(COLOURS, RGB, big=big, order=order, tags={34675: profile})).icc == profile
