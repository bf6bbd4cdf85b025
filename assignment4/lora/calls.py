"""What an adapted layer computes in the place of its own `call`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import keras
from keras import ops

from assignment4.lora.adapter import Factors
from assignment4.lora.affine import Affine, Lookup, Tensor


def adapted_call(affine: Affine, factors: Factors, dropout: float = 0.0) -> Callable:
    """h = x W + s (x A) B + bias before the activation (Hu et al. 2021, equation 3).

    PiSSA has its residual for W. With a magnitude m it is DoRA (Liu et al. 2024, equation 5):
    h = m / ||W + s A B|| (x W + s (x A) B) + bias. `dropout` acts on the x of x A, in training.
    """
    drop = _dropout(affine, dropout)
    kernel = affine.kernel if factors.residual is None else factors.residual

    def call(inputs, training=None):
        if dropout == 0:
            h = affine.adapted(inputs, kernel, factors.a, factors.b, factors.scale)
        else:
            low_rank = affine.low_rank(drop(inputs), factors.a, factors.b, factors.scale)
            h = affine.frozen_and(inputs, kernel, low_rank)
        if factors.magnitude is not None:
            norms = direction_norms(affine, kernel, factors)
            known = ops.greater(norms, 0)  # a unit without any weight has no direction to scale
            length = ops.divide(factors.magnitude, ops.where(known, norms, 1.0))
            length = ops.where(known, length, 1.0)
            h = ops.multiply(affine.per_output(length, h), h)
        return affine.finish(h)

    return call


def direction_norms(affine: Affine, kernel: Tensor, factors: Factors) -> Tensor:
    """||W + s A B|| of each output unit (outputs...), a constant in the gradient (Liu et al. 2024,
    section 4.3)."""
    update = factors.scale * ops.einsum(affine.outer, factors.a, factors.b)
    return ops.stop_gradient(affine.norms(ops.add(kernel, update)))


def quantised_call(affine: Affine, factors: Factors, dropout: float = 0.0) -> Callable:
    """The layer's own product with its int8 kernel, plus s (x A) B, before the activation."""
    layer = affine.layer
    drop = _dropout(affine, dropout)

    def call(inputs, training=None):
        low_rank = affine.low_rank(drop(inputs), factors.a, factors.b, factors.scale)
        with _without_activation(layer) as activation:
            h = ops.add(type(layer).quantized_call(layer, inputs), low_rank)
        return h if activation is None else activation(h)

    return call


def inference_call(layer: keras.layers.BatchNormalization) -> Callable:
    """The layer's `call` in inference mode, which leaves the moving averages as they are."""

    def call(inputs, training=None, mask=None):
        return type(layer).call(layer, inputs, training=False, mask=mask)

    return call


def _dropout(affine: Affine, rate: float) -> Callable[[Tensor], Tensor]:
    """Dropout while the layer is called in training; the index of an embedding is left alone."""
    if rate == 0 or isinstance(affine, Lookup):
        return lambda x: x
    seed = keras.random.SeedGenerator(keras.random.randint((), 0, 2**31 - 1).numpy().item())

    def drop(x: Tensor) -> Tensor:
        # (the argument `training` reaches only those layers whose class has it)
        training = affine.layer._get_call_context().get_value("training")
        return keras.random.dropout(x, rate, seed=seed) if training else x

    return drop


@contextlib.contextmanager
def _without_activation(layer: keras.layers.Layer) -> Iterator[Callable | None]:
    """Inside the block the layer has no activation; yields it."""
    activation = vars(layer).get("activation")
    if activation is not None:
        vars(layer)["activation"] = None
    try:
        yield activation
    finally:
        if activation is not None:
            vars(layer)["activation"] = activation
