"""Engines share a process with whatever else the caller runs: none may change what another computes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_matting import engines

TESTS = Path(__file__).parent
# Opens the engines that it is told, in that order, lets all predict once all are open, and stores what they gave.
PREDICT = """
import sys
import numpy as np
from keras_matting import engines
folder, target, *names = sys.argv[1:]
batch = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
opened = [engines.open_engine(name, folder) for name in names]
np.savez(target, **{engine.name: engine.predict(batch) for engine in opened})
"""
# Trains in between, too.
TRAIN = """
import tiny
tiny.register()
from pathlib import Path
from keras_matting.training.run import train
def losses(run):
    return tiny.losses_of(train(tiny.settings(sys.argv[2] + ".pairs", epochs=2), sys.argv[2] + run, verbose=0))
import sys
tiny.write_pairs(Path(sys.argv[2] + ".pairs"))
first = losses("a")
"""
COMPARE = """
second = losses("b")
assert first == second, (first, second)
"""


def names():
    """Return the engines that can be built and run here."""
    return [name for name in engines.ENGINES if not _reason(name)]


def _reason(name):
    return engines.unavailable_reason(name) or engines.build_unavailable_reason(name)


def run(script, *arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tiny_model_dir):
    """The model folder with every engine of this machine built."""
    batch = np.random.default_rng(0).uniform(-1, 1, (3, 1, 64, 64, 3)).astype("float32")
    for name in names():
        engines.build(name, tiny_model_dir, engines.BuildOptions(calibration=tuple(batch)))
    return tiny_model_dir


@pytest.fixture(scope="module")
def alone(built, tmp_path_factory):
    """{engine: what it gives in a process of its own}."""
    folder = tmp_path_factory.mktemp("alone")
    for name in names():
        run(PREDICT, built, folder / f"{name}.npz", name)
    return {name: np.load(folder / f"{name}.npz")[name] for name in names()}


def assert_same(path, alone):
    together = np.load(path)
    assert set(together) == set(alone)
    for name, mattes in alone.items():
        np.testing.assert_array_equal(together[name], mattes, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("start", [-1, 1, 2])
def test_engines_that_share_a_process_compute_as_if_alone(built, alone, tmp_path, start):
    """In reverse, and with another one first; the order of the list is the next test's."""
    order = names()[::-1] if start < 0 else names()[start:] + names()[:start]
    run(PREDICT, built, tmp_path / "together.npz", *order)
    assert_same(tmp_path / "together.npz", alone)


@pytest.mark.long
def test_engines_leave_a_training_alone_and_it_leaves_them(built, alone, tmp_path):
    run(TRAIN + PREDICT + COMPARE, built, tmp_path / "together.npz", *names())
    assert_same(tmp_path / "together.npz", alone)


STATE = """
import logging, os, random, sys
import cv2, keras, numpy as np, tensorflow as tf
from keras.src.utils import rng_utils
try:
    import torch
except ImportError:
    torch = None

def state():
    return {
        "environment": dict(os.environ),
        "working folder": os.getcwd(),
        "random": random.getstate(),
        "numpy": tuple(map(str, np.random.get_state())),
        "tensorflow's seed": tf.compat.v1.get_seed(None)[0],
        "keras's seed": rng_utils.get_random_seed(),
        "tensorflow's options": tf.config.optimizer.get_experimental_options(),
        "tensorflow's threads": (
            tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
        ),
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "dtype policy": (keras.config.dtype_policy().name, keras.config.floatx()),
        "opencv": (cv2.getNumThreads(), cv2.useOptimized(), cv2.ocl.useOpenCL()),
        "torch": torch and (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()),
        "logging": (logging.root.level, list(logging.root.handlers)),
        "numpy's errors": np.geterr(),
        "warnings": len(__import__("warnings").filters),
        "hooks": (sys.excepthook, sys.unraisablehook),
    }

before = state()
"""
SAME = """
after = state()
changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
assert not changed, changed
"""
BUILD = """
from keras_matting import engines
folder, *names = sys.argv[1:]
options = engines.BuildOptions(calibration=(np.zeros((1, 64, 64, 3), "float32"), np.ones((1, 64, 64, 3), "float32")))
for name in names:
    engines.build(name, folder, options)
    engine = engines.open_engine(name, folder)
    engine.predict(np.zeros((1, 64, 64, 3), "float32"))
    engine.close()
    assert state() == before, (name, [key for key, value in state().items() if value != before[key]])
"""


def test_engines_leave_the_state_of_their_process_alone(tiny_model_dir):
    run(STATE + BUILD, tiny_model_dir, *names())


def test_training_leaves_the_state_of_its_process_alone(tmp_path):
    run(STATE + TRAIN + SAME, "", tmp_path / "x")
