"""Train MODNet for clothing: `keras-matting train`'s runs with another objective, which learns sooner.

usage: python benchmarks/clothing_modnet.py STAGE OUT_DIR --init START --data SPEC... --val NAME=SPEC... [--resume]

The official objective begins with SGD and absolute differences, which take days from fresh branches. Here it is Adam
and cross-entropy. STAGE "semantic" trains the backbone and the semantic branch alone, a quarter of the work of a whole
step, on the alpha at a sixteenth of the size; "whole" trains all, with the official terms beside the cross-entropy.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import keras

from keras_matting import architectures
from keras_matting.architectures import Recipe
from keras_matting.models.layers import enlarge, shrink
from keras_matting.training import losses
from keras_matting.training.run import train
from keras_matting.training.settings import Settings
from keras_matting.training.trainers import Trainer

FINE_BRANCHES = "hr_branch.", "f_branch."


class SemanticTrainer(Trainer):
    """MODNet's backbone and semantic branch; its matte is the semantic map, enlarged."""

    TERMS = ("semantic",)

    def __init__(self, network, sources=()):
        super().__init__(network, sources)
        self.coarse = keras.Model(network.input, network.output["semantic"])
        for layer in network.layers:
            layer.trainable = not layer.name.startswith(FINE_BRANCHES)

    def call(self, image, training=None):
        """Return the semantic map and the matte made of it."""
        semantic = self.coarse(image, training=training)
        matte = enlarge(enlarge(semantic, 1, losses.SEMANTIC_STRIDE), 2, losses.SEMANTIC_STRIDE)
        return {"semantic": semantic, "matte": matte}

    def terms(self, image, targets, outputs):
        """Return the cross-entropy of the semantic map."""
        return {"semantic": _semantic(targets["alpha"], outputs["semantic"])}


class WholeTrainer(Trainer):
    """All of MODNet."""

    TERMS = ("semantic", "detail", "matte", "entropy")

    def terms(self, image, targets, outputs):
        """Return the official detail and matte terms, and cross-entropy of the semantic map and of the matte."""
        alpha = targets["alpha"]
        terms = losses.modnet_supervised(image, alpha, targets["trimap"], outputs)
        return {
            "semantic": _semantic(alpha, outputs["semantic"]),
            "detail": terms["detail"],
            "matte": terms["matte"],
            "entropy": losses.binary_cross_entropy(alpha, outputs["matte"]),
        }


def _semantic(alpha, semantic):
    return losses.binary_cross_entropy(shrink(alpha, losses.SEMANTIC_STRIDE), semantic)


STAGES = {"semantic": SemanticTrainer, "whole": WholeTrainer}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--init", required=True, help="as of train: a model folder, .keras file, run's best.keras")
    parser.add_argument("--data", nargs="+", required=True, metavar="SPEC")
    parser.add_argument("--val", nargs="+", default=(), metavar="NAME=SPEC")
    parser.add_argument("--val-fraction", type=float, default=0.0)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--warmup", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    use(STAGES[arguments.stage])
    settings = Settings(
        model="modnet",
        data=tuple(arguments.data),
        val=tuple(arguments.val),
        val_fraction=arguments.val_fraction,
        init=arguments.init,
        input_size=(arguments.size, arguments.size),
        batch_size=arguments.batch,
        epochs=arguments.epochs,
        steps_per_epoch=arguments.steps,
        learning_rate=arguments.rate,
        schedule="cosine",
        warmup=arguments.warmup,
        augment="custom-no-cutout",
        precision=arguments.precision,
        images_every=0,
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(settings, arguments.out, resume=arguments.resume)


def use(trainer):
    """Let `trainer` train MODNet, by Adam."""
    known = architectures.ARCHITECTURES["modnet"]
    recipe = Recipe(
        trainer=f"clothing_modnet:{trainer.__name__}",
        optimizer="keras_matting.training.optimizers:FusedAdam",
        optimizer_options={"epsilon": 1e-8},
        learning_rate=1e-3,
        tuning_rate=5e-4,
        schedule="cosine",
    )
    architectures.ARCHITECTURES["modnet"] = replace(known, recipes={**known.recipes, "supervised": recipe})


if __name__ == "__main__":
    main()
