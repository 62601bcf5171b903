"""Clips for tests: tiny, made by PyAV, and what is read of one again."""

from fractions import Fraction

import av
import numpy as np

TIME_BASE = Fraction(1, 90000)
STEP = 3000  # of a frame at 30 frames/s
ENCODERS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
BT601, BT709, LIMITED, FULL = 5, 1, 1, 2


def picture(index, size=(48, 64)):
    """Return a frame, uint8 (H, W, 3): a bright disc that moves over a dark ground."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    disc = np.hypot(rows - height / 2, columns - width / 3 - index) < height / 4
    return np.where(disc[..., None], (220, 180, 140), (40, 60, 30)).astype(np.uint8)


def write_clip(
    path,
    *,
    pts=(0, 1, 2, 3),
    size=(48, 64),
    sound=None,
    sound_s=None,
    rotation=None,
    options=None,
    images=None,
    container_options=None,
    **tags,
):
    """Write a clip of frames at `pts` (in frames of 30 a second), with `sound` of a codec, and return its path.

    The sound takes `sound_s`, or as long as the frames.
    """
    images = images or [picture(index, size) for index in range(len(pts))]
    with av.open(str(path), "w", container_options=container_options) as container:
        track = container.add_stream(
            ENCODERS[path.suffix], rate=30, options={"crf": "10", "bf": "0", **(options or {})}
        )
        track.height, track.width = size
        track.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
        track.codec_context.time_base = track.time_base = TIME_BASE
        track.codec_context.flags |= av.codec.context.Flags.frame_duration
        for name, value in tags.items():
            setattr(track.codec_context, name, value)
        if rotation:
            track.set_display_rotation(*rotation)
        audio = container.add_stream(sound, rate=48000) if sound else None
        for image, at in zip(images, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
                format=track.pix_fmt,
                dst_colorspace=tags.get("colorspace", BT601),
                dst_color_range=tags.get("color_range", LIMITED),
            )
            frame.pts, frame.time_base, frame.duration = at * STEP, TIME_BASE, STEP
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
        if audio:
            write_sound(container, audio, seconds=sound_s or (pts[-1] + 1) / 30)
    return path


def write_sound(container, audio, seconds):
    """Encode a tone."""
    samples = int(48000 * seconds)
    tone = (np.sin(np.arange(samples) / 20) * 0.3).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), "fltp", "stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    fifo, resampler = av.AudioFifo(), av.AudioResampler(audio.codec_context.format, "stereo", 48000)
    for converted in resampler.resample(frame):
        fifo.write(converted)
    size = audio.codec_context.frame_size or 960
    while part := fifo.read(size or 960) or fifo.read(size, partial=True):
        container.mux(audio.encode(part))
    container.mux(audio.encode(None))


class Read:
    """A clip, decoded whole: its frames as arrays of `pixels`, when they are shown in s, and what it says of itself."""

    def __init__(self, path, pixels="rgb24", decoder=None):
        with av.open(str(path)) as container:
            track = container.streams.video[0]
            context = track.codec_context
            if decoder:
                context = av.CodecContext.create(decoder, "r")
                context.extradata = track.codec_context.extradata
            packets = list(container.demux(track))
            frames = [frame for packet in packets for frame in context.decode(packet if packet.size else None)]
            self.images = [frame.to_ndarray(format=pixels) for frame in frames]
            self.formats = {frame.format.name for frame in frames}
            self.times = [float(frame.pts * track.time_base) for frame in frames]
            self.tags = (frames[0].colorspace, frames[0].color_range)
            self.rotation = frames[0].rotation
            self.codec, self.metadata = track.codec_context.name, dict(track.metadata)
            self.pixel_aspect = track.sample_aspect_ratio
            self.sounds = [stream.codec_context.name for stream in container.streams.audio]
            self.duration_s = container.duration / av.time_base


def samples(path):
    """Return the first channel of a file's sound, decoded."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", 48000)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def codec_of(encoder):
    """Return the name of the codec that is decoded where `encoder` has encoded."""
    return encoder.removeprefix("lib")


def sound_packets(path):
    """Return the sound of a file as (seconds, bytes) for each packet."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(round(float(packet.pts * packet.time_base), 3), bytes(packet)) for packet in packets]


def positions(path):
    """Return (position, size) in the file of each packet of pictures."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
