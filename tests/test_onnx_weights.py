import warnings

import goldens
import numpy as np
import pytest

from keras_matting.errors import WeightsError
from keras_matting.models import build_model
from keras_matting.weights.checkpoints import import_checkpoint
from keras_matting.weights.onnx import verify

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
torch_modnet = pytest.importorskip("torch_modnet")


@pytest.fixture(scope="module")
def pytorch_modnet():
    return torch_modnet.from_state_dict(goldens.formula_state_dict("modnet"))


@pytest.fixture(scope="module")
def exported_modnet(pytorch_modnet, tmp_path_factory):
    """MODNet in ONNX as its repository exports it: batch norms folded where possible, training heads left out."""
    path = tmp_path_factory.mktemp("onnx") / "modnet.onnx"
    axes = {0: "batch_size", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            torch_modnet.Inference(pytorch_modnet),
            torch.zeros(1, 3, 64, 64),
            path,
            dynamo=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": axes, "output": axes},
        )
    return path


def test_torch_modnet_reproduces_the_official_outputs(pytorch_modnet):
    for shape, expected in goldens.eval_cases("modnet").items():
        image = torch.from_numpy(goldens.image(goldens.SEED, *shape).transpose(0, 3, 1, 2))
        with torch.no_grad():
            outputs = dict(zip(("semantic", "detail", "matte"), pytorch_modnet(image), strict=True))
        for name, values in expected.items():
            actual = outputs[name].numpy().transpose(0, 2, 3, 1)
            np.testing.assert_allclose(actual, values, rtol=0, atol=2e-5, err_msg=name)


def test_modnet_export_with_folded_norms_is_imported(exported_modnet):
    model = build_model("modnet")
    untouched = import_checkpoint(model, exported_modnet)
    assert {name.split(".")[1] for name in untouched} == {"conv_hr", "conv_lr"}  # the training heads
    assert verify(model, exported_modnet) < 1e-5
    for shape, expected in goldens.eval_cases("modnet").items():
        matte = model(goldens.image(goldens.SEED, *shape), training=False)["matte"]
        np.testing.assert_allclose(np.asarray(matte), expected["matte"], rtol=0, atol=2e-5)


def test_an_export_of_another_model_is_refused(exported_modnet):
    with pytest.raises(WeightsError, match="not an export of u2netp"):
        import_checkpoint(build_model("u2netp"), exported_modnet)


def test_our_own_export_is_refused_with_the_way_out(tiny_model_dir):
    model = build_model("u2netp", 64)
    with pytest.raises(WeightsError, match="needs no import"):
        verify(model, tiny_model_dir / "model.onnx")


def test_verify_finds_a_changed_weight(exported_modnet):
    model = build_model("modnet")
    import_checkpoint(model, exported_modnet)
    bias = model.get_layer("f_branch.conv_f.1.layers.0").bias
    bias.assign(bias + 0.1)
    with pytest.raises(WeightsError, match="differ by"):
        verify(model, exported_modnet)
