"""Anybody's ONNX network as a model folder, without Keras: read, put into this project's form, checked, written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from keras_matting.arrays import Float32
from keras_matting.engines.artefacts import write_manifest
from keras_matting.engines.onnx import OnnxEngine
from keras_matting.errors import EngineError, UsageError
from keras_matting.files import StrPath, file_sha256, replaced_folder, require_new_folder
from keras_matting.foreign_onnx import judging
from keras_matting.foreign_onnx.reading import Network, open_session, read_network
from keras_matting.foreign_onnx.wrapping import IMAGE, Output, wrap
from keras_matting.model_folder import FROM_ONNX, ONNX_FILE, PRESET_FILE, Preset, export_manifest
from keras_matting.photos import imaging
from keras_matting.photos.samples import sample_photos

_CHECKED_SAMPLES = 3
# Between the file as it is and the folder's graph, both in ONNX Runtime, which may order operations otherwise
MAX_ERROR, MAX_HALF_ERROR = 1e-4, 5e-3


@dataclass(frozen=True)
class Asked:
    """What a user says of a network, None where the file is to tell.

    `size`: (height, width), of a file that takes any. `mean`, `std`, `scale`, `interpolation`: as in `Preset`.
    `output`: one of `judging.OUTPUT_RULES`. `layout`: one of `reading.LAYOUTS`. `output_name`: of several outputs, the
    matte. `channel`: of several channels, the subject.
    """

    size: tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    scale: str = "255"
    interpolation: str = "linear"
    output: str | None = None
    layout: str | None = None
    output_name: str | None = None
    channel: int | None = None


def write_onnx_folder(
    path: StrPath, out_dir: StrPath, asked: Asked = Asked(), *, name: str | None = None, force: bool = False
) -> Preset:
    """Write a model folder of the ONNX file `path`, of one photo in and a matte or mask out; return its preset.

    The graph in it, `model.onnx`, gives for normalised photos what ONNX Runtime gives for the file itself, which is
    checked on samples; engines, benchmark and service take it as they take any other. `name`: the model's, by default
    the folder's. Raises `UsageError` where the file is damaged, is no such network, or leaves open what `asked` does
    not say, and `EngineError` where the graph differs; nothing is written then.
    """
    out_dir = Path(out_dir)
    require_new_folder(out_dir, force, PRESET_FILE)
    network = read_network(path, asked.layout, asked.size)
    preset = _preset(network, asked, name or out_dir.name)
    images = np.stack([imaging.prepare(photo, preset) for photo in list(sample_photos().values())[:_CHECKED_SAMPLES]])
    session, matte = network.open(), judging.output_name(network, asked.output_name)
    raw = [judging.run(session, network, matte, _repeated(image, network.batch)) for image in images]
    output = judging.judge(network, matte, raw[0][:1], asked.output, asked.channel)
    expected = np.concatenate([judging.matte_of(output, one, network.size)[:1] for one in raw])
    del session, raw
    with TemporaryDirectory() as scratch:
        graph = Path(scratch) / ONNX_FILE
        batch = _save(network, output, graph, images, expected)
        preset = replace(preset, weights_sha256=file_sha256(graph))
        with replaced_folder(out_dir) as folder:
            (folder / ONNX_FILE).write_bytes(graph.read_bytes())
            preset.save(folder)
            opset = max(one.version for one in network.model.opset_import if one.domain in ("", "ai.onnx"))
            fields = {**preset.identity, "batch": batch, "output_shape": [*network.size, 1], "opset": opset}
            write_manifest(folder / export_manifest(ONNX_FILE), folder, [ONNX_FILE], **fields)
    return preset


def _preset(network: Network, asked: Asked, name: str) -> Preset:
    mean, std = _three(asked.mean), _three(asked.std)
    if network.dtype == TensorProto.UINT8:  # values as they are in a photo
        _refuse_normalisation(network, asked)
        mean, std = (0.0,) * 3, (1 / 255,) * 3
    if mean is None or std is None:
        raise UsageError(
            f"Expected --mean and --std, for values from 0 to 1, as in the code that {network.where} comes with: "
            "0.485,0.456,0.406 and 0.229,0.224,0.225 are ImageNet's, 0.5 and 0.5 MODNet's, 0.5 and 1 ISNet's, 0 and 1 "
            "leave values from 0 to 1; no file tells them."
        )
    return Preset(
        name=name,
        architecture=FROM_ONNX + network.path.stem,
        input_size=network.size,
        mean=mean,
        std=std,
        scale=asked.scale,
        interpolation=asked.interpolation,
        output="min-max" if asked.output == "minmax" else "identity",
        source=network.path.name,
        source_sha256=file_sha256(network.path),
    )


def _refuse_normalisation(network: Network, asked: Asked) -> None:
    given = [f"--{name}" for name in ("mean", "std") if getattr(asked, name) is not None]
    given += [f"--scale {asked.scale}"] * (asked.scale != "255")
    if given:
        raise UsageError(
            f"Expected no --mean, --std and --scale for {network.where}, which takes uint8, a photo's values as they "
            f"are; received {', '.join(given)}. Leave them out."
        )


def _three(values: Sequence[float] | None) -> tuple[float, float, float] | None:
    """Return a value for each channel, of one for all or of three."""
    if values is None:
        return None
    if len(values) not in (1, 3):
        raise UsageError(f"Expected one number for all channels, or three; received {len(values)}.")
    red, green, blue = tuple(map(float, values)) * (3 if len(values) == 1 else 1)
    return red, green, blue


def _repeated(image: Float32, batch: int | None) -> Float32:
    return np.repeat(image[None], batch or 1, axis=0)


def _save(network: Network, output: Output, target: Path, images: Float32, expected: Float32) -> int | None:
    """Write the graph for any batch, or where the network does not take that, for one photo; return its batch size."""
    whole = wrap(network, output, None)
    onnx.save(whole, target)
    if _takes_batches(target, images[:2], expected[:2], _tolerance(network)):
        batch = None
    else:
        batch = 1
        onnx.save(wrap(network, output, batch), target)
    engine = OnnxEngine(target, "cpu")
    try:
        actual = np.concatenate([engine.predict(image[None]) for image in images])
    finally:
        engine.close()
    error = float(np.abs(actual - expected).max()) if actual.shape == expected.shape else np.inf
    if not error <= _tolerance(network):
        raise EngineError(
            f"Expected the graph made of {network.where} to agree with the file under ONNX Runtime within "
            f"{_tolerance(network)}; it differs by {error:.2g}. Export the network anew for one photo at a time."
        )
    return batch


def _takes_batches(path: Path, images: Float32, expected: Float32, tolerance: float) -> bool:
    """Tell whether a graph gives for two photos at once what it gives for each."""
    try:
        (actual,) = open_session(str(path), path.name).run(None, {IMAGE: images})
    except Exception:  # a size of one batch somewhere inside
        return False
    return actual.shape == expected.shape and bool(np.abs(actual - expected).max() <= tolerance)


def _tolerance(network: Network) -> float:
    is_half: Any = any(tensor.data_type == TensorProto.FLOAT16 for tensor in network.model.graph.initializer)
    return MAX_HALF_ERROR if is_half or network.dtype == TensorProto.FLOAT16 else MAX_ERROR
