"""Augmentation presets by name, each a short tuple of paired operations.

An operation is a frozen callable, `op(sample, seed) -> sample`, in graph mode, over {"image": float32 (H, W, 3) in
[0, 1], "alpha": float32 (H, W, 1) in [0, 1]}; `seed`, int64 (2,), decides all of its randomness. What moves pixels
moves both together and leaves alpha soft; what changes colours leaves alpha alone.
"""

from keras_matting.data.colour import ColourJitter, RandomInvert
from keras_matting.data.geometry import RandomCrop, RandomFlip, RandomWarp
from keras_matting.data.randomness import fold_in
from keras_matting.errors import UsageError

PRESETS = {
    "none": (),
    # The clothing project's script, by torchvision: Resize(544), RandomCrop(512), flips, RandomRotation((0, 180)),
    # ColorJitter(0.5, 0.5, 0.5, 0.3), RandomInvert(0.5).
    "original": (
        RandomCrop(resize=544 / 512),
        RandomFlip(horizontal=0.5, vertical=0.5),
        RandomWarp(rotation=(0, 180)),
        ColourJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.3),
        RandomInvert(probability=0.5),
    ),
}


def find(name):
    """Return the operations of a preset; raises `UsageError` on a name that is none."""
    if name not in PRESETS:
        raise UsageError(f"Expected an augmentation out of {', '.join(PRESETS)}; received {name!r}.")
    return PRESETS[name]


def load_size(ops, input_size):
    """Return the (height, width) at which photos enter `ops`, so that they leave at `input_size`."""
    crops = [op for op in ops if isinstance(op, RandomCrop)]
    scale = crops[0].resize if crops else 1
    return tuple(round(side * scale) for side in input_size)


def draw(ops, seed):
    """Return the parameters of all operations, each drawn with a seed of its own."""
    return [op.draw(fold_in(seed, index)) for index, op in enumerate(ops)]


def transform(ops, sample, parameters):
    """Return the sample after all operations, with parameters from `draw`."""
    for op, drawn in zip(ops, parameters, strict=True):
        sample = op.transform(sample, *drawn)
    return sample
