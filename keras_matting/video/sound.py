"""The sound of a clip in what is made of it: copied packet by packet, or encoded anew for a container that needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from keras_matting.video.reading import open_container

if TYPE_CHECKING:
    import av

_RATE = 48000  # Hz, which every encoder here takes, and Opus no other of the usual ones
_LAYOUTS = {1: "mono", 6: "5.1", 8: "7.1"}  # by number of channels: some files tell that alone; others become stereo


class _Track(Protocol):
    """Where the packets of one sound track go."""

    def add(self, packet: av.Packet[Any], start_s: Fraction) -> None:
        """Write what a packet holds, `start_s` earlier than it says."""

    def finish(self) -> None:
        """Write what is still on its way."""


class Sound:
    """The sound tracks of a file, on their way into an output container.

    A codec that the container cannot hold is encoded anew by FFmpeg's `encoder`. `encoded` and `left_out` name the
    codecs of tracks that could not be copied, and that are lost because FFmpeg does not know them. The file is opened
    a second time, so that sound is read when its time comes, however the file interleaves it.
    """

    def __init__(self, path: Path, output: av.container.OutputContainer, encoder: str, start_s: Fraction) -> None:
        from av.stream import Discard

        self._path, self._start_s = path, start_s
        self._input = open_container(path)
        self.encoded: list[str] = []
        self.left_out: list[str] = []
        self._tracks: dict[int, _Track] = {}
        for track in self._input.streams:
            if track.type == "audio":
                self._add(track, output, encoder)
            else:
                track.discard = Discard.all  # not even read from the disk, where the format allows it
        self._packets = self._demux()
        self._next = next(self._packets, None)

    def write_until(self, time_s: Fraction | None) -> None:
        """Write what is heard before `time_s`, in seconds from the start of the clip; all that is left if None."""
        while self._next is not None and (time_s is None or _time_of(self._next) - self._start_s < time_s):
            packet, self._next = self._next, None
            self._tracks[packet.stream_index].add(packet, self._start_s)
            self._next = next(self._packets, None)
        if time_s is None:
            for track in self._tracks.values():
                track.finish()

    def close(self) -> None:
        """Let go of the file."""
        self._input.close()

    def _add(self, track: Any, output: av.container.OutputContainer, encoder: str) -> None:
        if track.codec_context is None:
            self.left_out.append("an unknown codec")
        elif _holds(output.format.name, self._path, track.index):
            self._tracks[track.index] = _Copied(output, output.add_stream_from_template(track))
        else:
            self._tracks[track.index] = _Encoded(output, track, encoder)
            self.encoded.append(track.codec_context.name)

    def _demux(self) -> Iterator[av.Packet[Any]]:
        """Yield the packets of the tracks that are written, as far as they can be read."""
        import av

        if not self._tracks:
            return
        try:
            for packet in self._input.demux([self._input.streams[index] for index in self._tracks]):
                if packet.size and packet.dts is not None:
                    yield packet
        except av.FFmpegError:  # the pictures' reader tells where the file is cut off
            return


class _Copied:
    """A track whose packets are written as they are."""

    def __init__(self, output: av.container.OutputContainer, track: av.audio.AudioStream) -> None:
        self._output, self._track = output, track

    def add(self, packet: av.Packet[Any], start_s: Fraction) -> None:
        """See `_Track`."""
        offset = round(start_s / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - offset
        packet.dts = None if packet.dts is None else packet.dts - offset
        packet.stream = self._track
        self._output.mux_one(packet)

    def finish(self) -> None:
        """See `_Track`."""


class _Encoded:
    """A track that is decoded and encoded anew, with its channels and time stamps."""

    def __init__(self, output: av.container.OutputContainer, track: av.audio.AudioStream, encoder: str) -> None:
        from av import AudioResampler

        self._output, self._decoder = output, track.codec_context
        self._track: av.audio.AudioStream = output.add_stream(
            encoder, rate=_RATE, layout=_LAYOUTS.get(track.codec_context.channels, "stereo")
        )
        context = self._track.codec_context
        context.open()  # which tells how many samples it takes at a time
        self._resampler = AudioResampler(context.format, context.layout, _RATE, frame_size=context.frame_size)

    def add(self, packet: av.Packet[Any], start_s: Fraction) -> None:
        """See `_Track`."""
        self._decode(packet, start_s)

    def finish(self) -> None:
        """See `_Track`."""
        self._decode(None, Fraction(0))
        self._encode(None)
        self._output.mux(self._track.encode(None))

    def _decode(self, packet: av.Packet[Any] | None, start_s: Fraction) -> None:
        import av

        with suppress(av.FFmpegError):  # a damaged packet is silence
            for frame in self._decoder.decode(packet):
                if frame.pts is not None:
                    frame.pts -= round(start_s / frame.time_base)
                self._encode(frame)

    def _encode(self, frame: av.AudioFrame | None) -> None:
        for part in self._resampler.resample(frame):
            self._output.mux(self._track.encode(part))


def _holds(muxer: str, path: Path, index: int) -> bool:
    """Tell whether a container can hold a track as it is: some only refuse it when they write their header or end."""
    import av

    try:
        with closing(open_container(path)) as source, av.open(BytesIO(), "w", format=muxer) as trial:
            track = trial.add_stream_from_template(source.streams[index])
            packet = next(packet for packet in source.demux(source.streams[index]) if packet.dts is not None)
            packet.stream = track
            trial.mux_one(packet)
    except (ValueError, StopIteration, av.FFmpegError):
        return False
    return True


def _time_of(packet: av.Packet[Any]) -> Fraction:
    return packet.dts * packet.time_base
