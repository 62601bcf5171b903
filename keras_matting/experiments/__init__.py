"""The clothing project's experiments: JSON files beside this one, run at a small or the full scale, told as a table."""

import csv
import io
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from keras_matting.errors import UsageError
from keras_matting.files import StrPath, write_atomically
from keras_matting.training.progress import BEST_FILE, Progress
from keras_matting.training.run import train
from keras_matting.training.settings import SETTINGS_FILE, Settings

_LOGGER = logging.getLogger(__name__)

# What a scale fixes for every experiment. Small: one to two hours on two cores in all. Full: a GPU, original sizes.
SCALES: dict[str, dict[str, Any]] = {
    "small": {
        "input_size": (160, 160),
        "epochs": 3,
        "steps_per_epoch": 40,
        "batch_size": 8,
        "schedule": "constant",
        "images_every": 0,
    },
    "full": {"epochs": 40, "batch_size": 8, "patience": 10},
}
TABLE_FILE = "experiments"
COLUMNS = ("experiment", "question", "start val_miou", "val_miou", "start val_mae", "val_mae", "best epoch", "minutes")


@dataclass(frozen=True)
class Experiment:
    """A question and the settings that answer it; `{root}`, `{runs}` and `{models}` stand for folders."""

    name: str
    question: str
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", str(self.name)):  # it names the run's folder
            raise ValueError(f"name {self.name!r}, not letters, digits, '_', '-' and '.'")


def names() -> list[str]:
    """Return the names of the experiments that come with the package, those that others start from first."""
    found = sorted(path.stem for path in Path(__file__).parent.glob("*.json"))
    return sorted(found, key=lambda name: (name != "pretrain", name != "transfer"))


def load(name_or_file: str) -> Experiment:
    """Read an experiment by its name or from a JSON file; raises `UsageError` if it is none."""
    path = Path(name_or_file)
    if name_or_file in names():
        path = Path(__file__).parent / f"{name_or_file}.json"
    try:
        return Experiment(**json.loads(path.read_text(encoding="utf-8")))
    except OSError:
        raise UsageError(f"Expected an experiment out of {', '.join(names())}, or a file; received {path}.") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"Expected {path} to be JSON with name, question and settings; received: {error}.") from None


def run(
    experiments: Iterable[Experiment],
    out_dir: StrPath,
    *,
    root: StrPath,
    models: StrPath = "saved_models",
    scale: str = "small",
) -> list[dict[str, Any]]:
    """Run experiments and write `experiments.csv` and `.md` into `out_dir` after each; return the table's rows.

    `root`: the folder with the data that the experiments name. An experiment that is there already is taken as it is,
    one that was cut off is continued, and one with the settings of another is not run twice: so they can be stopped and
    started again. Raises `UsageError` on an unknown scale, or a start whose experiment was not run before.
    """
    if scale not in SCALES:
        raise UsageError(f"Expected a scale out of {', '.join(SCALES)}; received {scale!r}.")
    out_dir, rows = Path(out_dir), []
    done: dict[Settings, str] = {}  # which experiment has run with them
    for experiment in experiments:
        settings = settings_of(experiment, scale, root=root, runs=out_dir, models=models)
        _require_start(experiment, settings, out_dir)
        if settings in done:
            _LOGGER.info("%s: as %s", experiment.name, done[settings])
        else:
            done[settings] = experiment.name
            _LOGGER.info("%s: %s", experiment.name, experiment.question)
            _run(settings, out_dir / experiment.name)
        rows.append(_row(experiment, settings, out_dir / done[settings]))
        write_table(rows, out_dir / TABLE_FILE)
    return rows


def settings_of(experiment: Experiment, scale: str, **folders: StrPath) -> Settings:
    """Return the experiment's `Settings` at a scale, with its folders filled in."""
    filled = json.loads(_fill(json.dumps(experiment.settings), folders))
    settings = Settings.from_dict({**SCALES[scale], **filled}, experiment.name)
    if not (settings.val or settings.val_fraction):
        raise UsageError(f"Expected val or val_fraction in experiment {experiment.name}: the table tells validation.")
    if _starts_from_another(experiment):  # its best model is the start
        settings = replace(settings, init=str(Path(settings.init) / BEST_FILE))
    return settings


def _starts_from_another(experiment: Experiment) -> bool:
    return experiment.settings.get("init", "").startswith("{runs}/")


def _require_start(experiment: Experiment, settings: Settings, out_dir: Path) -> None:
    start = Path(settings.init).parent
    if _starts_from_another(experiment) and not Path(settings.init).exists():
        raise UsageError(
            f"Expected the experiment {start.name} in {out_dir}, from which {experiment.name} starts; it was not run. "
            f"Name {start.name} before {experiment.name}."
        )


def _fill(text: str, folders: Mapping[str, StrPath]) -> str:
    for name, folder in folders.items():
        text = text.replace(f"{{{name}}}", str(folder))
    return text


def _run(settings: Settings, run_dir: Path) -> None:
    """Train unless it is done; a run that was cut off goes on."""
    train(settings, run_dir, resume=(run_dir / SETTINGS_FILE).exists(), verbose=0)
    keras.utils.clear_session()


def _row(experiment: Experiment, settings: Settings, run_dir: Path) -> dict[str, Any]:
    progress = Progress(run_dir, settings.monitor)
    progress.read()
    start, best = progress.metrics_of(0), progress.metrics_of(progress.state["best_epoch"])
    values: list[str | float] = [experiment.name, experiment.question]
    for metric in ("val_miou", "val_mae"):
        values += [start[metric], best[metric]]
    values += [progress.state["best_epoch"], sum(row.get("seconds", 0) for row in progress.history) / 60]
    return dict(zip(COLUMNS, values, strict=True))


def write_table(rows: Sequence[Mapping[str, Any]], path: StrPath) -> None:
    """Write the rows as `path`.csv and `path`.md."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(f"{path}.csv", text.getvalue().encode())
    write_atomically(f"{path}.md", (as_markdown(rows) + "\n").encode())


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
