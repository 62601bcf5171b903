"""A clip to its cut-out: what may be read and written, and a run in which reading, inference and writing overlap."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from keras_matting.arrays import Float32
from keras_matting.errors import UsageError
from keras_matting.files import StrPath, printable, require_writable
from keras_matting.machine import usable_cores
from keras_matting.matting import Background, OutputOptions, Session, open_session, output_and_background
from keras_matting.overlap import in_order
from keras_matting.photos import colour_profiles, imaging
from keras_matting.photos.files import Photo
from keras_matting.photos.output import Finished
from keras_matting.photos.stretches import Stretch, Stretches
from keras_matting.shipped import DEFAULT_MODEL
from keras_matting.video.formats import Format, choose_format
from keras_matting.video.pipeline import ahead, inferred, prepared
from keras_matting.video.reading import Clip, Frame, require_av
from keras_matting.video.smoothing import SMOOTHINGS, one_frame_delay
from keras_matting.video.writing import why_not_ours, writing

_LOGGER = logging.getLogger(__name__)
_MAX_FINISHERS = 4  # each holds a frame
_STRETCH_GAP_S = 0.5


@dataclass(frozen=True)
class ClipJob:
    """A clip to read and what to make of it; `format` is None for a folder of PNGs."""

    source: Path
    target: Path
    options: OutputOptions
    smooth: str
    format: Format | None


@dataclass(frozen=True)
class VideoResult:
    """What became of a clip: how many frames were written, could not be decoded, or were patched up by the decoder.

    `is_cut_off`: the file ends before its time, or parts of it cannot be read. `to_look_at`: where mattes are
    unsure, in seconds from the start, the least sure first; frames at most half a second apart are one stretch.
    """

    output: Path
    frames: int
    damaged: int
    repaired: int
    is_cut_off: bool
    seconds: float
    to_look_at: tuple[Stretch, ...] = ()


def matte_video(
    source: StrPath,
    target: StrPath,
    model: StrPath = DEFAULT_MODEL,
    engine: str = "auto",
    output: str | None = None,
    background: Background | StrPath | None = None,
    refine: bool = False,
    foreground: bool = False,
    smooth: str = "ofd",
    overwrite: bool = False,
) -> VideoResult:
    """Cut the clothing out of a clip, or with another model its whole subject; return a `VideoResult`.

    `target` says by its suffix what is written: ".webm" VP9 and ".mov" ProRes 4444, both with straight alpha, ".mp4"
    H.264, or without a suffix a folder of PNGs. `output` is that of `matte`: "rgba", or what `background` implies,
    which is an RGB colour, an image, or the path of one. `smooth` is "ofd", which takes flicker of single frames out of
    the mattes, or "off". Sound, time stamps and colours are kept; frames come out upright.

    Raises `UsageError`, `ImageError` (no video, no frames) or `EngineError`, all `keras_matting.errors.MattingError`.
    """
    options = OutputOptions(*output_and_background(output, background), refine, foreground)
    job = plan(source, target, options, smooth, overwrite)
    with Clip(job.source) as clip, open_session(model, engine) as session:
        return run(session, clip, job)


def plan(
    source: StrPath,
    target: StrPath,
    options: OutputOptions = OutputOptions(),
    smooth: str = "ofd",
    overwrite: bool = False,
) -> ClipJob:
    """Return the `ClipJob`; raises `UsageError` where it cannot be, before anything is read.

    An output that is there is replaced only if `overwrite`, a folder only if it is an earlier output.
    """
    require_av()
    if smooth not in SMOOTHINGS:
        raise UsageError(f"Expected a smoothing out of {', '.join(SMOOTHINGS)}; received {smooth!r}.")
    if not os.fspath(source) or not os.fspath(target):
        raise UsageError("Expected a video and an output; received an empty name.")
    if options.framing is not None:
        raise UsageError("A clip keeps its frame; received options that crop or place a photo. Leave them out.")
    if os.fspath(target) == "-":
        raise UsageError("Expected a file or folder; received -, and clips do not go to standard output. Name one.")
    source, target = Path(source), Path(target)
    chosen = choose_format(target, options)
    if target.resolve() == source.resolve() or target.resolve() in source.resolve().parents:
        raise UsageError(f"Output {printable(target)} would overwrite the clip; choose another output.")
    if refusal := _why_not_replaced(target, chosen, overwrite):
        raise UsageError(refusal)
    return ClipJob(source, target, options, smooth, chosen)


def run(
    session: Session, clip: Clip, job: ClipJob, on_frame: Callable[[int], object] = lambda count: None
) -> VideoResult:
    """Matte the frames of an open clip as `job` says; `on_frame` is called with how many are written, after each.

    At most a few dozen frames are in memory, however long the clip is. Raises `UsageError` where the output cannot be
    written, `EngineError` where the engine fails; then, and when it is interrupted, there is no output.
    """
    require_writable(job.target.resolve().parent)
    _tell(clip, job)
    options = _fitted(job.options, clip.size)

    def finish(pair: tuple[Frame, Float32]) -> tuple[Frame, Finished]:
        return pair[0], session.finish(pair[0].photo, pair[1], options)

    start, count, stretches = time.perf_counter(), 0, Stretches(gap=_STRETCH_GAP_S)
    workers = min(_MAX_FINISHERS, max(2, usable_cores()))
    with (
        closing(in_order(finish, ahead(_mattes(session, clip, job.smooth)), workers)) as images,
        writing(job.target, job.format, clip, options.kind == "rgba") as writer,
    ):
        for frame, (image, _, sure) in images:
            writer.write(image, frame.pts, frame.duration)
            stretches.add(float(frame.pts * clip.time_base), sure)
            count += 1
            on_frame(count)
    seconds = time.perf_counter() - start
    found = stretches.worst_first
    return VideoResult(job.target, count, clip.damaged, clip.repaired, clip.is_cut_off, seconds, found)


def _mattes(session: Session, clip: Clip, smooth: str) -> Generator[tuple[Frame, Float32], None, None]:
    """Yield each frame of a clip with its raw matte, smoothed; closes what it reads from."""
    with closing(ahead(prepared(session, clip.frames()))) as inputs:
        pairs: Iterator[tuple[Frame, Float32]] = inferred(session, inputs)
        yield from one_frame_delay(pairs) if smooth == "ofd" else pairs


def _fitted(options: OutputOptions, size: tuple[int, int]) -> OutputOptions:
    """Return the options with a background picture in sRGB and of a frame's (height, width): once, not for each."""
    background = options.background
    if options.kind != "on-image":
        return options
    photo = background if isinstance(background, Photo) else Photo(np.asarray(background, np.uint8))
    if photo.rgb.ndim != 3:  # a colour
        return options
    picture = imaging.cover(imaging.on_paper(photo), size)
    return replace(options, background=colour_profiles.convert(picture, photo.icc, None))


def _tell(clip: Clip, job: ClipJob) -> None:
    """Log what a viewer of the output will not find in it."""
    name = printable(clip.path)
    if clip.colours.hdr:
        _LOGGER.warning("%s is HDR (%s): it is converted to standard range, BT.709.", name, clip.colours.hdr)
    if clip.is_interlaced:
        _LOGGER.warning("%s is interlaced: its frames are taken as they are, combs included.", name)
    if job.format is None and clip.has_sound:
        _LOGGER.warning("A folder of PNGs has no sound: that of %s is left out.", name)
    if job.format is None and clip.pixel_aspect != Fraction(1):
        _LOGGER.warning("The pixels of %s are %s as wide as high: PNGs do not say so.", name, clip.pixel_aspect)


def _why_not_replaced(target: Path, chosen: Format | None, overwrite: bool) -> str | None:
    """Return why an output that is there must stay, or None."""
    name = printable(target)
    if not os.path.lexists(target) or (chosen is None and target.is_dir() and not any(target.iterdir())):
        return None
    if chosen is None and not target.is_dir():
        return f"Expected a folder for PNGs, or a name with a suffix; {name} is a file. Choose another output."
    if chosen is not None and target.is_dir():
        return f"Expected a file; {name} is a folder. Choose another output."
    if not overwrite:
        return f"{name} exists; add --overwrite, or choose another output."
    if chosen is None and (foreign := why_not_ours(target)):
        return f"--overwrite replaces a folder of frames as a whole; {name} {foreign}. Choose another folder."
    return None
