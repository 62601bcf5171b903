"""The verb `video`: a clip to its cut-out."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from keras_matting.cli.predict import output_options
from keras_matting.cli.shared import add_model_arguments, frames_to_look_at
from keras_matting.cli.status import OK, SOME_FAILED, say
from keras_matting.errors import UsageError
from keras_matting.files import printable
from keras_matting.photos.framing import OPTIONS

if TYPE_CHECKING:
    from keras_matting.photos.stretches import Stretch
    from keras_matting.video.reading import Clip
    from keras_matting.video.run import VideoResult

LINE_EVERY_S = 30.0  # in a log file, where no terminal shows a bar
_NEARLY_ALL = 0.95  # of the frames that a file announces: some announce the length of the sound
_COLOUR = re.compile(r"[\d\s,]+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `video`."""
    parser.add_argument("input", metavar="CLIP", help="a video file")
    parser.add_argument(
        "output_path",
        metavar="OUTPUT",
        help=".webm (VP9) or .mov (ProRes 4444) with alpha, .mp4 (H.264) without, or a folder for PNGs",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--output",
        metavar="KIND",
        help="rgba (default), mask, matte16 (PNGs only), on-color R,G,B or on-image FILE",
    )
    parser.add_argument("--background", metavar="R,G,B|FILE", help="short for --output on-color or on-image")
    parser.add_argument("--smooth", default="ofd", choices=("off", "ofd"), help="against flicker of single frames")
    parser.add_argument("--foreground", action="store_true", help="estimate the subject's own colours (very slow)")
    parser.add_argument("--refine", action="store_true", help="solve the uncertain band anew (very slow)")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    # What `output_options` reads beside: of photos only.
    parser.set_defaults(refine_at=None, harden=False, crop=False, **dict.fromkeys(OPTIONS[1:]))


def video(arguments: argparse.Namespace) -> int:
    """Matte a clip."""
    from keras_matting.matting import open_session
    from keras_matting.video.reading import Clip
    from keras_matting.video.run import plan, run

    arguments.output = _output(arguments)
    options = output_options(arguments)
    job = plan(arguments.input, arguments.output_path, options, arguments.smooth, arguments.overwrite)
    with Clip(job.source) as clip, open_session(arguments.model, arguments.engine) as session:
        say(f"{_description(clip)}; model {session.preset.name}, engine {session.engine.name}")
        with ClipProgress(clip.count, quiet=arguments.quiet) as progress:
            result = run(session, clip, job, progress.update)
    say(_outcome(result, clip.count))
    for line in frames_to_look_at(result.to_look_at, result.frames, _place):
        say(line)
    return SOME_FAILED if result.damaged or result.is_cut_off else OK


def _output(arguments: argparse.Namespace) -> str:
    """Return what --output, or --background in its place, asks for."""
    if arguments.background is None:
        return arguments.output or "rgba"
    if arguments.output is not None:
        raise UsageError("--background is short for --output on-color or on-image: give one of the two.")
    kind = "on-color" if _COLOUR.fullmatch(arguments.background) else "on-image"
    return f"{kind}={arguments.background}"


def _description(clip: Clip) -> str:
    height, width = clip.size
    frames = f"about {clip.count} frames" if clip.count else "frames of unknown number"
    rate = f", {float(clip.rate):.4g} frames/s" if clip.rate else ""
    return f"{printable(clip.path)}: {width}x{height}, {frames}{rate}"


def _outcome(result: VideoResult, announced: int | None) -> str:
    """Return the last line: how many frames, what was wrong with the clip, how fast, and where it is."""
    told = [f"{result.frames} {'frame' if result.frames == 1 else 'frames'}"]
    if result.damaged:
        told.append(f"{result.damaged} damaged and left out")
    if result.repaired:
        told.append(f"{result.repaired} damaged and shown as the decoder repaired them")
    if result.is_cut_off:
        told.append("the clip is cut off or cannot be read to its end")
    if announced and result.frames + result.damaged < announced * _NEARLY_ALL:
        told.append(f"where the file announces about {announced}")
    rate = result.frames / max(result.seconds, 1e-9)
    return f"{', '.join(told)}; {result.seconds:.1f} s ({rate:.1f} frames/s) -> {printable(result.output)}"


def _place(stretch: Stretch) -> str:
    if stretch.frames == 1:
        return f"at {_clock(stretch.first)}"
    return f"{_clock(stretch.first)} to {_clock(stretch.last)}, {stretch.frames} frames"


def _clock(seconds: float) -> str:
    """Return a time as players show it, to a tenth of a second: 1:02:03.4."""
    tenths = round(seconds * 10)
    hours, minutes = tenths // 36_000, tenths // 600 % 60
    rest = f"{tenths % 600 / 10:04.1f}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


class ClipProgress:
    """Frames done, frames/s and the time left on standard error: a bar on a terminal, else a line every half minute.

    `total`: about how many frames there are, or None. `clock` returns seconds.
    """

    def __init__(
        self,
        total: int | None,
        quiet: bool = False,
        say_line: Callable[[str], object] = say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from tqdm import tqdm

        self._total, self._say, self._clock = total, say_line, clock
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._has_lines = not quiet and not is_terminal
        self._bar = tqdm(total=total, unit="frame", disable=quiet or not is_terminal)
        self._start = self._told = clock()

    def update(self, count: int) -> None:
        """Show that `count` frames are done."""
        self._bar.update(1)
        now = self._clock()
        if self._has_lines and now - self._told >= LINE_EVERY_S:
            self._told = now
            self._say(self._line(count, now - self._start))

    def _line(self, count: int, seconds: float) -> str:
        rate = count / seconds
        if not self._total:
            return f"frame {count}, {rate:.1f} frames/s"
        left = self._bar.format_interval(max(0, self._total - count) / rate)
        return f"frame {count} of about {self._total}, {rate:.1f} frames/s, {left} left"

    def __enter__(self) -> ClipProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
