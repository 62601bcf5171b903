"""The engines for NVIDIA GPUs where there is none: what does not need one, and stand-ins for what does."""

import pytest

from keras_matting import machine
from keras_matting.engines import onnx
from keras_matting.engines.optimize import optimize


def test_one_engine_s_failure_of_whatever_kind_is_its_own_row(one_layer_dir, monkeypatch):
    def fail(*arguments):
        raise TypeError("pybind11::init(): factory function returned nullptr\nand more")

    monkeypatch.setattr(onnx, "build", fail)
    monkeypatch.setattr(onnx, "check_current", fail)
    rows = {row.engine: row for row in optimize(one_layer_dir, ["onnx-cpu", "savedmodel"])}
    assert rows["onnx-cpu"].status == "failed"
    assert rows["onnx-cpu"].reason == "TypeError: pybind11::init(): factory function returned nullptr"
    assert rows["savedmodel"].status == "current"


@pytest.mark.parametrize(("capability", "precision"), [("7.5", "f32"), ("8.0", "tf32"), ("10.0", "tf32")])
def test_float32_on_a_gpu_is_called_what_it_is(monkeypatch, capability, precision):
    monkeypatch.setattr(machine, "gpu", lambda: {"compute_capability": capability})
    assert machine.gpu_float32() == precision
