"""Masks as COCO's polygons, the way Fashionpedia tells its garments."""

import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from keras_matting.arrays import Uint8
from keras_matting.files import StrPath, write_atomically

_CORNERS = 3  # of a polygon, at least


def write_outlines(
    path: StrPath, masks: Mapping[str, Uint8], category: str = "garment", tolerance_px: float = 2.0
) -> None:
    """Write masks, {file name of the photo: uint8 (H, W)}, as a COCO JSON that `fashionpedia:JSON,IMAGES` reads.

    Each mask becomes one annotation of `category`, whose polygons `outlines` draws.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, mask) in enumerate(masks.items()):
        height, width = mask.shape
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        found = outlines(mask, tolerance_px)
        annotations.append({"id": number, "image_id": number, "category_id": 1, "segmentation": found})
    categories = [{"id": 1, "name": category, "supercategory": "clothing"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_atomically(path, (json.dumps(content) + "\n").encode())


def outlines(mask: Uint8, tolerance_px: float = 2.0) -> list[list[int]]:
    """Return polygons [x, y, x, y, ...] around what is above 127 in a mask, uint8 (H, W).

    Sides are straight where that moves the outline by no more than `tolerance_px`. Holes are filled, as a polygon has
    none, and specks without a polygon of three corners are left out.
    """
    parts, _ = cv2.findContours((mask > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [cv2.approxPolyDP(part, tolerance_px, True) for part in parts]
    return [polygon.ravel().tolist() for polygon in polygons if len(polygon) >= _CORNERS]
