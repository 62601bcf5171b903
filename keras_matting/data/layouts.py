"""How files lie on disk: folders of pairs, folders of photos, lists. Each is read into (samples, problems)."""

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from keras_matting.data.base import Problem, Sample
from keras_matting.errors import UsageError
from keras_matting.files import StrPath
from keras_matting.photos.files import EXTENSIONS
from keras_matting.photos.folders import LeftOut, list_folder

Found: TypeAlias = tuple[list[Sample], list[Problem]]
IMAGE_FOLDERS = ("image", "images")
MASK_FOLDERS = ("mask", "masks", "alpha")


def require_folder(path: StrPath) -> Path:
    """Return `path` as a `Path`; raises `UsageError` unless it is a folder."""
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"Expected a folder of data; {path} {'is a file' if path.exists() else 'does not exist'}.")
    return path


def files_by_stem(folder: Path, extensions: Collection[str] = EXTENSIONS) -> tuple[dict[str, Path], list[Problem]]:
    """Return ({stem: path} in order, problems) of the files below a folder; a stem keeps its subfolders.

    Hidden files are left out. Of files that differ in their extension only, the first is taken.
    """
    listing = list_folder(folder, extensions, once=False)
    found: dict[str, Path] = {}
    problems = [_problem(one, folder) for one in listing.left_out if _is_told(one, extensions)]
    for path in listing.photos:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            problems.append(Problem("same name", stem, f"{path} is left out for {found[stem].name}"))
        else:
            found[stem] = path
    return found, problems


def _is_told(left_out: LeftOut, extensions: Collection[str]) -> bool:
    """Tell whether a file that is not read is a problem: a picture beside label maps is none."""
    return left_out.kind == "unreadable" or extensions is EXTENSIONS


def _problem(left_out: LeftOut, folder: Path) -> Problem:
    name = left_out.path.relative_to(folder)
    stem = name.with_suffix("").as_posix() if name.name else folder.name
    if left_out.kind == "format":
        return Problem("other format", stem, f"{left_out.path}: {left_out.reason} is not read")
    return Problem("unreadable", stem, f"{left_out.path}: {left_out.reason}")


def read_photos(folder: StrPath) -> Found:
    """Return (samples without truth, problems) of a folder."""
    found, problems = files_by_stem(require_folder(folder))
    return [Sample(stem, path) for stem, path in found.items()], problems


def read_pairs(folder: StrPath) -> Found:
    """Return (samples, problems) of a folder with `image/` and `mask/`, matched by stem.

    Of several folders for one of the two, as `mask/` and `alpha/`, the first is read, and the others are problems.
    """
    folder = require_folder(folder)
    (images, other_images), (masks, other_masks) = _subfolder(folder, IMAGE_FOLDERS), _subfolder(folder, MASK_FOLDERS)
    if not images or not masks:
        raise UsageError(
            f"Expected folders {IMAGE_FOLDERS[0]} and {MASK_FOLDERS[0]} in {folder}; it has neither or only one. "
            "For photos without masks write unlabelled:DIR; other layouts have kinds of their own, as ccp:DIR."
        )
    samples, problems = matched(*files_by_stem(images), *files_by_stem(masks))
    return samples, [*(_with_outlines(problem, masks) for problem in problems), *other_images, *other_masks]


def matched(
    images: Mapping[str, Path],
    image_problems: Sequence[Problem],
    masks: Mapping[str, Path],
    mask_problems: Sequence[Problem],
) -> Found:
    """Return (samples, problems) of {stem: photo} and {stem: mask}; what lacks its other half is a problem."""
    problems = [*image_problems, *mask_problems]
    problems += [Problem("image without mask", stem, str(images[stem])) for stem in images if stem not in masks]
    problems += [Problem("mask without image", stem, str(masks[stem])) for stem in masks if stem not in images]
    return [Sample(stem, path, masks[stem]) for stem, path in images.items() if stem in masks], problems


def read_list(path: StrPath) -> Found:
    """Return (samples, problems) of a CSV or JSONL file with the columns image and alpha (or mask).

    Paths are relative to the list's folder. Either every row has an alpha, or none has; columns that might stand for it
    are problems. Raises `UsageError`.
    """
    path = Path(path)
    rows = _rows(path)
    images = [row.get("image", "") for row in rows]
    alphas = [row.get("alpha") or row.get("mask") for row in rows]
    if not rows:
        raise UsageError(f"Expected rows with a column image in {path}; it has no rows.")
    if not all(images):
        found = ", ".join(map(str, rows[_first_empty(images) - 1])) or "none"
        raise UsageError(
            f"Expected rows with a column image in {path}; row {_first_empty(images)} has none, its columns: {found}."
        )
    if any(alphas) and not all(alphas):
        raise UsageError(
            f"Expected an alpha in every row of {path}, or in none; row {_first_empty(alphas)} has none. "
            "Put unlabelled photos into a list of their own."
        )
    if other := next((value for value in (*images, *alphas) if value and not isinstance(value, str)), None):
        raise UsageError(f"Expected paths under image and alpha in {path}; received {other!r}.")
    samples: dict[str, Sample] = {}
    columns = dict.fromkeys(name for row in rows for name in row if name)
    problems = [
        Problem("unknown column", name, f"{path} has no column alpha or mask, and its column {name} is not read")
        for name in columns
        if name != "image" and not {"alpha", "mask"} & columns.keys()
    ]
    for image, alpha in zip(images, alphas, strict=True):
        truth = path.parent / alpha if alpha else None
        sample = Sample(Path(image).with_suffix("").as_posix(), path.parent / image, truth)
        missing = [file for file in (sample.image, sample.alpha) if file and not file.is_file()]
        if missing:
            problems.append(Problem("missing file", sample.stem, str(missing[0])))
        elif sample.stem in samples:
            problems.append(Problem("same name", sample.stem, f"{image} is named twice, or in two formats"))
        else:
            samples[sample.stem] = sample
    return list(samples.values()), problems


def _subfolder(folder: Path, names: Sequence[str]) -> tuple[Path | None, list[Problem]]:
    """Return the first of the folders that is there, and the others as problems."""
    there = [folder / name for name in names if (folder / name).is_dir()]
    others = [
        Problem("other folder", one.name, f"{one} is left out for {there[0].name}: name pairs of it in a list")
        for one in there[1:]
    ]
    return there[0] if there else None, others


def _with_outlines(problem: Problem, masks: Path) -> Problem:
    """Return the problem; where the mask that lacks is there as the JSON of an outlining tool, it says so."""
    outlines = masks / f"{problem.stem}.json"
    if problem.kind != "image without mask" or not outlines.is_file():
        return problem
    return replace(problem, detail=f"{outlines} is not read: export it as a picture, white where the subject is")


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a list as dictionaries with lower-case keys."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            rows = list(csv.DictReader(text.splitlines(), restkey="", skipinitialspace=True))
        elif path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            raise UsageError(f"Expected a list as .csv or .jsonl; received {path}.")
        return [{str(key).strip().lower(): value for key, value in row.items()} for row in rows]
    except OSError as error:
        raise UsageError(f"Expected a list of photos in {path}; received: {error.strerror}.") from None
    except (ValueError, AttributeError, csv.Error) as error:
        raise UsageError(f"Expected {path} to hold one row or one JSON object a line; received: {error}.") from None


def _first_empty(values: Sequence[object]) -> int:
    return next((number for number, value in enumerate(values, 1) if not value), 1)
