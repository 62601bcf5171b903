"""Where a run's weights come from: fresh, a model folder, a `.keras` file (whole or backbone) or an official file."""

import logging
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from keras_matting.architectures import ARCHITECTURES
from keras_matting.arrays import Float32, Float64
from keras_matting.errors import UsageError
from keras_matting.files import StrPath
from keras_matting.model_folder import KERAS_FILE, PRESET_FILE, Preset
from keras_matting.models.folder import require_weights
from keras_matting.weights.checkpoints import import_checkpoint
from keras_matting.weights.keras_files import read_keras
from keras_matting.weights.names import pytorch_prefix

RECALIBRATION_IMAGES = 64

_LOGGER = logging.getLogger(__name__)


def load_initial_weights(network: keras.Model, source: StrPath) -> None:
    """Set the weights of `network` from `source`, a path, and log what was taken.

    A model folder or `.keras` file gives every variable that it has under the same name and shape: all of them, or
    all of the backbone. `.pth`, `.ckpt` and `.onnx` are official checkpoints. Raises `UsageError` where neither fits
    or the file is damaged.
    """
    path = Path(source)
    preset = None
    if (path / PRESET_FILE).is_file():
        preset, path = Preset.load(path), path / KERAS_FILE
    if path.suffix != ".keras":
        import_checkpoint(network, path)
        _LOGGER.info("weights of %s", path.name)
        return
    if not path.is_file():
        raise UsageError(f"Expected weights to start from; {path} does not exist.")
    donor = read_keras(path)
    if preset:
        require_weights(donor, preset, path)
    taken = _copy_by_name(network, donor)
    _LOGGER.info("%d of %d variables from %s", taken, len(network.weights), path)


def _copy_by_name(network: keras.Model, donor: keras.Model) -> int:
    """Copy every variable of the donor's that `network` has; raises `UsageError` if not all, nor the backbone, fit."""
    given = {variable.path: variable for variable in donor.weights}
    wanted = {variable.path: variable for variable in network.weights}
    fitting = {path for path in wanted if path in given and given[path].shape == wanted[path].shape}
    backbone = {path for path in wanted if _is_of_backbone(network, path)}
    if fitting != set(wanted) and not (backbone and backbone <= fitting):
        raise UsageError(
            f"Expected weights of {network.name} or of its backbone; {len(fitting)} of {len(wanted)} variables fit, "
            f"the first that does not: {sorted(set(wanted) - fitting)[0]}. Choose the --model that was trained."
        )
    for path in fitting:
        wanted[path].assign(given[path])
    return len(fitting)


def _is_of_backbone(network: keras.Model, name: str) -> bool:
    """Tell whether a layer, or a variable, is of the network's backbone, if its architecture has one."""
    prefix = ARCHITECTURES[network.name].backbone if network.name in ARCHITECTURES else ""
    return bool(prefix) and pytorch_prefix(name).startswith(prefix)


def recalibrate_folded_norms(network: keras.Model, batches: Iterable[Float32]) -> int:
    """Give batch norms that came folded into their convolutions the statistics they had lost; return how many.

    An inference export folds each batch norm away: what is left has mean 0 and variance 1, which evaluates right but
    would normalise otherwise as soon as training uses the batches' own statistics. Here their inputs' mean and variance
    are measured on `batches` of images (N, H, W, 3), and gamma and beta are set so that evaluation stays equal.
    """
    norms = [layer for layer in network.layers if _is_folded(layer)]
    if not norms:
        return 0
    axes = (0, 1, 2)
    # One list of outputs, since Keras flattens a list of pairs when there is one pair.
    moments = [moment for norm in norms for moment in (norm.input, ops.square(norm.input))]
    probe = keras.Model(network.input, [ops.mean(moment, axis=axes) for moment in moments])
    seen = [[np.asarray(value, "float64") for value in probe.predict_on_batch(image)] for image in batches]
    means = [np.mean(values, axis=0) for values in zip(*seen, strict=True)]
    for norm, mean, square in zip(norms, means[::2], means[1::2], strict=True):
        _unfold(norm, mean, np.maximum(square - mean**2, 0))
    _LOGGER.info("batch statistics of %d folded batch norms measured on %d batches", len(norms), len(seen))
    return len(norms)


def _is_folded(layer: keras.Layer) -> bool:
    if not isinstance(layer, layers.BatchNormalization):
        return False
    mean, variance = (ops.convert_to_numpy(x) for x in (layer.moving_mean, layer.moving_variance))
    return not mean.any() and np.ptp(variance) == 0


def _unfold(norm: keras.Layer, mean: Float64, variance: Float64) -> None:
    gain = ops.convert_to_numpy(norm.gamma) / np.sqrt(ops.convert_to_numpy(norm.moving_variance) + norm.epsilon)
    offset = ops.convert_to_numpy(norm.beta) - gain * ops.convert_to_numpy(norm.moving_mean)
    norm.moving_mean.assign(mean)
    norm.moving_variance.assign(variance)
    norm.gamma.assign(gain * np.sqrt(variance + norm.epsilon))
    norm.beta.assign(offset + gain * mean)


def freeze_backbone(network: keras.Model, trained_from: int | None = None) -> None:
    """Freeze the layers of the backbone (MODNet's), all or those before number `trained_from`, statistics included.

    Layers are counted as in `network.layers`, from 0 and with those without parameters: the backbone's are the first
    154, as in `keras.applications.MobileNetV2`. Raises `UsageError` on a number beyond the last.
    """
    backbone = {index: layer for index, layer in enumerate(network.layers) if _is_of_backbone(network, layer.name)}
    if trained_from is not None and trained_from > max(backbone):
        raise UsageError(f"Expected a layer up to {max(backbone)}, the backbone's last; received {trained_from}.")
    for index, layer in backbone.items():
        layer.trainable = trained_from is not None and index >= trained_from
