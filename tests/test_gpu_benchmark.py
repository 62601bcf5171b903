"""Every phase of benchmarks/gpu.py on a CPU, with stand-ins for what only a GPU does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import goldens
import numpy as np
import pytest
import stand_ins

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import gpu
from gpu_phases import prepare, report, sweep
from gpu_phases.records import Budget, Records

from keras_matting.model_folder import LOWERED_ONNX, Preset

BENCHMARKS = Path(gpu.__file__).parent


# One of TF-TRT's precisions: each costs a start of TensorFlow.
ENGINES = ("onnx-cuda", "onnx-tensorrt", "tensorrt-fp32", "tensorrt-fp16", "tensorrt-int8", "tftrt-fp16")


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
    assert graphs == {(f"tensorrt-{precision}", 1) for precision in ("fp32", "fp16", "int8")}
    assert not machine_with_a_gpu.blocks  # all memory was freed

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run("build", *words) == run("measure", *words) == 0
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    capsys.readouterr()
    assert run("report", *words) == 0
    assert capsys.readouterr().out.count("| tftrt-fp16 (py") == 2


def test_pytorch_is_measured_in_every_precision(tmp_path, quick, torch, monkeypatch):
    import torch_u2net

    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
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


def test_what_the_gpu_machine_runs_needs_neither_keras_nor_opencv():
    script = (
        "import json, sys\n"
        "for name in ('keras', 'tensorflow', 'cv2', 'torch', 'onnx', 'tqdm', 'isal', 'simplejpeg'):\n"
        "    sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import gpu\n"
        "from gpu_phases import build, measure, probe, records, report, sweep, timing\n"
        "print(json.dumps(probe.GPU_ENGINES))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 8
