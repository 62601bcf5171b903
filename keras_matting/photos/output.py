"""Matte -> what was asked for: a mask, a cut-out, the subject on a background; framed as shop pictures are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from keras_matting.arrays import Float32, Uint8, Uint8Or16
from keras_matting.photos import colour_profiles, files, imaging, marks, placing, refine
from keras_matting.photos.confidence import expected_overlap
from keras_matting.photos.files import Photo
from keras_matting.photos.framing import Box
from keras_matting.photos.marks import Mark
from keras_matting.photos.options import Options
from keras_matting.photos.subject import isolate


class Finished(NamedTuple):
    """An output, where in the upright photo its subject is, and how sure the matte was, as the model gave it.

    `box`: None of an output that is not framed. `confidence`: as `photos.confidence` counts it, from 0 to 1.
    """

    image: Uint8Or16
    box: Box | None
    confidence: float


def finish(
    photo: Photo, matte: Float32, options: Options, check_size: Callable[[int, int], object] | None = None
) -> Finished:
    """Return the output for a photo and its matte, float32 (H, W) in [0, 1]: uint8, or uint16 for "matte16".

    Its colours are in `output_profile(photo, options)`. A shadow belongs to outputs with colours: masks are framed
    alike, and are the subject's alone. `check_size(width, height)` may raise what it likes of a framed output, before
    its pixels are made. Raises `MattingError` where the photo cannot be framed as asked: there is no subject, above
    all.
    """
    # What the photo hides is not taken, what it half shows is no doubt of the model's
    sure = expected_overlap(matte if photo.alpha is None else np.where(photo.alpha > 0, matte, np.float32(0)))
    if options.refine:
        thresholds = options.refine if isinstance(options.refine, refine.Thresholds) else None
        matte = refine.refine_matte(imaging.on_paper(photo), matte, thresholds)
    if options.harden:
        matte = imaging.harden(matte)
    matte = imaging.within_alpha(matte, photo)
    box, placement, placed = None, None, matte
    if options.framing:
        matte, box = isolate(matte)
        placement = options.framing.place(box, *matte.shape)
        if check_size:
            check_size(placement.size[1], placement.size[0])
        placed = placing.place_matte(matte, placement)
    if options.kind == "mask":
        return Finished(imaging.to_uint8(placed), box, sure)
    if options.kind == "matte16":
        return Finished(imaging.to_uint16(placed), box, sure)
    rgb = refine.estimate_foreground(photo.rgb, matte) if options.foreground else photo.rgb
    if options.framing and placement:
        rgb = placing.place_colours(rgb, matte, placement)
        if options.framing.shadow:
            rgb, placed = placing.add_shadow(rgb, placed, placement.subject)
    if options.kind == "rgba":
        return Finished(imaging.cut_out(rgb, placed), box, sure)
    return Finished(_on_background(replace(photo, rgb=rgb), placed, options), box, sure)


def encoded(finished: Finished, photo: Photo, options: Options, extension: str, mark: Mark) -> bytes:
    """Return the file that an output of a photo is: in its colour profile, with its mark and its confidence in that."""
    data = files.encode(finished.image, extension, output_profile(photo, options))
    return marks.marked(data, mark | {"confidence": finished.confidence})


def output_profile(photo: Photo, options: Options) -> bytes | None:
    """Return the ICC profile (bytes, or None for sRGB) of what `options` make of a photo: its own, if that can be.

    A background is a colour or picture that is seen as it is, so where the photo's profile cannot hold it, the photo
    is converted to sRGB instead.
    """
    background = options.background
    if photo.icc is None or background is None or options.kind not in ("on-color", "on-image"):
        return photo.icc
    colour = None if isinstance(background, Photo) else np.asarray(background)
    if colour is not None and colour.ndim == 3:
        colour = None
    return photo.icc if colour_profiles.can_hold(photo.icc, colour) else None


def _on_background(photo: Photo, matte: Float32, options: Options) -> Uint8:
    """Return the photo over the background, both in the output's profile."""
    icc = output_profile(photo, options)
    rgb = colour_profiles.convert(photo.rgb, photo.icc, icc)
    own = None
    if isinstance(options.background, Photo):
        background, own = imaging.on_paper(options.background), options.background.icc
    else:
        background = np.asarray(options.background, np.uint8)
    if background.ndim == 3:
        background = imaging.cover(background, rgb.shape[:2])
        return imaging.composite(rgb, matte, colour_profiles.convert(background, own, icc))
    return imaging.composite(rgb, matte, colour_profiles.convert(background[None, None], own, icc)[0, 0])
