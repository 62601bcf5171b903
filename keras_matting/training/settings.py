"""What a training run is: one frozen record, stored as `run.json` beside its checkpoints."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from keras_matting.architectures import ARCHITECTURES, Architecture
from keras_matting.errors import UsageError
from keras_matting.files import StrPath, write_atomically
from keras_matting.training.validation import monitors

SETTINGS_FILE = "run.json"
OBJECTIVES = ("supervised", "soc")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("constant", "step", "cosine")
STRATEGIES = ("none", "mirrored", "data-parallel")
# A continued run may differ in these: how long, and how fast, but not in what it learns from.
_MAY_CHANGE = ("epochs", "patience", "images_every", "histograms", "cache_gb", "strategy")


@dataclass(frozen=True)
class Settings:
    """What a run trains, on what, and how; the command line's options under the same names.

    `data`: specs of training sources (see `data.sources.read_source`); `fraction`: the part of their samples to
    use. `val`: specs of validation data, each with a name if it likes (`NAME=SPEC`), by default the training data's;
    `val_fraction`: the part of it to use. The hash of the stems decides both parts. Of several specs each counts the
    same in `val_miou` and `val_mae`, whatever its size, and has figures of its own (`val_NAME_miou`).
    `input_size`: (height, width), by default that of the model's preset. `steps_per_epoch`: by default all samples
    once. `init`: a model folder, `.keras` file or official checkpoint to start from.
    `learning_rate`: by default 0.01 (MODNet), 1e-3 (U2Net), a tenth of it with `init`, 1e-5 for SOC. `schedule`:
    "step" divides it by ten after every quarter of the epochs (MODNet's, and its default), "cosine" lowers it to 1 %
    over all steps, "constant" not at all. `warmup`: the first steps, over which it rises from 0.
    `ema`: momentum of a moving average of weights and batch norms' statistics, as 0.999, which validation and the best
    model use; 0: none.
    `accumulate`: batches whose gradients are averaged for one update. `precision`: "mixed_bfloat16" is the quickest
    on processors with bfloat16. `freeze_epochs`: how many epochs a frozen backbone stays so when `unfreeze_from` names
    the layer from which it is trained afterwards, by default half of them. `strategy`: "mirrored" spreads each batch
    over all devices under TensorFlow, "data-parallel" (`keras.distribution`) under JAX.
    `monitor`: the figure that chooses the best epoch, out of `validation.monitors`, as "val_worst_miou", that of the
    source where it is worst. `patience`: epochs without a better one after which the run stops; 0: never.
    `images_every`: epochs between pictures in TensorBoard; 0: never.
    """

    model: str
    data: tuple[str, ...]
    epochs: int
    val: tuple[str, ...] = ()
    val_fraction: float = 0.0
    batch_size: int = 8
    augment: str = "custom"
    objective: str = "supervised"
    init: str = ""
    input_size: tuple[()] | tuple[int, int] = ()
    learning_rate: float = 0.0
    schedule: str = ""
    steps_per_epoch: int = 0
    fraction: float = 1.0
    freeze_backbone: bool = False
    freeze_epochs: int = 0
    unfreeze_from: int = -1
    warmup: int = 0
    ema: float = 0.0
    accumulate: int = 1
    precision: str = "float32"
    strategy: str = "none"
    seed: int = 0
    trimap_px: tuple[()] | tuple[int, int] = ()
    monitor: str = "val_miou"
    patience: int = 0
    images_every: int = 5
    histograms: bool = False
    cache_gb: float = 4.0

    def __post_init__(self) -> None:
        if isinstance(self.val, str):  # as earlier versions stored it
            object.__setattr__(self, "val", (self.val,) if self.val else ())
        for name in ("data", "val", "input_size", "trimap_px"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        choices = {
            "objective": OBJECTIVES,
            "precision": PRECISIONS,
            "strategy": STRATEGIES,
            "schedule": ("", *SCHEDULES),
            "monitor": monitors(self.val),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"Expected {name} as one of {', '.join(allowed)}; received {getattr(self, name)!r}.")
        for field in fields(self):
            _require_number(self, field)
        for name in ("epochs", "batch_size", "accumulate"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("steps_per_epoch", "warmup", "freeze_epochs", "patience", "images_every"):
            _require(self, name, getattr(self, name) >= 0, "at least 0")
        _require(self, "val_fraction", 0 <= self.val_fraction < 1, "from 0 to below 1")
        _require(self, "ema", 0 <= self.ema < 1, "from 0 to below 1")
        _require(self, "fraction", 0 < self.fraction <= 1, "above 0 and up to 1")
        _require(self, "learning_rate", 0 <= self.learning_rate < math.inf, "a positive number")
        if not self.data:
            raise UsageError("Expected training data; received none. Name it with --data.")
        if self.objective == "soc":
            _require_trait(self, "SOC adapts {}, whose branches can be compared", lambda one: "soc" in one.recipes)
        if self.freeze_backbone or self.unfreeze_from >= 0:
            _require_trait(self, "Only {} has a backbone to freeze", lambda one: one.backbone)
        if self.unfreeze_from >= 0 and not self.freeze_backbone:
            raise UsageError("--unfreeze-from continues a frozen backbone: add --freeze-backbone.")

    def save(self, run_dir: StrPath) -> None:
        """Write `run.json` into the folder `run_dir`."""
        write_atomically(Path(run_dir) / SETTINGS_FILE, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, run_dir: StrPath) -> Self:
        """Read `run.json`; raises `UsageError` if `run_dir` is no run."""
        path = Path(run_dir) / SETTINGS_FILE
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")), path)
        except (OSError, ValueError) as error:
            raise UsageError(f"Expected a training run; {run_dir} has no readable {SETTINGS_FILE} ({error}).") from None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], origin: StrPath) -> Self:
        """Return the settings of a JSON object; `origin` says where it stands. Raises `UsageError` if malformed."""
        try:
            return cls(**content)
        except TypeError as error:
            names = ", ".join(field.name for field in fields(cls))
            raise UsageError(f"Expected {origin} with the fields {names}; received: {error}.") from None

    def begun(self) -> Self:
        """Return the settings of a new run: what depends on `epochs` by default is fixed, since these may change."""
        if self.unfreeze_from < 0 or self.freeze_epochs:
            return self
        return replace(self, freeze_epochs=max(1, self.epochs // 2))

    def continuing(self, earlier: Self) -> Self:
        """Return the settings for the rest of a run that began with the `earlier` ones.

        Raises `UsageError` if these would not continue it.
        """
        settings = self if self.freeze_epochs else replace(self, freeze_epochs=earlier.freeze_epochs)
        names = (field.name for field in fields(self) if field.name not in _MAY_CHANGE)
        changed = [name for name in names if getattr(settings, name) != getattr(earlier, name)]
        if changed:
            told = "; ".join(
                f"{name} was {getattr(earlier, name)!r}, now {getattr(settings, name)!r}" for name in changed
            )
            raise UsageError(f"--resume continues a run as it was: {told}. Use the old values, or another --out.")
        return settings


def _require_trait(settings: Settings, told: str, has_trait: Callable[[Architecture], object]) -> None:
    """Raise `UsageError` unless the model is an architecture that has a trait; `told` has a place for those that do."""
    able = [name for name, architecture in ARCHITECTURES.items() if has_trait(architecture)]
    if settings.model not in able:
        raise UsageError(f"{told.format(', '.join(able))}; received {settings.model}.")


def _require_number(settings: Settings, field: Field[Any]) -> None:
    """Raise `UsageError` where a JSON file has text, NaN or a fraction in the place of a number."""
    value = getattr(settings, field.name)
    if field.type is int and type(value) is not int:
        raise UsageError(f"Expected {field.name} as a whole number; received {value!r}.")
    if field.type is float and not (type(value) in (int, float) and math.isfinite(value)):
        raise UsageError(f"Expected {field.name} as a number; received {value!r}.")


def _require(settings: Settings, name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise UsageError(f"Expected {name.replace('_', ' ')} {expected}; received {getattr(settings, name)}.")
