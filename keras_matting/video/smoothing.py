"""Against flicker: MODNet's one-frame delay (Ke et al., "MODNet: Real-Time Trimap-Free Portrait Matting", 2022).

A pixel of a matte that differs from the frames before and after it, which agree, is taken for a flicker, and becomes
their mean. Beyond the paper, a sliver of such pixels is left alone where the photo before and after differs: an edge
that has moved through is no flicker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from keras_matting.arrays import Float32, Uint8
from keras_matting.photos import imaging
from keras_matting.photos.files import Photo
from keras_matting.video.reading import Frame

SMOOTHINGS = ("off", "ofd")
TOLERANCE = 0.05  # within which mattes agree; the paper has 0.1
PHOTO_TOLERANCE = 6  # of 255, between photos whose noise is averaged out
_NOISE_PX = 5  # of the window that averages it
_SLIVER = 1 / 30  # of a matte's height: what is narrower may be the way of an edge


def one_frame_delay(
    pairs: Iterable[tuple[Frame, Float32]], tolerance: float = TOLERANCE
) -> Iterator[tuple[Frame, Float32]]:
    """Yield (frame, matte) for each that comes, one frame later, its matte without flicker.

    Mattes are the model's, float32 (h, w, 1). The first and the last frame stay what they are.
    """
    window: deque[tuple[Frame, Float32, Uint8]] = deque(maxlen=3)
    for frame, matte in pairs:
        window.append((frame, matte, _thumbnail(frame.photo, matte.shape)))
        if len(window) == 2:
            yield window[0][:2]
        elif len(window) == 3:
            yield window[1][0], _without_flicker([one[1] for one in window], window[0][2], window[2][2], tolerance)
    if len(window) > 1:
        yield window[-1][:2]
    elif window:
        yield window[0][:2]


def _without_flicker(mattes: Sequence[Float32], photo_before: Uint8, photo_after: Uint8, tolerance: float) -> Float32:
    before, matte, after = (one[..., 0] for one in mattes)
    differs = (
        (np.abs(before - after) <= tolerance)
        & (np.abs(matte - before) > tolerance)
        & (np.abs(matte - after) > tolerance)
    )
    width = max(1, round(len(matte) * _SLIVER))
    wide = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    is_no_sliver = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_OPEN, wide) > 0
    is_still = cv2.absdiff(photo_before, photo_after).max(-1) <= PHOTO_TOLERANCE
    return np.where(differs & (is_no_sliver | is_still), (before + after) / 2, matte)[..., None]


def _thumbnail(photo: Photo, shape: Sequence[int]) -> Uint8:
    """Return the photo in a matte's size, uint8 (h, w, 3), without its noise."""
    small = cv2.resize(imaging.on_paper(photo), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return cv2.blur(small, (_NOISE_PX, _NOISE_PX))
