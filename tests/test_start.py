"""Where a run's weights come from, and what stays frozen."""

import goldens
import keras
import numpy as np
import pytest
import tiny

from keras_matting.errors import MattingError, UsageError
from keras_matting.models import build_model
from keras_matting.training import start
from keras_matting.weights.pytorch import load_state_dict


def weights_of(model):
    return {variable.path: np.asarray(variable) for variable in model.weights}


@pytest.fixture(scope="module")
def trained():
    """MODNet with weights that are not fresh ones."""
    model = build_model("modnet", 32)
    load_state_dict(model, goldens.formula_state_dict("modnet"))
    return model


def test_a_whole_model_is_taken_at_another_size(trained, tmp_path):
    trained.save(tmp_path / "model.keras")
    network = build_model("modnet", 64)
    start.load_initial_weights(network, tmp_path / "model.keras")
    taken = weights_of(network)
    for path, value in weights_of(trained).items():
        np.testing.assert_array_equal(taken[path], value, err_msg=path)


def test_a_backbone_alone_is_taken(trained, tmp_path):
    encoder = keras.Model(trained.input, trained.get_layer("backbone.model.features.18.1").output)
    encoder.save(tmp_path / "backbone.keras")
    network = build_model("modnet", 32)
    before, whole = weights_of(network), weights_of(trained)
    start.load_initial_weights(network, tmp_path / "backbone.keras")
    for path, value in weights_of(network).items():
        expected = whole if path.startswith("backbone.") else before
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


def test_a_model_folder_is_a_start(tiny_model_dir):
    network = build_model("u2netp", 32)
    start.load_initial_weights(network, tiny_model_dir)
    stem = goldens.formula_state_dict("u2netp")["stage1.rebnconvin.conv_s1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(weights_of(network)["stage1.rebnconvin.conv_s1/kernel"], stem)


def test_another_model_is_no_start(trained, tiny_model_dir, tmp_path):
    with pytest.raises(UsageError, match="Expected weights of modnet or of its backbone; 0 of"):
        start.load_initial_weights(trained, tiny_model_dir)


@pytest.mark.parametrize("name", ["none.keras", "none.pth", "folder"])
def test_a_missing_start_is_told(name, tmp_path):
    with pytest.raises(MattingError, match="does not exist"):
        start.load_initial_weights(tiny.build((16, 16)), tmp_path / name)


def test_a_damaged_start_is_told(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"no zip")
    with pytest.raises(UsageError, match="Expected a Keras model"):
        start.load_initial_weights(tiny.build((16, 16)), tmp_path / "model.keras")


def test_folded_norms_get_statistics_that_leave_evaluation_equal():
    keras.utils.set_random_seed(0)
    network = tiny.build((16, 16))
    norm = network.get_layer("norm")
    norm.beta.assign(np.linspace(-1, 1, 8))
    images = [np.random.default_rng(seed).normal(1, 2, (8, 16, 16, 3)).astype("float32") for seed in range(4)]
    evaluated = np.asarray(network(images[0], training=False)["matte"])
    copy = keras.models.clone_model(network)  # since a call in training updates the statistics
    copy.set_weights(network.get_weights())
    untouched = np.abs(np.asarray(copy(images[0], training=True)["matte"]) - evaluated).mean()
    assert start.recalibrate_folded_norms(network, images) == 1
    np.testing.assert_allclose(np.asarray(network(images[0], training=False)["matte"]), evaluated, atol=1e-5)
    # Training normalises by the batch: it sees nearly what evaluation sees, as it did not before.
    recalibrated = np.abs(np.asarray(network(images[0], training=True)["matte"]) - evaluated).mean()
    assert recalibrated < untouched / 3


def test_norms_with_statistics_are_left_alone(trained):
    before = weights_of(trained)
    assert start.recalibrate_folded_norms(trained, []) == 0
    assert all((before[path] == value).all() for path, value in weights_of(trained).items())


def test_freezing_counts_layers_as_keras_applications_does(trained):
    start.freeze_backbone(trained)
    assert not any(layer.trainable for layer in trained.layers if layer.name.startswith("backbone."))
    start.freeze_backbone(trained, 115)
    names = [layer.name for layer in trained.layers]
    assert {
        names.index(layer.name) >= 115 for layer in trained.layers if layer.trainable and "backbone" in layer.name
    } == {True}
    assert trained.layers[115].trainable and not trained.layers[names.index("backbone.model.features.0.0")].trainable
    assert trained.get_layer("f_branch.conv_f2x.layers.0").trainable
    with pytest.raises(UsageError, match="up to 153, the backbone's last; received 154"):
        start.freeze_backbone(trained, 154)
    start.freeze_backbone(trained, 0)
