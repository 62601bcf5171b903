"""`benchmarks/keras_applications.py`, and the table that it has written."""

import importlib.util
import json
import sys
from pathlib import Path

import keras
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "keras_applications.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("keras_applications", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_family_is_represented(script):
    models = [getattr(keras.applications, name) for name in dir(keras.applications) if name[0].isupper()]
    assert set(script.REPRESENTATIVES) == {model.__module__.rpartition(".")[2] for model in models}
    for family, name in script.REPRESENTATIVES.items():
        assert getattr(keras.applications, name).__module__.endswith(f".{family}")


def test_the_recorded_table_has_a_reason_for_every_no(script):
    rows = script.read_rows(script.OUT)
    assert rows
    for row in rows:
        assert row["family"] in script.REPRESENTATIVES
        assert tuple(row) == script.COLUMNS
        assert bool(row["error"]) == ("no" in [row[step] for step in script.STEPS])


def test_what_is_written_is_not_checked_again_and_a_crash_costs_one_row(script, monkeypatch, tmp_path, capfd):
    checked, arguments = [], ["script", "A", "B", "--out", str(tmp_path / "table.csv")]

    def check_apart(name, size):
        checked.append(name)
        row = dict.fromkeys(script.COLUMNS, "") | {"family": "f", "model": name, "size": "96x96"}
        return None if name == "A" and checked.count("A") == 1 else row

    monkeypatch.setattr(script, "check_apart", check_apart)
    monkeypatch.setattr(sys, "argv", arguments)
    for status in (1, 0):
        with pytest.raises(SystemExit) as ended:
            script.main()
        assert ended.value.code == status
    assert checked == ["A", "B", "A"]
    assert [row["model"] for row in script.read_rows(tmp_path / "table.csv")] == ["A", "B"]


@pytest.mark.parametrize(("program", "expected"), [("exit 3", None), ("""echo noise; echo '{"model": "A"}'""", "A")])
def test_a_row_comes_from_a_process_of_its_own(script, monkeypatch, tmp_path, capfd, program, expected):
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\n{program}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    row = script.check_apart("A", (96, 96))
    assert row == (expected and json.loads('{"model": "A"}'))
    assert ("A: its process ended with status 3" in capfd.readouterr().err) == (expected is None)


@pytest.mark.long
def test_a_model_that_passes_says_yes_to_every_step(script, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    row = script.check("MobileNetV3Small", (32, 32), tmp_path)
    assert {row[step] for step in script.STEPS} == {"yes"}
    assert row["layers"] > 50
