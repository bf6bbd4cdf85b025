"""Assignment 4: the coins' Transformer goes to currencies and oil, as a whole or by LoRA.

Hu et al. 2021: an affine map h = x W + b of the pretrained network becomes
h = x W + b + s (x A) B with A and B alone trained. `python assignment4/train.py` adapts the newest
run of assignment 3 to the currencies that it finds or simulates. `--preset full` trains some 160
networks in an hour on one CPU core; on real rates expect a CRPS 1.3 % below a random walk with
rolling residuals for the strategy that validation chooses (DoRA of rank 8), 1.1 % without
adaptation, 1.35 % for the log-HAR-t that all start from, and a point forecast no better than no
change.

Shape letters: C context, H horizon, S series, E epochs that are reported.
"""

from __future__ import annotations

from assignment4.config import FEW_PASSES, Config
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(Config)

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from assignment3.backend import keras
from assignment3.devices import choose_strategy, devices_of
from assignment3.fit import squared_error_step
from assignment3.model import course_transformer, load_model
from assignment3.optimiser import VectorOptimiser
from assignment4.adaptation import Adaptation
from assignment4.artifacts import SCALES, Scales, adapter_name
from assignment4.comparisons import HOLM_INFO, holm_rows, pairs
from assignment4.costs import COSTS, cost_rows
from assignment4.figures import draw_figures
from assignment4.forgetting import FORGETTING, Coins, forgetting_rows
from assignment4.jobs import CONVERGENCE, WHOLE, Job, Passes
from assignment4.pretrained import COURSE_FILE, PRETRAINED, Base, adapt_by, trained_weights
from assignment4.sequence import adapt_in_sequence
from assignment4.slots import filled, slot_series
from assignment4.strategies import (
    FULL,
    NO_ADAPTATION,
    Strategy,
    course_strategies,
    lora,
    main_strategies,
    saved_strategies,
)
from common.cli import InputError
from common.files import JsonObject, write_arrays
from common.forecasting.assigned import CourseForecast, CourseWindow, assigned_rows, course_arrays
from common.forecasting.baselines import fit_baselines
from common.forecasting.ensemble import ModelGroup, held_out_rows
from common.forecasting.figures import fan_arrays
from common.forecasting.metrics import metrics_info
from common.forecasting.prices import CURRENCIES, Prices, check_positive, load_for
from common.forecasting.scripts import print_results
from common.forecasting.windows import MinMax, Windows, split
from common.results import Results, Row, print_table
from common.run import Run, SavedRun, progress

HERE = Path(__file__).resolve().parent


# -------------------------------------------------------------------------------- as assigned


@dataclasses.dataclass(frozen=True)
class CourseTask:
    """The course's window in units of its context's MinMax, and the context after it."""

    context: np.ndarray  # (1, C, S)
    target: np.ndarray  # (1, H, S)
    later: np.ndarray  # (1, C, S)


@dataclasses.dataclass(frozen=True)
class CourseTuned:
    """Forecasts of one strategy after each reported epoch, in the units of its task."""

    target: np.ndarray  # (E, H, S)
    next_steps: np.ndarray  # (E, H, S)
    params: int


def reported_epochs(config: Config, strategy: Strategy) -> tuple[int, ...]:
    """The epochs after which a strategy of the course forecasts."""
    return (config.assigned_epochs,) if strategy.kind == "scratch" else FEW_PASSES


def tune_course_network(
    config: Config, run: Run, task: CourseTask, base: Path, strategy: Strategy
) -> CourseTuned:
    """Trains the course's network on one window: from scratch, or that of the coins' window."""
    model = load_model(base / COURSE_FILE)
    if strategy.kind == "scratch":
        keras.utils.set_random_seed(config.seed)
        _, context, series = task.context.shape
        blocks = sum(layer.name.startswith("attention_") for layer in model.layers)
        model = course_transformer(series, context, task.target.shape[1], blocks)
    adapter = adapt_by(model, strategy, config.seed)  # LoRA: h = x W + b + s (x A) B
    optimiser = keras.optimizers.Adam(config.assigned_lr)
    step = squared_error_step(model, VectorOptimiser(optimiser, model.trainable_variables))

    reported = reported_epochs(config, strategy)
    target = []
    next_steps = []
    with run.stoppable(lambda: None) as check:
        for epoch in progress(range(1, reported[-1] + 1), f"as assigned, {strategy.label}"):
            loss = float(step(task.context, task.target))
            run.log(epoch, epoch, "train", **{f"assigned {strategy.label}": loss})
            check(epoch, loss)
            if epoch in reported:
                target.append(np.asarray(model(task.context))[0])
                next_steps.append(np.asarray(model(task.later))[0])

    params = adapter.count() if adapter else trained_weights(model)
    return CourseTuned(np.stack(target), np.stack(next_steps), params)


def as_assigned(config: Config, run: Run, prices: Prices, base: Base) -> CourseWindow:
    """The course's experiment: one window of the target, MinMax; from scratch for many epochs, and
    the network of the coins' window tuned for one and two."""
    horizon = base.network.horizon
    slots = slot_series(len(prices.series), base.slots)
    values = prices.values[-config.assigned_steps - horizon :, slots]
    seen = values[:-horizon]
    later = values[horizon:-horizon]  # (C, S): the context of the steps after the window

    # each window is scaled by its own context
    scaler = MinMax.fit(seen[:-horizon])
    later_scaler = MinMax.fit(later)
    task = CourseTask(
        scaler.transform(seen[:-horizon])[None].astype(np.float32),
        scaler.transform(seen[-horizon:])[None].astype(np.float32),
        later_scaler.transform(later[None]).astype(np.float32),
    )

    forecasts = []
    for strategy in course_strategies(config.assigned_ranks):
        name = f"assigned-{Job(strategy, config.seed, config.assigned_lr).name}"
        tuned = run.memo(name, tune_course_network, config, run, task, base.folder, strategy)
        for number, epoch in enumerate(reported_epochs(config, strategy)):
            model = f"{strategy.label}, {Passes(epoch).label}"
            fitted = scaler.inverse(tuned.target[number].astype(np.float64))
            following = later_scaler.inverse(tuned.next_steps[number].astype(np.float64))
            forecasts += [
                CourseForecast(model, "", "trained", fitted, tuned.params),
                CourseForecast(model, "", "next", following, tuned.params),
            ]
    series = len(prices.series)
    own = [replace(each, values=each.values[:, :series]) for each in forecasts]
    return CourseWindow(seen[:, :series], values[-horizon:, :series], own)


# ----------------------------------------------------------------------------------- held out


@dataclasses.dataclass(frozen=True)
class Transfer:
    """The pretrained networks, the windows that they are adapted to, and those they come from."""

    base: Base
    target: Windows
    coins: Coins

    @property
    def training(self) -> Windows:
        """The target's windows with a column for every slot of the networks."""
        return replace(self.target, prices=filled(self.target.prices, self.base.slots))

    @property
    def provenance(self) -> JsonObject:
        """Where the target's prices and the networks come from."""
        digests = [digest[:16] for digest in self.base.digests]
        return self.target.prices.provenance | {"base": [self.base.folder.name, *digests]}


def load_transfer(config: Config) -> Transfer:
    """Reads prices and base. Raises InputError where they do not fit each other or the options."""
    prices = load_for(config, CURRENCIES)
    log = config.normalisation == "log"
    if log:
        check_positive(prices, "--normalisation log needs prices above zero; minmax takes any")
    folder = config.base or SavedRun.open(None, PRETRAINED).folder
    base = Base.open(folder, config.normalisation, len(prices.series), config.seeds)
    context = base.network.context
    horizon = base.network.horizon
    held_out = (config.test_steps, config.validation_steps)
    parts = split(prices.contiguous(), context, horizon, *held_out, context_is_given=True)
    check_weeks(config.weeks, prices.times[parts.train])
    return Transfer(base, Windows(prices, parts, context, horizon, log), Coins.of(folder))


def check_weeks(weeks: Sequence[float], times: np.ndarray) -> None:
    """Raises InputError for more weeks than training origins at times datetime64 (N,) span."""
    span = float((times[-1] - times[0]) / np.timedelta64(7, "D"))
    for wanted in weeks:
        if wanted > span:
            raise InputError(
                f"--weeks {wanted:g}: the training part has {span:.1f} weeks; take fewer"
            )


def choose_rates(config: Config, adaptation: Adaptation) -> dict[Strategy, float]:
    """The learning rate of each strategy: of its candidates the one with the best validation CRPS,
    mean over the seeds.

    Candidates are trained for --rate-epochs. Some LoRAs have the rate that LoRA at --rank chose.
    """
    epochs = config.rate_epochs or None
    chosen: dict[Strategy, float] = {}
    for strategy in dict.fromkeys(config.chooses_for(each) for each in config.compared()):
        candidates = config.candidate_rates(strategy)
        if len(candidates) == 1 or strategy == NO_ADAPTATION:
            chosen[strategy] = candidates[0]
            continue
        tries = {
            lr: adaptation.train_seeds(Job(strategy, 0, lr, epochs=epochs)) for lr in candidates
        }
        crps = {lr: np.mean([each.crps for each in networks]) for lr, networks in tries.items()}
        chosen[strategy] = min(candidates, key=crps.__getitem__)
    return {strategy: chosen[config.chooses_for(strategy)] for strategy in config.compared()}


def train_briefly(
    config: Config, adaptation: Adaptation, best: dict[Strategy, Job]
) -> tuple[list[ModelGroup], list[ModelGroup]]:
    """The models of few passes over the training part, and those of small parts of it."""
    three = main_strategies(config.rank)
    unadapted = (NO_ADAPTATION,) if config.start == "base" else ()  # its start knows the base
    few = [
        adaptation.group(replace(best[strategy], epochs=epochs))
        for epochs in config.passes
        for strategy in three[1:]
    ]
    less = [
        adaptation.group(replace(best[strategy], amount=amount))
        for amount in config.amounts
        for strategy in (*three, *unadapted)
    ]
    return few, less


def forgotten(
    config: Config, adaptation: Adaptation, best: dict[Strategy, Job], transfer: Transfer
) -> list[Row]:
    """What the coins lose by every strategy, and by two of them along a sequence of targets."""
    adapted = {job: adaptation.train_seeds(job) for job in best.values()}
    if config.sequence:
        for strategy in (FULL, lora(config.rank)):
            adapted |= adapt_in_sequence(adaptation, best[strategy], transfer.target.prices)
    return forgetting_rows(transfer.coins.windows, transfer.base, adapted)


def save_adapters(
    config: Config, adaptation: Adaptation, best: dict[Strategy, Job], series: Sequence[str]
) -> None:
    """Saves every adapter of the plain LoRA at two ranks, and the scales that they need."""
    adapters = {
        adapter_name(strategy, seed): adapted
        for strategy in saved_strategies(config.ranks, config.rank)
        for seed, adapted in enumerate(adaptation.train_seeds(best[strategy]))
    }
    folder = adaptation.run.folder
    for name, adapted in adapters.items():
        adapted.adapter_file.save(folder / f"adapter.{name}.safetensors")
    shrink = {name: adapted.shrink for name, adapted in adapters.items()}
    scales = Scales.of(
        adaptation.base, series, config.normalisation, adaptation.fitted_arrays(), shrink
    )
    scales.save(folder / SCALES)


def print_choice(results: Results, untrained: dict[str, int], seeds: int) -> None:
    """Prints the strategies in the order of their validation score, and which stayed untrained."""
    ratios = [
        row
        for row in results["rows"]
        if row["metric"] == "crps_ratio"
        and row["variant"] == CONVERGENCE
        and row["series"] is row["horizon"] is None
    ]
    ratios.sort(key=lambda row: (row["split"] != "validation", row["value"]))
    print_table(
        ratios,
        {"validation": "validation", "test": "test"},
        across="split",
        index=("model",),
        title="CRPS ratio of single networks; validation chose the first strategy",
    )
    for label, count in untrained.items():
        if count:
            print(
                f"{label}: {count} of {seeds} networks are as before training, "
                "which never improved their validation CRPS"
            )


def main(config: Config) -> Results:
    # Devices, data and base: checked before anything is written
    strategy = choose_strategy(config.device)
    transfer = load_transfer(config)
    config = config.fitting(transfer.base.widest)
    windows = transfer.target
    prices, parts = windows.prices, windows.parts

    folder = config.out or HERE / "results" / f"{prices.source}-{config.preset}"
    with Run(config, folder, __file__, prices.source, transfer.provenance) as run:
        sizes = {
            amount.label: len(amount.of(parts.train, prices.times, config.batch))
            for amount in (*config.amounts, WHOLE)
        }
        run.note(parts=parts.dates(prices.times), coins=transfer.coins.origin, windows=sizes)
        run.note(tensorflow=devices_of(strategy))
        print(windows.sizes(), flush=True)

        # As the course had it: one window
        course = as_assigned(config, run, prices, transfer.base)

        # Every strategy to convergence, each with its own learning rate
        adaptation = Adaptation(config, run, transfer.training, transfer.base, strategy)
        rates = choose_rates(config, adaptation)
        run.note(learning_rates={strategy.label: rate for strategy, rate in rates.items()})
        best = {strategy: Job(strategy, 0, rate) for strategy, rate in rates.items()}
        three = main_strategies(config.rank)
        whole = [adaptation.group(job, brief=job.strategy not in three) for job in best.values()]

        # Few passes over the data, and less data
        few, less = train_briefly(config, adaptation, best)

        # Adapters, and how many networks are best as they were before training
        save_adapters(config, adaptation, best, prices.series)
        untrained = adaptation.untrained(best.values())
        run.note(untrained=untrained)

        # Evaluation: the test part is read once
        fitted = fit_baselines(windows)
        on_validation = pairs(whole, [], config.rank)
        validation = held_out_rows(
            windows, whole, parts.validation, "validation", fitted, on_validation
        )
        every = [*whole, *few, *less]
        on_test = pairs(whole, less, config.rank)
        test = held_out_rows(windows, every, parts.test, "test", fitted, on_test)
        beside = forgotten(config, adaptation, best, transfer)
        beside += cost_rows(adaptation, list(best.values()))

        # Record
        headline = test.ensembles[lora(config.rank).label, CONVERGENCE]
        arrays = fan_arrays(windows, headline) | adaptation.singular_values(best.values())
        write_arrays(folder / "predictions.npz", **arrays, **course_arrays(course))
        held_out = [*validation.rows, *test.rows, *holm_rows(test.rows)]
        rows = [*assigned_rows(course), *held_out, *beside]
        info = metrics_info(windows.log) | FORGETTING | COSTS | HOLM_INFO
        results = run.finish(rows, info, draw_figures, HERE / "report.typ")
    print_results(results, folder)
    print_choice(results, untrained, config.seeds)
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
