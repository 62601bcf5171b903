"""Accuracy against latency: what is compared, what is worth serving, and what the command writes."""

import json
import shutil

import cv2
import numpy as np
import pytest
import tiny

from keras_matting.benchmarking import tradeoff, tradeoff_report
from keras_matting.cli import main
from keras_matting.errors import UsageError
from keras_matting.model_folder import KERAS_FILE, PRESET_FILE, Preset


def folder(parent, name, **changes):
    """Write the preset of a model that is not ours, 64x64."""
    fields = {"architecture": "custom", "input_size": (64, 64), "mean": (0,) * 3, "std": (1,) * 3}
    (parent / name).mkdir()
    Preset(name=name, **{**fields, **changes}).save(parent / name)
    return parent / name


def test_every_model_is_compared_at_every_size_or_at_its_own(tmp_path):
    models = [folder(tmp_path, name, architecture="u2netp", input_size=(320, 320)) for name in ("one", "two")]
    found = [(one.source.name, one.preset.input_size) for one in tradeoff.variants(models, (160, 224))]
    assert found == [("one", (160, 160)), ("one", (224, 224)), ("two", (160, 160)), ("two", (224, 224))]
    assert [one.preset.input_size for one in tradeoff.variants(models, ())] == [(320, 320)] * 2


@pytest.mark.parametrize(
    ("architecture", "sizes", "told"),
    [
        ("modnet", (224, 250), "multiples of 32; received .250, 250.. Use 256x256"),
        ("custom", (64, 96), "Expected one at 64x64, for which it was built; received 96"),
    ],
)
def test_a_size_that_a_model_cannot_take_is_told_before_anything_is_measured(tmp_path, architecture, sizes, told):
    with pytest.raises(UsageError, match=told):
        tradeoff.variants([folder(tmp_path, "one", architecture=architecture)], sizes)


def test_models_that_are_not_there_or_have_one_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match="names; received nowhere"):
        tradeoff.variants(["nowhere"], ())
    model = folder(tmp_path, "one")
    with pytest.raises(UsageError, match="received one twice"):
        tradeoff.variants([model, model], ())


@pytest.fixture(scope="module")
def measured(one_layer_dir, tmp_path_factory):
    """Two models compared by the command: (their parent, what it returned, the folder of its files)."""
    home = tmp_path_factory.mktemp("tradeoff")
    for name in ("one", "two"):
        (home / name).mkdir()
        shutil.copy(one_layer_dir / KERAS_FILE, home / name)
        preset = json.loads((one_layer_dir / PRESET_FILE).read_text())
        (home / name / PRESET_FILE).write_text(json.dumps({**preset, "name": name}))
    for number, name in enumerate(("discs", "more")):
        tiny.write_pairs(home / name, 2 + number)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3))
    (home / "photos").mkdir()
    cv2.imwrite(str(home / "photos/noise.png"), noise)
    words = ["benchmark", str(home / "one"), str(home / "two"), "--engines", "onnx-cpu,openvino-f32", "--rounds", "1"]
    words += ["--data", str(home / "discs"), "--data", f"others={home / 'more'}", "--photos", str(home / "photos")]
    words += [f"--{kind}={home / f'report.{ending}'}" for kind, ending in FILES.items()]
    return home, main(words)


FILES = {"json": "json", "markdown": "md", "plot": "png"}


def test_models_and_engines_are_timed_and_judged_on_each_set(measured):
    home, status = measured
    assert status == 0
    report = json.loads((home / "report.json").read_text())
    assert report["sets"] == {"discs": 2, "others": 3}
    places = [(point["model"], point["size"], point["engine"]) for point in report["points"]]
    engines = "onnx-cpu", "openvino-f32"
    assert sorted(places) == [(model, [64, 64], engine) for model in ("one", "two") for engine in engines]
    for point in report["points"]:
        assert point["p50_ms"] > 0
        for name, accuracy in point["accuracy"].items():  # the two models are one
            assert accuracy == pytest.approx(report["points"][0]["accuracy"][name], abs=1e-3)
    assert report["points"][0]["accuracy"]["discs"] != report["points"][0]["accuracy"]["others"]
    assert any("discs" in point["frontier"] for point in report["points"])
    assert report["left_out"] == []


def test_the_comparison_leaves_the_model_folders_as_they_were(measured):
    home, _ = measured
    assert sorted(path.name for path in (home / "one").iterdir()) == sorted([KERAS_FILE, PRESET_FILE])


def test_the_comparison_is_written_as_a_table_and_a_picture(measured):
    home, _ = measured
    table = (home / "report.md").read_text()
    assert "| engine | p50 ms | 95 % interval | mIoU discs | MAE discs | mIoU others | MAE others |" in table
    assert len([line for line in table.splitlines() if line.startswith(("| one |", "| two |"))]) == 4
    assert cv2.imread(str(home / "report.png")).shape[1] > 1000  # a panel a set


def test_an_engine_that_the_gate_refuses_is_no_point(tmp_path):
    speed = [{"p50_ms": 1.0, "ci95_ms": [1.0, 1.0]}]
    report = {"model": "one", "results": [{"engine": name, "speed": speed} for name in ("onnx-cpu", "savedmodel")]}
    found = tradeoff._points(tmp_path, report, refused={"savedmodel": "mae 0.1 is above 0.005"}, sets={})
    assert [one["engine"] for one in found] == ["onnx-cpu"]


def point(ms, miou, **changes):
    return {"p50_ms": ms, "ci95_ms": [ms, ms], "accuracy": {"a": {"miou": miou, "mae": 0.1}}, **changes}


def test_worth_serving_is_what_nothing_beats_in_speed_and_accuracy_at_once():
    points = [point(10, 0.8), point(20, 0.9), point(30, 0.85), point(20, 0.89), point(10, 0.8)]
    best = [one for one in points if not any(tradeoff._beats(other, one, "a") for other in points)]
    assert best == [points[0], points[1], points[4]]


def test_what_is_worth_serving_is_bold_and_the_quickest_comes_first():
    common = {"model": "one", "engine": "onnx-cpu"}
    points = [
        point(30, 0.85, **common, size=[320, 320], frontier=[]),
        point(10, 0.8, **common, size=[160, 96], frontier=["a"]),
    ]
    refused = {"model": "one", "size": [320, 320], "engine": "savedmodel", "why": "mae 0.1 is above 0.005."}
    report = {"sets": {"a": 1}, "device": "here", "cores_taken": 0.0, "points": points, "left_out": [refused]}
    *rows, _, last = tradeoff_report.markdown(report).splitlines()[-4:]
    assert last == "- one 320 savedmodel left out: mae 0.1 is above 0.005."
    assert rows[0] == "| one | 160x96 | onnx-cpu | 10.0 | 10.0 to 10.0 | **0.8000** | 0.1000 |"
    assert rows[1].startswith("| one | 320 |") and "**" not in rows[1]


def test_several_models_or_sizes_need_data_to_be_compared_on(one_layer_dir, capsys):
    for more in ([str(one_layer_dir)], ["--sizes", "64"]):
        assert main(["benchmark", str(one_layer_dir), *more]) == 2
        assert "Expected --data SPEC with several models or --sizes" in capsys.readouterr().err
