"""COCO's annotations: every number is checked before it is drawn, since pycocotools' C code checks none."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeAlias, TypeGuard

import numpy as np

from keras_matting.arrays import Bools, Uint8
from keras_matting.photos.files import MAX_MEGAPIXELS

READING = 3  # goes up when the same JSON gives other masks or problems: what an earlier version read is read anew
_CORNERS = 3  # of a polygon, at least

Id: TypeAlias = int | str
Fault: TypeAlias = tuple[str, str, str]  # kind, stem and detail of a `data.base.Problem`


@dataclass
class AnnotatedImage:
    """An image of the JSON and what is drawn on it: [(annotation's id, its segmentation)]."""

    file_name: str
    height: object
    width: object
    annotations: list[tuple[str, object]] = field(default_factory=list)

    @property
    def stem(self) -> str:
        """The name that samples and problems have."""
        return PurePosixPath(self.file_name).with_suffix("").as_posix()


def read(
    content: Mapping[str, Any], chosen: Collection[Id], known: Collection[Id]
) -> tuple[list[AnnotatedImage], list[Fault]]:
    """Return (`AnnotatedImage`s with an instance of the `chosen` categories, problems as (kind, stem, detail)).

    `content`: the JSON. `known`: the ids of all categories. Images are left out that are named or numbered twice, and
    those whose annotations have no segmentation; an annotation without one is not drawn where others of its image have
    one. Raises `KeyError` or `TypeError` where images or annotations are no lists.
    """
    images, problems = _images(_list(content, "images"))
    unknown: Counter[str] = Counter()
    bare: dict[Id, list[tuple[str, object]]] = defaultdict(list)
    for number, annotation in enumerate(_list(content, "annotations")):
        if not isinstance(annotation, dict):
            problems.append(("unreadable", f"annotation {number}", f"expected an object; received {annotation!r:.60}"))
            continue
        name = f"annotation {annotation.get('id', f'number {number}')!s:.60}"
        category, image = annotation.get("category_id"), annotation.get("image_id")
        if not _is_id(category) or category not in known:
            unknown[f"{category!r:.60}"] += 1
        elif category in chosen:
            if not _is_id(image) or image not in images:
                problems.append(("annotation without image", name, f"{name} is of the image {image!r:.60}"))
            elif used := images[image]:  # else its problem is told
                segmentation = annotation.get("segmentation")
                target = bare[image] if segmentation in (None, []) else used.annotations
                target.append((name, segmentation))
    for category, count in unknown.items():
        problems.append(("unknown category", category, f"{count} annotations are of category {category}: not used"))
    drawn = [image for image in images.values() if image and image.annotations]
    for key, annotations in bare.items():
        if (used := images[key]) and not used.annotations:
            names = ", ".join(name for name, _ in annotations[:3])
            problems.append(("no segmentation", used.stem, f"{names} of {used.file_name}"))
    return drawn, problems


def draw(image: AnnotatedImage) -> Uint8:
    """Return uint8 (height, width): 255 where any of the image's segmentations (polygons or run lengths) is.

    Raises `ValueError` that names the annotation which cannot be drawn.
    """
    height, width = image.height, image.width
    if not (_is_side(height) and _is_side(width)) or height * width > MAX_MEGAPIXELS * 1e6:
        first = image.annotations[0][0]
        raise ValueError(
            f"{first} is on an image of {width!r:.30}x{height!r:.30}; expected sides of at most {MAX_MEGAPIXELS} "
            "megapixels"
        )
    union = np.zeros((int(height), int(width)), bool)
    for name, segmentation in image.annotations:
        try:
            union |= _drawn(segmentation, *union.shape)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            told = f"{type(error).__name__} of {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{name}: {told}") from None
    return union * np.uint8(255)


def _drawn(segmentation: object, height: int, width: int) -> Bools:
    if isinstance(segmentation, list):
        return _of_polygons(segmentation, height, width)
    if isinstance(segmentation, dict):
        return _of_runs(segmentation, height, width)
    raise ValueError(f"expected polygons or run lengths; received {segmentation!r:.60}")


def _of_polygons(polygons: list[Any], height: int, width: int) -> Bools:
    from pycocotools import mask as coco

    reach = max(height, width)  # further out no annotator draws; nearer, pycocotools clips
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise ValueError(f"expected polygons as lists of x, y, x, y, ...; received {polygon!r:.60}")
        bad = [value for value in polygon if not _is_number(value) or not -reach <= value <= 2 * reach]
        if bad:
            raise ValueError(f"expected coordinates on an image of {width}x{height}; received {bad[0]!r:.60}")
    polygons = [polygon for polygon in polygons if len(polygon) >= 2 * _CORNERS]  # pycocotools takes 2 for a box
    if not polygons:
        raise ValueError(f"expected a polygon of {_CORNERS} points at least; received none")
    polygons = [np.array(polygon, np.float64) for polygon in polygons]
    return coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))).astype(bool)


def _of_runs(segmentation: dict[str, Any], height: int, width: int) -> Bools:
    """Draw run lengths: background and object in turn, down the columns."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    runs = _runs(counts) if isinstance(counts, (str, bytes)) else counts
    if not isinstance(runs, list) or not all(_is_whole(run) and 0 <= run <= height * width for run in runs):
        raise ValueError(f"expected run lengths of 0 to {height * width} pixels; received {counts!r:.60}")
    if size != [height, width] or sum(runs) != height * width:
        raise ValueError(f"run lengths of {sum(runs)} pixels, size {size!r:.60}, for {[height, width]}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, np.array(runs, np.int64)).reshape(width, height).T


def _runs(counts: str | bytes) -> list[int]:
    """Return the list of run lengths that COCO's compressed ones stand for.

    Five bits a character from "0" on, the low ones first; 0x20 says that more follow, 0x10 of the last is the sign.
    From the fourth on, each is the difference to the one before last (`rleFrString` in COCO's maskApi.c).
    """
    codes = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    starts = np.flatnonzero(np.r_[True, codes[:-1] & 0x20 == 0])
    lengths = np.diff(np.r_[starts, len(codes)])
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20 or shifts.max() > 30:
        raise ValueError("damaged run lengths")
    runs = np.add.reduceat((codes & 0x1F) << shifts, starts)
    runs -= np.where(codes[starts + lengths - 1] & 0x10, 1 << (5 * lengths), 0)
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return runs.tolist()


def _images(entries: Iterable[object]) -> tuple[dict[Id, AnnotatedImage | None], list[Fault]]:
    """Return ({id: `AnnotatedImage`, or None where it is not to be used}, problems)."""
    images: dict[Id, AnnotatedImage | None] = {}
    problems: list[Fault] = []
    by_name: dict[str, list[Id]] = defaultdict(list)
    for number, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        key, file_name = entry.get("id"), entry.get("file_name")
        name = f"image {key if _is_id(key) else f'number {number}'}"
        if not _is_id(key) or not isinstance(file_name, str) or not PurePosixPath(file_name).name:
            problems.append(("unreadable", name, f"{name} needs an id and a file_name; it has {file_name!r:.60}"))
            image = None
        else:
            image = AnnotatedImage(file_name, entry.get("height"), entry.get("width"))
            by_name[file_name].append(key)
        if _is_id(key) and key in images:
            stem = (image or images[key] or AnnotatedImage(name, 0, 0)).stem
            problems.append(("same id", stem, f"{name} is there twice: which one is annotated?"))
            image = None
        if _is_id(key):
            images[key] = image
    for file_name, keys in by_name.items():
        if len(set(keys)) > 1:
            stem = AnnotatedImage(file_name, 0, 0).stem
            problems.append(("same name", stem, f"{file_name} is the images {', '.join(map(str, keys[:5]))}"))
            images.update(dict.fromkeys(keys))
    return images, problems


def _list(content: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(content[name], list):
        raise TypeError(f"{name} is no list")
    return content[name]


def _is_id(value: object) -> TypeGuard[Id]:
    return isinstance(value, (int, str))


def _is_side(value: object) -> TypeGuard[float]:
    return _is_whole(value) and value > 0


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: object) -> TypeGuard[float]:
    return _is_number(value) and abs(value) < 2**53 and value == int(value)
