"""What every data set is read into: samples, sources, and the problems met on the way."""

from dataclasses import dataclass
from pathlib import Path

from keras_matting.arrays import Uint8
from keras_matting.data.masks import decode_truth
from keras_matting.errors import ImageError
from keras_matting.photos.files import decode


@dataclass(frozen=True)
class Sample:
    """One photo on disk. `stem` names it in splits and reports.

    `image`: a JPEG, or a PNG of 8 bits a channel: opaque, or RGBA where it is a cut-out. `alpha`: the PNG with its
    truth, grey, at most 8 bits, of the upright photo's size; None where there is none, or where it is the alpha
    channel of the photo itself. `orientation`: the EXIF orientation (1 to 8) to apply to the photo before it fits its
    truth, always the one that the file itself asks for. `origins`: the files as they were found, (photo,) or (photo,
    mask), where others may have been made of them.
    """

    stem: str
    image: Path
    alpha: Path | None = None
    orientation: int = 1
    origins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A file left out, or found wanting by `data check`. `kind` is a short plural-free name, as "size mismatch"."""

    kind: str
    stem: str
    detail: str = ""


@dataclass(frozen=True)
class Source:
    """Samples of one kind. `kind`: "labelled", "composite" (RGBA cut-outs, with `backgrounds`) or "unlabelled".

    `backgrounds`: photos, `Sample`s too. `weight`: how often the source is drawn, relative to the other sources of a
    merge and whatever its size. `problems`: what was left out, and why.
    """

    name: str
    kind: str
    samples: tuple[Sample, ...]
    backgrounds: tuple[Sample, ...] = ()
    weight: float = 1.0
    problems: tuple[Problem, ...] = ()


def read_truth(sample: Sample) -> Uint8 | None:
    """Decode the alpha of a sample alone, uint8 (H, W), or None where it has no truth; raises as `read_sample` does."""
    if sample.alpha is None:
        return decode(sample.image.read_bytes()).alpha
    return decode_truth(sample.alpha.read_bytes())


def read_sample(sample: Sample) -> tuple[Uint8, Uint8 | None]:
    """Decode a sample: (rgb, alpha), uint8 (H, W, 3), upright, and uint8 (H, W), or None where it has no truth.

    The alpha of a cut-out is its alpha channel, that of a mask file its `masks.decode_truth`. Raises `ImageError` where
    a file is damaged, a mask has colours or the sizes differ.
    """
    photo = decode(sample.image.read_bytes())
    if sample.alpha is None:
        return photo.rgb, photo.alpha
    alpha = decode_truth(sample.alpha.read_bytes())
    if alpha.shape != photo.rgb.shape[:2]:
        raise ImageError(
            f"Expected a mask of {photo.rgb.shape[1]}x{photo.rgb.shape[0]} like {sample.image.name}; "
            f"{sample.alpha.name} has {alpha.shape[1]}x{alpha.shape[0]}. Make the mask anew."
        )
    return photo.rgb, alpha
