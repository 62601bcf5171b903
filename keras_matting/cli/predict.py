"""The verb `predict`: photos to cut-outs."""

import argparse
import math
import sys
import time
from collections import Counter
from pathlib import Path

from keras_matting.cli.status import OK, SOME_FAILED, say
from keras_matting.errors import ImageError, UsageError


def add_arguments(parser):
    """Declare the options of `predict`."""
    parser.add_argument("input", metavar="INPUT", help="file, folder (its tree is kept), quoted glob, or - for stdin")
    parser.add_argument(
        "output_path",
        metavar="OUTPUT",
        nargs="?",
        help="folder, or file for one photo (default: cutouts/; stdout for -)",
    )
    parser.add_argument("--model", default="u2netp", help="folder or name (default: u2netp, fetched at first use)")
    parser.add_argument("--engine", default="auto", help="engine, or auto (default); see: keras-matting engines")
    parser.add_argument(
        "--output",
        default="rgba",
        metavar="KIND",
        help="rgba (default), mask, matte16, on-color R,G,B or on-image FILE",
    )
    parser.add_argument("--format", default="png", choices=("png", "webp", "jpg"), help="of files in a folder")
    parser.add_argument("--foreground", action="store_true", help="estimate the subject's own colours at soft edges")
    parser.add_argument("--refine", action="store_true", help="solve the uncertain band anew from the photo (slow)")
    parser.add_argument("--report", metavar="FILE", help="one JSON line per photo")
    parser.add_argument("--resume", action="store_true", help="skip photos whose output is there and whole")
    parser.add_argument("--max-megapixels", type=_megapixels, default=150, help="refuse larger photos (default: 150)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def predict(arguments):
    """Matte one photo, a folder, a glob or standard input."""
    from keras_matting import predict as photos
    from keras_matting.files import is_stream, require_writable
    from keras_matting.matting import open_session

    options = _output_options(arguments)
    if arguments.input == "-" or is_stream(arguments.input):
        return _predict_stdin(arguments, options)
    output = arguments.output_path or "cutouts"
    jobs = photos.plan(arguments.input, output, f".{arguments.format}")
    for job in jobs:
        _check_format(options, job.target.suffix.lower())
    _check_report(arguments.report, jobs)
    session = open_session(arguments.model, arguments.engine, say)
    require_writable(jobs[0].target.parent if len(jobs) == 1 else output)
    say(f"{_count(len(jobs), 'photo')}, model {session.preset.name}, engine {session.engine.name}")
    start, statuses = time.perf_counter(), Counter()
    with _Report(arguments.report) as report, _progress(len(jobs), arguments.quiet) as bar:
        results = photos.run(session, jobs, options, resume=arguments.resume, max_megapixels=arguments.max_megapixels)
        for result in results:
            report.add(result)
            statuses[result.status] += 1
            if result.status == "failed":
                bar.write(f"failed: {_printable(result.input)}: {result.error}", file=sys.stderr)
            bar.update()
    session.close()
    seconds = time.perf_counter() - start
    outcome = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    say(f"{outcome} in {seconds:.1f} s ({statuses['done'] / seconds:.1f} images/s) -> {output}")
    return SOME_FAILED if statuses["failed"] else OK


def _predict_stdin(arguments, options):
    from keras_matting import image_files
    from keras_matting.files import write_atomically
    from keras_matting.matting import open_session

    if arguments.report or arguments.resume:
        raise UsageError("--report and --resume are for files; standard input, or a pipe, is one photo.")
    to_stdout = arguments.output_path in (None, "-")
    if (arguments.input == "-" and sys.stdin is None) or (to_stdout and sys.stdout is None):
        raise UsageError("Expected open standard input and output; one of them is closed.")
    extension = f".{arguments.format}" if to_stdout else Path(arguments.output_path).suffix.lower()
    _check_format(options, extension)
    try:
        data = sys.stdin.buffer.read() if arguments.input == "-" else Path(arguments.input).read_bytes()
        photo = image_files.decode(data, arguments.max_megapixels)
    except ImageError as error:
        say(f"failed: {'standard input' if arguments.input == '-' else _printable(arguments.input)}: {error}")
        return SOME_FAILED
    session = open_session(arguments.model, arguments.engine, say)
    data = image_files.encode(session.matte(photo, options), extension, photo.icc)
    if to_stdout:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_atomically(arguments.output_path, data)
    return OK


def _check_report(report, jobs):
    """Refuse a report that would overwrite a photo or an output."""
    taken = {path.resolve() for job in jobs for path in (job.source, job.target)}
    if report and Path(report).resolve() in taken:
        raise UsageError(f"The report {report} would overwrite a photo or an output; choose another file.")


def _count(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _printable(text):
    return text if text.isprintable() else repr(text)


def _megapixels(text):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number; received {text!r}")
    return value


def _output_options(arguments):
    from keras_matting.imaging import on_paper
    from keras_matting.matting import OutputOptions, read_photo

    kind, _, value = arguments.output.partition("=")
    background = None
    if kind == "on-color":
        background = _color(value)
    elif kind == "on-image":
        background = on_paper(read_photo(value or "(no file given)"))
    return OutputOptions(kind, background, arguments.refine, arguments.foreground)


def _color(text):
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) <= 255 for part in parts):
        raise UsageError(f"Expected a colour as R,G,B with numbers from 0 to 255; received {text!r}.")
    return tuple(int(part) for part in parts)


def _check_format(options, extension):
    """Refuse a format that cannot hold the output before any photo is read."""
    import numpy as np

    from keras_matting.image_files import encode

    shape = {"rgba": (1, 1, 4), "mask": (1, 1), "matte16": (1, 1)}.get(options.kind, (1, 1, 3))
    encode(np.zeros(shape, np.uint16 if options.kind == "matte16" else np.uint8), extension)


class _Report:
    """A JSON Lines file that gets one line per photo; nothing if no path was given."""

    def __init__(self, path):
        self._path = path
        self._file = None

    def __enter__(self):
        if self._path:
            try:
                Path(self._path).parent.mkdir(parents=True, exist_ok=True)
                self._file = Path(self._path).open("w", encoding="utf-8")
            except OSError as error:
                raise UsageError(f"Expected to write the report {self._path}; received: {error.strerror}.") from None
        return self

    def add(self, result):
        if self._file:
            self._file.write(result.as_json() + "\n")
            self._file.flush()

    def __exit__(self, *_):
        if self._file:
            self._file.close()


def _progress(total, quiet):
    from tqdm import tqdm

    return tqdm(total=total, unit="image", disable=quiet or not sys.stderr.isatty())
