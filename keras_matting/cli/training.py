"""The verbs about training: `train`, `adapt`, `strip`, `experiments`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_matting.architectures import ARCHITECTURES
from keras_matting.cli.models import size
from keras_matting.cli.status import OK, say
from keras_matting.errors import UsageError
from keras_matting.model_folder import find_model_dir
from keras_matting.shipped import shipped_dir

if TYPE_CHECKING:
    from keras_matting.training.progress import Progress
    from keras_matting.training.settings import Settings


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `train`."""
    _add_run_arguments(parser)
    parser.add_argument("--model", help=", ".join(ARCHITECTURES))
    parser.add_argument("--init", metavar="MODEL", help="model folder or name, .keras (or a backbone's) or checkpoint")
    parser.add_argument("--augment", help="preset: original, custom (default), none, ...")
    parser.add_argument("--size", dest="input_size", type=size, metavar="HxW", help="default: the model's")
    parser.add_argument("--trimap-px", type=_pair, metavar="DILATE,ERODE", help="default: 25,3 at 512")
    parser.add_argument("--freeze-backbone", action="store_true", help="keep MODNet's backbone as it starts")
    parser.add_argument("--freeze-epochs", type=int, metavar="N", help="default: half, with --unfreeze-from")
    parser.add_argument("--unfreeze-from", type=int, metavar="LAYER", help="then train it from there on")


def add_adapt_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `adapt`."""
    parser.add_argument(
        "init",
        nargs="?",
        default=argparse.SUPPRESS,
        metavar="MODEL",
        help="folder, name or .keras file of a trained MODNet",
    )
    _add_run_arguments(parser)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.argument_default = argparse.SUPPRESS  # what is not given is a run's own, or as in `Settings`
    parser.add_argument("--data", action="append", metavar="SPEC", help="[KIND:]PATH[,PATH...][@WEIGHT]")
    parser.add_argument(
        "--val",
        action="append",
        metavar="[NAME=]SPEC",
        help="validation data, each judged by name (default: with --val-fraction a part of --data, else none)",
    )
    parser.add_argument(
        "--val-fraction", type=float, metavar="F", help="part of --val, or of --data, to judge by, as 0.1"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", dest="batch_size", type=int, metavar="B", help="photos a step (default: 8)")
    parser.add_argument("--steps-per-epoch", type=int, metavar="N", help="default: every sample once")
    parser.add_argument("--fraction", type=float, metavar="F", help="part of the training samples to use")
    parser.add_argument("--learning-rate", type=float, help="default: official, a tenth with --init")
    parser.add_argument("--schedule", help="step, cosine or constant (default: the official one)")
    parser.add_argument(
        "--warmup", type=int, metavar="N", help="first steps, over which the learning rate rises from 0"
    )
    parser.add_argument(
        "--ema",
        type=float,
        metavar="M",
        help="judge and keep a moving average of weights and batch norms' statistics, as 0.999",
    )
    parser.add_argument("--accumulate", type=int, metavar="N", help="batches an update (default: 1)")
    parser.add_argument(
        "--precision", help="float32 (default), mixed_bfloat16 (quick where the processor has it) or mixed_float16"
    )
    parser.add_argument("--strategy", help="none (default), mirrored (TensorFlow) or data-parallel (JAX)")
    parser.add_argument(
        "--monitor", help="what is best: val_miou (default), val_mae, val_worst_miou, val_NAME_miou, ..."
    )
    parser.add_argument("--patience", type=int, metavar="N", help="stop after N epochs that are no better")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--images-every", type=int, metavar="N", help="pictures in TensorBoard; 0: none")
    parser.add_argument("--histograms", action="store_true", help="weights' histograms in TensorBoard")
    parser.add_argument("--cache-gb", type=float, metavar="GIB", help="decoded photos kept of each set (default: 4)")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", default=False, help="continue the run in --out as it began")
    group.add_argument("--overwrite", action="store_true", default=False, help="replace the run in --out")


def train(arguments: argparse.Namespace) -> int:
    """Train or fine-tune a model."""
    return _run(arguments, {"model": "--model"}, objective="supervised")


def adapt(arguments: argparse.Namespace) -> int:
    """Adapt a trained MODNet to photos without truth."""
    return _run(arguments, {"init": "MODEL"}, objective="soc", model="modnet", augment="none")


def _run(arguments: argparse.Namespace, needed: Mapping[str, str], **fixed: Any) -> int:
    settings = _settings(arguments, {**needed, "data": "--data", "epochs": "--epochs"}, fixed)
    from keras_matting.training.run import train

    # Keras draws its bar on standard output; a log file gets lines instead.
    verbose = 1 if sys.stderr.isatty() and sys.stdout.isatty() else 2
    progress = train(settings, arguments.out, resume=arguments.resume, overwrite=arguments.overwrite, verbose=verbose)
    _tell(progress, settings, arguments.out)
    return OK


def _settings(arguments: argparse.Namespace, needed: Mapping[str, str], fixed: Mapping[str, Any]) -> Settings:
    """Return the `Settings` of a new run, or those of the one to resume with what is given instead."""
    from keras_matting.training.settings import SETTINGS_FILE, Settings

    names = {field.name for field in fields(Settings)}
    options = {name: value for name, value in vars(arguments).items() if name in names}
    if "init" in options:
        options["init"] = _start(options["init"])
    if arguments.resume and (arguments.out / SETTINGS_FILE).exists():
        return replace(Settings.load(arguments.out), **options, **fixed)
    if missing := [option for name, option in needed.items() if name not in options]:
        raise UsageError(f"Expected {', '.join(missing)}; received none. A new run in {arguments.out} needs them.")
    return Settings(**options, **fixed)


def _start(init: str) -> str:
    """Return a path as it is, and a model's name as its folder, which is looked for as `predict` does."""
    from keras_matting.weights.pretrained import PRETRAINED

    if not init or Path(init).exists():
        return init
    folder = find_model_dir(init) or shipped_dir(init)
    if folder is None and init in PRETRAINED:
        raise UsageError(
            f"Expected weights to start from; {init} is not here yet. Fetch it: keras-matting fetch {init}"
        )
    return str(folder or init)


def _tell(progress: Progress, settings: Settings, run_dir: Path) -> None:
    """Say what came of the run and what to do with it."""
    best = progress.state["best"]
    told = f", {settings.monitor} {best:.4f}" if best is not None else ""
    say(f"{run_dir}: {progress.epoch} of {settings.epochs} epochs, the best {progress.state['best_epoch']}{told}")
    say(f"keras-matting strip {run_dir} --out saved_models/NAME   makes a model folder of it")


def add_strip_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `strip`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a training run")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--name", help="the model's name (default: that of the folder)")
    parser.add_argument("--last", action="store_true", help="the last epoch's weights, not the best's")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")


def strip(arguments: argparse.Namespace) -> int:
    """Make a model folder out of a training run."""
    from keras_matting.training.strip import strip

    preset = strip(arguments.run, arguments.out, name=arguments.name, last=arguments.last, force=arguments.force)
    say(f"{arguments.run} -> {arguments.out} (weights {preset.weights_sha256[:12]}); next: keras-matting export")
    return OK


def add_experiments_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `experiments`."""
    parser.add_argument("action", choices=("run", "list"))
    parser.add_argument("experiments", nargs="*", metavar="NAME|FILE|all", help="all: those that come with the package")
    parser.add_argument("--scale", default="small", help="small (default: one to two hours on two cores) or full")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder with ccp/, garments/, ... (data)")
    parser.add_argument("--models", type=Path, default=Path("saved_models"), help="folder of the models to start from")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="folder for runs and tables")


def experiments(arguments: argparse.Namespace) -> int:
    """List the experiments, or run some and print their table."""
    from keras_matting import experiments

    if arguments.action == "list":
        for name in experiments.names():
            print(f"{name:20} {experiments.load(name).question}")
        return OK
    asked = arguments.experiments
    if not asked:
        raise UsageError(f"Expected all, a file, or names out of {', '.join(experiments.names())}; received none.")
    chosen = [experiments.load(name) for name in (experiments.names() if asked == ["all"] else asked)]
    folders = {"root": arguments.data_root, "models": arguments.models}
    rows = experiments.run(chosen, arguments.out, scale=arguments.scale, **folders)
    print(experiments.as_markdown(rows))
    return OK


def _pair(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected DILATE,ERODE in pixels, as 25,3; received {text!r}")
    dilate, erode = map(int, parts)
    return dilate, erode
