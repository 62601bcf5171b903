import json
import shutil

import pytest

from keras_matting.cli import main
from keras_matting.cli.status import USAGE
from keras_matting.engines import artefacts, tensorrt
from keras_matting.engines.triton import export_triton
from keras_matting.errors import EngineError, UsageError

PLAN = b"a TensorRT engine"


@pytest.fixture
def folder(one_layer_dir, tmp_path):
    """A model folder with an engine as a GPU server's TensorRT would have built it."""
    folder = tmp_path / "model"
    shutil.copytree(one_layer_dir, folder)
    build(folder)
    return folder


def build(folder, runtime="tensorrt 10.13.0", **fields):
    fields = {"batch": None, "max_batch": 8} | fields
    with artefacts.building(folder, "tensorrt-fp16", runtime, "NVIDIA H100", **fields) as (target, _):
        (target / tensorrt.PLAN).write_bytes(PLAN)


def parsed(target):
    text_format = pytest.importorskip("google.protobuf.text_format")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")
    return text_format.Parse((target / "config.pbtxt").read_text(), schema.ModelConfig())


def test_a_built_engine_is_served_as_a_plan_on_the_gpu(folder, tmp_path):
    target = export_triton(folder, tmp_path / "triton", engine="tensorrt-fp16")
    config = parsed(target)
    assert (target / "1" / "model.plan").read_bytes() == PLAN
    assert [path.name for path in (target / "1").iterdir()] == ["model.plan"]
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 8)  # the batch it was built for
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([64, 64, 3], [64, 64, 1])
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    assert config.dynamic_batching.max_queue_delay_microseconds == 5000


def test_a_plan_of_one_batch_size_is_served_without_batching(folder, tmp_path):
    build(folder, batch=2)
    config = parsed(export_triton(folder, tmp_path / "triton", engine="tensorrt-fp16"))
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert list(config.input[0].dims) == [2, 64, 64, 3]


def test_an_engine_that_triton_cannot_load_is_refused(folder, tmp_path):
    build(folder, runtime="tensorrt-rtx-cu13 1.7.1.116")
    with pytest.raises(
        UsageError, match=r"built by TensorRT for RTX .*1\.7\.1\.116\), whose engines Triton cannot load"
    ):
        export_triton(folder, tmp_path / "triton", engine="tensorrt-fp16")
    assert not (tmp_path / "triton").exists()


def test_a_plan_that_does_not_fit_is_refused(folder, tmp_path):
    def refused(engine="tensorrt-fp16", **options):
        with pytest.raises((EngineError, UsageError)) as caught:
            export_triton(folder, tmp_path / "triton", engine=engine, **options)
        return str(caught.value)

    assert "has nothing built in" in refused("tensorrt-fp32")
    assert "tensorrt-int8; received 'onnx-cpu'" in refused("onnx-cpu")
    assert "the device gpu for tensorrt-fp16; received cpu" in refused(device="cpu")
    preset = json.loads((folder / "preset.json").read_text())
    plan = artefacts.engine_dir(folder, "tensorrt-fp16") / tensorrt.PLAN
    plan.write_bytes(b"cut short")
    assert "was changed after it was built" in refused()
    (folder / "preset.json").write_text(json.dumps(preset | {"weights_sha256": "0" * 64}))
    assert "another weights" in refused()


def test_the_engine_to_serve_needs_a_repository(folder, capsys):
    assert main(["export", str(folder), "--triton-engine", "tensorrt-fp16"]) == USAGE
    assert "expected --triton REPOSITORY too" in capsys.readouterr().err
