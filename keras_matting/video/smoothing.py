"""Against flicker: MODNet's one-frame delay (Ke et al., "MODNet: Real-Time Trimap-Free Portrait Matting", 2022).

A pixel of a matte that differs from the frames before and after it, which agree, is taken for a flicker, and becomes
their mean. Beyond the paper, the photo has to agree there, too: an edge that moves through a pixel within a frame or
two is no flicker.
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
    before, matte, after = mattes
    is_flicker = (
        (np.abs(before - after) <= tolerance)
        & (np.abs(matte - before) > tolerance)
        & (np.abs(matte - after) > tolerance)
        & (cv2.absdiff(photo_before, photo_after).max(-1, keepdims=True) <= PHOTO_TOLERANCE)
    )
    return np.where(is_flicker, (before + after) / 2, matte)


def _thumbnail(photo: Photo, shape: Sequence[int]) -> Uint8:
    """Return the photo in a matte's size, uint8 (h, w, 3), without its noise."""
    small = cv2.resize(imaging.on_paper(photo), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return cv2.blur(small, (_NOISE_PX, _NOISE_PX))
