"""The benchmark itself: one process an engine, interleaved rounds in random order."""

from __future__ import annotations

import json
import logging
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from keras_matting import machine
from keras_matting._version import __version__
from keras_matting.arrays import Float32
from keras_matting.benchmarking import statistics
from keras_matting.benchmarking.comparison import MARGIN
from keras_matting.benchmarking.load import Load, sentence
from keras_matting.benchmarking.selection import Gate, select
from keras_matting.benchmarking.unseen import require_unseen
from keras_matting.benchmarking.worker import BASELINES, baselines, reference_of
from keras_matting.engines import ENGINES, device_name, unavailable_reason, unfit_reason
from keras_matting.engines.artefacts import fixed_batch
from keras_matting.engines.child_log import ChildLog
from keras_matting.errors import EngineError, UsageError
from keras_matting.files import StrPath
from keras_matting.model_folder import Preset, Verdict
from keras_matting.photos import imaging
from keras_matting.photos.files import Photo

_LOGGER = logging.getLogger(__name__)

# By engine and batch, the calls of each round in milliseconds, None where it sat out
_Calls: TypeAlias = dict[tuple[str, int], list[list[float] | None]]
ROUNDS = 9
MAX_ROUNDS = 72
ROUND_S = 0.5
WARM_UP_TOLERANCE = 0.1
MAX_WARM_UPS = 5
_VERSIONS = ("tensorflow", "tensorflow_cpu", "keras", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")


def benchmark(
    model_dir: StrPath,
    photos: Mapping[str, Photo],
    *,
    names: Sequence[str] | None = None,
    batches: Sequence[int] = (1, 4),
    objective: str = "latency",
    gate: Gate = Gate(),
    margin: float = MARGIN,
    rounds: int = ROUNDS,
    max_rounds: int = MAX_ROUNDS,
    time_baselines: bool = True,
) -> dict[str, Any]:
    """Measure the engines of a model folder on `photos`, {name: `Photo`}, and choose one; return `benchmark.json`.

    `names`: engines to measure, by default all that run here. The Keras model itself, eager, as a tf.function and on
    PyTorch where that is installed, is no candidate, but timed beside them, unless not `time_baselines`; the engines of
    a folder made of an ONNX file are compared with ONNX Runtime on that. A graph of one batch size is measured at that
    alone. Where it is not certain after `rounds` which is the best (`select`, with `margin`), the rivals are measured
    on, up to `max_rounds`. The result is written to the folder, and `engine="auto"` obeys it. Raises `EngineError`
    where none of `names` runs here, and `UsageError` where one of the engines was calibrated on one of the photos.
    """
    preset = Preset.load(model_dir)
    candidates, skipped = _candidates(model_dir, names)
    inputs = {name: imaging.prepare(photo, preset) for name, photo in photos.items()}
    require_unseen(model_dir, candidates, inputs)
    reference = reference_of(preset)
    timed = baselines() if time_baselines and preset.has_keras else ()
    if batch := fixed_batch(model_dir):
        batches = (batch,)
    with ExitStack() as stack:
        compared = dict.fromkeys((reference, *timed, *candidates))
        workers, errors, failed = _compared(stack, model_dir, preset, list(compared), np.stack(list(inputs.values())))
        if reference not in timed:
            del workers[reference]
        results, verdict, load = _measure(
            workers, errors, batches, rounds, max_rounds, lambda results: select(results, objective, gate, margin)
        )
    verdict["reason"] = f"{verdict['reason']} {sentence(load)}".strip()
    report = {
        "model": preset.name,
        "fingerprint": Verdict.fingerprint(preset, device_name()),
        "environment": environment(),
        "load": load,
        "photos": len(photos),
        "results": results,
        "skipped": skipped | failed,
        "verdict": verdict,
    }
    Verdict.write(model_dir, report)
    return report


class WorkerProcess:
    """The parent's end of a `worker`."""

    def __init__(self, model_dir: StrPath, name: str) -> None:
        self.name = name
        self.opened: dict[str, Any] = {}  # what it answers to "open"
        self._log = ChildLog()
        command = [sys.executable, "-m", "keras_matting.benchmarking.worker", str(model_dir), name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log.file, text=True
        )

    def ask(self, op: str, **arguments: object) -> dict[str, Any]:
        """Send a request and return the answer; raises `EngineError` if the engine failed or the process died."""
        assert self._process.stdin and self._process.stdout  # pipes, as asked for
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

    def round(self, batch: int, seconds: float = ROUND_S, min_calls: int = 2) -> list[float]:
        """Return the latencies of one round, in milliseconds."""
        return self.ask("round", batch=batch, seconds=seconds, min_calls=min_calls)["calls_ms"]

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, upon which it ends
        self._log.close()


def environment() -> dict[str, Any]:
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


def _candidates(model_dir: StrPath, names: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """Return the engines out of `names` that run here, and why the others do not."""
    if unknown := [name for name in names or () if name not in ENGINES]:
        raise UsageError(f"Expected engines out of {', '.join(ENGINES)}; received {', '.join(unknown)}.")
    wanted = ENGINES if names is None else names
    skipped = {name: reason for name in wanted if (reason := unfit_reason(name, model_dir) or unavailable_reason(name))}
    candidates = [name for name in wanted if name not in skipped]
    if not candidates:
        reasons = " ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise EngineError(f"Expected an engine that runs here; received {', '.join(wanted)}. {reasons}")
    return candidates, skipped


def _compared(
    stack: ExitStack, model_dir: StrPath, preset: Preset, names: Sequence[str], inputs: Float32
) -> tuple[dict[str, WorkerProcess], dict[str, dict[str, Any]], dict[str, str]]:
    """Return the open engines, how far their mattes are from those of the first of `names`, and why the others failed.

    `inputs`: float32 (N, height, width, 3). The processes end with `stack`. Raises `EngineError` if the first fails.
    """
    workers: dict[str, WorkerProcess] = {}
    errors: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    reference: Float32 | None = None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    np.save(folder / "inputs.npy", inputs)
    for name in names:
        _LOGGER.info("%s: opening and comparing with %s", name, names[0])
        worker = stack.enter_context(WorkerProcess(model_dir, name))
        try:
            worker.opened = worker.ask("open")
            worker.ask("outputs", inputs=str(folder / "inputs.npy"), to=str(folder / name))
        except EngineError as error:
            if reference is None:
                raise
            failed[name] = str(error)
            continue
        mattes = _mattes(folder / name, len(inputs), preset)
        reference = mattes if reference is None else reference
        errors[name] = statistics.error(mattes, reference)
        workers[name] = worker
    return workers, errors, failed


def _mattes(folder: Path, count: int, preset: Preset) -> Float32:
    """Return a worker's outputs as users get them: after the preset's output rule."""
    outputs = (np.load(folder / f"{index}.npy") for index in range(count))
    return np.stack([imaging.apply_output_rule(output, preset) for output in outputs])


def _measure(
    workers: Mapping[str, WorkerProcess],
    errors: Mapping[str, dict[str, Any]],
    batches: Sequence[int],
    rounds: int,
    max_rounds: int,
    judge: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Return (results, verdict, load) after `rounds`, or more where the verdict is open, in which its rivals take part.

    Each time the number of rounds is doubled: the fewer looks at what may be chance, the better.
    """
    calls: _Calls = {(name, batch): [] for name in workers for batch in batches}
    chance, load = random.Random(0), Load()
    for name, batch in calls:
        _warm_up(workers[name], batch)
    order, done = list(calls), 0
    load.lap(keep=False)
    while True:
        while done < min(rounds, max_rounds):
            done += 1
            taking_part = "" if order == list(calls) else f": {', '.join(name for name, _ in order)}"
            _LOGGER.info("round %d of %d%s", done, min(rounds, max_rounds), taking_part)
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


def _round(workers: Mapping[str, WorkerProcess], calls: _Calls, order: Sequence[tuple[str, int]]) -> None:
    """Visit the engines and batches of `order`; the others sit this round out."""
    for _key, rounds in calls.items():
        rounds.append(None)
    for name, batch in order:
        calls[name, batch][-1] = workers[name].round(batch)


def _warm_up(worker: WorkerProcess, batch: int) -> None:
    """Run until the median of two rounds agrees: compilers, caches and clocks have settled."""
    before = np.inf
    for _ in range(MAX_WARM_UPS):
        now = np.median(worker.round(batch, ROUND_S / 5, min_calls=1))
        if abs(now - before) <= WARM_UP_TOLERANCE * now:
            return
        before = now


def _result(name: str, worker: WorkerProcess, error: dict[str, Any], calls: _Calls) -> dict[str, Any]:
    return {
        "engine": name,
        "error": error,
        "speed": [
            statistics.speed(rounds, batch) for (engine, batch), rounds in sorted(calls.items()) if engine == name
        ],
        **worker.ask("memory"),
        **worker.opened,
    }


def _commit() -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
