"""Where TensorFlow computes: on the CPU, on a GPU, or on all GPUs of the machine at once.

Shape letters: B batch, T tokens, I inputs per token, H horizon, S series, P trained weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from assignment3.backend import keras, tf
from assignment3.optimiser import VectorOptimiser, joined
from common.cli import InputError

Loss = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]


def choose_strategy(wanted: str) -> tf.distribute.Strategy:
    """How networks are trained for --device auto | cpu | cuda: on one device, or on several GPUs.

    To be called before TensorFlow computes anything. Raises InputError for cuda without a GPU.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if wanted == "cuda" and not gpus:
        raise InputError(
            "--device cuda: TensorFlow finds no GPU on this machine; use cpu or auto, or install "
            "requirements-gpu.txt"
        )
    if wanted == "cpu" and gpus:
        tf.config.set_visible_devices([], "GPU")
        gpus = []
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)  # the rest is left for torch
    return strategy_over([f"GPU:{number}" for number in range(len(gpus))])


def strategy_over(devices: Sequence[str]) -> tf.distribute.Strategy:
    """A copy of each network on every one of several devices, else TensorFlow's usual place."""
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy(list(devices))
    return tf.distribute.get_strategy()


def devices_of(strategy: tf.distribute.Strategy) -> str:
    """Where a strategy computes, for run.json."""
    if strategy.num_replicas_in_sync > 1:
        return f"{strategy.num_replicas_in_sync} devices"
    return "cuda" if tf.config.get_visible_devices("GPU") else "cpu"


def shared_step(
    model: keras.Model, optimiser: VectorOptimiser, objective: Loss
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], tf.Tensor]:
    """A step like that of `training_step`, of which every device of the strategy does a share.

    Each device has a copy of the network and some windows of the batch, whose losses it sums up and
    divides by the size of the whole batch. So the sum of the gradients is that of one device up to
    rounding, also where the shares are unequal. `objective` gives the losses (B, H, S) of the
    network's quantiles and the truth. Networks and optimiser are built in the strategy's scope.
    """
    strategy = tf.distribute.get_strategy()
    copies = strategy.num_replicas_in_sync
    # Keras adds gradients up after it has clipped each of them, and the norm is that of their sum
    vars(optimiser.optimiser)["_all_reduce_sum_gradients"] = list

    def share(tokens: tf.Tensor, truth: tf.Tensor, weight: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            _, quantiles = model(tokens, training=True)
            loss = tf.reduce_sum(objective(quantiles, truth) * weight) / size
        gradient = joined(tape.gradient(loss, optimiser.trained))  # (P,)
        everywhere = tf.distribute.get_replica_context()
        optimiser.apply([everywhere.all_reduce(tf.distribute.ReduceOp.SUM, gradient)])
        return loss

    # the last batch of an epoch may have another size
    @tf.function(autograph=False, reduce_retracing=True)
    def step(shares: tuple[tf.Tensor, ...], size: tf.Tensor) -> tf.Tensor:
        losses = strategy.run(share, (*shares, size))
        return strategy.reduce("SUM", losses, axis=None)

    def of_batch(tokens: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> tf.Tensor:
        parts = [np.array_split(array, copies) for array in (tokens, truth, weight)]
        shares = tuple(
            strategy.experimental_distribute_values_from_function(
                lambda replica, own=own: tf.constant(own[replica.replica_id_in_sync_group])
            )
            for own in parts
        )
        return step(shares, tf.constant(truth.size, tf.float32))

    return of_batch
