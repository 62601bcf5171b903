"""The architectures: all that the package knows of each, in one record. Nothing of a framework is imported here.

What needs Keras is named as "module:attribute" and imported when it is used, so that engines read records without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from keras_matting.errors import UsageError
from keras_matting.model_folder import Preset

if TYPE_CHECKING:
    import keras

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

Size: TypeAlias = tuple[int | None, int | None]  # (height, width) in pixels, None where any will do


@dataclass(frozen=True)
class Recipe:
    """How an objective trains an architecture: as the official code does.

    `trainer`: "module:class" of a `training.trainers.Trainer`. `optimizer`: "module:class" of a Keras
    optimizer, and `optimizer_options` beside its learning rate. `learning_rate`: from random weights; `tuning_rate`:
    from trained ones. `schedule`: one of `training.settings.SCHEDULES`. Settings of a run go before all of these but
    the trainer.
    """

    trainer: str
    optimizer: str
    learning_rate: float
    tuning_rate: float
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "constant"

    def optimizer_class(self) -> Any:
        """Return the class of the optimizer."""
        return _attribute(self.optimizer)


@dataclass(frozen=True)
class Architecture:
    """What the package knows of an architecture.

    `builder`: "module:function" of (height, width) to a Keras model of this `name`. `preset`: the fields of `Preset`
    that its own inference code decides. `recipes`: a `Recipe` for each objective that can train it. `size_multiple`:
    what height and width must be multiples of. `backbone`: the prefix of its layers' names, "" where there is none.
    `sensitive_layers`: by precision, parts of the names of the layers that engines leave in float32, because their
    rounding ruins the matte. `checkpoint_aliases`: prefixes of parameters in its PyTorch files, and what they stand
    for.
    """

    name: str
    builder: str
    preset: Mapping[str, Any]
    recipes: Mapping[str, Recipe]
    size_multiple: int = 1
    backbone: str = ""
    sensitive_layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    checkpoint_aliases: Mapping[str, str] = field(default_factory=dict)

    def build(self, input_size: Size) -> keras.Model:
        """Return the Keras model with fresh weights for `input_size`, (height, width), None for any."""
        return _attribute(self.builder)(input_size)

    def trainer(self, objective: str, network: keras.Model, sources: Sequence[str] = ()) -> Any:
        """Return the `Trainer` of a network for an objective; `sources`: the names of its validation sources."""
        return _attribute(self.recipes[objective].trainer)(network, sources)


# Found for modnet_clothing at 320x320 on the 54 samples: int8 everywhere differs by .0077 on average and .0586 at
# worst; with the backbone in float32, whose small convolutions gain next to nothing by int8, by .0012 and .0065.
_MODNET_SENSITIVE = {"int8": ("backbone.",)}

_MODNET = Architecture(
    name="modnet",
    builder="keras_matting.models.modnet:modnet",
    # ZHKKKe/MODNet: onnx/inference_onnx.py ((x - 127.5) / 127.5, INTER_AREA, reference size 512). It keeps the
    # photo's aspect ratio; a fixed size is what engines can compile, so the photo is stretched to the reference.
    preset={"input_size": (512, 512), "interpolation": "area", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    recipes={
        "supervised": Recipe(
            trainer="keras_matting.training.trainers:MODNetTrainer",
            optimizer="keras.optimizers:SGD",
            optimizer_options={"momentum": 0.9},
            learning_rate=0.01,
            tuning_rate=0.001,
            schedule="step",
        ),
        "soc": Recipe(
            trainer="keras_matting.training.trainers:SOCTrainer",
            optimizer="keras_matting.training.optimizers:FusedAdam",
            optimizer_options={"beta_2": 0.99, "epsilon": 1e-8},
            learning_rate=1e-5,
            tuning_rate=1e-5,
        ),
    },
    sensitive_layers=_MODNET_SENSITIVE,
    size_multiple=32,  # five halvings, and the branches' sizes must meet again
    backbone="backbone.",
    checkpoint_aliases={"lr_branch.backbone.": "backbone."},  # in the files twice: it is registered under two parents
)


def _u2net(name: str, sensitive_layers: Mapping[str, tuple[str, ...]]) -> Architecture:
    return Architecture(
        name=name,
        builder=f"keras_matting.models.u2net:{name}",
        # xuebinqin/U-2-Net: u2net_test.py and data_loader.py (RescaleT(320), ToTensorLab(flag=0), normPRED). Its pinned
        # scikit-image resizes without anti-aliasing, as OpenCV's "linear" does. u2net_human_seg_test.py does the same.
        preset={"input_size": (320, 320), "scale": "image-max", "output": "min-max", **IMAGENET},
        recipes={
            "supervised": Recipe(
                trainer="keras_matting.training.trainers:U2NetTrainer",
                optimizer="keras_matting.training.optimizers:FusedAdam",
                optimizer_options={"epsilon": 1e-8},
                learning_rate=1e-3,
                tuning_rate=1e-4,
            )
        },
        sensitive_layers=sensitive_layers,
    )


# Found for the official weights on clothing photos: in U2NetP two convolutions, with the resize between them, cause
# most of the error (with bfloat16 emulated on 30 photos, MAE falls from .0100 to .0004). For int8 the worst photos
# count: with stage 1 and those two convolutions in float32, six of 140 garments composited on backgrounds came out
# worst, by .0228 at most; with stages 2 and 2d whole they differ by .0114 at most. What the stages 3 to 6 round matters
# little.
_U2NETP_SENSITIVE = {
    "bf16": ("stage2d.rebnconv2d", "stage2d.rebnconv1d"),
    "int8": ("stage1.", "stage2.", "stage2d."),
}

ARCHITECTURES = {
    "modnet": _MODNET,
    "u2net": _u2net("u2net", {}),
    "u2netp": _u2net("u2netp", _U2NETP_SENSITIVE),
}


def find(name: str) -> Architecture:
    """Return the `Architecture` of a name; raises `UsageError` if there is none."""
    if name not in ARCHITECTURES:
        raise UsageError(f"Expected an architecture out of {', '.join(ARCHITECTURES)}; received {name!r}.")
    return ARCHITECTURES[name]


def default_preset(architecture: str, name: str) -> Preset:
    """Return the preset of `architecture`'s own inference code, called `name`; raises `UsageError` as `find` does."""
    return Preset(name=name, architecture=architecture, **find(architecture).preset)


def _attribute(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
