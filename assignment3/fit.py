"""The training loop of a held-out forecaster, shared with every strategy of assignment 4.

Shape letters: B batch, H horizon, S series.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from assignment3.backend import keras, tf
from assignment3.config import FitRecipe
from assignment3.devices import shared_step
from assignment3.model import Forecaster, pinball
from assignment3.optimiser import VectorOptimiser
from common.files import State
from common.forecasting.windows import Windows
from common.run import Run, progress


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The best epoch of a training: its validation CRPS and number (0: untrained); seconds."""

    crps: float
    epoch: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Best:
    """The weights with the best validation CRPS so far."""

    crps: float
    epoch: int
    weights: list[np.ndarray]


def fit(
    forecaster: Forecaster,
    windows: Windows,
    train_origins: np.ndarray,
    run: Run,
    name: str,
    recipe: FitRecipe,
    rates: Sequence[float] | None = None,
) -> Fitted:
    """Trains whatever the forecaster's model has trainable by CRPS, stopped on validation.

    The model is left with the weights of the best epoch. Every draw is a function of (seed, epoch)
    or stored in the checkpoint `name`: a resumed run is the same. `rates`: see VectorOptimiser.
    """
    start = time.perf_counter()
    model = forecaster.model
    trained = model.trainable_variables
    validation = windows.parts.validation
    per_epoch = -(-len(train_origins) // recipe.batch)  # the last batch may be smaller

    # Optimiser and objective:
    optimiser = VectorOptimiser(build_optimiser(recipe, per_epoch), trained, rates)
    step = training_step(model, optimiser)
    usual_change = windows.changes(windows.parts.train).std(0)  # (H, S)

    # The untrained network is the first candidate; a resumed run goes on from its checkpoint:
    crps = windows.crps(forecaster, usual_change, validation)
    best = Best(crps, 0, values_of(trained))
    run.log(0, 0, "validation", **{f"crps_{name}": crps})
    first_epoch = 0
    saved = run.load(name)
    if saved is not None:
        first_epoch = saved["epoch"]
        best = Best(**saved["best"])
        restore(saved, model, optimiser)

    with run.stoppable(lambda: None) as check:
        for epoch in progress(range(first_epoch, recipe.epochs), name):
            if epoch - best.epoch >= recipe.patience:
                break

            # One pass over the training windows:
            order = np.random.default_rng((recipe.seed, epoch)).permutation(train_origins)
            losses = []
            for batch in range(per_epoch):
                origins = order[batch * recipe.batch : (batch + 1) * recipe.batch]
                losses.append(float(step(*training_batch(forecaster, windows, origins))))
                check(epoch * per_epoch + batch, losses[-1])

            # Validation:
            crps = windows.crps(forecaster, usual_change, validation)
            steps = (epoch + 1) * per_epoch
            run.log(steps, epoch + 1, "train", **{f"loss_{name}": float(np.mean(losses))})
            run.log(steps, epoch + 1, "validation", **{f"crps_{name}": crps})
            if crps < best.crps or epoch < recipe.least_epochs:
                best = Best(crps, epoch + 1, values_of(trained))
            run.save(name, {"epoch": epoch + 1, "best": vars(best), **state_of(model, optimiser)})

    assign(trained, best.weights)
    return Fitted(best.crps, best.epoch, time.perf_counter() - start)


def build_optimiser(recipe: FitRecipe, per_epoch: int) -> keras.Optimizer:
    """AdamW under a linear warm-up and a cosine, gradients clipped together."""
    steps = recipe.epochs * per_epoch
    warm_up_steps = int(recipe.warm_up * recipe.epochs * per_epoch)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up_steps, warmup_target=recipe.lr, warmup_steps=warm_up_steps
    )
    return keras.optimizers.AdamW(
        schedule, weight_decay=recipe.weight_decay, global_clipnorm=recipe.clip_norm
    )


def training_step(
    model: keras.Model, optimiser: VectorOptimiser
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], tf.Tensor]:
    """One traced step of the optimiser on tokens, truth and weight; returns the batch's loss.

    In the scope of a strategy over several devices each of them does its share of the step.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return shared_step(model, optimiser, pinball)
    tokens_like = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)  # (B, T, I)
    truth_like = tf.TensorSpec((None, *model.output_shape[0][1:]), tf.float32)  # (B, H, S)

    @tf.function(input_signature=[tokens_like, truth_like, truth_like], autograph=False)
    def step(tokens: tf.Tensor, truth: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            _, quantiles = model(tokens, training=True)
            loss = tf.reduce_mean(pinball(quantiles, truth) * weight)
        optimiser.apply(tape.gradient(loss, optimiser.trained))
        return loss

    return step


def squared_error_step(
    model: keras.Model, optimiser: VectorOptimiser
) -> Callable[[np.ndarray, np.ndarray], tf.Tensor]:
    """One traced step of the optimiser on inputs and truth; returns the mean squared error."""
    inputs_like = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    truth_like = tf.TensorSpec((None, *model.output_shape[1:]), tf.float32)

    @tf.function(input_signature=[inputs_like, truth_like], autograph=False)
    def step(inputs: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(inputs, training=True) - truth) ** 2)
        optimiser.apply(tape.gradient(loss, optimiser.trained))
        return loss

    return step


def training_batch(
    forecaster: Forecaster, windows: Windows, origins: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, true changes in the outputs' unit, and that unit over the usual one, (B, H, S) each.

    The weight undoes the unit, so that the loss weighs calm and wild windows as the score does.
    """
    past, times = windows.inputs(origins)
    tokens, unit = forecaster.inputs(past, times)
    truth = forecaster.targets(past, windows.future(origins)) / unit
    weight = unit / forecaster.size
    return tokens, truth.astype(np.float32), weight.astype(np.float32)


def state_of(model: keras.Model, optimiser: VectorOptimiser) -> State:
    """What a checkpoint holds of a training, with the state of the dropout's draws."""
    return {
        "model": values_of(model.variables),
        "optimiser": values_of(optimiser.variables),
    }


def restore(state: State, model: keras.Model, optimiser: VectorOptimiser) -> None:
    """Continues from the state of a checkpoint."""
    assign(model.variables, state["model"])
    assign(optimiser.variables, state["optimiser"])


def values_of(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """The values of Keras variables."""
    return [variable.numpy() for variable in variables]


def assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Sets Keras variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
