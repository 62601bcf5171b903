"""Runs that are judged by several validation sources: names, figures of each, and which of them chooses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny

from keras_matting.cli import main
from keras_matting.errors import UsageError
from keras_matting.training.progress import Progress
from keras_matting.training.run import train
from keras_matting.training.settings import Settings
from keras_matting.training.validation import monitors, named

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Two folders to validate on: three discs, and seven whose masks are of the ground, so that they are worse."""
    folder = tmp_path_factory.mktemp("validation")
    tiny.write_pairs(folder / "discs", 3)
    tiny.write_pairs(folder / "ground", 7)
    import cv2

    for path in (folder / "ground" / "mask").iterdir():
        cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    return folder


@pytest.fixture(scope="module")
def finished(pairs, others, tmp_path_factory):
    """(settings, folder, progress) of a run with two sources."""
    tiny.register()
    val = [f"easy={others}/discs", f"{others}/ground"]
    settings = tiny.settings(pairs, val=val, val_fraction=0.0, monitor="val_worst_miou")
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return settings, folder, train(settings, folder, verbose=0)


def test_names_are_given_or_derived_and_never_twice():
    specs = ["a=ccp:x/ccp@2", "list:x/y.csv", "composite:cut-outs,photos", "pairs:z/y", "x/worst", "a b"]
    assert named(specs) == [
        ("a", "ccp:x/ccp@2"),
        ("y", "list:x/y.csv"),
        ("cut-outs", "composite:cut-outs,photos"),
        ("y-2", "pairs:z/y"),
        ("worst-2", "x/worst"),
        ("a-b", "a b"),
    ]


@pytest.mark.parametrize("specs", [["a=x", "a=y"], ["worst=x", "y"]])
def test_a_name_that_means_two_things_is_refused(specs):
    with pytest.raises(UsageError, match="Expected names of validation data, each once, none worst; received"):
        named(specs)


def test_only_figures_that_there_will_be_may_choose(pairs):
    assert monitors(()) == monitors(("a=x",)) == ("val_miou", "val_mae")
    assert "val_b_mae" in monitors(("a=x", "b=y"))
    with pytest.raises(UsageError, match="Expected monitor as one of val_miou, val_mae; received 'val_worst_miou'"):
        tiny.settings(pairs, monitor="val_worst_miou")


def test_every_source_counts_the_same_and_the_worst_is_told(finished):
    _, _, progress = finished
    for row in progress.history:
        for figure, worst in (("miou", min), ("mae", max)):
            values = [row[f"val_{name}_{figure}"] for name in ("easy", "ground")]
            assert row[f"val_{figure}"] == pytest.approx(np.mean(values), rel=1e-5)
            assert row[f"val_worst_{figure}"] == pytest.approx(worst(values), rel=1e-6)
    assert progress.history[-1]["val_easy_mae"] != progress.history[-1]["val_ground_mae"]
    assert not any(name in progress.history[-1] for name in ("easy_miou", "worst_miou"))


def test_a_sources_figures_are_those_of_a_run_with_it_alone(finished, others, tmp_path):
    settings, _, progress = finished
    alone = replace(settings, val=(f"{others}/ground",), monitor="val_miou", epochs=1)
    row = train(alone, tmp_path / "run", verbose=0).metrics_of(1)
    for figure in ("miou", "mae"):
        assert row[f"val_{figure}"] == pytest.approx(progress.metrics_of(1)[f"val_ground_{figure}"], rel=1e-4)


def test_the_monitored_source_chooses_the_best_epoch(finished):
    _, _, progress = finished
    values = [row["val_worst_miou"] for row in progress.history]
    assert progress.state["best"] == max(values)
    assert progress.metrics_of(progress.state["best_epoch"])["val_worst_miou"] == max(values)
    other = Progress("run", "val_easy_mae")
    other.state["best"] = 0.2
    assert other._is_better({"val_easy_mae": 0.1}) and not other._is_better({"val_easy_mae": 0.3})


def test_a_run_with_several_sources_resumes(finished, tmp_path):
    settings, _, progress = finished
    train(replace(settings, epochs=2), tmp_path / "run", verbose=0)
    again = train(settings, tmp_path / "run", resume=True, verbose=0)
    for row, expected in zip(again.history, progress.history, strict=True):
        for name in ("val_easy_miou", "val_worst_mae"):
            assert row[name] == pytest.approx(expected[name], rel=1e-5)


def test_tensorboard_gets_every_source(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[1] / "tensorboard" / "validation"))
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"epoch_easy_miou", "epoch_ground_mae", "epoch_worst_miou", "epoch_miou"} <= tags


def test_runs_of_earlier_versions_are_read(finished, pairs, tmp_path):
    settings, _, _ = finished
    settings.save(tmp_path)
    assert Settings.load(tmp_path) == settings
    content = json.loads((tmp_path / "run.json").read_text()) | {"monitor": "val_miou"}
    for stored, expected in (("pairs", ("pairs",)), ("", ())):
        (tmp_path / "run.json").write_text(json.dumps(content | {"val": stored}))
        assert Settings.load(tmp_path).val == expected


def test_the_command_line_takes_several(pairs, others, tmp_path, capsys):
    words = ["train", "--model", "tiny", "--data", str(pairs), "--epochs", "1", "--batch", "2", "--steps-per-epoch"]
    words += ["1", "--augment", "none", "--images-every", "0", "--out", str(tmp_path / "run")]
    words += ["--val", f"easy={others}/discs", "--val", f"{others}/ground", "--monitor", "val_ground_mae"]
    assert main(words) == 0
    assert "val_ground_mae 0." in capsys.readouterr().err
