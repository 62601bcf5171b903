import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import goldens
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_matting.errors import UsageError
from keras_matting.export import save_saved_model, serving_function
from keras_matting.models import build_model, inference_model
from keras_matting.weights.pytorch import load_state_dict

TOLERANCE = 2e-5
TRAINABLE = {"modnet": 6_487_075, "u2net": 44_009_869, "u2netp": 1_131_181}


# U2Net is U2NetP's code with other numbers, and takes a minute.
@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.long) if name == "u2net" else name for name in goldens.MODELS],
)
def official(request):
    """(name, model with the formula weights, cases of the official code)."""
    model = build_model(request.param)
    load_state_dict(model, goldens.formula_state_dict(request.param))
    return request.param, model, goldens.eval_cases(request.param)


def assert_equal_to_official(outputs, expected):
    assert set(outputs) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(np.asarray(outputs[name]), values, rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("name", goldens.MODELS)
def test_trainable_parameters_are_the_official_number(name):
    model = build_model(name, 64)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == TRAINABLE[name]


def test_every_output_equals_pytorch_at_every_size(official):
    _, model, cases = official
    for shape, expected in cases.items():
        assert_equal_to_official(model(goldens.image(goldens.SEED, *shape), training=False), expected)


def test_every_output_equals_pytorch_after_save_and_load(official, tmp_path):
    _, model, cases = official
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for shape, expected in cases.items():
        assert_equal_to_official(loaded(goldens.image(goldens.SEED, *shape), training=False), expected)


def test_every_output_equals_pytorch_through_saved_model(official, tmp_path):
    _, model, cases = official
    for shape, expected in cases.items():
        folder = tmp_path / "x".join(map(str, shape))
        save_saved_model(model, serving_function(model, shape[1:]), folder)
        serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
        assert_equal_to_official(serve(image=tf.constant(goldens.image(goldens.SEED, *shape))), expected)


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_outputs_equal_pytorch_on_the_jax_backend():
    script = (
        "import goldens, numpy as np\n"
        "from keras_matting.models import build_model\n"
        "from keras_matting.weights.pytorch import load_state_dict\n"
        "for name in ('modnet', 'u2netp'):\n"
        "    model = build_model(name)\n"
        "    load_state_dict(model, goldens.formula_state_dict(name))\n"
        "    shape, expected = list(goldens.eval_cases(name).items())[-1]\n"
        "    outputs = model(goldens.image(goldens.SEED, *shape), training=False)\n"
        "    for key, values in expected.items():\n"
        f"        assert np.abs(np.asarray(outputs[key]) - values).max() < {TOLERANCE}, (name, shape, key)\n"
    )
    tests = str(Path(__file__).parent)
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": tests, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_inference_model_shares_weights_and_has_one_output():
    model = build_model("modnet", 64)
    served = inference_model(model)
    assert served.output_shape == (None, 64, 64, 1)
    assert {id(v) for v in served.variables} <= {id(v) for v in model.variables}


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("modnet", (500, 333), "multiples of 32; received .500, 333.. Use 512x320"),
        ("u2net", 0, "positive"),
        ("u2net", (1, 2, 3), "positive"),
        ("u3net", 320, "modnet, u2net, u2netp; received 'u3net'"),
    ],
)
def test_wrong_name_or_size_is_explained(name, size, message):
    with pytest.raises(UsageError, match=message):
        build_model(name, size)
