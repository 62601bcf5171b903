"""PNG, BMP, WebP, AVIF and HEIC: every kind comes out as what was written, or is refused."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from bad_photos import chunk
from odd_files import bmp, packed_rows, png
from PIL import Image, features

from keras_matting.errors import ImageError
from keras_matting.photos import headers
from keras_matting.photos.files import EXTENSIONS, decode, encode, extensions, probe

HEIGHT, WIDTH = 21, 37
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
COLOURS = np.stack([COLUMNS * 6 + 20, ROWS * 11 + 10, COLUMNS + ROWS * 2 + 30], axis=-1).astype(np.uint8)
ALPHA = (COLUMNS * 6).astype(np.uint8)
RGBA = np.dstack([COLOURS, ALPHA])
SMOOTH = np.asarray(Image.fromarray(COLOURS).resize((148, 84), Image.Resampling.BICUBIC))
SMOOTH_ALPHA = np.asarray(Image.fromarray(ALPHA).resize((148, 84), Image.Resampling.BICUBIC))
PROFILE = bytes(16) + b"RGB " + bytes(range(240))


def saved(array, kind, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def assert_is(data, rgb, alpha=None, step=0):
    photo = decode(data)
    np.testing.assert_allclose(photo.rgb.astype(int), np.broadcast_to(rgb, photo.rgb.shape).astype(int), atol=step)
    if alpha is None:
        assert photo.alpha is None
    else:
        np.testing.assert_allclose(photo.alpha.astype(int), alpha.astype(int), atol=step)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_every_png_of_grey_or_a_palette_is_read(bits, interlaced):
    full = 2**bits - 1
    values = (COLOURS[..., :1] * (full / 255)).astype(int)
    grey = np.rint(values * (255 / full))
    assert_is(png(values, bits, 0, interlaced=interlaced), grey)
    key = int(values[3, 3, 0])
    keyed = np.where(values[..., 0] == key, 0, 255)
    assert_is(png(values, bits, 0, chunk(b"tRNS", struct.pack(">H", key)), interlaced=interlaced), grey, keyed)
    fooling = chunk(b"iTXt", b"tRNS\0\0\0\0\0" + b"tRNS\0\1")
    assert_is(png(values, bits, 0, fooling, interlaced=interlaced), grey)
    if bits <= 8:
        palette = np.random.default_rng(bits).integers(0, 256, (full + 1, 3))
        colours = chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        assert_is(png(values, bits, 3, colours, interlaced=interlaced), palette[values[..., 0]])
        alphas = np.concatenate([np.arange((full + 1) // 2), np.full((full + 1) // 2, 255)])
        transparent = chunk(b"tRNS", alphas[: (full + 1) // 2].astype(np.uint8).tobytes())
        data = png(values, bits, 3, colours, transparent, interlaced=interlaced)
        assert_is(data, palette[values[..., 0]], alphas[values[..., 0]])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_png_of_colours_is_read(bits, interlaced):
    factor = 257 if bits == 16 else 1
    colours, alpha = COLOURS.astype(int) * factor, ALPHA[..., None].astype(int) * factor
    assert_is(png(colours, bits, 2, interlaced=interlaced), COLOURS)
    assert_is(png(np.dstack([colours, alpha]), bits, 6, interlaced=interlaced), COLOURS, ALPHA)
    assert_is(png(np.dstack([colours[..., :1], alpha]), bits, 4, interlaced=interlaced), COLOURS[..., :1], ALPHA)
    colours[5, 5] = colours[3, 3] + [0, 0, 1]  # of 16 bits: nearly the key
    keyed = np.where((colours == colours[3, 3]).all(axis=-1), 0, 255)
    data = png(colours, bits, 2, chunk(b"tRNS", struct.pack(">HHH", *colours[3, 3])), interlaced=interlaced)
    assert_is(data, np.rint(colours / factor), keyed)


@pytest.mark.parametrize("name", ["gAMA", "sRGB", "cICP", "sBIT", "bKGD"])
def test_what_a_png_says_of_its_colours_changes_no_value(name):
    content = {"gAMA": struct.pack(">I", 100_000), "sRGB": b"\0", "cICP": b"\1\x0d\0\1", "sBIT": b"\5\6\5\5"}
    said = chunk(name.encode(), content.get(name, b"\0\1\0\2\0\3"))
    assert_is(png(RGBA, 8, 6, said), COLOURS, ALPHA)


def test_the_first_picture_of_an_animated_png_is_read():
    for options in ({}, {"default_image": True}, {"blend": 1, "disposal": 1}):
        data = saved(RGBA, "PNG", save_all=True, append_images=[Image.fromarray(255 - RGBA)], **options)
        assert_is(data, COLOURS, ALPHA)


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_whose_pixels_are_not_all_there_is_refused(interlaced):
    edits = {
        "half": lambda pixels: pixels[: len(pixels) // 2],
        "all but the check sum": lambda pixels: pixels[:-3],
        "fewer rows": lambda pixels: zlib.compress(zlib.decompress(pixels)[:1000]),
        "another check sum": lambda pixels: pixels[:-1] + bytes([pixels[-1] ^ 1]),
    }
    for what, edit in edits.items():
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode(png(COLOURS, 8, 2, interlaced=interlaced, edit=edit))
            pytest.fail(what)


def test_a_png_that_only_lacks_its_end_is_read():
    data = png(COLOURS, 8, 2)
    for missing in range(1, 13):
        assert_is(data[:-missing], COLOURS)
    for missing in (13, 16, 17, 40):
        with pytest.raises(ImageError):
            decode(data[:-missing])


SIZE = (WIDTH, HEIGHT)
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
MASKS = {
    "565": (16, (0xF800, 0x7E0, 0x1F, 0)),
    "555": (16, (0x7C00, 0x3E0, 0x1F, 0)),
    "1555": (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    "4444": (16, (0xF00, 0xF0, 0xF, 0xF000)),
    "BGRA": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "ABGR": (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    "BGRx": (32, (0xFF0000, 0xFF00, 0xFF, 0)),
    "RGBA": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    "10 bits": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0)),
}


def scaled(values, bits):
    return (values.astype(int) * (2**bits - 1) + 127) // 255


def right_or_refused(data, rgb, alpha=None):
    """Tell whether a file was read; raises `AssertionError` where it was misread."""
    try:
        decode(data)
    except ImageError:
        return False
    assert_is(data, rgb, alpha, step=1)
    return True


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("header", BMP_HEADERS)
def test_every_bmp_is_right_or_refused(header, top_down):
    """Fault: bmp_os2_turns_grey (a header of 12 bytes)."""
    if header < 40 and top_down:
        return
    common = {"size": SIZE, "top_down": top_down}
    is_read = [right_or_refused(bmp(header, packed_rows(COLOURS[..., ::-1], 8), bits=24, **common), COLOURS)]
    for bits in (1, 4, 8):
        palette = np.random.default_rng(bits).integers(0, 256, (2**bits, 3))
        index = scaled(COLOURS[..., :1], bits)
        data = bmp(header, packed_rows(index, bits), bits=bits, palette=palette, **common)
        is_read.append(right_or_refused(data, palette[index[..., 0]]))
    assert all(is_read) != (header == 16), is_read
    if header < 40:
        return
    five = scaled(COLOURS, 5)
    words = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    assert right_or_refused(
        bmp(header, [row.tobytes() for row in words], bits=16, **common), np.rint(five * (255 / 31))
    )
    for fourth in (np.zeros_like(ALPHA), ALPHA):  # it has no meaning there
        rows = packed_rows(np.dstack([COLOURS[..., ::-1], fourth]), 8)
        assert right_or_refused(bmp(header, rows, bits=32, **common), COLOURS)


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("header", BMP_HEADERS[2:])
def test_a_bmp_of_bit_fields_is_right_or_refused(header, masks):
    bits, fields = MASKS[masks]
    words, channels = np.zeros((HEIGHT, WIDTH), np.int64), []
    for values, field in zip(np.moveaxis(RGBA, 2, 0), fields, strict=True):
        depth, shift = field.bit_count(), (field & -field).bit_length() - 1
        stored = scaled(values, depth) if field else None
        words |= 0 if stored is None else stored << shift
        channels.append(None if stored is None else np.rint(stored * (255 / (2**depth - 1))))
    rows = [row.tobytes() for row in words.astype(f"<u{bits // 8}")]
    for top_down in (False, True):
        data = bmp(header, rows, SIZE, bits, 3, top_down=top_down, masks=fields)
        read = right_or_refused(data, np.dstack(channels[:3]), channels[3] if header >= 56 else None)
        assert read or masks not in ("565", "555", "BGRA", "BGRx")


def run_length(index, bits):
    """Return rows as runs of one pixel each, the last pixels of eight bits as they are."""
    data = b""
    for row in index[::-1]:
        runs = row if bits == 4 else row[:5]
        data += b"".join(bytes([1, value << 4 if bits == 4 else value]) for value in runs)
        if bits == 8:
            rest = bytes(row[5:].astype(np.uint8))
            data += bytes([0, len(rest)]) + rest + bytes(len(rest) % 2)
        data += b"\0\0"
    return data + b"\0\1"


@pytest.mark.parametrize("bits", [4, 8])
def test_a_bmp_of_runs_is_read_and_a_cut_one_refused(bits):
    palette = np.random.default_rng(bits).integers(0, 256, (2**bits, 3))
    index = scaled(COLOURS[..., 0], bits)
    for header in (40, 124):
        data = bmp(header, run_length(index, bits), SIZE, bits, 12 // bits - 1 if bits == 4 else 1, palette=palette)
        assert_is(data, palette[index])
        with pytest.raises(ImageError):
            decode(data[: -len(data) // 3])


def test_a_bmp_whose_alpha_is_0_everywhere_is_opaque():
    for alpha in (0, 7):
        samples = np.dstack([COLOURS[..., ::-1], np.full(COLOURS.shape[:2], alpha, np.uint8)])
        masks = [255 << 16, 255 << 8, 255, 255 << 24]
        photo = decode(bmp(124, packed_rows(samples, 8), SIZE, 32, 3, masks=masks))
        np.testing.assert_array_equal(photo.rgb, COLOURS)
        assert (photo.alpha is None) == (alpha == 0)


def test_the_profile_in_a_bmp_of_version_5_is_kept():
    profile = bytes(16) + b"RGB " + bytes(200)
    data = bytearray(bmp(124, packed_rows(COLOURS[..., ::-1], 8), SIZE, 24))
    assert decode(bytes(data)).icc is None
    data[70:74] = b"DEBM"
    data[126:134] = struct.pack("<II", len(data) - 14, len(profile))
    assert decode(bytes(data) + profile).icc == profile
    assert decode(bytes(data)).icc is None


@pytest.mark.parametrize("header", [12, 40, 124])
def test_a_bmp_shorter_than_its_pixels_is_refused(header):
    data = bmp(header, packed_rows(COLOURS[..., ::-1], 8), SIZE, 24)
    for missing in (2, 20, 1000):  # the last byte is padding
        with pytest.raises(ImageError, match="BMP"):
            decode(data[:-missing])
    for length in range(2, header + 14):
        with pytest.raises(ImageError):
            decode(data[:length])


@pytest.mark.parametrize("options", [{}, {"lossless": True}])
@pytest.mark.parametrize("image", [SMOOTH, np.dstack([SMOOTH, SMOOTH_ALPHA | 1])])
def test_webp_is_read_whole_or_refused(image, options):
    data = saved(image, "WEBP", quality=95, exact=True, **options)
    assert_is(data, SMOOTH, image[..., 3] if image.shape[2] == 4 else None, step=0 if options else 255)
    for part in (0.4, 0.9, 0.99):
        cut = bytearray(data[: int(len(data) * part)])
        for honest in (False, True):
            if honest:  # what is left is all that the header promises
                struct.pack_into("<I", cut, 4, len(cut) - 8)
            with pytest.raises(ImageError):
                decode(bytes(cut))


def test_the_first_picture_of_an_animated_webp_is_read():
    frames = [
        Image.fromarray(np.dstack([SMOOTH, SMOOTH_ALPHA | 1])),
        Image.fromarray(np.dstack([SMOOTH, 255 - SMOOTH_ALPHA])),
    ]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True, exact=True)
    photo = decode(file.getvalue())
    np.testing.assert_array_equal(photo.alpha, SMOOTH_ALPHA | 1)
    np.testing.assert_array_equal(photo.rgb[SMOOTH_ALPHA > 8], SMOOTH[SMOOTH_ALPHA > 8])


def heic(array, **options):
    pillow_heif = pytest.importorskip("pillow_heif")
    mode = "RGBA" if array.ndim == 3 and array.shape[2] == 4 else "RGB" if array.ndim == 3 else "L"
    image = pillow_heif.from_bytes(mode, (array.shape[1], array.shape[0]), np.ascontiguousarray(array).tobytes())
    file = io.BytesIO()
    image.save(file, quality=100, chroma=444, **options)
    return file.getvalue()


def avif(array, **options):
    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    return saved(array, "AVIF", quality=100, subsampling="4:4:4", **options)


WRITERS = {"AVIF": avif, "HEIC": heic}


@pytest.mark.parametrize("kind", WRITERS)
def test_photos_of_phones_are_read(kind):
    """Fault: heic_left_out_without_a_word, as far as they can be read."""
    write = WRITERS[kind]
    data = write(SMOOTH, icc_profile=PROFILE)
    assert probe(data) == (kind, 148, 84)
    assert_is(data, SMOOTH, step=4)
    assert decode(data).icc == PROFILE
    assert_is(write(np.dstack([SMOOTH, SMOOTH_ALPHA])), SMOOTH, SMOOTH_ALPHA, step=4)
    assert_is(write(SMOOTH[..., 0]), SMOOTH[..., :1], step=4)
    assert {"AVIF": ".avif", "HEIC": ".heic"}[kind] in EXTENSIONS


@pytest.mark.parametrize("kind", WRITERS)
def test_a_cut_photo_of_a_phone_is_refused(kind):
    data = WRITERS[kind](SMOOTH)
    for part in (0.1, 0.5, 0.9, 0.99):
        with pytest.raises(ImageError, match=kind):
            decode(data[: int(len(data) * part)])
    with pytest.raises(ImageError, match="at most 0.01 megapixels; received 148x84"):
        decode(data, max_megapixels=0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_an_avif_becomes_upright(orientation):
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: a[::-1, ::-1], 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2)}
    undo |= {6: np.rot90, 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_is(avif(np.ascontiguousarray(undo[orientation](SMOOTH)), exif=exif), SMOOTH, step=4)


def test_a_turned_heic_becomes_upright_once():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert_is(heic(np.ascontiguousarray(np.rot90(SMOOTH)), exif=exif.tobytes()), SMOOTH, step=4)


def test_heic_without_its_reader_is_refused_by_the_extras_name(monkeypatch):
    data = heic(SMOOTH)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(headers, "find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"pip install '\.\[heif\]'"):
        decode(data)
    assert ".heic" not in extensions()


@pytest.mark.parametrize("brand", [b"isom", b"mp42", b"qt  "])
def test_a_film_is_no_image(brand):
    with pytest.raises(ImageError, match="received something else"):
        decode(b"\0\0\0\x18ftyp" + brand + bytes(4) + brand * 2 + bytes(100))


def test_the_profile_of_every_format_is_carried_over():
    for kind, options in {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "JPEG": {"quality": 95}}.items():
        photo = decode(saved(COLOURS, kind, icc_profile=PROFILE, **options))
        assert photo.icc == PROFILE, kind
        for extension in (".png", ".webp", ".jpg"):
            assert decode(encode(photo.rgb, extension, photo.icc)).icc == PROFILE, extension


@pytest.mark.parametrize("size", [70_000, 300_000])
def test_a_large_profile_fits_into_png_and_webp(size):
    profile = bytes(16) + b"RGB " + np.random.default_rng(0).bytes(size)
    for extension in (".png", ".webp"):
        assert decode(encode(COLOURS, extension, profile)).icc == profile


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused_as_it_would_come_out_dull(photo, transfer, name):
    data = encode(photo, ".png")
    with pytest.raises(ImageError, match=rf"PNG of standard dynamic range; received HDR \({name}\)"):
        decode(data[:33] + chunk(b"cICP", bytes([9, transfer, 0, 1])) + data[33:])
    avif = io.BytesIO()
    Image.fromarray(photo).save(avif, "AVIF")
    data = bytearray(avif.getvalue())
    at = data.index(b"colrnclx")
    data[at + 10 : at + 12] = struct.pack(">H", transfer)
    with pytest.raises(ImageError, match=f"AVIF of standard .* received HDR .{name}"):
        decode(bytes(data))
