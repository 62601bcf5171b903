"""A clip whose true alpha is known: a garment moves over a still ground, and single frames are recorded badly.

The garments are samples that come with the package (CC0), cut out by the model and hardened: what is composited of them
is the truth by construction. The grounds are other samples, out of focus.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from keras_matting.matting import OutputOptions
from keras_matting.photos import imaging
from keras_matting.photos.files import Photo
from keras_matting.photos.samples import FOLDER, named_photos

# How the names of a garment and of its ground begin
SCENES = {"skirt": ("085469ab", "09caea91"), "trousers": ("0c99f0b4", "1d2e0956"), "t-shirt": ("2a9b33f5", "3cf61c2b")}
SIZE = (320, 320)
GARMENT_PX = 190
STEP_PX = 3  # a frame
GROUND_BLUR_PX = 12
BAD_EVERY = 4


def compressed(frame, random):
    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 6])[1], cv2.IMREAD_COLOR)


def out_of_focus(frame, random):
    return cv2.GaussianBlur(frame, (0, 0), 5)


def noisy(frame, random):
    return np.clip(frame + random.normal(0, 40, frame.shape), 0, 255).astype(np.uint8)


def overexposed(frame, random):
    return np.clip(frame * 2.2 + 30, 0, 255).astype(np.uint8)


FAULTS = {"compressed": compressed, "out of focus": out_of_focus, "noisy": noisy, "overexposed": overexposed}


@dataclass
class MadeClip:
    """`frames`, uint8 (N, H, W, 3), and `alphas`, float32 (N, H, W): the truth."""

    frames: np.ndarray
    alphas: np.ndarray

    def recorded(self, fault):
        """Return the frames with every fourth of them spoilt; fault: one of `FAULTS`."""
        random = np.random.default_rng(0)
        frames = list(self.frames)
        for index in bad_frames(len(frames)):
            frames[index] = FAULTS[fault](frames[index], random)
        return np.stack(frames)


def bad_frames(count):
    """Return which frames are recorded badly, never the first or the last."""
    return range(2, count - 1, BAD_EVERY)


def made_clip(session, scene, count, size=SIZE, step_px=STEP_PX):
    """Return a `MadeClip` of `count` frames, (height, width) in size; the session cuts out the garment."""
    photos = named_photos(FOLDER / "gate")
    garment, ground = (next(photos[name] for name in photos if name.startswith(start)) for start in SCENES[scene])
    mask = session.matte(garment, OutputOptions("mask", harden=True))
    left, top, width, height = cv2.boundingRect(mask)
    scale = GARMENT_PX / max(width, height) * size[0] / SIZE[0]
    rgb, alpha = (
        cv2.resize(
            image[top : top + height, left : left + width], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        for image in (garment.rgb, mask)
    )
    ground = cv2.GaussianBlur(imaging.cover(ground.rgb, size), (0, 0), GROUND_BLUR_PX)
    frames, alphas = [], []
    for index in range(count):
        below, right = size[0] // 5, size[1] // 16 + index * step_px
        place = (slice(below, below + alpha.shape[0]), slice(right, right + alpha.shape[1]))
        shown = alpha[:, : max(0, size[1] - right)]
        full, colours = np.zeros(size, np.uint8), np.zeros((*size, 3), np.uint8)
        full[place], colours[place] = shown, rgb[:, : shown.shape[1]]
        frames.append(imaging.composite(colours, full, ground))
        alphas.append(full / np.float32(255))
    return MadeClip(np.stack(frames), np.stack(alphas))


def raw_mattes(session, frames):
    """Return the model's mattes, float32 (N, h, w, 1)."""
    return np.concatenate([session.predict(session.prepare(Photo(frame))[None]) for frame in frames])
