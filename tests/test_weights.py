import goldens
import numpy as np
import pytest

from keras_matting.errors import UsageError, WeightsError
from keras_matting.models import build_model
from keras_matting.weights.checkpoints import import_checkpoint
from keras_matting.weights.pytorch import load_state_dict


@pytest.fixture(scope="module")
def model():
    return build_model("u2netp", 64)


@pytest.fixture
def state_dict():
    return goldens.formula_state_dict("u2netp")


def test_formula_weights_have_the_published_check_sums():
    u2net, modnet = goldens.formula_state_dict("u2net"), goldens.formula_state_dict("modnet")
    np.testing.assert_allclose(u2net["stage1.rebnconvin.conv_s1.weight"].sum(), 1.7324016, rtol=1e-5)
    np.testing.assert_allclose(u2net["side1.bias"].sum(), 0.24300644, rtol=1e-5)
    np.testing.assert_allclose(modnet["backbone.model.features.0.1.running_var"].sum(), 31.427402, rtol=1e-5)


def test_data_parallel_prefix_is_accepted(model, state_dict):
    load_state_dict(model, {f"module.{name}": array for name, array in state_dict.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("side3.bias"), "missing side3.bias; left over nothing"),
        (lambda state: state.update(extra=np.zeros(3)), "missing nothing; left over extra"),
        (lambda state: state.update({"side1.bias": np.zeros(2)}), r"of another shape side1.bias \(2,\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(model, state_dict, change, message):
    load_state_dict(model, state_dict)
    before = [variable.numpy() for variable in model.weights]
    change(state_dict)
    with pytest.raises(WeightsError, match=message):
        load_state_dict(model, {name: array + 1 for name, array in state_dict.items()})
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["side1.bias"].fill(np.nan), "Expected finite numbers"),
        (lambda state: state.update({"module.side1.bias": state["side1.bias"]}), "with and without the prefix"),
        (lambda state: state.update({"foo.num_batches_tracked": np.zeros(())}), "left over foo"),
        (lambda state: state.update({3: np.zeros(1)}), "under a name"),
        (lambda state: state.update({"side1.bias": np.array(["x"])}), "Expected finite numbers"),
        (lambda state: state.update({"stage1.rebnconvin.bn_s1.bias": np.zeros((1, 1, 1, 64))}), "of another shape"),
    ],
)
def test_what_no_checkpoint_contains_is_refused(model, state_dict, change, message):
    change(state_dict)
    with pytest.raises(WeightsError, match=message):
        load_state_dict(model, state_dict)


def test_the_second_name_of_the_modnet_backbone_wins_as_in_pytorch():
    model, state = build_model("modnet", 64), goldens.formula_state_dict("modnet")
    load_state_dict(model, state)
    kernel = model.get_layer("backbone.model.features.0.0").kernel.numpy()
    np.testing.assert_array_equal(kernel, state["lr_branch.backbone.model.features.0.0.weight"].transpose(2, 3, 1, 0))


def test_a_file_of_another_kind_is_refused(model, tmp_path):
    for name, content, error, message in [
        ("missing.pth", None, UsageError, "does not exist"),
        ("weights.h5", b"x", UsageError, "Expected a .pth, .pt, .ckpt or .onnx"),
        ("bad.onnx", b"no model", WeightsError, "cannot be read as one"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(error, match=message):
            import_checkpoint(model, tmp_path / name)


def test_pytorch_files_are_imported(tmp_path):
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    state = goldens.formula_state_dict("u2netp")
    tensors = {f"module.{name}": torch.from_numpy(array) for name, array in state.items()}
    torch.save({"state_dict": tensors}, tmp_path / "wrapped.ckpt")
    torch.save(tensors, tmp_path / "plain.pth")
    shape, expected = next(iter(goldens.eval_cases("u2netp").items()))
    for name in ("wrapped.ckpt", "plain.pth"):
        model = build_model("u2netp", shape[1:])
        assert import_checkpoint(model, tmp_path / name) == []
        matte = model(goldens.image(goldens.SEED, *shape), training=False)["matte"]
        np.testing.assert_allclose(np.asarray(matte), expected["matte"], rtol=0, atol=2e-5)


def test_a_damaged_or_foreign_pytorch_file_is_refused(model, tmp_path):
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    (tmp_path / "bad.pth").write_bytes(b"PK no checkpoint")
    with pytest.raises(WeightsError, match="cannot be read"):
        import_checkpoint(model, tmp_path / "bad.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "foreign.pth")
    with pytest.raises(WeightsError, match="not one of u2netp"):
        import_checkpoint(model, tmp_path / "foreign.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="cannot be read"):
        import_checkpoint(model, tmp_path / "empty.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="dictionary of tensors"):
        import_checkpoint(model, tmp_path / "list.pth")
