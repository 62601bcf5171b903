"""The engines for NVIDIA GPUs where there is none: what does not need one, and stand-ins for what does."""

import shutil
import tempfile
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx as onnx_file
import pytest
import stand_ins

from keras_matting import engines, machine
from keras_matting.benchmarking import run
from keras_matting.engines import onnx, onnx_tensorrt, tensorrt
from keras_matting.engines.onnx import OnnxEngine
from keras_matting.engines.optimize import optimize
from keras_matting.errors import EngineError


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
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.setattr(machine, "gpu", lambda: {"compute_capability": capability})
    assert machine.gpu_float32() == precision


@pytest.mark.parametrize(("override", "precision"), [("0", "f32"), ("1", "tf32")])
def test_float32_is_called_so_where_nvidia_s_libraries_are_told_to_keep_to_it(monkeypatch, override, precision):
    monkeypatch.setattr(machine, "gpu", lambda: {"compute_capability": "9.0"})
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    assert machine.gpu_float32() == precision


@pytest.fixture
def folder(one_layer_dir, tmp_path):
    return Path(shutil.copytree(one_layer_dir, tmp_path / "model", ignore=shutil.ignore_patterns("engines")))


@pytest.mark.parametrize("version", ["1.14.1", "1.31.1"])
def test_onnx_tensorrt_is_built_for_one_photo_and_for_more_and_served_from_a_copy(folder, monkeypatch, version):
    batch = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 3)).astype("float32")
    expected = OnnxEngine(folder / "model.onnx", "cpu").predict(batch)
    monkeypatch.setattr(OnnxEngine, "_require_whole_graph", lambda self, provider: None)
    asked = stand_ins.put_onnx_on_a_gpu(monkeypatch, version)
    engines.build("onnx-tensorrt", folder, engines.BuildOptions(max_batch=32))
    graph = folder / "engines" / "onnx-tensorrt" / "graph.onnx"
    asked.clear()
    engine = engines.open_engine("onnx-tensorrt", folder)
    for n in (1, 3):
        np.testing.assert_allclose(engine.predict(batch[:n]), expected[:n], rtol=0, atol=2e-3)
    profiles = [options.get("trt_profile_opt_shapes") for _, options, _ in asked]
    assert profiles == ([None, None] if version == "1.14.1" else ["image:1x64x64x3", "image:8x64x64x3"])
    assert all(value == "1" for _, _, value in asked)
    half = any(tensor.data_type == onnx_file.TensorProto.FLOAT16 for tensor in onnx_file.load(graph).graph.initializer)
    assert half == (version != "1.14.1")  # which float16 graphs kill
    with pytest.raises(EngineError, match="built for batches up to 32"):
        engine.predict(np.zeros((33, 64, 64, 3), "f4"))
    engine.close()
    assert engines.check_current("onnx-tensorrt", folder) is None  # what was hashed is as it was


def test_onnx_tensorrt_that_builds_anew_when_it_is_opened_is_an_error(folder, monkeypatch):
    stand_ins.put_onnx_on_a_gpu(monkeypatch)
    engines.build("onnx-tensorrt", folder, engines.BuildOptions())
    states = iter((1, 2))
    monkeypatch.setattr(onnx_tensorrt, "_engines", lambda folder: next(states))
    with pytest.raises(EngineError, match="did not take what was built; build it again"):
        engines.open_engine("onnx-tensorrt", folder)


def test_an_onnx_runtime_that_cannot_refuse_the_cpu_is_checked_by_its_profile(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stand_ins.put_onnx_on_a_gpu(monkeypatch, "1.14.1")
    with pytest.raises(EngineError, match="whole graph on CUDAExecutionProvider; elsewhere ran .*Conv"):
        engines.open_engine("onnx-cuda", folder)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("installed", "capability", "package"),
    [
        (("tensorrt_rtx", "tensorrt"), None, "tensorrt_rtx"),  # which builds without a GPU
        (("tensorrt_rtx", "tensorrt"), "8.9", "tensorrt_rtx"),
        (("tensorrt_rtx", "tensorrt"), "9.0", "tensorrt"),
        (("tensorrt_rtx", "tensorrt"), "8.0", "tensorrt"),
        (("tensorrt_rtx",), "9.0", "tensorrt_rtx"),
        (("tensorrt",), "8.9", "tensorrt"),
        ((), "8.9", None),
    ],
)
def test_the_tensorrt_that_fits_the_device_is_taken(monkeypatch, installed, capability, package):
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: name in installed)
    device = capability and {"name": "a card", "compute_capability": capability}
    for module in (machine, tensorrt):
        monkeypatch.setattr(module, "gpu", lambda: device)
    assert tensorrt._package() == package
    if installed == ("tensorrt_rtx",):
        assert "does not support a card" in tensorrt.unavailable_reason("fp16")


def test_timings_are_kept_for_one_version_on_one_device(monkeypatch):
    names = set()
    for version, device in (("8.5", "H100"), ("10.9", "H100"), ("8.5", "A100")):
        monkeypatch.setattr(tensorrt, "_runtime", lambda version=version: f"tensorrt {version}")
        monkeypatch.setattr(tensorrt, "_device", lambda device=device: device)
        names.add(tensorrt._timing_cache())
    assert len(names) == 3


class FakeConfig:
    """A builder's configuration that refuses a timing cache of another version."""

    def __init__(self, timings=None):
        self.taken, self._timings = None, timings

    def create_timing_cache(self, data):
        return data

    def set_timing_cache(self, cache, ignore_mismatch):
        fits = cache in (b"", b"fits")
        self.taken = cache if fits else self.taken
        return fits

    def get_timing_cache(self):
        return self._timings


@pytest.mark.parametrize(("kept", "taken"), [(None, b""), (b"fits", b"fits"), (b"of another version", b"")])
def test_a_timing_cache_that_does_not_fit_gives_way_to_an_empty_one(tmp_path, kept, taken):
    if kept is not None:
        (tmp_path / "timings").write_bytes(kept)
    config = FakeConfig()
    tensorrt.read_timings(config, tmp_path / "timings")
    assert config.taken == taken


@pytest.mark.parametrize("timings", [None, type("Empty", (), {"serialize": lambda self: None})()])
def test_a_build_without_timings_is_no_error(tmp_path, timings):
    tensorrt.write_timings(FakeConfig(timings), tmp_path / "timings")
    assert not (tmp_path / "timings").exists()


def test_what_tensorrt_says_stands_in_the_error(tmp_path):
    trt = pytest.importorskip("tensorrt_rtx")
    log = tensorrt.new_log(trt)
    log.log(trt.ILogger.WARNING, "no such kernel")
    log.log(trt.ILogger.INFO, "not this")
    assert log.told() == " TensorRT said: no such kernel"


@pytest.mark.parametrize(
    ("max_batch", "profiles"), [(1, [(1, 1, 1)]), (4, [(1, 1, 1), (2, 4, 4)]), (32, [(1, 1, 1), (2, 8, 32)])]
)
def test_a_profile_for_one_photo_and_one_for_more(max_batch, profiles):
    batches = engines.BuildOptions(max_batch=max_batch).batches
    source = SimpleNamespace(shape=(-1, 64, 64, 3))
    assert tensorrt.profiles(source, batches) == profiles
    assert [(part[0], part[len(part) // 2], part[-1]) for part in onnx_tensorrt.parts(batches).values()] == profiles
    assert tensorrt.profiles(SimpleNamespace(shape=(2, 64, 64, 3)), batches) == []


@pytest.fixture
def cuda(monkeypatch):
    from keras_matting.engines import cuda

    fake = stand_ins.FakeCuda()
    monkeypatch.setattr(cuda, "_runtime", lambda: fake)
    return fake


@pytest.fixture
def card(monkeypatch):
    with stand_ins.a_gpu(monkeypatch):
        yield


def test_a_tensorrt_engine_takes_the_context_made_for_the_batch_and_frees_its_memory(cuda, card, tmp_path, monkeypatch):
    trt = pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(trt, "Runtime", stand_ins.tensorrt_runtime((8, 8)))
    (tmp_path / tensorrt.PLAN).write_bytes(b"plan")
    engine = tensorrt.TensorRtEngine(tmp_path, "fp16")
    batch = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 3)).astype("float32")
    for n in (1, 3, 1):
        np.testing.assert_array_equal(engine.predict(batch[:n]), batch[:n, ..., :1] / 2)
    engine.close()
    assert not cuda.blocks


def test_a_tensorrt_engine_that_takes_bytes_refuses_others(cuda, card, tmp_path, monkeypatch):
    trt = pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(trt, "Runtime", stand_ins.tensorrt_runtime((8, 8)))
    (tmp_path / tensorrt.PLAN).write_bytes(b"plan with image__plain")
    engine = tensorrt.TensorRtEngine(tmp_path, tensorrt.UINT8)
    batch = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    for n in (1, 3):
        np.testing.assert_array_equal(engine.predict(batch[:n]), batch[:n, ..., :1] / np.float32(2))
    with pytest.raises(EngineError, match=r"expects a uint8 batch .* received float32 .* imaging.sized"):
        engine.predict(batch.astype("float32"))
    engine.close()


def test_float32_on_the_gpu_is_labelled(monkeypatch, cuda, card, tmp_path):
    trt = pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(trt, "Runtime", stand_ins.tensorrt_runtime((8, 8)))
    (tmp_path / tensorrt.PLAN).write_bytes(b"plan")
    assert tensorrt.TensorRtEngine(tmp_path, "fp32").describe()["precision"] == "tf32"
    assert tensorrt.TensorRtEngine(tmp_path, "int8").describe()["precision"] == "int8+fp16"


def test_serving_on_a_gpu_takes_one_cuda_and_the_tensorrt_that_onnx_runtime_binds():
    setup = ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    wanted = setup["options.extras_require"]["gpu"].split()
    assert not [requirement for requirement in wanted if "and-cuda" in requirement or "cu12" in requirement]
    (trt,) = (requirement for requirement in wanted if requirement.startswith("tensorrt"))
    assert trt.startswith("tensorrt-cu13")
    assert trt.endswith("<11")


def test_tensorrt_is_filed_under_its_version_by_whichever_name_it_was_installed(monkeypatch):
    installed = {"tensorrt-cu13": "tensorrt-cu13 10.13.3"}
    monkeypatch.setattr(tensorrt, "_package", lambda: "tensorrt")
    monkeypatch.setattr(tensorrt, "runtime", lambda name: installed.get(name, name))
    assert tensorrt._runtime() == "tensorrt-cu13 10.13.3"


def test_an_engine_s_process_that_dies_in_a_benchmark_leaves_its_last_words(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'CUDA error: out of memory' >&2\nexit 134\n")
    program.chmod(0o755)
    monkeypatch.setattr(run.sys, "executable", str(program))
    with (
        run.WorkerProcess(tmp_path, "onnx-cuda") as worker,
        pytest.raises(EngineError, match="ended with status 134. Its last words: CUDA error: out of memory"),
    ):
        worker.ask("open")
