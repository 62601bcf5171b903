"""A model repository for NVIDIA Triton Inference Server."""

import json
import shutil
from pathlib import Path

from keras_matting.config import ONNX_FILE, Preset
from keras_matting.engines.artefacts import export_manifest, exported, read_manifest
from keras_matting.errors import UsageError
from keras_matting.files import replaced_folder

MAX_BATCH = 16
_QUEUE_DELAY_US = {"cpu": 0, "gpu": 5000}  # waiting for a fuller batch pays on a GPU only

_CONFIG = """\
name: {name}
platform: "onnxruntime_onnx"
max_batch_size: {max_batch}
input [ {{ name: "image" data_type: TYPE_FP32 dims: {input_dims} }} ]
output [ {{ name: "matte" data_type: TYPE_FP32 dims: {output_dims} }} ]
instance_group [ {{ count: 1 kind: {kind} }} ]
{batching}"""
_BATCHING = "dynamic_batching {{ max_queue_delay_microseconds: {delay} }}\n"


def export_triton(model_dir, repository, device="cpu", force=False):
    """Write `repository/NAME/{config.pbtxt, 1/model.onnx}` of an exported model folder; return that folder.

    `device` is "cpu" or "gpu". Raises `UsageError` if the folder exists, unless `force`.
    """
    if device not in _QUEUE_DELAY_US:
        raise UsageError(f"Expected a device out of {', '.join(_QUEUE_DELAY_US)}; received {device!r}.")
    preset, source = Preset.load(model_dir), exported(model_dir, ONNX_FILE, "triton")
    target = Path(repository) / preset.name
    if target.exists() and not force:
        raise UsageError(f"{target} exists; choose another repository, or replace it with --force.")
    graph = read_manifest(Path(model_dir) / export_manifest(ONNX_FILE))
    with replaced_folder(target) as folder:
        (folder / "1").mkdir()
        shutil.copyfile(source, folder / "1" / ONNX_FILE)
        (folder / "config.pbtxt").write_text(_config(preset, device, graph), encoding="utf-8")
    return target


def _config(preset, device, graph):
    """Return `config.pbtxt`; a graph exported for one batch size is served as it is, without batching."""
    fixed = [] if graph["batch"] is None else [graph["batch"]]
    return _CONFIG.format(
        name=json.dumps(preset.name),
        max_batch=0 if fixed else MAX_BATCH,
        input_dims=[*fixed, *preset.input_size, 3],
        output_dims=[*fixed, *graph["output_shape"]],
        kind=f"KIND_{device.upper()}",
        batching="" if fixed else _BATCHING.format(delay=_QUEUE_DELAY_US[device]),
    )
