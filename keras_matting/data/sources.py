"""Where samples come from: folders, annotated sets, lists and cut-outs, read into one shape (no framework here)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One photo on disk. `stem` names it in splits and reports.

    `alpha`: the file with its truth, 8 bits grey and of the photo's size; None where there is none, or where it is
    the alpha channel of the photo itself. `orientation`: the EXIF orientation (1 to 8) to apply to the photo before it
    fits its truth.
    """

    stem: str
    image: Path
    alpha: Path | None = None
    orientation: int = 1


@dataclass(frozen=True)
class Source:
    """Samples of one kind. `kind`: "labelled", "composite" (RGBA cut-outs, with `backgrounds`) or "unlabelled".

    `weight`: how often it is drawn, relative to the other sources of a merge and whatever its size.
    """

    name: str
    kind: str
    samples: tuple
    backgrounds: tuple = ()
    weight: float = 1.0
