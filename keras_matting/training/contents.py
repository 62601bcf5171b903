"""What the files of a run's data hold, so that it goes on with the same: `contents.json` in its folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from keras_matting.data.base import Sample, Source
from keras_matting.data.prepare import in_threads
from keras_matting.errors import UsageError
from keras_matting.files import file_sha256, write_atomically

CONTENTS_FILE = "contents.json"
NAMES_SHOWN = 3
_DIGITS = 16  # of a digest

# [stem, the photo's digest, its mask's] of each photo to train on, and of each to validate on
Contents: TypeAlias = dict[str, list[list[str]]]


def read_contents(sources: Sequence[Source], validation: Sequence[Source]) -> Contents:
    """Return the `Contents` of a run's sources: digests of the files as they were found, whatever is made of them."""
    parts = {"training": sources, "validation": validation}
    return {
        part: in_threads(
            _digests, [one for source in chosen for one in (*source.samples, *source.backgrounds)], "files"
        )
        for part, chosen in parts.items()
    }


def save_contents(run_dir: Path, contents: Contents) -> None:
    """Write what the run learns from into its folder."""
    write_atomically(run_dir / CONTENTS_FILE, json.dumps(contents).encode())


def require_same_contents(run_dir: Path, contents: Contents) -> None:
    """Raise `UsageError` that names the files which hold something else than when the run began.

    The names of `contents` are those of the run. A run of an earlier version has no record of what they held.
    """
    path = run_dir / CONTENTS_FILE
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            f"{noun} {now[0]}"
            for part, entries in contents.items()
            for before, now in zip(earlier[part], entries, strict=True)
            for noun, one, other in zip(("photo", "mask"), before[1:], now[1:], strict=False)
            if one != other
        ]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"Expected {path} as this run wrote it; received: {error}. Start the run anew.") from None
    if changed:
        names = ", ".join(changed[:NAMES_SHOWN])
        more = f", and {len(changed) - NAMES_SHOWN} more" if len(changed) > NAMES_SHOWN else ""
        raise UsageError(
            f"--resume continues a run on the same photos and masks; other than when it began: {names}{more}. Put them "
            "back, or start another run with --init and this run's best.keras."
        )


def _digests(sample: Sample) -> list[str]:
    files = sample.origins or tuple(path for path in (sample.image, sample.alpha) if path)
    return [sample.stem, *(file_sha256(path)[:_DIGITS] for path in files)]
