"""The benchmark itself: one process an engine, interleaved rounds in random order."""

import json
import platform
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path

import numpy as np

from keras_matting import machine
from keras_matting._version import __version__
from keras_matting.benchmarking import statistics
from keras_matting.benchmarking.comparison import MARGIN
from keras_matting.benchmarking.load import Load, sentence
from keras_matting.benchmarking.selection import Gate, select
from keras_matting.benchmarking.unseen import require_unseen
from keras_matting.benchmarking.worker import BASELINES, REFERENCE, baselines
from keras_matting.engines import ENGINES, device_name, unavailable_reason
from keras_matting.engines.child_log import ChildLog
from keras_matting.errors import EngineError, UsageError
from keras_matting.files import write_atomically
from keras_matting.model_folder import BENCHMARK_FILE, Preset
from keras_matting.photos import imaging

ROUNDS = 9
MAX_ROUNDS = 72
ROUND_S = 0.5
WARM_UP_TOLERANCE = 0.1
MAX_WARM_UPS = 5
_VERSIONS = ("tensorflow", "tensorflow_cpu", "keras", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")


def benchmark(
    model_dir,
    photos,
    *,
    names=None,
    batches=(1, 4),
    objective="latency",
    gate=Gate(),
    margin=MARGIN,
    rounds=ROUNDS,
    max_rounds=MAX_ROUNDS,
    time_baselines=True,
    log=None,
):
    """Measure the engines of a model folder on `photos`, {name: `Photo`}, and choose one; return `benchmark.json`.

    `names`: engines to measure, by default all that run here. The Keras model itself, eager, as a tf.function and on
    PyTorch where that is installed, is no candidate, but timed beside them, unless not `time_baselines`. Where it is
    not certain after `rounds` which is the best (`select`, with `margin`), the rivals are measured on, up to
    `max_rounds`. The result is written to the folder, and `engine="auto"` obeys it. Raises `EngineError` where none of
    `names` runs here, and `UsageError` where one of the engines was calibrated on one of the photos.
    """
    log = log or (lambda message: None)
    preset = Preset.load(model_dir)
    wanted = _wanted(names)
    skipped = {name: reason for name in wanted if (reason := unavailable_reason(name))}
    if len(skipped) == len(wanted):
        reasons = " ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise EngineError(f"Expected an engine that runs here; received {', '.join(wanted)}. {reasons}")
    inputs = {name: imaging.prepare(photo, preset) for name, photo in photos.items()}
    candidates = [name for name in wanted if name not in skipped]
    require_unseen(model_dir, candidates, inputs)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        np.save(folder / "inputs.npy", np.stack(list(inputs.values())))
        workers, errors, reference = {}, {}, None
        for name in (*(baselines() if time_baselines else (REFERENCE,)), *candidates):
            log(f"{name}: opening and comparing with Keras")
            worker = stack.enter_context(WorkerProcess(model_dir, name))
            try:
                worker.opened = worker.ask("open")
                worker.ask("outputs", inputs=str(folder / "inputs.npy"), to=str(folder / name))
            except EngineError as error:
                if name == REFERENCE:
                    raise
                skipped[name] = str(error)
                continue
            mattes = _mattes(folder / name, len(photos), preset)
            reference = mattes if name == REFERENCE else reference
            errors[name] = statistics.error(mattes, reference)
            workers[name] = worker
        if not time_baselines:
            del workers[REFERENCE]
        results, verdict, load = _measure(
            workers, errors, batches, rounds, max_rounds, lambda results: select(results, objective, gate, margin), log
        )
    verdict["reason"] = f"{verdict['reason']} {sentence(load)}".strip()
    report = {
        "model": preset.name,
        "fingerprint": {
            "device": device_name(),
            "weights_sha256": preset.weights_sha256,
            "input_size": list(preset.input_size),
        },
        "environment": environment(),
        "load": load,
        "photos": len(photos),
        "results": results,
        "skipped": skipped,
        "verdict": verdict,
    }
    write_atomically(Path(model_dir) / BENCHMARK_FILE, (json.dumps(report, indent=2) + "\n").encode())
    return report


class WorkerProcess:
    """The parent's end of a `worker`."""

    def __init__(self, model_dir, name):
        self.name, self.opened, self._log = name, {}, ChildLog()
        command = [sys.executable, "-m", "keras_matting.benchmarking.worker", str(model_dir), name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log.file, text=True
        )

    def ask(self, op, **arguments):
        """Send a request and return the answer; raises `EngineError` if the engine failed or the process died."""
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            raise EngineError(f"Engine {self.name}: its process ended with status {status}.{self._log.told()}")
        answer = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer

    def round(self, batch, seconds=ROUND_S, min_calls=2):
        """Return the latencies of one round, in milliseconds."""
        return self.ask("round", batch=batch, seconds=seconds, min_calls=min_calls)["calls_ms"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.communicate()  # closes its input, upon which it ends
        self._log.close()


def environment():
    """Return what figures depend on: processor, GPU, versions, commit, date."""
    installed = {dist.metadata["Name"]: dist.version for dist in distributions()}
    return {
        "cpu": machine.cpu(),
        "gpu": machine.gpu(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: installed[name] for name in _VERSIONS if name in installed} | {"keras-matting": __version__},
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _wanted(names):
    if names is None:
        return list(ENGINES)
    if unknown := [name for name in names if name not in ENGINES]:
        raise UsageError(f"Expected engines out of {', '.join(ENGINES)}; received {', '.join(unknown)}.")
    return names


def _mattes(folder, count, preset):
    """Return a worker's outputs as users get them: after the preset's output rule."""
    outputs = (np.load(folder / f"{index}.npy") for index in range(count))
    return np.stack([imaging.apply_output_rule(output, preset) for output in outputs])


def _measure(workers, errors, batches, rounds, max_rounds, judge, log):
    """Return (results, verdict, load) after `rounds`, or more where the verdict is open, in which its rivals take part.

    Each time the number of rounds is doubled: the fewer looks at what may be chance, the better.
    """
    calls, chance, load = {(name, batch): [] for name in workers for batch in batches}, random.Random(0), Load()
    for name, batch in calls:
        _warm_up(workers[name], batch)
    order, done = list(calls), 0
    load.lap(keep=False)
    while True:
        while done < min(rounds, max_rounds):
            done += 1
            taking_part = "" if order == list(calls) else f": {', '.join(name for name, _ in order)}"
            log(f"round {done} of {min(rounds, max_rounds)}{taking_part}")
            _round(workers, calls, chance.sample(order, len(order)))
            load.lap()
        results = [_result(name, workers[name], errors[name], calls) for name in workers]
        verdict = judge([result for result in results if result["engine"] not in BASELINES])
        if verdict["certain"] or rounds >= max_rounds:
            return results, verdict, load.summary()
        rounds *= 2
        order = [
            (name, compared["batch"])
            for name, compared in verdict["comparisons"].items()
            if name in verdict["open"] or compared["state"] == "fastest"
        ]


def _round(workers, calls, order):
    """Visit the engines and batches of `order`; the others sit this round out."""
    for _key, rounds in calls.items():
        rounds.append(None)
    for name, batch in order:
        calls[name, batch][-1] = workers[name].round(batch)


def _warm_up(worker, batch):
    """Run until the median of two rounds agrees: compilers, caches and clocks have settled."""
    before = np.inf
    for _ in range(MAX_WARM_UPS):
        now = np.median(worker.round(batch, ROUND_S / 5, min_calls=1))
        if abs(now - before) <= WARM_UP_TOLERANCE * now:
            return
        before = now


def _result(name, worker, error, calls):
    return {
        "engine": name,
        "error": error,
        "speed": [
            statistics.speed(rounds, batch) for (engine, batch), rounds in sorted(calls.items()) if engine == name
        ],
        **worker.ask("memory"),
        **worker.opened,
    }


def _commit():
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
