"""The optimiser of all weights as one vector against Keras' own, variable by variable."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from assignment3.backend import keras, layers, tf
from assignment3.config import FitRecipe
from assignment3.fit import build_optimiser, squared_error_step
from assignment3.optimiser import VectorOptimiser

RECIPE = FitRecipe(seed=0, epochs=2, patience=1, batch=8, lr=0.01, weight_decay=0.05)
X = np.random.default_rng(0).normal(size=(8, 6, 5)).astype(np.float32)
Y = 3 + np.random.default_rng(1).normal(size=(8, 6, 2)).astype(np.float32)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5))
    hidden = layers.LayerNormalization()(layers.Dense(4, "relu")(inputs))
    return keras.Model(inputs, layers.Dense(2)(hidden))


def adam_w() -> keras.Optimizer:
    return build_optimiser(RECIPE, 10)  # a warm-up, a cosine, and a norm that the gradients exceed


def plain_step(model: keras.Model, optimiser: keras.Optimizer) -> Callable[[], None]:
    trained = model.trainable_variables
    optimiser.build(trained)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X, training=True) - Y) ** 2)
        optimiser.apply(tape.gradient(loss, trained), trained)

    return step


def values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("make", [adam_w, lambda: keras.optimizers.Adam(0.01)])
def test_the_weights_are_those_of_keras_variable_by_variable(make):
    ours, theirs = network(), network()
    before = values(ours.trainable_variables)
    step = squared_error_step(ours, VectorOptimiser(make(), ours.trainable_variables))
    other = plain_step(theirs, make())
    for _ in range(12):
        step(X, Y)
        other()
    pairs = zip(values(ours.trainable_variables), values(theirs.trainable_variables), strict=True)
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    moved = [np.abs(a - b).max() for a, b in zip(before, values(ours.weights), strict=True)]
    assert min(moved) > 1e-4


def test_a_step_begins_with_the_weights_that_the_model_has_then():
    model = network()
    optimiser = VectorOptimiser(keras.optimizers.SGD(0.5), model.trainable_variables)
    step = squared_error_step(model, optimiser)
    step(X, Y)
    model.set_weights([np.zeros(weight.shape) for weight in model.weights])
    step(X, Y)  # of zeros all but the last bias have gradient zero: that of mean (b - Y)^2
    *others, bias = values(model.trainable_variables)
    np.testing.assert_allclose(bias, 0.5 * Y.mean((0, 1)), rtol=1e-5)
    assert not any(each.any() for each in others)


def test_a_rate_multiplies_the_step_and_not_the_weight_decay():
    def after(rates: Sequence[float] | None, decay: float) -> list[np.ndarray]:
        first = keras.Variable(np.full((2, 3), 2.0), name="first")
        second = keras.Variable(np.full(4, 2.0), name="second")
        adam = keras.optimizers.AdamW(0.1, weight_decay=decay)
        optimiser = VectorOptimiser(adam, [first, second], rates)
        optimiser.apply([tf.ones((2, 3)), -3 * tf.ones(4)])
        return values([first, second])

    # Adam's first step is the rate times the sign of the gradient; decay is the plain rate's
    for found, steps in ((after(None, 0), (1, 1)), (after([1, 4], 0), (1, 4))):
        np.testing.assert_allclose(found[0], 2 - 0.1 * steps[0], rtol=1e-5)
        np.testing.assert_allclose(found[1], 2 + 0.1 * steps[1], rtol=1e-5)
    for got, plain in zip(after([1, 4], 0.3), after([1, 4], 0), strict=True):
        np.testing.assert_allclose(got, plain - 2 * 0.1 * 0.3, rtol=1e-5)


def test_another_variable_adds_a_fifth_of_the_operations_of_keras():
    """What takes time in tracing is the number of operations."""

    def operations(count: int, vector: bool) -> int:
        variables = [keras.Variable(np.ones(3)) for _ in range(count)]
        gradients = [tf.ones(3)] * count
        plain = adam_w()
        if vector:
            apply = VectorOptimiser(plain, variables).apply
        else:
            plain.build(variables)
            apply = plain.apply
        step = tf.function(lambda: apply(gradients), autograph=False)
        return len(step.get_concrete_function().graph.get_operations())

    ours, theirs = (operations(22, vector) - operations(2, vector) for vector in (True, False))
    assert 0 < 5 * ours < theirs, (ours, theirs)
