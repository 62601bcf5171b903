"""Colours that a file states without an ICC profile: PNG's cICP, gAMA and cHRM, AVIF's and HEIC's nclx, EXIF's R03."""

import io
import struct
import zlib

import numpy as np
import pytest
from icc_profiles import ADOBE_RGB, DISPLAY_P3, SRGB, SRGB_CURVE, matrix_profile
from PIL import Image, ImageCms

import keras_matting
from keras_matting.photos import colour_profiles, files, headers, stated_colours
from keras_matting.photos.given import photo_of_pil

P3 = matrix_profile(DISPLAY_P3, SRGB_CURVE, "Display P3", 4)
ADOBE = matrix_profile(ADOBE_RGB, 563 / 256, "Adobe RGB (1998)")
LINEAR = matrix_profile(SRGB, 1.0)
GAMMA_18 = matrix_profile(SRGB, 1.8)
SRGB_PROFILE = matrix_profile(SRGB, SRGB_CURVE)
P3_POINTS = 0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060
SRGB_POINTS = 0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)


def seen(rgb, icc):
    """Return the colours as Pillow shows them by a profile that another hand wrote, in sRGB."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return np.asarray(ImageCms.profileToProfile(Image.fromarray(rgb), profile, ImageCms.createProfile("sRGB")))


def png(rgb, *chunks, icc=None):
    """Return a PNG with more chunks, (name, content), before its pixels."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG", icc_profile=icc)
    data, added = file.getvalue(), b""
    for name, content in chunks:
        added += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return data[:33] + added + data[33:]


def cicp(primaries, transfer):
    return b"cICP", bytes([primaries, transfer, 0, 1])


def gama(exponent):
    return b"gAMA", struct.pack(">I", round(1e5 / exponent))


def chrm(points):
    return b"cHRM", struct.pack(">8I", *(round(each * 1e5) for each in points))


def container(rgb, kind, primaries, transfer, icc=None):
    """Return an AVIF or HEIC whose nclx says so; `icc` is its profile."""
    file = io.BytesIO()
    if kind == "HEIF":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(Image.fromarray(rgb)).save(file, quality=95, icc_profile=icc, save_nclx_profile=True)
    else:
        Image.fromarray(rgb).save(file, kind, quality=95, subsampling="4:4:4", icc_profile=icc)
    data = bytearray(file.getvalue())
    at = data.index(b"colrnclx")
    data[at + 8 : at + 12] = struct.pack(">2H", primaries, transfer)
    return bytes(data)


def exif(index=b"R03\0", colour_space=0xFFFF, order="<"):
    """Return an EXIF block of three directories: the first, EXIF's own, and that of interoperability."""

    def directory(*entries):
        packed = b"".join(struct.pack(f"{order}2HI", tag, kind, count) + value for tag, kind, count, value in entries)
        return struct.pack(f"{order}H", len(entries)) + packed + bytes(4)

    def long(value):
        return struct.pack(f"{order}I", value)

    first = directory((0x8769, 4, 1, long(26)))
    own = directory((0xA001, 3, 1, struct.pack(f"{order}2H", colour_space, 0)), (0xA005, 4, 1, long(26 + 30)))
    last = directory((1, 2, 4, index))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + long(8)
    return b"Exif\0\0" + head + first + own + last


def jpeg(rgb, block, mode="RGB", icc=None, subsampling=0):
    file = io.BytesIO()
    options = {"quality": 95, "subsampling": subsampling, "exif": block, "icc_profile": icc}
    Image.fromarray(rgb).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def check(data, icc):
    """Compare a file with what a profile by another hand makes of its numbers."""
    photo = files.decode(data)
    assert photo.icc
    np.testing.assert_allclose(colour_profiles.in_srgb(photo).rgb, seen(photo.rgb, icc), atol=2)
    assert np.abs(seen(photo.rgb, icc).astype(int) - photo.rgb).mean() > 2  # so that the comparison tells


CHUNKS = {
    "Display P3": ([cicp(12, 13)], P3),
    "Display P3, a camera's curve": ([cicp(12, 1)], P3),
    "linear": ([cicp(1, 8)], LINEAR),
    "gAMA alone, linear": ([gama(1.0)], LINEAR),
    "gAMA alone, 1.8": ([gama(1.8)], GAMMA_18),
    "gAMA and cHRM": ([gama(2.2), chrm(P3_POINTS)], P3),
    "cICP before gAMA": ([gama(1.0), chrm(SRGB_POINTS), cicp(12, 13)], P3),
    "cICP before sRGB": ([(b"sRGB", b"\0"), cicp(12, 13)], P3),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_what_a_png_states_is_what_its_numbers_mean(name, colours):
    chunks, icc = CHUNKS[name]
    check(png(colours, *chunks), icc)


@pytest.mark.parametrize(
    "chunks",
    [
        [cicp(1, 13)],
        [cicp(2, 2)],  # unspecified
        [cicp(99, 13)],
        [cicp(12, 99)],
        [(b"cICP", b"\x0c\x0d")],
        [gama(2.2)],
        [gama(2.2), chrm(SRGB_POINTS)],
        [chrm(P3_POINTS)],  # without a curve, no word is whole
        [(b"sRGB", b"\0"), gama(1.0), chrm(P3_POINTS)],
        [gama(1.0), chrm([0] * 8)],
        [gama(1.0), chrm(SRGB_POINTS[:2] * 4)],
        [gama(1.0), chrm((*SRGB_POINTS[:2], 0.3, 0.3, 0.4, 0.4, 0.5, 0.50001))],  # nearly on one line
        [gama(1.0), (b"cHRM", b"\xff" * 32)],
        [gama(1.0), (b"cHRM", struct.pack(">8i", 32168, 33767, 73470, 26530, 0, 100_000, 10, -7700))],  # ACES
        [(b"gAMA", bytes(4))],
        [(b"gAMA", b"\xff" * 4)],
        [(b"gAMA", struct.pack(">I", 1))],
    ],
    ids=str,
)
def test_what_is_srgb_or_no_colours_at_all_counts_as_srgb(chunks, colours):
    photo = files.decode(png(colours, *chunks))
    assert photo.icc is None
    np.testing.assert_array_equal(photo.rgb, colours)


def test_a_png_s_cicp_goes_before_its_profile_which_goes_before_the_rest(colours):
    check(png(colours, cicp(12, 13), icc=LINEAR), P3)
    assert files.decode(png(colours, gama(1.0), icc=P3)).icc == P3
    assert files.decode(png(colours, cicp(12, 99), icc=P3)).icc == P3  # a number that nobody knows
    assert files.decode(png(colours, cicp(1, 13), icc=P3)).icc is None


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_an_nclx_counts_where_there_is_no_profile(kind, colours):
    check(container(colours, kind, 12, 13), P3)
    assert files.decode(container(colours, kind, 1, 13)).icc is None
    assert files.decode(container(colours, kind, 2, 2)).icc is None


def test_a_profile_goes_before_an_nclx(colours):
    data = container(colours, "AVIF", 9, 13)
    assert stated_colours.profile("AVIF", data, P3) == P3


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_camera_s_adobe_rgb_is_adobe_rgb(order, colours):
    check(jpeg(colours, exif(order=order)), ADOBE)
    assert files.decode(jpeg(colours, exif(order=order), icc=P3)).icc == P3
    as_pil = photo_of_pil(Image.open(io.BytesIO(jpeg(colours, exif(order=order)))))
    assert as_pil.icc == files.decode(jpeg(colours, exif(order=order))).icc


def test_other_words_in_an_exif_block_are_not_adobe_rgb(colours):
    whole = exif()
    for block in (exif(b"R98\0"), exif(colour_space=1), *(whole[:length] for length in range(8, len(whole) - 4, 5))):
        assert files.decode(jpeg(colours, block)).icc is None
    for sampling in (0, 2):
        assert files.decode(jpeg(colours, whole, "CMYK", subsampling=sampling)).icc is None  # inks never were


def test_the_wide_primaries_of_bt_2020_and_cinema_are_told_apart():
    """Pure green and red in XYZ under D50, by Bradford's adaptation (values of the published profiles)."""
    for primaries, red in ((9, (0.67348, 0.27904, -0.00193)), (12, (0.51512, 0.24120, -0.00105))):
        data = stated_colours.profile("PNG", png(np.zeros((2, 2, 3), np.uint8), cicp(primaries, 13)), None)
        at = data.index(b"rXYZ") + 4
        start = struct.unpack(">I", data[at : at + 4])[0] + 8
        found = [value / 65536 for value in struct.unpack(">3i", data[start : start + 12])]
        assert found == pytest.approx(red, abs=2e-4)


def test_a_cut_out_carries_the_profile_that_was_stated(colours, one_layer_dir):
    data = keras_matting.matte(png(colours, cicp(12, 13)), one_layer_dir, "onnx-cpu")
    image = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(np.asarray(image)[..., :3], colours)
    rgb = np.asarray(image.convert("RGB"))
    np.testing.assert_allclose(seen(rgb, image.info["icc_profile"]), seen(rgb, P3), atol=2)


@pytest.mark.parametrize("info", [{"exif": None}, {"icc_profile": 3}, {"exif": exif()}])
def test_whatever_a_pil_image_s_plug_in_leaves_is_no_failure(info, colours):
    """pillow-heif leaves None; and of R03 only a camera's JPEG knows."""
    image = Image.fromarray(colours)
    image.info |= info
    assert photo_of_pil(image).icc is None


def test_an_exif_block_ends_with_its_segment():
    block = exif()
    data = b"\xff\xd8\xff\xe1" + struct.pack(">H", 2 + len(block)) + block + b"\xff\xda\0\2rest"
    assert headers.exif_block(data) == block
