"""Annotated sets: Fashionpedia's polygons and run lengths, and Clothing Co-Parsing's label maps, decoded once.

What comes out are 8-bit masks in the cache folder, 255 on clothing, so that all else sees photos and alpha files only.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from keras_matting.arrays import Uint8
from keras_matting.data import coco
from keras_matting.data.base import Problem, Sample
from keras_matting.data.layouts import Found, files_by_stem, matched, read_pairs, require_folder
from keras_matting.data.prepare import cached, in_threads
from keras_matting.errors import UsageError, first_line
from keras_matting.files import StrPath, write_atomically
from keras_matting.machine import missing_package
from keras_matting.photos.files import encode

# Fashionpedia (Jia et al. 2020), 46 categories: garments and accessories, and parts of these, drawn on top again.
GARMENTS = (
    *("shirt, blouse", "top, t-shirt, sweatshirt", "sweater", "cardigan", "jacket", "vest", "pants", "shorts", "skirt"),
    *("coat", "dress", "jumpsuit", "cape", "glasses", "hat", "headband, head covering, hair accessory", "tie", "glove"),
    *("watch", "belt", "leg warmer", "tights, stockings", "sock", "shoe", "bag, wallet", "scarf", "umbrella"),
)
PART_SUPERCATEGORIES = ("garment parts", "closures", "decorations")
PARTS = (
    *("hood", "collar", "lapel", "epaulette", "sleeve", "pocket", "neckline", "buckle", "zipper", "applique", "bead"),
    *("bow", "flower", "fringe", "ribbon", "rivet", "ruffle", "sequin", "tassel"),
)
# Clothing Co-Parsing (Yang, Luo, Lin 2014), label_list.mat: 59 labels, of which these are no clothing.
CCP_LABELS = 59
CCP_NOT_CLOTHING = {"null": 0, "hair": 19, "skin": 41}
_CCP_MASKS = Path("annotations") / "pixel-level"


def read_ccp(folder: StrPath, cache_dir: Path) -> Found:
    """Return (samples, problems) of Clothing Co-Parsing: folder pairs, or `photos/` and `annotations/pixel-level/`.

    Photos without a label map (about half of the original set has none) are not used.
    """
    folder = require_folder(folder)
    if not (folder / "photos").is_dir():
        return read_pairs(folder)
    _require("scipy", "Label maps (.mat)")
    images, image_problems = files_by_stem(folder / "photos")
    labels, label_problems = files_by_stem(require_folder(folder / _CCP_MASKS), (".mat",))
    images = {stem: path for stem, path in images.items() if stem in labels}

    def decode(stem: str) -> Path | Problem:
        try:
            return cached(labels[stem], "ccp clothing", cache_dir, lambda: encode(_ccp_mask(labels[stem]), ".png"))
        except Exception as error:  # SciPy raises whatever its parser stumbles over
            return Problem("unreadable", stem, f"{labels[stem]}: {first_line(error)}")

    decoded = dict(zip(labels, in_threads(decode, labels, "label maps"), strict=True))
    masks = {stem: mask for stem, mask in decoded.items() if not isinstance(mask, Problem)}
    damaged = [mask for mask in decoded.values() if isinstance(mask, Problem)]
    for problem in damaged:
        images.pop(problem.stem, None)
    return matched(images, image_problems, masks, [*label_problems, *damaged])


def read_fashionpedia(json_path: StrPath, images: StrPath, categories: Sequence[str], cache_dir: Path) -> Found:
    """Return (samples, problems) of a COCO-style JSON: the union of an image's instances is its alpha.

    `categories`: names, or those parts of names that commas separate ("shirt" of "shirt, blouse"); none: the only one
    there is, or, where they are Fashionpedia's, all but the parts of garments. Images without an instance of them are
    not used, nor those with an annotation that cannot be drawn: each is told. The JSON is read once for these
    categories; later runs read the cache's index. Raises `UsageError` on a JSON of another shape, on an unknown
    category, and where none is named though others are there.
    """
    json_path, images = Path(json_path), require_folder(images)
    if not json_path.is_file():
        raise UsageError(f"Expected annotations in {json_path}; there is no such file.")
    stat = json_path.stat()
    wanted = sorted(name.strip().casefold() for name in categories)
    key = json.dumps([str(json_path.resolve()), stat.st_size, stat.st_mtime_ns, wanted, coco.READING])
    folder = cache_dir / f"fashionpedia-{sha256(key.encode()).hexdigest()[:16]}"
    if not (folder / "index.json").is_file():
        _require("pycocotools", "COCO annotations")
        _decode(json_path, wanted, folder)
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    problems = [Problem(*fields) for fields in index["problems"]]
    samples = []
    for file_name, mask in index["masks"].items():
        stem = Path(file_name).with_suffix("").as_posix()
        if _is_file(images / file_name):
            samples.append(Sample(stem, images / file_name, folder / mask))
        else:
            problems.append(Problem("mask without image", stem, f"{images / file_name} does not exist"))
    return sorted(samples, key=lambda sample: sample.stem), problems


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _decode(json_path: Path, wanted: Sequence[str], folder: Path) -> None:
    """Write the masks of all images into `folder`, and at last the index that says that they are complete."""
    try:
        content = json.loads(json_path.read_bytes())
        chosen, known = _chosen_categories(content["categories"], wanted, json_path)
        annotated, problems = coco.read(content, chosen, known)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"Expected {json_path} to be COCO-style JSON with images, annotations and categories; "
            f"received: {first_line(error)} ({type(error).__name__})."
        ) from None

    def write(numbered: tuple[int, coco.AnnotatedImage]) -> coco.Fault | None:
        number, image = numbered
        target = folder / f"{number:06}.png"
        if target.is_file():  # from a run that was interrupted
            return None
        try:
            mask = coco.draw(image)
        except (ValueError, MemoryError) as error:
            return "unreadable", image.stem, f"{image.file_name} in {json_path.name}: {first_line(error)}"
        write_atomically(target, encode(mask, ".png"))
        return None

    failures = in_threads(write, list(enumerate(annotated)), "annotations")
    masks = {
        image.file_name: f"{number:06}.png"
        for number, (image, failure) in enumerate(zip(annotated, failures, strict=True))
        if not failure
    }
    index = {"masks": masks, "problems": [*problems, *(failure for failure in failures if failure)]}
    write_atomically(folder / "index.json", json.dumps(index).encode())


def _chosen_categories(
    categories: Sequence[dict[str, Any]], wanted: Sequence[str], json_path: Path
) -> tuple[set[coco.Id], dict[coco.Id, str]]:
    """Return the ids of the wanted categories, with {id: name} of all."""
    names = {category["id"]: category["name"] for category in categories}
    aliases = {number: _aliases(name) for number, name in names.items()}
    if not wanted:
        clothing = set().union(*map(_aliases, GARMENTS))
        chosen = {category["id"] for category in categories if not _is_part(category)}
        if len(names) > 1 and not all(aliases[number] & clothing for number in chosen):
            raise UsageError(
                f"Expected the categories of {json_path.name} that are the subject, as they are not Fashionpedia's: "
                f"fashionpedia:JSON,IMAGES,CATEGORY... Received none; there are {'; '.join(names.values())}."
            )
        return chosen, names
    if unknown := set(wanted).difference(*aliases.values()):
        raise UsageError(
            f"Expected categories of {json_path.name}: {'; '.join(names.values())}. "
            f"Received {', '.join(sorted(unknown))}."
        )
    return {number for number, known in aliases.items() if known.intersection(wanted)}, names


def _aliases(name: str) -> set[str]:
    """Return the names that a category answers to: its own, and what commas separate in it."""
    return {part.strip().casefold() for part in (name, *name.split(","))}


def _is_part(category: dict[str, Any]) -> bool:
    supercategory = category.get("supercategory")
    return supercategory in PART_SUPERCATEGORIES if supercategory else category["name"] in PARTS


def _ccp_mask(path: Path) -> Uint8:
    from scipy.io import loadmat

    labels = loadmat(path, variable_names=["groundtruth"]).get("groundtruth")
    if labels is None or labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise UsageError("expected integer labels (H, W) under the name groundtruth")
    if labels.size and not 0 <= labels.min() <= labels.max() < CCP_LABELS:
        raise UsageError(f"expected labels from 0 to {CCP_LABELS - 1}; received {labels.min()} to {labels.max()}")
    return np.where(np.isin(labels, list(CCP_NOT_CLOTHING.values())), 0, 255).astype(np.uint8)


def _require(package: str, purpose: str) -> None:
    if reason := missing_package(package, "train"):
        raise UsageError(f"{purpose} cannot be read: {reason}")
