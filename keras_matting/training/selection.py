"""Which data a run learns from and is validated on."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from keras_matting.data.base import Source
from keras_matting.data.masks import COLOURED, EMPTY, WHITE
from keras_matting.data.mattes import Judgement, counted, first_names, judge, tell_doubtful
from keras_matting.data.pipeline.batches import TrainingData, numbered, validation_batches
from keras_matting.data.sources import read_sources, split
from keras_matting.errors import UsageError, ended
from keras_matting.model_folder import Preset
from keras_matting.training.progress import Fingerprint
from keras_matting.training.settings import Settings
from keras_matting.training.validation import named, source_names

if TYPE_CHECKING:
    import tensorflow as tf

SUBJECT = 0.5  # the least alpha of a mask that shows something

_LOGGER = logging.getLogger(__name__)


def select(settings: Settings) -> tuple[list[Source], list[Source]]:
    """Return (training sources, validation sources) of a run's `Settings`; log what is left out of them.

    No photo with truth is in both. What cannot be read, and photos whose mask is no matte (`mattes.judge`), are in
    neither. Raises `UsageError` where there is none left to train on, or no truth where some is needed.
    """
    sources, validation = _read(settings)
    _tell_problems((*sources, *validation))
    _require_truth(validation, "validation photos")
    if not validation:
        _LOGGER.info("no validation: the last epoch counts as the best; --val or --val-fraction judge them")
    validation = [_usable(source).source for source in validation]
    if settings.objective == "soc":
        sources = [_usable(_without_truth(source)).source for source in sources]
    else:
        _require_truth(sources, "training photos")
        judged = [_usable(source) for source in sources]
        _require_both(judged)
        sources = _apart([one.source for one in judged], validation)
    return [split(source, 1 - settings.fraction, salt="fraction")[0] for source in sources], validation


def batches(
    sources: Sequence[Source], validation: Sequence[Source], settings: Settings, preset: Preset
) -> tuple[TrainingData, tf.data.Dataset | None]:
    """Return (`TrainingData`, validation batches or None)."""
    batch_size, trimap_px = settings.batch_size, settings.trimap_px or None
    data = TrainingData(
        sources,
        preset,
        augment=settings.augment,
        batch_size=batch_size,
        seed=settings.seed,
        steps_per_epoch=settings.steps_per_epoch or None,
        cache_gb=settings.cache_gb,
        trimap_px=trimap_px,
    )
    if validation:
        names = source_names(settings.val)
        parts = [[source] for source in validation] if names else [validation]
        share_gb = settings.cache_gb / len(parts)
        sets = [
            validation_batches(part, preset, batch_size=batch_size, cache_gb=share_gb, trimap_px=trimap_px)
            for part in parts
        ]
        return data, numbered(sets) if names else sets[0]
    return data, None


def fingerprint(sources: Sequence[Source], validation: Sequence[Source]) -> Fingerprint:
    """Return how many photos there are to train and validate on, and a digest of their names."""
    parts = {"training": sources, "validation": validation}
    names = {
        part: [[sample.stem for sample in (*source.samples, *source.backgrounds)] for source in chosen]
        for part, chosen in parts.items()
    }
    training, held_out = (sum(len(source.samples) for source in chosen) for chosen in parts.values())
    digest = sha256(json.dumps(names).encode()).hexdigest()
    return {"training": training, "validation": held_out, "sha256": digest}


def require_subjects(data: TrainingData) -> None:
    """Raise `UsageError` if no mask of one epoch of `data` shows anything: a model would learn to find nothing."""
    peak = max(float(np.max(targets["alpha"])) for _, targets in islice(data.dataset(), data.steps_per_epoch))
    if not peak:
        raise UsageError("Expected masks with a subject; those of one epoch are all black. Look with data check.")
    if peak < SUBJECT:
        raise UsageError(
            f"Expected masks in 0 to 255; none of one epoch goes beyond {peak * 255:.0f}. Are they of 0 and 1, or of "
            "class ids? Write 255 where the subject is."
        )


def _read(settings: Settings) -> tuple[list[Source], list[Source]]:
    sources = read_sources(settings.data)
    if settings.val:
        validation = read_sources([spec for _, spec in named(settings.val)])
        if settings.val_fraction:
            validation = [split(source, settings.val_fraction)[1] for source in validation]
        return sources, validation
    if not settings.val_fraction:
        return sources, []
    parts = [split(source, settings.val_fraction) for source in sources]
    return [part[0] for part in parts], [part[1] for part in parts]


def _tell_problems(sources: Sequence[Source]) -> None:
    for name, problems in {source.name: source.problems for source in sources}.items():
        if problems:
            _LOGGER.warning("left out of %s: %s; data check names them", name, counted(problems))
            if coloured := [problem for problem in problems if problem.kind == COLOURED]:
                _LOGGER.warning("  %s: %s", COLOURED, first_names(coloured))


def _usable(source: Source) -> Judgement:
    """Return the source without what cannot be read or whose mask would teach something else; all is decoded for it."""
    judged = judge(source, with_photos=True)
    if judged.left_out:
        told = f"{counted(judged.left_out)}: {first_names(judged.left_out)}"
        if not judged.source.samples:
            wanted = "photos" if source.kind == "unlabelled" else "mattes"
            raise UsageError(ended(f"Expected {wanted} in {source.name}; received none: {told}"))
        _LOGGER.warning("left out of %s: %s", source.name, told)
    tell_doubtful(judged)
    return judged


def _require_both(judged: Sequence[Judgement]) -> None:
    """Raise `UsageError` if no mask has both a subject and a background: a model would learn to find none, or all."""
    if all(one.shows_nothing for one in judged):
        kinds = {problem.kind for one in judged for problem in one.doubtful}
        told = " or ".join(f"all {colour}" for kind, colour in ((EMPTY, "black"), (WHITE, "white")) if kind in kinds)
        raise UsageError(
            f"Expected masks with a subject and a background; those to train on are {told}. Look with data check."
        )


def _require_truth(sources: Sequence[Source], photos: str) -> None:
    for source in sources:
        if source.kind == "unlabelled":
            raise UsageError(f"Expected {photos} with truth; {source.name} has none. Name pairs, a list or composites.")


def _without_truth(source: Source) -> Source:
    if source.kind == "composite":
        raise UsageError(
            f"Expected photos as they are, to adapt to; {source.name} is composited. Name unlabelled photos or pairs."
        )
    bare = [replace(sample, alpha=None, origins=sample.origins[:1]) for sample in source.samples]
    return replace(source, kind="unlabelled", samples=tuple(bare))


def _apart(sources: Sequence[Source], validation: Sequence[Source]) -> list[Source]:
    """Return the sources without the photos of `validation`, by which they would be known already."""
    held_out = {sample.image.resolve() for source in validation for sample in source.samples}
    kept = [
        replace(source, samples=tuple(sample for sample in source.samples if sample.image.resolve() not in held_out))
        for source in sources
    ]
    for source, rest in zip(sources, kept, strict=True):
        if dropped := len(source.samples) - len(rest.samples):
            _LOGGER.warning("left out of %s: validation photos (%d)", source.name, dropped)
        if not rest.samples:
            raise UsageError(
                f"Expected photos to train on beside those of the validation; {source.name} has none. Take a part of "
                "them with --val-fraction, or name others."
            )
    return kept
