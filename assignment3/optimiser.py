"""A Keras optimiser of many weights as one vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from assignment3.backend import keras, ops, tf


class VectorOptimiser:
    """A Keras optimiser that sees all trained weights as one vector.

    Adam works weight by weight, and a gradient is clipped together with all others, so the weights
    become what the optimiser itself would make of them. But Keras traces an update for every
    variable, which takes five times as long as the whole network; here it is one.

    `rates` are factors of the learning rate, one for each variable, which leave weight decay as it
    is (None: 1 for all). `variables` are the optimiser's own, as a checkpoint holds them.
    """

    def __init__(
        self,
        optimiser: keras.Optimizer,
        trained: Sequence[keras.Variable],
        rates: Sequence[float] | None = None,
    ):
        self.optimiser = optimiser
        self.trained = list(trained)
        self.sizes = [int(np.prod(variable.shape)) for variable in self.trained]
        self.vector = keras.Variable(np.zeros(sum(self.sizes)), dtype="float32", name="trained")
        optimiser.build([self.vector])
        if rates is not None:
            self._multiply_rate(np.repeat(rates, self.sizes).astype(np.float32))

    @property
    def variables(self) -> list[keras.Variable]:
        """The optimiser's state."""
        return self.optimiser.variables

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """One step on the trained weights with their gradients."""
        # the weights are read anew in every step: whoever sets them need not know of the vector
        weights = [variable.value for variable in self.trained]
        self.vector.assign(joined(weights))
        self.optimiser.apply([joined(gradients)], [self.vector])
        parts = tf.split(self.vector.value, self.sizes)
        for variable, part in zip(self.trained, parts, strict=True):
            variable.assign(tf.reshape(part, variable.shape))

    def _multiply_rate(self, rates: np.ndarray) -> None:
        """Gives every weight (P,) a learning rate of its own."""
        step = self.optimiser.update_step

        def update_step(
            gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
        ) -> None:
            step(gradient, variable, ops.cast(learning_rate, "float32") * rates)

        vars(self.optimiser)["update_step"] = update_step


def joined(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Tensors of any shape one after the other (P,)."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
