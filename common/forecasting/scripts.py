"""The bodies of evaluate.py and predict.py of the forecasting assignments.

Shape letters: N origins, C context, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.cli import InputError, data_folder
from common.files import atomic_path
from common.forecasting.config import LEAST_ORIGINS, EvaluateConfig, PredictConfig
from common.forecasting.ensemble import ModelGroup, Pair, held_out_rows
from common.forecasting.figures import FAN_STEPS, Ahead, Known, fans
from common.forecasting.history import Prices, check_positive, select
from common.forecasting.markets import Market
from common.forecasting.metrics import LEVELS, interval, metrics_info
from common.forecasting.prices import load_prices
from common.forecasting.windows import Forecaster, Windows, split, steps_ahead
from common.results import Results, print_table, write_evaluation
from common.run import SavedRun

NEEDS_POSITIVE = "forecasts of log returns need prices above zero"


@dataclasses.dataclass(frozen=True)
class SavedForecasters:
    """The models of a run folder, and the pairs of them to compare."""

    groups: Sequence[ModelGroup]
    series: tuple[str, ...]
    """the series that they forecast"""
    log: bool = True
    """whether changes are log returns"""
    pairs: Sequence[Pair] = ()

    @property
    def context(self) -> int:
        """Steps of history in each forecast's input."""
        return self.groups[0].forecasters[0].settings["context"]

    @property
    def horizon(self) -> int:
        """Steps forecast ahead."""
        return self.groups[0].forecasters[0].settings["horizon"]

    def checked(self, prices: Prices) -> Prices:
        """The prices in the order of the models' series, with a notice where they are simulated.

        Raises InputError for other series, and for prices that have no logarithm if one is needed.
        """
        chosen = select(prices, self.series)
        if self.log:
            check_positive(chosen, NEEDS_POSITIVE)
        notice = chosen.provenance.get("notice")
        if notice:
            print(f"notice: {notice}", file=sys.stderr)
        return chosen


Load = Callable[[Path], SavedForecasters]


# ----------------------------------------------------------------------------------- evaluate


def evaluate(
    config: EvaluateConfig,
    results: Path,
    market: Market,
    load: Load,
    draw: Callable[[Path], None],
) -> Results:
    """Scores a run's saved models and writes evaluation.json.

    They are scored on the run's own test part, or on every origin of the user's prices.
    """
    run = SavedRun.open(config.run, results)
    saved = load(run.folder)
    if config.data is None:
        windows = own_windows(run, saved, market)
        origins = windows.parts.test
        ridge = windows.ridge()
    else:
        prices = saved.checked(load_prices("csv", config.data, market))
        windows = Windows(prices, None, saved.context, saved.horizon, saved.log)
        origins = windows.origins()
        ridge = None  # new prices have no training part to fit it on
    prices = windows.prices
    if len(origins) < LEAST_ORIGINS:
        raise InputError(
            f"{config.data}: {len(prices.times)} rows hold {len(origins)} windows of "
            f"{saved.context} + {saved.horizon} rows without a gap; "
            f"at least {LEAST_ORIGINS} are needed"
        )

    held_out = held_out_rows(windows, saved.groups, origins, "test", ridge, saved.pairs)
    about = {
        "folder": str(run.folder),
        "data": prices.provenance,
        "origins": len(origins),
        "first": prices.moment(int(origins[0])),
        "last": prices.moment(int(origins[-1])),
    }
    out = config.out or run.folder / "evaluation.json"
    evaluation = write_evaluation(out, about, metrics_info(saved.log), held_out.rows)
    if config.data is None and config.out is None:
        draw(run.folder)
    print(f"{len(origins):,} origins, {about['first']} to {about['last']}")
    print_constant(prices)
    print_results(evaluation, out)
    return evaluation


def own_windows(run: SavedRun, saved: SavedForecasters, market: Market) -> Windows:
    """The windows of the prices that a run was trained on, in the same parts."""
    prices = saved.checked(prices_of(run, market))
    steps = (run.config["test_steps"], run.config["validation_steps"])
    parts = split(prices.contiguous(), saved.context, saved.horizon, *steps)
    return Windows(prices, parts, saved.context, saved.horizon, saved.log)


def prices_of(run: SavedRun, market: Market) -> Prices:
    """The prices that a run was trained on.

    Raises InputError where they are not here, or are others by now.
    """
    source = run.record["source"]
    path = Path(run.config["data"]) if run.config["data"] else None
    elsewhere = InputError(
        f"the prices that {run.folder} was trained on are not here (another sha256); "
        "name the file with --data"
    )
    if source == "csv" and path is None and not (data_folder() / market.file).exists():
        raise elsewhere
    prices = load_prices(
        "cache" if source == "yahoo" else source,
        path,
        market,
        run.config["period"],
        run.config["seed"],
        run.config["steps"],
    )
    if prices.provenance.get("sha256") != run.data.get("sha256"):
        raise elsewhere
    return prices


def print_constant(prices: Prices) -> None:
    """Names the series that never move."""
    spans = np.ptp(prices.values, axis=0)  # (S,)
    constant = [name for name, span in zip(prices.series, spans, strict=True) if span == 0]
    if constant:
        names = ", ".join(constant)
        print(f"{names}: the price never moves, so RMSE / no change is undefined and has no row")


def print_results(results: Results, folder: Path) -> None:
    """Prints the pooled scores of a run: the course's, the test part's and the comparisons."""
    pooled = [row for row in results["rows"] if row["series"] is None and row["horizon"] is None]
    assigned = [row for row in pooled if row["protocol"] == "as-assigned"]
    test = [row for row in pooled if row["protocol"] == "held-out" and row["split"] == "test"]
    print_table(assigned, {"mse": "MSE"}, title="as assigned, mean squared error in USD squared")
    print_table(
        test,
        {
            "rmsse": "RMSE / no change",
            "crps_ratio": "CRPS ratio",
            "coverage_80": "in 80 %",
            "coverage_95": "in 95 %",
        },
        title="held out, test part, pooled over series and steps; ±: over training seeds",
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


# ------------------------------------------------------------------------------------ predict


@dataclasses.dataclass(frozen=True)
class NextSteps:
    """The forecast after the last known price."""

    times: np.ndarray  # datetime64 (H,)
    point: np.ndarray  # (H, S)
    quantiles: np.ndarray  # (H, S, Q)


def forecast_next(config: PredictConfig, results: Path, market: Market, load: Load) -> pd.DataFrame:
    """Forecasts the steps after the last known price with the first group of a run's models.

    Writes the table that it returns as csv, and a figure next to it.
    """
    run = SavedRun.open(config.run, results, needs=())
    saved = load(run.folder)
    recent = "3mo" if market.hourly else "1y"
    prices = saved.checked(load_prices(config.source, config.data, market, recent))
    check_context(prices, saved.context)
    windows = Windows(prices, None, saved.context, saved.horizon, saved.log)
    forecast = mean_forecast(windows, saved.groups[0].forecasters)

    table = forecast_table(prices, forecast)
    with atomic_path(config.out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g")
    picture = config.out.with_suffix(".png")
    record = {
        "source": prices.source,
        "data": prices.provenance,
        "preset": f"of {run.folder.name}",
    }
    shown = slice(max(len(prices.times) - saved.context, len(prices.times) - FAN_STEPS), None)
    known = Known(prices.times[shown], prices.values[shown])
    ahead = Ahead(forecast.times, forecast.quantiles, LEVELS)
    title = f"Forecast from {prices.moment(-1)}: 80 % and 95 % intervals"
    fans(picture, record, prices.series, known, ahead, title)
    print(table.to_string(index=False, float_format=lambda number: f"{number:.6g}"))
    print(f"in {config.out} and {picture}; last known price: {prices.moment(-1)}")
    return table


def check_context(prices: Prices, context: int) -> None:
    """Raises InputError where the last `context` rows are not there or have a gap."""
    rows = len(prices.times)
    if rows < context or not prices.contiguous()[-context + 1 :].all():
        raise InputError(
            f"{prices.place}: the last {context} rows are needed without a gap; "
            f"{rows} rows are there"
        )


def mean_forecast(windows: Windows, forecasters: Sequence[Forecaster]) -> NextSteps:
    """The mean of the forecasters after the last price, its intervals corrected by what came."""
    now = np.array([len(windows.prices.times) - 1])
    origins = np.concatenate([windows.origins()[-windows.rolling :], now])  # (N,)
    inputs = windows.inputs(origins)
    points = []
    quantiles = []
    for forecaster in forecasters:
        point, of_forecaster = forecaster.predict(*inputs)
        points.append(point)
        quantiles.append(of_forecaster)
    _, times = windows.inputs(now)
    return NextSteps(
        steps_ahead(times, windows.horizon)[0],
        np.mean(points, 0)[-1],
        windows.recalibrated(np.mean(quantiles, 0), origins)[-1],
    )


def forecast_table(prices: Prices, forecast: NextSteps) -> pd.DataFrame:
    """One row per series and step: the forecast, no change, and the 80 % and 95 % intervals."""
    low80, high80 = interval(forecast.quantiles, 0.80)  # (H, S)
    low95, high95 = interval(forecast.quantiles, 0.95)
    form = "%Y-%m-%dT%H:%M:%SZ" if prices.hourly else "%Y-%m-%d"
    rows = []
    for s, name in enumerate(prices.series):
        for h, moment in enumerate(forecast.times):
            rows.append(
                {
                    "series": name,
                    "time": pd.Timestamp(moment).strftime(form),
                    "forecast": forecast.point[h, s],
                    "no_change": prices.values[-1, s],
                    "low_80": low80[h, s],
                    "high_80": high80[h, s],
                    "low_95": low95[h, s],
                    "high_95": high95[h, s],
                }
            )
    return pd.DataFrame(rows)
