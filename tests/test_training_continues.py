"""Runs that go on: phases of a frozen backbone, patience, and what a continued run must have in common."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny

from keras_matting.errors import MattingError, UsageError
from keras_matting.training import progress as progress_module
from keras_matting.training import run, selection
from keras_matting.training.contents import read_contents
from keras_matting.training.progress import Progress
from keras_matting.training.run import phases, train
from keras_matting.training.settings import Settings
from keras_matting.training.strip import strip

pytestmark = pytest.mark.usefixtures("tiny_model")
FROZEN = {"model": "modnet", "data": ["x"], "epochs": 10, "freeze_backbone": True}


@pytest.fixture
def stuck(pairs):
    """Settings of a run that never gets better than its first epoch."""
    return tiny.settings(pairs, learning_rate=1e-12, patience=2, epochs=9)


def test_a_frozen_backbone_is_trained_in_two_phases():
    assert phases(Settings(**FROZEN)) == [(10, None)]
    assert phases(Settings(**FROZEN, unfreeze_from=115)) == [(5, None), (10, 115)]
    assert phases(Settings(**FROZEN, unfreeze_from=115, freeze_epochs=2)) == [(2, None), (10, 115)]


def test_more_epochs_do_not_move_the_end_of_the_frozen_phase():
    earlier = Settings(**FROZEN, unfreeze_from=115).begun()
    longer = replace(Settings(**FROZEN, unfreeze_from=115), epochs=30).continuing(earlier)
    assert phases(longer) == [(5, None), (30, 115)]


def test_patience_ends_a_run_and_a_resumed_run_stays_ended(stuck, tmp_path):
    ended = train(stuck, tmp_path / "run", verbose=0)
    assert ended.epoch < 9
    assert train(stuck, tmp_path / "run", resume=True, verbose=0).history == ended.history
    more = train(replace(stuck, patience=3), tmp_path / "run", resume=True, verbose=0)
    assert more.epoch > ended.epoch


def test_patience_ends_a_phase_and_the_next_one_has_its_own(stuck, tmp_path, monkeypatch):
    ended = train(stuck, tmp_path / "one", verbose=0)
    monkeypatch.setattr(run, "phases", lambda settings: [(5, None), (settings.epochs, -1)])
    progress = train(stuck, tmp_path / "two", verbose=0)
    assert progress.phase == 1
    assert progress.state["phase_start"] == ended.epoch
    assert progress.epoch >= ended.epoch + stuck.patience
    assert train(stuck, tmp_path / "two", resume=True, verbose=0).history == progress.history


@pytest.mark.parametrize("epoch", [pytest.param(1, marks=pytest.mark.long), 2, pytest.param(3, marks=pytest.mark.long)])
def test_a_run_cut_off_in_any_phase_continues_as_if_it_had_not_been(pairs, tmp_path, monkeypatch, epoch):
    monkeypatch.setattr(run, "phases", lambda settings: [(2, None), (settings.epochs, -1)])
    settings = tiny.settings(pairs)
    undisturbed = train(settings, tmp_path / "undisturbed", verbose=0)
    write = Progress._write

    def cut(self, done, logs):
        if done == epoch + 1:
            raise KeyboardInterrupt
        write(self, done, logs)

    monkeypatch.setattr(Progress, "_write", cut)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", verbose=0)
    monkeypatch.setattr(Progress, "_write", write)
    progress = train(settings, tmp_path / "run", resume=True, verbose=0)
    np.testing.assert_allclose(tiny.losses_of(progress), tiny.losses_of(undisturbed), rtol=1e-5)


@pytest.mark.long
def test_modnet_is_trained_frozen_then_from_a_layer_on_and_gets_more_epochs(pairs, tmp_path):
    settings = replace(tiny.settings(pairs), model="modnet", input_size=(32, 32), steps_per_epoch=1, epochs=2)
    settings = replace(settings, freeze_backbone=True, unfreeze_from=115)
    first = train(settings, tmp_path / "run", verbose=0)
    more = train(replace(settings, epochs=3), tmp_path / "run", resume=True, verbose=0)
    assert (first.epoch, more.epoch, more.phase, more.state["phase_start"]) == (2, 3, 1, 1)
    assert np.isfinite(tiny.losses_of(more)).all()


@pytest.mark.long
def test_half_precision_continues_with_its_loss_scale(pairs, tmp_path):
    settings = tiny.settings(pairs, precision="mixed_float16", epochs=3)
    undisturbed = train(settings, tmp_path / "undisturbed", verbose=0)
    train(replace(settings, epochs=2), tmp_path / "run", verbose=0)
    progress = train(settings, tmp_path / "run", resume=True, verbose=0)
    np.testing.assert_allclose(tiny.losses_of(progress), tiny.losses_of(undisturbed), rtol=1e-3)


def test_resume_refuses_other_photos(pairs, tmp_path):
    folder = shutil.copytree(pairs, tmp_path / "pairs")
    settings = tiny.settings(folder, epochs=1)
    train(settings, tmp_path / "run", verbose=0)
    for part in ("image", "mask"):
        shutil.copy(folder / part / "00.png", folder / part / "new.png")
    with pytest.raises(UsageError, match="it began with 10 and 2 to train and validate on; now there are 11 and 2"):
        train(replace(settings, epochs=2), tmp_path / "run", resume=True, verbose=0)
    for part in ("image", "mask"):
        (folder / part / "new.png").unlink()
    assert train(replace(settings, epochs=2), tmp_path / "run", resume=True, verbose=0).epoch == 2


@pytest.mark.parametrize(("part", "noun"), [("mask", "mask"), ("image", "photo")])
def test_resume_refuses_files_that_hold_something_else_and_names_them(pairs, tmp_path, part, noun):
    folder = shutil.copytree(pairs, tmp_path / "pairs")
    settings = tiny.settings(folder, epochs=1)
    train(settings, tmp_path / "run", verbose=0)
    replaced = [folder / part / f"{number:02}.png" for number in range(5)]
    for path, other in zip(replaced, [*replaced[1:], replaced[0]], strict=True):
        shutil.copy(pairs / part / other.name, path)
    with pytest.raises(UsageError, match=f"other than when it began: {noun} 0., {noun} 0., {noun} 0., and 2 more"):
        train(replace(settings, epochs=2), tmp_path / "run", resume=True, verbose=0)
    shutil.rmtree(folder)
    shutil.copytree(pairs, folder, copy_function=shutil.copyfile)  # with other times
    assert train(replace(settings, epochs=2), tmp_path / "run", resume=True, verbose=0).epoch == 2


def test_a_run_that_an_earlier_version_began_goes_on(pairs, tmp_path):
    settings = tiny.settings(pairs, epochs=1)
    train(settings, tmp_path / "run", verbose=0)
    (tmp_path / "run" / "contents.json").unlink()
    assert train(replace(settings, epochs=2), tmp_path / "run", resume=True, verbose=0).epoch == 2
    assert (tmp_path / "run" / "contents.json").is_file()


def test_masks_of_photos_to_adapt_to_may_change(pairs):
    training, validation = selection.select(tiny.settings(pairs, model="modnet", objective="soc"))
    contents = read_contents(training, validation)
    assert {len(entry) for entry in contents["training"]} == {2}
    assert {len(entry) for entry in contents["validation"]} == {3}


def test_the_seed_decides_the_fresh_weights(pairs, tmp_path):
    starts = [
        train(tiny.settings(pairs, epochs=1, seed=seed), tmp_path / name, verbose=0).history[0]["val_loss"]
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert starts[0] == starts[1] != starts[2]


def test_a_best_model_that_its_run_has_no_record_of_is_not_taken_for_another_epochs(pairs, tmp_path, monkeypatch):
    settings = tiny.settings(pairs, epochs=2, val_fraction=0.0)  # without validation each epoch is the best so far
    train(replace(settings, epochs=1), tmp_path / "run", verbose=0)
    write = progress_module.write_atomically

    def cut(path, data):
        if path.name == "progress.json":
            raise UsageError("the disk is full")
        write(path, data)

    monkeypatch.setattr(progress_module, "write_atomically", cut)
    with pytest.raises(MattingError, match="Expected to write a checkpoint"):
        train(settings, tmp_path / "run", resume=True, verbose=0)
    monkeypatch.undo()
    assert json.loads((tmp_path / "run" / "progress.json").read_text())["best_epoch"] == 1
    with pytest.raises(UsageError, match="cut off while it was replaced. Continue it with --resume"):
        strip(tmp_path / "run", tmp_path / "model")
    train(settings, tmp_path / "run", resume=True, verbose=0)
    strip(tmp_path / "run", tmp_path / "model")
