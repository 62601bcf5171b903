"""Which engine runs: the one that is named, the one that a benchmark chose, or the fastest that can."""

import json
import shutil

import pytest

from keras_matting import engines, machine
from keras_matting.engines.onnx import OnnxEngine
from keras_matting.errors import EngineError, UsageError
from keras_matting.model_folder import Preset


@pytest.fixture
def copy(tiny_model_dir, tmp_path):
    """A copy of the exported folder that a test may spoil, without what other tests have built in it."""
    shutil.copytree(tiny_model_dir, tmp_path / "model", ignore=shutil.ignore_patterns("engines"))
    return tmp_path / "model"


def test_a_named_engine_that_cannot_run_is_an_error(tiny_model_dir, monkeypatch):
    from keras_matting.engines import openvino

    monkeypatch.setattr(openvino, "unavailable_reason", lambda variant: "not on this machine.")
    with pytest.raises(EngineError, match=r"openvino-f32 cannot run here: not on this machine. Available: savedmodel"):
        engines.open_engine("openvino-f32", tiny_model_dir)


def test_auto_probes_what_can_run_and_says_so(tiny_model_dir, monkeypatch, caplog):
    from keras_matting.engines import openvino

    monkeypatch.setattr(openvino, "unavailable_reason", lambda variant: "not on this machine.")
    with caplog.at_level("INFO", "keras_matting"):
        choice = engines.choose_engine("auto", tiny_model_dir)
    assert (choice.engine.name, choice.chosen_by) == ("onnx-cpu", "probe")
    assert "quick probe: onnx-cpu" in choice.reason
    assert caplog.messages == [choice.reason]


class OutOfMemoryError(Exception):
    """What a runtime raises that is nobody else's."""


def test_auto_takes_no_engine_that_opens_and_cannot_run(tiny_model_dir, monkeypatch, caplog):
    def fail(self, batch):
        raise OutOfMemoryError("CUDA failure 2: out of memory")

    monkeypatch.setattr(OnnxEngine, "predict", fail)
    monkeypatch.setattr(engines, "PROBED", ("onnx-cpu",))
    with caplog.at_level("INFO", "keras_matting"):
        choice = engines.choose_engine("auto", tiny_model_dir)
    assert choice.engine.name == engines.LAST_RESORT
    assert caplog.messages[0].startswith("onnx-cpu: Engine onnx-cpu failed: OutOfMemoryError: CUDA failure 2")


def test_auto_obeys_the_verdict_of_this_device_and_no_other(copy, caplog):
    preset = Preset.load(copy)
    measured = {
        "device": engines.device_name(),
        "weights_sha256": preset.weights_sha256,
        "input_size": list(preset.input_size),
    }

    def opened_by(fingerprint, engine="onnx-cpu"):
        report = {"verdict": {"engine": engine, "reason": "the best"}, "fingerprint": fingerprint}
        (copy / "benchmark.json").write_text(json.dumps(report))
        choice = engines.choose_engine("auto", copy)
        return choice.engine.name, choice.chosen_by, choice.reason

    assert opened_by(measured) == ("onnx-cpu", "benchmark", "the best")
    for change in ({"device": "a toaster"}, {"weights_sha256": "0"}, {"input_size": [1, 1]}):
        assert "does not hold here: measured with" in opened_by(measured | change)[2]
    assert "no engine passed" in opened_by(measured, None)[2]
    (copy / "benchmark.json").write_text("{")
    with caplog.at_level("INFO", "keras_matting"):
        engines.open_engine("auto", copy)
    assert "malformed" in caplog.messages[0] and "quick probe" in caplog.messages[1]


def test_auto_says_that_a_verdict_names_an_engine_that_is_no_more(copy):
    preset = Preset.load(copy)
    fingerprint = {"device": engines.device_name(), "weights_sha256": preset.weights_sha256}
    fingerprint["input_size"] = list(preset.input_size)
    verdict = {"verdict": {"engine": "savedmodel-bf16"}, "fingerprint": fingerprint}
    (copy / "benchmark.json").write_text(json.dumps(verdict))
    choice = engines.choose_engine("auto", copy)
    assert choice.chosen_by == "probe" and choice.engine.name in engines.PROBED
    assert "does not hold here: Expected an engine out of auto" in choice.reason


def test_auto_explains_why_nothing_runs(tmp_path, tiny_model_dir):
    Preset.load(tiny_model_dir).save(tmp_path)
    with pytest.raises(EngineError, match="No engine can run this model here. onnx-cuda: .* openvino-f32: "):
        engines.open_engine("auto", tmp_path)


def test_an_unknown_engine_is_explained(tiny_model_dir):
    with pytest.raises(UsageError, match=r"out of auto, .*; received 'onnx-quantum'"):
        engines.open_engine("onnx-quantum", tiny_model_dir)


@pytest.mark.skipif(machine.gpu() is not None, reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["onnx-cuda", "onnx-tensorrt", "tensorrt-fp16"])
def test_a_gpu_engine_without_a_gpu_never_falls_back(tiny_model_dir, name):
    with pytest.raises(EngineError, match=f"{name} cannot run here"):
        engines.open_engine(name, tiny_model_dir)
