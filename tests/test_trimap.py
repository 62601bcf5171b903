import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import grey_dilation, grey_erosion

from keras_matting.data.pipeline.trimap import scaled_px, trimap
from keras_matting.errors import UsageError


@pytest.fixture
def alpha():
    """A soft disc with a hole, a dot at the border and a faint stray pixel: float32 (40, 56, 1)."""
    rows, columns = np.mgrid[:40, :56]
    values = np.clip((13 - np.hypot(rows - 20, columns - 24)) / 4, 0, 1)
    values[20, 20] = 0.95
    values[18:21, 26] = 0
    values[39, 55] = 1
    values[3, 50] = 2 / 255
    return values.astype(np.float32)[..., None]


@pytest.mark.parametrize(("dilate_px", "erode_px"), [(25, 3), (1, 1), (4, 6), (3, 8), (16, 3)])
@pytest.mark.parametrize("kind", ["soft", "binary"])
def test_trimap_is_scipy_s(alpha, dilate_px, erode_px, kind):
    alpha = alpha if kind == "soft" else np.round(alpha)
    dilated = grey_dilation((alpha[..., 0] > 0).astype(np.float32), (dilate_px, dilate_px))
    eroded = grey_erosion((alpha[..., 0] >= 0.9).astype(np.float32), (erode_px, erode_px))
    expected = np.where(dilated != eroded, 0.5, eroded)
    np.testing.assert_array_equal(trimap(alpha, dilate_px, erode_px)[..., 0], expected)


def test_windows_are_those_of_the_original(alpha):
    np.testing.assert_array_equal(trimap(alpha), trimap(alpha, 25, 3))


def test_soft_pixels_are_unknown_and_interpolation_noise_is_not(alpha):
    known = trimap(alpha, 1, 1).numpy() != 0.5
    assert not known[(alpha > 0.01) & (alpha < 0.9)].any()
    np.testing.assert_array_equal(trimap(np.full((8, 8, 1), 1e-4, np.float32), 25, 3), np.zeros((8, 8, 1)))


def test_batches_and_graphs_give_what_single_images_give(alpha):
    batch = np.stack([alpha, alpha[::-1], np.zeros_like(alpha)])
    expected = [trimap(one, 9, 3) for one in batch]
    np.testing.assert_array_equal(trimap(batch, 9, 3), expected)
    mapped = tf.data.Dataset.from_tensor_slices(batch).map(lambda one: trimap(one, 9, 3))
    np.testing.assert_array_equal(list(mapped.as_numpy_iterator()), expected)


def test_default_windows_scale_with_the_height_down_to_3_pixels():
    assert scaled_px(512) == (25, 3)
    assert scaled_px(1024) == (50, 6)
    assert scaled_px(320) == (16, 3)
    assert scaled_px(32) == (3, 3)
    assert scaled_px(32, (9, 1)) == (9, 1)


@pytest.mark.parametrize("windows", [(25,), (0, 3), (2.5, 3), (1, 2, 3)])
def test_windows_that_are_none_are_refused(windows):
    with pytest.raises(UsageError, match="whole numbers of pixels"):
        scaled_px(512, windows)
