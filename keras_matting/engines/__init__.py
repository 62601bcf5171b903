"""Engines: what runs a model folder's graph. Each name maps to a module and a variant; nothing is imported here.

What a module offers is `base.EngineModule`, and what it opens is an `Engine`.
"""

import logging
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_matting.engines.base import BuildOptions, Engine, engine_failed
from keras_matting.errors import EngineError, UsageError
from keras_matting.files import StrPath
from keras_matting.machine import cpu_name, gpu_name
from keras_matting.model_folder import BENCHMARK_FILE, Preset, Verdict

__all__ = [
    "ENGINES",
    "BuildOptions",
    "Choice",
    "Engine",
    "available",
    "build",
    "build_unavailable_reason",
    "choose_engine",
    "open_engine",
]

_LOGGER = logging.getLogger(__name__)


class Choice(NamedTuple):
    """An open engine, how it was chosen ("name", "benchmark" or "probe"), and why it, of those that "auto" chose."""

    engine: Engine
    chosen_by: str
    reason: str = ""


class Entry(NamedTuple):
    """Where an engine lives."""

    module: str
    variant: str


def _entries(prefix: str, module: str, variants: Iterable[str]) -> dict[str, Entry]:
    return {f"{prefix}{variant}": Entry(f"keras_matting.engines.{module}", variant) for variant in variants}


ENGINES = {
    "savedmodel": Entry("keras_matting.engines.tensorflow", "plain"),
    "savedmodel-xla": Entry("keras_matting.engines.tensorflow", "xla"),
    **_entries("onnx-", "onnx", ("cpu", "cuda")),
    **_entries("onnx-", "onnx_tensorrt", ("tensorrt",)),
    **_entries("openvino-", "openvino", ("f32", "bf16", "int8")),
    **_entries("tensorrt-", "tensorrt", ("fp32", "fp16", "int8")),
    **_entries("tftrt-", "tftrt", ("fp32", "fp16", "int8")),
}

# What "auto" times where nothing has been measured on this machine. All compute in float32: a lower precision has to
# pass the benchmark's gate first. TensorFlow takes seconds to load, so it comes last and only if nothing else runs.
PROBED = ("onnx-cuda", "openvino-f32", "onnx-cpu")
LAST_RESORT = "savedmodel"
_OF_KERAS = ("savedmodel", "tftrt")  # what the names begin with of engines whose graph is exported from Keras
_PROBE_CALLS = 2


def unavailable_reason(name: str) -> str | None:
    """Return why the engine `name` cannot run on this machine, or None if it can."""
    entry = _entry(name)
    return import_module(entry.module).unavailable_reason(entry.variant)


def unfit_reason(name: str, model_dir: StrPath) -> str | None:
    """Return why the engine `name` can have nothing of this model folder on any machine, or None."""
    _entry(name)
    if not name.startswith(_OF_KERAS) or Preset.load(model_dir).has_keras:
        return None
    return (
        f"it runs what is exported from Keras, and {model_dir} was made of an ONNX file; choose an onnx-, openvino- or "
        "tensorrt- engine."
    )


def build_unavailable_reason(name: str) -> str | None:
    """Return why the engine `name` cannot be built on this machine, or None if it can."""
    entry = _entry(name)
    module = import_module(entry.module)
    return getattr(module, "build_unavailable_reason", module.unavailable_reason)(entry.variant)


def build(name: str, model_dir: StrPath, options: BuildOptions) -> None:
    """Build the artefact of the engine `name` in the model folder; raises `EngineError` where that is impossible."""
    entry = _entry(name)
    if reason := unfit_reason(name, model_dir) or build_unavailable_reason(name):
        raise EngineError(f"Engine {name} cannot be built here: {reason}")
    import_module(entry.module).build(Path(model_dir), entry.variant, options)


def check_current(name: str, model_dir: StrPath) -> str | None:
    """Return why the engine `name` has to be built (again) in the model folder, or None if it is there and fits."""
    entry = _entry(name)
    try:
        import_module(entry.module).check_current(Path(model_dir), entry.variant)
    except EngineError as error:
        return str(error)
    return None


def open_engine(name: str, model_dir: StrPath) -> Engine:
    """Return the open `Engine` that `choose_engine` chooses."""
    return choose_engine(name, model_dir).engine


def choose_engine(name: str, model_dir: StrPath) -> Choice:
    """Open the engine `name` of the model folder; return the `Choice`.

    "auto" takes the verdict of the folder's benchmark if that was measured on this device and these weights; else it
    times what can run for a moment and logs so. Raises `EngineError` where a named engine cannot run or its artefact is
    missing: only "auto" chooses.
    """
    if name == "auto":
        return _choose_best(Path(model_dir))
    entry = _entry(name)
    if reason := unfit_reason(name, model_dir):
        raise EngineError(f"Engine {name} cannot run this model: {reason}")
    if reason := unavailable_reason(name):
        raise EngineError(f"Engine {name} cannot run here: {reason} Available: {', '.join(available())}.")
    return Choice(import_module(entry.module).open_engine(Path(model_dir), entry.variant), "name")


def available() -> list[str]:
    """Return the names of the engines that this machine can run."""
    return [name for name in ENGINES if unavailable_reason(name) is None] or ["none"]


def device_name() -> str:
    """Return what benchmarks are filed under: processor and GPU."""
    return f"{cpu_name()}; {gpu_name()}"


def _choose_best(model_dir: Path) -> Choice:
    verdict = Verdict.read(model_dir, device_name())
    stale = verdict.stale
    if verdict.engine:
        try:
            return Choice(open_engine(verdict.engine, model_dir), "benchmark", verdict.reason)
        except (EngineError, UsageError) as error:  # not here, or an engine that another version had
            stale = str(error)
    reasons = [f"The verdict of {model_dir / BENCHMARK_FILE} does not hold here: {stale}"] if stale else []
    for reason in reasons:
        _LOGGER.info(reason)
    engine, probed = _probe(model_dir)
    reasons.append(f"Chosen by a quick probe: {probed}. keras-matting benchmark {model_dir} chooses by measurement.")
    _LOGGER.info(reasons[-1])
    return Choice(engine, "probe", " ".join(reasons))


def _probe(model_dir: Path) -> tuple[Engine, str]:
    """Open what can run, time two calls of each, keep the fastest; return it and how fast each was."""
    timed: list[tuple[float, Engine]] = []
    reasons: list[str] = []
    for name in (*PROBED, LAST_RESORT):
        if timed and name == LAST_RESORT:
            break
        try:
            engine = open_engine(name, model_dir)
        except EngineError as error:
            reasons.append(f"{name}: {error}")
            continue
        try:
            timed.append((_best_of(engine), engine))
        except Exception as error:  # what opens need not run: a GPU's memory may be full
            reasons.append(f"{name}: {engine_failed(engine, error)}")
            _LOGGER.info(reasons[-1])
            engine.close()
    if not timed:
        raise EngineError("No engine can run this model here. " + " ".join(reasons))
    timed.sort(key=lambda pair: pair[0])
    for _, engine in timed[1:]:
        engine.close()
    return timed[0][1], ", ".join(f"{engine.name} {seconds * 1000:.0f} ms" for seconds, engine in timed)


def _best_of(engine: Engine) -> float:
    """Return the seconds of the faster of a few calls, after one that warms up."""
    batch = np.zeros((1, *engine.size, 3), np.float32)
    engine.predict(batch)
    seconds = []
    for _ in range(_PROBE_CALLS):
        start = time.perf_counter()
        engine.predict(batch)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _entry(name: str) -> Entry:
    if name not in ENGINES:
        raise UsageError(f"Expected an engine out of auto, {', '.join(ENGINES)}; received {name!r}.")
    return ENGINES[name]
