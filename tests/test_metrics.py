import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label

from keras_matting import metrics
from keras_matting.errors import UsageError

ALPHA = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
MATTE = np.array([[0.0, 0.5, 1.0], [0.2, 0.4, 1.0]])
REGION = np.array([[True, True, False], [False, True, False]])


def blobs(seed, size=(70, 90), sigma=4):
    """A soft random image of blobs that spans 0 to 1."""
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), sigma)
    return np.clip(image / image.max() * 2, 0, 1)


def test_mean_errors_and_sums_by_hand():
    assert metrics.mae(MATTE, ALPHA) == pytest.approx((0.5 + 0.2 + 0.6) / 6)
    assert metrics.mse(MATTE, ALPHA) == pytest.approx((0.25 + 0.04 + 0.36) / 6)
    assert metrics.sad(MATTE, ALPHA) == pytest.approx(1.3 / 1000)


def test_a_region_counts_its_own_pixels_only():
    assert metrics.mae(MATTE, ALPHA, REGION) == pytest.approx((0.5 + 0.6) / 3)
    assert metrics.mse(MATTE, ALPHA, REGION) == pytest.approx((0.25 + 0.36) / 3)
    assert metrics.sad(MATTE, ALPHA, REGION) == pytest.approx(1.1 / 1000)
    whole, left, right = blobs(1), np.zeros((70, 90), bool), np.ones((70, 90), bool)
    left[:, :40], right[:, :40] = True, False
    for error in (metrics.gradient_error, metrics.connectivity_error):
        parts = [error(whole, blobs(2), part) for part in (left, right)]
        assert min(parts) > 0
        assert sum(parts) == pytest.approx(error(whole, blobs(2)))


def test_all_errors_at_once_are_those_one_by_one():
    matte, alpha = blobs(1), blobs(2)
    region = alpha > 0.5
    names = {"mae": "mae", "mse": "mse", "sad": "sad", "grad": "gradient_error", "conn": "connectivity_error"}
    for errors, part in zip(metrics.matting_errors(matte, alpha, [None, region]), (None, region), strict=True):
        assert errors == {key: getattr(metrics, name)(matte, alpha, part) for key, name in names.items()}


def test_an_empty_region_has_no_mean():
    nowhere = np.zeros(ALPHA.shape, bool)
    assert np.isnan(metrics.mae(MATTE, ALPHA, nowhere))
    assert np.isnan(metrics.mse(MATTE, ALPHA, nowhere))
    assert metrics.sad(MATTE, ALPHA, nowhere) == 0


@pytest.mark.parametrize("name", ["mae", "mse", "sad", "gradient_error", "connectivity_error"])
def test_errors_of_the_truth_itself_are_zero(name):
    assert getattr(metrics, name)(blobs(3), blobs(3)) == 0


@pytest.mark.parametrize("shape", [(2, 4), (1, 3), (2, 3, 1)])
@pytest.mark.parametrize(
    "name",
    ["mae", "mse", "sad", "gradient_error", "connectivity_error", "iou", "iou_nonzero", "precision_recall"],
)
def test_shapes_that_differ_are_refused(name, shape):
    with pytest.raises(UsageError, match="one shape"):
        getattr(metrics, name)(np.zeros(shape), ALPHA)


@pytest.mark.parametrize("value", [255.0, -0.1, np.nan])
def test_values_out_of_range_are_refused(value):
    wrong = ALPHA.copy()
    wrong[0, 1] = value
    for pair in ((wrong, ALPHA), (ALPHA, wrong)):
        with pytest.raises(UsageError, match="from 0 to 1"):
            metrics.mae(*pair)


def test_gradient_error_equals_scipy_gaussian_derivatives():
    def magnitude(image):
        def derivative(of, order):
            return ndimage.gaussian_filter(of, 1.4, order=order, radius=4, mode="nearest")

        impulse = np.zeros((21, 21))
        impulse[10, 10] = 1
        norm = np.sqrt((derivative(impulse, (0, 1)) ** 2).sum())
        return np.hypot(derivative(image, (0, 1)), derivative(image, (1, 0))) / norm

    expected = ((magnitude(blobs(1)) - magnitude(blobs(2))) ** 2).sum() / 1000
    assert metrics.gradient_error(blobs(1), blobs(2)) == pytest.approx(expected, rel=1e-9)


def test_gradient_error_of_a_step_by_hand():
    x = np.arange(-4, 5)
    smooth = np.exp(-(x**2) / (2 * 1.4**2))
    kernel = np.outer(smooth, x * smooth)
    kernel /= np.sqrt((kernel**2).sum())
    step = np.zeros((3, 40))
    step[:, 20:] = 1
    # Along each row, the gradient at distance d from the step is the kernel's sum beyond d.
    columns = kernel.sum(axis=0)
    profile = [columns[4 - d :].sum() if abs(d) <= 4 else 0.0 for d in range(-20, 20)]
    expected = 3 * (np.square(profile)).sum() / 1000
    assert metrics.gradient_error(step, np.zeros((3, 40))) == pytest.approx(expected, rel=1e-9)


def test_connectivity_error_by_hand():
    alpha, matte = np.zeros((3, 7)), np.zeros((3, 7))
    alpha[1], matte[1] = [1, 1, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0.1]
    # The island is in both: loose in both alike. The faint pixel is below the tolerance of 0.15.
    assert metrics.connectivity_error(matte, alpha) == 0
    matte[1, 5] = 0.6  # the truth is loose by 1, the matte by 0.6
    assert metrics.connectivity_error(matte, alpha) == pytest.approx(0.4 / 1000)
    matte[1, 2] = 0.5  # connected up to 0.5: the truth is loose by 0.5 there, the matte by nothing
    assert metrics.connectivity_error(matte, alpha) == pytest.approx(0.9 / 1000)


def test_pixels_that_touch_at_a_corner_are_not_connected():
    alpha = np.zeros((4, 4))
    alpha[0, :2] = alpha[1, 2] = 1
    matte = alpha.copy()
    matte[1, 2] = 0.9  # were it connected, up to 0.9, neither would be loose by more than the tolerance
    assert metrics.connectivity_error(matte, alpha) == pytest.approx(0.1 / 1000)


def test_connectivity_error_equals_the_definition_with_scikit_image_labels():
    def connected(matte, alpha):
        levels = np.full(alpha.shape, -1.0)
        for step in range(1, 11):
            labels = label((matte >= step / 10) & (alpha >= step / 10), connectivity=1)
            sizes = np.bincount(labels.ravel())
            sizes[0] = 0
            largest = (labels == sizes.argmax()) & (labels > 0)
            levels[(levels == -1) & ~largest] = (step - 1) / 10
        return np.where(levels == -1, 1, levels)

    matte, alpha = blobs(1), blobs(1) * 0.7 + blobs(2) * 0.3
    shares = []
    for image in (matte, alpha):
        loose = image - connected(matte, alpha)
        shares.append(1 - loose * (loose >= 0.15))
    expected = np.abs(shares[0] - shares[1]).sum() / 1000
    assert expected > 0.01
    assert metrics.connectivity_error(matte, alpha) == pytest.approx(expected, rel=1e-9)


def test_iou_by_hand():
    assert metrics.iou(MATTE, ALPHA) == pytest.approx(2 / 4)  # 0.5 counts as foreground
    assert metrics.iou(ALPHA, ALPHA) == 1
    assert metrics.iou(1 - ALPHA, ALPHA) == 0
    assert metrics.iou(np.zeros((2, 3)), np.full((2, 3), 0.4)) == 1  # both empty
    assert metrics.iou(ALPHA, np.zeros((2, 3))) == 0


def test_iou_nonzero_counts_what_8_bits_can_show():
    faint = np.array([[0.0, 0.003, 0.001], [0.0, 0.9, 1.0]])  # 0.003 is 1 of 255, 0.001 is 0
    assert metrics.iou_nonzero(faint, ALPHA) == pytest.approx(2 / 4)
    assert metrics.iou_nonzero(np.zeros((2, 3)), np.full((2, 3), 0.001)) == 1


def test_overlap_equals_scikit_learn():
    scores = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    matte, alpha = blobs(4), blobs(5)
    assert metrics.iou(matte, alpha) == pytest.approx(scores.jaccard_score(alpha.ravel() >= 0.5, matte.ravel() >= 0.5))


def test_precision_and_recall_by_hand():
    precision, recall = metrics.precision_recall(MATTE, ALPHA)
    assert precision.shape == recall.shape == (255,)
    # Levels: background 0, 128, 51; foreground 255, 102, 255.
    for threshold, hits, wrong in ((0, 3, 3), (1, 3, 2), (51, 3, 2), (52, 3, 1), (102, 3, 1), (103, 2, 1), (129, 2, 0)):
        assert precision[threshold] == pytest.approx(hits / (hits + wrong)), threshold
        assert recall[threshold] == pytest.approx(hits / 3), threshold
    assert (precision[254], recall[254]) == pytest.approx((1, 2 / 3))


def test_precision_and_recall_equal_scikit_learn():
    scores = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    matte, alpha = np.random.default_rng(6).permutation(np.arange(256).repeat(8)).reshape(32, 64), blobs(6, (32, 64))
    precision, recall = metrics.precision_recall(matte / 255, alpha)
    expected = scores.precision_recall_curve(alpha.ravel() >= 0.5, matte.ravel())
    assert expected[2].tolist() == list(range(256))
    np.testing.assert_allclose(precision, expected[0][:255])
    np.testing.assert_allclose(recall, expected[1][:255])


def test_a_matte_that_finds_nothing_has_no_precision():
    precision, recall = metrics.precision_recall(np.zeros((2, 3)), ALPHA)
    assert (precision[0], recall[0]) == (0.5, 1)
    assert not precision[1:].any()
    assert not recall[1:].any()


def test_images_without_foreground_do_not_count_for_max_f():
    empty, perfect = (metrics.precision_recall(MATTE, alpha) for alpha in (np.zeros((2, 3)), MATTE))
    assert np.isnan(empty).all()
    assert metrics.max_f(*zip(empty, perfect, strict=True)) == metrics.max_f(*zip(perfect, strict=True)) == 1
    assert np.isnan(metrics.max_f(*zip(empty, strict=True)))


def test_max_f_is_that_of_the_averaged_curve():
    precisions, recalls = np.zeros((2, 255)), np.zeros((2, 255))
    precisions[:, 100], recalls[:, 100] = (1.0, 0.6), (0.3, 0.7)
    precisions[:, 200], recalls[:, 200] = (0.2, 0.4), (1.0, 1.0)
    assert metrics.max_f(precisions, recalls) == pytest.approx(1.3 * 0.8 * 0.5 / (0.3 * 0.8 + 0.5))


def test_max_f_of_perfect_mattes_is_one():
    curves = [metrics.precision_recall(ALPHA, ALPHA), metrics.precision_recall(1 - ALPHA, 1 - ALPHA)]
    assert metrics.max_f(*zip(*curves, strict=True)) == pytest.approx(1)


def test_the_unknown_band_is_the_soft_part_dilated():
    alpha = np.zeros((1, 21))
    alpha[0, 10], alpha[0, 11:] = 0.5, 1
    assert np.flatnonzero(metrics.unknown_band(alpha, band_px=3)).tolist() == list(range(7, 14))
    for value in (0.5, 1 / 255, 254 / 255):
        alpha[0, 10] = value
        assert np.flatnonzero(metrics.unknown_band(alpha, band_px=0)).tolist() == [10]


def test_a_binary_truth_has_a_band_around_its_border():
    alpha = np.zeros((1, 20))
    alpha[0, 10:] = 1
    assert np.flatnonzero(metrics.unknown_band(alpha, band_px=2)).tolist() == [8, 9, 10, 11]
    assert not metrics.unknown_band(np.ones((5, 5)), band_px=2).any()
    assert not metrics.unknown_band(np.zeros((5, 5)), band_px=2).any()


def test_a_band_is_round_and_has_a_width():
    alpha = np.zeros((21, 21))
    alpha[10, 10] = 0.5
    rows, columns = np.mgrid[-10:11, -10:11]
    assert (metrics.unknown_band(alpha, band_px=5) == (rows**2 + columns**2 <= 25)).all()
    with pytest.raises(UsageError, match="received -1"):
        metrics.unknown_band(alpha, band_px=-1)
