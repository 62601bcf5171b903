"""What is asked of an output, as the rooms below `matting` see it."""

from typing import Protocol

import numpy as np

from keras_matting.errors import UsageError
from keras_matting.photos.framing import Framing


class Options(Protocol):
    """Of `matting.OutputOptions`, what decides how much memory an output takes and how it was made."""

    @property
    def kind(self) -> str:
        """One of `matting.OUTPUTS`."""

    @property
    def background(self) -> object:
        """A colour, an image or a `Photo`; None without."""

    @property
    def refine(self) -> object:
        """Whether, or by which `refine.Thresholds`, the unknown band is solved anew."""

    @property
    def foreground(self) -> bool:
        """Whether the subject's own colours are estimated."""

    @property
    def harden(self) -> bool:
        """Whether the matte is made 0 and 1."""

    @property
    def framing(self) -> Framing | None:
        """How it is cropped and placed; None where it is the photo's frame."""


def flag(value: object, name: str) -> bool:
    """Return whether an option is on: a bool, or the word; any other text would count as true. Raises `UsageError`."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in ("true", "false"):
        raise UsageError(f"Expected {name} to be True or False; received {str(value)[:40]!r}.")
    return word == "true"
