import json
import re

import pytest
import tiny

from keras_matting import experiments
from keras_matting.cli import main
from keras_matting.errors import UsageError


@pytest.fixture
def tiny_scale(monkeypatch):
    tiny.register()
    scale = {"input_size": (16, 16), "epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "images_every": 0}
    monkeypatch.setitem(experiments.SCALES, "small", scale)
    yield
    tiny.unregister()


@pytest.fixture
def write(tmp_path):
    """Write an experiment on a folder of pairs and return its file."""
    tiny.write_pairs(tmp_path / "data" / "pairs")

    def write(name, **changes):
        settings = {"model": "tiny", "data": ["{root}/pairs"], "val_fraction": 0.25, "augment": "none", **changes}
        content = {"name": name, "question": f"What of {name}?", "settings": settings}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


@pytest.mark.parametrize("scale", experiments.SCALES)
def test_every_experiment_of_the_package_is_one_that_can_run(scale, tmp_path):
    names = experiments.names()
    assert len(names) == 13  # the clothing project's twelve, and their common start
    for name in names:
        experiment = experiments.load(name)
        settings = experiments.settings_of(experiment, scale, root="data", runs=tmp_path, models="saved_models")
        assert (experiment.name, settings.epochs) == (name, experiments.SCALES[scale]["epochs"])
        assert not any("{" in spec for spec in (*settings.data, *settings.val, settings.init))


@pytest.mark.long
def test_experiments_make_a_table_and_equal_ones_run_once(tiny_scale, write, tmp_path, capsys):
    files = [write("first"), write("again"), write("half", fraction=0.5)]
    words = ["--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "runs")]
    assert main(["experiments", "run", *files, *words]) == 0
    printed = capsys.readouterr()
    assert "again: as first" in printed.err and not (tmp_path / "runs" / "again").exists()
    table = (tmp_path / "runs" / "experiments.md").read_text()
    assert table.splitlines()[2:] == printed.out.splitlines()[2:]
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| first", "| again", "| half"]
    assert rows[0][2:] == rows[1][2:] != rows[2][2:]
    assert len((tmp_path / "runs" / "experiments.csv").read_text().splitlines()) == 4


def test_an_experiment_starts_from_the_best_model_of_another(tiny_scale, write, tmp_path):
    chosen = [experiments.load(write("first")), experiments.load(write("then", init="{runs}/first"))]
    first, then = experiments.run(chosen, tmp_path / "runs", root=tmp_path / "data")
    assert then["start val_miou"] == pytest.approx(first["val_miou"])


def test_a_start_that_was_not_run_is_told(tiny_scale, write, tmp_path):
    with pytest.raises(UsageError, match="none in .*runs, from which then starts; it was not run"):
        experiments.run(
            [experiments.load(write("then", init="{runs}/none"))], tmp_path / "runs", root=tmp_path / "data"
        )


def test_an_experiment_without_validation_is_told(tiny_scale, write, tmp_path):
    with pytest.raises(UsageError, match="val or val_fraction in experiment blind"):
        experiments.run([experiments.load(write("blind", val_fraction=0))], tmp_path / "runs", root=tmp_path / "data")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "names out of pretrain, transfer"),
        (["run", "augment-nothing"], "out of pretrain.*received augment-nothing"),
        (["run", "transfer", "--scale", "huge"], "out of small, full; received 'huge'"),
    ],
)
def test_what_cannot_be_run_is_explained(words, message, capsys):
    assert main(["experiments", *words]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden"])
def test_a_name_that_is_no_folder_is_explained(tmp_path, name):
    (tmp_path / "bad.json").write_text(json.dumps({"name": name, "question": "?", "settings": {}}))
    with pytest.raises(UsageError, match="JSON with name.*not letters"):
        experiments.load(tmp_path / "bad.json")


def test_a_malformed_file_is_explained(tmp_path):
    (tmp_path / "bad.json").write_text('{"name": "bad"}')
    with pytest.raises(UsageError, match="JSON with name, question and settings"):
        experiments.load(tmp_path / "bad.json")
