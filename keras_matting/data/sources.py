"""Where samples come from: folders, annotated sets, lists and cut-outs, read into one shape (no framework here)."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from keras_matting.data.annotations import read_ccp, read_fashionpedia
from keras_matting.data.base import Problem, Sample, Source, read_sample
from keras_matting.data.layouts import Found, read_list, read_pairs, read_photos
from keras_matting.data.prepare import prepare
from keras_matting.errors import UsageError, ended
from keras_matting.files import StrPath, name_bytes
from keras_matting.model_folder import models_home

__all__ = ["Problem", "Sample", "Source", "read_sample", "read_source", "read_sources", "split"]

GRAMMAR = "[KIND:]PATH[,PATH...][@WEIGHT]"


def read_sources(specs: Iterable[str], cache_dir: StrPath | None = None, *, allow_empty: bool = False) -> list[Source]:
    """Return the `Source` of each spec, as `--data` takes several; see `read_source`."""
    return [read_source(spec, cache_dir, allow_empty=allow_empty) for spec in specs]


def read_source(spec: str, cache_dir: StrPath | None = None, *, allow_empty: bool = False) -> Source:
    """Read the data that a spec names into a `Source`, by its files' headers.

    `spec`: `[KIND:]PATH[,PATH...][@WEIGHT]`, of kind

    - `pairs` (the default): a folder with `image/` and `mask/`, matched by stem;
    - `ccp`: Clothing Co-Parsing, as such pairs or as published, with .mat label maps;
    - `fashionpedia`: a COCO-style JSON, the folder of its images, and categories (default: all garments of
      Fashionpedia, or the only one);
    - `list`: a .csv or .jsonl file with the columns image and, where there is truth, alpha;
    - `composite`: a folder of RGBA cut-outs, and one of backgrounds;
    - `unlabelled`: a folder of photos.

    Files that do not fit are left out and told in `problems`. Annotations and what TensorFlow could not read are
    decoded once, into `cache_dir` (default: in `models_home()`). Raises `UsageError` on a spec that gives nothing;
    with `allow_empty`, only where there are no problems to tell either.
    """
    name, kind, paths, weight = _parse(str(spec))
    cache_dir = Path(cache_dir) if cache_dir else models_home() / "data-cache"
    source = replace(_KINDS[kind](paths, cache_dir), name=name, weight=weight)
    is_empty = not source.samples or (source.kind == "composite" and not source.backgrounds)
    if is_empty and not (allow_empty and source.problems):
        raise UsageError(_nothing_usable(source))
    return source


def split(source: Source, validation_fraction: float, salt: str = "") -> tuple[Source, Source]:
    """Return (train, validation), two sources that share no sample and no background.

    A stem's hash decides, so files added later move none of those that were there. Each side gets at least one
    sample; only where that rule chose it may a later file change it. Another `salt` is another split. Raises
    `UsageError` on a fraction outside [0, 1), or where there is one sample only.
    """
    if not 0 <= validation_fraction < 1:
        raise UsageError(f"Expected a validation fraction from 0 to below 1; received {validation_fraction}.")
    samples, backgrounds = (
        _split(files, validation_fraction, salt, source.name) for files in (source.samples, source.backgrounds)
    )
    train, validation = (
        replace(source, samples=files, backgrounds=photos) for files, photos in zip(samples, backgrounds, strict=True)
    )
    return train, validation


def _split(
    samples: tuple[Sample, ...], fraction: float, salt: str, name: str
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    if not fraction or not samples:
        return samples, ()
    if len(samples) < 2:
        raise UsageError(f"Expected 2 files at least to split {name}; received 1. Name validation data of its own.")
    places = {sample.stem: _place(sample.stem, salt) for sample in samples}
    bound = max(fraction, min(places.values()) + 2**-48)  # so that one file is below it
    validation = [sample for sample in samples if places[sample.stem] < bound]
    if len(validation) == len(samples):
        validation.remove(max(samples, key=lambda sample: places[sample.stem]))
    chosen = {sample.stem for sample in validation}
    return tuple(sample for sample in samples if sample.stem not in chosen), tuple(validation)


def _place(stem: str, salt: str) -> float:
    """Return a number in [0, 1) that the stem and the salt decide."""
    return int.from_bytes(sha256(name_bytes(f"{salt}\0{stem}")).digest()[:6], "big") / 2**48


def _parse(spec: str) -> tuple[str, str, str, float]:
    """Return (name, kind, paths as text, weight) of a spec; the name is the spec without its weight."""
    head, sign, tail = spec.rpartition("@")
    name, weight = spec, 1.0
    is_path = "/" in tail or "," in tail or Path(spec.partition(":")[2] or spec).exists()  # whose name has an @
    if sign and not is_path:
        name = head
        try:
            weight = float(tail)
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise UsageError(f"Expected a weight above 0 after the @ of {spec!r}; received {tail!r}.")
    kind, sign, path = name.partition(":")
    if not sign or Path(name).exists():
        kind, path = "pairs", name
    if kind not in _KINDS:
        raise UsageError(f"Expected data as {GRAMMAR}, KIND one of {', '.join(_KINDS)}; received {name!r}.")
    if not path:
        raise UsageError(f"Expected a path after the kind: {GRAMMAR}; received {spec!r}.")
    return name, kind, path, weight


def _nothing_usable(source: Source) -> str:
    if not source.problems:
        return f"Expected photos in {source.name}; found none."
    first = source.problems[0]
    return ended(
        f"Expected usable photos in {source.name}; found {len(source.problems)} with problems and no other, "
        f"the first: {first.kind}, {first.detail or first.stem}"
    )


def _source(found: Found, cache_dir: Path, **options: bool) -> Source:
    samples, problems = found
    samples, misfits = prepare(samples, cache_dir, **options)
    labelled = bool(samples) and samples[0].alpha is not None
    return Source("", "labelled" if labelled else "unlabelled", tuple(samples), problems=(*problems, *misfits))


def _composite(paths: str, cache_dir: Path) -> Source:
    folders = paths.split(",")
    if len(folders) != 2:
        raise UsageError(f"Expected composite:RGBA_DIR,BACKGROUNDS_DIR; received {paths!r}.")
    cutouts = _source(read_photos(folders[0]), cache_dir, cutouts=True)
    photos = _source(read_photos(folders[1]), cache_dir)
    problems = (*cutouts.problems, *photos.problems)
    return Source("", "composite", cutouts.samples, photos.samples, problems=problems)


def _fashionpedia(paths: str, cache_dir: Path) -> Source:
    json_path, *rest = paths.split(",")
    if not rest:
        raise UsageError(f"Expected fashionpedia:JSON,IMAGES[,CATEGORY...]; received {paths!r}.")
    return _source(read_fashionpedia(json_path, rest[0], rest[1:], cache_dir), cache_dir)


_KINDS: dict[str, Callable[[str, Path], Source]] = {
    "pairs": lambda path, cache_dir: _source(read_pairs(path), cache_dir),
    "ccp": lambda path, cache_dir: _source(read_ccp(path, cache_dir), cache_dir),
    "fashionpedia": _fashionpedia,
    "list": lambda path, cache_dir: _source(read_list(path), cache_dir),
    "composite": _composite,
    "unlabelled": lambda path, cache_dir: _source(read_photos(path), cache_dir),
}
