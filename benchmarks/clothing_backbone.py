"""Write a MODNet whose backbone has MobileNetV2's weights out of the npm package nsfwjs, for training to begin with.

usage: npm pack nsfwjs@4.3.0 && python benchmarks/clothing_backbone.py nsfwjs-4.3.0.tgz OUT.keras

The package (MIT) carries Keras's MobileNetV2, ImageNet's weights tuned further to tell kinds of pictures, as uint8. The
other branches are fresh. What differs there is made good: photos are in [0, 1], not [-1, 1], and batch norms have
another epsilon. Its convolutions of stride 2 look one pixel further right and down; training has to mend that.
"""

import argparse
import base64
import re
import tarfile
from pathlib import Path

import numpy as np
from keras.utils import set_random_seed

from keras_matting.models import build_model
from keras_matting.models.layers import BATCH_NORM_EPSILON

FOLDER = "package/dist/models/mobilenet_v2"
EPSILON = 1e-3  # of its batch norms
BLOCKS = 17
LAST = BLOCKS + 1  # the official code counts the stem as 0
_TENSOR = re.compile(
    r'\{name:"(?P<name>[^"]+)",shape:\[(?P<shape>[\d,]*)\],dtype:"float32",'
    r'quantization:\{min:(?P<min>[-\d.e]+),scale:(?P<scale>[-\d.e]+),dtype:"uint8"\}\}'
)
_BYTES = re.compile(r'exports="([A-Za-z0-9+/=]+)"')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    set_random_seed(1)
    network = build_model("modnet", (224, 224))
    set_backbone(network, tensors(arguments.package))
    network.save(arguments.out)


def tensors(package):
    """Return the package's tensors by name, float32."""
    with tarfile.open(package) as archive:
        model, values = (
            archive.extractfile(f"{FOLDER}/{name}.min.js").read().decode() for name in ("model", "group1-shard1of1")
        )
    content = np.frombuffer(base64.b64decode(_BYTES.search(values)[1]), np.uint8)
    found, start = {}, 0
    for entry in _TENSOR.finditer(model):
        shape = [int(side) for side in entry["shape"].split(",")]
        end = start + int(np.prod(shape))
        found[entry["name"]] = (content[start:end] * float(entry["scale"]) + float(entry["min"])).reshape(shape)
        start = end
    if start != len(content):
        raise SystemExit(f"Expected tensors of {len(content)} bytes in {package}; received a list of {start}.")
    return {name: tensor.astype(np.float32) for name, tensor in found.items()}


def set_backbone(network, given):
    """Set the weights of every backbone layer of `network`."""
    kernel = given["Conv1/kernel"] / 2  # x01 = (x + 1) / 2
    _set(network, given, "0", ("0", "1"), kernel, "bn_Conv1", shift=kernel.sum(axis=(0, 1, 2)))
    for block in range(BLOCKS):
        prefix = f"block_{block}" if block else "expanded_conv"
        parts = ["expand"] if block else []
        for index, part in enumerate([*parts, "depthwise", "project"]):
            kind = "depthwise_kernel" if part == "depthwise" else "kernel"
            places = f"conv.{3 * index}", f"conv.{3 * index + 1}"
            _set(network, given, f"{block + 1}", places, given[f"{prefix}_{part}/{kind}"], f"{prefix}_{part}_BN")
    _set(network, given, f"{LAST}", ("0", "1"), given["Conv_1/kernel"], "Conv_1_bn")


def _set(network, given, block, places, kernel, norm, shift=0.0):
    """Set a convolution and the batch norm behind it; `shift` is what the convolution gives too little."""
    convolution, batch_norm = (network.get_layer(f"backbone.model.features.{block}.{place}") for place in places)
    gamma, beta, mean, variance = (
        given[f"{norm}/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    variance = np.maximum(variance, 0)
    convolution.set_weights([kernel.reshape(convolution.get_weights()[0].shape)])
    gain = np.sqrt((variance + BATCH_NORM_EPSILON) / (variance + EPSILON))
    batch_norm.set_weights([gamma * gain, beta, mean - shift, variance])


if __name__ == "__main__":
    main()
