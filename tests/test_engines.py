import json
import shutil

import numpy as np
import pytest

from keras_matting import engines, machine, telemetry
from keras_matting.cli import main
from keras_matting.cli.status import USAGE
from keras_matting.engines import artefacts, base
from keras_matting.errors import EngineError
from keras_matting.model_folder import ONNX_FILE, Preset, export_manifest
from keras_matting.models.folder import load_model

# int8 on formula weights errs by .01 at most on AVX-512; older instruction sets and GPUs may by more.
TOLERANCE = {"openvino-int8": 0.2, "tensorrt-int8": 0.5, "tftrt-int8": 0.5, "openvino-bf16": 0.05}
# On a GPU float32 is TF32.
TOLERANCE |= dict.fromkeys(
    ("onnx-cuda", "onnx-tensorrt", "tensorrt-fp32", "tensorrt-fp16", "tftrt-fp32", "tftrt-fp16"), 0.05
)


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(1).uniform(-1, 1, (3, 64, 64, 3)).astype("float32")


@pytest.fixture(scope="module")
def expected(tiny_model_dir, batch):
    return np.asarray(load_model(tiny_model_dir)(batch, training=False)["matte"])


@pytest.fixture(scope="module")
def opened(tiny_model_dir, batch):
    """Build and open an engine by name, once; skip with the engine's own reason."""
    cache = {}

    def open_once(name):
        reason = engines.unavailable_reason(name) or engines.build_unavailable_reason(name)
        if reason:
            pytest.skip(reason)
        if name not in cache:
            engines.build(name, tiny_model_dir, engines.BuildOptions(calibration=tuple(batch[:, None])))
            cache[name] = engines.open_engine(name, tiny_model_dir)
        return cache[name]

    return open_once


@pytest.fixture
def copy(tiny_model_dir, tmp_path):
    """A copy of the exported folder that a test may spoil, without what other tests have built in it."""
    shutil.copytree(tiny_model_dir, tmp_path / "model", ignore=shutil.ignore_patterns("engines"))
    return tmp_path / "model"


@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_engine_agrees_with_keras_at_any_batch_size(opened, batch, expected, name):
    engine = opened(name)
    assert engine.name == name
    for n in (1, 3):
        matte = engine.predict(batch[:n])
        assert matte.dtype == np.float32
        np.testing.assert_allclose(matte, expected[:n], rtol=0, atol=TOLERANCE.get(name, 1e-4))
        constant = np.abs(expected[:n] - expected[:n].mean()).mean()  # what a matte without any content errs by
        assert np.abs(matte - expected[:n]).mean() < constant / 2
    first = engine.predict(batch[:1])
    before = first.copy()
    engine.predict(batch[1:2])
    np.testing.assert_array_equal(first, before)  # a result is not a view of a buffer
    assert set(engine.describe()) == {"precision", "coverage"}


@pytest.mark.parametrize("name", ["onnx-cpu", "openvino-f32", "openvino-int8"])
@pytest.mark.parametrize(("quota", "threads"), [(0.5, 1), (None, None)])
def test_an_engine_takes_no_more_threads_than_a_quota_gives(opened, tiny_model_dir, monkeypatch, name, quota, threads):
    opened(name)
    monkeypatch.setattr(machine.cgroups, "cpu_quota", lambda root="/": quota)
    engine = engines.open_engine(name, tiny_model_dir)
    if name == "onnx-cpu":
        taken = engine._session.get_session_options().intra_op_num_threads or None  # 0: its own choice
    else:
        ((compiled, *_),) = engine._chain._steps
        asked = compiled.get_property("INFERENCE_NUM_THREADS")
        taken = asked if quota else None
    assert taken == threads


def test_int8_says_what_was_quantised(opened):
    described = opened("openvino-int8").describe()
    assert described["precision"] == "int8"
    assert "of 119 convolutions" in described["coverage"]


@pytest.mark.parametrize("name", ["savedmodel", "onnx-cpu", "openvino-f32", "openvino-int8"])
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 32, 64, 3), "f4"),
        np.zeros((64, 64, 3), "f4"),
        np.zeros((1, 64, 64, 3), "f8"),
        np.zeros((1, 64, 64, 3), "u1"),
        np.zeros((0, 64, 64, 3), "f4"),
        None,
    ],
)
def test_a_batch_of_another_shape_or_dtype_is_refused(opened, name, wrong):
    with pytest.raises(EngineError, match=r"expects a float32 batch \(N, 64, 64, 3\); received"):
        opened(name).predict(wrong)


@pytest.mark.parametrize("name", ["savedmodel", "onnx-cpu", "openvino-f32", "openvino-int8"])
def test_a_missing_artefact_is_explained(tiny_model_dir, tmp_path, name):
    Preset.load(tiny_model_dir).save(tmp_path)
    with pytest.raises(EngineError, match="has nothing built in .*; run keras-matting (export|optimize)"):
        engines.open_engine(name, tmp_path)


def damage(path):
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


GRAPHS = {
    "savedmodel": "saved_model/variables/variables.data-00000-of-00001",
    "onnx-cpu": ONNX_FILE,
    "openvino-f32": ONNX_FILE,
    "openvino-int8": "engines/openvino-int8/model.bin",
}


@pytest.mark.parametrize(("name", "file"), [*GRAPHS.items(), ("openvino-int8", "engines/openvino-int8/model.blob")])
def test_a_damaged_artefact_is_refused(opened, tiny_model_dir, tmp_path, name, file):
    opened(name)
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    damage(tmp_path / "model" / file)
    with pytest.raises(EngineError, match="was changed after it was built; run keras-matting (export|optimize)"):
        engines.open_engine(name, tmp_path / "model")


@pytest.mark.parametrize("name", ["savedmodel", "onnx-cpu", "openvino-f32"])
def test_a_file_that_the_runtime_cannot_read_is_explained(copy, name):
    """As where the export itself wrote nonsense: the manifest fits."""
    path = copy / GRAPHS[name]
    path.write_bytes(path.read_bytes()[:1000])
    manifest = json.loads((copy / "export.json").read_text())
    artefacts.write_manifest(copy / "export.json", copy, list(manifest.pop("files")), **manifest)
    with pytest.raises(
        EngineError, match=rf"Engine {name} cannot open .*\. Export it again\. \((?!Exception from).+\)"
    ):
        engines.open_engine(name, copy)


def test_int8_is_compiled_when_it_is_built_and_not_when_it_is_opened(opened, tiny_model_dir, batch, monkeypatch):
    from keras_matting.engines.openvino_mixed import Chain

    with telemetry.switched_off():
        import openvino

    opened("openvino-int8")
    anew = Chain([(artefacts.engine_dir(tiny_model_dir, "openvino-int8") / "model.xml", "f32")])

    def fail(*arguments):
        raise AssertionError

    monkeypatch.setattr(openvino.Core, "compile_model", fail)
    ahead = engines.open_engine("openvino-int8", tiny_model_dir)
    np.testing.assert_array_equal(ahead.predict(batch), anew(batch))


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"files": []}', '{"files": {}}'])
def test_a_malformed_manifest_counts_as_nothing_built(copy, content):
    (copy / "export.json").write_text(content)
    with pytest.raises(EngineError, match="has nothing built in .*; run keras-matting export"):
        engines.open_engine("onnx-cpu", copy)


def test_the_onnx_file_of_another_model_is_refused(copy, one_layer_dir):
    shutil.copy(one_layer_dir / ONNX_FILE, copy)
    with pytest.raises(EngineError, match="was changed after it was built; run keras-matting export"):
        engines.open_engine("onnx-cpu", copy)
    shutil.copy(one_layer_dir / "export.json", copy)
    with pytest.raises(EngineError, match="was built for another weights .*; run keras-matting export"):
        engines.open_engine("onnx-cpu", copy)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["benchmark", "MODEL", "--engines", "onnx-tensorrt"],
            "Expected an engine that runs here; received onnx-tensorrt.",
        ),
        (["benchmark", "MODEL", "--photos", "EMPTY"], "found none"),
        (["optimize", "MODEL", "--calibration", "EMPTY"], "found none"),
        (["optimize", "MODEL", "--engines", "warp-drive"], "received warp-drive"),
        (["predict", "PHOTO", "--model", "MODEL", "--engine", "onnx-tensorrt"], "cannot run here"),
        (["benchmark", "EMPTY"], "Expected a model folder"),
    ],
)
def test_a_wrong_request_about_engines_is_one_sentence(
    tiny_model_dir, tmp_path, capsys, monkeypatch, write_photo, words, message
):
    from keras_matting.engines import onnx

    real = onnx.unavailable_reason
    monkeypatch.setattr(onnx, "unavailable_reason", lambda v: "no GPU was found." if v == "tensorrt" else real(v))
    (tmp_path / "empty").mkdir()
    photo = write_photo(tmp_path / "photo.png")
    places = {"MODEL": str(tiny_model_dir), "EMPTY": str(tmp_path / "empty"), "PHOTO": str(photo)}
    assert main([places.get(word, word) for word in words]) == USAGE
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("keras-matting: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("weights_sha256", "0" * 64, "another weights"), ("input_size", (32, 32), "another input size")],
)
def test_a_graph_of_another_model_is_refused(copy, field, value, message):
    preset = json.loads((copy / "preset.json").read_text())
    (copy / "preset.json").write_text(json.dumps(preset | {field: value}))
    with pytest.raises(EngineError, match=f"was built for {message}.*run keras-matting export"):
        engines.open_engine("onnx-cpu", copy)


@pytest.mark.parametrize(
    ("field", "message"), [("runtime", "another runtime"), ("device", "another device"), ("weights_sha256", "weights")]
)
def test_an_engine_from_elsewhere_is_refused(opened, tiny_model_dir, tmp_path, field, message):
    opened("openvino-int8")
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    manifest = artefacts.engine_dir(tmp_path / "model", "openvino-int8") / artefacts.MANIFEST
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {field: "elsewhere"}))
    with pytest.raises(EngineError, match=f"{message} \\(elsewhere, here .*optimize"):
        engines.open_engine("openvino-int8", tmp_path / "model")


def test_int8_that_keeps_other_layers_in_float32_is_not_current(opened, tiny_model_dir, monkeypatch):
    from keras_matting.engines import openvino

    opened("openvino-int8")
    assert engines.check_current("openvino-int8", tiny_model_dir) is None
    monkeypatch.setattr(openvino, "sensitive_layers", lambda model_dir, precision: ("stage1.",))
    assert "other layers in float32" in engines.check_current("openvino-int8", tiny_model_dir)


def weights_of(node):
    """Return the type name of the constant that a convolution's weights are, in OpenVINO's words."""
    weights = node.input(1).get_source_output().get_node()
    while weights.get_type_name() != "Constant":
        weights = weights.input(0).get_source_output().get_node()
    return weights.get_element_type().get_type_name()


def test_modnets_backbone_is_not_quantised_and_the_rest_is(modnet_dir, batch, tmp_path):
    if reason := engines.build_unavailable_reason("openvino-int8"):
        pytest.skip(reason)
    with telemetry.switched_off():
        import openvino

    folder = shutil.copytree(modnet_dir, tmp_path / "model")
    engines.build("openvino-int8", folder, engines.BuildOptions(calibration=tuple(batch[:, None])))
    graph = openvino.Core().read_model(artefacts.engine_dir(folder, "openvino-int8") / "model.xml")
    convolutions = [node for node in graph.get_ops() if node.get_type_name() in ("Convolution", "GroupConvolution")]
    quantised = {node.get_friendly_name(): weights_of(node) == "i8" for node in convolutions}
    backbone = {name: whether for name, whether in quantised.items() if "/backbone." in name}
    assert len(backbone) == 52 and not any(backbone.values())
    assert all(whether for name, whether in quantised.items() if "hr_branch." in name)


@pytest.mark.parametrize("name", ["openvino-int8", "openvino-bf16"])
def test_layers_to_keep_that_the_graph_lacks_are_told(copy, batch, monkeypatch, name):
    if reason := engines.build_unavailable_reason(name):
        pytest.skip(reason)
    from keras_matting.engines import openvino

    monkeypatch.setattr(openvino, "sensitive_layers", lambda model_dir, precision: ("stage1.", "stage9."))
    with pytest.raises(EngineError, match="layers called stage9. in the exported graph"):
        engines.build(name, copy, engines.BuildOptions(calibration=tuple(batch[:, None])))


@pytest.mark.parametrize(
    "layers",
    [
        ("m/stage1.conv/convolution", "Conv__597"),
        ("m/stage1.conv/convolution", "Conv__597/WithoutBiases"),
        ("m/stage2.conv/convolution",),
        (),
    ],
)
def test_a_graph_in_which_a_layer_to_keep_cannot_be_told_is_refused(layers):
    with pytest.raises(EngineError, match="Expected layers called stage1."):
        base.check_found(("stage1.",), layers)
    base.check_found((), layers)


def test_a_graph_in_an_older_form_is_exported_again_where_it_is_ours_and_opens_meanwhile(copy):
    manifest = copy / export_manifest(ONNX_FILE)
    content = json.loads(manifest.read_text(encoding="utf-8"))
    assert artefacts.is_exported(copy) and content.pop("graph")
    manifest.write_text(json.dumps(content), encoding="utf-8")
    assert not artefacts.is_exported(copy)
    engines.open_engine("onnx-cpu", copy).close()


def test_a_build_that_fails_leaves_the_earlier_artefact(copy):
    with artefacts.building(copy, "openvino-int8", "r", "d") as (folder, _):
        (folder / "old").touch()
    with pytest.raises(ZeroDivisionError), artefacts.building(copy, "openvino-int8", "r", "d") as (folder, _):
        raise ZeroDivisionError
    folder = artefacts.engine_dir(copy, "openvino-int8")
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "old"]
    assert [path.name for path in folder.parent.iterdir()] == ["openvino-int8"]


def test_int8_without_photos_is_explained(copy):
    if reason := engines.build_unavailable_reason("openvino-int8"):
        pytest.skip(reason)
    with pytest.raises(EngineError, match="needs photos to calibrate"):
        engines.build("openvino-int8", copy, engines.BuildOptions())
