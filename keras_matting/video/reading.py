"""Reading a clip: what it says of itself, and its frames as upright photos, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Uint8
from keras_matting.errors import ImageError, UsageError, first_line
from keras_matting.files import StrPath, printable
from keras_matting.machine import missing_package
from keras_matting.photos.files import Photo, probe
from keras_matting.video.colours import BT709, Colours, scaler_flags

if TYPE_CHECKING:
    import av

_LOGGER = logging.getLogger(__name__)
_HEAD_BYTES = 1 << 16
_NEARLY_ALL = Fraction(95, 100)  # of the length that a file announces
# Whose readers end a file that is cut off as if it were whole; those of others tell, or guess the length.
_ENDS_SILENTLY = "matroska,webm"
_MICROSECONDS = 1_000_000  # in a second; FFmpeg's AV_TIME_BASE
_STILL_FORMATS = ("image2",)  # and those whose name ends in "_pipe"
# No playlist or script that is called a clip makes FFmpeg reach into the network.
_LOCAL_ONLY = {"protocol_whitelist": "file"}
# Decoders that FFmpeg does not take by itself, and that decode the alpha of WebM
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@dataclass(frozen=True)
class Frame:
    """A frame of a clip: an upright `photo`, when it is shown and how long, in the clip's time base from its start."""

    photo: Photo
    pts: int
    duration: int


class Clip:
    """An open video file whose first frame can be decoded.

    `size` is (height, width) of its upright frames, `pixel_aspect` the width of a pixel in heights, `rate` frames/s or
    None, `count` about how many frames it has or None, `colours` those of its frames, `is_interlaced` and `has_sound`
    what they say. `damaged` counts the frames that could not be decoded, `repaired` those that the decoder has patched
    up, so far; `is_cut_off` tells whether the file ended before its time. Raises `UsageError` where PyAV is not
    installed or there is no file, `ImageError` where it is no video, has sound only, or no frame.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self.damaged = self.repaired = 0
        self.is_cut_off = False
        self._container = open_container(self.path)
        try:
            self._begin()
        except BaseException:
            self._container.close()
            raise

    def _begin(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._stream = _picture_track(self._container, self.path)
        self._decoder = _decoder(self._stream)
        self._scaler = VideoReformatter()  # one for all frames: its tables of HDR take seconds to make
        self.time_base: Fraction = self._stream.time_base
        self.rate: Fraction | None = self._stream.average_rate or self._stream.guessed_rate
        self.start_s = Fraction(max(0, self._container.start_time or 0), _MICROSECONDS)
        self.count = self._count()
        decoded = self._decode()
        first = next(decoded, None)
        if first is None:
            raise ImageError(
                f"Expected a video with frames; no frame of {printable(self.path)} can be decoded. Export it again."
            )
        self._decoded = chain([first], decoded)
        self.is_interlaced, self.has_sound = first.interlaced_frame, bool(self._container.streams.audio)
        self.colours = Colours.of(first)
        self._matrix = display_matrix(first)
        self.size = upright(np.empty((first.height, first.width), np.uint8), self._matrix).shape
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect = 1 / aspect if is_on_its_side(self._matrix) else aspect
        self._stored = first.width, first.height

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order, once; their time stamps rise, also where the file's do not."""
        step = max(1, round(1 / (self.rate * self.time_base))) if self.rate else 1
        start, last, duration = round(self.start_s / self.time_base), -1, 0
        for frame in self._decoded:
            pts = last + max(1, duration or step) if frame.pts is None else frame.pts - start
            pts = max(pts, last + 1)
            last, duration = pts, frame.duration or step
            self.repaired += frame.is_corrupt
            yield Frame(self._photo(frame), pts, duration)

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self) -> int | None:
        if self._stream.frames:
            return self._stream.frames
        microseconds = self._container.duration
        return round(microseconds * self.rate / _MICROSECONDS) if microseconds and self.rate else None

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield what can be decoded; what cannot is counted, and the rest goes on."""
        import av

        # The sound, too, for where it ends: some files announce its length.
        packets = self._container.demux(self._stream, *self._container.streams.audio)
        end_s = longest_s = Fraction(0)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self.is_cut_off = True
                packet = None
            if packet is not None:
                self.is_cut_off |= packet.is_corrupt
                until_s = _end_of(packet, end_s)
                end_s, longest_s = max(end_s, until_s), max(longest_s, until_s - end_s)
                if packet.stream_index != self._stream.index:
                    continue
            if packet is None or not packet.size:
                self.is_cut_off |= self._ends_early(end_s, longest_s)
            try:
                yield from self._decoder.decode(packet if packet is not None and packet.size else None)
            except EOFError:  # flushed before
                return
            except av.FFmpegError:
                self.damaged += 1
            if packet is None or not packet.size:
                return

    def _ends_early(self, end_s: Fraction, longest_s: Fraction) -> bool:
        """Tell whether what ends at `end_s` is clearly not all; the last frame may be shown as long as the longest."""
        announced_s = Fraction(self._container.duration or 0, _MICROSECONDS)
        return self._container.format.name == _ENDS_SILENTLY and end_s + longest_s < _NEARLY_ALL * announced_s

    def _photo(self, frame: av.VideoFrame) -> Photo:
        """Return a decoded frame as an upright `Photo` of standard range, of the size of the first."""
        colours = Colours.of(frame)
        has_alpha = any(component.is_alpha for component in frame.format.components)
        width, height = self._stored
        standard = BT709 if colours.hdr else None
        scaled = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if has_alpha else "rgb24",
            src_colorspace=colours.scaler_matrix,
            src_color_range=colours.range,
            interpolation=scaler_flags(),
            dst_color_trc=standard,
            dst_color_primaries=standard,
        )
        image = upright(scaled.to_ndarray(), self._matrix)
        if not has_alpha:
            return Photo(np.ascontiguousarray(image))
        return Photo(np.ascontiguousarray(image[..., :3]), np.ascontiguousarray(image[..., 3]))


def require_av() -> None:
    """Raise `UsageError` where PyAV is not installed."""
    if reason := missing_package("av", "video"):
        raise UsageError(f"Video needs PyAV: {reason}")


def open_container(path: Path) -> av.container.InputContainer:
    """Open a video file; raises `UsageError` if there is none, `ImageError` if it is a picture or something else."""
    require_av()
    import av

    try:
        if path.is_dir():
            raise UsageError(f"Expected a video file; {printable(path)} is a folder. Name one clip.")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UsageError(f"Expected a video at {printable(path)}; received: {error.strerror}.") from None
    picture = f"Expected a video; {printable(path)} is a picture. Use keras-matting predict."
    if _is_picture(head):
        raise ImageError(picture)
    try:
        container = av.open(f"file:{path}", container_options=_LOCAL_ONLY, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        told = getattr(error, "strerror", None) or first_line(error)
        raise ImageError(
            f"Expected a video; {printable(path)} cannot be read as one: {told}. Check that it is whole, or convert it."
        ) from None
    if container.format.name in _STILL_FORMATS or container.format.name.endswith("_pipe"):
        container.close()
        raise ImageError(picture)
    return container


def display_matrix(frame: av.VideoFrame) -> npt.NDArray[np.int32] | None:
    """Return how a frame is to be turned, int32 (3, 3) as MP4 has it, or None."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)


def is_on_its_side(matrix: npt.NDArray[np.int32] | None) -> bool:
    """Tell whether a display matrix turns a frame by about 90 degrees, one way or the other."""
    return matrix is not None and abs(int(matrix[0, 1])) > abs(int(matrix[0, 0]))


def upright(image: Uint8, matrix: npt.NDArray[np.int32] | None) -> Uint8:
    """Return a frame (H, W, ...) turned and mirrored as its display matrix says, by the nearest multiple of 90 degrees.

    A view: x' = a x + c y, y' = b x + d y for the rows (a, b) and (c, d) of the matrix.
    """
    if matrix is None:
        return image
    (a, b), (c, d) = matrix[:2, :2]
    x, y = a, d
    if is_on_its_side(matrix):
        image, x, y = np.swapaxes(image, 0, 1), c, b
    return image[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]


def _end_of(packet: av.Packet[Any], otherwise_s: Fraction) -> Fraction:
    """Return when a packet has been shown or heard, in the file's time, as far as it tells."""
    at = packet.dts if packet.pts is None else packet.pts
    return otherwise_s if at is None else (at + (packet.duration or 0)) * Fraction(packet.time_base)


def _is_picture(head: bytes) -> bool:
    try:
        probe(head)
    except ImageError:
        return False
    return True


def _picture_track(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """Return the first track of moving pictures; a cover is none. Raises `ImageError` where there is none."""
    from av.stream import Disposition

    tracks = [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
    if not tracks:
        what = "has sound only" if container.streams.audio else "has no track of pictures"
        raise ImageError(f"Expected a video; {printable(path)} {what}. Choose another file.")
    if tracks[0].codec_context is None:
        raise ImageError(f"Expected a video that FFmpeg decodes; {printable(path)} is of an unknown codec. Convert it.")
    if len(tracks) > 1:
        _LOGGER.warning("%s has %d video tracks; the first is taken.", printable(path), len(tracks))
    return tracks[0]


def _decoder(track: av.VideoStream) -> av.VideoCodecContext:
    """Return a track's decoder: where it has alpha in WebM's way, the one that decodes it."""
    import av

    decoder = track.codec_context
    name = _ALPHA_DECODERS.get(decoder.name)
    if name and track.metadata.get("alpha_mode") == "1":
        with_alpha = av.CodecContext.create(name, "r")
        with_alpha.extradata = decoder.extradata
        return with_alpha
    # Not by frame: an error would cost the frames that the other threads have ready.
    decoder.thread_type = "SLICE"
    return decoder
