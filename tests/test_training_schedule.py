"""Rates over a run, the moving average of the weights, and updates of several batches, killed and continued, too."""

from dataclasses import replace
from itertools import pairwise

import keras
import numpy as np
import pytest
import tiny

from keras_matting.errors import UsageError
from keras_matting.models import build_model
from keras_matting.training.optimizers import optimizer_of
from keras_matting.training.run import train
from keras_matting.training.schedule import RateSchedule

pytestmark = pytest.mark.usefixtures("tiny_model")


def rates(schedule, epochs=4, steps=5, warmup=0):
    rate = RateSchedule(2.0, schedule, epochs=epochs, steps=steps, warmup=warmup)
    return [rate.rate_at(epoch, batch) for epoch in range(epochs) for batch in range(steps)]


def test_a_cosine_falls_from_the_rate_to_a_hundredth_of_it():
    cosine = rates("cosine", epochs=100)
    assert cosine[0] == 2.0 and cosine[250] == pytest.approx(1.01) and cosine[-1] == pytest.approx(0.02, rel=0.01)
    assert all(one > other for one, other in pairwise(cosine))


def test_steps_divide_the_rate_by_ten_every_quarter():
    np.testing.assert_allclose(rates("step", epochs=8)[::5], np.repeat([2, 0.2, 0.02, 0.002], 2))


def test_a_warm_up_rises_linearly_into_the_schedule():
    np.testing.assert_allclose(rates("constant", warmup=4)[:6], [0.5, 1, 1.5, 2, 2, 2])
    assert rates("cosine", warmup=4)[4:] == rates("cosine")[4:]


@pytest.mark.parametrize("change", [{"ema": 1.0}, {"accumulate": 0}, {"warmup": -1}, {"schedule": "linear"}])
def test_what_makes_no_sense_is_refused(pairs, change):
    with pytest.raises(UsageError, match=f"Expected {next(iter(change))}"):
        tiny.settings(pairs, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "cosine", "warmup": 4},
        {"ema": 0.7},
        {"accumulate": 2},  # of three steps an epoch: the second epoch begins amid an update
        pytest.param({"ema": 0.7, "accumulate": 2, "schedule": "cosine"}, marks=pytest.mark.long),
    ],
)
def test_a_run_cut_off_continues_as_if_it_had_not_been(pairs, tmp_path, monkeypatch, change):
    settings = tiny.settings(pairs, epochs=3, **change)
    undisturbed = train(settings, tmp_path / "undisturbed", verbose=0)
    evaluate = keras.Model.evaluate

    def cut(trainer, *args, **kwargs):
        if int(trainer.optimizer.iterations) * settings.accumulate >= 5:
            raise KeyboardInterrupt
        return evaluate(trainer, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "evaluate", cut)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", verbose=0)
    monkeypatch.undo()
    progress = train(settings, tmp_path / "run", resume=True, verbose=0)
    for row, expected in zip(progress.history, undisturbed.history, strict=True):
        for name in set(expected) - {"seconds"}:
            assert row[name] == pytest.approx(expected[name], rel=1e-5), (row["epoch"], name)


def test_validation_and_the_best_model_use_the_moving_average(pairs, tmp_path):
    settings = tiny.settings(pairs, epochs=2, learning_rate=0.05, images_every=1)
    plain = train(settings, tmp_path / "plain", verbose=0)
    progress = train(replace(settings, ema=0.9), tmp_path / "ema", verbose=0)
    np.testing.assert_allclose(tiny.losses_of(progress), tiny.losses_of(plain), rtol=1e-5)  # it learns as without
    assert progress.history[-1]["val_mae"] != pytest.approx(plain.history[-1]["val_mae"], rel=1e-3)
    epoch = progress.state["best_epoch"]
    assert epoch == 2
    checkpoint = np.load(tmp_path / "ema" / progress.state["checkpoint"])
    averages = [checkpoint[name] for name in checkpoint.files if name.endswith("_average")]  # Keras's, of weights
    best = keras.saving.load_model(tmp_path / "ema" / "best.keras", compile=False)
    for variable, average in zip(best.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(variable, average)
        assert not np.array_equal(checkpoint[variable.path], average)  # training goes on with its own
    for number, statistic in enumerate(best.non_trainable_variables, start=1):
        np.testing.assert_array_equal(statistic, checkpoint[f"averages/{number}"])


def test_the_moving_average_is_that_of_batch_statistics_too(pairs):
    network = build_model("tiny", (tiny.SIZE, tiny.SIZE))
    trainer, norm = tiny.TinyTrainer(network), network.get_layer("norm")
    trainer.compile(optimizer=optimizer_of(tiny.settings(pairs, ema=0.7)))
    random, expected = np.random.default_rng(0), None
    for _ in range(4):
        image = random.random((2, tiny.SIZE, tiny.SIZE, 3)).astype("float32")
        trainer.train_on_batch(image, {"alpha": image[..., :1]})
        own = np.stack([norm.moving_mean, norm.moving_variance])
        expected = own if expected is None else 0.7 * expected + 0.3 * own
    with trainer.averaged():
        np.testing.assert_allclose(np.stack([norm.moving_mean, norm.moving_variance]), expected, rtol=1e-5)
    np.testing.assert_array_equal(np.stack([norm.moving_mean, norm.moving_variance]), own)  # training goes on with its


def test_accumulated_batches_are_one_update_of_their_mean(pairs):
    network = build_model("tiny", (tiny.SIZE, tiny.SIZE))
    trainer = tiny.TinyTrainer(network)
    trainer.compile(optimizer=optimizer_of(tiny.settings(pairs, accumulate=3)))
    image = np.random.default_rng(0).random((2, tiny.SIZE, tiny.SIZE, 3)).astype("float32")
    before = network.get_layer("last").get_weights()[0]
    moved = []
    for _ in range(3):
        trainer.train_on_batch(image, {"alpha": image[..., :1]})
        moved.append(not np.array_equal(network.get_layer("last").get_weights()[0], before))
    assert moved == [False, False, True]
