"""What of a matte is its subject: its large parts and their soft edges, without specks and haze."""

import math

import cv2
import numpy as np

from keras_matting.arrays import Bools, Float32
from keras_matting.errors import ImageError
from keras_matting.photos.framing import Box
from keras_matting.photos.imaging import bands

SUBJECT_ABOVE = 0.5
SURE_SHARE = 0.9  # of a matte's highest value: what is sure to be subject
SPECK_SHARE = 0.03  # of the largest part's sure pixels: a part that has less is a speck, or haze however large
EDGE_ABOVE = 0.1  # of an edge, what counts for the box
_REACH, _LEAST_REACH_PX = 0.02, 3  # how far from it an edge may be soft: a share of the subject's longer side


class EmptyMatteError(ImageError):
    """A matte without a subject."""


def isolate(matte: Float32) -> tuple[Float32, Box]:
    """Return the subject of a matte (H, W) in [0, 1] by itself, float32 (H, W), and the `Box` around it.

    What is not connected to a large part fades out within the reach of a soft edge. Raises `EmptyMatteError` where
    there is no subject.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((matte > SUBJECT_ABOVE).astype(np.uint8), connectivity=8)
    if count == 1:  # the ground alone
        raise EmptyMatteError(
            f"Expected a subject to frame; received an empty matte, nowhere above {SUBJECT_ABOVE:.0%}. Leave out crop, "
            "canvas and shadow, or choose another model."
        )
    sure, least = np.zeros(count, np.int64), max(SUBJECT_ABOVE, SURE_SHARE * float(matte.max()))
    for rows in bands(matte):
        sure += np.bincount(labels[rows][matte[rows] > least], minlength=count)
    is_part = sure >= max(1, sure.max() * SPECK_SHARE)
    lefts, tops, widths, heights = stats[is_part, :4].T
    longer = max((lefts + widths).max() - lefts.min(), (tops + heights).max() - tops.min())
    reach = max(_LEAST_REACH_PX, math.ceil(_REACH * longer))
    elsewhere = (~is_part).astype(np.uint8)[labels]
    del labels
    weight = cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_5)
    for rows in bands(weight):  # whole over half of the reach, then fading
        weight[rows] = matte[rows] * np.clip(2 - weight[rows] * (2 / reach), 0, 1)
    return weight, _box_of(weight > EDGE_ABOVE)


def _box_of(mask: Bools) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
