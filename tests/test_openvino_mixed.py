import json
import shutil
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pytest

from keras_matting import engines, telemetry
from keras_matting.engines import artefacts, openvino_mixed
from keras_matting.engines import openvino as openvino_engine
from keras_matting.engines.base import sensitive_layers
from keras_matting.engines.openvino_mixed import Chain, split
from keras_matting.model_folder import ONNX_FILE

with telemetry.switched_off():
    import openvino

KEPT = ("stage2d.rebnconv2d", "stage2d.rebnconv1d")


def read(folder):
    return openvino.Core().read_model(folder / ONNX_FILE)


def convolutions(model):
    return [node.get_friendly_name() for node in model.get_ops() if node.get_type_name() == "Convolution"]


def assert_chain_equals_whole(folder, pieces):
    """Compare on batches of changing size, all in float32."""
    chain = Chain([(model, "f32") for model, _ in pieces])
    whole = Chain([(folder / ONNX_FILE, "f32")])
    _, height, width, _ = whole.input.partial_shape
    images = np.random.default_rng(0).uniform(-2, 2, (3, height.get_length(), width.get_length(), 3)).astype("float32")
    for n in (1, 3, 2):
        np.testing.assert_allclose(chain(images[:n]), whole(images[:n]), rtol=0, atol=1e-6)


def test_a_cut_model_equals_the_whole_one_and_keeps_its_layers_in_float32(tiny_model_dir):
    pieces = split(read(tiny_model_dir), KEPT)
    assert [precision for _, precision in pieces] == ["bf16", "f32", "bf16"]
    kept = convolutions(pieces[1][0])
    assert len(kept) == 2
    assert all(any(part in name for part in KEPT) for name in kept)
    assert sum(len(convolutions(model)) for model, _ in pieces) == 119
    assert_chain_equals_whole(tiny_model_dir, pieces)


def test_what_lies_between_two_kept_layers_is_kept_too(tiny_model_dir):
    (_, (model, _), _) = split(read(tiny_model_dir), KEPT)
    assert [node.get_type_name() for node in model.get_ops()].count("Interpolate") == 1  # from the one to the other


@pytest.mark.parametrize(
    "kept",
    [
        ("stage1.", "stage2d."),  # two islands, one of them at the start
        ("stage3.rebnconv4.", "stage1d.rebnconv1d"),  # the second reads what the first does not
    ],
)
def test_several_islands_make_a_longer_chain(tiny_model_dir, kept):
    pieces = split(read(tiny_model_dir), kept)
    assert {precision for _, precision in pieces} == {"bf16", "f32"}
    assert_chain_equals_whole(tiny_model_dir, pieces)


def test_a_model_without_sensitive_layers_stays_in_one_piece(modnet_dir):
    assert sensitive_layers(modnet_dir, "bf16") == ()
    pieces = split(read(modnet_dir), ())
    assert [precision for _, precision in pieces] == ["bf16"]
    assert_chain_equals_whole(modnet_dir, pieces)


def test_an_image_that_several_pieces_read_is_handed_to_each():
    ops = openvino.opset13

    def convolution(source, name):
        weights = ops.constant(np.ones((3, source.get_partial_shape()[1].get_length(), 3, 3), "float32"))
        node = ops.convolution(source, weights, [1, 1], [1, 1], [1, 1], [1, 1])
        node.set_friendly_name(name)
        return node.output(0)

    image = ops.parameter([-1, 3, 8, 8], np.float32, "image")
    image.output(0).get_tensor().set_names({"image"})
    x = convolution(convolution(image.output(0), "first"), "kept")
    matte = convolution(ops.concat([x, image], 1).output(0), "last")
    pieces = split(openvino.Model([matte], [image], "skip"), ("kept",))
    # Float32 everywhere: the last sum has more digits than bfloat16.
    inputs = [{port.get_any_name() for port in model.inputs} for model, _ in pieces]
    assert ["image" in names for names in inputs] == [True, False, True]
    ones = np.ones((2, 3, 8, 8), "float32")
    assert Chain([(model, "f32") for model, _ in pieces])(ones)[0, 0, 4, 4] == 9 * (3 * 27 * 27 + 3)


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    shutil.copytree(tiny_model_dir, tmp_path / "model", ignore=shutil.ignore_patterns("engines"))
    return tmp_path / "model"


def skip_where_nothing_computes_bfloat16():
    """A processor without it computes in float32 instead; one whose kernels are held below it fails."""
    if reason := openvino_engine.held_below_bfloat16():
        pytest.skip(reason)


def build(folder):
    """Build as on a processor with bfloat16; elsewhere OpenVINO runs the result in float32."""
    skip_where_nothing_computes_bfloat16()
    openvino_engine.build(folder, "bf16", engines.BuildOptions())
    engine = openvino_engine.open_engine(folder, "bf16")
    return engine, json.loads((artefacts.engine_dir(folder, "openvino-bf16") / artefacts.MANIFEST).read_text())


def assert_equals_the_graph_it_was_built_from(folder, engine, manifest):
    """Compare what was written, compiled in float32, so that the processor's own precision does not matter."""
    assert_chain_equals_whole(folder, [(engine.path / piece["file"], None) for piece in manifest["pieces"]])
    assert np.isfinite(engine.predict(np.zeros((1, 64, 64, 3), "float32"))).all()


def test_the_layers_to_keep_are_tagged_in_the_graph_that_is_built(folder, monkeypatch):
    monkeypatch.setattr(openvino_mixed, "_obeyed", lambda path, names: True)
    engine, manifest = build(folder)
    assert manifest["kept_in_f32"] == list(KEPT)
    assert manifest["pieces"] == [{"file": "model.xml", "requested_precision": "bf16", "compiled": "model.blob"}]
    layers = ET.parse(engine.path / "model.xml").getroot().find("layers")
    tagged = [
        layer for layer in layers if layer.find("rt_info/attribute[@name='DisablePrecisionConversion']") is not None
    ]
    kinds = [layer.get("type") for layer in tagged]
    assert kinds.count("Convolution") == 2
    assert {"Interpolate", "Concat"} < set(kinds)
    assert "Const" not in kinds
    (resize,) = (layer for layer in tagged if layer.get("type") == "Interpolate")
    assert resize.get("version") == "opset4"  # a newer one the plugin would replace, and the tag be lost
    # OpenVINO reads it as what it is, not as some text
    model = openvino.Core().read_model(engine.path / "model.xml")
    read_back = [node for node in model.get_ops() if "DisablePrecisionConversion_0" in dict(node.get_rt_info().items())]
    assert len(read_back) == len(tagged)
    assert_equals_the_graph_it_was_built_from(folder, engine, manifest)


def test_a_plugin_that_ignores_the_tag_gets_pieces_with_a_precision_each(folder, monkeypatch):
    monkeypatch.setattr(openvino_mixed, "_obeyed", lambda path, kept: False)
    engine, manifest = build(folder)
    assert [piece["requested_precision"] for piece in manifest["pieces"]] == ["bf16", "f32", "bf16"]
    suffixes = Counter(path.suffix for path in engine.path.iterdir())
    assert suffixes == {".xml": 3, ".bin": 3, ".blob": 3, ".json": 1}
    assert engine.describe()["coverage"].endswith("; pieces asked for bf16, f32, bf16")
    assert_equals_the_graph_it_was_built_from(folder, engine, manifest)


@pytest.mark.parametrize("variant", ["f32", "bf16", "int8"])
def test_every_compilation_names_its_precision(folder, monkeypatch, variant):
    """The plugin's own choice differs from processor to processor."""
    if reason := engines.build_unavailable_reason("openvino-int8") if variant == "int8" else None:
        pytest.skip(reason)
    if variant == "bf16":
        skip_where_nothing_computes_bfloat16()
    asked = []

    def recording(method):
        def call(core, model, device, config):
            asked.append(config["INFERENCE_PRECISION_HINT"])
            return method(core, model, device, config)

        return call

    photos = tuple(np.random.default_rng(0).uniform(-1, 1, (2, 1, 64, 64, 3)).astype("float32"))
    if variant != "int8":  # NNCF compiles, too
        monkeypatch.setattr(openvino.Core, "compile_model", recording(openvino.Core.compile_model))
    openvino_engine.build(folder, variant, engines.BuildOptions(photos))
    monkeypatch.setattr(openvino.Core, "import_model", recording(openvino.Core.import_model))
    engine = openvino_engine.open_engine(folder, variant)
    pieces = (
        artefacts.read_manifest(engine.path / artefacts.MANIFEST)["pieces"]
        if variant != "f32"
        else [{"requested_precision": "f32"}]
    )
    precisions = [piece["requested_precision"] for piece in pieces]
    assert asked[-len(pieces) :] == precisions
    assert set(asked) <= {variant, *precisions}
    assert (variant == "bf16") == ("bf16" in asked)


@pytest.mark.parametrize(("resize", "obeyed"), [("f32", True), ("bf16", False)])
def test_the_plugin_obeyed_if_all_that_was_tagged_runs_in_float32(folder, monkeypatch, resize, obeyed):
    skip_where_nothing_computes_bfloat16()
    nodes = [("Convolution", "a,a/relu", "f32"), ("Interpolate", "b", resize), ("Convolution", "c", "bf16")]
    monkeypatch.setattr(Chain, "runtime_nodes", lambda chain: nodes)
    assert openvino_mixed._obeyed(folder / ONNX_FILE, {"a", "b"}) is obeyed


def test_the_precision_of_both_kinds_of_layers_is_reported(folder):
    engine, _ = build(folder)
    nodes = [
        ("Convolution", "a", "bf16"),
        ("Convolution", "b", "bf16"),
        ("Convolution", "c", "f32"),
        ("Add", "d", "f32"),
    ]
    engine._chain.runtime_nodes = lambda: nodes
    told = engine.describe()
    assert told["precision"] == "bf16"
    assert told["coverage"].split("; pieces")[0] == "2 of 3 convolutions bf16, 1 of 3 convolutions f32"


def needs_bfloat16():
    if reason := engines.unavailable_reason("openvino-bf16"):
        pytest.skip(reason)


@pytest.fixture(params=["as the plugin decides", "cut"])
def bfloat16_engine(request, folder, monkeypatch):
    """The engine on a processor with bfloat16: by the tag where the plugin obeys it, and by cutting the graph."""
    needs_bfloat16()
    if request.param == "cut":
        monkeypatch.setattr(openvino_mixed, "_obeyed", lambda path, names: False)
    return build(folder)[0]


def test_the_kept_layers_run_in_float32_inside_bfloat16(bfloat16_engine):
    precisions = {True: Counter(), False: Counter()}  # of kept layers, of others
    for kind, names, precision in bfloat16_engine._chain.runtime_nodes():
        if kind == "Convolution":
            precisions[any(part in names for part in KEPT)][precision] += 1
    assert precisions[True] == {"f32": 2}
    assert precisions[False]["bf16"] > 100
    assert bfloat16_engine.describe()["precision"] == "bf16"


def test_a_tag_is_not_obeyed_by_what_was_not_tagged(folder):
    needs_bfloat16()
    assert not openvino_mixed._obeyed(folder / ONNX_FILE, set(convolutions(read(folder))))


@pytest.mark.long
def test_the_official_model_cut_equals_the_whole_one():
    from test_official import official_model_dir

    folder = official_model_dir("u2netp")
    assert_chain_equals_whole(folder, split(read(folder), sensitive_layers(folder, "bf16")))


@pytest.mark.parametrize(("isa", "without"), [("AVX2", True), ("avx512_core", True), ("AVX512_CORE_BF16", False)])
def test_bfloat16_is_not_offered_where_kernels_are_held_below_it(monkeypatch, isa, without):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    reason = engines.unavailable_reason("openvino-bf16")
    assert (reason == f"ONEDNN_MAX_CPU_ISA={isa.upper()} leaves no bfloat16.") == without
