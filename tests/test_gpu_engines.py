"""The engines for NVIDIA GPUs where there is none: what does not need one, and stand-ins for what does."""

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keras_matting import engines, machine, telemetry
from keras_matting.engines import onnx, onnx_tensorrt, tensorrt
from keras_matting.engines.onnx import OnnxEngine
from keras_matting.engines.optimize import optimize
from keras_matting.errors import EngineError

with telemetry.switched_off():
    import onnxruntime

InferenceSession = onnxruntime.InferenceSession


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


class FakeSession:
    """A session of ONNX Runtime on the CPU that says it is on another provider, and keeps what it was asked for."""

    def __init__(self, real, version, asked):
        self._real, self._version, self._asked = real, version, asked

    def __call__(self, path, options, providers):
        ((provider, provider_options),) = providers
        known = self._version >= (1, 15)
        if unknown := [name for name in provider_options if "profile" in name and not known]:
            raise RuntimeError(f"Invalid TensorRT EP option: {unknown[0]}")
        key = "session.disable_cpu_ep_fallback"
        self._asked.append((provider, provider_options, options.get_session_config_entry(key)))
        plain = onnxruntime.SessionOptions()
        plain.enable_profiling, plain.profile_file_prefix = options.enable_profiling, options.profile_file_prefix
        session = self._real(path, plain, providers=["CPUExecutionProvider"])
        if "trt_engine_cache_path" in provider_options:
            (Path(provider_options["trt_engine_cache_path"]) / "rewritten.profile").write_text(str(len(self._asked)))
        session.get_providers = lambda: [provider]
        return session


@pytest.fixture
def onnx_on_a_gpu(monkeypatch):
    """Return what starts ONNX Runtime, of some version, as if on a GPU, and returns what its sessions are asked for."""

    def start(version="1.31.1"):
        asked = []
        numbers = tuple(map(int, version.split(".")[:2]))
        monkeypatch.setattr(onnxruntime, "__version__", version)
        monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession(InferenceSession, numbers, asked))
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(onnx._PROVIDERS.values()))
        monkeypatch.setattr(onnx, "missing_gpu", lambda: None)
        return asked

    return start


@pytest.fixture
def folder(one_layer_dir, tmp_path):
    return Path(shutil.copytree(one_layer_dir, tmp_path / "model", ignore=shutil.ignore_patterns("engines")))


@pytest.mark.parametrize("version", ["1.14.1", "1.31.1"])
def test_onnx_tensorrt_is_built_for_one_photo_and_for_more_and_served_from_a_copy(
    folder, onnx_on_a_gpu, monkeypatch, version
):
    batch = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 3)).astype("float32")
    expected = OnnxEngine(folder / "model.onnx", "cpu").predict(batch)
    monkeypatch.setattr(OnnxEngine, "_require_whole_graph", lambda self, provider: None)
    asked = onnx_on_a_gpu(version)
    engines.build("onnx-tensorrt", folder, engines.BuildOptions(max_batch=32))
    asked.clear()
    engine = engines.open_engine("onnx-tensorrt", folder)
    for n in (1, 3):
        np.testing.assert_allclose(engine.predict(batch[:n]), expected[:n], rtol=0, atol=2e-3)
    profiles = [options.get("trt_profile_opt_shapes") for _, options, _ in asked]
    assert profiles == ([None, None] if version == "1.14.1" else ["image:1x64x64x3", "image:8x64x64x3"])
    assert all(value == "1" for _, _, value in asked)
    with pytest.raises(EngineError, match="built for batches up to 32"):
        engine.predict(np.zeros((33, 64, 64, 3), "f4"))
    engine.close()
    assert engines.check_current("onnx-tensorrt", folder) is None  # what was hashed is as it was


def test_onnx_tensorrt_that_builds_anew_when_it_is_opened_is_an_error(folder, onnx_on_a_gpu, monkeypatch):
    onnx_on_a_gpu()
    engines.build("onnx-tensorrt", folder, engines.BuildOptions())
    states = iter((1, 2))
    monkeypatch.setattr(onnx_tensorrt, "_engines", lambda folder: next(states))
    with pytest.raises(EngineError, match="did not take what was built; build it again"):
        engines.open_engine("onnx-tensorrt", folder)


def test_an_onnx_runtime_that_cannot_refuse_the_cpu_is_checked_by_its_profile(
    folder, onnx_on_a_gpu, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    onnx_on_a_gpu("1.14.1")
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
