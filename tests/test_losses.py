import goldens
import numpy as np
import pytest
from scipy import ndimage

from keras_matting.training import losses


def test_blur_is_the_official_gaussian_layer():
    blurred = losses.blur(goldens.figures("modnet", "blur/in").astype("float32"))
    np.testing.assert_allclose(np.asarray(blurred), goldens.figures("modnet", "blur/out"), atol=1e-6)


@pytest.mark.parametrize("side", [2, 5, 6])
def test_windows_are_those_of_scipy(side):
    image = np.random.default_rng(0).random((13, 17)).astype("float32")
    for ours, scipys in ((losses.dilate, ndimage.grey_dilation), (losses.erode, ndimage.grey_erosion)):
        np.testing.assert_array_equal(
            np.asarray(ours(image[None, ..., None], side))[0, ..., 0], scipys(image, (side, side))
        )


def outputs(matte, semantic, size=64):
    full, coarse = np.ones((1, size, size, 1), "float32"), np.ones((1, size // 16, size // 16, 1), "float32")
    return {"matte": matte * full, "detail": matte * full, "semantic": semantic * coarse}


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_soc_without_a_boundary_is_finite(value):
    terms = losses.modnet_soc(outputs(value, value), outputs(0.5, 0.5))
    assert float(terms["soc_detail"]) == 0
    assert np.isfinite(float(terms["soc_semantic"]))


def test_soc_at_sizes_without_a_window_is_finite():
    terms = losses.modnet_soc(outputs(1.0, 1.0, 32), outputs(0.0, 0.0, 32))
    assert all(np.isfinite(float(term)) for term in terms.values())


@pytest.mark.parametrize(("alpha", "matte"), [(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_cross_entropy_and_its_gradient_are_finite_where_the_matte_is_certain(alpha, matte):
    import tensorflow as tf

    matte = tf.fill((1, 4, 4, 1), matte)
    with tf.GradientTape() as tape:
        tape.watch(matte)
        loss = losses.binary_cross_entropy(tf.fill((1, 4, 4, 1), alpha), matte)
    assert np.isfinite(float(loss))
    assert np.isfinite(tape.gradient(loss, matte)).all()
    assert (float(loss) > 50) == (alpha != float(matte[0, 0, 0, 0]))


def test_the_supervised_loss_of_the_truth_itself_is_nearly_nothing():
    alpha, trimap = goldens.alpha_and_trimap(9, 2, 64, 64)
    semantic = losses.blur(losses.shrink(alpha, 16))
    image = goldens.image(8, 2, 64, 64)
    terms = losses.modnet_supervised(image, alpha, trimap, {"matte": alpha, "detail": alpha, "semantic": semantic})
    assert all(float(term) < 1e-6 for term in terms.values())
