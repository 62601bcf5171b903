"""Accuracy against latency: each model at each size on each engine that passes the gate, and which of them to serve."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_matting.architectures import ARCHITECTURES
from keras_matting.benchmarking.run import benchmark, environment
from keras_matting.benchmarking.selection import Gate
from keras_matting.data.base import Source
from keras_matting.engines import ENGINES, device_name, unavailable_reason
from keras_matting.engines.optimize import optimize
from keras_matting.errors import UsageError
from keras_matting.evaluate import evaluate
from keras_matting.export import export
from keras_matting.files import StrPath
from keras_matting.model_folder import KERAS_FILE, Preset, find_model_dir
from keras_matting.models import checked_size
from keras_matting.photos.files import Photo
from keras_matting.shipped import shipped_dir

_LOGGER = logging.getLogger(__name__)

FIGURES = ("miou", "mae")


@dataclass(frozen=True)
class Variant:
    """A model at a size: the folder that it is copied from, and its preset at that size."""

    source: Path
    preset: Preset


def variants(models: Sequence[StrPath], sizes: Sequence[int]) -> list[Variant]:
    """Return the models, folders or names, at each of `sizes` (sides of a square), or each at its own size.

    Raises `UsageError` on a model that is not there, a name that two of them have, and a size that one cannot take.
    """
    folders = [_folder(model) for model in models]
    presets = [Preset.load(folder) for folder in folders]
    names = [preset.name for preset in presets]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"Expected models of different names; received {twice[0]} twice. Choose one of them.")
    return [
        Variant(folder, _at_size(preset, (size, size)) if size else preset)
        for folder, preset in zip(folders, presets, strict=True)
        for size in sizes or (0,)
    ]


def _folder(model: StrPath) -> Path:
    folder = find_model_dir(model) or shipped_dir(str(model))
    if folder is None:
        raise UsageError(f"Expected model folders (with preset.json) or names; received {model}. Fetch it first.")
    return folder


def _at_size(preset: Preset, size: tuple[int, int]) -> Preset:
    if size != preset.input_size and preset.architecture not in ARCHITECTURES:
        own = "x".join(map(str, preset.input_size))
        raise UsageError(f"Expected {preset.name} at {own}, for which it was built; received {size[0]}. Leave it out.")
    if preset.architecture in ARCHITECTURES:
        checked_size(preset.architecture, size)
    return replace(preset, input_size=size)


def measure(
    wanted: Sequence[Variant],
    sets: Mapping[str, Source],
    photos: Mapping[str, Photo],
    *,
    names: Sequence[str] | None = None,
    gate: Gate = Gate(),
    rounds: int,
) -> dict[str, Any]:
    """Export each variant, build and time its engines, and evaluate those that pass the gate; return the report.

    `sets`: data with truth, by name, on each of which every engine is judged. `photos`: what the gate compares with
    Keras on. `names`: engines, by default all that run here. Everything is built in a temporary folder: the models'
    own folders, and their verdicts, stay as they are. The report: "sets"; "points", {"model", "size", "engine",
    "p50_ms" and "ci95_ms" of one photo, "accuracy": {set: {"miou", "mae"}}, "frontier": the sets in which no other
    point is as quick and as accurate}; "left_out", {"model", "size", "engine", "why"}; and where it was measured.
    """
    engines = list(ENGINES) if names is None else list(names)
    if names is None:
        engines = [name for name in engines if not unavailable_reason(name)]
    points: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    taken: list[float] = []
    for variant in wanted:
        place = {"model": variant.preset.name, "size": list(variant.preset.input_size)}
        _LOGGER.info("%s at %d: exporting, building engines", place["model"], place["size"][0])
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / variant.preset.name
            failed = _build(variant, folder, engines)
            report = benchmark(
                folder,
                photos,
                names=engines,
                batches=(1,),
                gate=gate,
                rounds=rounds,
                max_rounds=rounds,
                time_baselines=False,
            )
            refused = {**report["skipped"], **report["verdict"]["refused"], **failed}
            left_out += [{**place, "engine": engine, "why": why} for engine, why in refused.items()]
            points += [{**place, **point} for point in _points(folder, report, refused, sets)]
            taken.append(report["load"]["cores_taken"] or 0.0)
    for point in points:
        point["frontier"] = [name for name in sets if not any(_beats(other, point, name) for other in points)]
    return {
        "sets": {name: len(source.samples) for name, source in sets.items()},
        "device": device_name(),
        "cores_taken": max(taken),
        "environment": environment(),
        "points": points,
        "left_out": left_out,
    }


def _build(variant: Variant, folder: Path, engines: Sequence[str]) -> dict[str, str]:
    """Write a variant's folder with graphs and engines; return why an engine could not be built."""
    folder.mkdir()
    variant.preset.save(folder)
    shutil.copyfile(variant.source / KERAS_FILE, folder / KERAS_FILE)
    export(folder)
    return {outcome.engine: outcome.reason for outcome in optimize(folder, engines) if outcome.status == "failed"}


def _points(
    folder: Path, report: Mapping[str, Any], refused: Mapping[str, str], sets: Mapping[str, Source]
) -> Iterator[dict[str, Any]]:
    """Yield latency and accuracy of each engine that was measured and not refused."""
    for result in report["results"]:
        engine = result["engine"]
        if engine in refused:
            continue
        accuracy = {}
        for name, source in sets.items():
            _LOGGER.info("%s on %s: evaluating %s", report["model"], name, engine)
            summary = evaluate(folder, source, engine).summary
            accuracy[name] = {figure: summary[figure] for figure in FIGURES}
        (speed,) = result["speed"]
        yield {"engine": engine, "p50_ms": speed["p50_ms"], "ci95_ms": speed["ci95_ms"], "accuracy": accuracy}


def _beats(other: Mapping[str, Any], point: Mapping[str, Any], name: str) -> bool:
    """Tell whether another point is as quick and as accurate in a set, and better in one of both."""
    speeds = other["p50_ms"], point["p50_ms"]
    scores = other["accuracy"][name]["miou"], point["accuracy"][name]["miou"]
    return speeds[0] <= speeds[1] and scores[0] >= scores[1] and (speeds[0] < speeds[1] or scores[0] > scores[1])
