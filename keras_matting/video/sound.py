"""The sound of a clip, copied packet by packet into what is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_matting.video.reading import open_container

if TYPE_CHECKING:
    import av


class Sound:
    """The sound tracks of a file, on their way into an output container; `left_out` names those that it cannot hold.

    The file is opened a second time, so that sound is read when its time comes, however the file interleaves it.
    """

    def __init__(self, path: Path, output: av.container.OutputContainer, start_s: Fraction) -> None:
        from av.stream import Discard

        self._input = open_container(path)
        self._output, self._start_s = output, start_s
        self.left_out: list[str] = []
        self._copies: dict[int, av.audio.AudioStream] = {}
        for track in self._input.streams:
            if track.type != "audio":
                track.discard = Discard.all  # not even read from the disk, where the format allows it
                continue
            name = track.codec_context.name if track.codec_context else "an unknown codec"
            try:
                self._copies[track.index] = output.add_stream_from_template(track)
            except ValueError:  # the container does not hold this codec, or FFmpeg does not know it
                self.left_out.append(name)
        self._packets = self._demux()
        self._next = next(self._packets, None)

    def copy_until(self, time_s: Fraction | None) -> None:
        """Write what is heard before `time_s`, in seconds from the start of the clip; all that is left if None."""
        while self._next is not None and (time_s is None or _time_of(self._next) - self._start_s < time_s):
            packet, self._next = self._next, None
            offset = round(self._start_s / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - offset
            packet.dts = None if packet.dts is None else packet.dts - offset
            packet.stream = self._copies[packet.stream_index]
            self._output.mux_one(packet)
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Let go of the file."""
        self._input.close()

    def _demux(self) -> Iterator[av.Packet[Any]]:
        """Yield the packets of the tracks that are copied, as far as they can be read."""
        import av

        if not self._copies:
            return
        try:
            for packet in self._input.demux([self._input.streams[index] for index in self._copies]):
                if packet.size and packet.dts is not None:
                    yield packet
        except av.FFmpegError:  # the pictures' reader tells where the file is cut off
            return


def _time_of(packet: av.Packet[Any]) -> Fraction:
    return packet.dts * packet.time_base
