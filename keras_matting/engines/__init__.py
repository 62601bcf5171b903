"""Engines: what runs a model folder's graph. Each name maps to a module and a variant; nothing is imported here.

A module has three functions: `unavailable_reason(variant)` -> why it cannot run on this machine, or None;
`build(model_dir, variant, options)`, which leaves its artefact in the model folder; `open_engine(model_dir, variant)`
-> an `Engine`. A module that can build where it cannot run (or the other way round) also has
`build_unavailable_reason(variant)`.
"""

import time
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_matting.engines.base import BuildOptions, Engine
from keras_matting.errors import EngineError, UsageError
from keras_matting.machine import cpu_name, gpu_name
from keras_matting.model_folder import read_verdict

__all__ = ["ENGINES", "BuildOptions", "Engine", "available", "build", "build_unavailable_reason", "open_engine"]


class Entry(NamedTuple):
    """Where an engine lives."""

    module: str
    variant: str


def _entries(prefix, module, variants):
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
_PROBE_CALLS = 2


def unavailable_reason(name):
    """Return why the engine `name` cannot run on this machine, or None if it can."""
    entry = _entry(name)
    return import_module(entry.module).unavailable_reason(entry.variant)


def build_unavailable_reason(name):
    """Return why the engine `name` cannot be built on this machine, or None if it can."""
    entry = _entry(name)
    module = import_module(entry.module)
    return getattr(module, "build_unavailable_reason", module.unavailable_reason)(entry.variant)


def build(name, model_dir, options):
    """Build the artefact of the engine `name` in the model folder; raises `EngineError` where that is impossible."""
    entry = _entry(name)
    if reason := build_unavailable_reason(name):
        raise EngineError(f"Engine {name} cannot be built here: {reason}")
    import_module(entry.module).build(Path(model_dir), entry.variant, options)


def check_current(name, model_dir):
    """Return why the engine `name` has to be built (again) in the model folder, or None if it is there and fits."""
    entry = _entry(name)
    check = getattr(import_module(entry.module), "check_current", None)
    if check is None:
        return "nothing is kept for it"
    try:
        check(Path(model_dir), entry.variant)
    except EngineError as error:
        return str(error)
    return None


def open_engine(name, model_dir, log=lambda message: None):
    """Open the engine `name` of the model folder.

    "auto" takes the verdict of the folder's benchmark if that was measured on this device and these weights; else it
    times what can run for a moment and says so through `log`. Raises `EngineError` where a named engine cannot run or
    its artefact is missing: only "auto" chooses.
    """
    if name == "auto":
        return _open_best(Path(model_dir), log)
    entry = _entry(name)
    if reason := unavailable_reason(name):
        raise EngineError(f"Engine {name} cannot run here: {reason} Available: {', '.join(available())}.")
    return import_module(entry.module).open_engine(Path(model_dir), entry.variant)


def available():
    """Return the names of the engines that this machine can run."""
    return [name for name in ENGINES if unavailable_reason(name) is None] or ["none"]


def device_name():
    """Return what benchmarks are filed under: processor and GPU."""
    return f"{cpu_name()}; {gpu_name()}"


def _open_best(model_dir, log):
    verdict, stale = read_verdict(model_dir, device_name())
    if verdict:
        try:
            return open_engine(verdict, model_dir)
        except (EngineError, UsageError) as error:  # not here, or an engine that another version had
            stale = str(error)
    if stale:
        log(f"The verdict of {model_dir / 'benchmark.json'} does not hold here: {stale}")
    return _probe(model_dir, log)


def _probe(model_dir, log):
    """Open what can run, time two calls of each, keep the fastest."""
    timed, reasons = [], []
    for name in (*PROBED, LAST_RESORT):
        if timed and name == LAST_RESORT:
            break
        try:
            engine = open_engine(name, model_dir)
        except EngineError as error:
            reasons.append(f"{name}: {error}")
            continue
        timed.append((_best_of(engine), engine))
    if not timed:
        raise EngineError("No engine can run this model here. " + " ".join(reasons))
    timed.sort(key=lambda pair: pair[0])
    for _, engine in timed[1:]:
        engine.close()
    listed = ", ".join(f"{engine.name} {seconds * 1000:.0f} ms" for seconds, engine in timed)
    log(f"Chosen by a quick probe: {listed}. keras-matting benchmark {model_dir} chooses by measurement.")
    return timed[0][1]


def _best_of(engine):
    """Return the seconds of the faster of a few calls, after one that warms up."""
    batch = np.zeros((1, *engine.size, 3), np.float32)
    engine.predict(batch)
    seconds = []
    for _ in range(_PROBE_CALLS):
        start = time.perf_counter()
        engine.predict(batch)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _entry(name):
    if name not in ENGINES:
        raise UsageError(f"Expected an engine out of auto, {', '.join(ENGINES)}; received {name!r}.")
    return ENGINES[name]
