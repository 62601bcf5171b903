"""Shop pictures, pixel by pixel: no fringe, no cut shadow, the same frame for every kind of output."""

from dataclasses import replace

import numpy as np
import pytest

from keras_matting.errors import ImageError
from keras_matting.matting import OutputOptions
from keras_matting.photos import imaging, output, placing
from keras_matting.photos.files import Photo
from keras_matting.photos.framing import Box, Framing
from keras_matting.photos.output import finish

RED, BLUE = (200, 10, 10), (0, 0, 255)
SUBJECT = Box(left=30, top=20, width=40, height=50)
HEIGHT, WIDTH = 90, 120


@pytest.fixture
def matte():
    matte = np.zeros((HEIGHT, WIDTH), np.float32)
    matte[SUBJECT.slices] = 1
    return matte


@pytest.fixture
def red_on_blue(matte):
    """A red rectangle on blue ground."""
    return Photo(np.where(matte[..., None] > 0, RED, BLUE).astype(np.uint8))


def test_a_crop_is_the_photo_s_own_pixels(matte):
    photo = Photo(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    image, box, _ = finish(photo, matte, OutputOptions(crop=True, margin="3px 2px"))
    assert box == SUBJECT
    assert image.shape == (56, 44, 4)
    np.testing.assert_array_equal(image[3:53, 2:42], imaging.cut_out(photo.rgb, matte)[SUBJECT.slices])
    assert image[..., 3].sum() == 255 * 40 * 50


def test_specks_are_not_in_the_picture(red_on_blue, matte):
    matte[72:74, 72:74] = 1
    image, box, _ = finish(red_on_blue, matte, OutputOptions(crop=True, margin="20px"))
    assert box == SUBJECT
    assert image[..., 3].sum() == 255 * 40 * 50


@pytest.mark.parametrize("canvas", ["23x23", "33x47", "50x50", "311x407"])
def test_the_old_background_does_not_get_into_edges(canvas):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    matte = np.clip(25.5 - np.hypot(rows - 45, columns - 60), 0, 1).astype(np.float32)  # a disc, in whose box is blue
    red_on_blue = Photo(np.where(matte[..., None] > 0, RED, BLUE).astype(np.uint8))
    rgba, *_ = finish(red_on_blue, matte, OutputOptions(canvas=canvas))
    seen = rgba[..., :3].astype(float) * (rgba[..., 3:] / 255)
    assert (seen[..., 2] - seen[..., 0] * RED[2] / RED[0]).max() <= 1.5
    inside = rgba[rgba[..., 3] == 255]
    assert np.abs(inside[:, :3].astype(int) - RED).max() <= 1
    on_red, *_ = finish(red_on_blue, matte, OutputOptions("on-color", RED, canvas=canvas))
    assert np.abs(on_red.astype(int) - RED).max() <= 1


@pytest.mark.parametrize("canvas", ["20x25", "80x100"])
def test_light_is_what_is_averaged(canvas):
    stripes = np.zeros((50, 40, 3), np.uint8)
    stripes[::2] = 255
    image, *_ = finish(Photo(stripes), np.ones((50, 40), np.float32), OutputOptions(canvas=canvas))
    if canvas == "20x25":
        assert set(np.unique(image[..., :3])) == {188}  # half the light of white
    assert image.shape == (*map(int, reversed(canvas.split("x"))), 4)
    assert (image[..., 3] == 255).all()


@pytest.mark.parametrize(
    "framing",
    [
        {"crop": True, "margin": "5%"},
        {"canvas": "61x83", "scale": "70%"},
        {"canvas": "300x200", "position": "left"},
        {"scale": "50%"},
        {"shadow": "soft"},
    ],
)
def test_every_kind_of_output_has_the_same_frame(red_on_blue, matte, framing):
    matte = matte * np.float32(0.9)
    made = {
        kind: finish(red_on_blue, matte, OutputOptions(kind, (255, 255, 255), **framing)).image
        for kind in ("rgba", "mask", "matte16", "on-color")
    }
    plain = finish(red_on_blue, matte, OutputOptions(**{**framing, "shadow": None})).image
    assert {image.shape[:2] for image in made.values()} == {plain.shape[:2]}
    np.testing.assert_array_equal(made["mask"], plain[..., 3])
    np.testing.assert_allclose(made["matte16"] / 257, made["mask"], atol=0.51)
    alpha = made["rgba"][..., 3:] / 255
    flattened = made["rgba"][..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(made["on-color"], flattened, atol=1.5)


def test_a_picture_covers_the_whole_canvas(red_on_blue, matte):
    sky = np.full((10, 10, 3), (120, 180, 250), np.uint8)
    image, *_ = finish(red_on_blue, matte, OutputOptions("on-image", sky, canvas="200x100", scale="50%"))
    assert image.shape == (100, 200, 3)
    np.testing.assert_array_equal(image[[0, 0, -1, -1], [0, -1, 0, -1]], [[120, 180, 250]] * 4)
    assert image[50, 100].tolist() == list(RED)


def test_what_was_transparent_in_the_photo_is_no_subject(red_on_blue):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[SUBJECT.slices] = 255
    everything = np.ones((HEIGHT, WIDTH), np.float32)
    assert finish(replace(red_on_blue, alpha=alpha), everything, OutputOptions(crop=True)).box == SUBJECT


def test_the_profile_s_numbers_stay_in_the_profile(red_on_blue, matte):
    photo = replace(red_on_blue, icc=b"any")
    image, *_ = finish(photo, matte, OutputOptions(canvas="80x100"))
    assert image[50, 40].tolist() == [*RED, 255]
    assert output.output_profile(photo, OutputOptions(canvas="80x100")) == b"any"


def test_a_shadow_lies_below_the_subject_and_is_not_cut(red_on_blue, matte):
    image, *_ = finish(red_on_blue, matte, OutputOptions(crop=True, shadow="soft", canvas="400x500"))
    alpha, colours = image[..., 3].astype(int), image[..., :3]
    body = (colours[..., 0] > 100) & (alpha > 250)
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    below, above = alpha[rows[-1] + 4, 200], alpha[rows[0] - 4, 200]
    beside = alpha[250, columns[-1] + 4]
    assert below > beside > above > 0
    assert 40 < below < 150
    assert colours[rows[-1] + 4, 200].max() <= 1  # black, whatever the ground was
    assert alpha[[0, -1]].max() <= 1 and alpha[:, [0, -1]].max() <= 1
    np.testing.assert_array_equal(np.abs(alpha - alpha[:, ::-1]) <= 2, True)  # of a symmetric subject


def test_a_shadow_is_off_by_default_and_no_part_of_a_mask(red_on_blue, matte):
    plain = finish(red_on_blue, matte, OutputOptions(crop=True, margin="20px")).image
    shadowed = finish(red_on_blue, matte, OutputOptions(crop=True, margin="20px", shadow="soft")).image
    mask = finish(red_on_blue, matte, OutputOptions("mask", crop=True, margin="20px", shadow="soft")).image
    assert set(np.unique(plain[..., 3])) == {0, 255}
    np.testing.assert_array_equal(mask, plain[..., 3])
    assert (shadowed[..., 3] > plain[..., 3]).any() and (shadowed[..., 3] >= plain[..., 3]).all()
    np.testing.assert_array_equal(shadowed[mask == 255], plain[mask == 255])


def test_a_shadow_scales_with_its_subject(matte):
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    small, large = (
        finish(Photo(rgb), matte, OutputOptions(canvas=canvas, shadow="soft")).image[..., 3].mean()
        for canvas in ("100x120", "1000x1200")
    )
    assert small == pytest.approx(large, rel=0.05)


def test_an_empty_matte_is_told_whatever_is_asked_and_left_alone_where_nothing_is(red_on_blue):
    nothing = np.zeros((HEIGHT, WIDTH), np.float32)
    for framing in ({"crop": True}, {"canvas": "100x100"}, {"shadow": "soft"}, {"scale": "50%"}):
        with pytest.raises(ImageError, match="an empty matte"):
            finish(red_on_blue, nothing, OutputOptions(**framing))
    assert finish(red_on_blue, nothing, OutputOptions()).image[..., 3].max() == 0


def test_the_shadow_reaches_no_further_than_is_kept_free():
    side = 300
    box = Box(150, 150, side, side)
    matte = np.zeros((600, 600), np.float32)
    matte[box.slices] = 1
    _, alpha = placing.add_shadow(np.zeros((600, 600, 3), np.uint8), matte, box)
    rows, columns = (np.flatnonzero((alpha > 1 / 510).any(axis=axis)) for axis in (1, 0))
    top, right, bottom, left = Framing(crop=True, shadow=True)._sides(box, 1)
    assert rows[0] >= 150 - top and rows[-1] < 450 + bottom
    assert columns[0] >= 150 - left and columns[-1] < 450 + right
