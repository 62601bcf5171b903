"""Trainers: a matting network with its objective, for Keras's own `fit` on any backend."""

import keras
from keras import metrics, ops

from keras_matting.metrics import FOREGROUND
from keras_matting.training import losses


class Trainer(keras.Model):
    """A network and its objective: `fit` on (image, {"alpha", "trimap"}), all float (N, H, W, C).

    `network` maps an image to a dict with "matte", in [0, 1]. A subclass names the terms of its objective in `TERMS`
    and computes them in `terms`; their sum is minimised, and each is a metric. Where there is truth, so are "mae" and
    "miou" (mean over images of the foreground's intersection over union) of the network's own matte.
    """

    TERMS = ()

    def __init__(self, network):
        super().__init__(name=f"{network.name}_trainer")
        self.network = network
        self.term_means = [metrics.Mean(f"{term}_loss") for term in self.TERMS]
        self.mae, self.miou = metrics.Mean("mae"), metrics.Mean("miou")
        self._has_truth = True
        self.built = True

    def compile(self, optimizer, **kwargs):
        """Compile, by default without XLA on processors under TensorFlow, which is slower there, and takes longer."""
        if _on_tensorflow_without_gpu():
            kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)

    def call(self, image, training=None):
        """Return the network's outputs, a dict."""
        return self.network(image, training=training)

    def terms(self, image, targets, outputs):
        """Return the objective's terms, {name: scalar}."""
        raise NotImplementedError

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the sum of the objective's terms, a scalar, and track every one."""
        dtype = y_pred["matte"].dtype
        targets = {name: ops.cast(value, dtype) for name, value in (y or {}).items()}
        images = ops.shape(x)[0]
        # A replica's part of a last, smaller batch may be empty, and its mean no number.
        terms = {
            name: ops.where(images > 0, term, ops.zeros_like(term))
            for name, term in self.terms(ops.cast(x, dtype), targets, y_pred).items()
        }
        for mean, term in zip(self.term_means, self.TERMS, strict=True):
            mean.update_state(terms[term], sample_weight=images)
        self._has_truth = "alpha" in targets
        if self._has_truth:
            self.mae.update_state(ops.mean(ops.abs(y_pred["matte"] - targets["alpha"]), axis=(1, 2, 3)))
            self.miou.update_state(_iou(targets["alpha"], y_pred["matte"]))
        return sum(terms.values()) / _replicas()

    def get_metrics_result(self):
        """Return the metrics' values by name, without "mae" and "miou" where the data had no truth."""
        results = super().get_metrics_result()
        hidden = () if self._has_truth else ("mae", "miou")
        return {name: value for name, value in results.items() if name not in hidden}


class MODNetTrainer(Trainer):
    """MODNet under supervision (official `supervised_training_iter`)."""

    TERMS = ("semantic", "detail", "matte")

    def terms(self, image, targets, outputs):
        """Return the losses of the three branches."""
        return losses.modnet_supervised(image, targets["alpha"], targets["trimap"], outputs)


class U2NetTrainer(Trainer):
    """U2Net or U2NetP under deep supervision (official `muti_bce_loss_fusion`)."""

    TERMS = ("matte", "side1", "side2", "side3", "side4", "side5", "side6")

    def terms(self, image, targets, outputs):
        """Return the cross-entropy of each map."""
        return losses.deep_supervision(targets["alpha"], outputs)


class SOCTrainer(Trainer):
    """A trained MODNet adapted to photos without truth (official `soc_adaptation_iter`): `fit` on (image,).

    The teacher is the network as it was at the last `refresh_teacher`, which belongs at the start of every epoch.
    Batch norms keep their running statistics, as `freeze_norm` leaves them; their gammas and betas are trained.
    """

    TERMS = ("soc_semantic", "soc_detail")

    def __init__(self, network):
        super().__init__(network)
        self.teacher = keras.models.clone_model(network)
        self.teacher.trainable = False
        self.refresh_teacher()

    def refresh_teacher(self):
        """Make the teacher what the network is now."""
        self.teacher.set_weights(self.network.get_weights())

    def call(self, image, training=None):
        """Return the network's outputs; its batch norms never see the batch's statistics."""
        return self.network(image, training=False)

    def terms(self, image, targets, outputs):
        """Return the inconsistency between the branches, and the change of the boundary against the teacher."""
        return losses.modnet_soc(outputs, self.teacher(image, training=False))


def _iou(alpha, matte):
    """Return each image's intersection over union, (N,); 1 where neither has a foreground."""
    truth, found = (ops.cast(x >= FOREGROUND, matte.dtype) for x in (alpha, matte))
    intersection = ops.sum(truth * found, axis=(1, 2, 3))
    union = ops.sum(ops.maximum(truth, found), axis=(1, 2, 3))
    return ops.where(union > 0, intersection / ops.maximum(union, 1), ops.ones_like(union))


def _on_tensorflow_without_gpu():
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def _replicas():
    """Return how many replicas' losses TensorFlow adds up: each then contributes its share."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
