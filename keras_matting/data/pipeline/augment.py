"""Augmentation presets by name: how photo and alpha are moved together, then how the photo's colours are changed."""

from dataclasses import dataclass, replace
from typing import Self

from keras_matting.data.pipeline.colour import Blur, ColourJitter, ColourOp, CutOut, Invert, Jpeg, Noise, Relight
from keras_matting.data.pipeline.geometry import Geometry
from keras_matting.errors import UsageError


@dataclass(frozen=True)
class Augmentation:
    """One `geometry` for photo and alpha, then the operations of `colour` on the photo, in order."""

    geometry: Geometry
    colour: tuple[ColourOp, ...] = ()

    def without(self, kind: type[ColourOp]) -> Self:
        """Return the augmentation without the colour operations of a class."""
        return replace(self, colour=tuple(op for op in self.colour if not isinstance(op, kind)))


# The clothing project's script, by torchvision: Resize(544), RandomCrop(512), both flips, RandomRotation((0, 180)),
# ColorJitter(0.5, 0.5, 0.5, 0.3), RandomInvert(0.5). Rotated corners are black.
_ORIGINAL = Augmentation(
    Geometry(resize=544 / 512, mirror=0.5, flip=0.5, rotation=(0, 180)),
    (ColourJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.3), Invert(probability=0.5)),
)
_CUSTOM = Augmentation(
    Geometry(mirror=0.5, rotation=(-20, 20), scale=(0.8, 1.25), perspective=0.1, reflect=True),
    (
        CutOut(patches=4, size=(0.05, 0.3)),
        Relight(strength=0.2, bend=0.4),
        ColourJitter(brightness=0.2, contrast=0.2, saturation=0.3, hue=0.05),
        Blur(probability=0.3, sigma_px=1.5),
        Noise(deviation=0.03),
        Jpeg(probability=0.3, quality=(40, 95)),
    ),
)
AUGMENTATIONS = {
    "none": Augmentation(Geometry()),
    "original": _ORIGINAL,
    "custom": _CUSTOM,
    "custom-no-rotation": replace(_CUSTOM, geometry=replace(_CUSTOM.geometry, rotation=(0, 0))),
    "custom-no-jitter": _CUSTOM.without(ColourJitter),
    "custom-no-cutout": _CUSTOM.without(CutOut),
}


def find(name: str) -> Augmentation:
    """Return the augmentation of that name; raises `UsageError` if there is none."""
    if name not in AUGMENTATIONS:
        raise UsageError(f"Expected an augmentation out of {', '.join(AUGMENTATIONS)}; received {name!r}.")
    return AUGMENTATIONS[name]
