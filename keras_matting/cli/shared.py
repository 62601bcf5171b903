"""What several verbs need: numbers on the command line, tables on standard output."""

import argparse
from collections.abc import Sequence

from keras_matting.shipped import DEFAULT_MODEL, WHOLE_SUBJECT_MODEL

MODEL_HELP = (
    f"what to cut out: {DEFAULT_MODEL} (default) clothing, {WHOLE_SUBJECT_MODEL} the whole subject (fetched at first "
    "use); or the folder of any other model"
)


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0; received {text!r}")
    return int(text)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as lines in which each column is as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
