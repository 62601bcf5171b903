"""Writing a clip: a video file by FFmpeg with the sound of its source, or a folder of PNGs; all of it, or nothing."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from keras_matting.arrays import Uint8, Uint8Or16
from keras_matting.errors import UsageError, first_line
from keras_matting.files import printable, replaced_file, replaced_folder
from keras_matting.photos.files import encode
from keras_matting.video.colours import LIMITED, scaler_flags
from keras_matting.video.formats import Format
from keras_matting.video.reading import Clip
from keras_matting.video.sound import Sound

if TYPE_CHECKING:
    import av

_LOGGER = logging.getLogger(__name__)
_USUAL_RATE = Fraction(30)  # for a clip that does not say how many frames/s it has
_TIMESTAMPS = "timestamps.txt"
_TIMESTAMPS_HEADER = "# timestamp format v2"  # as mkvmerge, x264 and FFmpeg's users know it
_PNG_NAME = re.compile(r"\d{6,}\.png")


class Writer(Protocol):
    """Where the frames of a clip go."""

    def write(self, image: Uint8Or16, pts: int, duration: int) -> None:
        """Add an image, (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, with its time stamps in the clip's time base."""

    def finish(self) -> None:
        """Write what is still on its way."""


@contextmanager
def writing(target: Path, chosen: Format | None, clip: Clip, has_alpha: bool) -> Iterator[Writer]:
    """Yield the `Writer` of an output that appears as a whole when the block ends well, or else not at all.

    `chosen`: None for a folder of PNGs. Raises `UsageError` where it cannot be written or FFmpeg refuses.
    """
    if chosen is None:
        with replaced_folder(target) as folder:
            folder_writer = PngWriter(folder, clip)
            yield folder_writer
            folder_writer.finish()
        return
    with replaced_file(target) as temporary, _told(chosen, target):
        file_writer = FileWriter(temporary, chosen, clip, has_alpha)
        try:
            yield file_writer
            file_writer.finish()
        finally:
            file_writer.close()


class PngWriter:
    """A folder of PNGs, numbered from 1, and when each is shown, in milliseconds a line."""

    def __init__(self, folder: Path, clip: Clip) -> None:
        self._folder, self._time_base = folder, clip.time_base
        self._lines = [_TIMESTAMPS_HEADER]

    def write(self, image: Uint8Or16, pts: int, duration: int) -> None:
        """See `Writer`."""
        (self._folder / f"{len(self._lines):06}.png").write_bytes(encode(image, ".png"))
        self._lines.append(f"{float(pts * self._time_base * 1000):.3f}")

    def finish(self) -> None:
        """See `Writer`."""
        (self._folder / _TIMESTAMPS).write_text("\n".join(self._lines) + "\n", encoding="utf-8")


def why_not_ours(folder: Path) -> str | None:
    """Return what in a folder is not of an earlier output, as the end of a sentence, or None."""
    stamps = folder / _TIMESTAMPS
    if not stamps.is_file():
        return f"has no {_TIMESTAMPS}"
    with stamps.open("rb") as file:
        if file.readline(len(_TIMESTAMPS_HEADER) + 2).strip() != _TIMESTAMPS_HEADER.encode():
            return f"has a {_TIMESTAMPS} that is not of an earlier output"
    for path in sorted(folder.iterdir()):
        if path != stamps and not (_PNG_NAME.fullmatch(path.name) and path.is_file()):
            return f"holds {printable(path.name)}, which is not of an earlier output"
    return None


class FileWriter:
    """A video file, with the sound of the clip."""

    def __init__(self, path: Path, chosen: Format, clip: Clip, has_alpha: bool) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._format, self._time_base = chosen, clip.time_base
        self._pixels = chosen.alpha if has_alpha and chosen.alpha else chosen.opaque
        written = clip.colours.written
        self._colours = replace(written, range=LIMITED) if chosen.is_limited else written
        options = dict(chosen.muxer_options)
        self._container = av.open(f"file:{path}", "w", format=chosen.muxer, container_options=options)
        self._scaler = VideoReformatter()
        self._sound: Sound | None = None
        try:
            self._track = self._add_track(clip, has_alpha)
            self._sound = Sound(clip.path, self._container, chosen.sound, clip.start_s)
        except BaseException:
            self.close()
            raise
        for name in self._sound.encoded:
            _LOGGER.warning("%s cannot hold the clip's sound (%s): it is encoded anew.", chosen.name, name)
        for name in self._sound.left_out:
            _LOGGER.warning("The clip's sound is of %s and is left out.", name)

    def write(self, image: Uint8Or16, pts: int, duration: int) -> None:
        """See `Writer`."""
        assert self._sound is not None
        self._sound.write_until(pts * self._time_base)
        frame = self._frame(image)
        frame.pts, frame.duration, frame.time_base = pts, duration, self._time_base
        self._container.mux(self._track.encode(frame))

    def finish(self) -> None:
        """See `Writer`."""
        assert self._sound is not None
        self._container.mux(self._track.encode(None))
        self._sound.write_until(None)
        self._container.close()

    def close(self) -> None:
        """Let go of the files, whatever state they are in."""
        import av

        if self._sound is not None:
            self._sound.close()
        with suppress(av.FFmpegError):
            self._container.close()

    def _add_track(self, clip: Clip, has_alpha: bool) -> av.VideoStream:
        from av.codec.context import Flags

        chosen = self._format
        options = {**chosen.options, **(chosen.alpha_options if has_alpha else {})}
        track: Any = self._container.add_stream(chosen.encoder, rate=clip.rate or _USUAL_RATE, options=options)
        track.height, track.width = _written_size(chosen, clip)
        track.pix_fmt = self._pixels
        track.time_base = clip.time_base
        context = track.codec_context
        context.time_base = clip.time_base
        context.flags |= Flags.frame_duration
        context.sample_aspect_ratio = Fraction(1) if chosen.needs_square else clip.pixel_aspect
        context.colorspace, context.color_range = self._colours.matrix, self._colours.range
        context.color_trc, context.color_primaries = self._colours.transfer, self._colours.primaries
        return track

    def _frame(self, image: Uint8Or16) -> av.VideoFrame:
        import av

        pixels: Uint8 = image.astype(np.uint8, copy=False)
        if pixels.ndim == 2:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
        if self._format.needs_even:
            bottom, right = (side % 2 for side in pixels.shape[:2])
            pixels = cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(pixels, "rgba" if pixels.shape[2] == 4 else "rgb24")
        return self._scaler.reformat(
            frame,
            width=self._track.width,
            height=self._track.height,
            format=self._pixels,
            dst_colorspace=self._colours.scaler_matrix,
            dst_color_range=self._colours.range,
            interpolation=scaler_flags(),
        )


def _written_size(chosen: Format, clip: Clip) -> tuple[int, int]:
    """Return (height, width) of the frames that a format holds of a clip; logs where it is not the clip's."""
    height, width = clip.size
    aspect = clip.pixel_aspect
    if chosen.needs_square and aspect != 1:
        reason = f"{chosen.name} is written with square pixels: frames are stretched"
        height, width = (height, round(width * aspect)) if aspect > 1 else (round(height / aspect), width)
    elif chosen.needs_even:
        reason = f"{chosen.name} needs even sides: the last row or column is repeated"
        height, width = height + height % 2, width + width % 2
    if (height, width) != clip.size:
        _LOGGER.warning("%s, and %dx%d becomes %dx%d.", reason, *reversed(clip.size), width, height)
    return height, width


@contextmanager
def _told(chosen: Format, target: Path) -> Iterator[None]:
    """Turn what FFmpeg refuses into one sentence; what the system refuses passes."""
    import av

    try:
        yield
    except OSError:
        raise
    except av.FFmpegError as error:
        raise UsageError(
            f"Expected to write {printable(target)} as {chosen.name}; FFmpeg refuses: {first_line(error)}. "
            "Choose another format."
        ) from error
