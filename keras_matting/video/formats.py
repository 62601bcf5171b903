"""What a clip can be written as: containers with their codecs, or a folder of PNGs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keras_matting.errors import UsageError
from keras_matting.files import StrPath, printable
from keras_matting.matting import OutputOptions


@dataclass(frozen=True)
class Format:
    """A container and how pictures are encoded in it.

    `muxer` and `encoder` are FFmpeg's names, `opaque` and `alpha` pixel formats (`alpha` None where there is none),
    `options` the encoder's, `muxer_options` the container's. `is_limited`: it holds the limited range only.
    `needs_even`: sides have to be even; `needs_square`: pixels have to be square.
    `sound`: the encoder of sound that the container cannot hold as it is.
    """

    name: str
    muxer: str
    encoder: str
    opaque: str
    sound: str
    alpha: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    alpha_options: Mapping[str, str] = field(default_factory=dict)
    muxer_options: Mapping[str, str] = field(default_factory=dict)
    is_limited: bool = False
    needs_even: bool = False
    needs_square: bool = False


_WEBM = Format(
    name="WebM (VP9)",
    muxer="webm",
    encoder="libvpx-vp9",
    opaque="yuv420p",
    sound="libopus",
    alpha="yuva420p",
    options={"crf": "24", "b:v": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    alpha_options={"auto-alt-ref": "0"},  # libvpx has no alternate reference frames with alpha
    # FFmpeg's muxer asks the stream for their shape, where PyAV cannot set it, and not the encoder.
    needs_square=True,
)
_MOV = Format(
    name="MOV (ProRes 4444)",
    muxer="mov",
    encoder="prores_ks",
    opaque="yuv444p10le",
    sound="pcm_s16le",
    alpha="yuva444p10le",
    options={"profile": "4444", "vendor": "apl0"},
    alpha_options={"alpha_bits": "16"},
    is_limited=True,
)
_MP4 = Format(
    name="MP4 (H.264)",
    muxer="mp4",
    encoder="libx264",
    opaque="yuv420p",
    sound="aac",
    # Without B-frames MP4 has the durations of frames of any rate right.
    options={"crf": "18", "preset": "medium", "bf": "0"},
    muxer_options={"movflags": "+faststart"},
    needs_even=True,
)
FORMATS = {".webm": _WEBM, ".mov": _MOV, ".mp4": _MP4, ".m4v": _MP4}


def choose_format(target: StrPath, options: OutputOptions) -> Format | None:
    """Return the `Format` for an output's name, None for a folder of PNGs, which is a name without a suffix.

    Raises `UsageError` on another suffix, and where the container cannot hold what `options` make.
    """
    suffix = Path(target).suffix.lower()
    if suffix not in FORMATS:
        if not suffix or Path(target).is_dir():
            return None
        raise UsageError(
            f"Expected an output of {', '.join(FORMATS)}, or a folder for PNGs; received {printable(target)}."
        )
    chosen = FORMATS[suffix]
    if options.kind == "rgba" and chosen.alpha is None:
        raise UsageError(
            f"{chosen.name} has no transparency, and {printable(target)} is asked for it: choose .webm, .mov or a "
            "folder, or --background, or --output mask."
        )
    if options.kind == "matte16":
        raise UsageError(f"A 16-bit matte needs a folder of PNGs; received {printable(target)}. Or use --output mask.")
    return chosen
