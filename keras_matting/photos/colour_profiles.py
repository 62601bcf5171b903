"""ICC colour profiles, by Pillow's littleCMS: what an image's numbers mean, and the same colours in other numbers.

A profile is judged by what it does to colours, never by its name. One that is missing, damaged or of another colour
model than its photo counts as sRGB; one of grey or of inks is applied at once, since RGB has no place for it.
Conversion is perceptual, as browsers do it, and in bands of rows, so that it costs little beyond its output. Pillow is
imported where there is a profile.
"""

from __future__ import annotations

import functools
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Uint8

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

    from keras_matting.photos.photo import Photo

_BAND_PIXELS = 2**18
_CUBE_SIDE = 9  # of the colours that a profile is tried with
_SAME_STEPS = 2  # out of 255: what two ways of computing the same curve differ by
_KEPT = 16  # profiles and pairs of them; photos of one camera share theirs


def with_profile(photo: Photo, icc: bytes | None) -> Photo:
    """Return a `Photo` that means what its file does: with an RGB profile (bytes), or in sRGB where that is of grey."""
    space = icc[16:20] if icc else b""
    if icc and space == b"RGB ":
        return replace(photo, icc=icc)
    if icc and space == b"GRAY" and _is_grey(photo.rgb):
        table = _grey_table(icc)
        return photo if table is None else replace(photo, rgb=cv2.LUT(photo.rgb, table))
    return photo


def rgb_of_inks(inks: Uint8, icc: bytes | None) -> Uint8:
    """Return the sRGB colours (H, W, 3) of cyan, magenta, yellow and black, uint8 (H, W, 4) with 255 for full ink.

    As their profile says; plainly, light that each ink leaves times what black leaves, where there is none of inks.
    """
    transform = _transform(icc, None, "CMYK") if icc and icc[16:20] == b"CMYK" else None
    if transform is not None:
        return _apply(transform, inks, "CMYK")
    rgb, light = np.empty((*inks.shape[:2], 3), np.uint8), cv2.bitwise_not(inks[..., 3])
    for ink in range(3):
        rgb[..., ink] = cv2.multiply(cv2.bitwise_not(inks[..., ink]), light, scale=1 / 255)
    return rgb


def in_srgb(photo: Photo) -> Photo:
    """Return a `Photo` with its colours in sRGB and without a profile."""
    return photo if photo.icc is None else replace(photo, rgb=convert(photo.rgb, photo.icc), icc=None)


def convert(rgb: Uint8, source: bytes | None, target: bytes | None = None) -> Uint8:
    """Return the colours uint8 (H, W, 3) of one profile in the numbers of another; None is sRGB.

    The array itself where there is nothing to change, and where the target has no way back from colours to numbers
    (`can_hold` tells).
    """
    if source == target or (is_srgb(source) and is_srgb(target)):
        return rgb
    transform = _transform(None if is_srgb(source) else source, None if is_srgb(target) else target)
    return rgb if transform is None else _apply(transform, rgb)


@functools.lru_cache(_KEPT)
def is_srgb(icc: bytes | None) -> bool:
    """Whether numbers mean the same in this profile (bytes, or None) as in sRGB, but for rounding."""
    if icc is None:
        return True
    transform = _transform(icc, None)
    if transform is None:
        return True
    steps = np.linspace(0, 255, _CUBE_SIDE).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    return bool(_distance(_apply(transform, cube), cube) <= _SAME_STEPS)


def can_hold(icc: bytes | None, colour: npt.ArrayLike | None = None) -> bool:
    """Whether sRGB colours can be told in this profile; `colour` (R, G, B): whether this one comes back as it was.

    A camera's or scanner's table may lead one way only, and 8 bits of a linear profile hold few dark colours.
    """
    if is_srgb(icc):
        return True
    if _transform(None, icc) is None:
        return False
    if colour is None:
        return True
    given = np.array([[colour]], np.uint8)
    return bool(_distance(convert(convert(given, None, icc), icc), given) <= _SAME_STEPS)


def _is_grey(rgb: Uint8) -> bool:
    return all(np.array_equal(rgb[..., 0], rgb[..., channel]) for channel in (1, 2))


@functools.lru_cache(_KEPT)
def _grey_table(icc: bytes) -> Uint8 | None:
    """Return the sRGB colours, uint8 (1, 256, 3), of a grey profile's values; None where they are the values."""
    transform = _transform(icc, None, "L")
    if transform is None:
        return None
    from PIL import Image, ImageCms

    values = np.arange(256, dtype=np.uint8)[None]
    converted = ImageCms.applyTransform(Image.fromarray(values), transform)
    table = np.asarray(converted)
    return None if _distance(table, values[..., None]) <= _SAME_STEPS else table


def _distance(one: Uint8, other: Uint8) -> int:
    return np.abs(one.astype(np.int16) - other).max()


@functools.lru_cache(_KEPT)
def _transform(source: bytes | None, target: bytes | None, mode: str = "RGB") -> ImageCmsTransform | None:
    """Return Pillow's transform from one profile to another (bytes, or None for sRGB); None where there is none.

    `mode`: Pillow's name of the source's colour model.
    """
    from PIL import ImageCms

    try:
        one, other = (
            ImageCms.createProfile("sRGB") if icc is None else ImageCms.ImageCmsProfile(io.BytesIO(icc))
            for icc in (source, target)
        )
        return ImageCms.buildTransform(one, other, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _apply(transform: ImageCmsTransform, pixels: Uint8, mode: str = "RGB") -> Uint8:
    """Return RGB (H, W, 3) of pixels, uint8 (H, W, channels of `mode`)."""
    from PIL import Image, ImageCms

    height, width = pixels.shape[:2]
    result = np.empty((height, width, 3), np.uint8)
    step = max(1, _BAND_PIXELS // width)
    for top in range(0, height, step):
        rows = pixels[top : top + step]
        band = Image.frombytes(mode, (width, len(rows)), rows.tobytes())
        result[top : top + step] = np.asarray(ImageCms.applyTransform(band, transform))
    return result
