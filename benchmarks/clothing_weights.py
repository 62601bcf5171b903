"""Weights by name in one small file, to carry them to a machine with an accelerator and back.

usage: python benchmarks/clothing_weights.py MODEL INIT OUT.npz [--data SPEC...] [--only backbone]

Writes what training there begins with: the weights of INIT, a model folder or a `.keras` file. Batch norms that came
folded into their convolutions, as the official U2NetP's, get the statistics they had lost, of photos of `--data`. With
`--only`, those alone whose names begin so: what is fresh need not travel.
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
from keras import ops

KINDS = "float16", "float32"  # of kernels, and of what has one dimension: statistics can be large
BATCH, FOLDED_BATCHES = 8, 8


def main():
    # TensorFlow, which the other machine need not have
    from keras_matting import architectures
    from keras_matting.data.pipeline.batches import TrainingData
    from keras_matting.data.sources import read_sources
    from keras_matting.models import build_model
    from keras_matting.training.start import load_initial_weights, recalibrate_folded_norms

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=architectures.ARCHITECTURES)
    parser.add_argument("init")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", default=(), metavar="SPEC")
    parser.add_argument("--only", default="", metavar="PREFIX")
    arguments = parser.parse_args()
    preset = architectures.default_preset(arguments.model, arguments.model)
    network = build_model(arguments.model, preset.input_size)
    load_initial_weights(network, arguments.init)
    if arguments.data:
        batches = TrainingData(read_sources(arguments.data), preset, batch_size=BATCH, seed=1).dataset()
        recalibrate_folded_norms(network, [image.numpy() for image, _ in islice(batches, FOLDED_BATCHES)])
    save(network, arguments.out, arguments.only)


def save(network, path, prefix=""):
    """Write the weights of a network by their names, or those whose names begin with `prefix`."""
    chosen = [variable for variable in network.weights if variable.path.startswith(prefix)]
    values = {variable.path: ops.convert_to_numpy(variable) for variable in chosen}
    part = path.with_suffix(".part.npz")
    np.savez(part, **{name: value.astype(KINDS[value.ndim == 1]) for name, value in values.items()})
    part.rename(path)


def restore(network, path):
    """Set the weights that a file has, all or some; return how many."""
    with np.load(path) as given:
        found = [variable for variable in network.weights if variable.path in given.files]
        for variable in found:
            variable.assign(given[variable.path].astype("float32"))
    return len(found)


if __name__ == "__main__":
    main()
