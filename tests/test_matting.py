import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms

import keras_matting
from keras_matting.errors import ImageError, UsageError
from keras_matting.photos import refine
from keras_matting.photos.files import encode


@pytest.fixture
def cut(tiny_model_dir):
    return lambda image, **options: keras_matting.matte(image, tiny_model_dir, "onnx-cpu", **options)


def test_bytes_path_pil_and_array_give_their_own_kind_and_the_same_pixels(cut, photo, tmp_path):
    data = encode(photo, ".png")
    (tmp_path / "a.png").write_bytes(data)
    array = cut(photo)
    assert array.shape == (90, 120, 4)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(cut(data)))), array)
    np.testing.assert_array_equal(np.asarray(cut(Image.fromarray(photo))), array)
    path = cut(tmp_path / "a.png")
    assert path == tmp_path / "a.cutout.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), array)
    assert cut(str(tmp_path / "a.png")) == str(path)


def test_grey_and_16_bit_arrays_and_pil_images_are_taken(cut, photo):
    grey = photo[..., 0]
    expected = cut(np.dstack([grey] * 3), output="mask")
    np.testing.assert_array_equal(cut(grey, output="mask"), expected)
    np.testing.assert_array_equal(cut(grey.astype(np.uint16) * 257, output="mask"), expected)
    np.testing.assert_array_equal(np.asarray(cut(Image.fromarray(grey), output="mask")), expected)
    np.testing.assert_array_equal(
        np.asarray(cut(Image.fromarray(grey.astype(np.uint16) * 257), output="mask")), expected
    )


@pytest.mark.parametrize(
    "image", [None, 3, np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 2), np.uint8)]
)
def test_what_is_no_photo_is_explained(cut, image):
    with pytest.raises(UsageError, match="Expected"):
        cut(image)


def test_undecodable_bytes_and_wrong_names_are_explained(cut, photo, tiny_model_dir):
    with pytest.raises(ImageError, match="received something else"):
        cut(b"no image at all")
    with pytest.raises(UsageError, match="on-color needs a background"):
        cut(photo, output="on-color")
    with pytest.raises(UsageError, match="received 'gif'"):
        cut(photo, output="gif")
    with pytest.raises(UsageError, match="received 'onnx-quantum'"):
        keras_matting.matte(photo, tiny_model_dir, "onnx-quantum")
    with pytest.raises(UsageError, match="received 'u3net'"):
        keras_matting.matte(photo, "u3net")


@pytest.mark.parametrize("background", [(1, 2), "white", (300, -5, 0), np.zeros((4, 4, 4), np.uint8), None])
def test_an_impossible_background_is_explained(cut, photo, background):
    with pytest.raises(UsageError, match="needs a background"):
        cut(photo, output="on-color", background=background)


def test_a_background_by_itself_says_what_is_made(cut, photo, tmp_path):
    colour = cut(photo, background=(1, 2, 3))
    np.testing.assert_array_equal(colour, cut(photo, output="on-color", background=(1, 2, 3)))
    beach = np.full((9, 9, 3), (1, 2, 3), np.uint8)
    (tmp_path / "beach.png").write_bytes(encode(beach, ".png"))
    for picture in (beach, tmp_path / "beach.png", str(tmp_path / "beach.png"), Image.fromarray(beach)):
        np.testing.assert_array_equal(cut(photo, background=picture), colour)
        np.testing.assert_array_equal(cut(photo, output="on-image", background=picture), colour)
    with pytest.raises(UsageError, match="on-color or on-image for a background; received mask"):
        cut(photo, output="mask", background=(1, 2, 3))
    with pytest.raises(UsageError, match="Expected a photo at"):
        cut(photo, background=tmp_path / "none.png")


@pytest.mark.parametrize("name", ["crop", "refine", "foreground", "harden"])
def test_a_switch_is_on_or_off_and_no_other_text_is_true(name):
    for value, is_on in (("false", False), ("True", True), (np.False_, False)):
        if not is_on or name in ("crop", "harden"):
            assert getattr(keras_matting.OutputOptions(**{name: value}), name) is is_on
    for value in ("no", "", 1, None):
        with pytest.raises(UsageError, match=f"Expected {name} to be True or False; received"):
            keras_matting.OutputOptions(**{name: value})


def test_a_session_takes_arrays_and_explains_what_it_does_not_take(cut, photo, tiny_model_dir):
    with keras_matting.open_session(tiny_model_dir, "onnx-cpu") as session:
        np.testing.assert_array_equal(session.matte(photo), cut(photo))
        raw = session.predict(session.prepare(photo)[None])[0]
        np.testing.assert_array_equal(session.render(photo, raw), cut(photo))
        with pytest.raises(UsageError, match="a Photo or a NumPy array; received str"):
            session.matte("a.jpg")


@pytest.mark.parametrize("engine", ["onnx-cpu", "openvino-f32"])
def test_threads_share_a_model(tiny_model_dir, photo, engine):
    photos = [np.roll(photo, 7 * shift, axis=1) for shift in range(6)]
    expected = [keras_matting.matte(image, tiny_model_dir, engine) for image in photos]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda image: keras_matting.matte(image, tiny_model_dir, engine), photos * 4))
    for result, truth in zip(results, expected * 4, strict=True):
        np.testing.assert_array_equal(result, truth)


def test_pil_keeps_its_colour_profile_and_refuses_what_it_cannot_scale(cut, photo):
    image = Image.fromarray(photo)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info["icc_profile"] = profile
    assert cut(image).info["icc_profile"] == profile
    for mode in ("I", "F"):
        with pytest.raises(UsageError, match=f"mode {mode}"):
            cut(Image.fromarray(photo[..., 0]).convert(mode))


def test_a_truncated_pil_image_is_explained(cut, photo):
    data = encode(photo, ".jpg")
    with pytest.raises(ImageError, match="whole PIL image"):
        cut(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_refining_stays_within_the_photo_s_alpha(tiny_model_dir):
    pytest.importorskip("pymatting", reason="the refine extra is not installed")
    rgb, alpha, _ = disc_with_soft_edge()
    rgba = np.dstack([rgb, np.where(alpha > 0, 255, 0).astype(np.uint8)])
    mask = keras_matting.matte(rgba, tiny_model_dir, "onnx-cpu", output="mask", refine=True)
    assert mask[alpha == 0].max() == 0


def disc_with_soft_edge():
    """A red disc on blue with an edge twelve pixels wide: the photo, its true alpha, a blurred guess at it."""
    import cv2

    rows, columns = np.mgrid[:120, :120]
    distance = np.hypot(rows - 60, columns - 60)
    alpha = np.clip((36 - distance) / 12 + 0.5, 0, 1)
    rgb = np.rint(alpha[..., None] * (220, 30, 30) + (1 - alpha[..., None]) * (20, 40, 200)).astype(np.uint8)
    return rgb, alpha, cv2.GaussianBlur(alpha, (0, 0), 8).astype(np.float32)


def test_foreground_estimation_removes_the_background_s_colour_from_soft_edges():
    pytest.importorskip("pymatting", reason="the refine extra is not installed")
    from keras_matting.photos.refine import estimate_foreground

    rgb, alpha, _ = disc_with_soft_edge()
    edge = (alpha > 0.2) & (alpha < 0.8)
    foreground = estimate_foreground(rgb, alpha)
    assert np.abs(foreground[edge].astype(int) - (220, 30, 30)).mean() < 15
    assert np.abs(rgb[edge].astype(int) - (220, 30, 30)).mean() > 50


@pytest.mark.parametrize("limit", [1_000_000, 4_000])
def test_refinement_brings_a_blurred_matte_nearer_to_the_truth(monkeypatch, limit):
    pytest.importorskip("pymatting", reason="the refine extra is not installed")
    monkeypatch.setattr(refine, "MAX_REFINED_PIXELS", limit)
    rgb, alpha, blurred = disc_with_soft_edge()
    refined = refine.refine_matte(rgb, blurred)
    band = refine.trimap_of(blurred) == 0.5
    np.testing.assert_array_equal(refined[~band], blurred[~band])
    assert np.abs(refined - alpha).mean() < 0.5 * np.abs(blurred - alpha).mean()


def test_refinement_leaves_a_matte_without_a_subject_alone(photo):
    pytest.importorskip("pymatting", reason="the refine extra is not installed")
    from keras_matting.photos.refine import refine_matte

    empty = np.zeros(photo.shape[:2], np.float32)
    np.testing.assert_array_equal(refine_matte(photo, empty), empty)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 50), (3, 3)])
def test_tiny_photos_are_finished_as_well_as_they_can_be(size):
    pytest.importorskip("pymatting")
    generator = np.random.default_rng(0)
    rgb, matte = generator.integers(0, 255, (*size, 3), np.uint8), generator.random(size, np.float32)
    matte.flat[0], matte.flat[-1] = 0, 1
    assert refine.estimate_foreground(rgb, matte).shape == (*size, 3)
    for thresholds in (None, refine.Thresholds(0.9, 0.1, 1)):
        assert refine.refine_matte(rgb, matte, thresholds).shape == size


@pytest.mark.parametrize("limit", [2_000_000, 3_000])
def test_foreground_changes_soft_pixels_only_and_at_a_smaller_scale_as_well(monkeypatch, limit):
    pytest.importorskip("pymatting", reason="the refine extra is not installed")
    monkeypatch.setattr(refine, "MAX_FOREGROUND_PIXELS", limit)
    rgb, alpha, _ = disc_with_soft_edge()
    foreground = refine.estimate_foreground(rgb, alpha)
    soft = (alpha > 1 / 255) & (alpha < 254 / 255)
    certain = (alpha < 0.4 / 255) | (alpha > 254.6 / 255)
    np.testing.assert_array_equal(foreground[certain], rgb[certain])
    visible = soft & (alpha > 0.2)
    assert np.abs(foreground[visible].astype(int) - (220, 30, 30)).mean() < 15
    assert np.abs(rgb[visible].astype(int) - (220, 30, 30)).mean() > 40


def test_finishing_a_large_photo_costs_little_beyond_input_and_output():
    """fault: service_memory_on_color. NumPy tells its allocations, so that no other memory counts."""
    import tracemalloc

    from keras_matting.photos import imaging

    rgb = np.zeros((1500, 2000, 3), np.uint8)
    matte = np.full(rgb.shape[:2], 0.5, np.float32)
    picture = np.zeros((30, 40, 3), np.uint8)
    alpha = np.full(rgb.shape[:2], 200, np.uint8)
    made = {
        "on-color": (lambda: imaging.composite(rgb, matte, (1, 2, 3)), 3),
        "on-image": (lambda: imaging.composite(rgb, matte, picture), 3),
        "on paper": (lambda: imaging.composite(rgb, alpha, imaging.PAPER), 3),
        "matte16": (lambda: imaging.to_uint16(matte), 2),
    }
    for name, (make, output_bytes) in made.items():
        tracemalloc.start()
        make()
        peak = tracemalloc.get_traced_memory()[1] / matte.size
        tracemalloc.stop()
        assert peak < output_bytes + 4, (name, peak)
