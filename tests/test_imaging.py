import warnings
from dataclasses import replace

import numpy as np
import pytest

from keras_matting.errors import UsageError
from keras_matting.model_folder import Preset
from keras_matting.photos import imaging
from keras_matting.photos.files import Photo

PRESET = Preset(name="p", architecture="u2netp", input_size=(8, 4), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def test_input_is_scaled_then_normalised_per_channel():
    photo = Photo(np.full((16, 16, 3), (51, 102, 204), np.uint8))
    image = imaging.prepare(photo, PRESET)
    assert image.shape == (8, 4, 3)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[0, 0], [(0.2 - 0.5) / 0.2, 0, (0.8 - 0.3) / 0.4], atol=1e-6)


def test_image_max_scaling_divides_by_the_photo_s_maximum_and_survives_black():
    preset = replace(PRESET, scale="image-max")
    image = imaging.prepare(Photo(np.full((8, 4, 3), (50, 100, 0), np.uint8)), preset)
    np.testing.assert_allclose(image[0, 0, :2], [0, (1 - 0.4) / 0.3], atol=1e-6)
    assert np.isfinite(imaging.prepare(Photo(np.zeros((8, 4, 3), np.uint8)), preset)).all()


def test_transparent_pixels_are_shown_to_the_model_on_white():
    rgb = np.zeros((8, 4, 3), np.uint8)
    alpha = np.zeros((8, 4), np.uint8)
    white = imaging.prepare(Photo(np.full_like(rgb, 255)), PRESET)
    np.testing.assert_array_equal(imaging.prepare(Photo(rgb, alpha), PRESET), white)


def test_matte_is_scaled_to_the_photo_and_kept_within_its_alpha():
    photo = Photo(np.zeros((20, 10, 3), np.uint8), np.full((20, 10), 51, np.uint8))
    matte = imaging.within_alpha(imaging.restore(np.ones((8, 4, 1), np.float32), photo, PRESET), photo)
    assert matte.shape == (20, 10)
    np.testing.assert_allclose(matte, np.full((20, 10), 0.2), atol=1e-6)


def test_min_max_stretches_each_map_and_leaves_a_constant_one():
    photo, preset = Photo(np.zeros((8, 4, 3), np.uint8)), replace(PRESET, output="min-max")
    ramp = np.linspace(0.2, 0.6, 32, dtype=np.float32).reshape(8, 4, 1)
    stretched = imaging.restore(ramp, photo, preset)
    assert (stretched.min(), stretched.max()) == (0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(imaging.restore(np.full((8, 4, 1), 0.3, np.float32), photo, preset), 0.3)


def test_identity_output_is_not_stretched():
    photo = Photo(np.zeros((8, 4, 3), np.uint8))
    ramp = np.linspace(0.2, 0.6, 32, dtype=np.float32).reshape(8, 4, 1)
    np.testing.assert_allclose(imaging.restore(ramp, photo, PRESET), ramp[..., 0], atol=1e-6)


def test_a_cut_out_keeps_the_photo_s_own_colours():
    rgb = np.full((2, 2, 3), (200, 100, 50), np.uint8)
    rgba = imaging.cut_out(rgb, np.full((2, 2), 128 / 255, np.float32))
    np.testing.assert_array_equal(rgba[0, 0], (200, 100, 50, 128))


def test_composite_blends_over_a_colour_and_over_an_image_of_any_size():
    rgb = np.full((10, 20, 3), 200, np.uint8)
    half = np.full((10, 20), 0.5, np.float32)
    np.testing.assert_array_equal(imaging.composite(rgb, half, (0, 100, 255))[3, 3], (100, 150, 228))
    background = np.zeros((7, 300, 3), np.uint8)
    background[:, :140] = 255  # cropped away on the left and the right: only the middle covers the photo
    result = imaging.composite(rgb, np.zeros((10, 20), np.float32), background)
    assert result.shape == (10, 20, 3)
    assert result.mean() < 128


@pytest.mark.parametrize("field", ["scale", "interpolation", "output"])
def test_a_preset_with_an_unknown_rule_is_refused(field):
    with pytest.raises(UsageError, match=f"Expected {field} in preset"):
        replace(PRESET, **{field: "cubic"})


@pytest.mark.parametrize(
    "wrong",
    [{"input_size": (0, 0)}, {"input_size": ("3", 4)}, {"mean": ("a", "b", "c")}, {"std": (0, 1, 1)}, {"std": (1, 1)}],
)
def test_a_preset_with_impossible_numbers_is_refused(wrong):
    with pytest.raises(UsageError, match="Expected"):
        replace(PRESET, **wrong)


def test_a_preset_round_trips_through_its_folder(tmp_path):
    PRESET.save(tmp_path)
    assert Preset.load(tmp_path) == PRESET


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "x"}', '{"colour": 1}'])
def test_a_malformed_preset_is_explained(tmp_path, content):
    (tmp_path / "preset.json").write_text(content)
    with pytest.raises(UsageError, match="Expected"):
        Preset.load(tmp_path)


def test_what_is_no_map_is_no_matte(photo):
    with pytest.raises(UsageError, match=r"gives \(1000,\)"):
        imaging.restore(np.zeros(1000, np.float32), Photo(photo), PRESET)
