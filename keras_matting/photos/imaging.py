"""Photo -> model tensor -> matte at full size -> cut-out (NumPy and OpenCV).

Photos are large: what needs floating point is computed in bands of rows, so that it costs little beyond its output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Float32, Floats, Uint8, Uint16
from keras_matting.errors import UsageError
from keras_matting.photos import colour_profiles

if TYPE_CHECKING:
    from keras_matting.model_folder import Preset
    from keras_matting.photos.files import Photo

_INTERPOLATIONS = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}
# Below this range a map is constant but for noise, and stretching it would invent a subject.
MIN_MAX_RANGE = 1e-6
PAPER = 255  # hidden or see-through pixels of a photo are shown to the model on white, as shops photograph
_BAND_PIXELS = 2**16  # stays in a core's cache


def prepare(photo: Photo, preset: Preset) -> Float32:
    """Return the model's input for a photo: float32 (height, width, 3), sized and normalised as `preset` says."""
    image = sized(photo, preset)
    # The official scripts divide by the maximum of the resized image; 255 stands in for an all-black one.
    divisor = float(image.max() or 255) if preset.scale == "image-max" else 255.0
    std = np.asarray(preset.std, np.float32)
    scale = 1 / (divisor * std)
    offset = np.asarray(preset.mean, np.float32) / std
    return image * scale.astype(np.float32) - offset


def sized(photo: Photo, preset: Preset) -> Uint8:
    """Return a photo as uint8 (height, width, 3) of the model's size: what `prepare` normalises.

    A photo with alpha is composited on white first: what its transparent pixels hide is not to be matted. Colours of a
    profile are shown to the model in sRGB, which it was trained on.
    """
    rgb = on_paper(photo)
    height, width = preset.input_size
    image = cv2.resize(rgb, (width, height), interpolation=_INTERPOLATIONS[preset.interpolation])
    return colour_profiles.convert(image, photo.icc)


def on_paper(photo: Photo) -> Uint8:
    """Return the photo's uint8 (H, W, 3) as it looks: itself, or on white where it has alpha."""
    return photo.rgb if photo.alpha is None else composite(photo.rgb, photo.alpha, PAPER)


def within_alpha(matte: Float32, photo: Photo) -> Float32:
    """Return the matte times the photo's own alpha, if it has one: what was transparent stays so."""
    if photo.alpha is None:
        return matte
    within = np.empty_like(matte)
    for rows in bands(matte):
        np.multiply(matte[rows], photo.alpha[rows] / np.float32(255), out=within[rows])
    return within


def restore(matte: Floats, photo: Photo, preset: Preset) -> Float32:
    """Return the photo's matte, float32 (H, W) in [0, 1], from the model's (height, width, 1).

    Applies the preset's output rule, then scales to the photo's size. A constant map stays what it is under
    "min-max", where the official script divides 0 by 0. Raises `UsageError` where the model gave no map: a classifier.
    """
    if np.ndim(matte) != 3 or np.shape(matte)[-1] != 1:
        raise UsageError(f"Expected a model that gives a matte; {preset.name} gives {np.shape(matte)}. Choose another.")
    matte = apply_output_rule(np.asarray(matte, np.float32), preset)[..., 0]
    height, width = photo.rgb.shape[:2]
    matte = cv2.resize(matte, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(matte, 0, 1, out=matte)


def apply_output_rule(matte: Float32, preset: Preset) -> Float32:
    """Return one raw output as the preset wants it: itself, or stretched to [0, 1]."""
    if preset.output == "min-max":
        low, high = matte.min(), matte.max()
        if high - low > MIN_MAX_RANGE:
            return (matte - low) / (high - low)
    return matte


def harden(matte: Float32) -> Float32:
    """Return the matte, float32 (H, W), as 0 and 1 without specks: opened, smoothed, cut at a half, as rembg does."""
    opened = cv2.morphologyEx(matte, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    smooth = cv2.GaussianBlur(opened, (5, 5), sigmaX=2, dst=opened)
    return np.greater_equal(smooth, 0.5, out=smooth)


def cut_out(rgb: Uint8, matte: Float32) -> Uint8:
    """Return straight (not premultiplied) RGBA, uint8 (H, W, 4): the photo's own colours, the matte as alpha."""
    rgba = np.empty((*rgb.shape[:2], 4), np.uint8)
    cv2.mixChannels([rgb, to_uint8(matte)], [rgba], [0, 0, 1, 1, 2, 2, 3, 3])
    return rgba


def composite(rgb: Uint8, matte: Floats | Uint8, background: npt.ArrayLike) -> Uint8:
    """Return uint8 (H, W, 3): `rgb` over `background`, a colour or an RGB image of any size (cropped to cover).

    `matte` (H, W) is a float in [0, 1], or an alpha of uint8.
    """
    background = np.asarray(background)
    # A colour as floats of 32 bits, which all the rest is: with integers it would be 64
    background = cover(background, rgb.shape[:2]) if background.ndim == 3 else background.astype(np.float32)
    result = np.empty(rgb.shape, np.uint8)
    for rows in bands(rgb):
        band = matte[rows] / np.float32(255) if matte.dtype == np.uint8 else matte[rows].astype(np.float32)
        weight = cv2.merge([band] * 3)
        below = (background[rows] if background.ndim == 3 else background) * (1 - weight)
        result[rows] = np.rint(np.add(np.multiply(rgb[rows], weight, out=weight), below, out=weight), out=weight)
    return result


def to_uint8(matte: Floats) -> Uint8:
    """Return a float matte (H, W) or image (H, W, 3) in [0, 1] as uint8, rounded."""
    return cv2.convertScaleAbs(matte, alpha=255)


def to_uint16(matte: Float32) -> Uint16:
    """Return a float matte in [0, 1] as uint16, rounded."""
    result = np.empty(matte.shape, np.uint16)
    for rows in bands(matte):
        result[rows] = np.rint(matte[rows] * np.float32(65535))
    return result


def cover(image: Uint8, size: Sequence[int]) -> Uint8:
    """Return `image` centre-cropped to the aspect of (height, width), then scaled to that size; itself if it has it."""
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    scale = max(height / image.shape[0], width / image.shape[1])
    rows, columns = min(image.shape[0], round(height / scale)), min(image.shape[1], round(width / scale))
    rows, columns = max(1, rows), max(1, columns)
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    image = image[top : top + rows, left : left + columns]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def bands(image: npt.NDArray[np.generic]) -> Iterator[slice]:
    """Yield slices of a few rows each that cover an image (H, W, ...)."""
    height, width = image.shape[:2]
    step = max(1, _BAND_PIXELS // width)
    return (slice(top, top + step) for top in range(0, height, step))
