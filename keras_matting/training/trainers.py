"""Trainers: a matting network with its objective, for Keras's own `fit` on any backend."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import metrics, ops

from keras_matting.metrics import FOREGROUND
from keras_matting.models.layers import Tensor
from keras_matting.training import losses
from keras_matting.training.averaging import StatisticsAverage


class Trainer(keras.Model):
    """A network and its objective: `fit` on (image, {"alpha", "trimap"}), all float (N, H, W, C).

    `network` maps an image to a dict with "matte", in [0, 1]. A subclass names the terms of its objective in `TERMS`
    and computes them in `terms`; their sum is minimised, and each is a metric. Where there is truth, so are "mae" and
    "miou" (mean over images of the foreground's intersection over union) of the network's own matte.

    `sources`: names of what `evaluate` gets batches of; then the targets say the number of each image's source in
    "source", (N,), there is "NAME_mae" and "NAME_miou" for each, "mae" and "miou" are their means, and "worst_mae" and
    "worst_miou" those of the worst.
    """

    TERMS: tuple[str, ...] = ()

    def __init__(self, network: keras.Model, sources: Sequence[str] = ()) -> None:
        super().__init__(name=f"{network.name}_trainer")
        self.network = network
        self.term_means = [metrics.Mean(f"{term}_loss") for term in self.TERMS]
        self.mae, self.miou = metrics.Mean("mae"), metrics.Mean("miou")
        self.by_source = [{figure: metrics.Mean(f"{name}_{figure}") for figure in ("mae", "miou")} for name in sources]
        self._has_truth, self._is_evaluating = True, False
        self.averages = StatisticsAverage(network)
        self.built = True

    def compile(self, optimizer: keras.Optimizer, **kwargs: Any) -> None:
        """Compile, by default without XLA on processors under TensorFlow, where it does without oneDNN's kernels."""
        if _on_tensorflow_without_gpu():
            kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.trainable_variables)  # a graph that makes the variables would be traced twice
        if kept := self._averaging():
            self.averages.begin(self, kept.ema_momentum)

    def call(self, image: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        """Return the network's outputs, a dict."""
        if _replicas() == 1:
            return self.network(image, training=training)
        # A replica's part of a last, smaller batch may be empty: seen with AVX-512, oneDNN's convolutions then give
        # tensors of a wrong shape. So such a part is computed of a blank photo, which is dropped.
        count = ops.shape(image)[0]
        padded = ops.pad(image, [[0, ops.maximum(1 - count, 0)], [0, 0], [0, 0], [0, 0]])
        return {name: output[:count] for name, output in self.network(padded, training=training).items()}

    def terms(self, image: Tensor, targets: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the objective's terms, {name: scalar}."""
        raise NotImplementedError

    def compute_loss(
        self,
        x: Tensor | None = None,
        y: Mapping[str, Tensor] | None = None,
        y_pred: Mapping[str, Tensor] | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """Return the sum of the objective's terms, a scalar, and track every one."""
        given, outputs = y or {}, y_pred or {}
        matte = outputs["matte"]
        targets = {name: ops.cast(value, matte.dtype) for name, value in given.items() if name != "source"}
        images = ops.shape(x)[0]
        # A replica's part of a last, smaller batch may be empty, and its mean no number.
        terms = {
            name: ops.where(images > 0, term, ops.zeros_like(term))
            for name, term in self.terms(ops.cast(x, matte.dtype), targets, outputs).items()
        }
        for mean, term in zip(self.term_means, self.TERMS, strict=True):
            mean.update_state(terms[term], sample_weight=images)
        if training and self.averages.variables:
            self.averages.update()
        self._has_truth = "alpha" in targets
        if self._has_truth:
            figures = {
                "mae": ops.mean(ops.abs(matte - targets["alpha"]), axis=(1, 2, 3)),
                "miou": _iou(targets["alpha"], matte),
            }
            self.mae.update_state(figures["mae"])
            self.miou.update_state(figures["miou"])
            for number, means in enumerate(self.by_source if self._is_evaluating else ()):
                is_its = ops.cast(ops.equal(given["source"], number), matte.dtype)
                for figure, mean in means.items():
                    mean.update_state(figures[figure], sample_weight=is_its)
        return sum(terms.values()) / _replicas()

    def get_metrics_result(self) -> dict[str, Tensor]:
        """Return the metrics' values by name, without "mae" and "miou" where the data had no truth."""
        results = super().get_metrics_result()
        hidden = set() if self._has_truth else {"mae", "miou"}
        if self.by_source and self._is_evaluating:
            for figure, worst in (("mae", ops.max), ("miou", ops.min)):
                values = ops.stack([means[figure].result() for means in self.by_source])
                results |= {figure: ops.mean(values), f"worst_{figure}": worst(values)}
        else:
            hidden |= {mean.name for means in self.by_source for mean in means.values()}
        return {name: value for name, value in results.items() if name not in hidden}

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as Keras does, with the weights' moving average if the optimizer keeps one."""
        self._is_evaluating = True
        try:
            with self.averaged():
                return super().evaluate(*args, **kwargs)
        finally:
            self._is_evaluating = False

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, weights and statistics are their moving average, if one is kept and a step was made."""
        kept = self._averaging()
        if not (kept and kept.built and int(ops.convert_to_numpy(kept.iterations))):
            yield
            return
        variables = [*self.trainable_variables, *self.averages.statistics]
        own = [ops.convert_to_numpy(variable) for variable in variables]
        kept.finalize_variable_values(self.trainable_variables)
        self.averages.apply()
        for variable in variables:  # on JAX it now shares its average's memory, which an evaluation gives away
            variable.assign(ops.copy(variable))
        try:
            yield
        finally:
            for variable, value in zip(variables, own, strict=True):
                variable.assign(value)

    def _averaging(self) -> keras.Optimizer | None:
        """Return the optimizer that keeps a moving average of the weights, or None."""
        optimizer = getattr(self, "optimizer", None)
        kept = getattr(optimizer, "inner_optimizer", optimizer)  # that of a loss-scaled one
        return kept if kept and kept.use_ema else None


class MODNetTrainer(Trainer):
    """MODNet under supervision (official `supervised_training_iter`)."""

    TERMS = ("semantic", "detail", "matte")

    def terms(self, image: Tensor, targets: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of the three branches."""
        return losses.modnet_supervised(image, targets["alpha"], targets["trimap"], outputs)


class U2NetTrainer(Trainer):
    """U2Net or U2NetP under deep supervision (official `muti_bce_loss_fusion`)."""

    TERMS = ("matte", "side1", "side2", "side3", "side4", "side5", "side6")

    def terms(self, image: Tensor, targets: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the cross-entropy of each map."""
        return losses.deep_supervision(targets["alpha"], outputs)


class SOCTrainer(Trainer):
    """A trained MODNet adapted to photos without truth (official `soc_adaptation_iter`): `fit` on (image,).

    The teacher is the network as it was at the last `refresh_teacher`, which belongs at the start of every epoch.
    Batch norms keep their running statistics, as `freeze_norm` leaves them; their gammas and betas are trained.
    """

    TERMS = ("soc_semantic", "soc_detail")

    def __init__(self, network: keras.Model, sources: Sequence[str] = ()) -> None:
        super().__init__(network, sources)
        self.teacher = keras.models.clone_model(network)
        self.teacher.trainable = False
        self.refresh_teacher()

    def refresh_teacher(self) -> None:
        """Make the teacher what the network is now."""
        self.teacher.set_weights(self.network.get_weights())

    def call(self, image: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        """Return the network's outputs; its batch norms never see the batch's statistics."""
        return self.network(image, training=False)

    def terms(self, image: Tensor, targets: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the inconsistency between the branches, and the change of the boundary against the teacher."""
        return losses.modnet_soc(outputs, self.teacher(image, training=False))


def _iou(alpha: Tensor, matte: Tensor) -> Tensor:
    """Return each image's intersection over union, (N,); 1 where neither has a foreground."""
    truth, found = (ops.cast(x >= FOREGROUND, matte.dtype) for x in (alpha, matte))
    intersection = ops.sum(truth * found, axis=(1, 2, 3))
    union = ops.sum(ops.maximum(truth, found), axis=(1, 2, 3))
    return ops.where(union > 0, intersection / ops.maximum(union, 1), ops.ones_like(union))


def _on_tensorflow_without_gpu() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def _replicas() -> int:
    """Return how many replicas' losses TensorFlow adds up: each then contributes its share."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
