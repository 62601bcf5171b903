import json
import shutil

import numpy as np
import pytest

from keras_matting.benchmarking import report as reports
from keras_matting.benchmarking import statistics
from keras_matting.benchmarking.run import WorkerProcess, benchmark
from keras_matting.benchmarking.selection import Gate, refusal, select
from keras_matting.benchmarking.worker import baselines
from keras_matting.config import read_verdict
from keras_matting.engines import device_name, open_engine
from keras_matting.errors import EngineError, UsageError
from keras_matting.image_files import Photo


def measured(engine, ms, *, half_width=0.5, mae=0.0, worst=0.0, finite=True, memory=100, load=1.0, batch4_ms=None):
    speeds = [(1, ms)] + ([(4, batch4_ms)] if batch4_ms else [])
    return {
        "engine": engine,
        "error": {"finite": finite, "mae": mae, "worst_photo_mae": worst, "max": worst},
        "speed": [
            {"batch": n, "p50_ms": t, "ci95_ms": [t - half_width, t + half_width], "images_per_s": n / t * 1000}
            for n, t in speeds
        ],
        "peak_memory_mb": memory,
        "load_s": load,
    }


def test_the_fastest_that_passes_the_gate_is_chosen():
    results = [
        measured("slow", 50),
        measured("fast", 20),
        measured("wrong", 5, mae=0.01),
        measured("nan", 1, finite=False),
    ]
    verdict = select(results, "latency")
    assert verdict["engine"] == "fast"
    assert verdict["refused"] == {
        "wrong": "mae 0.0100 is above 0.005",
        "nan": "its output has NaN or infinity",
    }


def test_one_bad_photo_is_enough_to_be_refused_and_the_gate_is_settable():
    error = measured("a", 1, mae=0.001, worst=0.03)["error"]
    assert "worst photo mae" in refusal(error, Gate())
    assert refusal(error, Gate(worst_photo_mae=0.05)) is None


@pytest.mark.parametrize(
    ("fast", "slower", "half_width", "winner"),
    [
        ({"mae": 1e-3}, {"mae": 0}, 3, "slower"),
        ({"mae": 4e-7, "memory": 5}, {"mae": 0, "memory": 9}, 3, "fast"),  # float32's rounding is no error
        ({"memory": 9}, {"memory": 5}, 3, "slower"),
        ({"load": 9}, {"load": 5}, 3, "slower"),
        ({"mae": 1e-3}, {"mae": 0}, 0.5, "fast"),
    ],
)
def test_overlapping_intervals_are_a_tie_that_error_then_memory_then_load_break(fast, slower, half_width, winner):
    results = [
        measured("fast", 20, half_width=half_width, **fast),
        measured("slower", 22, half_width=half_width, **slower),
    ]
    assert select(results, "latency")["engine"] == winner


def test_throughput_looks_at_the_best_batch():
    results = [measured("single", 10, batch4_ms=40), measured("batched", 12, batch4_ms=20)]
    assert select(results, "latency")["engine"] == "single"
    assert select(results, "throughput")["engine"] == "batched"
    with pytest.raises(UsageError, match="received 'beauty'"):
        select(results, "beauty")


def test_no_engine_is_chosen_where_none_passes():
    verdict = select([measured("a", 1, mae=1)], "latency")
    assert (verdict["engine"], verdict["reason"]) == (None, "No engine passed the gate.")


def test_speed_statistics_of_known_latencies():
    speed = statistics.speed([[10.0, 10.0], [20.0, 20.0], [30.0, 30.0]], batch=4)
    assert speed["p50_ms"] == 20
    assert speed["images_per_s"] == 200
    assert (speed["n"], speed["rounds"]) == (6, 3)
    assert speed["ci95_ms"] == [10, 30]
    assert speed["cv"] == pytest.approx(np.std([10, 20, 30]) / 20)
    assert statistics.speed([[5.0]] * 4, batch=1)["ci95_ms"] == [5, 5]


def test_error_statistics_of_known_outputs():
    reference = np.zeros((2, 8, 8, 1))
    outputs = reference.copy()
    outputs[1] = 0.5
    error = statistics.error(outputs, reference)
    assert (error["mae"], error["worst_photo_mae"], error["max"], error["band_mae"]) == (0.25, 0.5, 0.5, 0.0)
    outputs[0, 0, 0, 0] = np.nan
    error = statistics.error(outputs, reference)
    assert (error["finite"], error["mae"]) == (False, None)
    json.dumps(error, allow_nan=False)


@pytest.fixture(scope="module")
def measured_folder(one_layer_dir, tmp_path_factory):
    """A benchmark of two real engines and the baselines, in short; (folder, report)."""
    folder = tmp_path_factory.mktemp("benchmark") / "model"
    shutil.copytree(one_layer_dir, folder)
    photos = [Photo(np.random.default_rng(seed).integers(0, 255, (70, 50, 3), dtype=np.uint8)) for seed in range(2)]
    names = ["onnx-cpu", "openvino-f32", "onnx-cuda"]
    return folder, benchmark(folder, photos, names=names, batches=(1, 2), rounds=2)


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


def test_memory_is_the_engine_s_own(measured_folder):
    memory = {result["engine"]: result["peak_memory_mb"] for result in measured_folder[1]["results"]}
    assert memory["onnx-cpu"] < 0.7 * memory["keras-eager"]  # which loads TensorFlow, as this process has


def test_auto_obeys_a_benchmark(measured_folder):
    folder, report = measured_folder
    assert read_verdict(folder, device_name()) == (report["verdict"]["engine"], None)
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


def test_engines_none_of_which_runs_here_are_refused_before_anything_runs(one_layer_dir, monkeypatch):
    monkeypatch.setattr("keras_matting.benchmarking.run.unavailable_reason", lambda name: "not on this machine.")
    with pytest.raises(
        EngineError, match=r"received onnx-cpu, onnx-cuda. onnx-cpu: not on this machine. onnx-cuda: not"
    ):
        benchmark(one_layer_dir, [], names=["onnx-cpu", "onnx-cuda"])


def test_unknown_engines_are_refused_before_anything_runs(one_layer_dir):
    with pytest.raises(UsageError, match="received warp-drive"):
        benchmark(one_layer_dir, [], names=["onnx-cpu", "warp-drive"])
