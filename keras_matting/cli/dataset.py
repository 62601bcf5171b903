"""The verb `dataset`: a folder of photos as JSON for the service, and back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from keras_matting.cli.status import OK, SOME_FAILED, say

if TYPE_CHECKING:
    from keras_matting.photos.folders import LeftOut, Listing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dataset`."""
    parser.add_argument("job", choices=("to-json", "from-json"), help="a folder into JSON, or JSON into a folder")
    parser.add_argument("source", help="to-json: folder of photos; from-json: .json, .ndjson, .jsonl")
    parser.add_argument("target", type=Path, help="to-json: .json, .ndjson, .jsonl; from-json: folder")
    parser.add_argument(
        "--photos", metavar="DIR", help="from-json: the folder that to-json read, for its names instead of ids"
    )
    parser.add_argument("--overwrite", action="store_true", help="from-json: replace files that are there")


def dataset(arguments: argparse.Namespace) -> int:
    """Convert; return 1 if an item has no image, or a photo could not be read."""
    from keras_matting.files import printable
    from keras_matting.json_photos import read_json, write_json

    target = printable(arguments.target)
    unreadable: list[LeftOut] = []

    def tell(listing: Listing) -> None:
        unreadable.extend(listing.unreadable)
        for line in listing.told():
            say(line)

    if arguments.job == "to-json":
        report, noun = write_json(arguments.source, arguments.target, tell), "photos"
    else:
        report = read_json(arguments.source, arguments.target, arguments.photos, overwrite=arguments.overwrite)
        noun = "images"
    for name, reason in report.failed.items():
        say(f"{name}: {reason}")
    say(f"{report.written} {noun} -> {target}")
    return SOME_FAILED if report.failed or unreadable else OK
