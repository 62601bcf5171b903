"""On a CPU, before the lease: everything that the GPU machine needs of a model, and the truth to compare with.

Beside the exported graphs, `gpu/` in the model folder has `arrays.npz` (inputs, the same as bytes, their outputs in
float32, calibration inputs), `weights.npz` (PyTorch's names and layouts) where PyTorch has the architecture, and
`work.json`.
"""

import json
from pathlib import Path

import numpy as np

from keras_matting.files import write_atomically
from keras_matting.model_folder import LOWERED_ONNX, ONNX_FILE, TFTRT_SAVED_MODEL, Preset, export_manifest

PHOTOS = 8
CALIBRATION = 24
RESNET = "keras:ResNet50"
TORCH = ("modnet", "u2net", "u2netp", RESNET)


def prepare(model_dir, log):
    """Export what is missing and write `gpu/` of a model folder."""
    from keras_matting.engines import BuildOptions
    from keras_matting.engines.artefacts import read_manifest
    from keras_matting.engines.lowered import export_lowered
    from keras_matting.engines.onnx import OnnxEngine
    from keras_matting.engines.optimize import calibration_inputs
    from keras_matting.export import export
    from keras_matting.photos import imaging
    from keras_matting.photos.samples import sample_photos

    model_dir, preset = Path(model_dir), Preset.load(model_dir)
    if not (model_dir / ONNX_FILE).exists():
        export(model_dir)
    if not (model_dir / TFTRT_SAVED_MODEL).exists():
        export(model_dir, tftrt=True)
    calibration, photos = calibration_inputs(preset)[:CALIBRATION], list(sample_photos().values())[:PHOTOS]
    judged = read_manifest(model_dir / export_manifest(LOWERED_ONNX["fp16"])).get("mae", {})
    if set(judged) != set(LOWERED_ONNX.values()):
        for lowered in export_lowered(model_dir, BuildOptions(calibration), photos):
            log(f"{model_dir.name} {lowered.precision}: mean error {lowered.mae:.4f} {lowered.refused}")
    images = np.stack([imaging.prepare(photo, preset) for photo in photos])
    sized = np.stack([imaging.sized(photo, preset) for photo in photos])
    engine = OnnxEngine(model_dir / ONNX_FILE, "cpu")
    outputs = np.concatenate([engine.predict(image[None]) for image in images])
    folder = model_dir / "gpu"
    folder.mkdir(exist_ok=True)
    found = {"images": images, "bytes": sized, "outputs": outputs, "calibration": np.concatenate(calibration)}
    np.savez(folder / "arrays.npz", **found)
    write_atomically(folder / "work.json", (json.dumps(work(model_dir / ONNX_FILE), indent=2) + "\n").encode())
    if preset.architecture in TORCH:
        from keras_matting.models.folder import load_model
        from keras_matting.weights.pytorch import state_dict

        np.savez(folder / "weights.npz", **state_dict(load_model(model_dir)))


def arrays(model_dir):
    """Return what `prepare` wrote, as {"images", "bytes", "outputs", "calibration"}."""
    with np.load(Path(model_dir) / "gpu" / "arrays.npz") as file:
        return dict(file)


def inputs_of(engine, prepared):
    """Return the images as an engine takes them."""
    return prepared["bytes" if getattr(engine, "dtype", None) == np.uint8 else "images"]


def error_from_float32(outputs, prepared):
    """Return {"mean", "worst"}: the mean absolute difference from float32's outputs, over all images and of one."""
    differences = np.abs(outputs.astype(np.float64) - prepared["outputs"]).reshape(len(outputs), -1).mean(axis=1)
    return {"mean": float(differences.mean()), "worst": float(differences.max())}


def read_work(model_dir):
    """Return what `prepare` wrote of `work`."""
    return json.loads((model_dir / "gpu" / "work.json").read_text())


def work(path):
    """Return the arithmetic and the traffic of an ONNX file's convolutions for one image in float16.

    {"gflop", "convolution_mb"}: two operations for each multiplication and addition; every convolution reads its input
    and weights from memory and writes its output there, which fused kernels may undercut.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {value.name: [d.dim_value or 1 for d in value.type.tensor_type.shape.dim] for value in values}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    operations = elements = 0
    for node in graph.node:
        if node.op_type == "Conv":
            image, kernel, output = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
            operations += 2 * np.prod(output) * np.prod(kernel[1:])
            elements += np.prod(image) + np.prod(kernel) + np.prod(output)
    return {"gflop": round(float(operations) / 1e9, 4), "convolution_mb": round(2 * float(elements) / 1e6, 3)}
