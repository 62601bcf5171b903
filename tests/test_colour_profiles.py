"""Colours mean what their profile does, whatever it is called, and a background is seen as the colour it was given."""

import io
from itertools import product

import numpy as np
import pytest
from icc_profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    PROPHOTO,
    SRGB,
    SRGB_CURVE,
    grey_profile,
    ink_profile,
    matrix_profile,
    table_profile,
)
from keras_matting_api import photos
from PIL import Image, ImageCms
from tiff_files import CMYK, tiff

import keras_matting
from keras_matting.cli import main
from keras_matting.photos import colour_profiles, files
from keras_matting.photos.files import Photo

P3 = matrix_profile(DISPLAY_P3, SRGB_CURVE, "Display P3", 4)
TABLE = table_profile(PROPHOTO, 1.8)
LINEAR = matrix_profile(SRGB, 1.0, "sRGB-elle-V2-g10.icc")
SAME_AS_SRGB = {
    "version 2": matrix_profile(SRGB, SRGB_CURVE, "sRGB IEC61966-2.1", black=(0, 0, 0)),
    "version 4": matrix_profile(SRGB, SRGB_CURVE, "sRGB built-in", 4),
    "another name": matrix_profile(SRGB, SRGB_CURVE, "Camera"),
    "no name": matrix_profile(SRGB, SRGB_CURVE),
    "littleCMS": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "broken": b"no profile" * 20,
    "cut off": P3[:200],
    "grey": grey_profile(2.2),
    "empty": b"",
}
OTHERS = {
    "linear, called sRGB": LINEAR,
    "linear, version 4, called sRGB": matrix_profile(SRGB, 1.0, "sRGB linear", 4),
    "gamma 1.8, called sRGB": matrix_profile(SRGB, 1.8, "sRGB"),
    "Display P3": P3,
    "Display P3, called sRGB": matrix_profile(DISPLAY_P3, SRGB_CURVE, "sRGB IEC61966-2.1"),
    "Adobe RGB": matrix_profile(ADOBE_RGB, 2.2, "Adobe RGB (1998)"),
    "ProPhoto": matrix_profile(PROPHOTO, 1.8, ""),
    "a table, one way": TABLE,
}


def seen(rgb, icc):
    """Return the colours as Pillow shows them, in sRGB."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return np.asarray(ImageCms.profileToProfile(Image.fromarray(rgb), profile, ImageCms.createProfile("sRGB")))


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)


@pytest.fixture
def cut(one_layer_dir):
    return lambda image, **options: keras_matting.matte(image, one_layer_dir, "onnx-cpu", **options)


@pytest.mark.parametrize("name", SAME_AS_SRGB)
def test_a_profile_that_moves_no_colour_is_srgb_whatever_its_name(name, colours):
    assert colour_profiles.is_srgb(SAME_AS_SRGB[name])
    photo = colour_profiles.in_srgb(Photo(colours, None, SAME_AS_SRGB[name]))
    assert photo.icc is None
    np.testing.assert_array_equal(photo.rgb, colours)


@pytest.mark.parametrize("name", OTHERS)
def test_a_profile_that_moves_colours_is_converted_whatever_its_name(name, colours):
    """fault: srgb_named_linear_profile"""
    assert not colour_profiles.is_srgb(OTHERS[name])
    data = io.BytesIO()
    Image.fromarray(colours).save(data, "PNG", icc_profile=OTHERS[name])
    photo = photos.decode(data.getvalue(), photos.Limits())
    assert photo.icc is None
    np.testing.assert_array_equal(photo.rgb, seen(colours, OTHERS[name]))


GREY_FILES = {"PNG": "L", "PNG with alpha": "LA", "JPEG": "L", "TIFF": "L", "TIFF of 16 bits": "I;16"}


@pytest.mark.parametrize("kind", GREY_FILES)
@pytest.mark.parametrize("exponent", [1.0, 1.8])
def test_a_grey_photo_is_seen_through_its_grey_profile(cut, photo, kind, exponent):
    """The output has no profile: it is in sRGB, as the model, the service and a background see it."""
    icc, grey = grey_profile(exponent), Image.fromarray(photo).convert("L")
    file = io.BytesIO()
    image = grey.convert(GREY_FILES[kind]) if kind != "TIFF of 16 bits" else Image.fromarray(np.uint16(grey) * 257)
    image.save(file, kind.split()[0], icc_profile=icc, quality=100)
    stored = Image.open(io.BytesIO(file.getvalue()))
    values = grey if stored.mode.startswith("I") else stored.convert("L")
    profile, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    expected = np.asarray(ImageCms.profileToProfile(values, profile, srgb, outputMode="RGB"))
    assert np.abs(expected[..., 0].astype(int) - np.asarray(values)).mean() > 10
    of_service = [] if "TIFF" in kind else [photos.decode(file.getvalue(), photos.Limits())]
    for decoded in (files.decode(file.getvalue()), *of_service):
        assert decoded.icc is None
        np.testing.assert_array_equal(decoded.rgb, expected)
    result = cut(stored)
    assert "icc_profile" not in result.info
    np.testing.assert_array_equal(np.asarray(result)[..., :3], expected)


INKS = ink_profile()


def of_inks(inks):
    """Return Pillow's image of cyan, magenta, yellow and black, uint8 (H, W, 4), 255 for full ink."""
    return Image.frombytes("CMYK", inks.shape[1::-1], inks.tobytes())


def saved(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def ink_files(inks, icc):
    """Yield (what it is, file, the inks that are in it)."""
    for progressive, subsampling in product((False, True), (0, 1, 2)):
        options = {"quality": 95, "progressive": progressive, "subsampling": subsampling, "icc_profile": icc}
        data = saved(of_inks(inks), format="JPEG", **options)
        yield "JPEG", data, np.asarray(Image.open(io.BytesIO(data)))
    for bits, planar in ((8, False), (16, True)):
        wide = inks.astype(int) * (257 if bits == 16 else 1)
        yield "TIFF", tiff(wide, CMYK, bits, planar=planar, tags={34675: icc} if icc else {}), inks


@pytest.fixture
def inks():
    return np.random.default_rng(1).integers(0, 256, (16, 24, 4), np.uint8).repeat(4, axis=0).repeat(4, axis=1)


def test_inks_are_seen_through_their_profile(cut, inks):
    """Of print shops' photos: the output has no profile, it is in sRGB, as every reader shows the photo."""
    profile, srgb = ImageCms.ImageCmsProfile(io.BytesIO(INKS)), ImageCms.createProfile("sRGB")
    for kind, data, stored in ink_files(inks, INKS):
        expected = np.asarray(ImageCms.profileToProfile(of_inks(stored), profile, srgb, outputMode="RGB"))
        plain = (255 - stored[..., :3].astype(int)) * (255 - stored[..., 3:].astype(int)) / 255
        assert np.abs(expected - plain).mean() > 20
        decoded = files.decode(data)
        assert decoded.icc is None
        np.testing.assert_allclose(decoded.rgb, expected, atol=1 if kind == "JPEG" else 0)
        if kind == "JPEG":
            result = cut(Image.open(io.BytesIO(data)))
            assert "icc_profile" not in result.info
            np.testing.assert_array_equal(np.asarray(result)[..., :3], expected)


@pytest.mark.parametrize("icc", [None, P3, b"no profile" * 20, INKS[:300]], ids=["none", "RGB", "broken", "cut off"])
def test_inks_without_a_profile_of_inks_become_rgb_plainly(inks, icc):
    for _, data, stored in ink_files(inks, icc):
        plain = (255 - stored[..., :3].astype(int)) * (255 - stored[..., 3:].astype(int)) / 255
        decoded = files.decode(data)
        assert decoded.icc is None
        np.testing.assert_allclose(decoded.rgb, plain, atol=1)


def test_a_grey_profile_of_colours_or_of_the_same_curve_changes_nothing(photo):
    for rgb, curve in ((photo, 1.0), (photo[..., :1].repeat(3, axis=2), SRGB_CURVE)):
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "PNG", icc_profile=grey_profile(curve))
        decoded = files.decode(file.getvalue())
        assert decoded.icc is None
        np.testing.assert_array_equal(decoded.rgb, rgb)


def test_photos_are_converted_in_bands_to_the_same_colours(monkeypatch, colours):
    whole = colour_profiles.convert(colours, P3)
    monkeypatch.setattr(colour_profiles, "_BAND_PIXELS", 100)
    np.testing.assert_array_equal(colour_profiles.convert(colours, P3), whole)


def test_a_colour_that_a_profile_cannot_tell_is_known():
    assert colour_profiles.can_hold(P3, (0, 177, 64))
    assert not colour_profiles.can_hold(TABLE)
    assert not colour_profiles.can_hold(LINEAR, (4, 5, 6))  # 8 bits of linear light hold 0 and 13
    assert colour_profiles.can_hold(LINEAR, (255, 255, 255))


def in_profile(photo, icc):
    data = io.BytesIO()
    Image.fromarray(photo).save(data, "PNG", icc_profile=icc)
    return data.getvalue()


def saw(data):
    """Return (what an image file shows in sRGB, its profile)."""
    image = Image.open(io.BytesIO(data))
    icc = image.info.get("icc_profile")
    rgb = np.asarray(image.convert("RGB"))
    return (seen(rgb, icc) if icc else rgb), icc


def hidden(photo):
    """Return the photo with everything transparent but one pixel, as RGBA: its cut-out is nearly all background."""
    alpha = np.zeros(photo.shape[:2], np.uint8)
    alpha[0, 0] = 255
    return np.dstack([photo, alpha])


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("colour", [(0, 177, 64), (255, 0, 0), (250, 250, 250), (4, 5, 6)])
def test_a_colour_behind_a_photo_is_seen_as_that_colour(cut, photo, name, colour):
    result, icc = saw(cut(in_profile(hidden(photo), OTHERS[name]), output="on-color", background=colour))
    assert np.abs(result[40, 40].astype(int) - colour).max() <= 3
    if name == "Display P3":
        assert icc == P3


@pytest.mark.parametrize("own", [None, *OTHERS])
@pytest.mark.parametrize("of_photo", [None, P3, TABLE])
def test_a_picture_behind_a_photo_is_seen_as_that_picture(cut, photo, tmp_path, one_layer_dir, own, of_photo):
    picture = np.full((20, 30, 3), (90, 110, 100), np.uint8)
    (tmp_path / "picture.png").write_bytes(in_profile(picture, OTHERS.get(own)))
    (tmp_path / "photo.png").write_bytes(in_profile(hidden(photo), of_photo))
    arguments = [str(tmp_path / name) for name in ("photo.png", "out.png")]
    options = ["--model", str(one_layer_dir), "--engine", "onnx-cpu", f"--output=on-image={tmp_path / 'picture.png'}"]
    assert main(["predict", *arguments, *options, "--quiet"]) == 0
    result, icc = saw((tmp_path / "out.png").read_bytes())
    expected = seen(picture, OTHERS[own]) if own else picture
    assert np.abs(result[40, 40].astype(int) - expected[0, 0]).max() <= 4
    assert icc == (P3 if of_photo == P3 else None)
    pil, behind = (Image.open(tmp_path / name) for name in ("photo.png", "picture.png"))
    result = cut(pil, output="on-image", background=behind)
    assert result.info.get("icc_profile") == icc
    np.testing.assert_array_equal(np.asarray(result), np.asarray(Image.open(tmp_path / "out.png")))


def test_a_cut_out_keeps_the_photo_s_numbers_and_profile(cut, photo):
    for icc in OTHERS.values():
        image = Image.open(io.BytesIO(cut(in_profile(photo, icc))))
        assert image.info["icc_profile"] == icc
        np.testing.assert_array_equal(np.asarray(image)[..., :3], photo)


def test_the_model_sees_the_colours_that_people_see(photo):
    from test_imaging import PRESET

    from keras_matting.photos import imaging

    size = PRESET.input_size
    photo = np.ascontiguousarray(photo[: size[0], : size[1]])
    expected = imaging.prepare(Photo(seen(photo, LINEAR)), PRESET)
    np.testing.assert_array_equal(imaging.prepare(Photo(photo, None, LINEAR), PRESET), expected)


def test_pil_images_of_a_palette_keep_their_profile(cut, photo):
    image = Image.fromarray(photo).quantize(4)
    image.info["icc_profile"] = P3
    assert cut(image).info["icc_profile"] == P3
    image.info["icc_profile"] = grey_profile(2.2)
    assert "icc_profile" not in cut(image).info
