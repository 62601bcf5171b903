"""The verb `predict`: photos to cut-outs."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from keras_matting.cli.frames import frame_size, predict_frames
from keras_matting.cli.shared import Tally, add_model_arguments, check_format, in_words, progress, to_look_at
from keras_matting.cli.status import OK, SOME_FAILED, say
from keras_matting.errors import ImageError, UsageError
from keras_matting.files import printable
from keras_matting.photos.framing import OPTIONS, SHADOWS

if TYPE_CHECKING:
    from keras_matting.matting import Background, OutputOptions, Session
    from keras_matting.photos.folders import Listing
    from keras_matting.photos.refine import Thresholds
    from keras_matting.predict import Result, Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `predict`."""
    parser.add_argument("input", metavar="INPUT", help="file, folder (its tree is kept), quoted glob, or - for stdin")
    parser.add_argument(
        "output_path",
        metavar="OUTPUT",
        nargs="?",
        help="folder, or file for one photo, or - for stdout (default: cutouts/; stdout for -)",
    )
    parser.add_argument("more", nargs="*", help=argparse.SUPPRESS)
    add_model_arguments(parser)
    parser.add_argument(
        "--output",
        default="rgba",
        metavar="KIND",
        help="rgba (default), mask, matte16, on-color R,G,B or on-image FILE",
    )
    parser.add_argument("--format", default="png", choices=("png", "webp", "jpg"), help="of files in a folder")
    parser.add_argument("--foreground", action="store_true", help="estimate the subject's own colours at soft edges")
    parser.add_argument("--refine", action="store_true", help="solve the uncertain band anew from the photo (slow)")
    parser.add_argument(
        "--refine-at",
        type=_thresholds,
        metavar="FG,BG,PX",
        help="with --refine: sure above and below these values (0 to 255), so many pixels inside (rembg: 240,10,10)",
    )
    parser.add_argument("--harden", action="store_true", help="a matte of 0 and 1, without specks")
    _add_framing(parser)
    parser.add_argument(
        "--raw",
        type=frame_size,
        metavar="WxH",
        help="INPUT is a stream of raw RGB frames of this size; OUTPUT a pattern, as out/%%04d.png, or - for stdout",
    )
    parser.add_argument("--report", metavar="FILE", help="one JSON line per photo")
    parser.add_argument(
        "--resume", action="store_true", help="skip photos whose output is there, whole and made so, or was retouched"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that keras-matting did not make, too")
    parser.add_argument("--max-megapixels", type=_megapixels, default=150, help="refuse larger photos (default: 150)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_framing(parser: argparse.ArgumentParser) -> None:
    framing = parser.add_argument_group("shop pictures")
    framing.add_argument("--crop", action="store_true", help="crop to the subject, specks left out")
    framing.add_argument(
        "--margin",
        metavar="LENGTHS",
        help="around the subject: 3%% of its box or 30px; two or four values in quotes, as in CSS",
    )
    framing.add_argument("--canvas", metavar="WxH", help="put the subject on a canvas of this size, as 1600x2000")
    framing.add_argument("--position", help="center (default on a canvas), top, bottom-left, ..., 'X%% Y%%', original")
    framing.add_argument("--scale", help="how much of the canvas the subject fills: 80%% (default: 100%%), or original")
    framing.add_argument("--shadow", choices=SHADOWS, default="off", help="a soft contact shadow (default: off)")


def predict(arguments: argparse.Namespace) -> int:
    """Matte one photo, a folder, a glob or standard input."""
    from keras_matting.files import is_stream, require_writable
    from keras_matting.matting import open_session

    _check_names(arguments)
    options = output_options(arguments)
    if arguments.raw:
        return predict_frames(arguments, options)
    if "-" in (arguments.input, arguments.output_path) or is_stream(arguments.input):
        return _predict_stream(arguments, options)
    output = arguments.output_path or "cutouts"
    tasks, listing = _plan(arguments, output, options)
    with open_session(arguments.model, arguments.engine) as session:
        require_writable(tasks[0].target.parent if len(tasks) == 1 else output)
        say(f"{_count(len(tasks), 'photo')}, model {session.preset.name}, engine {session.engine.name}")
        tally = _matte_all(session, tasks, options, listing, arguments)
    say(f"{tally} -> {printable(output)}")
    for line in to_look_at(tally, arguments.report):
        say(line)
    return SOME_FAILED if tally.statuses["failed"] or (listing and listing.unreadable) else OK


def _check_names(arguments: argparse.Namespace) -> None:
    from keras_matting.files import require_no_stream

    if arguments.more:
        named = _count(2 + len(arguments.more), "name")
        raise UsageError(f"Expected INPUT and OUTPUT; received {named}. Quote a glob, as '*.jpg', or name the folder.")
    if arguments.output_path == "":
        raise UsageError("Expected a file, a folder or - as OUTPUT; received an empty name.")
    if arguments.output_path is not None:
        require_no_stream(arguments.output_path)


def _plan(arguments: argparse.Namespace, output: str, options: OutputOptions) -> tuple[list[Task], Listing | None]:
    """Return (tasks, the `Listing` of a folder or glob or None); refuse what cannot be, before a model is opened."""
    from keras_matting import predict as photos

    listings: list[Listing] = []
    tasks = photos.plan(arguments.input, output, f".{arguments.format}", listings.append)
    for task in tasks:
        check_format(options, task.target.suffix.lower())
    if not arguments.overwrite and not arguments.resume:  # which keeps what is not its own, also where that is all
        photos.require_own_outputs(tasks)
    _check_report(arguments.report, tasks, arguments.overwrite)
    listing = listings[0] if listings else None
    for line in listing.told() if listing else ():
        say(line)
    return tasks, listing


def _matte_all(
    session: Session,
    tasks: Sequence[Task],
    options: OutputOptions,
    listing: Listing | None,
    arguments: argparse.Namespace,
) -> Tally:
    """Run the tasks, write the report, show a bar; return the `Tally`."""
    from keras_matting import predict as photos

    tally = Tally()
    with _Report(arguments.report) as report, progress(len(tasks), arguments.quiet) as bar:
        results = photos.run(
            session,
            tasks,
            options,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            max_megapixels=arguments.max_megapixels,
        )
        for result in results:
            report.add(result)
            tally.add(result)
            if result.status == "failed":
                bar.write(f"failed: {printable(result.input)}: {result.error}", file=sys.stderr)
            if result.status == "kept":
                bar.write(f"kept: {result.error}", file=sys.stderr)
            bar.update()
        for one in listing.left_out if listing else ():
            report.add(photos.Result(str(one.path), None, "left out", one.reason))
    return tally


def _predict_stream(arguments: argparse.Namespace, options: OutputOptions) -> int:
    """Matte one photo that is read from standard input, or whose output goes to standard output, or both."""
    from keras_matting.files import write_atomically
    from keras_matting.matting import open_session
    from keras_matting.photos import files as photo_files
    from keras_matting.photos import footprint, marks
    from keras_matting.photos.confidence import is_unsure
    from keras_matting.photos.output import encoded

    source, to_stdout = arguments.input, arguments.output_path in (None, "-")
    if arguments.report or arguments.resume:
        raise UsageError(
            "--report and --resume are for files; standard input, a pipe and standard output hold one photo."
        )
    if (source == "-" and sys.stdin is None) or (to_stdout and sys.stdout is None):
        raise UsageError("Expected open standard input and output; one of them is closed.")
    extension = f".{arguments.format}" if to_stdout else Path(arguments.output_path).suffix.lower()
    check_format(options, extension)
    data = _read_one(source)
    path = None if source == "-" else source
    refusal = None if to_stdout or arguments.overwrite else marks.why_not_own(arguments.output_path, path, data)
    if refusal:
        raise UsageError(f"{refusal}. Add --overwrite, or choose another output.")
    try:
        footprint.require_room(data, options, extension)
        photo = photo_files.decode(data, arguments.max_megapixels)
        with open_session(arguments.model, arguments.engine) as session:
            finished = session.cut_out(photo, options)
    except ImageError as error:
        say(f"failed: {'standard input' if source == '-' else printable(source)}: {error}")
        return SOME_FAILED
    mark = marks.made_by(session.preset, options) | marks.made_of(path, data)
    data = encoded(finished, photo, options, extension, mark)
    if to_stdout:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_atomically(arguments.output_path, data)
    if is_unsure(finished.confidence):
        say(f"look at it: {in_words(finished.confidence)}")
    return OK


def _read_one(source: str) -> bytes:
    """Return the bytes of standard input, or of one file; raises `UsageError` on a folder or a glob."""
    from keras_matting.photos.folders import is_glob
    from keras_matting.photos.given import read_file

    if source == "-":
        return sys.stdin.buffer.read()
    path = Path(source)
    if path.is_dir() or (is_glob(source) and not path.exists()):
        kind = "a folder" if path.is_dir() else "a glob"
        raise UsageError(f"Expected one photo for standard output; received {kind}, {source}. Name an output folder.")
    return read_file(path)


def _check_report(report: str | None, tasks: Sequence[Task], overwrite: bool) -> None:
    """Refuse a report that would overwrite a photo or an output, or a file that is no report."""
    from keras_matting.files import require_replaceable

    taken = {path.resolve() for task in tasks for path in (task.source, task.target)}
    if report == "-":
        raise UsageError("Expected a file for the report; received -. Name one: --report report.jsonl.")
    if report and Path(report).resolve() in taken:
        raise UsageError(f"The report {report} would overwrite a photo or an output; choose another file.")
    if report and not overwrite:
        require_replaceable(report, lambda data: data.startswith(b'{"input": '))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _megapixels(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number; received {text!r}")
    return value


def _thresholds(text: str) -> Thresholds:
    """Parse FOREGROUND,BACKGROUND,PIXELS, as rembg's -af, -ab and -ae."""
    from keras_matting.photos.refine import Thresholds

    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts) or max(map(int, parts[:2])) > 255:
        raise argparse.ArgumentTypeError(
            f"expected two numbers from 0 to 255 and pixels, as 240,10,10; received {text!r}"
        )
    try:
        return Thresholds(int(parts[0]) / 255, int(parts[1]) / 255, int(parts[2]))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def output_options(arguments: argparse.Namespace) -> OutputOptions:
    """Return the `OutputOptions` that a verb is asked for."""
    from keras_matting.matting import OutputOptions
    from keras_matting.photos.given import read_background

    kind, _, value = arguments.output.partition("=")
    background: Background | None = None
    if kind == "on-color":
        background = _color(value)
    elif kind == "on-image":
        background = read_background(value or "(no file given)")
    elif value:
        raise UsageError(f"Expected --output {kind} by itself; received {value!r} with it.")
    refine = arguments.refine_at if arguments.refine and arguments.refine_at else arguments.refine
    if arguments.refine_at and not arguments.refine:
        raise UsageError("--refine-at says where --refine is unsure of the matte; expected --refine, too.")
    framing = {name: getattr(arguments, name) for name in OPTIONS}
    return OutputOptions(kind, background, refine, arguments.foreground, arguments.harden, **framing)


def _color(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) <= 255 for part in parts):
        raise UsageError(f"Expected a colour as R,G,B with numbers from 0 to 255; received {text!r}.")
    red, green, blue = map(int, parts)
    return red, green, blue


class _Report:
    """A JSON Lines file that gets one line per photo; nothing if no path was given."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        if self._path:
            try:
                Path(self._path).parent.mkdir(parents=True, exist_ok=True)
                self._file = Path(self._path).open("w", encoding="utf-8")
            except OSError as error:
                raise UsageError(f"Expected to write the report {self._path}; received: {error.strerror}.") from None
        return self

    def add(self, result: Result) -> None:
        if self._file:
            self._file.write(result.as_json() + "\n")
            self._file.flush()

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
