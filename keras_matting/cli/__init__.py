"""The command line: one verb per job. Each verb imports what it needs when it runs."""

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

from keras_matting import __version__
from keras_matting.cli import data, dataset, demo, engines, evaluation, models, predict, serve, training, video
from keras_matting.cli.status import INTERRUPTED, SOME_FAILED, USAGE, say, saying_what_is_logged
from keras_matting.errors import MattingError


class Verb(NamedTuple):
    """What a verb does, its options, and its function: arguments to exit status."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


VERBS = {
    "predict": Verb("matte a photo, a folder, a glob or standard input", predict.add_arguments, predict.predict),
    "video": Verb("matte a clip: WebM or MOV with alpha, MP4 on a colour, PNGs", video.add_arguments, video.video),
    "fetch": Verb("official or shipped weights into a model folder", models.add_fetch_arguments, models.fetch),
    "import": Verb(
        "any checkpoint (.pth, .ckpt, .onnx) into a model folder", models.add_import_arguments, models.import_
    ),
    "from-keras": Verb(
        "a model of keras.applications into a model folder", models.add_from_keras_arguments, models.from_keras
    ),
    "from-onnx": Verb("anybody's ONNX network into a model folder", models.add_from_onnx_arguments, models.from_onnx),
    "export": Verb("a model folder's SavedModel and ONNX file", models.add_export_arguments, models.export),
    "serve": Verb("a model over HTTP", serve.add_arguments, serve.serve),
    "demo": Verb("the whole way from nothing to cut-outs and a choice of engine", demo.add_arguments, demo.demo),
    "train": Verb("train or fine-tune a model", training.add_train_arguments, training.train),
    "adapt": Verb("adapt a trained MODNet to photos without truth", training.add_adapt_arguments, training.adapt),
    "strip": Verb("a training run into a model folder", training.add_strip_arguments, training.strip),
    "experiments": Verb(
        "the clothing project's experiments, as a table", training.add_experiments_arguments, training.experiments
    ),
    "optimize": Verb(
        "build every engine that this machine can build", engines.add_optimize_arguments, engines.optimize
    ),
    "benchmark": Verb("measure engines and choose one", engines.add_benchmark_arguments, engines.benchmark),
    "data": Verb("check data for training: files, masks, duplicates, a contact sheet", data.add_arguments, data.data),
    "dataset": Verb(
        "a folder of photos as JSON for the service, and its answers as files", dataset.add_arguments, dataset.dataset
    ),
    "evaluate": Verb("compare mattes with the truth", evaluation.add_arguments, evaluation.evaluate),
    "engines": Verb("what this machine can run, and why not the rest", engines.add_engines_arguments, engines.engines),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 if some files failed, 2 if the request cannot be met."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # its warnings repeat, less clearly, what we report
    try:
        verb, arguments = _parse(sys.argv[1:] if argv is None else argv)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)
        with saying_what_is_logged():
            return verb.run(arguments)
    except MattingError as error:
        say(f"keras-matting: {error}")
        return USAGE
    except UnicodeEncodeError as error:  # a library that takes names in UTF-8 only
        say(f"keras-matting: Expected a name in UTF-8; received {str(error.object)[:200]!r}. Rename it.")
        return USAGE
    except KeyboardInterrupt:
        say("keras-matting: interrupted; every file written so far is whole.")
        return INTERRUPTED
    except BrokenPipeError:
        return SOME_FAILED
    except OSError as error:
        say(f"keras-matting: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return USAGE


def _interrupt(*_: object) -> None:
    """End on SIGTERM as on Ctrl-C, so that files in the making are cleaned up; at once on the next."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(INTERRUPTED))
    raise KeyboardInterrupt


def _parse(argv: list[str]) -> tuple[Verb, argparse.Namespace]:
    """Return (verb, its arguments); options may stand anywhere after the verb, which argparse's subparsers refuse."""
    listing = "\n".join(f"  {name:10} {verb.help}" for name, verb in VERBS.items())
    top = argparse.ArgumentParser(
        "keras-matting",
        usage="keras-matting VERB [options]   (keras-matting VERB --help lists them)",
        description="Image matting with Keras: photos to cut-outs.",
        epilog=f"verbs:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=__version__)
    top.add_argument("verb", choices=VERBS, metavar="VERB", help=argparse.SUPPRESS)
    name = top.parse_args(argv[:1]).verb
    parser = argparse.ArgumentParser(f"keras-matting {name}", description=VERBS[name].help)
    VERBS[name].add_arguments(parser)
    words = _join_output_values(_plain_names([_with_home(word) for word in argv[1:]]))
    return VERBS[name], parser.parse_intermixed_args(words)


def _with_home(word: str) -> str:
    """Return a word with `~` as the home folder where a path begins with it: the shell does not look into quotes.

    That is at the start, or after the sign of --option=PATH, KIND:PATH or PATH,PATH.
    """
    if os.path.lexists(word):
        return word
    return re.sub(r"(?:^|(?<=[=:,]))~[\w.-]*(?=/|$)", lambda found: os.path.expanduser(found[0]), word)  # noqa: PTH111


def _plain_names(argv: list[str]) -> list[str]:
    """Turn what follows `--` into names that no parser takes for options: -a.jpg becomes ./-a.jpg."""
    if "--" not in argv:
        return argv
    index = argv.index("--")
    return argv[:index] + [f"./{word}" if word.startswith("-") and word != "-" else word for word in argv[index + 1 :]]


def _join_output_values(argv: list[str]) -> list[str]:
    """Turn `--output on-color R,G,B` into `--output on-color=R,G,B`, so that one option has one value."""
    joined: list[str] = []
    for word in argv:
        bare = joined[-1].removeprefix("--output=") if joined else None
        if bare in ("on-color", "on-image") and (bare != joined[-1] or joined[-2:-1] == ["--output"]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined
