"""The body of predict.py of the forecasting assignments: the steps after the last known price.

Shape letters: N origins, C context, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.cli import InputError
from common.files import atomic_path
from common.forecasting.config import PredictConfig, Reading, moment_of
from common.forecasting.figures import FAN_STEPS, Ahead, Known, fans
from common.forecasting.forecasts import NextSteps, next_table
from common.forecasting.history import Prices
from common.forecasting.markets import Market
from common.forecasting.metrics import LEVELS
from common.forecasting.prices import asked_of_yahoo, load_prices
from common.forecasting.saved import Load, SavedForecasters, check_step, load_saved, options_of
from common.forecasting.windows import Forecaster, Windows
from common.run import SavedRun


def forecast_next(config: PredictConfig, results: Path, market: Market, load: Load) -> pd.DataFrame:
    """Forecasts the steps after the last known price with the first group of a run's models.

    Writes the table that it returns as csv, and a figure next to it.
    """
    run = SavedRun.open(config.run, results, needs=())
    saved = load_saved(run, load)
    market = saved.market(market)
    prices = saved.checked(latest_prices(config, run, saved.series, market))
    prices, forecast, table = forecast_table(prices, run, saved, config, market)
    with atomic_path(config.out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g")
    picture = config.out.with_suffix(".png")
    draw(picture, run, prices, forecast)
    shown = table.loc[:, :"high_95"]  # type: ignore[misc]  # stub: labels may be strings
    print(shown.to_string(index=False, float_format=lambda number: f"{number:.6g}"))
    print(f"in {config.out} and {picture}; last known price: {prices.moment(-1)}")
    return table


def forecast_table(
    prices: Prices, run: SavedRun, saved: SavedForecasters, config: PredictConfig, market: Market
) -> tuple[Prices, NextSteps, pd.DataFrame]:
    """The prices up to --at, the forecast after them, and its table.

    Raises InputError for prices of another step than the run's, and for too few of them.
    """
    check_step(run, prices, market)
    if config.at:
        prices = until(prices, config.at)
    forecast = next_steps(prices, saved)
    return prices, forecast, next_table(prices, forecast, config.quantiles)


def latest_prices(
    config: PredictConfig, run: SavedRun, series: tuple[str, ...], market: Market
) -> Prices:
    """The prices that predict.py's options name, with the series that the run's models need.

    Yahoo is asked for the tickers that the run was trained on unless others are named, and for
    all that it has where a forecast begins at a past date.
    """
    if config.data is None and config.source in ("auto", "yahoo", "cache"):
        trained = options_of(run)
        config = dataclasses.replace(
            config,
            tickers=config.tickers or trained.tickers,
            interval=config.interval or trained.interval,
        )
    source, market = asked_of_yahoo(config, market)
    recent = "3mo" if market.hourly else "1y"
    return load_prices(
        source,
        config.data,
        market,
        "max" if config.at else recent,
        Reading.of(config),
        series,
    )


def until(prices: Prices, at: str) -> Prices:
    """The prices up to and including the last one at or before a date: no later one is kept.

    Raises InputError where there is none.
    """
    moment = np.datetime64(moment_of("--at", at), "ns")
    rows = int(np.searchsorted(prices.times, moment, "right"))
    if rows == 0:
        raise InputError(
            f"--at {at}: the first price of {prices.place} is of {prices.moment(0)}; "
            "name a later date"
        )
    candles = None if prices.candles is None else prices.candles[:rows]
    return dataclasses.replace(
        prices, times=prices.times[:rows], values=prices.values[:rows], candles=candles
    )


def next_steps(prices: Prices, saved: SavedForecasters) -> NextSteps:
    """The mean forecast of the first group of saved models after the last price.

    Raises InputError where the last rows are too few or have a gap.
    """
    check_context(prices, saved.context)
    windows = Windows(prices, None, saved.context, saved.horizon, saved.log)
    return mean_forecast(windows, saved.groups[0].forecasters)


def check_context(prices: Prices, context: int) -> None:
    """Raises InputError where the last `context` rows are not there or have a gap."""
    rows = len(prices.times)
    needed = f"{prices.place}: the last {context} rows are needed without a gap"
    if rows < context:
        raise InputError(f"{needed}; {rows} rows are there")
    gaps = np.flatnonzero(~prices.contiguous()[rows - context :])
    if len(gaps):
        before = rows - context + int(gaps[-1])  # the row that the last gap follows
        raise InputError(
            f"{needed}; after {prices.moment(before)} nothing comes until "
            f"{prices.moment(before + 1)}, and {rows - before - 1} rows follow; give the missing "
            f"rows, or forecast from before the gap with --at {prices.moment(before)}"
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
    times = windows.inputs(now)[1]
    return NextSteps(
        times[0, windows.context :],
        np.mean(points, 0)[-1],
        windows.recalibrated(np.mean(quantiles, 0), origins)[-1],
    )


def draw(picture: Path, run: SavedRun, prices: Prices, forecast: NextSteps) -> None:
    """Writes the fans of a forecast, with the known prices before it."""
    record = {
        "source": prices.source,
        "data": prices.provenance,
        "preset": f"of {run.folder.name}",
    }
    known = Known(prices.times[-FAN_STEPS:], prices.values[-FAN_STEPS:])
    ahead = Ahead(forecast.times, forecast.quantiles, LEVELS)
    title = f"Forecast from {prices.moment(-1)}: 80 % and 95 % intervals"
    fans(picture, record, prices.series, known, ahead, title)
