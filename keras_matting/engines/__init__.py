"""Engines: what runs a model folder's graph. Each name maps to a module and a variant; nothing is imported here.

A module has three functions: `unavailable_reason(variant)` -> why it cannot run on this machine, or None;
`build(model_dir, variant, options)` -> the artefact's path; `open_engine(model_dir, variant)` -> an `Engine`.
"""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from keras_matting.engines.base import Engine
from keras_matting.errors import EngineError, UsageError

__all__ = ["AUTO_ORDER", "ENGINES", "Engine", "open_engine", "unavailable_reason"]


class Entry(NamedTuple):
    """Where an engine lives."""

    module: str
    variant: str


ENGINES = {
    "openvino-f32": Entry("keras_matting.engines.openvino", "f32"),
    "onnx-cpu": Entry("keras_matting.engines.onnx", "cpu"),
    "savedmodel": Entry("keras_matting.engines.tensorflow", "savedmodel"),
}

# What "auto" tries where nothing has been measured on this machine, best guess first.
AUTO_ORDER = ("openvino-f32", "onnx-cpu", "savedmodel")


def unavailable_reason(name):
    """Return why the engine `name` cannot run on this machine, or None if it can."""
    entry = _entry(name)
    return import_module(entry.module).unavailable_reason(entry.variant)


def open_engine(name, model_dir):
    """Open the engine `name` of the model folder, or for "auto" the first that this machine can run.

    Raises `EngineError` where a named engine cannot run or its artefact is missing: only "auto" chooses another.
    """
    if name == "auto":
        return _open_first(Path(model_dir))
    entry = _entry(name)
    if reason := unavailable_reason(name):
        raise EngineError(f"Engine {name} cannot run here: {reason} Available: {', '.join(available())}.")
    return import_module(entry.module).open_engine(Path(model_dir), entry.variant)


def available():
    """Return the names of the engines that this machine can run."""
    return [name for name in ENGINES if unavailable_reason(name) is None] or ["none"]


def _open_first(model_dir):
    reasons = []
    for name in AUTO_ORDER:
        reason = unavailable_reason(name)
        if reason is None:
            try:
                return open_engine(name, model_dir)
            except EngineError as error:
                reason = str(error)
        reasons.append(f"{name}: {reason}")
    raise EngineError("No engine can run this model here. " + " ".join(reasons))


def _entry(name):
    if name not in ENGINES:
        raise UsageError(f"Expected an engine out of auto, {', '.join(ENGINES)}; received {name!r}.")
    return ENGINES[name]
