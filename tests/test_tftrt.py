import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keras_matting.engines import tftrt, tftrt_worker
from keras_matting.errors import EngineError

# What TensorFlow asks itself before it looks for a GPU. Status: a null pointer if all libraries opened.
LIBRARIES = """
import ctypes, os, sys
import tensorflow as tf
library = ctypes.CDLL(os.path.join(os.path.dirname(tf.__file__), "libtensorflow_cc.so.2"))
check, status = library._ZN3tsl8internal9DsoLoader22TryDlopenCUDALibrariesEv, (ctypes.c_uint64 * 2)()
check.restype = None
check(ctypes.byref(status))
sys.exit(status[0] != 0)
"""


@pytest.fixture
def environment():
    if tftrt.python() is None:
        pytest.skip("there is no TF-TRT environment; run make tftrt-env")
    return tftrt._environment()


def test_the_tftrt_environment_has_every_library_without_which_tensorflow_drops_all_gpus(environment):
    command = [str(tftrt.python()), "-c", LIBRARIES]
    done = subprocess.run(command, env=environment | {"TF_CPP_MIN_LOG_LEVEL": "0"}, capture_output=True, text=True)
    assert done.returncode == 0, [line for line in done.stderr.splitlines() if "Could not load" in line]


def test_the_tftrt_environment_is_not_this_python_s(environment, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise ImportError('of another Python')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    with tftrt.TfTrtProcess("tftrt-fp16") as worker:
        assert worker.ask("probe")["native_fallback"] is False


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Write a program that stands in for the TF-TRT environment's Python."""

    def write(script):
        program = tmp_path / "python"
        program.write_text(script)
        program.chmod(0o755)
        monkeypatch.setenv(tftrt.PYTHON_VARIABLE, str(program))

    return write


def test_a_worker_that_dies_leaves_its_last_words(python):
    python("#!/bin/sh\necho first >&2\necho 'libcudart.so.11.0: cannot open shared object file' >&2\nexit 3\n")
    with (
        tftrt.TfTrtProcess("tftrt-fp16") as worker,
        pytest.raises(EngineError, match=r"with status 3; check .* Its last words: first / libcudart.so.11.0: cannot"),
    ):
        worker.ask("probe")


def test_wherever_the_worker_runs_it_does_not_fall_back_reports_in_detail_and_leaves_gpu_memory_to_others():
    script = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(tftrt_worker.__file__).parent)!r})\n"
        "import tftrt_worker\n"
        "tftrt_worker.main(os.memfd_create('shared'))\n"  # whose standard input is at its end
        "names = ('TF_FORCE_GPU_ALLOW_GROWTH', 'TF_TRT_SHOW_DETAILED_REPORT',\n"
        "         'TF_TRT_ALLOW_ENGINE_NATIVE_SEGMENT_EXECUTION')\n"
        "print(*(os.environ[name] for name in names))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.stderr == "true 1 False\n"  # where the worker sends what is printed


@pytest.fixture(scope="module")
def served(one_layer_dir):
    """A worker, on this Python's TensorFlow, that has opened a SavedModel."""
    with pytest.MonkeyPatch.context() as environment:  # until it runs; other tests want their own
        environment.setenv(tftrt.PYTHON_VARIABLE, sys.executable)
        worker = tftrt.TfTrtProcess("tftrt-fp32")
    with worker:
        worker.ask("open", path=str(one_layer_dir / "saved_model"))
        yield worker


def test_batches_of_any_size_cross_the_shared_memory(served, one_layer_dir):
    from keras_matting.engines import open_engine

    batch = np.random.default_rng(0).uniform(-1, 1, (5, 64, 64, 3)).astype("float32")
    expected = open_engine("savedmodel", one_layer_dir).predict(batch)
    for n in (1, 5, 2):
        np.testing.assert_allclose(served.predict(batch[:n]), expected[:n], rtol=0, atol=1e-6)
    first = served.predict(batch[:1])
    served.predict(batch[1:2])
    np.testing.assert_allclose(first, expected[:1], rtol=0, atol=1e-6)  # a copy, not the memory itself


@pytest.mark.parametrize("resident", [False, True])
def test_times_are_taken_where_the_engine_is(served, resident):
    times = served.times(np.zeros((1, 64, 64, 3), "f4"), 3, resident)
    assert len(times) == 3
    assert all(milliseconds > 0 for milliseconds in times)


def test_a_request_that_fails_carries_what_tensorflow_said(served):
    with pytest.raises(EngineError, match="Engine tftrt-fp32: .*nowhere"):
        served.ask("open", path="nowhere")


def graph(*names, within=(), calibration=b"table"):
    """A converted graph with engines of these names, also within a function."""

    def engine(name):
        return SimpleNamespace(op="TRTEngineOp", name=name, attr={"calibration_data": SimpleNamespace(s=calibration)})

    functions = [SimpleNamespace(signature=SimpleNamespace(name="f"), node_def=[engine(name) for name in within])]
    nodes = [SimpleNamespace(op="Sigmoid", name="matte"), *map(engine, names)]
    return SimpleNamespace(node=nodes, library=SimpleNamespace(function=functions))


def test_an_engine_that_was_not_built_is_an_error(tmp_path):
    (tmp_path / "assets").mkdir()
    for name, content in (("one", b"plan"), ("two", b"plan"), ("three", b"")):
        (tmp_path / "assets" / f"trt-serialized-engine.{name}").write_bytes(content)
    tftrt_worker.require_engines(graph("scope/one", within=["two"]), tmp_path)
    for graph_def, missing in ((graph("one", within=["three"]), "three"), (graph("one", "scope/four"), "scope/four")):
        with pytest.raises(RuntimeError, match=f"built no engine for {missing}"):
            tftrt_worker.require_engines(graph_def, tmp_path)
    with pytest.raises(RuntimeError, match="nothing in this graph"):
        tftrt_worker.require_engines(graph(), tmp_path)


def test_a_calibration_that_failed_is_an_error():
    tftrt_worker.require_calibration(graph("one"))
    with pytest.raises(RuntimeError, match="could not calibrate one, two"):
        tftrt_worker.require_calibration(graph("one", within=["two"], calibration=b""))


def test_the_worker_needs_nothing_of_the_package():
    imported = [line for line in Path(tftrt_worker.__file__).read_text().splitlines() if "import" in line]
    assert not any("keras_matting" in line for line in imported)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    """Write a model in the form for TF-TRT, at the size that it is served at."""
    from keras_matting.export import save_saved_model, serving_function
    from keras_matting.models import build_model, inference_model
    from keras_matting.models.tftrt_form import tftrt_form

    def write(name, size, form=tftrt_form):
        import keras

        if name == "resnet50":
            model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
        else:
            model = inference_model(build_model(name, size))
        model, path = form(model), tmp_path_factory.mktemp("segments") / name
        save_saved_model(model, serving_function(model, (size, size)), path)
        return path

    return write


def segments(environment, path, precision):
    script = Path(__file__).with_name("tftrt_segments.py")
    command = [str(tftrt.python()), str(script), tftrt_worker.__file__, str(path), precision]
    environment = environment | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "size", "precision"),
    [("u2netp", 320, "fp16"), ("u2netp", 320, "int8"), ("modnet", 512, "fp16"), ("resnet50", 224, "fp32")],
)
def test_tensorrt_takes_the_whole_graph_as_one_engine(environment, saved_model, name, size, precision):
    coverage = segments(environment, saved_model(name, size), precision)
    assert coverage["engines"] == 1
    assert coverage["left"] == {}


@pytest.mark.long
def test_a_graph_that_is_not_rewritten_falls_to_pieces(environment, saved_model):
    assert segments(environment, saved_model("u2netp", 64, lambda model: model), "fp16")["engines"] > 20
