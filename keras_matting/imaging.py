"""Photo -> model tensor -> matte at full size -> cut-out (NumPy and OpenCV)."""

import cv2
import numpy as np

from keras_matting.errors import UsageError

_INTERPOLATIONS = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}
# Below this range a map is constant but for noise, and stretching it would invent a subject.
MIN_MAX_RANGE = 1e-6
PAPER = 255  # hidden or see-through pixels of a photo are shown to the model on white, as shops photograph


def prepare(photo, preset):
    """Return the model's input for a photo: float32 (height, width, 3), sized and normalised as `preset` says.

    A photo with alpha is composited on white first: what its transparent pixels hide is not to be matted.
    """
    rgb = on_paper(photo)
    height, width = preset.input_size
    image = cv2.resize(rgb, (width, height), interpolation=_INTERPOLATIONS[preset.interpolation])
    # The official scripts divide by the maximum of the resized image; 255 stands in for an all-black one.
    divisor = float(image.max() or 255) if preset.scale == "image-max" else 255.0
    std = np.asarray(preset.std, np.float32)
    scale = 1 / (divisor * std)
    offset = np.asarray(preset.mean, np.float32) / std
    return image * scale.astype(np.float32) - offset


def on_paper(photo):
    """Return the photo's uint8 (H, W, 3) as it looks: itself, or on white where it has alpha."""
    return photo.rgb if photo.alpha is None else composite(photo.rgb, photo.alpha / np.float32(255), PAPER)


def within_alpha(matte, photo):
    """Return the matte times the photo's own alpha, if it has one: what was transparent stays so."""
    return matte if photo.alpha is None else matte * (photo.alpha / np.float32(255))


def restore(matte, photo, preset):
    """Return the photo's matte, float32 (H, W) in [0, 1], from the model's (height, width, 1).

    Applies the preset's output rule, then scales to the photo's size. A constant map stays what it is under
    "min-max", where the official script divides 0 by 0. Raises `UsageError` where the model gave no map: a classifier.
    """
    if np.ndim(matte) != 3 or np.shape(matte)[-1] != 1:
        raise UsageError(f"Expected a model that gives a matte; {preset.name} gives {np.shape(matte)}. Choose another.")
    matte = apply_output_rule(np.asarray(matte, np.float32), preset)[..., 0]
    height, width = photo.rgb.shape[:2]
    return np.clip(cv2.resize(matte, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)


def apply_output_rule(matte, preset):
    """Return one raw output as the preset wants it: itself, or stretched to [0, 1]."""
    if preset.output == "min-max":
        low, high = matte.min(), matte.max()
        if high - low > MIN_MAX_RANGE:
            return (matte - low) / (high - low)
    return matte


def harden(matte):
    """Return the matte, float32 (H, W), as 0 and 1 without specks: opened, smoothed, cut at a half, as rembg does."""
    opened = cv2.morphologyEx(matte, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    return (cv2.GaussianBlur(opened, (5, 5), sigmaX=2) >= 0.5).astype(np.float32)


def cut_out(rgb, matte):
    """Return straight (not premultiplied) RGBA, uint8 (H, W, 4): the photo's own colours, the matte as alpha."""
    return cv2.merge([*cv2.split(rgb), to_uint8(matte)])


def composite(rgb, matte, background):
    """Return uint8 (H, W, 3): `rgb` over `background`, a colour or an RGB image of any size (cropped to cover)."""
    background = np.asarray(background)
    if background.ndim == 3:
        background = _cover(background, rgb.shape[:2])
    matte = matte[..., None].astype(np.float32)
    return np.rint(rgb * matte + background * (1 - matte)).astype(np.uint8)


def to_uint8(matte):
    """Return a float matte (H, W) or image (H, W, 3) in [0, 1] as uint8, rounded."""
    return cv2.convertScaleAbs(matte, alpha=255)


def to_uint16(matte):
    """Return a float matte in [0, 1] as uint16, rounded."""
    return np.rint(matte * 65535.0).astype(np.uint16)


def _cover(image, size):
    """Centre-crop `image` to the aspect of (height, width), then scale it to that size."""
    height, width = size
    scale = max(height / image.shape[0], width / image.shape[1])
    rows, columns = min(image.shape[0], round(height / scale)), min(image.shape[1], round(width / scale))
    rows, columns = max(1, rows), max(1, columns)
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    image = image[top : top + rows, left : left + columns]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
