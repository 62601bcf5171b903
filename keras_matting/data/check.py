"""What is wrong with data, before a training finds out: every file decoded, masks judged, photos compared."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from statistics import median
from typing import Any

import cv2
import numpy as np

from keras_matting.arrays import Uint8
from keras_matting.data.base import Problem, Sample, Source, read_sample
from keras_matting.data.mattes import Look, look, together
from keras_matting.data.prepare import in_threads
from keras_matting.data.sheet import Group, on_checkerboard, shrunk
from keras_matting.errors import MattingError, first_line
from keras_matting.photos.imaging import composite

# Two photos look the same where at most so many of 64 gradient signs differ, and their 16x16 thumbnails by less than
# this mean of 255. Chosen by eye: it finds rescaled and recompressed copies, and tells apart photos of one session.
_MAX_BITS, _MAX_DIFFERENCE = 3, 4.0
_BANDS = 4  # of 16 bits: of two hashes that differ in 3 bits, at least one band is the same


@dataclass(frozen=True)
class Finding:
    """What decoding one file told. `digest`: of its pixels; `thumbnail`: uint8 (16, 16); `signs`: 64 bits, uint64."""

    source: Source
    sample: Sample
    is_background: bool = False
    problem: Problem | None = None
    look: Look | None = None
    size: tuple[int, ...] = ()
    foreground: float | None = None
    is_soft: bool = False
    digest: bytes = b""
    thumbnail: Uint8 | None = None
    signs: np.uint64 | None = None


def check(sources: Sequence[Source]) -> dict[str, list[dict[str, Any]]]:
    """Decode everything and return the report as a dictionary of plain values.

    "sources": per source its name, kind and counts, the median size (width, height), the mean share of foreground and
    the number of masks with values between 0 and 255. "problems": per finding kind, source, stem and detail. Kinds:
    those that reading the source met, as "coloured mask", and "unreadable", those of `masks.fault` (class maps by the
    whole source, too), "duplicate" (the same pixels) and "near duplicate", within a source and across them.
    """
    jobs = [(source, sample, False) for source in sources for sample in source.samples]
    jobs += [(source, sample, True) for source in sources for sample in source.backgrounds]
    findings = in_threads(lambda job: _inspect(*job), jobs, "check")
    problems = [(source, problem) for source in sources for problem in source.problems]
    problems += [(finding.source, finding.problem) for finding in findings if finding.problem]
    for source in sources:
        problems += [(source, problem) for problem in _mask_problems([one for one in findings if one.source is source])]
    problems += _duplicates([finding for finding in findings if finding.digest])
    return {
        "sources": [_counts(source, [one for one in findings if one.source is source]) for source in sources],
        "problems": [
            {"kind": problem.kind, "source": source.name, "stem": problem.stem, "detail": problem.detail}
            for source, problem in problems
        ],
    }


def sheet_groups(sources: Sequence[Source], count: int, seed: int = 0) -> list[Group]:
    """Return `count` random samples, as many of each source, as `Group`s of a contact sheet.

    A group is a photo, its alpha and its cut-out; of composites: the cut-out, its alpha, and it on a background; of
    what has no truth: the photo. They are kept at the size that a sheet needs; files that cannot be read are left out.
    """
    chosen, groups = random.Random(seed), []
    for number, source in enumerate(sources):
        share = count // len(sources) + (number < count % len(sources))
        for sample in chosen.sample(source.samples, min(share, len(source.samples))):
            background = chosen.choice(source.backgrounds) if source.backgrounds else None
            try:
                groups.append(Group(sample.stem, tuple(map(shrunk, _pictures(sample, background)))))
            except (MattingError, OSError, cv2.error):
                continue  # told by `check`
    return groups


def _pictures(sample: Sample, background: Sample | None) -> tuple[Uint8, ...]:
    rgb, alpha = read_sample(sample)
    if alpha is None:
        return (rgb,)
    shown = on_checkerboard(rgb, alpha)
    if background is None:
        return rgb, alpha, shown
    return shown, alpha, composite(rgb, alpha / np.float32(255), read_sample(background)[0])


def _inspect(source: Source, sample: Sample, is_background: bool) -> Finding:
    try:
        rgb, alpha = read_sample(sample)
    except (MattingError, OSError, cv2.error, MemoryError) as error:
        problem = Problem("unreadable", sample.stem, f"{sample.image}: {first_line(error)}")
        return Finding(source, sample, is_background, problem)
    is_cutout = source.kind == "composite" and not is_background
    height, width = rgb.shape[:2]
    digest = blake2b(f"{width}x{height}".encode(), digest_size=16)
    if is_cutout:  # compare what is seen of it, not what hides behind transparent pixels
        alpha = np.full((height, width), 255, np.uint8) if alpha is None else alpha
        rgb = composite(rgb, alpha / np.float32(255), 128)
    digest.update(rgb)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return Finding(
        source,
        sample,
        is_background,
        None,
        None if alpha is None else look(alpha),
        (width, height),
        None if alpha is None else float(alpha.mean() / 255),
        alpha is not None and bool(((alpha > 0) & (alpha < 255)).any()),
        digest.digest(),
        cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA),
        _gradient_signs(grey),
    )


def _mask_problems(findings: Sequence[Finding]) -> list[Problem]:
    """Return what is wrong with the masks of one source."""
    looks = together([finding.look for finding in findings])
    found = [(finding.sample.stem, look.fault) for finding, look in zip(findings, looks, strict=True) if look]
    return [Problem(fault[0], stem, fault[1]) for stem, fault in found if fault]


def _gradient_signs(grey: Uint8) -> np.uint64:
    """Return 64 bits: whether each of 8x8 cells is darker than its right neighbour (the "difference hash")."""
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).view(np.uint64)[0]


def _duplicates(findings: Sequence[Finding]) -> list[tuple[Source, Problem]]:
    """Return [(source, problem)] for every photo that an earlier one equals or looks like."""
    first: dict[bytes, Finding] = {}
    unique: list[Finding] = []
    problems: list[tuple[Source, Problem]] = []
    for finding in findings:
        earlier = first.setdefault(finding.digest, finding)
        if earlier is finding:
            unique.append(finding)
        elif not (finding.is_background and finding.sample.image == earlier.sample.image):  # one set used twice
            problems.append(_like("duplicate", finding, earlier))
    return problems + [_like("near duplicate", unique[late], unique[early]) for late, early in _look_alikes(unique)]


def _look_alikes(findings: Sequence[Finding]) -> list[tuple[int, int]]:
    """Return [(index, index of an earlier one that it looks like)], by the hashes' bands, so without all pairs."""
    if not findings:
        return []
    signs = np.array([finding.signs for finding in findings])
    thumbnails = np.stack([one.thumbnail for one in findings if one.thumbnail is not None]).astype(np.int16)
    earlier = np.full(len(findings), -1)
    for band in signs.view(np.uint16).reshape(-1, _BANDS).T:
        alike = defaultdict(list)
        for index, value in enumerate(band):
            alike[value].append(index)
        for indices in (np.array(group) for group in alike.values() if len(group) > 1):
            for position, early in enumerate(indices[:-1]):
                rest = indices[position + 1 :]
                rest = rest[earlier[rest] < 0]
                bits = np.unpackbits((signs[rest] ^ signs[early]).view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
                rest = rest[bits <= _MAX_BITS]
                rest = rest[np.abs(thumbnails[rest] - thumbnails[early]).mean(axis=(1, 2)) < _MAX_DIFFERENCE]
                earlier[rest] = early
    return [(int(late), int(early)) for late, early in enumerate(earlier) if early >= 0]


def _like(kind: str, finding: Finding, earlier: Finding) -> tuple[Source, Problem]:
    other = (
        earlier.sample.stem if earlier.source is finding.source else f"{earlier.sample.stem} of {earlier.source.name}"
    )
    return finding.source, Problem(kind, finding.sample.stem, other)


def _counts(source: Source, findings: Sequence[Finding]) -> dict[str, Any]:
    seen = [finding for finding in findings if finding.size and not finding.is_background]
    shares = [finding.foreground for finding in seen if finding.foreground is not None]
    return {
        "name": source.name,
        "kind": source.kind,
        "samples": len(source.samples),
        "backgrounds": len(source.backgrounds),
        "median_size": [round(median(sides)) for sides in zip(*(finding.size for finding in seen), strict=True)],
        "mean_foreground": round(sum(shares) / len(shares), 4) if shares else None,
        "soft_masks": sum(finding.is_soft for finding in seen),
    }
