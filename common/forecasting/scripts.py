"""The body of evaluate.py of the forecasting assignments, and what their scripts print.

Shape letters: N origins, C context, H horizon, S series.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from common.cli import InputError
from common.files import JsonObject, read_json
from common.forecasting.baselines import Fitted, fit_baselines
from common.forecasting.config import LEAST_ORIGINS, EvaluateConfig, Reading, moment_of
from common.forecasting.ensemble import KEPT_BYTES, ModelGroup, Sweep, held_out_rows
from common.forecasting.forecasts import write_backtest
from common.forecasting.given import GivenOrigins, GivenWindows, Used
from common.forecasting.history import Prices
from common.forecasting.markets import Market
from common.forecasting.metrics import LEVELS, metrics_info
from common.forecasting.prices import load_prices
from common.forecasting.saved import (
    Load,
    SavedForecasters,
    check_drawable,
    check_step,
    damaged,
    load_saved,
    own_windows,
    prices_of,
)
from common.forecasting.windows import Forecaster, Windows
from common.results import Results, print_table, write_results
from common.run import SavedRun, progress

__all__ = ["evaluate", "prices_of", "print_results"]

GIVEN = "given"  # the split of the rows of a user's prices


@dataclasses.dataclass(frozen=True)
class Scored:
    """What is scored: windows, their origins (N,), and what the file of scores says about them."""

    windows: Windows
    origins: np.ndarray
    split: str
    fitted: Fitted
    about: JsonObject


def evaluate(
    config: EvaluateConfig,
    results: Path,
    market: Market,
    load: Load,
    draw: Callable[[Path], None],
) -> Results:
    """Scores a run's saved models and writes the scores.

    They are scored on the run's own test part, or on the user's prices less those that the models
    were trained or stopped on. Figures are drawn again for the run's own part alone.
    """
    run = SavedRun.open(config.run, results)
    redraws = config.data is None and config.out is None
    if config.out is None and not os.access(run.folder, os.W_OK):
        raise InputError(f"{run.folder} cannot be written; name a file for the scores with --out")
    if redraws:
        check_drawable(run.folder)
    saved = load_saved(run, load)
    if config.data is None:
        scored = own_part(run, saved, saved.market(market))
    else:
        scored = given_part(config, config.data, run, saved, saved.market(market))
    prices = scored.windows.prices
    out = config.out or evaluation_file(run.folder, config.data, prices)

    # Scores; those of new prices have the same rows as a test part under another name:
    shown = [saved.groups[0].key] if config.forecasts is not None else []
    held_out = held_out_rows(
        scored.windows,
        watched(saved, scored),
        scored.origins,
        "test",
        scored.fitted,
        saved.pairs,
        shown,
    )
    rows = [dataclasses.replace(row, split=scored.split) for row in held_out.rows]
    about = {
        "folder": str(run.folder),
        "data": prices.provenance,
        "split": scored.split,
        "origins": len(scored.origins),
        "first": prices.moment(int(scored.origins[0])),
        "last": prices.moment(int(scored.origins[-1])),
        **scored.about,
    }
    if config.forecasts is not None:
        forecast = held_out.ensembles[saved.groups[0].key]
        written = write_backtest(config.forecasts, scored.windows, scored.origins, forecast)
    evaluation = write_results(out, about, metrics_info(saved.log), rows)
    if redraws:
        with damaged(f"the files that the figures of {run.folder} are drawn from"):
            draw(run.folder)
    print(f"{len(scored.origins):,} origins, {about['first']} to {about['last']}")
    print_constant(prices)
    print_results(evaluation, out)
    if config.forecasts is not None:
        print(f"every forecast of {', '.join(saved.groups[0].ensemble_key)} is in {written}")
    return evaluation


# --------------------------------------------------------------------------- what is scored


def own_part(run: SavedRun, saved: SavedForecasters, market: Market) -> Scored:
    """The run's own test part."""
    prices = saved.checked(prices_of(run, market))
    windows = own_windows(run, saved, prices)
    return Scored(windows, windows.parts.test, "test", fit_baselines(windows), {})


def given_part(
    config: EvaluateConfig, data: Path, run: SavedRun, saved: SavedForecasters, market: Market
) -> Scored:
    """The origins of the user's prices, less those that the models were made with.

    Raises InputError where fewer than LEAST_ORIGINS are left.
    """
    prices = saved.checked(
        load_prices("csv", data, market, reading=Reading.of(config), series=saved.series)
    )
    check_step(run, prices, market)
    windows = GivenWindows(prices, None, saved.context, saved.horizon, saved.log)
    every = windows.origins()
    if len(every) < LEAST_ORIGINS:
        raise InputError(
            f"{data}: {len(prices.times)} rows hold {len(every)} windows of "
            f"{saved.context} + {saved.horizon} rows without a gap; "
            f"at least {LEAST_ORIGINS} are needed"
        )
    asked = every
    if config.origins_from:
        moment = np.datetime64(moment_of("--origins-from", config.origins_from), "ns")
        asked = every[prices.times[every] >= moment]
        if len(asked) < LEAST_ORIGINS:
            raise InputError(
                f"--origins-from {config.origins_from}: {len(asked)} origins of {data} are left; "
                f"its last one is {prices.moment(int(every[-1]))}, and at least {LEAST_ORIGINS} "
                "are needed"
            )

    given = GivenOrigins.of(asked, used_by(run, saved, prices, data, market), saved.horizon)
    if len(given.scored) < LEAST_ORIGINS:
        raise InputError(
            f"{data}: {given.words}; {len(given.scored)} are left to score, and at least "
            f"{LEAST_ORIGINS} are needed; give prices that the run has not seen"
        )
    if given.left_out:
        print(given.words, flush=True)
    # new prices have no training part to fit on; a log-HAR-t is saved with the networks
    return Scored(windows, given.scored, GIVEN, Fitted(har=saved.har), {"left_out": given.facts})


def used_by(
    run: SavedRun, saved: SavedForecasters, prices: Prices, data: Path, market: Market
) -> Used:
    """The rows of the user's prices that the run was trained or stopped on.

    Told by the rows of the run's own prices where they are here (the given file may be theirs),
    else by the dates of its parts.
    """
    for place in (None, data):
        try:
            own = prices_of(run, market, place)
            own = saved.ordered(own)
        except InputError:
            continue
        return Used.by_rows(own_windows(run, saved, own), prices)
    return Used.by_dates(run, prices)


def evaluation_file(folder: Path, data: Path | None, prices: Prices) -> Path:
    """Where the scores go by default: a file of its own for each table of prices."""
    if data is None:
        return folder / "evaluation.json"
    stem = data.resolve().name.split(".")[0] or "data"
    file = folder / f"evaluation-{stem}.json"
    digest = str(prices.provenance.get("sha256", ""))
    if file.exists() and digest != digest_in(file):  # of another table with the same name
        return folder / f"evaluation-{stem}-{digest[:8]}.json"
    return file


def digest_in(file: Path) -> str:
    """The sha256 of the prices that a file of scores is about, or "" where it tells none."""
    try:
        return str(read_json(file)["run"]["data"]["sha256"])
    except (InputError, KeyError, TypeError):
        return ""


# --------------------------------------------------------------------------------- progress


@dataclasses.dataclass(frozen=True)
class Watched:
    """A forecaster that moves a progress bar on when it forecasts."""

    forecaster: Forecaster
    ticks: Iterator[int]

    @property
    def settings(self) -> JsonObject:
        """Those of the forecaster."""
        return self.forecaster.settings

    @property
    def params(self) -> int:
        """Those of the forecaster."""
        return self.forecaster.params

    def predict(
        self, past: np.ndarray, times: np.ndarray, *candles: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As the forecaster."""
        next(self.ticks, None)
        return self.forecaster.predict(past, times, *candles)


def watched(saved: SavedForecasters, scored: Scored) -> list[ModelGroup]:
    """The groups with forecasters that share a bar, which moves on with every block of origins."""
    calls = sum(calls_of(group, scored) for group in saved.groups)
    ticks = progress(range(calls), "blocks of forecasts", calls)
    groups = []
    for group in saved.groups:
        forecasters = [Watched(forecaster, ticks) for forecaster in group.forecasters]
        groups.append(dataclasses.replace(group, forecasters=forecasters))
    return groups


def calls_of(group: ModelGroup, scored: Scored) -> int:
    """How often a backtest asks the forecasters of a group for a block of origins."""
    sweep = Sweep(scored.windows, group.forecasters, scored.origins)
    blocks = len(sweep.blocks())
    cells = len(scored.origins) * scored.windows.horizon * len(scored.windows.prices.series)
    if 4 * cells * len(LEVELS) * len(group.forecasters) >= KEPT_BYTES:
        blocks += len(sweep.blocks(scored=True))  # too large to keep: computed again
    return blocks * len(group.forecasters)


# --------------------------------------------------------------------------- what is printed


def print_constant(prices: Prices) -> None:
    """Names the series that never move."""
    spans = np.ptp(prices.values, axis=0)  # (S,)
    constant = [name for name, span in zip(prices.series, spans, strict=True) if span == 0]
    if constant:
        names = ", ".join(constant)
        print(f"{names}: the price never moves, so RMSE / no change is undefined and has no row")


def print_results(results: Results, folder: Path) -> None:
    """Prints the pooled scores of a run: the course's, and those and the comparisons of its test
    part, or of given prices.
    """
    pooled = [row for row in results["rows"] if row["series"] is None and row["horizon"] is None]
    assigned = [row for row in pooled if row["protocol"] == "as-assigned"]
    held_out = [row for row in pooled if row["protocol"] == "held-out"]
    given = any(row["split"] == GIVEN for row in held_out)
    part = "given prices" if given else "test part"
    test = [row for row in held_out if row["split"] in ("test", GIVEN)]
    print_table(assigned, {"mse": "MSE"}, title="as assigned, mean squared error in USD squared")
    print_table(
        test,
        {
            "rmsse": "RMSE / no change",
            "crps_ratio": "CRPS ratio",
            "coverage_80": "in 80 %",
            "coverage_95": "in 95 %",
        },
        title=f"held out, {part}, pooled over series and steps; ±: over training seeds",
    )
    print_table(
        test,
        {
            "rmse_against": "RMSE ratio",
            "p_rmse_against": "p of RMSE",
            "crps_against": "CRPS ratio",
            "p_crps_against": "p of CRPS",
        },
        title="comparisons at the same origins",
    )
    print(f"everything is in {folder}")
