"""What several verbs need: numbers on the command line, tables on standard output, how a run goes."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_matting.files import printable
from keras_matting.shipped import DEFAULT_MODEL, WHOLE_SUBJECT_MODEL

if TYPE_CHECKING:
    from tqdm import tqdm

    from keras_matting.photos.options import Options
    from keras_matting.photos.stretches import Stretch
    from keras_matting.predict import Result

MODEL_HELP = (
    f"what to cut out: {DEFAULT_MODEL} (default) clothing, {WHOLE_SUBJECT_MODEL} the whole subject (fetched at first "
    "use); or the folder of any other model"
)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what chooses the model and the engine."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help=MODEL_HELP)
    parser.add_argument("--engine", default="auto", help="engine, or auto (default); see: keras-matting engines")


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0; received {text!r}")
    return int(text)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as lines in which each column is as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


NAMED = 5  # of the photos that somebody should look at


class Tally:
    """How many photos came to what, why outputs that were there were made anew, and how fast; its text says so.

    `unsure`: (confidence, output) of those files that somebody should look at; `untold`: how many were skipped that say
    nothing of it.
    """

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.unsure: list[tuple[float, str]] = []
        self.untold = 0
        self._anew: Counter[str] = Counter()
        self._start = time.perf_counter()

    def add(self, result: Result) -> None:
        """Count a result."""
        self.statuses[result.status] += 1
        if result.status != "failed" and result.anew:
            self._anew[result.anew] += 1
        self.untold += result.status == "skipped" and result.confidence is None
        if result.output is not None and result.confidence is not None and result.is_unsure:
            self.unsure.append((result.confidence, result.output))

    def __str__(self) -> str:
        seconds = time.perf_counter() - self._start
        outcome = ", ".join(f"{count} {status}" for status, count in sorted(self.statuses.items()))
        if self._anew:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self._anew.items()))
            outcome += f" ({self._anew.total()} made anew: {reasons})"
        return f"{outcome} in {seconds:.1f} s ({self.statuses['done'] / seconds:.1f} images/s)"


def to_look_at(tally: Tally, report: str | None) -> Iterator[str]:
    """Yield the lines that name the least sure of the outputs that somebody should look at; none if there are none."""
    if tally.untold:
        yield f"how sure {tally.untold} of those skipped are is not known: an earlier version made them"
    unsure = sorted(tally.unsure)
    if not unsure:
        return
    told = tally.statuses["done"] + tally.statuses["skipped"] - tally.untold
    yield f"look at {len(unsure)} of {told}, the least sure first:"
    for confidence, output in unsure[:NAMED]:
        yield f"  {printable(output)}: {in_words(confidence)}"
    if len(unsure) > NAMED:
        where = f"see {printable(report)}" if report else "--resume --report FILE tells of all"
        yield f"  and {len(unsure) - NAMED} more: {where}"


def frames_to_look_at(found: Sequence[Stretch], frames: int, place: Callable[[Stretch], str]) -> Iterator[str]:
    """Yield the lines that name the least sure stretches of a clip or stream of `frames`; none if there are none.

    `found`: the least sure first. `place` returns where one is.
    """
    if not found:
        return
    yield f"look at {sum(stretch.frames for stretch in found)} of {frames} frames, the least sure first:"
    for stretch in found[:NAMED]:
        yield f"  {place(stretch)}: {in_words(stretch.confidence)}"
    if len(found) > NAMED:
        yield f"  and {len(found) - NAMED} more such places"


def in_words(confidence: float) -> str:
    """Return how sure a matte is."""
    return f"confidence {confidence:.3f}" if confidence else "nothing was taken"


def check_format(options: Options, extension: str) -> None:
    """Refuse a format that cannot hold the output before any photo is read."""
    import numpy as np

    from keras_matting.photos.files import encode

    shape = {"rgba": (1, 1, 4), "mask": (1, 1), "matte16": (1, 1)}.get(options.kind, (1, 1, 3))
    encode(np.zeros(shape, np.uint16 if options.kind == "matte16" else np.uint8), extension)


def progress(total: int | None, quiet: bool) -> tqdm[Any]:
    """Return a bar on standard error, of images; `total` is None where nobody knows it."""
    from tqdm import tqdm

    return tqdm(total=total, unit="image", disable=quiet or not sys.stderr.isatty())
