"""The training loop of a forecaster, for assignment 3 and for every strategy of assignment 4: it trains what the model has trainable."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from assignment3.backend import keras, tf
from assignment3.model import Forecaster, pinball
from common.forecast import Windows
from common.run import Run, progress


def fit(
    forecaster: Forecaster,
    windows: Windows,
    train: np.ndarray,
    run: Run,
    name: str,
    *,
    seed: int,
    epochs: int,
    patience: int,
    batch: int,
    lr: float,
    weight_decay: float,
    warm_up: float = 0.15,
) -> dict[str, Any]:
    """Trains whatever the forecaster's model has trainable by CRPS, on the windows at origins `train`; the model is left with
    the weights of the pass that was best on validation. Every draw is a function of (seed, epoch) or kept, so a resumed run is the same run."""
    start, model = time.perf_counter(), forecaster.model
    per_epoch, validation = -(-len(train) // batch), windows.parts.validation
    warm = int(warm_up * epochs * per_epoch)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, epochs * per_epoch - warm, warmup_target=lr, warmup_steps=warm
    )
    optimiser, trained = (
        keras.optimizers.AdamW(schedule, weight_decay=weight_decay, global_clipnorm=1.0),
        model.trainable_variables,
    )
    optimiser.build(trained)

    like = [
        tf.TensorSpec((None, *shape[1:]), tf.float32)
        for shape in (model.input_shape, *2 * [model.output_shape[0]])
    ]

    @tf.function(input_signature=like)
    def step(tokens: tf.Tensor, truth: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(pinball(model(tokens, training=True)[1], truth) * weight)
        optimiser.apply(tape.gradient(loss, trained), trained)
        return loss

    usual = windows.changes(windows.parts.train).std(0)  # (H, S)

    def crps() -> float:
        return windows.crps(forecaster, usual, validation)

    def state(variables: list[Any]) -> list[np.ndarray]:
        return [np.asarray(variable.value) for variable in variables]

    def restore(variables: list[Any], kept: list[np.ndarray]) -> None:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)

    best: dict[str, Any] = {"crps": crps(), "epoch": 0, "weights": state(trained)}
    first = 0
    run.log(0, 0, "validation", **{f"crps_{name}": best["crps"]})
    if kept := run.load(name):
        first, best = kept["epoch"], kept["best"]
        restore(model.variables, kept["model"])  # with the state of the dropout's draws
        restore(optimiser.variables, kept["optimiser"])
    with run.stoppable(lambda: None) as stop_here:
        for epoch in progress(range(first, epochs), name):
            if epoch - best["epoch"] >= patience:
                break
            order, losses = np.random.default_rng((seed, epoch)).permutation(train), []
            for place in range(per_epoch):
                at = order[place * batch : (place + 1) * batch]
                seen, times = windows.inputs(at)
                tokens, unit = forecaster.inputs(seen, times)
                truth = forecaster.targets(seen, windows.future(at)) / unit
                losses.append(
                    float(
                        step(
                            tokens,
                            truth.astype(np.float32),
                            (unit / forecaster.size).astype(np.float32),
                        )
                    )
                )
                stop_here(epoch * per_epoch + place, losses[-1])
            run.log(
                (epoch + 1) * per_epoch,
                epoch + 1,
                "train",
                **{f"loss_{name}": float(np.mean(losses))},
            )
            run.log(
                (epoch + 1) * per_epoch,
                epoch + 1,
                "validation",
                **{f"crps_{name}": (now := crps())},
            )
            if now < best["crps"]:
                best = {"crps": now, "epoch": epoch + 1, "weights": state(trained)}
            run.save(
                name,
                {
                    "epoch": epoch + 1,
                    "best": best,
                    "model": state(model.variables),
                    "optimiser": state(optimiser.variables),
                },
            )
    restore(trained, best["weights"])
    return {"crps": best["crps"], "epoch": best["epoch"], "seconds": time.perf_counter() - start}
