"""What a model folder says about its model: `preset.json`, read by training, engines, notebooks and the service."""

import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from keras_matting.errors import UsageError
from keras_matting.files import write_atomically

PRESET_FILE = "preset.json"
KERAS_FILE = "model.keras"
ONNX_FILE = "model.onnx"
SAVED_MODEL = "saved_model"
TFTRT_SAVED_MODEL = "saved_model_tftrt"
# The ONNX file in lower precision, by precision; in "int8-fp16" what is not quantised is float16, in "int8" float32.
LOWERED_ONNX = {name: f"model.{name}.onnx" for name in ("fp16", "int8", "int8-fp16")}
BENCHMARK_FILE = "benchmark.json"

_CHOICES = {
    "scale": ("255", "image-max"),
    "interpolation": ("linear", "area"),
    "output": ("identity", "min-max"),
}


@dataclass(frozen=True)
class Preset:
    """What a model expects and gives; none of these is repeated anywhere else.

    `input_size`: (height, width) in pixels, to which a photo is stretched with `interpolation`. `scale`: what 8-bit
    values are divided by, 255 or the photo's own maximum. `mean`, `std`: per RGB channel, in units of the scaled
    values. `output`: "identity", or "min-max", which stretches each map to [0, 1] as U2Net's official script does.
    `weights_sha256`: digest of the weights' values; `source_sha256`: of the file that they were imported from.
    """

    name: str
    architecture: str
    input_size: tuple
    mean: tuple
    std: tuple
    scale: str = "255"
    interpolation: str = "linear"
    output: str = "identity"
    weights_sha256: str = ""
    source: str = ""
    source_sha256: str = ""
    licence: str = ""

    def __post_init__(self):
        for field in ("input_size", "mean", "std"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise UsageError(
                    f"Expected {field} in preset {self.name!r} as one of {', '.join(choices)}; "
                    f"received {getattr(self, field)!r}."
                )
        sides = [side for side in self.input_size if type(side) is int and side > 0]
        if len(sides) != 2 or len(self.input_size) != 2:
            raise UsageError(f"Expected input_size of preset {self.name!r} as 2 sides; received {self.input_size}.")
        if not (_are_numbers(self.mean) and _are_numbers(self.std) and min(self.std) > 0):
            raise UsageError(
                f"Expected mean and std of preset {self.name!r} as 3 numbers each, std above 0; "
                f"received {self.mean} and {self.std}."
            )

    def save(self, model_dir):
        """Write `preset.json` into the folder `model_dir`."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        write_atomically(Path(model_dir) / PRESET_FILE, text.encode())

    @classmethod
    def load(cls, model_dir):
        """Read `preset.json` from the folder `model_dir`; raises `UsageError` if it is missing or malformed."""
        path = Path(model_dir) / PRESET_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(**content)
        except OSError as error:
            raise UsageError(f"Expected a model folder; {model_dir} has no {PRESET_FILE} ({error.strerror}).") from None
        except (ValueError, TypeError) as error:
            names = ", ".join(field.name for field in fields(cls))
            raise UsageError(f"Expected {path} to be JSON with the fields {names}; received: {error}.") from None


def _are_numbers(values):
    return len(values) == 3 and all(type(value) in (int, float) and math.isfinite(value) for value in values)


def models_home():
    """Return the folder of fetched models: `$KERAS_MATTING_HOME`, or `~/.cache/keras_matting`."""
    home = os.environ.get("KERAS_MATTING_HOME")
    try:
        return Path(home).expanduser() if home else Path.home() / ".cache" / "keras_matting"
    except RuntimeError:  # in a container whose user has no entry in passwd
        raise UsageError(
            "Expected a home, for models that are fetched; HOME is not set, and the system knows none of this user. "
            "Set KERAS_MATTING_HOME to a folder, or pass a model folder's path."
        ) from None


def find_model_dir(model):
    """Return the folder of `model`, a path or a name, or None if there is none yet.

    A name is looked up in `./saved_models`, then in `models_home()`, which is asked for only then.
    """
    for candidate in (Path(model), Path("saved_models") / model):
        if (candidate / PRESET_FILE).is_file():
            return candidate
    with suppress(OSError, UsageError):  # there may be no home, or one that this user cannot look into
        if ((candidate := models_home() / model) / PRESET_FILE).is_file():
            return candidate
    return None


def read_verdict(model_dir, device):
    """Return (the engine that `benchmark.json` chose, None), or (None, why it does not hold), or (None, None).

    It holds for the device it was measured on, and for the weights and input size that the preset has now.
    """
    try:
        content = json.loads((Path(model_dir) / BENCHMARK_FILE).read_text(encoding="utf-8"))
        engine, measured = content["verdict"]["engine"], content["fingerprint"]
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, KeyError, TypeError):
        return None, "it is malformed."
    preset = Preset.load(model_dir)
    here = {"device": device, "weights_sha256": preset.weights_sha256, "input_size": list(preset.input_size)}
    for field, value in here.items():
        if measured.get(field) != value:
            return None, f"measured with {field} {measured.get(field)}, here {value}."
    return engine, None if engine else "no engine passed its gate."
