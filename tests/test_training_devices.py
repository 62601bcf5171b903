"""Runs on several devices, and on JAX."""

import importlib.util
import json

import pytest
import tiny

from keras_matting.errors import UsageError
from keras_matting.training.progress import Progress
from keras_matting.training.run import train

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.mark.long
def test_mirrored_training_spreads_a_batch_over_devices(pairs, tmp_path):
    validation = tiny.write_pairs(tmp_path / "validation", 3)  # the last batch has nothing for one of the devices
    options = {"val": str(validation), "val_fraction": 0.0, "epochs": 1, "ema": 0.5}
    script = (
        "import tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        f"settings = tiny.settings(sys.argv[1], strategy='mirrored', **{options})\n"
        "progress = train(settings, sys.argv[2], verbose=0)\n"
        "print([row.get('loss') or row['val_loss'] for row in progress.history])\n"
    )
    done = tiny.in_process(script, pairs, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    start, first = json.loads(done.stdout)
    single = train(tiny.settings(pairs, **options), tmp_path / "single", verbose=0)
    assert start == pytest.approx(single.history[0]["val_loss"], rel=1e-5)
    # Each device normalises its own half of the batch, so the losses are close, not equal.
    assert first == pytest.approx(tiny.losses_of(single)[0], rel=0.05)
    more = train(tiny.settings(pairs, **options | {"epochs": 2}), tmp_path / "run", resume=True, verbose=0)
    assert more.epoch == 2


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_runs_train_on_jax(pairs, tmp_path):
    script = "print(train(tiny.settings(sys.argv[1], epochs=2, ema=0.5), sys.argv[2], verbose=0).epoch)\n"
    done = tiny.in_process(script, pairs, tmp_path / "run", KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    assert done.stdout.strip() == "2", done.stderr
    progress = Progress(tmp_path / "run", "val_miou")
    progress.read()
    first, second = tiny.losses_of(progress)
    assert second < first


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_data_parallel_training_on_jax_equals_one_device(pairs, tmp_path):
    losses = []
    for strategy in ("none", "data-parallel"):
        script = (
            f"progress = train(tiny.settings(sys.argv[1], epochs=1, strategy='{strategy}'), sys.argv[2], verbose=0)\n"
            "print(progress.history[-1]['loss'])\n"
        )
        flags = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        flags["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
        done = tiny.in_process(script, pairs, tmp_path / strategy, **flags)
        assert done.returncode == 0, done.stderr
        losses.append(float(done.stdout))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_strategy_of_another_backend_is_refused(pairs, tmp_path):
    with pytest.raises(UsageError, match="data-parallel is for the jax backend; this is tensorflow"):
        train(tiny.settings(pairs, strategy="data-parallel"), tmp_path / "run")
