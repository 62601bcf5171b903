import importlib.util
import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from keras_matting.benchmarking import report as reports
from keras_matting.benchmarking import statistics
from keras_matting.benchmarking.load import Load, sentence
from keras_matting.benchmarking.run import WorkerProcess, _measure, benchmark
from keras_matting.benchmarking.selection import select
from keras_matting.benchmarking.unseen import require_unseen
from keras_matting.benchmarking.worker import baselines
from keras_matting.engines import BuildOptions, artefacts, device_name, open_engine, unavailable_reason
from keras_matting.errors import EngineError, UsageError
from keras_matting.model_folder import Preset, Verdict
from keras_matting.photos import imaging
from keras_matting.photos.files import Photo


def test_speed_statistics_of_known_latencies():
    speed = statistics.speed([[10.0, 10.0], [20.0, 20.0], [30.0, 30.0]], batch=4)
    assert speed["p50_ms"] == 20
    assert speed["images_per_s"] == 200
    assert (speed["n"], speed["rounds"]) == (6, 3)
    assert speed["ci95_ms"] == [10, 30]
    assert speed["cv"] == pytest.approx(np.std([10, 20, 30]) / 20)
    assert speed["rounds_ms"] == [10, 20, 30]
    sat_out = statistics.speed([[5.0], None, [5.0], [5.0]], batch=1)
    assert (sat_out["ci95_ms"], sat_out["rounds"], sat_out["rounds_ms"]) == ([5, 5], 3, [5, None, 5, 5])


def test_error_statistics_of_known_outputs():
    reference = np.zeros((2, 8, 8, 1))
    outputs = reference.copy()
    outputs[1] = 0.5
    error = statistics.error(outputs, reference)
    assert (error["mae"], error["worst_photo_mae"], error["max"], error["band_mae"]) == (0.25, 0.5, 0.5, 0.0)
    assert error["photo_maes"] == [0.0, 0.5]
    outputs[0, 0, 0, 0] = np.nan
    error = statistics.error(outputs, reference)
    assert (error["finite"], error["mae"], error["photo_maes"]) == (False, None, [None, 0.5])
    json.dumps(error, allow_nan=False)


def noise_photos(count):
    """Return {name: photo} of noise."""
    sizes = {"size": (70, 50, 3), "dtype": np.uint8}
    return {f"{seed}.png": Photo(np.random.default_rng(seed).integers(0, 255, **sizes)) for seed in range(count)}


class MadeUpWorker:
    """An engine whose rounds take as long as `times` says, one after the other; it notes which it took part in."""

    def __init__(self, times, memory):
        self.times, self.memory, self.asked = iter(times), memory, 0
        self.opened = {"load_s": 1.0, "file_mb": 1.0, "precision": "f32", "coverage": "whole graph"}

    def round(self, batch, *_, **__):
        self.asked += 1
        return [next(self.times)]

    def ask(self, op):
        return {"peak_memory_mb": self.memory, "peak_gpu_memory_mb": None}


UNSTEADY = (8, 13, 9, 12, 10.3, 8.5, 11.5, 12, 10.4)  # about as fast as 10, but that is not certain


def made_up(later):
    """Return workers: "b" takes less memory than "a", and after nine unsteady rounds takes `later`, over and over."""
    times = {
        "a": itertools.repeat(10),
        "b": itertools.chain((10, 10), UNSTEADY, itertools.cycle(later)),  # two rounds warm up
        "slow": itertools.repeat(99),
    }
    return {name: MadeUpWorker(own, {"a": 300, "b": 100, "slow": 50}[name]) for name, own in times.items()}


def measured(workers, rounds, max_rounds):
    errors = {name: {"finite": True, "mae": 0, "worst_photo_mae": 0, "max": 0, "photo_maes": [0]} for name in workers}
    judge = lambda results: select(results, "latency")  # noqa: E731
    return _measure(workers, errors, (1,), rounds, max_rounds, judge)


def test_where_the_best_is_not_certain_its_rivals_are_measured_on_until_it_is():
    workers = made_up(later=[10.01])
    results, verdict, load = measured(workers, 9, 72)
    assert (verdict["engine"], verdict["certain"]) == ("b", True)
    assert workers["a"].asked == workers["b"].asked > 2 + 9
    assert workers["slow"].asked == 2 + 9  # it was decided after the planned rounds
    slow = results[-1]["speed"][0]
    assert (slow["rounds"], len(slow["rounds_ms"])) == (9, workers["a"].asked - 2)
    assert all(ms is None for ms in slow["rounds_ms"][9:])
    assert len(load["rounds"]) in (0, workers["a"].asked - 2)


def test_at_the_bound_on_rounds_the_best_is_taken_and_said_not_to_be_certain():
    workers = made_up(later=UNSTEADY)
    _, verdict, _ = measured(workers, 9, 20)
    assert (verdict["engine"], verdict["certain"], verdict["open"]) == ("a", False, ["b"])
    assert workers["a"].asked == workers["b"].asked == 2 + 20
    assert "Not certain: b takes" in verdict["reason"]


def test_what_others_take_of_the_processors_is_told_and_what_the_benchmark_takes_is_not():
    if Load()._before is None:
        pytest.skip("this system does not count processor time")
    own, child = Load(), "import time\nend = time.process_time() + .3\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", child], check=True)
    own.lap()
    spent = own._before["own"]
    assert spent >= 0.3  # children count as own
    quiet = {"busy": False, "cores_taken": 0.1, "cores": 2}
    assert sentence(quiet) == ""
    busy = sentence(quiet | {"busy": True, "cores_taken": 1.62})
    assert busy == "The machine was busy: 1.6 of 2 cores were used by others. Benchmark again when it is quiet."


@pytest.fixture(scope="module")
def measured_folder(one_layer_dir, tmp_path_factory):
    """A benchmark of two real engines and the baselines, in short; (folder, report)."""
    folder = tmp_path_factory.mktemp("benchmark") / "model"
    shutil.copytree(one_layer_dir, folder)
    names = ["onnx-cpu", "openvino-f32", "onnx-cuda"]
    return folder, benchmark(folder, noise_photos(2), names=names, batches=(1, 2), rounds=2, max_rounds=2)


def test_a_benchmark_measures_speed_error_and_cost_of_each_engine(measured_folder):
    _, report = measured_folder
    engines = {result["engine"] for result in report["results"]}
    assert engines == {*baselines(), "onnx-cpu", "openvino-f32"}
    for result in report["results"]:
        assert result["error"]["finite"]
        assert result["error"]["mae"] < 1e-4
        assert [speed["batch"] for speed in result["speed"]] == [1, 2]
        assert all(speed["n"] >= 4 for speed in result["speed"])
        assert min(result["load_s"], result["peak_memory_mb"], result["file_mb"]) > 0
        assert result["precision"] == "f32"
        assert "peak_gpu_memory_mb" in result
    assert list(report["skipped"]) == ["onnx-cuda"]
    assert report["environment"]["cpu"]["cores"] >= 1
    assert set(report["load"]) == {"load_average", "cores", "rounds", "cores_taken", "busy"}
    assert set(report["verdict"]["comparisons"]) == {"onnx-cpu", "openvino-f32"}
    assert not report["verdict"]["certain"] or report["verdict"]["engine"]


def test_memory_is_the_engine_s_own(measured_folder):
    memory = {result["engine"]: result["peak_memory_mb"] for result in measured_folder[1]["results"]}
    assert memory["onnx-cpu"] < 0.7 * memory["keras-eager"]  # which loads TensorFlow, as this process has


def test_auto_obeys_a_benchmark(measured_folder):
    folder, report = measured_folder
    verdict = Verdict.read(folder, device_name())
    assert (verdict.engine, verdict.stale, verdict.report) == (report["verdict"]["engine"], None, report)
    assert report["verdict"]["engine"] in ("onnx-cpu", "openvino-f32")  # never a baseline
    assert open_engine("auto", folder).name == report["verdict"]["engine"]


def test_a_report_is_a_table_and_a_picture(measured_folder, tmp_path):
    _, report = measured_folder
    table = reports.markdown(report)
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 1 + 2 * len(report["results"])
    assert f"**{report['verdict']['engine']}** (latency)" in table
    assert "- onnx-cuda not measured: " in table
    assert "| against the fastest |" in rows[0]
    assert sum("| 0 of 2: at most 77.6% |" in row for row in rows) == 4  # two engines, two batches
    reports.plot(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_gpu_memory_is_a_column_only_where_there_is_a_gpu(measured_folder):
    _, report = measured_folder
    report = json.loads(json.dumps(report))
    for result in report["results"]:
        result["peak_gpu_memory_mb"] = None
    assert "GPU MB" not in reports.markdown(report)
    report["results"][0]["peak_gpu_memory_mb"] = 4321
    rows = [line for line in reports.markdown(report).splitlines() if line.startswith("|")]
    assert rows[0].endswith("| GPU MB |")
    assert len({row.count("|") for row in rows}) == 1
    assert sum(row.endswith("| 4321 |") for row in rows) == 2  # one engine, two batches
    assert sum(row.endswith("| - |") for row in rows) == len(rows) - 4


def test_the_peak_of_gpu_memory_is_the_larger_sample_of_the_engine_s_own_process(one_layer_dir, tmp_path, monkeypatch):
    fake = tmp_path / "nvidia-smi"
    fake.write_text(
        """#!/bin/sh
case "$1" in
  --query-gpu*) echo "Fake GPU, 1.0, 9.0" ;;
  *) echo "1, 5000"; if [ -e "$0.called" ]; then echo "$PPID, 70"; else touch "$0.called"; echo "$PPID, 100"; fi ;;
esac
"""
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with WorkerProcess(one_layer_dir, "onnx-cpu") as worker:
        worker.ask("open")
        memory = worker.ask("memory")
    assert memory["peak_gpu_memory_mb"] == 100
    fake.write_text("#!/bin/sh\ncase $1 in --query-gpu*) echo 'Fake GPU, 1.0, 9.0' ;; *) echo '[N/A], [N/A]' ;; esac\n")
    with WorkerProcess(one_layer_dir, "onnx-cpu") as worker:
        worker.ask("open")
        assert worker.ask("memory")["peak_gpu_memory_mb"] is None


def test_an_engine_whose_process_dies_is_told(one_layer_dir):
    with WorkerProcess(one_layer_dir, "onnx-cpu") as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(EngineError, match="its process ended with status -9"):
            worker.ask("open")


def test_a_request_that_fails_in_whatever_way_is_told_and_the_next_is_answered(one_layer_dir):
    with WorkerProcess(one_layer_dir, "onnx-cpu") as worker:
        with pytest.raises(EngineError, match="AttributeError"):
            worker.round(1)  # of an engine that is not open
        assert worker.ask("open")["precision"] == "f32"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("model_dir", ["tiny_model_dir", "modnet_dir"])
def test_keras_on_pytorch_computes_what_keras_on_tensorflow_does(model_dir, request, tmp_path):
    model_dir, outputs = request.getfixturevalue(model_dir), {}
    np.save(tmp_path / "inputs.npy", np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype("float32"))
    for name in ("keras-eager", "keras-torch"):
        with WorkerProcess(model_dir, name) as worker:
            worker.ask("open")  # which compares the weights' digest
            worker.ask("outputs", inputs=str(tmp_path / "inputs.npy"), to=str(tmp_path / name))
        outputs[name] = np.load(tmp_path / name / "0.npy")
    np.testing.assert_allclose(outputs["keras-torch"], outputs["keras-eager"], rtol=0, atol=1e-4)


def test_engines_none_of_which_runs_here_are_refused_before_anything_runs(one_layer_dir, monkeypatch):
    monkeypatch.setattr("keras_matting.benchmarking.run.unavailable_reason", lambda name: "not on this machine.")
    with pytest.raises(
        EngineError, match=r"received onnx-cpu, onnx-cuda. onnx-cpu: not on this machine. onnx-cuda: not"
    ):
        benchmark(one_layer_dir, {}, names=["onnx-cpu", "onnx-cuda"])


def test_unknown_engines_are_refused_before_anything_runs(one_layer_dir):
    with pytest.raises(UsageError, match="received warp-drive"):
        benchmark(one_layer_dir, {}, names=["onnx-cpu", "warp-drive"])


def calibrated(folder, photos):
    """Write the manifest of an int8 engine that was calibrated on `photos`, {name: photo}."""
    preset = Preset.load(folder)
    inputs = tuple(imaging.prepare(photo, preset)[None] for photo in photos.values())
    with artefacts.building(folder, "openvino-int8", "r", "d", **BuildOptions(inputs).calibration_fields) as (path, _):
        (path / "model.xml").touch()


@pytest.mark.skipif(unavailable_reason("openvino-int8") is not None, reason="OpenVINO is not installed")
def test_photos_that_an_engine_was_calibrated_on_are_refused_before_anything_runs(one_layer_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(one_layer_dir, folder)
    photos = noise_photos(6)
    seen = {name: photos[name] for name in ("1.png", "2.png", "3.png", "4.png")}
    calibrated(folder, seen)
    message = r"received 1.png, 2.png, 3.png and 1 more, on which openvino-int8 was. Pass others \(--photos FOLDER\)"
    with pytest.raises(UsageError, match=message):
        benchmark(folder, photos, names=["onnx-cpu", "openvino-int8"])
    inputs = {name: imaging.prepare(photo, Preset.load(folder)) for name, photo in photos.items()}
    require_unseen(folder, ["onnx-cpu"], inputs)  # where it is not measured, it does not matter
    require_unseen(folder, ["openvino-int8"], {name: inputs[name] for name in inputs if name not in seen})


def test_an_engine_that_does_not_name_its_calibration_photos_is_to_be_built_again(one_layer_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(one_layer_dir, folder)
    with artefacts.building(folder, "openvino-int8", "r", "d", calibration_sha256="0") as (path, _):
        (path / "model.xml").touch()
    with pytest.raises(UsageError, match="Build it again: keras-matting optimize .* --engines openvino-int8"):
        require_unseen(folder, ["openvino-int8"], {})
