"""Anybody's ONNX network as a model folder: the same values as in its own file, on every engine, or one sentence."""

import json
from dataclasses import replace

import cv2
import httpx
import numpy as np
import onnx
import onnx_files
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import SIDE, convolved, sigmoid
from server import start_server

from keras_matting import engines, foreign_onnx
from keras_matting.cli import main
from keras_matting.engines import lower
from keras_matting.engines.onnx import onnxruntime_module
from keras_matting.engines.optimize import optimize
from keras_matting.errors import EngineError, UsageError
from keras_matting.foreign_onnx import Asked, write_onnx_folder
from keras_matting.matting import OutputOptions, Session
from keras_matting.model_folder import Preset
from keras_matting.photos.files import decode

HALVES = {"mean": [0.5], "std": [0.5]}
IMAGES = np.random.default_rng(1).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype("float32")


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def halved(values):
    """Return maps (N, H, W, 1) after a pooling of 2, enlarged again."""
    pooled = values.reshape(len(values), SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4))
    return np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for one in pooled])[..., None]


POOLED = [("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 2]})]
SQUEEZED = [("Squeeze", [np.array([1])], {})]
FIXED = [("Reshape", [np.array([1, 1, SIDE, SIDE])], {})]  # of one photo, wherever it is used
BACK = [("Transpose", [], {"perm": [0, 2, 3, 1]})]
# By name: how the file is written, what has to be said of it, and what it gives for normalised images
NETWORKS = {
    "plain": ({}, {}, lambda x: sigmoid(convolved(x))),
    "any-size": ({"sides": ("h", "w")}, {"size": (SIDE, SIDE)}, lambda x: sigmoid(convolved(x))),
    "any-batch": ({"batch": "n"}, {}, lambda x: sigmoid(convolved(x))),
    "one-photo-only": ({"tail": FIXED}, {}, lambda x: sigmoid(convolved(x))),
    "channels-last": ({"layout": "NHWC", "tail": BACK}, {}, lambda x: sigmoid(convolved(x))),
    "channels-untold": (
        {"layout": "NHWC", "sides": (3, 3)},
        {"layout": "NHWC"},
        lambda x: sigmoid(convolved(x)),
    ),
    "float16": ({"dtype": TensorProto.FLOAT16}, {}, lambda x: sigmoid(convolved(x))),
    "uint8": (
        {"dtype": TensorProto.UINT8},
        {"mean": None, "std": None},
        lambda x: sigmoid(convolved(np.clip(np.rint(x), 0, 255) / 255)),
    ),
    "logits": ({"end": None}, {"output": "sigmoid"}, lambda x: sigmoid(convolved(x))),
    "two-channels": ({"channels": 2, "end": "Softmax"}, {}, lambda x: softmax(convolved(x, 2))[..., 1:]),
    "two-logits": ({"channels": 2, "end": None}, {"output": "softmax"}, lambda x: softmax(convolved(x, 2))[..., 1:]),
    "four-classes": (
        {"channels": 4, "end": None},
        {"output": "softmax", "channel": 2},
        lambda x: softmax(convolved(x, 4))[..., 2:3],
    ),
    "old-opset": (
        {"channels": 2, "end": None, "opset": 11},
        {"output": "softmax"},
        lambda x: softmax(convolved(x, 2))[..., 1:],
    ),
    "without-channels": ({"tail": SQUEEZED}, {}, lambda x: sigmoid(convolved(x))),
    "smaller-map": ({"tail": POOLED}, {"output": "none"}, lambda x: halved(sigmoid(convolved(x)))),
    "several-outputs": ({"extra": ["d1", "d2"]}, {"output_name": "1959"}, lambda x: sigmoid(convolved(x))),
    "our-names": ({"names": ("matte", "image")}, {}, lambda x: sigmoid(convolved(x))),
    "out-of-order": ({"rotate": 1}, {}, lambda x: sigmoid(convolved(x))),
    "constants-as-inputs": ({"as_inputs": True, "opset": 11}, {}, lambda x: sigmoid(convolved(x))),
    "stretched": ({"end": None}, {"output": "minmax"}, lambda x: convolved(x)),
}


@pytest.fixture
def make(tmp_path):
    """Write a network and its folder; return the folder."""

    def make(name="plain", asked=None, **options):
        written, said, _ = NETWORKS[name]
        path = onnx_files.write(tmp_path / f"{name}.onnx", **(written | options))
        write_onnx_folder(path, tmp_path / name, Asked(**(HALVES | said | (asked or {}))))
        return tmp_path / name

    return make


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_gives_what_the_file_gives(make, name):
    folder, expect = make(name), NETWORKS[name][2]
    images = IMAGES[:, :3, :3] if name == "channels-untold" else IMAGES
    images = np.abs(images) * 255 if name == "uint8" else images
    tolerance = 2e-3 if name == "float16" else 1e-5
    engine = engines.open_engine("onnx-cpu", folder)
    mattes = np.concatenate([engine.predict(images[index : index + 1]) for index in range(2)])
    np.testing.assert_allclose(mattes, expect(images), rtol=0, atol=tolerance)
    if name != "one-photo-only":
        np.testing.assert_allclose(engine.predict(images), mattes, rtol=0, atol=tolerance)
    engine.close()


def test_a_folder_s_preset_says_where_it_is_from(make):
    preset = Preset.load(make(asked={"scale": "image-max", "interpolation": "area"}))
    assert (preset.architecture, preset.source, preset.input_size) == ("onnx:plain", "plain.onnx", (SIDE, SIDE))
    assert (preset.scale, preset.interpolation, preset.mean, preset.std) == (
        "image-max",
        "area",
        (0.5,) * 3,
        (0.5,) * 3,
    )
    assert not preset.has_keras


def test_what_the_file_is_for_photos_is_what_a_session_gives(make, photo, tmp_path):
    from keras_matting.photos.files import Photo

    with Session(make("stretched"), "onnx-cpu") as session:
        matte = session.restore(Photo(photo), session.predict(session.prepare(Photo(photo))[None])[0])
    plain = onnxruntime_module().InferenceSession(str(tmp_path / "stretched.onnx"), providers=["CPUExecutionProvider"])
    small = cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    given = plain.run(None, {"input.1": ((small / np.float32(255) - 0.5) / 0.5).transpose(2, 0, 1)[None]})[0][0, 0]
    stretched = (given - given.min()) / (given.max() - given.min())
    expected = cv2.resize(stretched, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(matte, np.clip(expected, 0, 1), rtol=0, atol=1e-5)


def test_a_branch_reads_the_network_s_constants(tmp_path):
    bias = numpy_helper.from_array(np.array(-2, np.float32), "bias")
    add, keep = helper.make_node("Add", ["x", "bias"], ["y"]), helper.make_node("Identity", ["x"], ["y"])
    results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    branches = {
        f"{name}_branch": helper.make_graph([node], name, [], results) for name, node in (("then", add), ("else", keep))
    }
    nodes = [
        helper.make_node("ReduceMean", ["photo"], ["x"], axes=[1], keepdims=1),
        helper.make_node("Constant", [], ["truth"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["truth"], ["z"], **branches),
        helper.make_node("Sigmoid", ["z"], ["out"]),
    ]
    sides = [helper.make_tensor_value_info("photo", TensorProto.FLOAT, (1, 3, SIDE, SIDE))]
    graph = helper.make_graph(
        nodes, "g", sides, [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)], [bias]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "if.onnx")
    write_onnx_folder(tmp_path / "if.onnx", tmp_path / "if", Asked(**HALVES))
    engine = engines.open_engine("onnx-cpu", tmp_path / "if")
    expected = sigmoid(IMAGES[:1].mean(axis=-1, keepdims=True) - 2)
    np.testing.assert_allclose(engine.predict(IMAGES[:1]), expected, rtol=0, atol=1e-5)


def test_engines_serve_a_folder_and_those_of_keras_say_why_not(make):
    folder = make()
    expected = engines.open_engine("onnx-cpu", folder).predict(IMAGES[:1])
    rows = {row.engine: row for row in optimize(folder, ["savedmodel", "tftrt-fp16", "openvino-f32", "openvino-int8"])}
    assert {name: row.status for name, row in rows.items()} == {
        "savedmodel": "unavailable",
        "tftrt-fp16": "unavailable",
        "openvino-f32": "current",
        "openvino-int8": "built",
    }
    assert "was made of an ONNX file" in rows["savedmodel"].reason
    for name, tolerance in (("openvino-f32", 1e-5), ("openvino-int8", 0.05)):
        engine = engines.open_engine(name, folder)
        np.testing.assert_allclose(engine.predict(IMAGES[:1]), expected, rtol=0, atol=tolerance)
    with pytest.raises(EngineError, match="cannot run this model: .* choose an onnx-, openvino- or tensorrt- engine"):
        engines.open_engine("savedmodel", folder)


def test_a_graph_of_mixed_precision_becomes_float16_as_a_whole(make, tmp_path):
    cast = [("Cast", [], {"to": TensorProto.FLOAT}), ("Mul", [np.array(1, np.float32)], {})]
    cast.append(("Cast", [], {"to": TensorProto.FLOAT16}))
    folder = make("float16", {"output": "none"}, tail=cast)
    lower.to_float16(folder / "model.onnx", tmp_path / "half.onnx")
    (actual,) = (
        onnxruntime_module()
        .InferenceSession(str(tmp_path / "half.onnx"), providers=["CPUExecutionProvider"])
        .run(None, {"image": IMAGES[:1]})
    )
    np.testing.assert_allclose(actual, sigmoid(convolved(IMAGES[:1])), rtol=0, atol=3e-3)


def test_the_benchmark_compares_with_the_file_and_auto_obeys(make):
    from keras_matting.benchmarking.run import benchmark
    from keras_matting.photos.files import Photo

    folder = make("one-photo-only")
    photos = {"noise": Photo(np.random.default_rng(2).integers(0, 255, (20, 30, 3), np.uint8))}
    names = ["onnx-cpu", "savedmodel"]
    report = benchmark(folder, photos, names=names, batches=(1, 4), rounds=1, max_rounds=1)
    (result,) = report["results"]  # without the Keras model's baselines
    assert (result["engine"], result["error"]["max"]) == ("onnx-cpu", 0)
    assert [speed["batch"] for speed in result["speed"]] == [1]  # it takes no other
    assert "was made of an ONNX file" in report["skipped"]["savedmodel"]
    assert engines.choose_engine("auto", folder).chosen_by == "benchmark"


def test_the_service_sends_a_network_of_one_photo_one_at_a_time(make):
    from keras_matting_api.served_model import _batching_of
    from keras_matting_api.settings import ServiceSettings

    settings = ServiceSettings(max_batch=8)
    with Session(make("one-photo-only"), "onnx-cpu") as single, Session(make(), "onnx-cpu") as any_number:
        assert [_batching_of(session, settings).max_batch for session in (single, any_number)] == [1, 8]


def test_the_service_serves_a_folder(make, jpeg):
    folder = make()
    with Session(folder, "onnx-cpu") as session, start_server(folder) as server:
        expected = session.matte(decode(jpeg), OutputOptions("mask"))
        answer = httpx.post(f"{server.url}/v1/matte", params={"output": "mask"}, content=jpeg, timeout=60)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_GRAYSCALE), expected)


def test_a_folder_is_lowered_for_tensorrt_or_one_sentence_says_why_not(make, capsys, monkeypatch):
    folder = make()
    assert main(["export", str(folder), "--for", "tensorrt"]) == 0
    assert (folder / "model.fp16.onnx").is_file()

    def fail(*arguments):
        raise TypeError("no such operator\nin the middle")

    monkeypatch.setattr(lower, "to_float16", fail)
    capsys.readouterr()
    assert main(["export", str(folder), "--for", "tensorrt"]) == 2
    assert "cannot be written: no such operator. Choose an engine of float32.\n" in capsys.readouterr().err


def test_verbs_take_a_folder_or_say_that_it_has_no_keras_model(make, write_photo, tmp_path, capsys):
    folder, photo = str(make()), str(write_photo(tmp_path / "a.png"))
    assert main(["predict", photo, str(tmp_path / "out.png"), "--model", folder, "--engine", "onnx-cpu"]) == 0
    assert (tmp_path / "out.png").is_file()
    assert main(["export", folder, "--triton", str(tmp_path / "triton")]) == 0
    assert (tmp_path / "triton/plain/1/model.onnx").is_file()
    for words in (["export", folder], ["evaluate", folder, "--data", f"pairs:{_pairs(tmp_path)}", "--engine", "keras"]):
        capsys.readouterr()
        assert main(words) == 2
        assert "was made of an ONNX file (plain.onnx)" in capsys.readouterr().err


def test_training_does_not_start_from_a_folder_without_keras(make, tiny_model):
    import tiny

    from keras_matting.training.start import load_initial_weights

    with pytest.raises(UsageError, match="not trained or exported"):
        load_initial_weights(tiny.build((16, 16)), make())


def _pairs(tmp_path):
    from keras_matting.photos.files import encode

    for part, shape in (("image", (20, 30, 3)), ("mask", (20, 30))):
        (tmp_path / "pairs" / part).mkdir(parents=True)
        (tmp_path / "pairs" / part / "a.png").write_bytes(encode(np.zeros(shape, np.uint8), ".png"))
    return tmp_path / "pairs"


def test_a_graph_that_differs_from_its_file_is_not_written(make, monkeypatch, tmp_path):
    wrap = foreign_onnx.wrap
    monkeypatch.setattr(
        foreign_onnx, "wrap", lambda source, output, batch: wrap(source, replace(output, activation="sigmoid"), batch)
    )
    with pytest.raises(EngineError, match="to agree with the file under ONNX Runtime"):
        make()
    assert not (tmp_path / "plain").exists()


def test_a_damaged_graph_says_which_command_makes_it_anew(make):
    folder = make()
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match="make the folder anew with keras-matting from-onnx plain.onnx"):
        engines.open_engine("onnx-cpu", folder)
    assert json.loads((folder / "export.json").read_text())["batch"] is None
