"""A model repository for NVIDIA Triton Inference Server."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from keras_matting.engines import ENGINES
from keras_matting.engines.artefacts import built, exported, read_manifest
from keras_matting.engines.tensorrt import PLAN
from keras_matting.errors import UsageError
from keras_matting.files import StrPath, replaced_folder, require_new_folder
from keras_matting.model_folder import MANIFEST, ONNX_FILE, Preset, engine_dir, export_manifest

MAX_BATCH = 16
PLANNED = tuple(name for name in ENGINES if name.startswith("tensorrt-"))  # engines that Triton may serve
_QUEUE_DELAY_US = {"cpu": 0, "gpu": 5000}  # waiting for a fuller batch pays on a GPU only

_CONFIG = """\
name: {name}
platform: {platform}
max_batch_size: {max_batch}
input [ {{ name: "image" data_type: TYPE_FP32 dims: {input_dims} }} ]
output [ {{ name: "matte" data_type: TYPE_FP32 dims: {output_dims} }} ]
instance_group [ {{ count: 1 kind: {kind} }} ]
{batching}"""
_BATCHING = "dynamic_batching {{ max_queue_delay_microseconds: {delay} }}\n"


def export_triton(
    model_dir: StrPath, repository: StrPath, device: str | None = None, engine: str | None = None, force: bool = False
) -> Path:
    """Write `repository/NAME/{config.pbtxt, 1/model.onnx or 1/model.plan}` of a model folder; return that folder.

    `device`: "cpu" (the default) or "gpu". `engine`: one of `PLANNED`, built in the model folder, to be served instead
    of the ONNX file, on a "gpu" like the one it was built for. Raises `UsageError` if the folder exists, unless
    `force`, or if Triton cannot load the engine; `EngineError` where what is to be served is missing or does not fit.
    """
    device = device or ("gpu" if engine else "cpu")
    if device not in _QUEUE_DELAY_US:
        raise UsageError(f"Expected a device out of {', '.join(_QUEUE_DELAY_US)}; received {device!r}.")
    if engine and device != "gpu":
        raise UsageError(f"Expected the device gpu for {engine}; received {device}.")
    preset, source = Preset.load(model_dir), exported(model_dir, ONNX_FILE, "triton")
    graph = read_manifest(Path(model_dir) / export_manifest(ONNX_FILE))
    platform, batches = "onnxruntime_onnx", {"batch": graph["batch"], "max_batch": MAX_BATCH}
    if engine:
        source, batches = _plan(model_dir, engine)
        platform = "tensorrt_plan"
    target = Path(repository) / preset.name
    require_new_folder(target, force, "config.pbtxt")
    with replaced_folder(target) as folder:
        (folder / "1").mkdir()
        shutil.copyfile(source, folder / "1" / f"model{source.suffix}")
        config = _config(preset, graph["output_shape"], platform, device, **batches)
        (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return target


def _plan(model_dir: StrPath, engine: str) -> tuple[Path, dict[str, int | None]]:
    """Return (file, its batch sizes) of a built engine, which need not run on this machine."""
    if engine not in PLANNED:
        raise UsageError(f"Expected an engine out of {', '.join(PLANNED)}; received {engine!r}.")
    manifest = read_manifest(engine_dir(model_dir, engine) / MANIFEST)
    folder = built(model_dir, engine, manifest.get("runtime", ""), manifest.get("device", ""))
    if manifest["runtime"].startswith("tensorrt-rtx"):
        raise UsageError(
            f"Expected {engine} as built by TensorRT; {folder} was built by TensorRT for RTX ({manifest['runtime']}), "
            "whose engines Triton cannot load. Install tensorrt on the server's GPU and run keras-matting optimize."
        )
    return folder / PLAN, {"batch": manifest["batch"], "max_batch": manifest["max_batch"]}


def _config(
    preset: Preset, output_shape: Sequence[int], platform: str, device: str, batch: int | None, max_batch: int
) -> str:
    """Return `config.pbtxt`; a graph made for one batch size is served as it is, without batching."""
    fixed = [] if batch is None else [batch]
    return _CONFIG.format(
        name=json.dumps(preset.name),
        platform=json.dumps(platform),
        max_batch=0 if fixed else max_batch,
        input_dims=[*fixed, *preset.input_size, 3],
        output_dims=[*fixed, *output_shape],
        kind=f"KIND_{device.upper()}",
        batching="" if fixed else _BATCHING.format(delay=_QUEUE_DELAY_US[device]),
    )
