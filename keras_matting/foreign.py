"""Any Keras model with one image in and one tensor out, through the same export, engines and benchmark."""

import keras

from keras_matting.errors import UsageError, first_line
from keras_matting.files import StrPath
from keras_matting.model_folder import Preset
from keras_matting.models.folder import write_model_folder


def write_application_folder(
    name: str, out_dir: StrPath, *, size: tuple[int, int] | None = None, weights: str | None = None, force: bool = False
) -> Preset:
    """Write a model folder of `keras.applications.NAME`, "ResNet50" say; return its preset.

    `size`: (height, width), by default the application's own. `weights`: None (random) or "imagenet" (fetched by
    Keras). Raises `UsageError` on an unknown name or weights that cannot be fetched.
    """
    application = getattr(keras.applications, name, None)
    if application is None or not name[0].isupper():
        names = ", ".join(entry for entry in dir(keras.applications) if entry[0].isupper())
        raise UsageError(f"Expected a model of keras.applications out of {names}; received {name!r}.")
    try:
        model = application(weights=weights, **({"input_shape": (*size, 3)} if size else {}))
    except Exception as error:
        raise UsageError(f"keras.applications.{name} with weights {weights} failed: {first_line(error)}") from error
    return write_keras_folder(model, name, out_dir, force=force)


def write_keras_folder(model: keras.Model, name: str, out_dir: StrPath, *, force: bool = False) -> Preset:
    """Write a model folder of a built Keras `model`: input (N, H, W, 3) of static H and W, one output tensor.

    Photos are scaled to [-1, 1]; a model with preprocessing of its own keeps it, since it is part of the graph.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1 or None in model.input_shape[1:]:
        raise UsageError(
            f"Expected one input (N, H, W, 3) of static size and one output; {name} has {model.input_shape} and "
            f"{len(model.outputs)} outputs."
        )
    model = keras.Model(
        model.inputs[0], model.outputs[0], name=model.name
    )  # a Sequential forgets its output when saved
    half = (0.5, 0.5, 0.5)
    preset = Preset(name=name, architecture=f"keras:{name}", input_size=model.input_shape[1:3], mean=half, std=half)
    return write_model_folder(model, preset, out_dir, force)
