"""Every engine's module, and what it opens, is what the protocols in `engines/base.py` say."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from keras_matting import engines
from keras_matting.benchmarking.worker import REFERENCE, KerasBaseline
from keras_matting.engines import ENGINES, Engine
from keras_matting.engines.base import BuildingElsewhere, EngineModule
from keras_matting.model_folder import Preset

MODULES = sorted({entry.module for entry in ENGINES.values()})
ATTRIBUTES = set(Engine.__annotations__)


def functions_of(protocol):
    """Return {name: parameters without self} of a protocol's own functions."""
    named = {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)}
    return {name: list(inspect.signature(member).parameters)[1:] for name, member in named.items() if name[0] != "_"}


METHODS = functions_of(Engine)


def assigned_in(cls):
    """Return the attributes that a class gives to itself, as `self.NAME = ...`."""
    targets = [
        target
        for node in ast.walk(ast.parse(inspect.getsource(cls)))
        if isinstance(node, ast.Assign)
        for given in node.targets
        for target in (given.elts if isinstance(given, ast.Tuple) else [given])
    ]
    return {
        target.attr for target in targets if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"
    }


def test_the_protocol_says_all_that_is_used():
    assert {"name", "path", "size"} == ATTRIBUTES
    assert METHODS == {"predict": ["batch"], "describe": [], "close": []}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_offers_the_functions_of_the_protocol(name):
    module = import_module(name)  # whether its runtime is here or not
    for function, parameters in functions_of(EngineModule).items():
        assert list(inspect.signature(getattr(module, function)).parameters) == parameters, function
    for function, parameters in functions_of(BuildingElsewhere).items():
        if hasattr(module, function):
            assert list(inspect.signature(getattr(module, function)).parameters) == parameters


@pytest.mark.parametrize("name", MODULES)
def test_every_module_s_engine_has_what_the_protocol_says(name):
    module = import_module(name)
    made_here = [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == name]
    engine_classes = [cls for cls in made_here if cls.__name__.endswith("Engine")]
    assert len(engine_classes) == 1, f"{name} opens one kind of engine, called SomethingEngine"
    for method, parameters in METHODS.items():
        assert list(inspect.signature(getattr(engine_classes[0], method)).parameters)[1:] == parameters, method
    assert assigned_in(engine_classes[0]) >= ATTRIBUTES


@pytest.mark.parametrize("name", ["onnx-cpu", "openvino-f32", "savedmodel", REFERENCE])
def test_an_open_engine_fulfils_the_protocol(name, one_layer_dir):
    engine = KerasBaseline(one_layer_dir, name) if name == REFERENCE else engines.open_engine(name, one_layer_dir)
    assert isinstance(engine, Engine)
    assert (engine.name, engine.size) == (name, tuple(Preset.load(one_layer_dir).input_size))
    assert Path(engine.path).exists()
    assert engine.predict(np.zeros((2, *engine.size, 3), np.float32)).shape == (2, *engine.size, 1)
    assert set(engine.describe()) == {"precision", "coverage"}
    engine.close()
