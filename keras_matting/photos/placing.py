"""Shop pictures, the pixels: a photo and its matte resampled onto a canvas, and a soft shadow below the subject.

Colours are resampled in linear light and weighted by the matte, so that neither the old background's colour nor black
gets into edges; where nothing is scaled, pixels are copied.
"""

from __future__ import annotations

import cv2
import numpy as np

from keras_matting.arrays import Float32, Uint8
from keras_matting.photos.framing import Box, Placement
from keras_matting.photos.imaging import bands

# Of the shadow: (opacity, blur, how far it falls), the latter two as shares of the subject's longer side. Two and a
# half blurs and the fall are within `framing._SHADOW_REACH`.
_SHADOW = ((0.28, 0.006, 0.005), (0.24, 0.02, 0.02))
_BLUR_PX = 4  # a wider one is blurred at a smaller scale
_FAINT = np.float32(1 / 4096)  # the weight of colours that cannot be seen: they stay the photo's, and are not black
_STEPS = np.arange(256, dtype=np.float32) / 255
_TO_LINEAR = np.where(_STEPS <= 0.04045, _STEPS / 12.92, ((_STEPS + 0.055) / 1.055) ** 2.4).astype(np.float32)


def place_matte(matte: Float32, placement: Placement) -> Float32:
    """Return the matte (H, W) in [0, 1] on the canvas, float32; 0 around the box."""
    box, target = placement.box, placement.target
    canvas = np.zeros(placement.size, np.float32)
    canvas[target.slices] = np.clip(_resized(matte[box.slices], target), 0, 1)
    return canvas


def place_colours(rgb: Uint8, matte: Float32, placement: Placement) -> Uint8:
    """Return the colours uint8 (H, W, 3) of a photo with this matte on the canvas; black around the box."""
    box, target = placement.box, placement.target
    canvas = np.zeros((*placement.size, 3), np.uint8)
    colours, within = rgb[box.slices], canvas[target.slices]
    if (box.width, box.height) == (target.width, target.height):
        within[:] = colours
        return canvas
    weight = matte[box.slices] + _FAINT
    total = np.maximum(_resized(weight, target), _FAINT / 2)
    for channel in range(3):
        light = _TO_LINEAR[colours[..., channel]]
        light *= weight
        light = _resized(light, target)
        light /= total
        within[..., channel] = _encoded(light)
    return canvas


def add_shadow(rgb: Uint8, matte: Float32, subject: Box) -> tuple[Uint8, Float32]:
    """Return colours and alpha, as `rgb` and `matte` are, of the subject with a soft black shadow behind it.

    `subject`: its place, whose size decides that of the shadow.
    """
    longer = max(subject.width, subject.height)
    clear = np.ones(matte.shape, np.float32)  # what of the background comes through the shadow
    for opacity, blur, fall in _SHADOW:
        clear *= 1 - np.float32(opacity) * _blurred(matte, blur * longer, fall * longer)
    alpha, colours = np.empty_like(matte), np.empty_like(rgb)
    for rows in bands(matte):
        alpha[rows] = 1 - (1 - matte[rows]) * clear[rows]
        share = matte[rows] / np.maximum(alpha[rows], _FAINT)
        colours[rows] = np.rint(rgb[rows] * share[..., None])
    return colours, alpha


def _blurred(matte: Float32, blur: float, fall: float) -> Float32:
    """Return the matte moved down and blurred by so many pixels (the standard deviation), at its size."""
    height, width = matte.shape
    shrink = max(1.0, blur / _BLUR_PX)
    small_size = max(1, round(width / shrink)), max(1, round(height / shrink))
    small = cv2.resize(matte, small_size, interpolation=cv2.INTER_AREA) if shrink > 1 else matte
    down = np.array([[1, 0, 0], [0, 1, fall * small_size[1] / height]], np.float32)
    moved = cv2.warpAffine(small, down, small_size, borderMode=cv2.BORDER_CONSTANT)
    soft = cv2.GaussianBlur(moved, (0, 0), max(blur / shrink, 0.1), borderType=cv2.BORDER_CONSTANT)
    return cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR) if shrink > 1 else soft


def _resized(plane: Float32, target: Box) -> Float32:
    """Return values (H, W) at the target's size: means where they get fewer, bicubic where they get more."""
    size = (target.width, target.height)
    if size == plane.shape[::-1]:
        return plane
    shrinks = target.width < plane.shape[1] or target.height < plane.shape[0]
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _encoded(light: Float32) -> Uint8:
    """Return linear light (H, W) as the numbers of sRGB."""
    result = np.empty(light.shape, np.uint8)
    for rows in bands(light):
        band = np.clip(light[rows], 0, 1)
        curve = 1.055 * np.power(band, np.float32(1 / 2.4)) - 0.055
        result[rows] = np.rint(255 * np.where(band <= 0.0031308, band * 12.92, curve))
    return result
