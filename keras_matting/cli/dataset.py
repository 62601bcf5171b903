"""The verb `dataset`: a folder of photos as JSON for the service, and back."""

from pathlib import Path

from keras_matting.cli.status import OK, SOME_FAILED, say


def add_arguments(parser):
    """Declare the options of `dataset`."""
    parser.add_argument("job", choices=("to-json", "from-json"), help="a folder into JSON, or JSON into a folder")
    parser.add_argument("source", help="to-json: folder of photos; from-json: .json, .ndjson, .jsonl")
    parser.add_argument("target", type=Path, help="to-json: .json, .ndjson, .jsonl; from-json: folder")
    parser.add_argument(
        "--photos", metavar="DIR", help="from-json: the folder that to-json read, for its names instead of ids"
    )
    parser.add_argument("--overwrite", action="store_true", help="from-json: replace files that are there")


def dataset(arguments):
    """Convert; return 1 if an item has no image, or a photo could not be read."""
    from keras_matting.files import printable
    from keras_matting.json_photos import read_json, write_json

    unreadable, target = [], printable(arguments.target)

    def tell(listing):
        unreadable.extend(listing.unreadable)
        for line in listing.told():
            say(line)

    if arguments.job == "to-json":
        report, noun = write_json(arguments.source, arguments.target, tell), "photos"
    else:
        options = {"overwrite": arguments.overwrite}
        report, noun = read_json(arguments.source, arguments.target, arguments.photos, **options), "images"
    for name, reason in report.failed.items():
        say(f"{name}: {reason}")
    say(f"{report.written} {noun} -> {target}")
    return SOME_FAILED if report.failed or unreadable else OK
