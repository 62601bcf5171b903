"""A photo in memory."""

from __future__ import annotations

from dataclasses import dataclass

from keras_matting.arrays import Uint8


@dataclass(frozen=True)
class Photo:
    """An upright photo: `rgb` uint8 (H, W, 3); `alpha` uint8 (H, W) where the file has one; its RGB `icc` profile."""

    rgb: Uint8
    alpha: Uint8 | None = None
    icc: bytes | None = None
