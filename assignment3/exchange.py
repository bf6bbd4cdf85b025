"""Assignment 3's encoder on the exchange-rate benchmark: 8 daily rates against USD.

Data of Lai et al. 2018, protocol of Zeng et al. 2023: 96 days forecast the next 96, 192, 336 or
720; the score is the mean squared error of z-scored rates over every window whose targets lie in
the last 20 % (none is dropped). `python assignment3/exchange.py --preset full` takes about 20
minutes on two CPU cores. Expect the error of no change: the network starts there, and there is
little more to gain. Published for the four horizons (Zeng et al., table 2): no change 0.081, 0.167,
0.305, 0.823; DLinear 0.081, 0.157, 0.305, 0.643; NLinear 0.089, 0.180, 0.331, 1.033.

Shape letters: T days, B batch, N windows, C context, H horizon, S series.
"""

from __future__ import annotations

from assignment3.config import ExchangeConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(ExchangeConfig)

import dataclasses
import time
from pathlib import Path

import numpy as np

from assignment3.backend import keras, layers
from assignment3.devices import choose_strategy
from assignment3.fit import squared_error_step
from assignment3.model import encoder
from assignment3.optimiser import VectorOptimiser
from common.cli import InputError, data_folder
from common.files import sha256
from common.forecasting.baselines import RidgeWindow, no_change
from common.forecasting.metrics import diebold_mariano
from common.forecasting.windows import Parts, future, past
from common.machine import peak_mb
from common.results import Metric, Results, Row, mean_and_std, print_table
from common.run import Run, progress

HERE = Path(__file__).resolve().parent
TRAIN_SHARE = 0.7  # of the rows, from the first one
TEST_SHARE = 0.2  # of the rows, up to the last one; validation lies between
PREDICT_BATCH = 1024

METRICS_INFO = {
    "mse": Metric(
        "training deviations squared",
        "lower",
        "mean squared error of z-scored rates over all windows, steps and series; "
        "0: every rate right; compare with no change",
    ),
    "mae": Metric(
        "training deviations",
        "lower",
        "mean absolute error of z-scored rates over all windows, steps and series; "
        "0: every rate right; compare with no change",
    ),
}


# --------------------------------------------------------------------------------------- data


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Z-scored rates and the windows of one horizon; a window is named by its last known row."""

    values: np.ndarray  # (T, S)
    parts: Parts
    context: int
    horizon: int

    def past(self, origins: np.ndarray) -> np.ndarray:
        """Rates (N, C, S) up to and including the origins."""
        return past(self.values, origins, self.context)

    def future(self, origins: np.ndarray) -> np.ndarray:
        """Rates (N, H, S) after the origins."""
        return future(self.values, origins, self.horizon)

    def by_series(self, origins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Contexts (N S, C) and targets (N S, H) of each series, less its last known rate."""
        known = self.past(origins)
        last = known[:, -1:]
        return flattened(known - last), flattened(self.future(origins) - last)

    def rates(self, changes: np.ndarray, origins: np.ndarray) -> np.ndarray:
        """Rates (N, H, S) of changes (N S, H) from the last known rate."""
        by_window = changes.reshape(len(origins), -1, self.horizon).transpose(0, 2, 1)
        return by_window + self.past(origins)[:, -1:]


def flattened(windows: np.ndarray) -> np.ndarray:
    """Windows (N, ., S) as rows of one series each (N S, .), float32."""
    return windows.transpose(0, 2, 1).reshape(-1, windows.shape[1]).astype(np.float32)


def exchange_file(given: Path | None) -> Path:
    """The benchmark's file: the given one, else that in the data folder.

    Raises InputError where there is none.
    """
    path = given or data_folder() / "exchange_rate_lai2017.txt.gz"
    if not path.exists():
        raise InputError(
            f"{path} does not exist; get exchange_rate.txt.gz from "
            "github.com/laiguokun/multivariate-time-series-data and name it with --data"
        )
    return path


def load(path: Path) -> np.ndarray:
    """Rates (T, S) of a text table without a header. Raises InputError for any other file."""
    try:
        rates = np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8")
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(
            f"{path}: a table of rates, comma separated and without a header, is needed ({reason})"
        ) from None
    bad = np.argwhere(~np.isfinite(rates))
    if len(bad):
        raise InputError(
            f"{path}: row {bad[0, 0] + 1} holds a value that is not finite; every rate is needed"
        )
    return rates


def split_by_share(steps: int, context: int, horizon: int) -> Parts:
    """Origins of each part: 70 %, 10 % and 20 % of the rows.

    Contexts may reach back into the part before, targets may not. Raises InputError for a part
    without a window.
    """
    train_end = int(steps * TRAIN_SHARE)
    test_start = steps - int(steps * TEST_SHARE)
    parts = Parts(
        train=np.arange(context - 1, train_end - horizon),
        validation=np.arange(train_end - 1, test_start - horizon),
        test=np.arange(test_start - 1, steps - horizon),
        train_end=train_end,
    )
    for name, origins in parts.named().items():
        if not len(origins):
            raise InputError(
                f"{steps} rows give no {name} window of {context} + {horizon} rows; "
                "give a longer table or a shorter --horizons"
            )
    return parts


def z_scored(rates: np.ndarray) -> np.ndarray:
    """Rates (T, S) less the mean of the training part, over its deviation."""
    train = rates[: int(len(rates) * TRAIN_SHARE)]
    return (rates - train.mean(0)) / np.maximum(train.std(0), 1e-12)


# ----------------------------------------------------------------------------------- training


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network's forecasts, as changes (N S, H) from the last known rate."""

    validation: np.ndarray
    test: np.ndarray
    params: int
    seconds: float


def build(config: ExchangeConfig, horizon: int, seed: int) -> keras.Model:
    """One series' context (B, C) to its next values (B, H), both less its last known value.

    Before training the network forecasts zero: no change.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((config.context,))
    patches = layers.Reshape((config.context // config.patch, config.patch))(inputs)
    token = encoder(patches, 1, config.encoder)  # (B, 1, width)
    head = layers.Dense(horizon, kernel_initializer="zeros", name="head")
    return keras.Model(inputs, head(layers.Flatten()(token)))


def train(config: ExchangeConfig, run: Run, benchmark: Benchmark, seed: int) -> Trained:
    """Trains one network and forecasts with the epoch that was best on validation."""
    start = time.perf_counter()
    horizon = benchmark.horizon
    name = f"mse_{horizon}-{seed}"
    contexts, targets = benchmark.by_series(benchmark.parts.train)
    known, truth = benchmark.by_series(benchmark.parts.validation)

    # Model and optimiser:
    model = build(config, horizon, seed)
    optimiser = keras.optimizers.AdamW(
        config.lr, weight_decay=config.weight_decay, global_clipnorm=config.clip_norm
    )
    step = squared_error_step(model, VectorOptimiser(optimiser, model.trainable_variables))

    # The untrained network, which is no change, is the first candidate:
    best = float(np.mean(truth**2))
    weights = model.get_weights()
    run.log(0, 0, "validation", **{name: best})
    epochs = range(1, config.epochs + 1)
    with run.stoppable(lambda: None) as check:
        for epoch in progress(epochs, f"horizon {horizon}, seed {seed}"):
            order = np.random.default_rng((seed, epoch)).permutation(len(contexts))
            for batch in range(len(order) // config.batch):
                rows = order[batch * config.batch : (batch + 1) * config.batch]
                check(batch, float(step(contexts[rows], targets[rows])))

            prediction = model.predict(known, PREDICT_BATCH, verbose=0)
            mse = float(np.mean((prediction - truth) ** 2))
            run.log(epoch, epoch, "validation", **{name: mse})
            if mse < best:
                best = mse
                weights = model.get_weights()

    # Forecasts of the best epoch:
    model.set_weights(weights)
    test, _ = benchmark.by_series(benchmark.parts.test)
    return Trained(
        model.predict(known, PREDICT_BATCH, verbose=0),
        model.predict(test, PREDICT_BATCH, verbose=0),
        model.count_params(),
        time.perf_counter() - start,
    )


# --------------------------------------------------------------------------------- evaluation


def beats_no_change(
    forecast: np.ndarray, actual: np.ndarray, unchanged: np.ndarray, significance: float
) -> bool:
    """Whether forecasts (N, H, S) of the validation part beat no change by Diebold-Mariano's test.

    A smaller error alone says little, because the windows overlap almost wholly; fewer windows
    than two horizons say nothing.
    """
    count, horizon, _ = actual.shape
    if count < 2 * horizon:
        return False
    loss = ((forecast - actual) ** 2).mean((1, 2))  # (N,)
    reference = ((unchanged - actual) ** 2).mean((1, 2))
    statistic, p = diebold_mariano(loss, reference, horizon)
    return statistic < 0 and p < significance


@dataclasses.dataclass(frozen=True)
class Cost:
    """Weights, seconds of one training and largest memory of a network; None for a baseline."""

    params: int | None = None
    seconds: float | None = None
    peak_mb: float | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the benchmark's table: forecasts (N, H, S), one per seed."""

    model: str
    variant: str
    forecasts: list[np.ndarray]
    cost: Cost = Cost()


def rows_of(line: Entry, actual: np.ndarray, horizon: int) -> list[Row]:
    """Mean squared and mean absolute error against the actual rates (N, H, S)."""
    rows = []
    for metric, power in (("mse", 2), ("mae", 1)):
        scores = [float((np.abs(each - actual) ** power).mean()) for each in line.forecasts]
        value, std = mean_and_std(scores)
        row = Row(
            protocol="held-out",
            split="test",
            model=line.model,
            variant=line.variant,
            metric=metric,
            value=value,
            std=std,
            n_seeds=len(scores),
            horizon=horizon,
            params=line.cost.params,
            seconds=line.cost.seconds,
            peak_mb=line.cost.peak_mb,
        )
        rows.append(row)
    return rows


def score(config: ExchangeConfig, run: Run, benchmark: Benchmark) -> list[Row]:
    """Trains every network of one horizon and scores them and their baselines on the test part."""
    parts = benchmark.parts
    horizon = benchmark.horizon
    trained = [
        run.memo(f"{horizon}-{seed}", train, config, run, benchmark, seed)
        for seed in range(config.seeds)
    ]

    # Validation decides whether the mean of the networks is used at all:
    validation = [benchmark.rates(each.validation, parts.validation) for each in trained]
    better = beats_no_change(
        np.mean(validation, 0),
        benchmark.future(parts.validation),
        no_change(benchmark.past(parts.validation), horizon),
        config.significance,
    )
    run.note(**{f"better_on_validation_{horizon}": better})

    # Baselines and networks on the test part:
    known = benchmark.past(parts.test)
    unchanged = no_change(known, horizon)
    ridge = RidgeWindow(log=False).fit(
        benchmark.past(parts.train),
        benchmark.future(parts.train),
        benchmark.past(parts.validation),
        benchmark.future(parts.validation),
    )
    networks = [benchmark.rates(each.test, parts.test) for each in trained]
    mean = np.mean(networks, 0)
    seconds = float(np.mean([each.seconds for each in trained]))
    cost = Cost(trained[0].params, round(seconds, 1), peak_mb())
    chosen = mean if better else unchanged
    rule = "its mean where validation shows it better, else no change"
    lines = [
        Entry("no change", "last rate", [unchanged]),
        Entry("NLinear", "ridge, one a series", [ridge.predict(known)]),
        Entry("Transformer", "as trained", networks, cost),
        Entry("Transformer", f"mean of {config.seeds} seeds", [mean], cost),
        Entry("Transformer", rule, [chosen], cost),
    ]
    actual = benchmark.future(parts.test)
    return [row for line in lines for row in rows_of(line, actual, horizon)]


def main(config: ExchangeConfig) -> Results:
    choose_strategy(config.device)

    # Data: checked before anything is written
    path = exchange_file(config.data)
    rates = load(path)
    values = z_scored(rates)
    benchmarks = []
    for horizon in config.horizons:
        parts = split_by_share(len(rates), config.context, horizon)
        benchmarks.append(Benchmark(values, parts, config.context, horizon))

    # One benchmark per horizon: train, choose on validation, score on the test part
    folder = config.out or HERE / "results" / "exchange" / config.preset
    provenance = {"path": path.name, "sha256": sha256(path), "rows": len(rates)}
    with Run(config, folder, __file__, "exchange", provenance) as run:
        rows = []
        for benchmark in benchmarks:
            rows += score(config, run, benchmark)
        results = run.finish(rows, METRICS_INFO)
    print_table(results["rows"], {"mse": "MSE"}, index=("horizon", "model", "variant"))
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
