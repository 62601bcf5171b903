"""The verbs about engines: `optimize`, `benchmark`, `engines`."""

import argparse
import json
import math
from pathlib import Path

from keras_matting.cli.shared import positive
from keras_matting.cli.status import OK, SOME_FAILED

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
    parser.add_argument("model_dir", type=Path)
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
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw images per second (PNG, SVG or PDF)")


def benchmark(arguments: argparse.Namespace) -> int:
    """Measure engines side by side and store the verdict in the model folder."""
    from keras_matting.benchmarking import report as reports
    from keras_matting.benchmarking.run import benchmark
    from keras_matting.benchmarking.selection import Gate
    from keras_matting.files import is_json_with, require_replaceable, require_writable, write_atomically
    from keras_matting.photos.samples import named_photos, sample_photos

    for path in filter(None, (arguments.json, arguments.markdown, arguments.plot)):
        require_writable(path.parent)
    require_replaceable(arguments.json, is_json_with("model", "fingerprint"))
    require_replaceable(arguments.markdown, lambda data: b"\n| engine | batch |" in data)
    require_replaceable(arguments.plot, lambda data: b"atplotlib" in data)
    if arguments.plot:
        reports.require_plots(arguments.plot)
    photos = named_photos(arguments.photos, MAX_PHOTOS) if arguments.photos else sample_photos()
    report = benchmark(
        arguments.model_dir,
        photos,
        names=arguments.engines,
        batches=arguments.batches,
        objective=arguments.objective,
        gate=Gate(arguments.max_mae, arguments.max_worst, arguments.max_share),
        margin=arguments.equivalence,
        rounds=arguments.rounds,
        max_rounds=arguments.max_rounds,
        time_baselines=not arguments.no_baselines,
    )
    table = reports.markdown(report)
    print(table)
    if arguments.json:
        write_atomically(arguments.json, (json.dumps(report, indent=2) + "\n").encode())
    if arguments.markdown:
        write_atomically(arguments.markdown, table.encode())
    if arguments.plot:
        reports.plot(report, arguments.plot)
    return OK if report["verdict"]["engine"] else SOME_FAILED


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
