"""Every phase of benchmarks/gpu.py on a CPU, with stand-ins for what only a GPU does."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import goldens
import numpy as np
import pytest
import stand_ins

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import gpu
from gpu_phases import engines, prepare, report, sweep, timing
from gpu_phases.records import Budget, Records

from keras_matting.engines.onnx import OnnxEngine
from keras_matting.model_folder import LOWERED_ONNX, Preset

BENCHMARKS = Path(gpu.__file__).parent


# One of TF-TRT's precisions: each costs a start of TensorFlow.
ENGINES = ("onnx-cuda", "onnx-tensorrt", *(f"tensorrt-{name}" for name in ("fp32", "fp16", "int8", "fp16-uint8")))
ENGINES += ("tftrt-fp16",)


@pytest.fixture
def folder(one_layer_dir, tmp_path):
    """A copy of a small model, to write into."""
    return Path(shutil.copytree(one_layer_dir, tmp_path / "model", ignore=shutil.ignore_patterns("engines")))


@pytest.fixture
def quick(monkeypatch):
    """Short rounds."""
    monkeypatch.setattr(sweep, "ROUND_MS", 0.01)
    monkeypatch.setattr(sweep, "FEWEST", 2)


@pytest.fixture
def torch():
    """PyTorch in one thread: several wait for each other on cores that others want, too."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


@pytest.fixture
def machine_with_a_gpu(monkeypatch, tmp_path):
    """What stands in for a GPU."""
    from keras_matting.engines import cuda

    trt = pytest.importorskip("tensorrt_rtx")
    fake = stand_ins.FakeCuda()
    monkeypatch.setattr(cuda, "_runtime", lambda: fake)
    monkeypatch.setattr(trt, "Runtime", stand_ins.tensorrt_runtime((64, 64)))
    stand_ins.put_tftrt(monkeypatch, tmp_path)
    stand_ins.put_onnx_on_a_gpu(monkeypatch)
    with stand_ins.a_gpu(monkeypatch):
        yield fake


def run(phase, folder, out, *words):
    """Run a phase for batches of 1 and 3 in two rounds, and return its exit status."""
    common = ["--out", str(out), "--batches", "1,3", "--rounds", "2", "--device", "cpu"]
    return gpu.main([phase, str(folder), *common, *words])


def check(rows):
    for row in rows:
        assert "error" not in row, row
        assert row["host_ms"]["median"] > 0
        assert row["device_ms"]["median"] > 0
        assert len(row["rounds"]["host_ms"]) == 2


@pytest.mark.long
def test_every_phase_runs_and_what_is_recorded_is_not_done_again(
    folder, tmp_path, machine_with_a_gpu, quick, monkeypatch, capsys
):
    monkeypatch.setattr(prepare, "PHOTOS", 2)
    monkeypatch.setattr(prepare, "CALIBRATION", 2)
    out = tmp_path / "results"
    words = (folder, out, "--engines", ",".join(ENGINES))
    for phase in ("prepare", "probe", "smoke", "build", "measure"):
        assert run(phase, *words) == 0, (phase, capsys.readouterr())
    assert all((folder / name).exists() for name in LOWERED_ONNX.values())
    built = Records(out).read("build")
    assert [row["names"][2] for row in built] == sorted(ENGINES)
    assert not any("error" in row for row in built), built
    measured = Records(out).read("measure")
    assert len(measured) == 2 * len(ENGINES)
    check(measured)
    assert all(row["card"]["name"] == "a stand-in" for row in measured)
    graphs = {(row["names"][2], row["names"][3]) for row in measured if "graph_ms" in row}
    assert graphs == {(name, 1) for name in ENGINES if name.startswith("tensorrt-")}
    by_events = {row["names"][2] for row in measured if row["clock"] == timing.EVENTS}
    assert by_events == {name for name in ENGINES if name.startswith("tensorrt-")} | {"onnx-cuda"}
    assert not machine_with_a_gpu.blocks  # all memory was freed

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run("build", *words) == run("measure", *words) == 0
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    capsys.readouterr()
    assert run("report", *words) == 0
    told = capsys.readouterr().out
    assert told.count("| tftrt-fp16 (py") == 2
    assert "| onnx-cuda (py" in told

    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")  # which the strict phases set, and the test's end takes back
    for phase in ("build", "measure"):
        assert run(phase, *words, "--strict") == 0, capsys.readouterr()
    strict = [row for row in Records(out).read("measure") if row["names"][0].endswith("-strict")]
    assert {(row["names"][2], row["precision"]) for row in strict} == {("onnx-cuda", "f32"), ("tensorrt-fp32", "f32")}
    assert len(strict) == 4
    check(strict)
    assert not machine_with_a_gpu.blocks


def test_pytorch_is_measured_in_every_precision_and_one_that_fails_leaves_the_others(
    tmp_path, quick, torch, monkeypatch, capsys
):
    import torch_u2net

    def no_compiler(module, **options):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", no_compiler)
    folder, arrays = tmp_path / "model", goldens.formula_state_dict("u2netp")
    folder.joinpath("gpu").mkdir(parents=True)
    Preset(name="m", architecture="u2netp", input_size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3).save(folder)
    images = goldens.image(0, 2, 32, 32)
    with torch.no_grad():
        outputs = torch_u2net.from_state_dict("u2netp", arrays)(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    np.savez(folder / "gpu" / "weights.npz", **arrays)
    np.savez(folder / "gpu" / "arrays.npz", images=images, outputs=outputs.numpy().transpose(0, 2, 3, 1))
    assert run("torch", folder, tmp_path / "results") == 0
    rows = Records(tmp_path / "results").read("torch")
    assert {(row["names"][2], row["precision"]) for row in rows} == {
        ("torch-strict", "f32"),
        ("torch-tf32", "tf32"),
        ("torch-half", "fp16"),
        ("torch-compile", "fp16"),
    }
    assert len(rows) == 8
    assert [row["error"] for row in rows if row["names"][2] == "torch-compile"] == ["RuntimeError: no compiler"] * 2
    rows = [row for row in rows if row["names"][2] != "torch-compile"]
    check(rows)
    for row in rows:
        bound = 1e-5 if row["precision"] in ("f32", "tf32") else 0.02
        assert row["error_from_float32"]["worst"] < bound, row
    assert run("torch", folder, tmp_path / "results", "--budget-s", "0") == 0  # nothing is left


@pytest.mark.parametrize("name", ["modnet", "u2netp"])
def test_the_pytorch_modules_take_the_weights_that_prepare_writes(name, tmp_path):
    pytest.importorskip("torch")
    from gpu_phases.torch_baselines import module_of

    from keras_matting.models import build_model
    from keras_matting.weights.pytorch import load_state_dict, state_dict

    arrays, model = goldens.formula_state_dict(name), build_model(name, 32)
    load_state_dict(model, arrays)
    (tmp_path / "gpu").mkdir()
    np.savez(tmp_path / "gpu" / "weights.npz", **state_dict(model))
    Preset(name="m", architecture=name, input_size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3).save(tmp_path)

    def canonical(tensor_name):  # MODNet's backbone has two names, of which the later entry wins
        return tensor_name.removeprefix("modnet.").replace("lr_branch.backbone.", "backbone.")

    expected = {canonical(tensor_name): array for tensor_name, array in arrays.items()}
    for tensor_name, tensor in module_of(tmp_path).state_dict().items():
        if not tensor_name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(tensor.numpy(), expected[canonical(tensor_name)], err_msg=tensor_name)


def test_resnet50_in_pytorch_is_that_of_keras(tmp_path, torch):
    import keras
    from gpu_phases.torch_baselines import module_of

    from keras_matting.weights.pytorch import state_dict

    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # whose fresh statistics would hide a wrong epsilon
            layer.moving_variance.assign(keras.random.uniform(layer.moving_variance.shape, 0.001, 1, seed=1))
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 10)
    (tmp_path / "gpu").mkdir()
    np.savez(tmp_path / "gpu" / "weights.npz", **state_dict(model))
    Preset(name="m", architecture=prepare.RESNET, input_size=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3).save(tmp_path)
    image = goldens.image(0, 2, 64, 64)
    expected = np.asarray(model(image, training=False))
    with torch.no_grad():
        outputs = module_of(tmp_path)(torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()
    assert np.abs(expected[0] - expected[1]).max() > 1e-6  # else any graph would do
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-7)


@pytest.mark.long
@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_keras_on_jax_is_measured_in_every_precision(tiny_model_dir, tmp_path):
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    engine = OnnxEngine(folder / "model.onnx", "cpu")
    images = goldens.image(0, 2, 64, 64)
    (folder / "gpu").mkdir()
    np.savez(folder / "gpu" / "arrays.npz", images=images, outputs=engine.predict(images))
    words = ["jax", str(folder), "--out", str(tmp_path / "out"), "--batches", "1", "--rounds", "1", "--device", "cpu"]
    script = (
        "import sys\n"
        "for name in ('tensorflow', 'onnx', 'cv2', 'tqdm', 'isal'):\n"  # which are not carried there
        "    sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import gpu\n"
        "from gpu_phases import sweep\n"
        "sweep.ROUND_MS = 0.01\n"
        f"sys.exit(gpu.main({words!r}))\n"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["names"][2]: row for row in Records(tmp_path / "out").read("jax")}
    assert {name: row["precision"] for name, row in rows.items()} == {
        "jax-strict": "f32",
        "jax-tf32": "tf32",
        "jax-half": "fp16",
    }
    for row in rows.values():
        assert "error" not in row, row
        assert row["device_ms"]["median"] > 0
        bound = 0.02 if row["precision"] == "fp16" else 1e-4
        assert row["error_from_float32"]["worst"] < bound, row
    assert rows["jax-half"]["error_from_float32"]["worst"] > 1e-6  # it was half precision


def test_a_phase_without_time_leaves_its_work_to_another_call(folder, tmp_path, capsys):
    (folder / "gpu").mkdir()
    np.savez(folder / "gpu" / "arrays.npz", images=np.zeros(1), outputs=np.zeros(1), calibration=np.zeros(1))
    for phase in ("build", "measure"):
        assert run(phase, folder, tmp_path / "results", "--budget-s", "0", "--engines", "onnx-cuda") == 1
        assert "left for another call: model onnx-cuda" in capsys.readouterr().err


class Failing:
    clock = "none"

    def host_ms(self, calls):
        raise RuntimeError("out of memory")


class Steady(Failing):
    def host_ms(self, calls):
        return [1.0] * calls

    def device_ms(self, calls):
        return [0.5] * calls

    def graph_ms(self, calls):
        return None


def test_an_engine_that_fails_leaves_the_others_their_figures(monkeypatch):
    monkeypatch.setattr(sweep, "state", dict)
    figures = sweep.sweep({"bad": Failing(), "good": Steady()}, 3, Budget(60))
    assert figures["bad"]["error"] == "RuntimeError: out of memory"
    assert figures["good"]["host_ms"] == {"median": 1.0, "p95": 1.0}
    assert figures["good"]["rounds"] == {"host_ms": [1.0] * 3, "device_ms": [0.5] * 3, "graph_ms": []}


def test_a_model_s_work_is_that_of_its_convolutions(one_layer_dir):
    work = prepare.work(one_layer_dir / "model.onnx")
    pixels, weights = 64 * 64, 3 * 3 * 3
    assert work["gflop"] == pytest.approx(2 * pixels * weights / 1e9, abs=1e-4)
    assert work["convolution_mb"] == pytest.approx(2 * (3 * pixels + weights + pixels) / 1e6, abs=1e-3)


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp16", 0.1), ("int8+fp16", 0.1), ("tf32", 0.2), ("f32", 1.0), (None, 0.1)]
)
def test_the_roofline_is_the_slower_of_arithmetic_and_traffic(precision, expected):
    ceilings = {"f32_tflops": 40, "tf32_tflops": 400, "fp16_tflops": 800, "device_gbs": 2000}
    assert report.bound_ms({"gflop": 40, "convolution_mb": 200}, precision, ceilings) == pytest.approx(expected)
    assert report.bound_ms({"gflop": 40, "convolution_mb": 200}, precision, {}) is None


def test_every_command_of_the_page_is_one_that_the_script_takes():
    page = (BENCHMARKS / "gpu.md").read_text()
    commands = re.findall(r"benchmarks/gpu\.py ([^`'|>;\n]+)", page)
    parsed = [gpu._parser().parse_intermixed_args(command.replace("MODELS", "a b").split()) for command in commands]
    assert {arguments.phase for arguments in parsed} == set(gpu.PHASES)
    assert any(arguments.strict and arguments.phase == "build" for arguments in parsed)
    (listed,) = re.findall(r"leave TF-TRT out \(`--engines ([\w,-]+)`", page)
    assert set(listed.split(",")) == {name for name in engines.GPU_ENGINES if not name.startswith("tftrt")}


def test_the_kit_s_python_finds_the_kit_s_libraries_and_no_others_python(tmp_path):
    """The Python is a shared library beside it; TensorRT and CUDA lie where pip puts them."""
    site = tmp_path / "python" / "lib" / "python3.10" / "site-packages"
    for name in ("tensorrt", "nvidia/cudnn/lib", "nvidia/stubs/lib"):
        (site / name).mkdir(parents=True)
    program = tmp_path / "python" / "bin" / "python3.10"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH"\necho "$KERAS_MATTING_TFTRT_PYTHON"\necho "$PYTHONPATH$*"\n')
    program.chmod(0o755)
    environment = os.environ | {"KIT": str(tmp_path), "PYTHONPATH": "elsewhere", "LD_LIBRARY_PATH": "/driver"}
    words = [str(BENCHMARKS / "kitpy"), "gpu.py", "probe"]
    libraries, python, rest = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    lib = tmp_path / "python" / "lib"
    own = [lib, site / "tensorrt", site / "nvidia" / "cudnn" / "lib", site / "nvidia" / "stubs" / "lib"]
    assert libraries.split(":") == [*map(str, own), "/driver"]
    assert (python, rest) == (str(program), "gpu.py probe")


def test_what_the_gpu_machine_runs_needs_neither_keras_nor_opencv():
    script = (
        "import json, sys\n"
        "for name in ('keras', 'tensorflow', 'cv2', 'torch', 'onnx', 'tqdm', 'isal', 'simplejpeg'):\n"
        "    sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import gpu\n"
        "from gpu_phases import build, engines, measure, probe, records, report, sweep, timing, variants\n"
        "print(json.dumps(engines.GPU_ENGINES))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 9
