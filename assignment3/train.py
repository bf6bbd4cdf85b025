"""Assignment 3: a Transformer encoder in TensorFlow on hourly prices of seven coins.

Vaswani et al. 2017, behind two normalisations. `python assignment3/train.py` trains on prices it
finds, else on the built-in sample. On real coins (`--preset full`, about an hour on two CPU cores)
expect a CRPS 2.8 % below a random walk with rolling residuals on the logarithm and 2.7 % behind
MinMax, 0.4 and 0.2 % below the log-HAR-t that the networks start from, and a point forecast that is
no better than no change.

Shape letters: T steps of the course's window, C context, H horizon, S series.
"""

from __future__ import annotations

from assignment3.config import Config
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(Config)

import dataclasses
import functools
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from assignment2.model import save_forecasters, seq2seq_group
from assignment2.train import (
    CourseTask,
    seq2seq_forecasts,
    train_course_seq2seq,
    train_forecasters,
    trained_forecaster,
)
from assignment3.backend import keras, tf
from assignment3.config import NORMALISATIONS, Normalisation
from assignment3.devices import choose_strategy, devices_of
from assignment3.figures import draw_figures
from assignment3.fit import fit, squared_error_step
from assignment3.model import (
    Forecaster,
    attention_maps,
    average_group,
    course_transformer,
    save_model,
    transformer_group,
)
from assignment3.optimiser import VectorOptimiser
from common.files import write_arrays
from common.forecasting.assigned import CourseForecast, CourseWindow, assigned_rows, course_arrays
from common.forecasting.baselines import LOG_HAR, fit_baselines
from common.forecasting.ensemble import ModelGroup, Pair, held_out_rows
from common.forecasting.figures import fan_arrays
from common.forecasting.metrics import metrics_info
from common.forecasting.prices import COINS, Prices, check_positive, load_for
from common.forecasting.scripts import print_results
from common.forecasting.volatility import LogHar, fit_log_har
from common.forecasting.windows import MinMax, Windows, split
from common.machine import choose_device
from common.results import Results
from common.run import Run, progress
from common.shard import Shard

HERE = Path(__file__).resolve().parent


# -------------------------------------------------------------------------------- as assigned


@dataclasses.dataclass(frozen=True)
class CourseUnits:
    """The units of one window of the course: log prices, or prices over its context's MinMax."""

    normalisation: Normalisation
    scaler: MinMax

    @classmethod
    def of(cls, context: np.ndarray, normalisation: Normalisation) -> CourseUnits:
        """The units of a window with the context (C, S)."""
        return cls(normalisation, MinMax.fit(context))

    def scaled(self, prices: np.ndarray) -> np.ndarray:
        """Prices (., S) in these units."""
        return np.log(prices) if self.normalisation == "log" else self.scaler.transform(prices)

    def prices(self, scaled: np.ndarray) -> np.ndarray:
        """Prices (., S) from these units."""
        return np.exp(scaled) if self.normalisation == "log" else self.scaler.inverse(scaled)


@dataclasses.dataclass(frozen=True)
class CourseTransformer:
    """The course's trained Transformer and its forecasts (H, S), in the units of its task."""

    weights: list[np.ndarray]
    target: np.ndarray
    next_steps: np.ndarray
    params: int


@dataclasses.dataclass(frozen=True)
class AsAssigned:
    """The course's experiment: its window with every forecast, and its Transformers."""

    window: CourseWindow
    transformers: dict[Normalisation, CourseTransformer]


def train_course_transformer(
    config: Config, run: Run, task: CourseTask, normalisation: Normalisation
) -> CourseTransformer:
    """Trains the course's Transformer on one window."""
    keras.utils.set_random_seed(config.seed)
    _, context, series = task.context.shape
    model = course_transformer(series, context, config.horizon, config.assigned_blocks)
    optimiser = keras.optimizers.Adam(config.assigned_lr)
    step = squared_error_step(model, VectorOptimiser(optimiser, model.trainable_variables))

    epochs = range(1, config.assigned_epochs + 1)
    with run.stoppable(lambda: None) as check:
        for epoch in progress(epochs, f"as assigned, {NORMALISATIONS[normalisation]}"):
            loss = float(step(task.context, task.target))
            run.log(epoch, epoch, "train", **{f"assigned_{normalisation}": loss})
            check(epoch, loss)

    return CourseTransformer(
        model.get_weights(),
        np.asarray(model(task.context))[0].astype(np.float64),
        np.asarray(model(task.later))[0].astype(np.float64),
        model.count_params(),
    )


def as_assigned(config: Config, run: Run, prices: Prices, device: str) -> AsAssigned:
    """The course's experiment: one window, trained and scored on it, behind both normalisations.

    The Transformer, and the Seq2Seq teacher forced; then the Seq2Seq without the truth, and both
    on the steps after the window.
    """
    horizon = config.horizon
    values = prices.values[-config.assigned_steps - horizon :]
    seen = values[:-horizon]  # (T, S)
    later = values[horizon:-horizon]  # (C, S): the context of the steps after the window
    forecasts = []
    transformers = {}
    for normalisation, label in NORMALISATIONS.items():
        # Each window is scaled by its own context:
        units = CourseUnits.of(seen[:-horizon], normalisation)
        later_units = CourseUnits.of(later, normalisation)
        task = CourseTask(
            units.scaled(seen[:-horizon])[None].astype(np.float32),  # (1, C, S)
            units.scaled(seen[-horizon:])[None].astype(np.float32),  # (1, H, S)
            later_units.scaled(later)[None].astype(np.float32),  # (1, C, S)
        )

        # Both networks on the same window:
        transformer = run.memo(
            f"assigned-{normalisation}",
            train_course_transformer,
            config,
            run,
            task,
            normalisation,
        )
        metric = f"assigned_seq2seq_{normalisation}"
        seq2seq = run.memo(
            f"assigned-seq2seq-{normalisation}",
            train_course_seq2seq,
            config.course_seq2seq,
            run,
            task,
            device,
            metric,
        )

        # Their forecasts in prices:
        fitted = units.prices(transformer.target)
        following = later_units.prices(transformer.next_steps)
        params = transformer.params
        forecasts += [
            CourseForecast("Transformer", label, "trained", fitted, params),
            CourseForecast("Transformer", label, "next", following, params),
            *seq2seq_forecasts(seq2seq, units.prices, later_units.prices, f"{label}, "),
        ]
        transformers[normalisation] = transformer
    return AsAssigned(CourseWindow(seen, values[-horizon:], forecasts), transformers)


def save_course_transformer(path: Path, config: Config, weights: list[np.ndarray]) -> None:
    """Saves a Transformer of the course from its weights."""
    series = weights[-1].shape[0]  # the head's bias
    context = config.assigned_steps - config.horizon
    model = course_transformer(series, context, config.horizon, config.assigned_blocks)
    model.set_weights(weights)
    save_model(path, model)


# ----------------------------------------------------------------------------------- held out


@dataclasses.dataclass(frozen=True)
class Trained:
    """The weights of a held-out network and the seconds that its training took."""

    weights: list[np.ndarray]
    seconds: float


def train_transformer(
    config: Config,
    run: Run,
    windows: Windows,
    normalisation: Normalisation,
    seed: int,
    har: LogHar,
) -> Trained:
    """Trains one held-out network, which starts from `har`, stopped on validation."""
    parts = windows.parts
    settings = config.forecaster(windows.prices.series, normalisation)
    forecaster = Forecaster.build(settings, seed)

    # Scales from the training part:
    past, _ = windows.inputs(parts.train)
    forecaster.fit_scales(past, har)

    # The loop with its objective is in fit.py:
    name = f"{normalisation}-{seed}"
    fitted = fit(forecaster, windows, parts.train, run, name, config.recipe(seed))

    # How much of the location a point forecast keeps, from the validation part:
    past, times = windows.inputs(parts.validation)
    changes = forecaster.targets(past, windows.future(parts.validation))
    forecaster.fit_shrink(past, times, changes)
    return Trained(forecaster.model.get_weights(), fitted.seconds)


def train_transformers(
    config: Config,
    run: Run,
    windows: Windows,
    normalisation: Normalisation,
    har: LogHar,
    strategy: tf.distribute.Strategy,
) -> tuple[list[Forecaster], float]:
    """Trains and saves one held-out network per seed behind one normalisation.

    Returns the networks and the mean seconds of a training.
    """
    settings = config.forecaster(windows.prices.series, normalisation)
    forecasters = []
    seconds = []
    for seed in range(config.seeds):
        trained = trained_transformer(config, run, windows, normalisation, seed, har, strategy)
        forecaster = Forecaster.build(settings, seed)
        forecaster.model.set_weights(trained.weights)
        save_model(run.folder / f"model.{normalisation}-{seed}.keras", forecaster.model)
        forecasters.append(forecaster)
        seconds.append(trained.seconds)
    return forecasters, float(np.mean(seconds))


def trained_transformer(
    config: Config,
    run: Run,
    windows: Windows,
    normalisation: Normalisation,
    seed: int,
    har: LogHar,
    strategy: tf.distribute.Strategy,
) -> Trained:
    """The held-out network of a seed, trained or as the run has stored it."""
    inputs = (config, run, windows, normalisation, seed, har)
    with strategy.scope():
        return run.memo(f"{normalisation}-{seed}", train_transformer, *inputs)


def train_share(
    config: Config, run: Run, windows: Windows, device: str, strategy: tf.distribute.Strategy
) -> None:
    """Trains the networks of the run's shard and leaves them to the whole run."""
    har = fit_log_har(windows)
    trainings: list[Callable[[], object]] = [
        functools.partial(as_assigned, config, run, windows.prices, device)
    ]
    for seed in range(config.seeds):
        trainings += [
            functools.partial(
                trained_transformer, config, run, windows, normalisation, seed, har, strategy
            )
            for normalisation in NORMALISATIONS
        ]
        trainings.append(
            functools.partial(trained_forecaster, config.seq2seq, run, windows, seed, device, har)
        )
    for train in run.shard.share(trainings):
        train()
    print(run.shard.last_words)


def pairs_of(groups: Sequence[ModelGroup]) -> list[Pair]:
    """Every two of the mean forecasts and the log-HAR-t."""
    keys = [*(group.ensemble_key for group in groups), LOG_HAR]
    return [Pair(*two) for two in combinations(keys, 2)]


def main(config: Config) -> Results | None:
    """Trains, evaluates and records; returns what metrics.json holds (None: of a shard)."""
    # Data: checked before anything is written
    prices = load_for(config, COINS)
    check_positive(prices, "the logarithm needs prices above zero")
    parts = split(
        prices.contiguous(),
        config.context,
        config.horizon,
        config.test_steps,
        config.validation_steps,
    )
    windows = Windows(prices, parts, config.context, config.horizon)
    device = choose_device(config.device).name
    strategy = choose_strategy(config.device)
    shard = Shard.of(config.shard)

    folder = config.out or HERE / "results" / f"{prices.source}-{config.preset}"
    with Run(config, folder, __file__, prices.source, prices.provenance, shard=shard) as run:
        run.note(parts=parts.dates(prices.times), device=device, tensorflow=devices_of(strategy))
        print(windows.sizes(), flush=True)
        if not shard.is_whole:
            train_share(config, run, windows, device, strategy)
            return None

        # Models as the course had them; assignment 4 begins with the one behind MinMax:
        course = as_assigned(config, run, prices, device)
        minmax = course.transformers["minmax"]
        save_course_transformer(folder / "model.assigned-minmax.keras", config, minmax.weights)

        # Models on many windows, with every choice made on validation; assignment 2's Seq2Seq
        # has the same windows and as many epochs, and its own settings otherwise:
        har = fit_log_har(windows)
        fitted = fit_baselines(windows, har)
        transformers, log_seconds = train_transformers(config, run, windows, "log", har, strategy)
        scaled, scaled_seconds = train_transformers(config, run, windows, "minmax", har, strategy)
        seq2seqs, seq2seq_seconds = train_forecasters(config.seq2seq, run, windows, device, har)
        save_forecasters(folder / "model.seq2seq.safetensors", seq2seqs, prices.series)

        # Evaluation: the test part is read once
        log = transformer_group(transformers, "log", log_seconds)
        seq2seq = seq2seq_group(seq2seqs, seq2seq_seconds)
        groups = [
            log,
            transformer_group(scaled, "minmax", scaled_seconds),
            seq2seq,
            average_group(seq2seq, log, har),
        ]
        pairs = pairs_of(groups)
        validation = held_out_rows(windows, groups, parts.validation, "validation", fitted, pairs)
        test = held_out_rows(windows, groups, parts.test, "test", fitted, pairs)

        # Record:
        arrays = fan_arrays(windows, test.ensembles.pop(log.key))
        arrays |= attention_maps(windows, transformers[0], arrays["fan_origin"])
        write_arrays(folder / "predictions.npz", **arrays, **course_arrays(course.window))
        rows = [*assigned_rows(course.window), *validation.rows, *test.rows]
        results = run.finish(rows, metrics_info(), draw_figures, HERE / "report.typ")
    print_results(results, folder)
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
