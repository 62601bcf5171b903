"""The verb `demo`: the whole way from nothing to cut-outs, on sample photos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_matting.cli.shared import aligned
from keras_matting.cli.status import OK, SOME_FAILED, say

if TYPE_CHECKING:
    from keras_matting.predict import Result

QUICK_ROUNDS, MAX_ROUNDS = 6, 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `demo`."""
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for photos and cut-outs (default: demo)")
    parser.add_argument("--engine", default="auto", help="engine, or auto (default); see: keras-matting engines")
    parser.add_argument("--no-benchmark", action="store_true", help="do not build and compare engines")


def demo(arguments: argparse.Namespace) -> int:
    """Export the default model, build and compare its engines, each where that is not done yet; matte."""
    from keras_matting import predict
    from keras_matting.matting import Session
    from keras_matting.shipped import DEFAULT_MODEL
    from keras_matting.weights.fetch import ready_model_dir

    photos, model_dir = _write_samples(arguments.out / "photos"), ready_model_dir(DEFAULT_MODEL)
    table = None if arguments.no_benchmark else _benchmark_table(model_dir)
    with Session(model_dir, arguments.engine) as session:
        results = list(predict.run(session, predict.plan(photos, arguments.out / "cutouts", ".png")))
    print(_table(results))
    print(f"\nengine {session.engine.name}; cut-outs in {(arguments.out / 'cutouts').resolve()}")
    if table:
        print(f"\n{table}")
    return OK if all(result.status == "done" for result in results) else SOME_FAILED


def _benchmark_table(model_dir: Path) -> str:
    """Return the table of the folder's benchmark, made now unless its verdict holds on this device."""
    from keras_matting.benchmarking import report as reports
    from keras_matting.benchmarking.run import benchmark
    from keras_matting.engines import device_name
    from keras_matting.engines.optimize import optimize
    from keras_matting.model_folder import Verdict
    from keras_matting.photos.samples import sample_photos

    verdict = Verdict.read(model_dir, device_name())
    if verdict.engine:
        return reports.markdown(verdict.report)
    for outcome in optimize(model_dir):
        if outcome.status == "failed":
            say(f"{outcome.engine}: {outcome.reason}")
    report = benchmark(
        model_dir,
        sample_photos(),
        batches=(1,),
        rounds=QUICK_ROUNDS,
        max_rounds=MAX_ROUNDS,
        time_baselines=False,  # Keras itself takes a minute to load three times, and can't be chosen
    )
    return reports.markdown(report)


def _write_samples(folder: Path) -> Path:
    from keras_matting.files import write_atomically
    from keras_matting.photos.files import encode
    from keras_matting.photos.samples import demo_photos

    for name, photo in demo_photos().items():
        path = (folder / name).with_suffix(".jpg")
        if not path.exists():  # from an earlier run, or somebody's own
            write_atomically(path, encode(photo.rgb, ".jpg"))
    return folder


def _table(results: Sequence[Result]) -> str:
    rows: list[tuple[str, ...]] = [("photo", "size", "decode ms", "infer ms", "encode ms", "cut-out")]
    for result in results:
        size = f"{result.width}x{result.height}" if result.width else "-"
        times = ("-" if ms is None else f"{ms:.0f}" for ms in (result.decode_ms, result.infer_ms, result.encode_ms))
        rows.append((Path(result.input).name, size, *times, result.error or result.output or "-"))
    return aligned(rows)
