"""The model folder: where everything in it stands, what its `preset.json` says, and which engine its benchmark chose.

Read by training, engines, notebooks and the service. The weights themselves are Keras's (`models.folder`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from keras_matting.errors import UsageError
from keras_matting.files import StrPath, write_atomically

PRESET_FILE = "preset.json"
KERAS_FILE = "model.keras"
ONNX_FILE = "model.onnx"
SAVED_MODEL = "saved_model"
TFTRT_SAVED_MODEL = "saved_model_tftrt"
# The ONNX file in lower precision, by precision; in "int8-fp16" what is not quantised is float16, in "int8" float32.
# "fp16-uint8" takes uint8 photos of the model's size and normalises them itself.
LOWERED_ONNX = {name: f"model.{name}.onnx" for name in ("fp16", "int8", "int8-fp16", "fp16-uint8")}
# What `export --for` writes beside the plain export, and for which target.
EXPORT_TARGETS = {TFTRT_SAVED_MODEL: "tftrt"} | dict.fromkeys(LOWERED_ONNX.values(), "tensorrt")
# The form of exported graphs, counted up where an older one is worse: what is shipped is exported again then.
# 2: convolutions are named after their layers, instance norms are one operation.
GRAPH = 2
BENCHMARK_FILE = "benchmark.json"
MANIFEST = "manifest.json"  # beside what is built for an engine

FROM_ONNX = "onnx:"  # what the architecture of a folder begins with that was made of an ONNX file, without Keras

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
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: str = "255"
    interpolation: str = "linear"
    output: str = "identity"
    weights_sha256: str = ""
    source: str = ""
    source_sha256: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        for name in ("input_size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"Expected {name} in preset {self.name!r} as one of {', '.join(choices)}; "
                    f"received {getattr(self, name)!r}."
                )
        sides = [side for side in self.input_size if type(side) is int and side > 0]
        if len(sides) != 2 or len(self.input_size) != 2:
            raise UsageError(f"Expected input_size of preset {self.name!r} as 2 sides; received {self.input_size}.")
        if not (_are_numbers(self.mean) and _are_numbers(self.std) and min(self.std) > 0):
            raise UsageError(
                f"Expected mean and std of preset {self.name!r} as 3 numbers each, std above 0; "
                f"received {self.mean} and {self.std}."
            )

    @property
    def has_keras(self) -> bool:
        """Whether the folder holds a Keras model: not where it was made of an ONNX file (`foreign_onnx`)."""
        return not self.architecture.startswith(FROM_ONNX)

    @property
    def identity(self) -> dict[str, Any]:
        """What an artefact or a measurement must agree in to be of this model: its weights, its input size."""
        return {"weights_sha256": self.weights_sha256, "input_size": list(self.input_size)}

    def save(self, model_dir: StrPath) -> None:
        """Write `preset.json` into the folder `model_dir`."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        write_atomically(Path(model_dir) / PRESET_FILE, text.encode())

    @classmethod
    def load(cls, model_dir: StrPath) -> Preset:
        """Read `preset.json` from the folder `model_dir`; raises `UsageError` if it is missing or malformed."""
        path = Path(model_dir) / PRESET_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(**content)
        except OSError as error:
            raise UsageError(f"Expected a model folder; {model_dir} has no {PRESET_FILE} ({error.strerror}).") from None
        except (ValueError, TypeError) as error:
            names = ", ".join(one.name for one in fields(cls))
            raise UsageError(f"Expected {path} to be JSON with the fields {names}; received: {error}.") from None


def _are_numbers(values: Sequence[Any]) -> bool:
    return len(values) == 3 and all(type(value) in (int, float) and math.isfinite(value) for value in values)


def models_home() -> Path:
    """Return the folder of fetched models: `$KERAS_MATTING_HOME`, or `~/.cache/keras_matting`."""
    home = os.environ.get("KERAS_MATTING_HOME")
    try:
        return Path(home).expanduser() if home else Path.home() / ".cache" / "keras_matting"
    except RuntimeError:  # in a container whose user has no entry in passwd
        raise UsageError(
            "Expected a home, for models that are fetched; HOME is not set, and the system knows none of this user. "
            "Set KERAS_MATTING_HOME to a folder, or pass a model folder's path."
        ) from None


def find_model_dir(model: StrPath) -> Path | None:
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


def engine_dir(model_dir: StrPath, engine: str) -> Path:
    """Return the folder where an engine's artefact stands."""
    return Path(model_dir) / "engines" / engine


def export_manifest(relative: str) -> str:
    """Return the name of the manifest that lists the exported graph `relative`."""
    return f"export-{EXPORT_TARGETS[relative]}.json" if relative in EXPORT_TARGETS else "export.json"


@dataclass(frozen=True)
class Verdict:
    """The engine that a benchmark chose for a model folder, as its `benchmark.json` says.

    `engine`: its name, None where nothing was measured, none passed, or the verdict does not hold here. `stale`: why
    it does not hold, None where it does or nothing was measured. `report`: the whole report where it holds, else {}.
    """

    engine: str | None = None
    stale: str | None = None
    report: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, model_dir: StrPath, device: str) -> Verdict:
        """Read the verdict of a model folder.

        It holds for the device it was measured on, and for the weights and input size that the preset has now.
        """
        try:
            report = json.loads((Path(model_dir) / BENCHMARK_FILE).read_text(encoding="utf-8"))
            engine, measured = report["verdict"]["engine"], dict(report["fingerprint"])
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError):
            return cls(stale="it is malformed.")
        for name, value in cls.fingerprint(Preset.load(model_dir), device).items():
            if measured.get(name) != value:
                return cls(stale=f"measured with {name} {measured.get(name)}, here {value}.")
        return cls(engine, None, report) if engine else cls(stale="no engine passed its gate.")

    @staticmethod
    def write(model_dir: StrPath, report: dict[str, Any]) -> None:
        """Write a benchmark's report, a dict with "verdict" and "fingerprint", as the folder's `benchmark.json`."""
        write_atomically(Path(model_dir) / BENCHMARK_FILE, (json.dumps(report, indent=2) + "\n").encode())

    @staticmethod
    def fingerprint(preset: Preset, device: str) -> dict[str, Any]:
        """Return what a report must agree in to hold."""
        return {"device": device, **preset.identity}

    @property
    def reason(self) -> str:
        """Why the engine was chosen."""
        return self.report.get("verdict", {}).get("reason", "")

    def fastest_batch(self, engine: str) -> int | None:
        """Return the batch size of an engine's best images/s, None where that was not measured here."""
        results = [result for result in self.report.get("results", []) if result["engine"] == engine]
        speeds = [row for result in results for row in result["speed"]]
        return max(speeds, key=lambda row: row["images_per_s"])["batch"] if speeds else None
