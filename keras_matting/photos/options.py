"""What is asked of an output, as the rooms below `matting` see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from keras_matting.photos.framing import Framing

FRAMING = ("crop", "margin", "canvas", "position", "scale", "shadow")  # the options that `framing.Framing.of` reads
SHADOWS = ("off", "soft")


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
