"""The command line: one verb per job. Each verb imports what it needs when it runs."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from keras_matting import __version__
from keras_matting.errors import MattingError, UsageError

OK, SOME_FAILED, USAGE = 0, 1, 2


def main(argv=None):
    """Run a command and return the exit status: 0, 1 if some files failed, 2 if the request cannot be met."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    arguments = _parser().parse_args(_join_output_values(sys.argv[1:] if argv is None else argv))
    try:
        return arguments.run(arguments)
    except MattingError as error:
        _say(f"keras-matting: {error}")
        return USAGE
    except KeyboardInterrupt:
        _say("keras-matting: interrupted; every file written so far is whole.")
        return 130
    except BrokenPipeError:
        return SOME_FAILED


def _predict(arguments):
    from keras_matting import predict
    from keras_matting.matting import open_session

    options = _output_options(arguments)
    if arguments.input == "-":
        return _predict_stdin(arguments, options)
    jobs = predict.plan(arguments.input, arguments.output_path or "cutouts", f".{arguments.format}")
    for job in jobs:
        _check_format(options, job.target.suffix.lower())
    session = open_session(arguments.model, arguments.engine, _say)
    _say(f"{len(jobs)} photos, model {session.preset.name}, engine {session.engine.name}")
    start, failed = time.perf_counter(), 0
    with _Report(arguments.report) as report, _progress(len(jobs), arguments.quiet) as bar:
        results = predict.run(
            session, jobs, options, resume=arguments.resume, max_megapixels=arguments.max_megapixels
        )
        for result in results:
            report.add(result)
            if result.status == "failed":
                failed += 1
                bar.write(f"failed: {result.input}: {result.error}", file=sys.stderr)
            bar.update()
    seconds = time.perf_counter() - start
    outcome = f"{len(jobs) - failed} of {len(jobs)} photos in {seconds:.1f} s ({len(jobs) / seconds:.1f} images/s)"
    _say(f"{outcome} -> {arguments.output_path or 'cutouts'}")
    return SOME_FAILED if failed else OK


def _predict_stdin(arguments, options):
    from keras_matting import image_files
    from keras_matting.files import write_atomically
    from keras_matting.matting import open_session

    to_stdout = arguments.output_path in (None, "-")
    extension = f".{arguments.format}" if to_stdout else Path(arguments.output_path).suffix.lower()
    _check_format(options, extension)
    photo = image_files.decode(sys.stdin.buffer.read(), arguments.max_megapixels)
    session = open_session(arguments.model, arguments.engine, _say)
    data = image_files.encode(session.matte(photo, options), extension, photo.icc)
    if to_stdout:
        sys.stdout.buffer.write(data)
    else:
        write_atomically(arguments.output_path, data)
    return OK


def _output_options(arguments):
    from keras_matting.matting import OutputOptions, read_photo

    kind, _, value = arguments.output.partition("=")
    background = None
    if kind == "on-color":
        background = _color(value)
    elif kind == "on-image":
        background = read_photo(value or "(no file given)").rgb
    return OutputOptions(kind, background, arguments.refine, arguments.foreground)


def _color(text):
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) <= 255 for part in parts):
        raise UsageError(f"Expected a colour as R,G,B with numbers from 0 to 255; received {text!r}.")
    return tuple(int(part) for part in parts)


def _check_format(options, extension):
    """Refuse a format that cannot hold the output before any photo is read."""
    import numpy as np

    from keras_matting.image_files import encode

    shape = {"rgba": (1, 1, 4), "mask": (1, 1), "matte16": (1, 1)}.get(options.kind, (1, 1, 3))
    encode(np.zeros(shape, np.uint16 if options.kind == "matte16" else np.uint8), extension)


def _join_output_values(argv):
    """Turn `--output on-color R,G,B` into `--output on-color=R,G,B`, so that one option has one value."""
    joined = []
    for word in argv:
        if joined[-2:-1] == ["--output"] and joined[-1] in ("on-color", "on-image"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _fetch(arguments):
    from keras_matting.fetch import fetch

    out = arguments.out or Path("saved_models") / arguments.name
    fetch(arguments.name, out, arguments.file, arguments.force, _say)
    _say(f"{arguments.name} -> {out}")
    return OK


def _import(arguments):
    from keras_matting.fetch import import_file

    import_file(arguments.file, arguments.model, arguments.out, arguments.force, _say)
    _say(f"{arguments.file} -> {arguments.out}")
    return OK


def _export(arguments):
    from keras_matting.export import export

    for artefact, error in export(arguments.model_dir).items():
        _say(f"{arguments.model_dir}/{artefact}: differs from Keras by {error:.1e} at most")
    return OK


def _engines(arguments):
    from keras_matting.engines import ENGINES, unavailable_reason

    reasons = {name: unavailable_reason(name) for name in ENGINES}
    if arguments.json:
        print(json.dumps(reasons, indent=2))
    else:
        for name, reason in reasons.items():
            print(f"{name:16} {reason or 'available'}")
    return OK


class _Report:
    """A JSON Lines file that gets one line per photo; nothing if no path was given."""

    def __init__(self, path):
        self._path = path
        self._file = None

    def __enter__(self):
        if self._path:
            try:
                Path(self._path).parent.mkdir(parents=True, exist_ok=True)
                self._file = Path(self._path).open("w", encoding="utf-8")
            except OSError as error:
                raise UsageError(f"Expected to write the report {self._path}; received: {error.strerror}.") from None
        return self

    def add(self, result):
        if self._file:
            self._file.write(result.as_json() + "\n")
            self._file.flush()

    def __exit__(self, *_):
        if self._file:
            self._file.close()


def _progress(total, quiet):
    from tqdm import tqdm

    return tqdm(total=total, unit="image", disable=quiet or not sys.stderr.isatty())


def _say(message):
    print(message, file=sys.stderr, flush=True)


def _parser():
    parser = argparse.ArgumentParser("keras-matting", description="Image matting with Keras: photos to cut-outs.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_predict(verbs.add_parser("predict", help="matte a photo, a folder, a glob or standard input"))

    verb = verbs.add_parser("fetch", help="official weights into a model folder")
    verb.add_argument("name", help="u2netp, u2net, u2net_human_seg or modnet")
    verb.add_argument("--out", type=Path, help="model folder to write (default: saved_models/NAME)")
    verb.add_argument("--file", type=Path, help="the official file, if you have it already")
    verb.add_argument("--force", action="store_true", help="replace the folder if it exists")
    verb.set_defaults(run=_fetch)

    verb = verbs.add_parser("import", help="any checkpoint (.pth, .ckpt, .onnx) into a model folder")
    verb.add_argument("file", type=Path)
    verb.add_argument("--model", required=True, help="the architecture: modnet, u2net or u2netp")
    verb.add_argument("--out", type=Path, required=True, help="model folder to write")
    verb.add_argument("--force", action="store_true", help="replace the folder if it exists")
    verb.set_defaults(run=_import)

    verb = verbs.add_parser("export", help="a model folder's SavedModel and ONNX file")
    verb.add_argument("model_dir", type=Path)
    verb.set_defaults(run=_export)

    verb = verbs.add_parser("engines", help="what this machine can run, and why not the rest")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(run=_engines)
    return parser


def _add_predict(verb):
    verb.add_argument("input", metavar="INPUT", help="file, folder (its tree is kept), quoted glob, or - for stdin")
    verb.add_argument(
        "output_path",
        metavar="OUTPUT",
        nargs="?",
        help="folder, or file for one photo (default: cutouts/; stdout for -)",
    )
    verb.add_argument("--model", default="u2netp", help="model folder or name (default: u2netp; fetched at first use)")
    verb.add_argument("--engine", default="auto", help="engine, or auto (default); see: keras-matting engines")
    verb.add_argument(
        "--output",
        default="rgba",
        metavar="KIND",
        help="rgba (default), mask, matte16, on-color R,G,B or on-image FILE",
    )
    verb.add_argument("--format", default="png", choices=("png", "webp", "jpg"), help="of files in a folder")
    verb.add_argument("--foreground", action="store_true", help="estimate the subject's own colours at soft edges")
    verb.add_argument("--refine", action="store_true", help="solve the uncertain band anew at full resolution (slow)")
    verb.add_argument("--report", metavar="FILE", help="one JSON line per photo")
    verb.add_argument("--resume", action="store_true", help="skip photos whose output is there and whole")
    verb.add_argument("--max-megapixels", type=float, default=150, help="refuse larger photos (default: 150)")
    verb.add_argument("--quiet", action="store_true", help="no progress bar")
    verb.set_defaults(run=_predict)


if __name__ == "__main__":
    sys.exit(main())
