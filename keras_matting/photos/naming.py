"""What the outputs of photos are called: each its own name, also on disks that take several names for one."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from keras_matting.files import StrPath


def outputs(root: Path, photos: Sequence[Path], target: Path, extension: str) -> list[Path]:
    """Return an output for each photo, no two the same: a.png, or a.jpg.png where several would be called so.

    Names that differ in case only, or in how an accent is written, are the same on some disks, and so they are here.
    `extension` may be "", for outputs whose kind is not known yet.
    """
    chosen = [(target / photo.relative_to(root)).with_suffix(extension) for photo in photos]
    while clashing := _clashing(chosen):
        longer = [
            output.with_name(photo.name + extension) if name_key(output) in clashing else output
            for photo, output in zip(photos, chosen, strict=True)
        ]
        if longer == chosen:
            return _numbered(chosen, extension)
        chosen = longer
    return chosen


def name_key(path: StrPath) -> str:
    """Return what is the same of two paths that are one on a disk without case or with accents of its own."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _clashing(paths: Sequence[Path]) -> set[str]:
    """Return the keys of the paths that several share, or that are another's folder."""
    counts = Counter(map(name_key, paths))
    folders = {name_key(folder) for parent in {path.parent for path in paths} for folder in (parent, *parent.parents)}
    return {key for key, count in counts.items() if count > 1 or key in folders}


def _numbered(paths: Sequence[Path], extension: str) -> list[Path]:
    taken, numbered = set(), []
    for path in paths:
        name, number = path, 1
        while name_key(name) in taken:
            number += 1
            name = path.with_name(f"{path.name.removesuffix(extension)}-{number}{extension}")
        taken.add(name_key(name))
        numbered.append(name)
    return numbered
