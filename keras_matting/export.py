"""Keras model -> model folder -> SavedModel and ONNX, each checked against Keras."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_matting import onnx_graph, telemetry
from keras_matting.arrays import Float32, Floats
from keras_matting.engines.artefacts import files_of, write_manifest
from keras_matting.engines.base import Engine
from keras_matting.errors import EngineError, UsageError, first_line
from keras_matting.files import StrPath, put_in_place
from keras_matting.model_folder import GRAPH, ONNX_FILE, SAVED_MODEL, TFTRT_SAVED_MODEL, Preset, export_manifest
from keras_matting.models.folder import load_model, served_model
from keras_matting.models.tftrt_form import tftrt_form
from keras_matting.photos import imaging
from keras_matting.photos.files import Photo
from keras_matting.photos.samples import sample_photos

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow.types.experimental import PolymorphicFunction

OPSET = 17  # the newest that TensorRT 8.5 parses
MAX_ERROR = 1e-4
_CHECKED_SAMPLES = 3


def export(
    model_dir: StrPath,
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    opset: int = OPSET,
    photos: Iterable[Photo] | None = None,
    tftrt: bool = False,
    simplify: bool = False,
) -> dict[str, float]:
    """Write `saved_model/` and `model.onnx` of a model folder: the matte only, static size, dynamic batch.

    `size`: (height, width) to export at, which becomes the preset's; None keeps it. `batch`: a fixed batch size, None
    for any. `photos`: `Photo`s to check on, three of the samples by default. `tftrt`: write instead
    `saved_model_tftrt/`, the same graph in `tftrt_form`. `simplify`: pass the ONNX file through onnxslim. Every
    artefact is checked against Keras on the photos; raises `EngineError` above `MAX_ERROR`, and the folder stays as it
    was. Returns {artefact: largest error}.
    """
    if simplify and find_spec("onnxslim") is None:
        raise UsageError("Simplifying needs onnxslim: pip install onnxslim, or leave --simplify out.")
    model_dir = Path(model_dir)
    preset = Preset.load(model_dir)
    if size:
        preset = replace(preset, input_size=size)
    model = served_model(load_model(model_dir, preset))
    images = _check_images(preset, photos, batch)
    expected = np.concatenate([np.repeat(_of_keras(model, image[:1]), len(image), axis=0) for image in images])
    if tftrt:
        model = tftrt_form(model)
    serve = serving_function(model, preset.input_size, batch)

    with tempfile.TemporaryDirectory(prefix=".export.", dir=model_dir) as scratch:
        folder, names = Path(scratch), (TFTRT_SAVED_MODEL,) if tftrt else (SAVED_MODEL, ONNX_FILE)
        save_saved_model(model, serve, folder / names[0])
        if not tftrt:
            _save_onnx(serve, folder / ONNX_FILE, opset, preset, simplify)
        errors = {name: _error_of(folder / name, images, expected) for name in names}
        for name in names:
            put_in_place(folder / name, model_dir / name)
    preset.save(model_dir)
    files = [path.relative_to(model_dir) for name in names for path in files_of(model_dir / name)]
    fields = {**preset.identity, "batch": batch, "output_shape": list(expected.shape[1:])}
    write_manifest(model_dir / export_manifest(names[0]), model_dir, files, **fields, opset=opset, graph=GRAPH)
    return errors


def _check_images(preset: Preset, photos: Iterable[Photo] | None, batch: int | None) -> list[Float32]:
    """Return model inputs (batch or 1, H, W, 3), one for each photo, which fills its whole batch."""
    photos = list(sample_photos().values())[:_CHECKED_SAMPLES] if photos is None else photos
    return [np.repeat(imaging.prepare(photo, preset)[None], batch or 1, axis=0) for photo in photos]


def _of_keras(model: keras.Model, image: Float32) -> Float32:
    """Return the model's output for a batch of one; more would take more memory: Keras holds every layer's output."""
    return keras.ops.convert_to_numpy(model(image, training=False))


def serving_function(model: keras.Model, input_size: tuple[int, int], batch: int | None = None) -> PolymorphicFunction:
    """Return `model` as a TensorFlow function of "image", float32 (batch, height, width, 3), to its named outputs.

    A model with a single output names it "matte". The function is traced once and serves every export. Functions that
    layers call are traced into it: Keras compiles grouped convolutions by XLA, in a call that ONNX has nothing for.
    """
    import tensorflow as tf

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(image, training=False)
        return outputs if isinstance(outputs, dict) else {"matte": outputs}

    graph = tf.function(serve, input_signature=[tf.TensorSpec((batch, *input_size, 3), tf.float32, name="image")])
    earlier = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)  # of a function within the one that is traced, its operations
    try:
        graph.get_concrete_function()
    finally:
        tf.config.run_functions_eagerly(earlier)
    return graph


def save_saved_model(model: keras.Model, serve: PolymorphicFunction, path: Path) -> None:
    """Write `serve`, the `serving_function` of `model`, as the SavedModel folder `path`.

    Keras's own `model.export` writes the same graph, but traces it four times.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.weights]
    module.serve = serve
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})


def _save_onnx(serve: PolymorphicFunction, path: Path, opset: int, preset: Preset, simplify: bool) -> None:
    import onnx
    import tf2onnx

    if find_spec("onnxruntime"):  # before the others import it their way
        with telemetry.switched_off():
            import_module("onnxruntime")

    serve = _frozen(serve)
    try:
        handlers: dict[str, Any] = {"Erfc": (_erfc, [])}
        graph, _ = tf2onnx.convert.from_function(serve, serve.input_signature, opset=opset, custom_op_handlers=handlers)
        if simplify:
            import onnxslim

            graph = onnxslim.slim(graph)
        onnx_graph.name_after_layers(graph)
        onnx_graph.fuse_instance_norms(graph)
        onnx.helper.set_model_props(graph, {"weights_sha256": preset.weights_sha256, "preset": preset.name})
        onnx.checker.check_model(graph, full_check=True)
    except Exception as error:  # tf2onnx and the checker raise of all kinds
        height, width = preset.input_size
        raise EngineError(
            f"Expected a graph of {height}x{width} that ONNX opset {opset} can hold; received: {first_line(error)}. "
            "Export at sides that are multiples of 32, with the default opset."
        ) from error
    onnx.save(graph, path)


def _erfc(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write the complementary error function, part of TensorFlow's GELU, as 1 - erf(x); tf2onnx 1.17 has none."""
    one = context.make_const(f"{name}_one", np.ones((), np.float32))
    like = {"dtypes": node.output_dtypes, "shapes": node.output_shapes}
    erf = context.make_node("Erf", node.input, **like)
    context.remove_node(name)
    context.make_node("Sub", [one.output[0], erf.output[0]], outputs=node.output, name=name, **like)


def _frozen(serve: PolymorphicFunction) -> PolymorphicFunction:
    """Return a `serving_function` whose variables and captured tensors are constants of its graph.

    tf2onnx 1.17 takes the constants that a layer captures (Keras's Normalization does) for further inputs.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    traced = serve.get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    graph, source = frozen.graph.as_graph_def(), frozen.inputs[0].name
    names, outputs = sorted(traced.structured_outputs), [tensor.name for tensor in frozen.outputs]

    def call(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(names, tf.graph_util.import_graph_def(graph, {source: image}, outputs, name=""), strict=True))

    return tf.function(call, input_signature=serve.input_signature)


def _error_of(path: Path, images: Sequence[Float32], expected: Float32) -> float:
    """Return the largest difference of an exported graph from Keras; raises `EngineError` above `MAX_ERROR`."""
    engine: Engine
    if path.is_dir():
        from keras_matting.engines.tensorflow import SavedModelEngine

        engine = SavedModelEngine(path, "plain")
    else:
        from keras_matting.engines.onnx import OnnxEngine

        engine = OnnxEngine(path, "cpu")
    error = max_error(np.concatenate([engine.predict(image) for image in images]), expected)
    engine.close()
    if not error <= MAX_ERROR:
        raise EngineError(f"Expected {path.name} to agree with Keras within {MAX_ERROR}; it differs by {error:.2g}.")
    return error


def max_error(actual: Floats, expected: Floats) -> float:
    """Return the largest absolute difference."""
    return float(np.abs(actual - expected).max())
