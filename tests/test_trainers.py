"""The training steps of the official PyTorch code, reproduced by Keras's fit in float64 (tests/data/README.md)."""

import goldens
import keras
import numpy as np
import pytest

from keras_matting import architectures, metrics
from keras_matting.models import build_model
from keras_matting.models.layers import clone_with, exact_resize
from keras_matting.training import trainers
from keras_matting.training.trainers import SOCTrainer
from keras_matting.weights.pytorch import load_state_dict, pytorch_name


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def network_of(name, size):
    """The model with formula weights, and with resizes that compute in float64, as TensorFlow's own does not."""
    network = build_model(name, size)
    load_state_dict(network, goldens.formula_state_dict(name))
    return clone_with(network, exact_resize)


def steps(trainer, optimizer, image, targets, count):
    """Fit on one batch, a step an epoch; return {term: value of each step}."""
    trainer.compile(optimizer=optimizer, run_eagerly=True)  # tracing would take longer than the steps
    history = trainer.fit(image, targets, batch_size=len(image), epochs=count, shuffle=False, verbose=0).history
    return {name: np.array(values) for name, values in history.items()}


def test_modnet_takes_the_official_supervised_steps(float64):
    trainer = architectures.find("modnet").trainer("supervised", network_of("modnet", (128, 96)))
    alpha, trimap = goldens.alpha_and_trimap(9, 2, 128, 96)
    image = goldens.image(8, 2, 128, 96).astype("float64")
    history = steps(trainer, keras.optimizers.SGD(0.01, momentum=0.9), image, {"alpha": alpha, "trimap": trimap}, 3)
    expected = goldens.figures("modnet", "supervised/losses_per_step")
    actual = np.stack([history[f"{term}_loss"] for term in trainer.TERMS], axis=1)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    np.testing.assert_allclose(history["loss"], actual.sum(axis=1), rtol=1e-12)
    weights = {pytorch_name(variable): np.asarray(variable) for variable in trainer.network.weights}
    for name in ("hr_branch.conv_hr.1.layers.0.weight", "backbone.model.features.0.0.weight"):
        after = goldens.figures("modnet", f"supervised/after3/{name}").transpose(2, 3, 1, 0)
        np.testing.assert_allclose(weights[name], after, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("name", ["u2netp", "u2net"])
def test_u2net_takes_the_official_deeply_supervised_steps(name, float64):
    trainer = architectures.find(name).trainer("supervised", network_of(name, 64))
    alpha, _ = goldens.alpha_and_trimap(9, 2, 64, 64)
    image = goldens.image(8, 2, 64, 64).astype("float64")
    history = steps(trainer, keras.optimizers.Adam(1e-3, epsilon=1e-8), image, {"alpha": alpha}, 3)
    expected = goldens.figures(name, "bce/losses_per_step")
    actual = np.stack([history["loss"], *(history[f"{term}_loss"] for term in trainer.TERMS)], axis=1)
    # From the second step on, Keras's Adam differs: its epsilon stands beside the uncorrected second moment.
    for step, tolerance in enumerate((1e-6, 1e-3, 2e-2)):
        np.testing.assert_allclose(actual[step], expected[step], rtol=tolerance, err_msg=f"step {step}")


def network_with_boundary():
    """MODNet of formula weights whose outputs have a boundary between subject and ground."""
    network = network_of("modnet", (128, 96))
    for variable in network.weights:
        for layer, bias in (("f_branch.conv_f.1.layers.0", -2.2), ("lr_branch.conv_lr.layers.0", -1.5)):
            if variable.path == f"{layer}/bias":
                variable.assign([bias])
    return network


def test_soc_takes_the_official_steps(float64):
    trainer = SOCTrainer(network_with_boundary())
    image = goldens.image(8, 2, 128, 96).astype("float64")
    history = steps(trainer, keras.optimizers.Adam(1e-5, beta_2=0.99, epsilon=1e-8), image, None, 2)
    actual = np.stack([history[f"{term}_loss"] for term in trainer.TERMS], axis=1)
    np.testing.assert_allclose(actual, goldens.figures("modnet", "soc/losses_per_step"), rtol=1e-5, atol=1e-12)
    assert "mae" not in history  # there is no truth to compare with


def test_the_iou_in_training_is_that_of_the_evaluation():
    alpha = np.array([[0, 0.5, 0.5, 1]], "float32")  # as it may be, foreground begins with a half itself
    matte = np.array([[0.5, 0.5, 0.4, 1]], "float32")
    in_training = trainers._iou(alpha[None, ..., None], matte[None, ..., None])
    assert float(in_training[0]) == pytest.approx(metrics.iou(matte, alpha)) == pytest.approx(2 / 4)
