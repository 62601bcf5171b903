"""Masks as polygons, and back."""

import cv2
import numpy as np

from keras_matting.data.outlines import outlines, write_outlines
from keras_matting.data.sources import read_sample, read_source


def shapes(height=60, width=80):
    """A disc and a square, apart."""
    mask = cv2.circle(np.zeros((height, width), np.uint8), (25, 30), 18, 255, -1)
    mask[10:40, 55:75] = 255
    return mask


def test_what_is_written_is_read_as_the_same_mask_but_for_the_tolerance(tmp_path):
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/one.jpg"), np.dstack([shapes()] * 3))
    write_outlines(tmp_path / "outlines.json", {"one.jpg": shapes()})
    source = read_source(f"fashionpedia:{tmp_path}/outlines.json,{tmp_path}/photos", tmp_path / "cache")
    assert not source.problems
    _, alpha = read_sample(source.samples[0])
    differs = alpha != shapes()
    edge = cv2.morphologyEx(shapes(), cv2.MORPH_GRADIENT, np.ones((7, 7), np.uint8)) > 0
    assert not differs[~edge].any()
    assert differs.mean() < 0.05


def test_sides_are_straight_within_the_tolerance():
    disc, square = sorted(outlines(shapes()), key=len, reverse=True)
    assert sorted(zip(square[::2], square[1::2], strict=True)) == [(55, 10), (55, 39), (74, 10), (74, 39)]
    assert 12 <= len(disc) < len(max(outlines(shapes(), tolerance_px=0.1), key=len))


def test_specks_without_a_polygon_are_left_out():
    mask = np.zeros((20, 20), np.uint8)
    mask[3, 3] = mask[10, 5:8] = 255
    assert outlines(mask) == []
