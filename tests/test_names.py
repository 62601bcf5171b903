"""A file whose name is not UTF-8, as old ZIP files leave it. Fault: names_not_utf8."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from data_files import half_mask, picture, save

from keras_matting import evaluate as evaluation
from keras_matting.cli import main
from keras_matting.data.sources import read_source, split
from keras_matting.json_photos import photo_id

NAME = os.fsdecode(b"caf\xe9")


@pytest.fixture
def data(tmp_path):
    for number, stem in enumerate((NAME, "1", "2", "3")):
        save(picture(number), tmp_path / "d" / "image" / f"{stem}.jpg")
        save(half_mask(), tmp_path / "d" / "mask" / f"{stem}.png")
    return tmp_path / "d"


def test_checks_and_sheets_take_it(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "home"))
    save(half_mask().point(lambda value: 0), data / "mask" / f"{NAME}.png")
    picture(9).save(data / "image" / "2.webp")
    (data / "image" / "2.jpg").unlink()
    (data / "image" / "2.webp").rename(data / "image" / f"{NAME}2.webp")
    (data / "mask" / "2.png").rename(data / "mask" / f"{NAME}2.png")
    words = [str(data), "--json", str(tmp_path / "r.json"), "--sheet", str(tmp_path / "s.png")]
    assert main(["data", "check", *words]) == 1
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert (data / "mask" / f"{report['problems'][0]['stem']}.png").exists()
    assert main(["data", "check", *words]) == 1  # what is there is its own
    capsys.readouterr()


def test_a_table_on_a_strict_standard_output_escapes_it(data, tmp_path):
    renamed = data.rename(tmp_path / NAME)
    command = [sys.executable, "-m", "keras_matting.cli", "data", "check", renamed]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict", "KERAS_MATTING_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"caf\udce9" in done.stdout


def test_it_is_evaluated(data, tmp_path, one_layer_dir):
    result = evaluation.evaluate(one_layer_dir, read_source(str(data), tmp_path), "onnx-cpu", worst=4)
    assert result.summary["n"] == 4
    evaluation.write_json(result, tmp_path / "r.json")
    evaluation.write_csv(result, tmp_path / "r.csv")
    evaluation.write_sheet(result, tmp_path / "r.png")
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["stem"] for row in rows] == ["1", "2", "3", r"caf\udce9"]


def test_it_is_split_and_trained_on(data, tmp_path, tiny_model):
    from keras_matting.training.run import train
    from keras_matting.training.strip import strip

    train_part, validation = split(read_source(str(data), tmp_path), 0.5)
    assert len(train_part.samples) + len(validation.samples) == 4
    progress = train(tiny.settings(data, epochs=1), tmp_path / "run", verbose=0)
    assert progress.epoch == 1
    assert train(tiny.settings(data, epochs=2), tmp_path / "run", resume=True, verbose=0).epoch == 2
    strip(tmp_path / "run", tmp_path / "model")


def test_it_becomes_json_and_a_file_again(data, tmp_path):
    images, back = data / "image", tmp_path / "back"
    assert main(["dataset", "to-json", str(images), str(tmp_path / "x.ndjson")]) == 0
    assert main(["dataset", "from-json", str(tmp_path / "x.ndjson"), str(back), "--photos", str(images)]) == 0
    assert {path.name for path in back.iterdir()} == {path.name for path in images.iterdir()}
    assert photo_id("a.jpg") == "48e60195-cea9-54fa-bbcc-28adb95ffb15"


def test_it_is_matted_and_reported(data, tmp_path, one_layer_dir):
    report = tmp_path / "r.jsonl"
    words = [data / "image", tmp_path / "out", "--model", one_layer_dir, "--engine", "onnx-cpu", "--report", report]
    assert main(["predict", *map(str, words)]) == 0
    outputs = [json.loads(line)["output"] for line in report.read_text().splitlines()]
    assert str(tmp_path / "out" / f"{NAME}.png") in outputs
    assert all(Path(output).exists() for output in outputs)
