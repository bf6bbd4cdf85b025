"""Trains on one device and on two, which are halves of the processor, and writes what came out.

python -m tests.assignment4.copies FILE

FILE is an npz of the losses of single steps and of the adapted networks: one array `one.<name>` and
one `two.<name>` each.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from assignment3.backend import keras, tf
from assignment3.config import FitRecipe
from assignment3.devices import devices_of, strategy_over
from assignment3.fit import build_optimiser, training_step
from assignment3.model import save_model
from assignment3.optimiser import VectorOptimiser
from assignment4.adaptation import Adaptation
from assignment4.config import Config
from assignment4.jobs import Job
from assignment4.pretrained import Base
from assignment4.strategies import FULL, Strategy
from common.forecasting.prices import CURRENCIES
from common.forecasting.simulate import simulate
from common.forecasting.windows import Windows, split
from common.run import Run
from tests.assignment4.test_strategies import build

CONFIG = Config(seeds=1, ranks=(2,), rank=2, epochs=1, batch=31)
RECIPE = FitRecipe(seed=0, epochs=1, patience=1, batch=8, lr=0.01, weight_decay=0.05)
BATCHES = (8, 7, 1, 6)  # even, odd, one window for two devices, even
STRATEGIES = (FULL, Strategy("lora", 2, variant="LoRA+"))


def losses(strategy: tf.distribute.Strategy) -> dict[str, np.ndarray]:
    """The losses of steps on batches of several sizes, and the weights after them."""
    rng = np.random.default_rng(0)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = build().model
        optimiser = VectorOptimiser(build_optimiser(RECIPE, 4), model.trainable_variables)
        step = training_step(model, optimiser)
        found = []
        for size in BATCHES:
            tokens = rng.normal(size=(size, *model.input_shape[1:])).astype(np.float32)
            truth = rng.normal(size=(size, *model.output_shape[0][1:])).astype(np.float32)
            weight = rng.uniform(0.5, 2, truth.shape).astype(np.float32)
            found.append(float(step(tokens, truth, weight)))
        weights = np.concatenate([each.ravel() for each in model.get_weights()])
    return {"losses": np.array(found), "weights": weights}


def adaptations(strategy: tf.distribute.Strategy, folder: Path) -> dict[str, np.ndarray]:
    """The weights and the validation CRPS of networks that are adapted in several ways."""
    prices = simulate(CURRENCIES, 300, 1)
    windows = Windows(prices, split(prices.contiguous(), 48, 3, 60, 40), 48, 3, log=False)
    file = folder / "model.minmax-0.keras"
    network = build()
    kernel = network.model.get_layer("head").kernel  # zero in a network that was never trained
    kernel.assign(0.3 * np.random.default_rng(0).standard_normal(kernel.shape))
    save_model(file, network.model)
    found = {}
    with Run(CONFIG, folder / "run", __file__, "simulated", {}) as run:
        adaptation = Adaptation(CONFIG, run, windows, Base(folder, [file], network), strategy)
        for each in STRATEGIES:
            adapted = adaptation.train(Job(each, 0, 1e-3, stage=1))
            found[f"{each.label}, weights"] = np.concatenate(
                [array.ravel() for array in adapted.weights]
            )
            found[f"{each.label}, crps"] = np.array([adapted.crps, adapted.epoch])
    return found


def main(path: Path) -> None:
    """Trains in both ways."""
    processor = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, halves)
    strategies = {"two": strategy_over(["CPU:0", "CPU:1"]), "one": strategy_over(["CPU:0"])}
    assert devices_of(strategies["one"]) == "cpu"
    assert devices_of(strategies["two"]) == "2 devices"
    arrays = {}
    for name, strategy in strategies.items():
        with tempfile.TemporaryDirectory() as folder:
            found = losses(strategy) | adaptations(strategy, Path(folder))
        arrays |= {f"{name}.{key}": values for key, values in found.items()}
    np.savez(path, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
