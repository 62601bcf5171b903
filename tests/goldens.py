"""The official code's outputs in tests/data, and the weights and inputs they were computed from.

Any framework can regenerate both from names and seeds; see tests/data/README.md.
"""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
SEED = 7
MODELS = ("modnet", "u2net", "u2netp")


def formula_state_dict(model_name):
    """Return {PyTorch name: float32 array} of the formula weights of one model."""
    shapes = json.loads((DATA / f"{model_name}_state_dict.json").read_text())
    return {name: _formula(name, tuple(shape)) for name, shape in shapes.items()}


def _formula(name, shape):
    random = np.random.RandomState(int.from_bytes(sha256(name.encode()).digest()[:4], "little"))
    if name.endswith("num_batches_tracked"):
        array = np.zeros(shape)
    elif name.endswith("running_var"):
        array = random.uniform(0.5, 1.5, shape)
    elif name.endswith(("running_mean", "bias")):
        array = 0.1 * random.standard_normal(shape)
    elif len(shape) == 1:
        array = random.uniform(0.5, 1.5, shape)
    else:
        array = random.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    return array.astype("float32")


def image(seed, n, height, width):
    """Return a float32 (n, height, width, 3) input in [-1, 1]."""
    return np.random.RandomState(seed).uniform(-1, 1, (n, height, width, 3)).astype("float32")


def alpha_and_trimap(seed, n, height, width):
    """Return alpha and trimap, float32 (n, height, width, 1): discs with a soft edge of 6 pixels."""
    random, alphas = np.random.RandomState(seed), []
    rows, columns = np.mgrid[:height, :width]
    for _ in range(n):
        cy, cx = random.uniform(0.35, 0.65) * height, random.uniform(0.35, 0.65) * width
        radius = random.uniform(0.2, 0.35) * min(height, width)
        alphas.append(np.clip((radius - np.hypot(rows - cy, columns - cx)) / 6 + 0.5, 0, 1))
    alpha = np.stack(alphas)[..., None]
    trimap = np.where(alpha <= 0, 0, np.where(alpha >= 1, 1, 0.5))
    return alpha.astype("float32"), trimap.astype("float32")


def figures(model_name, key):
    """Return one array of the official code."""
    with np.load(DATA / f"{model_name}.npz") as file:
        return file[key]


def eval_cases(model_name):
    """Return {(n, height, width): {our output's name: expected array}} of one model."""
    cases = {}
    with np.load(DATA / f"{model_name}.npz") as file:
        for key in file.files:
            if key.startswith("eval/"):
                _, shape, output = key.split("/")
                case = cases.setdefault(tuple(map(int, shape.split("x"))), {})
                case[_our_name(output)] = file[key]
    return cases


def _our_name(output):
    if output == "d0":
        return "matte"
    return output.replace("d", "side") if output[1:].isdigit() else output
