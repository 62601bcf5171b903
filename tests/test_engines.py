import numpy as np
import pytest

from keras_matting import engines
from keras_matting.config import ONNX_FILE, SAVED_MODEL, Preset
from keras_matting.errors import EngineError, UsageError
from keras_matting.export import load_model


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(1).uniform(-1, 1, (3, 64, 64, 3)).astype("float32")


@pytest.fixture(scope="module")
def expected(tiny_model_dir, batch):
    return np.asarray(load_model(tiny_model_dir)(batch, training=False)["matte"])


@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_engine_agrees_with_keras_at_any_batch_size(tiny_model_dir, batch, expected, name):
    if reason := engines.unavailable_reason(name):
        pytest.skip(reason)
    engine = engines.open_engine(name, tiny_model_dir)
    assert engine.name == name
    for n in (1, 3):
        matte = engine.predict(batch[:n])
        assert matte.dtype == np.float32
        np.testing.assert_allclose(matte, expected[:n], rtol=0, atol=1e-4)
    first = engine.predict(batch[:1])
    engine.predict(batch[1:2])
    np.testing.assert_allclose(first, expected[:1], rtol=0, atol=1e-4)  # a result is not a view of a buffer
    engine.close()


@pytest.mark.parametrize("name", engines.ENGINES)
@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 32, 64, 3), "f4"), np.zeros((64, 64, 3), "f4"), np.zeros((1, 64, 64, 3), "f8")]
)
def test_a_batch_of_another_shape_or_dtype_is_refused(tiny_model_dir, name, wrong):
    engine = engines.open_engine(name, tiny_model_dir)
    with pytest.raises(EngineError, match=r"expects a float32 batch \(N, 64, 64, 3\); received"):
        engine.predict(wrong)


@pytest.mark.parametrize("name", engines.ENGINES)
def test_a_missing_or_damaged_artefact_is_explained(tiny_model_dir, tmp_path, name):
    Preset.load(tiny_model_dir).save(tmp_path)
    with pytest.raises(EngineError, match="does not exist; run keras-matting export"):
        engines.open_engine(name, tmp_path)
    (tmp_path / ONNX_FILE).write_bytes(b"no model")
    (tmp_path / SAVED_MODEL).mkdir()
    with pytest.raises(EngineError, match="Export it again"):
        engines.open_engine(name, tmp_path)


def test_a_named_engine_that_cannot_run_is_an_error_and_auto_takes_the_next(tiny_model_dir, monkeypatch):
    from keras_matting.engines import openvino

    monkeypatch.setattr(openvino, "unavailable_reason", lambda variant: "not on this machine.")
    with pytest.raises(EngineError, match=r"openvino-f32 cannot run here: not on this machine. Available: onnx-cpu"):
        engines.open_engine("openvino-f32", tiny_model_dir)
    assert engines.open_engine("auto", tiny_model_dir).name == "onnx-cpu"


def test_auto_explains_why_nothing_runs(tmp_path, tiny_model_dir):
    Preset.load(tiny_model_dir).save(tmp_path)
    with pytest.raises(EngineError, match="No engine can run this model here. openvino-f32: "):
        engines.open_engine("auto", tmp_path)


def test_an_unknown_engine_is_explained(tiny_model_dir):
    with pytest.raises(UsageError, match=r"out of auto, .*; received 'onnx-quantum'"):
        engines.open_engine("onnx-quantum", tiny_model_dir)


def test_exported_onnx_has_few_transposes_and_one_output(tiny_model_dir):
    import onnx

    graph = onnx.load(tiny_model_dir / ONNX_FILE).graph
    assert sum(node.op_type == "Transpose" for node in graph.node) <= 2
    assert [output.name for output in graph.output] == ["matte"]
    assert [source.name for source in graph.input] == ["image"]
