import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from keras_matting import engines, telemetry
from keras_matting.cli import main
from keras_matting.cli.status import OK, SOME_FAILED
from keras_matting.engines import lower, lowered
from keras_matting.engines.artefacts import exported
from keras_matting.engines.lowered import export_lowered, lowered_onnx
from keras_matting.engines.onnx import OnnxEngine
from keras_matting.errors import EngineError
from keras_matting.model_folder import LOWERED_ONNX, ONNX_FILE, Preset
from keras_matting.photos import imaging
from keras_matting.photos.files import Photo

with telemetry.switched_off():
    import onnxruntime


@pytest.fixture(scope="module")
def options():
    random = np.random.default_rng(0)
    return engines.BuildOptions(tuple(random.uniform(-1, 1, (2, 1, 64, 64, 3)).astype("float32")))


@pytest.fixture(scope="module")
def quantised(tiny_model_dir, tmp_path_factory, options):
    """U2NetP in int8, whose stage 1 stays as it is."""
    target = tmp_path_factory.mktemp("lowered") / "int8.onnx"
    lower.to_int8(tiny_model_dir / ONNX_FILE, target, options.calibration, ["stage1."])
    return target


@pytest.fixture
def folder(one_layer_dir, tmp_path):
    return shutil.copytree(one_layer_dir, tmp_path / "model", ignore=shutil.ignore_patterns("engines"))


def test_nothing_is_quantised_between_a_convolution_and_its_activation(quantised):
    graph = onnx.load(quantised).graph
    readers = {name: node.op_type for node in graph.node for name in node.input}
    after = [readers[node.output[0]] for node in graph.node if node.op_type == "Conv"]
    assert len(after) == 119
    assert "QuantizeLinear" not in after
    makers = {node.output[0]: node for node in graph.node}
    plain = [node for node in graph.node if node.op_type == "Conv" and node.input[0] in makers]
    plain = [node.name for node in plain if makers[node.input[0]].op_type != "DequantizeLinear"]
    assert plain
    assert all("stage1." in name for name in plain)


def test_what_is_not_quantised_may_be_float16(quantised, tiny_model_dir, tmp_path, options):
    lower.to_float16(quantised, tmp_path / "half.onnx")
    model = onnx.load(tmp_path / "half.onnx")
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    scales = {kinds[node.input[1]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert scales == {onnx.TensorProto.FLOAT16}
    assert all(onnx.numpy_helper.to_array(t).min() > 0 for t in model.graph.initializer if "scale" in t.name)
    one, other = (next(lowered._outputs(path, options.calibration[:1])) for path in (quantised, tmp_path / "half.onnx"))
    assert np.abs(one - other).mean() < 0.01


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("scale", ["255", "image-max"])
def test_a_graph_that_takes_bytes_gives_what_the_one_of_normalised_photos_gives(tiny_model_dir, tmp_path, scale, opset):
    preset = replace(Preset.load(tiny_model_dir), scale=scale)
    source = onnx.version_converter.convert_version(onnx.load(tiny_model_dir / ONNX_FILE), opset)
    onnx.save(source, tmp_path / "float.onnx")
    lower.to_uint8_input(tmp_path / "float.onnx", tmp_path / "uint8.onnx", preset)
    random = np.random.default_rng(0)
    photos = [Photo(random.integers(0, top, (40, 50, 3), dtype=np.uint8)) for top in (256, 99, 1)]  # the last is black
    sized, prepared = ([f(p, preset)[None] for p in photos] for f in (imaging.sized, imaging.prepare))
    expected = lowered._outputs(tmp_path / "float.onnx", prepared)
    for output, expectation in zip(lowered._outputs(tmp_path / "uint8.onnx", sized), expected, strict=True):
        np.testing.assert_allclose(output, expectation, rtol=0, atol=1e-6)
    together = OnnxEngine(tmp_path / "float.onnx", "cpu").predict(np.concatenate(prepared))
    session = onnxruntime.InferenceSession(tmp_path / "uint8.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": np.concatenate(sized)})  # a maximum for each photo, not for the batch
    np.testing.assert_allclose(output, together, rtol=0, atol=1e-5)


def test_every_precision_is_written_with_its_error_and_found_again(folder, photo, options):
    written = export_lowered(folder, options, [Photo(photo)])
    assert [one.precision for one in written] == ["fp16", "int8", "int8-fp16", "fp16-uint8"]
    assert all(0 < one.mae <= one.worst_photo_mae < 0.02 and not one.refused for one in written)
    for precision, name in LOWERED_ONNX.items():
        assert lowered_onnx(folder, precision, None, None, "x") == exported(folder, name, "x") == folder / name
    manifest = json.loads((folder / "export-tensorrt.json").read_text())
    assert manifest["mae"] == {LOWERED_ONNX[one.precision]: one.mae for one in written}
    assert len(manifest["calibration_photos"]) == 2
    assert not list(folder.glob(".lowered.*"))


def test_what_the_gate_refuses_is_not_written_and_an_earlier_one_goes(folder, photo, options, monkeypatch):
    export_lowered(folder, options, [Photo(photo)])
    half, *_ = export_lowered(folder, options, [Photo(photo)])
    monkeypatch.setattr(lowered, "GATE_WORST_PHOTO_MAE", half.worst_photo_mae)
    refused = {one.precision: one.refused for one in export_lowered(folder, options, [Photo(photo)])}
    assert not refused["fp16"]
    assert "its worst photo's mean error" in refused["int8"]
    assert (folder / LOWERED_ONNX["fp16"]).exists()
    assert not (folder / LOWERED_ONNX["int8"]).exists()


def test_a_lowered_file_of_other_weights_is_refused(folder, photo, options, tmp_path):
    export_lowered(folder, options, [Photo(photo)])
    preset = json.loads((folder / "preset.json").read_text())
    (folder / "preset.json").write_text(json.dumps(preset | {"weights_sha256": "0" * 64}))
    with pytest.raises(EngineError, match="another weights .*; run keras-matting export .* --for tensorrt"):
        lowered_onnx(folder, "fp16", tmp_path, options, "tensorrt-fp16")


def test_a_machine_that_cannot_lower_is_told_what_to_carry_there(folder, options, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_matting.engines.lower", None)
    monkeypatch.delattr(engines, "lower", raising=False)
    with pytest.raises(EngineError, match=r"needs model\.fp16\.onnx, .* run keras-matting export .* --for tensorrt"):
        lowered_onnx(folder, "fp16", tmp_path, options, "tensorrt-fp16")


def test_the_command_says_what_was_written_and_what_was_not(folder, tmp_path, write_photo, capsys, monkeypatch):
    write_photo(tmp_path / "photos" / "a.png")
    words = ["export", str(folder), "--for", "tensorrt", "--photos", str(tmp_path / "photos")]
    words += ["--calibration", str(tmp_path / "photos")]
    assert main(words) == OK
    assert "model.int8.onnx: mean error 0.0" in capsys.readouterr().err
    monkeypatch.setattr(lowered, "GATE_MAE", 0)
    assert main(words) == SOME_FAILED
    assert "model.int8.onnx: not written: its mean error" in capsys.readouterr().err
