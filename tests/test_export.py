import shutil
import sys
from collections import Counter

import keras
import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import helper

from keras_matting import onnx_graph
from keras_matting.engines import lower
from keras_matting.engines.onnx import OnnxEngine
from keras_matting.errors import EngineError, UsageError
from keras_matting.export import OPSET, export
from keras_matting.foreign import write_keras_folder
from keras_matting.model_folder import ONNX_FILE, Preset
from keras_matting.models import build_model, inference_model
from keras_matting.models.layers import ExactResizeLike, ResizeLike
from keras_matting.models.tftrt_form import tftrt_form


@pytest.mark.parametrize("name", [pytest.param("modnet", marks=pytest.mark.long), "u2netp"])
def test_onnx_has_few_transposes_one_input_and_the_matte(request, name):
    folder = request.getfixturevalue("modnet_dir" if name == "modnet" else "tiny_model_dir")
    graph = onnx.load(folder / ONNX_FILE).graph
    assert sum(node.op_type == "Transpose" for node in graph.node) <= 2
    assert [output.name for output in graph.output] == ["matte"]
    assert [source.name for source in graph.input] == ["image"]
    shape = graph.input[0].type.tensor_type.shape.dim
    assert not shape[0].dim_value
    assert [side.dim_value for side in shape[1:]] == [64, 64, 3]


@pytest.mark.long
def test_another_size_and_a_fixed_batch_are_exported_and_refuse_others(modnet_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(modnet_dir, folder)
    assert max(export(folder, size=(32, 64), batch=2).values()) < 1e-4
    assert Preset.load(folder).input_size == (32, 64)
    engine = OnnxEngine(folder / ONNX_FILE, "cpu")
    assert engine.predict(np.zeros((2, 32, 64, 3), "f4")).shape == (2, 32, 64, 1)
    with pytest.raises(EngineError, match=r"batch \(2, 32, 64, 3\); received"):
        engine.predict(np.zeros((1, 32, 64, 3), "f4"))


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32, 1 / 2, 1 / 4])
def test_exact_resize_equals_the_bilinear_one(factor):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 12, 20, 3)).astype("float32")
    reference = np.zeros((1, int(12 * factor), int(20 * factor), 1), "float32")
    np.testing.assert_allclose(ExactResizeLike()([x, reference]), ResizeLike()([x, reference]), rtol=0, atol=1e-6)


def test_exact_resize_refuses_an_odd_factor():
    with pytest.raises(ValueError, match="even factors"):
        ExactResizeLike()([np.zeros((1, 4, 4, 1), "f4"), np.zeros((1, 12, 12, 1), "f4")])


@pytest.mark.parametrize(("name", "size"), [("modnet", 64), ("u2netp", 320)])
def test_the_form_for_tftrt_gives_the_same_matte(name, size):
    model = inference_model(build_model(name, size))
    image = np.random.default_rng(0).uniform(-1, 1, (1, size, size, 3)).astype("float32")
    difference = np.abs(np.asarray(tftrt_form(model)(image)) - np.asarray(model(image))).max()
    assert difference < 1.5e-5


@pytest.mark.parametrize("name", ["modnet", "u2netp"])
def test_convolutions_are_called_after_their_layers(request, name):
    folder = request.getfixturevalue("modnet_dir" if name == "modnet" else "tiny_model_dir")
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    network = inference_model(build_model(name, 64))
    layers = [layer.name for layer in network.layers if isinstance(layer, convolutions)]
    nodes = [node for node in onnx.load(folder / ONNX_FILE).graph.node if node.op_type == "Conv"]
    for layer in layers:
        assert any(f"/{layer}_1/" in node.name or f"/{layer}/" in node.name for node in nodes), layer
    assert len({node.name for node in nodes}) == len(nodes) >= len(layers)


def test_modnets_instance_norms_are_one_operation_each(modnet_dir):
    kinds = Counter(node.op_type for node in onnx.load(modnet_dir / ONNX_FILE).graph.node)
    assert kinds["InstanceNormalization"] == 16
    assert kinds["Sqrt"] == kinds["Reciprocal"] == 0 and kinds["GlobalAveragePool"] == 1  # of the gate on channels


def norm_written_out(
    square_of="centred", averaged="x", axes=None, mean_shape=(-1, 3, 1, 1), kind=np.float32, shape=(2, 3, 3, 3)
):
    """Return a graph of (x - mean(x)) / sqrt(mean(square) + 1e-3), the mean reshaped."""
    mean = helper.make_node("ReduceMean", [averaged], ["mean"], axes=axes) if axes else None
    nodes = [
        mean or helper.make_node("GlobalAveragePool", [averaged], ["mean"]),
        helper.make_node("Reshape", ["mean", "mean_shape"], ["mean_again"]),
        helper.make_node("Sub", ["x", "mean_again"], ["centred"]),
        helper.make_node("Mul", ["centred", square_of], ["square"]),
        helper.make_node("GlobalAveragePool", ["square"], ["variance"]),
        helper.make_node("Add", ["variance", "epsilon"], ["total"]),
        helper.make_node("Sqrt", ["total"], ["deviation"]),
        helper.make_node("Reciprocal", ["deviation"], ["scale"]),
        helper.make_node("Mul", ["scale", "centred"], ["y"]),
    ]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    ends = [helper.make_tensor_value_info(name, element, shape) for name in ("x", "other", "y")]
    constants = {"epsilon": np.array(1e-3, kind), "mean_shape": np.array(mean_shape)}
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "norm", ends[:2], ends[2:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


def test_an_instance_norm_is_found_in_any_graph():
    model = norm_written_out(axes=[2, 3])
    feeds = {name: np.random.default_rng(0).normal(3, 2, (2, 3, 3, 3)).astype("float32") for name in ("x", "other")}
    expected = onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0]
    onnx_graph.fuse_instance_norms(model)
    assert [node.op_type for node in model.graph.node] == ["InstanceNormalization"]
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0], expected, atol=1e-5)


def test_instance_norms_of_nodes_without_names_have_different_ones():
    second = onnx.compose.add_prefix(norm_written_out(), "second_", rename_nodes=False)
    model = onnx.compose.merge_models(norm_written_out(), second, io_map=[])
    onnx_graph.fuse_instance_norms(model)
    assert [node.op_type for node in model.graph.node] == ["InstanceNormalization"] * 2
    assert len({node.name for node in model.graph.node}) == 2


@pytest.mark.parametrize(
    "parts",
    [
        {"square_of": "other"},
        {"averaged": "other"},
        {"axes": [1, 2]},
        {"mean_shape": (-1, 1, 1, 3)},
        {"mean_shape": (-1, 1, 3, 1), "shape": (3, 1, 3, 3)},
        {"kind": np.float16},
    ],
    ids=["square", "mean", "axes", "moved mean", "mean of other photos", "half precision"],
)
def test_what_only_looks_like_an_instance_norm_stays_as_it_is(parts):
    model = norm_written_out(**parts)
    onnx_graph.fuse_instance_norms(model)
    assert model == norm_written_out(**parts)


@pytest.mark.parametrize("name", ["modnet", "u2netp"])
def test_float16_keeps_statistics_in_float32_and_stays_near(request, tmp_path, name):
    folder = request.getfixturevalue("modnet_dir" if name == "modnet" else "tiny_model_dir")
    lower.to_float16(folder / ONNX_FILE, tmp_path / "half.onnx")
    half = onnx.load(tmp_path / "half.onnx")
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(half).graph.value_info
    }
    norms = [node for node in half.graph.node if node.op_type == "InstanceNormalization"]
    means = [node for node in half.graph.node if node.op_type == "GlobalAveragePool"]
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    assert all(kinds[node.output[0]] == onnx.TensorProto.FLOAT for node in norms + means)
    assert all(kinds[node.output[0]] == onnx.TensorProto.FLOAT16 for node in convolutions)
    assert (len(norms), len(means)) == ((16, 1) if name == "modnet" else (0, 0))
    image = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    expected = OnnxEngine(folder / ONNX_FILE, "cpu").predict(image)
    difference = np.abs(OnnxEngine(tmp_path / "half.onnx", "cpu").predict(image) - expected)
    assert difference.mean() < 0.01  # ten bits, through a hundred layers of random weights


def test_constants_that_a_layer_captures_are_no_inputs(tmp_path):
    layers = [
        keras.Input((64, 64, 3)),
        keras.layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.2, 0.3, 0.4]),  # as in EfficientNet
        keras.layers.Conv2D(1, 3, padding="same"),
    ]
    write_keras_folder(keras.Sequential(layers), "normalized", tmp_path / "model")
    assert max(export(tmp_path / "model").values()) < 1e-4
    assert [source.name for source in onnx.load(tmp_path / "model" / ONNX_FILE).graph.input] == ["image"]


def test_grouped_convolutions_are_exported_as_such(tmp_path):
    layers = [keras.Input((16, 16, 3)), keras.layers.Conv2D(8, 1), keras.layers.Conv2D(8, 3, groups=4)]
    write_keras_folder(keras.Sequential(layers), "grouped", tmp_path / "model")
    export(tmp_path / "model")  # which compares both files with Keras
    nodes = onnx.load(tmp_path / "model" / ONNX_FILE).graph.node
    groups = [attribute.i for node in nodes for attribute in node.attribute if attribute.name == "group"]
    assert 4 in groups


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_is_exported(tmp_path, approximate):
    image = keras.Input((16, 16, 3))
    matte = keras.ops.gelu(keras.layers.Conv2D(1, 1)(image), approximate=approximate)
    write_keras_folder(keras.Model(image, matte), "gelu", tmp_path / "model")
    assert max(export(tmp_path / "model").values()) < 1e-5


def test_a_graph_that_onnx_cannot_hold_is_explained_and_leaves_the_folder(one_layer_dir, tmp_path):
    folder = shutil.copytree(one_layer_dir, tmp_path / "model")
    before = (folder / ONNX_FILE).read_bytes()
    with pytest.raises(EngineError, match="64x64 that ONNX opset 99 can hold"):
        export(folder, opset=99)
    assert (folder / ONNX_FILE).read_bytes() == before
    assert not list(folder.glob(".export.*"))


def test_a_model_that_is_not_ours_keeps_its_size(one_layer_dir, tmp_path):
    folder = shutil.copytree(one_layer_dir, tmp_path / "model")
    with pytest.raises(UsageError, match="size 64x64, for which one_layer was built; received 32x96"):
        export(folder, size=(32, 96))


def test_an_export_does_not_need_the_sample_photos(one_layer_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    shutil.copytree(one_layer_dir, tmp_path / "model")
    assert max(export(tmp_path / "model").values()) < 1e-4


def test_a_missing_simplifier_is_told_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_matting.export.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs onnxslim"):
        export(tmp_path / "nowhere", simplify=True)


@pytest.mark.long
def test_a_simplified_graph_is_checked_like_any_other(modnet_dir, tmp_path):
    shutil.copytree(modnet_dir, tmp_path / "model")
    assert max(export(tmp_path / "model", simplify=True).values()) < 1e-4
    plain, slim = (onnx.load(folder / ONNX_FILE).graph for folder in (modnet_dir, tmp_path / "model"))
    assert len(slim.node) < len(plain.node)
