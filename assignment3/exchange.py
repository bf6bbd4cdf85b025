"""The encoder on the exchange-rate benchmark of Lai et al. 2018 by the protocol of Zeng et al. 2023: 8 daily rates against USD.

96 days tell the next 96, 192, 336 or 720; the score is the mean squared error of z-scored rates over every window whose
targets lie in the last 20 % (nothing dropped). `python assignment3/exchange.py --preset full` takes about 20 minutes on two
CPU cores. Expect the error of no change: the network starts there, and there is little more to be had.
"""

from __future__ import annotations

import dataclasses
import gzip
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from assignment3.backend import keras, layers, tf
from assignment3.model import encoder
from common.backtest import RidgeWindow, diebold_mariano, no_change
from common.cli import BaseConfig, InputError, data_folder, entry, parse
from common.run import Run, peak_mb, progress, sha256
from common.windows import future, past

HERE = Path(__file__).resolve().parent
INFO = {
    name: {
        "unit": f"training deviations{power}",
        "better": "lower",
        "reference": f"mean {what} error of z-scored rates over all windows, steps and series; 0: every rate right; compare with no change",
    }
    for name, what, power in (("mse", "squared", " squared"), ("mae", "absolute", ""))
}


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    """Assignment 3 on the exchange-rate benchmark."""

    script: ClassVar[str] = "exchange.py"

    horizons: tuple[int, ...] = (96, 192, 336, 720)
    """days that are told"""
    context: int = 96
    """days that a forecast sees"""
    patch: int = 8
    """days in a token"""
    width: int = 64
    """of the tokens"""
    blocks: int = 3
    """of the encoder"""
    heads: int = 8
    """of its attention"""
    key: int = 64
    """of each head"""
    dropout: float = 0.2
    """share of the inputs left out in training"""
    epochs: int = 3
    """passes over the training part at most; the best on validation is kept"""
    batch: int = 256
    """windows of one series in a batch"""
    lr: float = 3e-4
    """learning rate (AdamW)"""
    weight_decay: float = 0.05
    """AdamW's weight decay"""
    seeds: int = 5
    """networks a horizon"""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        return {
            "smoke": {"horizons": (12,), "epochs": 1, "seeds": 1, "blocks": 1, "batch": 1024},
            "default": {"horizons": (96,), "seeds": 2},
            "full": {},
        }


def load(path: Path) -> np.ndarray:
    """Rates (T, S) of a text table without a header. Raises InputError for anything else."""
    try:
        with (
            gzip.open(path, "rt") if path.suffix == ".gz" else open(path, encoding="utf-8") as file
        ):
            values = np.loadtxt(file, delimiter=",", ndmin=2)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: a table of rates, comma separated and without a header, is needed ({' '.join(str(error).split())[:150]})"
        ) from None
    if not np.isfinite(values).all():
        raise InputError(
            f"{path}: row {np.argwhere(~np.isfinite(values))[0, 0] + 1} holds a value that is not finite; every rate is needed"
        )
    return values


def parts_of(steps: int, context: int, horizon: int) -> dict[str, np.ndarray]:
    """Origins of each part, 70 %, 10 % and 20 % of the rows; contexts may reach back into the part before, targets may not."""
    train_end, test_start = int(steps * 0.7), steps - int(steps * 0.2)
    parts = {
        "train": np.arange(context - 1, train_end - horizon),
        "validation": np.arange(train_end - 1, test_start - horizon),
        "test": np.arange(test_start - 1, steps - horizon),
    }
    for name, at in parts.items():
        if not len(at):
            raise InputError(
                f"{steps} rows give no {name} window of {context} + {horizon} rows; give a longer table or a shorter --horizons"
            )
    return parts


def build(config: Config, horizon: int, seed: int) -> keras.Model:
    """One series' context (B, C) to its next values (B, H), all of them less the last one known; zero before training."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((config.context,))
    patches = layers.Reshape((config.context // config.patch, config.patch))(inputs)
    token = encoder(
        patches,
        1,
        width=config.width,
        blocks=config.blocks,
        heads=config.heads,
        key=config.key,
        feed_forward=0,
        norm="pre",
        dropout=config.dropout,
    )
    return keras.Model(
        inputs,
        layers.Dense(horizon, kernel_initializer="zeros", name="head")(layers.Flatten()(token)),
    )


def apart(
    values: np.ndarray, at: np.ndarray, context: int, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Contexts (N S, C) and targets (N S, H) of each series on its own, less its last known value, float32."""
    seen, ahead = past(values, at, context), future(values, at, horizon)
    last = seen[:, -1:]
    return tuple(
        (part - last).transpose(0, 2, 1).reshape(-1, part.shape[1]).astype(np.float32)
        for part in (seen, ahead)
    )


def train(
    config: Config,
    run: Run,
    values: np.ndarray,
    parts: dict[str, np.ndarray],
    horizon: int,
    seed: int,
) -> dict[str, Any]:
    """One network, of the pass that was best on validation; its forecasts of the validation and of the test part less the last
    value (N S, H)."""
    start, name = time.perf_counter(), f"{horizon}-{seed}"
    model = build(config, horizon, seed)
    optimiser = keras.optimizers.AdamW(
        config.lr, weight_decay=config.weight_decay, global_clipnorm=1.0
    )
    inputs, targets = apart(values, parts["train"], config.context, horizon)
    seen, ahead = apart(values, parts["validation"], config.context, horizon)

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        optimiser.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    best, weights = float(np.mean(ahead**2)), model.get_weights()
    run.log(0, 0, "validation", **{f"mse_{name}": best})
    with run.stoppable(lambda: None) as stop_here:
        for epoch in progress(range(1, config.epochs + 1), f"horizon {horizon}, seed {seed}"):
            order = np.random.default_rng((seed, epoch)).permutation(len(inputs))
            for place in range(len(order) // config.batch):
                at = order[place * config.batch : (place + 1) * config.batch]
                stop_here(place, float(step(inputs[at], targets[at])))
            mse = float(np.mean((model.predict(seen, 1024, verbose=0) - ahead) ** 2))
            run.log(epoch, epoch, "validation", **{f"mse_{name}": mse})
            if mse < best:
                best, weights = mse, model.get_weights()
    model.set_weights(weights)
    told = {
        part: model.predict(apart(values, parts[part], config.context, horizon)[0], 1024, verbose=0)
        for part in ("validation", "test")
    }
    return told | {"params": model.count_params(), "seconds": time.perf_counter() - start}


def allowed(forecast: np.ndarray, actual: np.ndarray, still: np.ndarray, horizon: int) -> bool:
    """Whether forecasts (N, H, S) of the validation part beat no change there, by Diebold-Mariano at 5 %: its windows overlap
    almost wholly, and a smaller error alone says little. Fewer windows than two horizons say nothing."""
    if len(actual) < 2 * horizon:
        return False
    mine, its = (((told - actual) ** 2).mean((1, 2)) for told in (forecast, still))
    statistic, p = diebold_mariano(mine, its, horizon)
    return statistic < 0 and p < 0.05


def main(config: Config) -> dict[str, Any]:
    path = config.data or data_folder() / "exchange_rate_lai2017.txt.gz"
    if not path.exists():
        raise InputError(
            f"{path} is not there; get exchange_rate.txt.gz from github.com/laiguokun/multivariate-time-series-data and name it with --data"
        )
    if config.patch < 1 or config.context % config.patch:
        raise InputError(f"--patch {config.patch} does not divide --context {config.context}")
    rates = load(path)
    parts = {horizon: parts_of(len(rates), config.context, horizon) for horizon in config.horizons}
    known = rates[: int(len(rates) * 0.7)]
    values = (rates - known.mean(0)) / np.maximum(known.std(0), 1e-12)
    with Run(
        config,
        config.out or HERE / "results" / "exchange" / config.preset,
        __file__,
        "exchange",
        {"path": path.name, "sha256": sha256(path), "rows": len(rates)},
    ) as run:
        table: list[dict[str, Any]] = []
        for horizon, part in parts.items():
            seen, ahead = (
                {name: cut(values, at, length) for name, at in part.items()}
                for cut, length in ((past, config.context), (future, horizon))
            )
            done = [
                run.memo(
                    f"{horizon}-{seed}", partial(train, config, run, values, part, horizon, seed)
                )
                for seed in range(config.seeds)
            ]
            told = {
                name: [
                    one[name].reshape(len(ahead[name]), -1, horizon).transpose(0, 2, 1)
                    + seen[name][:, -1:]
                    for one in done
                ]
                for name in ("validation", "test")
            }
            still = {name: no_change(seen[name], horizon) for name in told}
            better = allowed(
                np.mean(told["validation"], 0), ahead["validation"], still["validation"], horizon
            )
            run.note(**{f"better_on_validation_{horizon}": better})
            ridge = RidgeWindow(log=False).fit(
                seen["train"], ahead["train"], seen["validation"], ahead["validation"]
            )
            mean = np.mean(told["test"], 0)
            cases = [
                ("no change", "last rate", [still["test"]]),
                ("NLinear", "ridge, one a series", [ridge.predict(seen["test"])]),
                ("Transformer", "as trained", told["test"]),
                ("Transformer", f"mean of {config.seeds} seeds", [mean]),
                (
                    "Transformer",
                    "its mean where validation shows it better, else no change",
                    [mean if better else still["test"]],
                ),
            ]
            for model, variant, forecasts in cases:
                facts = (
                    {
                        "params": done[0]["params"],
                        "seconds": round(float(np.mean([one["seconds"] for one in done])), 1),
                        "peak_mb": peak_mb(),
                    }
                    if model == "Transformer"
                    else {}
                )
                for metric, power in (("mse", 2), ("mae", 1)):
                    scores = [
                        float((np.abs(forecast - ahead["test"]) ** power).mean())
                        for forecast in forecasts
                    ]
                    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
                    table.append(
                        {
                            "protocol": "held-out",
                            "split": "test",
                            "model": model,
                            "variant": variant,
                            "metric": metric,
                            "value": float(np.mean(scores)),
                            "std": deviation,
                            "n_seeds": len(scores),
                            "horizon": horizon,
                            **facts,
                        }
                    )
        results = run.finish(table, INFO)
    print(f"{'horizon':>8} {'model':14}{'variant':60}{'MSE':>9}")
    for row in results["rows"]:
        if row["metric"] == "mse":
            print(f"{row['horizon']:8} {row['model']:14}{row['variant']:60}{row['value']:9.4f}")
    return results


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
