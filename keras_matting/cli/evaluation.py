"""The verb `evaluate`: a model's mattes against the truth."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from keras_matting.cli.shared import positive
from keras_matting.cli.status import OK, SOME_FAILED, say, show
from keras_matting.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `evaluate`."""
    parser.add_argument("model_dir", help="model folder or name")
    parser.add_argument(
        "--data", required=True, action="append", metavar="SPEC", help="DIR with image/ and mask/, or KIND:PATH"
    )
    parser.add_argument("--engine", default="auto", help="engine, auto (default), or keras: the model itself")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N samples only")
    parser.add_argument("--band-px", type=positive, default=10, metavar="PX", help="reach of the band (default: 10)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write summary and fingerprint")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write one line an image")
    parser.add_argument("--sheet", metavar="PNG", type=Path, help="draw the worst images")
    parser.add_argument("--worst", type=positive, default=8, metavar="N", help="images on the sheet (default: 8)")


def evaluate(arguments: argparse.Namespace) -> int:
    """Compare mattes with the truth and print the table."""
    from tqdm import tqdm

    from keras_matting import evaluate as evaluation
    from keras_matting.data.sources import read_source
    from keras_matting.files import is_json_with, printable, require_replaceable, require_writable
    from keras_matting.photos.marks import is_marked

    if len(arguments.data) > 1:
        raise UsageError(f"Expected one --data, to be judged by itself; received {len(arguments.data)}.")
    if arguments.sheet and arguments.sheet.suffix.lower() != ".png":
        raise UsageError(f"Expected a sheet as .png; received {arguments.sheet}.")
    for path in filter(None, (arguments.json, arguments.csv, arguments.sheet)):
        require_writable(path.parent)
    require_replaceable(arguments.json, is_json_with("summary"))
    require_replaceable(arguments.csv, lambda data: data.startswith(b"stem,"))
    require_replaceable(arguments.sheet, is_marked)
    source = read_source(arguments.data[0])
    source = replace(source, samples=source.samples[: arguments.limit])
    with tqdm(total=len(source.samples), unit="image", disable=not sys.stderr.isatty()) as bar:
        result = evaluation.evaluate(
            arguments.model_dir,
            source,
            arguments.engine,
            band_px=arguments.band_px,
            worst=arguments.worst if arguments.sheet else 0,
            on_image=bar.update,
        )
    for problem in result.problems:
        say(f"left out: {printable(problem.stem)}: {problem.kind}{f': {problem.detail}' if problem.detail else ''}")
    show(evaluation.markdown(result), end="")
    writers = {"json": evaluation.write_json, "csv": evaluation.write_csv, "sheet": evaluation.write_sheet}
    for option, write in writers.items():
        if path := getattr(arguments, option):
            write(result, path)
    return SOME_FAILED if result.problems else OK
