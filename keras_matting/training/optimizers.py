"""The optimizer of a run, whose step is one operation a variable: a graph of some hundred variables is soon built."""

from typing import Any

import keras
from keras import ops

from keras_matting import architectures
from keras_matting.architectures import Recipe
from keras_matting.models.layers import Tensor
from keras_matting.training.settings import Settings


@keras.saving.register_keras_serializable("keras_matting")
class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam; on one device under TensorFlow a variable's update is one kernel, not some twenty operations.

    State, hyperparameters and results are Keras's, up to rounding.
    """

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        """Update one variable by its gradient, both of the same shape."""
        if not self._is_fusable(gradient):
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        index = self._get_variable_index(variable)
        step = ops.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (tf.constant(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=ops.power(beta_1, step),
            beta2_power=ops.power(beta_2, step),
            lr=ops.cast(learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(self.epsilon, variable.dtype),
            grad=ops.cast(gradient, variable.dtype),
        )

    def _is_fusable(self, gradient: Tensor) -> bool:
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            return False
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync == 1 and isinstance(gradient, tf.Tensor)


def optimizer_of(settings: Settings) -> keras.Optimizer:
    """Return a new optimizer as `settings` say; its moving average is by updates, not by accumulated batches."""
    several: dict[str, Any] = {}
    if settings.accumulate > 1:
        several["gradient_accumulation_steps"] = settings.accumulate
    if settings.ema:  # Keras moves the average after every batch
        several |= {"use_ema": True, "ema_momentum": settings.ema ** (1 / settings.accumulate)}
    recipe = recipe_of(settings)
    return recipe.optimizer_class()(learning_rate_of(settings), **recipe.optimizer_options, **several)


def learning_rate_of(settings: Settings) -> float:
    """Return the rate asked for, or the official one of the objective and model."""
    recipe = recipe_of(settings)
    return settings.learning_rate or (recipe.tuning_rate if settings.init else recipe.learning_rate)


def recipe_of(settings: Settings) -> Recipe:
    """Return the `Recipe` by which the official code would train this model for this objective."""
    return architectures.find(settings.model).recipes[settings.objective]
