import json
import shutil

import numpy as np
import pytest

from keras_matting import engines, machine
from keras_matting.engines import artefacts, open_engine, tensorrt, tftrt
from keras_matting.engines.optimize import optimize
from keras_matting.engines.triton import export_triton
from keras_matting.errors import EngineError, ImageError, UsageError
from keras_matting.export import export
from keras_matting.foreign import write_application_folder, write_keras_folder

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tiny_model_dir, tmp_path_factory):
    """A copy of the tiny model that this module's tests build engines in."""
    target = tmp_path_factory.mktemp("optimize") / "model"
    shutil.copytree(tiny_model_dir, target)
    return target


def outcomes(*arguments, **options):
    return {outcome.engine: outcome for outcome in optimize(*arguments, **options)}


def test_every_engine_is_built_or_explained_and_kept_the_next_time(folder):
    if reason := engines.build_unavailable_reason("openvino-int8"):
        pytest.skip(reason)
    names = ["onnx-cpu", "openvino-int8", "onnx-cuda"]
    shutil.rmtree(artefacts.engine_dir(folder, "openvino-int8"), ignore_errors=True)
    first = outcomes(folder, names)
    assert (first["openvino-int8"].status, first["onnx-cpu"].status) == ("built", "current")
    if machine.gpu() is None:
        assert first["onnx-cuda"].status == "unavailable"
        assert first["onnx-cuda"].reason
    assert outcomes(folder, names)["openvino-int8"].status == "current"
    manifest = artefacts.engine_dir(folder, "openvino-int8") / artefacts.MANIFEST
    manifest.write_text(manifest.read_text().replace("openvino 20", "openvino 19"))
    assert outcomes(folder, names)["openvino-int8"].status == "built"  # another runtime version: built again


def test_int8_is_built_again_for_other_calibration_photos_only(folder, tmp_path, write_photo):
    if reason := engines.build_unavailable_reason("openvino-int8"):
        pytest.skip(reason)
    write_photo(tmp_path / "photos" / "a.png")
    statuses = [
        outcomes(folder, ["openvino-int8"], calibration)["openvino-int8"].status
        for calibration in (None, tmp_path / "photos", tmp_path / "photos", None)
    ]
    assert statuses[1:] == ["built", "current", "current"]
    path = artefacts.engine_dir(folder, "openvino-int8") / artefacts.MANIFEST
    content = json.loads(path.read_text())
    assert len(content.pop("calibration_photos")) == 1
    path.write_text(json.dumps(content))  # as a version that did not note them
    assert outcomes(folder, ["openvino-int8"])["openvino-int8"].status == "built"


def test_a_broken_calibration_photo_is_named_and_a_hidden_one_ignored(folder, tmp_path):
    for name in (".a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no photo")
    with pytest.raises(ImageError, match="b.jpg: Expected an image"):
        list(optimize(folder, ["onnx-cpu"], tmp_path))


def test_wrong_names_and_empty_calibration_are_explained(folder, tmp_path):
    with pytest.raises(UsageError, match="received warp-drive"):
        list(optimize(folder, ["warp-drive"]))
    with pytest.raises(UsageError, match="found none"):
        list(optimize(folder, ["onnx-cpu"], tmp_path))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """ResNet50 of keras.applications with random weights, exported at 64x64."""
    target = tmp_path_factory.mktemp("foreign") / "resnet50"
    write_application_folder("ResNet50", target, size=(64, 64))
    export(target)
    return target


def test_any_keras_model_goes_through_the_same_engines(resnet):
    batch = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    outputs = [open_engine(name, resnet).predict(batch) for name in ("savedmodel", "onnx-cpu", "openvino-f32")]
    assert outputs[0].shape == (2, 1000)
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], atol=1e-6)


def test_keras_models_that_do_not_fit_are_explained(tmp_path):
    import keras

    with pytest.raises(UsageError, match="received 'ResNet51'"):
        write_application_folder("ResNet51", tmp_path / "x")
    free = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(1, 3)])
    with pytest.raises(UsageError, match="static size"):
        write_keras_folder(free, "free", tmp_path / "x")


@pytest.mark.parametrize("model", ["folder", "modnet_dir", "resnet"])
def test_tensorrt_for_rtx_builds_every_precision_without_a_gpu(request, model):
    if tensorrt._package() != "tensorrt_rtx":
        pytest.skip("tensorrt_rtx is not installed")
    target = request.getfixturevalue(model)
    names = ["tensorrt-fp32", "tensorrt-fp16", "tensorrt-int8"]
    built = outcomes(target, names, force=True)
    assert [built[name].status for name in names] == ["built"] * 3, built
    plans = [artefacts.engine_dir(target, name) / "engine.plan" for name in names]
    assert all(plan.stat().st_size > 100_000 for plan in plans)
    assert plans[1].stat().st_size < plans[0].stat().st_size  # half the weights' bytes
    assert outcomes(target, names)["tensorrt-fp16"].status == "current"
    if machine.gpu() is None:
        with pytest.raises(EngineError, match="no NVIDIA GPU"):
            open_engine("tensorrt-fp16", target)


@pytest.fixture
def tftrt_worker():
    if tftrt.python() is None:
        pytest.skip("there is no TF-TRT environment; run make tftrt-env")
    with tftrt.TfTrtProcess("tftrt-fp16") as worker:
        yield worker


def test_the_tftrt_environment_has_tensorrt_linked_and_loaded(tftrt_worker):
    probed = tftrt_worker.ask("probe")
    assert probed["tensorrt_enabled"]
    assert int(probed["tensorrt_loaded"].split(".")[0]) == 8
    assert probed["tensorrt_linked"].startswith("8.")


def test_the_tftrt_environment_serves_our_saved_models_with_equal_output(tftrt_worker, folder):
    export(folder, tftrt=True)
    batch = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    expected = open_engine("savedmodel", folder).predict(batch)
    for name in ("saved_model", "saved_model_tftrt"):
        tftrt_worker.ask("open", path=str(folder / name))
        np.testing.assert_allclose(tftrt_worker.predict(batch), expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(machine.gpu() is not None, reason="this machine has a GPU")
def test_tftrt_without_a_gpu_is_our_own_clear_error(tftrt_worker, folder):
    with pytest.raises(EngineError, match="converts on an NVIDIA GPU only, and TensorFlow sees none"):
        tftrt_worker.ask(
            "convert", source="x", target="y", precision="fp16", batches=[1], size=[64, 64], calibration=None
        )
    with pytest.raises(EngineError, match="cannot run here: no NVIDIA GPU"):
        open_engine("tftrt-fp16", folder)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_triton_repository_follows_triton_s_schema(folder, resnet, tmp_path, device):
    text_format = pytest.importorskip("google.protobuf.text_format")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")
    for model_dir, output in ((folder, [64, 64, 1]), (resnet, [1000])):
        target = export_triton(model_dir, tmp_path, device)
        config = text_format.Parse((target / "config.pbtxt").read_text(), schema.ModelConfig())
        assert config.name == target.name
        assert config.platform == "onnxruntime_onnx"
        assert list(config.input[0].dims) == [64, 64, 3]
        assert list(config.output[0].dims) == output
        assert config.max_batch_size == 16
        assert config.dynamic_batching.max_queue_delay_microseconds == (0 if device == "cpu" else 5000)
        assert config.instance_group[0].kind == schema.ModelInstanceGroup.Kind.Value(f"KIND_{device.upper()}")
        assert (target / "1" / "model.onnx").read_bytes() == (model_dir / "model.onnx").read_bytes()
        with pytest.raises(UsageError, match="exists; choose another folder"):
            export_triton(model_dir, tmp_path, device)
