"""Tiny data sets on disk, for the tests of sources."""

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 24, 16


def picture(seed=0, size=(WIDTH, HEIGHT), mode="RGB"):
    channels = {"RGB": 3, "RGBA": 4}[mode]
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], channels), dtype=np.uint8))


def half_mask(size=(WIDTH, HEIGHT)):
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def grey(*levels):
    """A mask of vertical stripes."""
    stripes = np.repeat(np.array(levels, np.uint8), -(-WIDTH // len(levels)))[:WIDTH]
    return Image.fromarray(np.tile(stripes, (HEIGHT, 1)))


def soft(size=160):
    rows, columns = np.mgrid[:size, :size]
    return np.clip(300 - 5 * np.hypot(rows - size / 2, columns - size / 2), 0, 255).astype(np.uint8)


def blurred_by_jpeg(level):
    """Black or white as lossy files have it."""
    return np.random.default_rng(0).integers(level, level + 3, (40, 50), dtype=np.uint8)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def write_pairs(folder, stems):
    """Write image/STEM.png and mask/STEM.png for each stem, or image/STEM.jpg for stems that end so."""
    for number, stem in enumerate(stems):
        name = stem if stem.endswith(".jpg") else f"{stem}.png"
        save(picture(number), folder / "image" / name)
        save(half_mask(), folder / "mask" / f"{stem.removesuffix('.jpg')}.png")


def stems(samples):
    return [sample.stem for sample in samples]


def kinds(source):
    return [(problem.kind, problem.stem) for problem in source.problems]
