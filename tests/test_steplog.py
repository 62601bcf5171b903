"""What a long run logs; the clock is the test's."""

import logging

import pytest
import tiny

from keras_matting.cli import main
from keras_matting.training import steplog
from keras_matting.training.run import train
from keras_matting.training.steplog import StepLog, duration


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said(caplog):
    """What is logged: `said()` is the list of lines."""
    caplog.set_level(logging.INFO, "keras_matting")
    return lambda: caplog.messages


def steps(log, clock, first, last, step_s):
    for batch in range(first, last):
        clock.now += step_s
        log.on_train_batch_end(batch, {"loss": 1 / (batch + 1)})


def new(clock, **options):
    return StepLog(**{"epochs": 3, "steps": 100, "batch_size": 8, "clock": clock, **options})


def test_a_line_every_half_minute_says_how_far_the_run_is(clock, said):
    log = new(clock)
    log.on_epoch_begin(0)
    steps(log, clock, 0, 1, 10)  # compiles
    steps(log, clock, 1, 31, 2)
    assert said() == [
        "epoch 1 of 3, step 11 of 100, loss 0.0909, 4.0 images/s, 2:58 left of the epoch, 9:38 of the run",
        "epoch 1 of 3, step 26 of 100, loss 0.0385, 4.0 images/s, 2:28 left of the epoch, 9:08 of the run",
    ]


def test_a_fast_epoch_says_nothing(clock, said):
    log = new(clock)
    for epoch in range(3):
        log.on_epoch_begin(epoch)
        steps(log, clock, 0, 100, 0.2)
        log.on_epoch_end(epoch)
    assert said() == []


def test_a_first_step_longer_than_that_is_told_without_a_rate(clock, said):
    log = new(clock)
    log.on_epoch_begin(0)
    steps(log, clock, 0, 2, 90)
    assert said() == [
        "epoch 1 of 3, step 1 of 100, loss 1.0000",
        "epoch 1 of 3, step 2 of 100, loss 0.5000, 0.1 images/s, 2:27:00 left of the epoch, 7:27:00 of the run",
    ]


def test_validation_is_told_and_counts_in_the_time_left(clock, said):
    log = new(clock, validation_steps=4)
    log.on_test_batch_end(0)
    clock.now += 31
    log.on_test_batch_end(1)
    log.on_epoch_begin(0)
    steps(log, clock, 0, 100, 0.1)
    for batch in range(4):
        clock.now += 20
        log.on_test_batch_end(batch)
    log.on_epoch_end(0)
    log.on_epoch_begin(1)
    steps(log, clock, 0, 31, 1)
    assert said() == [
        "start, validation, step 2 of 4",
        "epoch 1 of 3, validation, step 2 of 4",
        "epoch 1 of 3, validation, step 4 of 4",
        "epoch 2 of 3, step 30 of 100, loss 0.0333, 8.0 images/s, 1:10 left of the epoch, 2:40 of the run",
    ]


@pytest.mark.usefixtures("tiny_model")
@pytest.mark.parametrize(("verbose", "lines"), [(2, 6), (0, 0)])
def test_runs_for_log_files_say_it(pairs, tmp_path, monkeypatch, said, verbose, lines):
    monkeypatch.setattr(steplog, "EVERY_S", 0.0)
    train(tiny.settings(pairs, epochs=2, val_fraction=0.0), tmp_path / "run", verbose=verbose)
    told = [line for line in said() if " step " in line]
    assert len(told) == lines
    if told:
        assert told[-1].startswith("epoch 2 of 2, step 3 of 3, loss ")


@pytest.mark.usefixtures("tiny_model")
def test_the_command_line_shows_it_on_standard_error(pairs, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(steplog, "EVERY_S", 0.0)
    words = ["--model", "tiny", "--data", str(pairs), "--batch", "4", "--epochs", "1", "--val-fraction", "0.2"]
    assert main(["train", *words, "--images-every", "0", "--out", str(tmp_path / "run")]) == 0
    told = capfd.readouterr().err
    assert "start, validation, step 1" in told and "epoch 1 of 1, step 1 of " in told


def test_durations_are_readable():
    assert [duration(seconds) for seconds in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]
