"""Batch norm and Adam in one TensorFlow kernel each: what Keras computes, in fewer operations."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT

from keras_matting.models.layers import ResizeLike, batch_norm
from keras_matting.training.optimizers import FusedAdam

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernels are TensorFlow's")
SHAPE = (3, 5, 6, 4)


def values(seed, shape=SHAPE):
    return np.random.default_rng(seed).normal(0.7, 2, shape).astype("float32")


def norms(policy="float32"):
    """Return ours and Keras's batch norm with the same weights."""
    ours = batch_norm("ours", dtype=policy)
    theirs = keras.layers.BatchNormalization(epsilon=ours.epsilon, momentum=ours.momentum, dtype=policy)
    for norm in (ours, theirs):
        norm.build(SHAPE)
        norm.set_weights([values(1, 4), values(2, 4), values(3, 4), np.abs(values(4, 4))])
    return ours, theirs


def forward_and_backward(norm, x):
    """Return the outputs, and the gradients of a weighted sum of them by input, gamma and beta."""
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = tf.cast(norm(x, training=True), "float32")
        total = tf.reduce_sum(outputs * values(5))
    return [outputs, *tape.gradient(total, [x, norm.gamma.value, norm.beta.value])]


def test_batch_norm_trains_as_keras_does():
    ours, theirs = norms()
    for one, other in zip(forward_and_backward(ours, values(0)), forward_and_backward(theirs, values(0)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_batch_norm_keeps_its_statistics_in_float32_under_bfloat16():
    ours, theirs = norms("mixed_bfloat16")
    outputs = ours(values(0), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    theirs(values(0), training=True)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2)
        assert one.dtype == "float32"


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_norm_that_does_not_train_is_keras_own(frozen):
    ours, theirs = norms()
    ours.trainable = not frozen
    before = ours.get_weights()
    np.testing.assert_array_equal(ours(values(0), training=frozen), theirs(values(0), training=False))
    for one, other in zip(ours.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_norm_of_one_pixel_has_no_variance():
    norm = batch_norm("norm")
    norm(np.ones((1, 1, 1, 2), "float32"), training=True)
    np.testing.assert_allclose(norm.moving_variance, [0.9, 0.9])


def test_resize_rounds_to_bfloat16_once():
    x = keras.ops.cast(values(0), "bfloat16")
    reference = keras.ops.zeros((3, 10, 12, 1), "bfloat16")
    resized = ResizeLike(dtype="bfloat16")([x, reference])
    full = ResizeLike()([keras.ops.cast(x, "float32"), keras.ops.zeros((3, 10, 12, 1))])
    np.testing.assert_array_equal(
        keras.ops.cast(resized, "float32"), keras.ops.cast(keras.ops.cast(full, "bfloat16"), "float32")
    )


def test_adam_steps_as_keras_does():
    results = []
    for kind in (FusedAdam, keras.optimizers.Adam):
        variable = keras.Variable(values(0))
        optimizer = kind(0.1, epsilon=1e-8)
        for seed in range(1, 5):
            optimizer.apply([keras.ops.convert_to_tensor(values(seed))], [variable])
        results.append([np.asarray(x) for x in (variable, *optimizer.variables)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)  # of steps of 0.1: 1 - 0.999 is rounded


def test_batch_norm_takes_what_a_keras_file_holds_for_keras_own(tmp_path):
    inputs = keras.Input(SHAPE[1:])
    theirs = keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(inputs))
    theirs.set_weights([values(1, 4), values(2, 4), values(3, 4), np.abs(values(4, 4))])
    theirs.save(tmp_path / "model.keras")
    inputs = keras.Input(SHAPE[1:])
    ours = keras.Model(inputs, batch_norm("norm")(inputs))
    ours.load_weights(tmp_path / "model.keras")
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_a_step_is_timed_beside_keras_s_and_pytorch_s():
    pytest.importorskip("torch")
    variants = ["keras float32", "ours float32", "pytorch float32"]
    options = ["--size", "64", "--batch", "2", "--rounds", "1", "--variants", *variants]
    command = [sys.executable, ROOT / "benchmarks/training_speed.py", *options]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[3:]]
    assert [row[0] for row in rows] == variants
    assert all(float(row[1]) > 0 for row in rows)
