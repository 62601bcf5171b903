"""How good a model folder's mattes are on data with truth: an engine, a source, a table."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np

from keras_matting import metrics
from keras_matting.arrays import Float32, Float64, Floats, Uint8
from keras_matting.benchmarking.run import environment
from keras_matting.benchmarking.worker import REFERENCE, KerasBaseline
from keras_matting.data.base import Problem, Sample, Source, read_sample
from keras_matting.data.mattes import judge, tell_doubtful
from keras_matting.data.sheet import Group, contact_sheet, shrunk
from keras_matting.errors import EngineError, ImageError, MattingError, UsageError, ended, first_line
from keras_matting.files import StrPath, file_sha256, name_bytes, printable, text_bytes, write_atomically
from keras_matting.machine import usable_cores
from keras_matting.matting import Session
from keras_matting.model_folder import find_model_dir
from keras_matting.overlap import in_order
from keras_matting.photos import imaging
from keras_matting.photos.confidence import LOOK_BELOW, expected_overlap, is_unsure
from keras_matting.photos.files import Photo, encode
from keras_matting.photos.marks import marked
from keras_matting.predict import FAILURES, MAX_WORKERS

KERAS = "keras"  # instead of an engine: the Keras model itself, which needs no export
ERRORS = ("mae", "mse", "sad", "grad", "conn")
SCORES = ("miou", "miou_nonzero", "max_f")
_ROW_PX, _SHEET_PX = 210, 2600  # wide enough for twice four pictures in 3:2
_LEAST_PX = 720  # holds the legend
_BANNER_PX, _LEGEND_PX, _INK = 24, 15, (40, 40, 40)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    `summary`: "n"; the means over images of `ERRORS`, "miou" and "miou_nonzero"; "max_f" and "max_f_n", images with
    foreground; in the unknown band "band_mae" to "band_conn" and "band_n", images that have one; "unsure_n", images
    that `predict` would say to look at, "unsure_miou", and "sure_miou", that of the others. What no image has is None.
    `rows`: the same of each image, its "confidence", "stem", "width" and "height" in pixels. `problems`: what was left
    out.
    `fingerprint`: model, engine, data and environment. `worst`: `Group`s for `write_sheet`.
    """

    summary: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    problems: tuple[Problem, ...]
    fingerprint: dict[str, Any]
    worst: tuple[Group, ...] = ()


def evaluate(
    model_dir: StrPath,
    data: Source | Iterable[Sample],
    engine: str = "auto",
    *,
    band_px: float = metrics.BAND_PX,
    worst: int = 0,
    on_image: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Compare an engine's mattes with the truth; return an `Evaluation`.

    `model_dir`: folder or name. `data`: a `Source`, or `Sample`s. `engine`: a name, "auto" or "keras". Cut-outs are
    composited on one of the source's backgrounds, which their stem decides, or on white. Mattes are compared at the
    photo's size, in float32. `band_px` is how far the unknown band reaches beyond soft pixels and hard edges; the
    `worst` images by MAE are kept for the sheet; `on_image` is called after each.

    A pair that cannot be used is left out and told in `problems`. Raises `UsageError` where none is left, `EngineError`
    where the engine cannot run or gives NaN.
    """
    source = data if isinstance(data, Source) else Source("samples", "labelled", tuple(data))
    if source.kind == "unlabelled":
        raise UsageError(f"Expected photos with their truth, as in pairs:DIR; {source.name} is unlabelled.")
    model_dir = find_model_dir(model_dir) or Path(model_dir)
    judged = judge(source, with_photos=False)
    tell_doubtful(judged)
    for _ in judged.left_out:
        on_image()
    with _open(model_dir, engine) as session:
        results = _results(session, judged.source, band_px, worst > 0)
        scored, problems, groups = _gather(results, worst, on_image)
        described = {"name": session.engine.name, **session.engine.describe()}
    places = {sample.stem: place for place, sample in enumerate(source.samples)}
    unusable = sorted((*judged.left_out, *problems), key=lambda problem: places[problem.stem])
    left_out = (*source.problems, *unusable)
    if not scored:
        reason = f"the first: {left_out[0].stem}: {left_out[0].detail}" if left_out else "it is empty"
        raise UsageError(ended(f"Expected usable pairs in {source.name}; found none, {reason}"))
    fingerprint = {
        "model": asdict(session.preset),
        "engine": described,
        "data": {"name": source.name, "n": len(scored), "band_px": band_px, "sha256": _digest_of(scored)},
        "environment": environment(),
    }
    return Evaluation(_summary(scored), tuple(one.row for one in scored), left_out, fingerprint, groups)


@dataclass(frozen=True)
class _Pair:
    """A photo in memory, uint8 (H, W, 3), and its truth, uint8 (H, W)."""

    stem: str
    rgb: Uint8
    alpha: Uint8
    digest: str


_Inferred: TypeAlias = tuple[_Pair, Float32] | Problem  # with the model's own output


@dataclass(frozen=True)
class _Scored:
    """One image's figures, its precision-recall curve, what identifies its files, and its row of the sheet."""

    row: dict[str, Any]
    curve: tuple[Float64, Float64]
    digest: str
    group: Group | None = None


def _open(model_dir: Path, engine: str) -> Session:
    """Return a `Session` of an engine, or of the Keras model itself."""
    if engine != KERAS:
        return Session(model_dir, engine)
    import keras

    baseline = "keras-function" if keras.backend.backend() == "tensorflow" else REFERENCE
    return Session(model_dir, KerasBaseline(model_dir, baseline))


def _results(session: Session, source: Source, band_px: float, with_groups: bool) -> Iterator[_Scored | Problem]:
    """Yield a `_Scored` or a `Problem` for each sample, in order; reading and scoring overlap inference."""
    workers = min(MAX_WORKERS, max(2, usable_cores()))
    pairs = in_order(partial(_read, backgrounds=source.backgrounds), source.samples, workers)
    inferred = _infer(session, pairs)
    yield from in_order(partial(_score, session, band_px, with_groups), inferred, workers)


def _gather(
    results: Iterable[_Scored | Problem], worst: int, on_image: Callable[[], object]
) -> tuple[list[_Scored], list[Problem], tuple[Group, ...]]:
    """Return (all `_Scored` without pictures, problems, the `Group`s of the `worst` by MAE)."""
    scored: list[_Scored] = []
    problems: list[Problem] = []
    kept: list[_Scored] = []
    for result in results:
        if isinstance(result, Problem):
            problems.append(result)
        else:
            kept = sorted([*kept, result], key=lambda one: -one.row["mae"])[:worst]
            scored.append(replace(result, group=None))
        on_image()
    return scored, problems, tuple(one.group for one in kept if one.group)


def _read(sample: Sample, backgrounds: Sequence[Sample]) -> _Pair | Problem:
    """Return the sample's `_Pair`, or the `Problem` with it."""
    try:
        rgb, alpha = read_sample(sample)
        if alpha is None:
            raise ImageError(f"Expected a truth to compare with; {sample.image} has neither a mask nor transparency.")
        files = [sample.image]
        if sample.alpha:
            files.append(sample.alpha)
        else:
            rgb = imaging.composite(rgb, alpha / np.float32(255), _background(sample, backgrounds, files))
        return _Pair(sample.stem, rgb, alpha, " ".join(map(file_sha256, files)))
    except MattingError as error:
        return Problem("unusable pair", sample.stem, str(error))
    except FAILURES as error:
        return Problem("unusable pair", sample.stem, f"{type(error).__name__}: {first_line(error)}")


def _background(sample: Sample, backgrounds: Sequence[Sample], files: list[Path]) -> Uint8 | tuple[int, int, int]:
    """Return what a cut-out is put on, always the same; its file is added to `files`."""
    if not backgrounds:
        return imaging.PAPER, imaging.PAPER, imaging.PAPER
    chosen = backgrounds[int(sha256(name_bytes(sample.stem)).hexdigest(), 16) % len(backgrounds)]
    files.append(chosen.image)
    return read_sample(Sample(chosen.stem, chosen.image))[0]


def _infer(session: Session, pairs: Iterable[_Pair | Problem]) -> Iterator[_Inferred]:
    for pair in pairs:
        if isinstance(pair, Problem):
            yield pair
            continue
        try:
            raw_matte = session.raw_matte(Photo(pair.rgb))
        except EngineError as error:
            raise EngineError(f"{pair.stem}: {error}") from error
        if raw_matte.shape != (*session.preset.input_size, 1):
            raise UsageError(f"Expected a model that gives mattes; {session.preset.name} gives {raw_matte.shape}.")
        yield pair, raw_matte


def _score(session: Session, band_px: float, with_group: bool, inferred: _Inferred) -> _Scored | Problem:
    if isinstance(inferred, Problem):
        return inferred
    pair, raw_matte = inferred
    alpha = pair.alpha / np.float32(255)
    matte = session.restore(Photo(pair.rgb), raw_matte)
    band = metrics.unknown_band(alpha, band_px)
    whole, in_band = metrics.matting_errors(matte, alpha, [None, band])
    curve = metrics.precision_recall(matte, alpha)
    row = {
        "stem": pair.stem,
        "width": alpha.shape[1],
        "height": alpha.shape[0],
        **whole,
        "iou": metrics.iou(matte, alpha),
        "iou_nonzero": metrics.iou_nonzero(matte, alpha),
        "max_f": _max_f([curve]),
        "confidence": expected_overlap(matte),
        **{f"band_{name}": in_band[name] if band.any() else None for name in ERRORS},
    }
    group = _group(row, pair.rgb, alpha, matte) if with_group else None
    return _Scored(row, curve, pair.digest, group)


def _summary(scored: Sequence[_Scored]) -> dict[str, Any]:
    rows = [one.row for one in scored]
    with_band = [row for row in rows if row["band_mae"] is not None]
    unsure = [row for row in rows if is_unsure(row["confidence"])]
    sure = [row for row in rows if not is_unsure(row["confidence"])]
    return {
        "n": len(rows),
        **{name: _mean(rows, name) for name in ERRORS},
        "miou": _mean(rows, "iou"),
        "miou_nonzero": _mean(rows, "iou_nonzero"),
        "max_f": _max_f([one.curve for one in scored]),
        "max_f_n": sum(row["max_f"] is not None for row in rows),
        "band_n": len(with_band),
        **{f"band_{name}": _mean(with_band, f"band_{name}") for name in ERRORS},
        "unsure_n": len(unsure),
        "unsure_miou": _mean(unsure, "iou"),
        "sure_miou": _mean(sure, "iou"),
    }


def _max_f(curves: Iterable[tuple[Float64, Float64]]) -> float | None:
    """Return the maximal F-measure, or None where no image has foreground: JSON has no NaN."""
    value = metrics.max_f(*zip(*curves, strict=True))
    return None if np.isnan(value) else value


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return float(np.mean([row[name] for row in rows])) if rows else None


def _digest_of(scored: Sequence[_Scored]) -> str:
    return sha256(name_bytes("\n".join(f"{one.row['stem']} {one.digest}" for one in scored))).hexdigest()


def markdown(evaluation: Evaluation) -> str:
    """Return the summary as a Markdown table: the whole image and the unknown band."""
    summary, made_of = evaluation.summary, evaluation.fingerprint
    band = f"unknown band ({made_of['data']['band_px']} px)"
    lines = [
        f"{made_of['model']['name']} with {made_of['engine']['name']} on {made_of['data']['name']}.",
        "",
        f"| region | n | {' | '.join((*ERRORS, *SCORES))} |",
        "|---|" + "---:|" * (1 + len(ERRORS) + len(SCORES)),
        _line("whole image", summary["n"], [summary[name] for name in (*ERRORS, *SCORES)]),
        _line(band, summary["band_n"], [summary[f"band_{name}"] for name in ERRORS] + [None] * len(SCORES)),
    ]
    lines += ["", _confidence_line(summary)]
    if summary["max_f_n"] < summary["n"]:
        lines += ["", f"max_f is over the {summary['max_f_n']} images that have foreground."]
    return "\n".join(lines) + "\n"


def _confidence_line(summary: Mapping[str, Any]) -> str:
    unsure, sure = (
        f"{n} image{'' if n == 1 else 's'}" + (f", miou {miou:.4f}" if n else "")
        for n, miou in (
            (summary["unsure_n"], summary["unsure_miou"]),
            (summary["n"] - summary["unsure_n"], summary["sure_miou"]),
        )
    )
    return f"Confidence below {LOOK_BELOW}: {unsure}; the others: {sure}."


def _line(region: str, n: int, values: Iterable[float | None]) -> str:
    cells = ("-" if value is None else f"{value:.4f}" for value in values)
    return f"| {region} | {n} | {' | '.join(cells)} |"


def write_json(evaluation: Evaluation, path: StrPath) -> None:
    """Write summary, problems and fingerprint."""
    content = {
        "summary": evaluation.summary,
        "problems": [asdict(problem) for problem in evaluation.problems],
        "fingerprint": evaluation.fingerprint,
    }
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def write_csv(evaluation: Evaluation, path: StrPath) -> None:
    """Write one line an image."""
    text = io.StringIO()
    writer = csv.DictWriter(text, evaluation.rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(evaluation.rows)
    write_atomically(path, text_bytes(text.getvalue()))


def write_sheet(evaluation: Evaluation, path: StrPath) -> None:
    """Write the worst photos as PNG: photo, truth, matte, and their difference in red (too much) and blue (missing)."""
    page = contact_sheet(evaluation.worst, height_px=_ROW_PX, width_px=_SHEET_PX)
    page = cv2.copyMakeBorder(page, _BANNER_PX, 0, 0, max(0, _LEAST_PX - page.shape[1]), cv2.BORDER_REPLICATE)
    name, shown, n = evaluation.fingerprint["model"]["name"], len(evaluation.worst), evaluation.summary["n"]
    legend = f"{name}: {shown} worst of {n} by MAE: photo, truth, matte, difference (red: too much, blue: missing)"
    cv2.putText(page, printable(legend), (_BANNER_PX, _BANNER_PX), _INK, cv2.FontFace("sans"), _LEGEND_PX)
    write_atomically(path, marked(encode(page, ".png"), {"kind": "sheet"}))


def _group(row: Mapping[str, Any], rgb: Uint8, alpha: Floats, matte: Floats) -> Group:
    rgb, alpha, matte = shrunk(rgb), shrunk(alpha), shrunk(matte)
    caption = f"{row['stem']}   MAE {row['mae']:.3f}   IoU {row['iou']:.3f}"
    pictures = (rgb, imaging.to_uint8(alpha), imaging.to_uint8(matte), _difference(matte - alpha))
    return Group(caption, pictures)


def _difference(error: Floats) -> Uint8:
    """Return uint8 (H, W, 3): white where `error` is 0, towards red above and towards blue below."""
    too_much, missing = np.maximum(error, 0), np.maximum(-error, 0)
    return imaging.to_uint8(1 - np.dstack([missing, too_much + missing, too_much]))
