"""`predict --raw WxH`: a stream of raw frames, each to a file of its own, or all to standard output."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from keras_matting.cli.shared import Tally, check_format, frames_to_look_at, progress
from keras_matting.cli.status import OK, SOME_FAILED, say
from keras_matting.errors import UsageError
from keras_matting.files import printable

if TYPE_CHECKING:
    from keras_matting.matting import OutputOptions
    from keras_matting.photos.stretches import Stretch

_STRETCH_GAP = 12  # frames; half a second of most clips


def frame_size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT, as video tools write it, to (width, height)."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, as 1280x720; received {text!r}")
    return int(width), int(height)


def predict_frames(arguments: argparse.Namespace, options: OutputOptions) -> int:
    """Matte the frames of standard input or of a file; return 1 if one fails or the stream ends within one."""
    from keras_matting import raw_frames
    from keras_matting.matting import open_session
    from keras_matting.photos.stretches import Stretches

    _check(arguments)
    to_stdout = arguments.output_path in (None, "-")
    pattern = "" if to_stdout else _pattern(arguments.output_path, arguments.format)
    extension = f".{arguments.format}" if to_stdout else Path(pattern).suffix.lower()
    check_format(options, extension)
    if not to_stdout and not arguments.overwrite:
        _require_new(pattern, 0)
    write = _to_stdout if to_stdout else _to_files(pattern, arguments.overwrite)
    tally, stretches = Tally(), Stretches(gap=_STRETCH_GAP)
    with ExitStack() as stack:
        stream = sys.stdin.buffer if arguments.input == "-" else stack.enter_context(_opened(arguments.input))
        session = stack.enter_context(open_session(arguments.model, arguments.engine))
        bar = stack.enter_context(progress(None, arguments.quiet))
        say(f"frames of {'x'.join(map(str, arguments.raw))}, model {session.preset.name}, engine {session.engine.name}")
        frames = raw_frames.read_frames(stream, *arguments.raw)
        for index, result in enumerate(raw_frames.run(session, frames, options, extension, write)):
            tally.add(result)
            if result.confidence is not None:
                stretches.add(index, result.confidence)
            if result.status == "failed":
                bar.write(f"failed: {result.input}: {result.error}", file=sys.stderr)
            bar.update()
    if not tally.statuses:
        raise UsageError("Expected frames; received an empty stream. Check the program before.")
    say(f"{tally} -> {'standard output' if to_stdout else printable(pattern)}")
    following = None if to_stdout else Path(raw_frames.target_of(pattern, tally.statuses.total()))
    if following and following.exists():
        say(f"frames of an earlier run are still there, from {printable(following)} on")
    for line in frames_to_look_at(stretches.worst_first, tally.statuses["done"], _place):
        say(line)
    return SOME_FAILED if tally.statuses["failed"] else OK


def _place(stretch: Stretch) -> str:
    return f"frame {stretch.first}" if stretch.frames == 1 else f"frames {stretch.first} to {stretch.last}"


def _check(arguments: argparse.Namespace) -> None:
    width, height = arguments.raw
    if arguments.report or arguments.resume:
        raise UsageError("--report and --resume are for photos in files; --raw reads a stream. Leave them out.")
    if width * height > arguments.max_megapixels * 1e6:
        raise UsageError(
            f"Expected frames of at most {arguments.max_megapixels:g} megapixels; received {width}x{height}. "
            "Raise --max-megapixels."
        )
    if (arguments.input == "-" and sys.stdin is None) or (arguments.output_path in (None, "-") and sys.stdout is None):
        raise UsageError("Expected open standard input and output; one of them is closed.")


def _pattern(output: str, extension: str) -> str:
    """Return the pattern of the frames' files: the one that is given, or numbers in the folder that is given."""
    from keras_matting import raw_frames

    pattern = output if "%" in output else str(Path(output) / f"%06d.{extension}")
    if "%" not in output and Path(output).suffix:
        pattern = output  # a file's name, which is refused
    raw_frames.target_of(pattern, 0)
    return pattern


def _opened(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise UsageError(f"Expected raw frames at {printable(path)}; received: {error.strerror}.") from None


def _to_stdout(_: int, data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _to_files(pattern: str, overwrite: bool) -> Callable[[int, bytes], None]:
    from keras_matting.files import write_atomically
    from keras_matting.raw_frames import target_of

    def write(index: int, data: bytes) -> None:
        if not overwrite:
            _require_new(pattern, index)
        write_atomically(target_of(pattern, index), data)

    return write


def _require_new(pattern: str, index: int) -> None:
    """Raise `UsageError` where a frame's file is there: what was made of another stream cannot be told from others'."""
    from keras_matting.raw_frames import target_of

    target = target_of(pattern, index)
    if Path(target).exists():
        raise UsageError(f"{printable(target)} exists. Add --overwrite, or choose another pattern.")
