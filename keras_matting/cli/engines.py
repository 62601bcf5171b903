"""The verbs about engines: `optimize`, `benchmark`, `engines`."""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from keras_matting.cli.shared import positive
from keras_matting.cli.status import OK, SOME_FAILED
from keras_matting.errors import UsageError

if TYPE_CHECKING:
    from keras_matting.benchmarking.selection import Gate
    from keras_matting.photos.files import Photo

MAX_PHOTOS = 32


def add_optimize_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `optimize`."""
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--engines", type=_names, metavar="A,B", help="build these (default: all)")
    parser.add_argument("--calibration", type=Path, help="folder of photos for int8 (default: samples)")
    parser.add_argument("--max-batch", type=positive, default=16, help="largest batch to serve on GPUs (default: 16)")
    parser.add_argument("--force", action="store_true", help="build again what is there and fits")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if any engine could not be built")


def optimize(arguments: argparse.Namespace) -> int:
    """Build engines and say why others cannot be built."""
    from keras_matting.engines.optimize import optimize

    outcomes = []
    for outcome in optimize(
        arguments.model_dir,
        arguments.engines,
        arguments.calibration,
        max_batch=arguments.max_batch,
        force=arguments.force,
    ):
        outcomes.append(outcome)
        took = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
        print(
            f"{outcome.engine:16} {outcome.status}{took}{f': {outcome.reason}' if outcome.reason else ''}", flush=True
        )
    failed = any(outcome.status == "failed" for outcome in outcomes)
    missing = any(outcome.status == "unavailable" for outcome in outcomes)
    return SOME_FAILED if failed or (arguments.strict and missing) else OK


def add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `benchmark`."""
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="model folder; with --data also names")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="[NAME=]SPEC",
        help="photos with truth (may be repeated): draw accuracy on them against latency, of several models and sizes, "
        "instead of choosing an engine",
    )
    parser.add_argument(
        "--sizes", type=_numbers, default=(), metavar="160,320", help="with --data: input sizes (default: the model's)"
    )
    parser.add_argument("--engines", type=_names, metavar="A,B", help="measure these (default: all that run here)")
    parser.add_argument(
        "--photos",
        type=Path,
        help=f"folder, of which {MAX_PHOTOS} are used (default: samples); none that int8 was calibrated on",
    )
    parser.add_argument("--batches", type=_numbers, default=(1, 4), metavar="1,4,16", help="batch sizes (default: 1,4)")
    parser.add_argument("--rounds", type=positive, default=9, help="rounds; in each, every engine runs (default: 9)")
    parser.add_argument(
        "--max-rounds",
        type=positive,
        default=72,
        help="rounds at most, where the best is not certain yet (default: 72)",
    )
    parser.add_argument("--no-baselines", action="store_true", help="do not time the Keras model itself")
    parser.add_argument("--objective", default="latency", choices=("latency", "throughput"))
    parser.add_argument("--max-mae", type=float, default=0.005, help="gate: mean error (default: 0.005)")
    parser.add_argument("--max-worst", type=float, default=0.02, help="gate: the worst photo's mean (default: 0.02)")
    parser.add_argument(
        "--max-share",
        type=float,
        help="gate: upper 95 %% bound of the share of photos above --max-worst, say 0.1 (default: told, not bounded)",
    )
    parser.add_argument(
        "--equivalence",
        type=_margin,
        default=0.05,
        metavar="SHARE",
        help="engines shown to differ by less in speed are equal: memory, load time, error decide (default: 0.05)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report here, too")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the table here")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw what was measured (PNG, SVG or PDF)")


def benchmark(arguments: argparse.Namespace) -> int:
    """Measure engines side by side: to choose one, or, with data, how accurate what takes how long is."""
    from keras_matting.benchmarking.report import require_plots
    from keras_matting.files import is_json_with, require_replaceable, require_writable

    for path in filter(None, (arguments.json, arguments.markdown, arguments.plot)):
        require_writable(path.parent)
    require_replaceable(arguments.json, is_json_with("model", "fingerprint", "sets"))
    require_replaceable(
        arguments.markdown, lambda data: b"\n| engine | batch |" in data or b"\n| model | size |" in data
    )
    require_replaceable(arguments.plot, lambda data: b"atplotlib" in data)
    if arguments.plot:
        require_plots(arguments.plot)
    return _tradeoff(arguments) if arguments.data else _choose(arguments)


def _choose(arguments: argparse.Namespace) -> int:
    """Store the verdict in the model folder."""
    from keras_matting.benchmarking import report as reports
    from keras_matting.benchmarking.run import benchmark

    if len(arguments.models) > 1 or arguments.sizes:
        raise UsageError("Expected --data SPEC with several models or --sizes: they are compared by accuracy, too.")
    report = benchmark(
        arguments.models[0],
        _gate_photos(arguments),
        names=arguments.engines,
        batches=arguments.batches,
        objective=arguments.objective,
        gate=_gate(arguments),
        margin=arguments.equivalence,
        rounds=arguments.rounds,
        max_rounds=arguments.max_rounds,
        time_baselines=not arguments.no_baselines,
    )
    _write(report, reports, arguments)
    return OK if report["verdict"]["engine"] else SOME_FAILED


def _tradeoff(arguments: argparse.Namespace) -> int:
    """Compare models, sizes and engines; the model folders stay as they are."""
    from keras_matting.benchmarking import tradeoff, tradeoff_report
    from keras_matting.data.sources import read_source
    from keras_matting.training.validation import named

    wanted = tradeoff.variants(arguments.models, arguments.sizes)
    report = tradeoff.measure(
        wanted,
        {name: read_source(spec) for name, spec in named(arguments.data)},
        _gate_photos(arguments),
        names=arguments.engines,
        gate=_gate(arguments),
        rounds=arguments.rounds,
    )
    _write(report, tradeoff_report, arguments)
    return OK if report["points"] else SOME_FAILED


def _gate(arguments: argparse.Namespace) -> "Gate":
    from keras_matting.benchmarking.selection import Gate

    return Gate(arguments.max_mae, arguments.max_worst, arguments.max_share)


def _gate_photos(arguments: argparse.Namespace) -> "dict[str, Photo]":
    from keras_matting.photos.samples import named_photos, sample_photos

    return named_photos(arguments.photos, MAX_PHOTOS) if arguments.photos else sample_photos()


def _write(report: Mapping[str, Any], reports: ModuleType, arguments: argparse.Namespace) -> None:
    """Print a report as its module draws it, and write the files that were asked for."""
    from keras_matting.files import write_atomically

    table = reports.markdown(report)
    print(table)
    if arguments.json:
        write_atomically(arguments.json, (json.dumps(report, indent=2) + "\n").encode())
    if arguments.markdown:
        write_atomically(arguments.markdown, table.encode())
    if arguments.plot:
        reports.plot(report, arguments.plot)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"expected names of engines as onnx-cpu,openvino-f32; received {text!r}")
    return names


def _margin(text: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = math.nan
    if not 0 < margin < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, as 0.05; received {text!r}")
    return margin


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected numbers as 1,4,16; received {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def add_engines_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `engines`."""
    parser.add_argument("--json", action="store_true")


def engines(arguments: argparse.Namespace) -> int:
    """List the engines, and why one cannot run here."""
    from keras_matting.engines import ENGINES, unavailable_reason

    reasons = {name: unavailable_reason(name) for name in ENGINES}
    if arguments.json:
        print(json.dumps(reasons, indent=2))
    else:
        for name, reason in reasons.items():
            print(f"{name:16} {reason or 'available'}")
    return OK
