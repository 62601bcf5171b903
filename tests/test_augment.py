import colorsys
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from keras_matting.data.pipeline import colour
from keras_matting.data.pipeline.augment import AUGMENTATIONS, find
from keras_matting.data.pipeline.colour import Blur, ColourJitter, CutOut, Invert, Jpeg, Noise, Relight
from keras_matting.data.pipeline.geometry import Geometry, warp
from keras_matting.data.pipeline.reader import ColourTransform
from keras_matting.errors import UsageError
from keras_matting.model_folder import Preset

SIZE = (32, 40)
STEP = 1 / 255
OPS = (
    ColourJitter(0.5, 0.5, 0.5, 0.3),
    Invert(0.5),
    Relight(),
    CutOut(),
    Blur(probability=1.0),
    Noise(),
    Jpeg(probability=1.0, quality=(20, 90)),
)
GEOMETRIES = {name: augmentation.geometry for name, augmentation in AUGMENTATIONS.items()}


def seed(number):
    return tf.constant([7, number], tf.int64)


def picture(size=SIZE):
    """A photo with colours everywhere and a soft alpha, which its red channel repeats: uint8 (H, W, 4)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    disc = np.clip((size[0] / 3 - np.hypot(rows - size[0] / 2.2, columns - size[1] / 1.8)) / 6, 0, 1)
    alpha = np.rint(disc * 255).astype(np.uint8)
    return np.stack([alpha, rows * 5 % 256, columns * 6 % 256, alpha], axis=-1).astype(np.uint8)


def photo_and_alpha(size=SIZE):
    pixels = picture(size).astype(np.float32) / 255
    return tf.constant(pixels[..., :3]), tf.constant(pixels[..., 3:])


def projective(pixels, coefficients, fill_mode):
    """The same warp by TensorFlow's own kernel."""
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(pixels[None], tf.float32),
        transforms=tf.constant([coefficients], tf.float32),
        output_shape=pixels.shape[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill_mode,
    )
    return warped[0].numpy()


@pytest.mark.parametrize(("reflect", "fill_mode"), [(False, "CONSTANT"), (True, "REFLECT")])
def test_warp_equals_tensorflow_s_projective_transform(reflect, fill_mode):
    matrix = np.array([[0.9, -0.5, 0.1], [0.6, 1.1, -0.2], [0.1, -0.05, 1]], np.float32)
    height, width = SIZE
    unit = max(SIZE) / 2
    centred = np.array([[1 / unit, 0, -(width - 1) / 2 / unit], [0, 1 / unit, -(height - 1) / 2 / unit], [0, 0, 1]])
    pixels_of = np.linalg.inv(centred) @ matrix @ centred
    expected = projective(picture(), (pixels_of / pixels_of[2, 2]).ravel()[:8], fill_mode)
    warped = warp(picture(), matrix, reflect=reflect).numpy()
    assert np.abs(warped - expected).max() <= 2.5
    assert np.abs(warped - expected).mean() < 0.5


def test_warp_by_the_identity_changes_nothing():
    np.testing.assert_array_equal(warp(picture(), np.eye(3, dtype=np.float32)), picture())


@pytest.mark.parametrize("name", GEOMETRIES)
def test_photo_and_alpha_move_together_and_alpha_stays_soft(name):
    geometry = GEOMETRIES[name]
    loaded = picture(geometry.load_size(SIZE))
    results = [geometry(loaded, SIZE, seed(number)).numpy() for number in range(3)]
    for moved in results:
        assert moved.shape == (*SIZE, 4)
        np.testing.assert_array_equal(moved[..., 0], moved[..., 3])
        assert ((moved[..., 3] > 20) & (moved[..., 3] < 235)).any()
    if name != "none":
        assert not np.array_equal(results[0], results[1])


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry_is_the_same_under_a_seed_in_a_pipeline_as_eagerly(name):
    geometry = GEOMETRIES[name]
    loaded = picture(geometry.load_size(SIZE))
    numbers = tf.data.Dataset.range(4)
    mapped = numbers.map(lambda number: geometry(loaded, SIZE, tf.stack([tf.constant(7, tf.int64), number])), 2)
    expected = [geometry(loaded, SIZE, seed(number)) for number in range(4)]
    np.testing.assert_array_equal(list(mapped.as_numpy_iterator()), expected)


def test_mirror_and_flip_are_exact():
    np.testing.assert_array_equal(Geometry(mirror=1.0)(picture(), SIZE, seed(0)), picture()[:, ::-1])
    np.testing.assert_array_equal(Geometry(flip=1.0)(picture(), SIZE, seed(0)), picture()[::-1])


def test_half_of_the_photos_are_mirrored():
    geometry = Geometry(mirror=0.5)
    mirrored = [np.array_equal(geometry(picture(), SIZE, seed(n)), picture()[:, ::-1]) for n in range(40)]
    assert 10 < sum(mirrored) < 30


def test_rotation_turns_by_its_degrees():
    square = picture((32, 32))
    turned = Geometry(rotation=(90, 90))(square, (32, 32), seed(0)).numpy()
    expected = min((np.rot90(square), np.rot90(square, -1)), key=lambda other: np.abs(other - 1.0 * turned).mean())
    assert np.abs(turned - 1.0 * expected).max() <= 3  # the sine of 90 degrees is not quite 1 in float32


def test_scale_enlarges_about_the_centre():
    dot = np.zeros((33, 33, 4), np.uint8)
    dot[15:18, 15:18] = 255
    larger = Geometry(scale=(2, 2))(dot, (33, 33), seed(0)).numpy()[..., 3] / 255
    np.testing.assert_allclose(larger.sum(), 36, atol=1)
    np.testing.assert_allclose(np.argwhere(larger > 0).mean(axis=0), (16, 16), atol=0.01)


def test_crop_shows_a_place_of_the_larger_photo_and_not_always_the_same():
    geometry = Geometry(resize=1.5)
    size = (20, 20)
    assert geometry.load_size(size) == (30, 30)
    loaded = picture((30, 30))
    places = set()
    for number in range(6):
        crop = geometry(loaded, size, seed(number)).numpy()
        found = [
            (top, left)
            for top in range(11)
            for left in range(11)
            if np.array_equal(loaded[top : top + 20, left : left + 20], crop)
        ]
        places.update(found)
        assert found
    assert len(places) > 1


def test_rotated_corners_are_black_or_the_mirrored_photo():
    white = np.full((*SIZE, 4), 255, np.uint8)
    black_corner = Geometry(rotation=(45, 45))(white, SIZE, seed(0)).numpy()[0, 0]
    np.testing.assert_array_equal(black_corner, [0, 0, 0, 0])
    np.testing.assert_array_equal(Geometry(rotation=(45, 45), reflect=True)(white, SIZE, seed(0)), white)


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_colour_operation_keeps_shape_and_range_and_obeys_its_seed(op):
    image, alpha = photo_and_alpha()
    results = [op(image, alpha, seed(number)).numpy() for number in (0, 0, 1, 2, 3)]
    assert all(result.shape == image.shape and result.dtype == np.float32 for result in results)
    assert all(result.min() >= 0 and result.max() <= 1 for result in results)
    np.testing.assert_array_equal(results[0], results[1])
    assert any(not np.array_equal(results[0], other) for other in results[2:])


def test_jitter_is_torchvision_s():
    image, alpha = photo_and_alpha()
    jitter = ColourJitter(0.5, 0.5, 0.5, 0.3)
    changed = jitter.apply(image, alpha, *(tf.constant(x, tf.float32) for x in (1.3, 0.6, 1.4, 0.0)))
    expected = Image.fromarray(picture()[..., :3])
    for enhance, factor in ((ImageEnhance.Brightness, 1.3), (ImageEnhance.Contrast, 0.6), (ImageEnhance.Color, 1.4)):
        expected = enhance(expected).enhance(factor)
    assert np.abs(changed - np.asarray(expected) * STEP).max() < 4 * STEP


def test_jitter_turns_the_hue_by_a_part_of_the_circle():
    image, alpha = photo_and_alpha()
    one = tf.constant(1.0)
    changed = ColourJitter(hue=0.3).apply(image, alpha, one, one, one, tf.constant(0.25)).numpy()
    hue, saturation, value = colorsys.rgb_to_hsv(*image.numpy()[5, 7])
    np.testing.assert_allclose(changed[5, 7], colorsys.hsv_to_rgb((hue + 0.25) % 1, saturation, value), atol=1e-5)


def test_jitter_draws_from_its_whole_range_and_no_further():
    drawn = np.array([ColourJitter(0.5, 0.4, 0.3, 0.2).draw(seed(number)) for number in range(100)])
    for values, low, high in zip(drawn.T, (0.5, 0.6, 0.7, -0.2), (1.5, 1.4, 1.3, 0.2), strict=True):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high >= values.max() > high - 0.1 * (high - low)


def test_invert_is_the_negative():
    image, alpha = photo_and_alpha()
    np.testing.assert_allclose(Invert(1.0)(image, alpha, seed(0)), 1 - image, atol=1e-6)
    np.testing.assert_array_equal(Invert(0.0)(image, alpha, seed(0)), image)


def test_cut_out_paints_background_and_spares_the_foreground():
    alpha = np.zeros((*SIZE, 1), np.float32)
    alpha[8:24, 10:30] = 1
    image = np.full((*SIZE, 3), 0.5, np.float32)
    painted = CutOut(patches=8)(image, alpha, seed(0)).numpy()
    np.testing.assert_array_equal(painted[8:24, 10:30], image[8:24, 10:30])
    changed = (painted != image).any(axis=-1).mean()
    assert 0.05 < changed < 0.9


def test_relight_is_smooth_and_changes_brightness():
    image, alpha = tf.fill((*SIZE, 3), 0.4), tf.zeros((*SIZE, 1))
    light = Relight(strength=0.2, bend=0.0)(image, alpha, seed(1)).numpy() / 0.4
    assert np.ptp(light) > 0.05
    assert max(np.abs(np.diff(light, axis=axis)).max() for axis in (0, 1)) < 0.1


def test_blur_keeps_constants_and_spreads_a_dot_evenly():
    dot = np.zeros((*SIZE, 3), np.float32)
    dot[16, 20] = 1
    blurred = Blur(1.0, sigma_px=1.5)(dot, None, seed(0)).numpy()
    np.testing.assert_allclose(blurred.sum(axis=(0, 1)), 1, atol=1e-5)
    np.testing.assert_allclose(Blur(1.0)(tf.fill(dot.shape, 0.5), None, seed(0)), 0.5 + 0 * dot, atol=1e-6)
    np.testing.assert_allclose(blurred[15, 20], blurred[16, 21], atol=1e-7)
    assert blurred[16, 20].max() < 0.95
    np.testing.assert_allclose(Blur(0.0)(dot, None, seed(0)), dot, atol=1e-12)


def test_noise_has_its_deviation_and_differs_between_channels():
    grey = tf.fill((128, 128, 3), 0.5)
    noise = Noise().apply(grey, None, tf.constant(0.05), seed(0)).numpy() - 0.5
    np.testing.assert_allclose(noise.std(axis=(0, 1)), 0.05, rtol=0.05)
    assert abs(np.corrcoef(noise.reshape(-1, 3).T)[0, 1]) < 0.05


def test_jpeg_leaves_what_the_codec_leaves():
    image, _ = photo_and_alpha()
    compressed = Jpeg().apply(image, None, tf.constant(True), tf.constant(30)).numpy()
    assert 0.005 < np.abs(compressed - image).mean() < 0.2
    np.testing.assert_array_equal(Jpeg(0.0)(image, None, seed(0)), image)


@pytest.mark.parametrize("name", ["none", "original", "custom"])
def test_preset_gives_the_same_under_a_seed_in_a_pipeline_as_eagerly(name):
    preset = Preset(name="p", architecture="u2netp", input_size=SIZE, mean=(0, 0, 0), std=(1, 1, 1))
    transform = ColourTransform(find(name).colour, preset)
    mapped = tf.data.Dataset.range(3).map(lambda n: transform(picture(), tf.stack([tf.constant(7, tf.int64), n])), 2)
    images = []
    for number, (image, alpha) in enumerate(mapped.as_numpy_iterator()):
        expected, _ = transform(picture(), seed(number))
        np.testing.assert_allclose(image, expected, atol=1e-6)
        np.testing.assert_array_equal(alpha, picture()[..., 3:] * np.float32(STEP))
        images.append(image)
    assert np.array_equal(images[0], images[1]) == (name == "none")


def test_presets_without_a_part_differ_from_custom_in_that_part_only():
    custom, still, plain = find("custom"), find("custom-no-rotation"), find("custom-no-jitter")
    assert (still.geometry.rotation, still.geometry.scale) == ((0, 0), custom.geometry.scale)
    assert still.colour == custom.colour
    assert set(custom.colour) - set(plain.colour) == {op for op in custom.colour if isinstance(op, ColourJitter)}
    assert plain.geometry == custom.geometry


def test_unknown_preset_is_an_error_that_lists_the_known():
    with pytest.raises(UsageError, match="none, original, custom.*'bright'"):
        find("bright")


def test_without_keras_cv_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    colour._keras_cv_layer.cache_clear()
    image, alpha = photo_and_alpha()
    with pytest.raises(UsageError, match=r"pip install 'keras-matting\[train\]'"):
        ColourJitter(hue=0.1)(image, alpha, seed(0))
