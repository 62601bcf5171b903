"""An architecture is a file and a row: what is added by that recipe is trained, exported, opened and served."""

import json

import httpx
import numpy as np
import pytest
import tiny
from PIL import Image
from server import start_server

from keras_matting import architectures, matting
from keras_matting.errors import UsageError
from keras_matting.training import settings as run_settings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The exported model folder of a run of "tiny", and a folder of what it was trained on."""
    from keras_matting.export import export
    from keras_matting.training.run import train
    from keras_matting.training.strip import strip

    folder = tmp_path_factory.mktemp("third")
    pairs = tiny.write_pairs(folder / "pairs")
    tiny.register()
    try:
        train(tiny.settings(pairs, epochs=2), folder / "run", verbose=0)
        strip(folder / "run", folder / "model", last=True)
        export(folder / "model")
    finally:
        tiny.unregister()
    return folder / "model", pairs


def test_it_is_trained(trained):
    record = json.loads((trained[0] / "training.json").read_text())
    assert record["settings"]["model"] == "tiny" and record["epoch"] == 2
    assert 0 < record["metrics"]["matte_loss"] < 1


@pytest.mark.parametrize("engine", ["onnx-cpu", "openvino-f32", "savedmodel"])
def test_every_exported_graph_of_it_mattes(trained, engine):
    model_dir, pairs = trained
    photo = np.asarray(Image.open(pairs / "image" / "00.png"))
    with_engine = matting.matte(photo, str(model_dir), engine, output="mask")
    assert with_engine.shape == photo.shape[:2]
    assert np.ptp(with_engine) > 0


def test_it_is_served_where_its_row_is_unknown(trained):
    model_dir, pairs = trained
    photo = (pairs / "image" / "00.png").read_bytes()
    with start_server(model_dir) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/v1/models").json()["models"][0]["architecture"] == "tiny"
        answer = client.post("/v1/matte", content=photo, params={"output": "mask"}).content
    assert answer == matting.matte(photo, str(model_dir), "onnx-cpu", output="mask")


def test_a_row_says_what_runs_may_ask_of_it(tiny_model):
    assert architectures.find("tiny") is tiny.ROW
    with pytest.raises(UsageError, match="Only modnet has a backbone to freeze; received tiny"):
        run_settings.Settings("tiny", ("x",), 1, freeze_backbone=True)


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_every_row_names_what_exists(name):
    from keras_matting.training.optimizers import optimizer_of

    architecture = architectures.find(name)
    network = architecture.build((64, 64))
    assert network.name == name
    assert architectures.default_preset(name, "mine").architecture == name
    layers = [layer.name for layer in network.layers]
    assert not architecture.backbone or any(layer.startswith(architecture.backbone) for layer in layers)
    for parts in architecture.sensitive_layers.values():
        assert all(any(part in layer for layer in layers) for part in parts)
    for objective, recipe in architecture.recipes.items():
        assert recipe.schedule in run_settings.SCHEDULES and objective in run_settings.OBJECTIVES
        architecture.trainer(objective, network)
        options = {"data": ("x",), "epochs": 1, "objective": objective}
        for init, rate in (("", recipe.learning_rate), ("elsewhere", recipe.tuning_rate)):
            optimizer = optimizer_of(run_settings.Settings(name, init=init, **options))
            assert float(optimizer.learning_rate) == pytest.approx(rate)


def test_an_unknown_architecture_is_explained():
    with pytest.raises(UsageError, match="an architecture out of modnet, u2net, u2netp; received 'u3net'"):
        architectures.find("u3net")
