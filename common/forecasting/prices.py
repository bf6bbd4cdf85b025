"""Prices from the user's tables, from Yahoo or simulated: one function for every source."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import get_args

import numpy as np

from common.cli import InputError, data_folder
from common.forecasting.config import ForecastConfig, Source
from common.forecasting.history import Prices, check_positive, select
from common.forecasting.markets import COINS, CURRENCIES, Market
from common.forecasting.simulate import simulate
from common.forecasting.tables import read_table
from common.forecasting.yahoo import cached, days_of, fetch, reachable

__all__ = [
    "COINS",
    "CURRENCIES",
    "Market",
    "Prices",
    "check_positive",
    "load_for",
    "load_prices",
    "read_table",
    "select",
]


def load_for(config: ForecastConfig, market: Market) -> Prices:
    """The prices that a run's options name; a resumed run takes those that it began with."""
    source = "cache" if config.resume and config.source == "yahoo" else config.source
    return load_prices(source, config.data, market, config.period, config.seed, config.steps)


def load_prices(
    source: str,
    data: Path | None,
    market: Market,
    period: str = "max",
    seed: int = 0,
    steps: int = 20_000,
) -> Prices:
    """Prices from "csv", "yahoo", "cache" (Yahoo's as last fetched) or "simulated".

    "auto" takes the first of `data`, the data folder, the cache, Yahoo and the simulation that
    there is. `period` ("60d", "6mo", "max") is for Yahoo's, `seed` and `steps` for the simulation.
    Raises InputError with one line for anything missing, unreadable or out of range; only "auto"
    falls back, with a notice in the provenance of a simulation.
    """
    sources = get_args(Source)
    if source not in sources:
        raise InputError(f"--source {source}; allowed are {', '.join(sources)}")
    if data is not None and source not in ("auto", "csv"):
        raise InputError(f"--data {data} goes with --source csv or auto, not with {source}")
    days_of(period)  # refuses a wrong one, whatever the source
    path = data_folder() / market.file if data is None else Path(data)
    if source == "csv" or (source == "auto" and (data is not None or path.exists())):
        return usd_prices(read_table(path), market)
    if source == "cache":
        return cached(market, period)
    if source == "yahoo":
        return fetch(market, period)
    if source == "auto":
        with contextlib.suppress(InputError):
            return cached(market, period)
        with contextlib.suppress(InputError):
            if reachable():
                return fetch(market, period, attempts=1)
    return simulate(market, steps, seed)


def usd_prices(prices: Prices, market: Market) -> Prices:
    """The quotes USD_per_X and X_per_USD of fx_oil_daily.csv as the market's series in USD per X.

    Any other table stays as it is. Raises InputError for a quote per USD that is not above zero.
    """
    quotes = [quote_of(name, prices.series) for name in market.series]
    if "" in quotes or quotes == list(market.series):
        return prices
    columns = [prices.series.index(quote) for quote in quotes]
    values = prices.values[:, columns]  # (T, S)

    # Quotes per USD are turned over:
    per_usd = np.array([quote.endswith("_per_USD") for quote in quotes])
    turned = [quote for quote in quotes if quote.endswith("_per_USD")]
    to_turn = dataclasses.replace(prices, values=values[:, per_usd], series=tuple(turned))
    check_positive(to_turn, "a quote per USD is above zero")
    values[:, per_usd] = 1 / to_turn.values
    facts = {
        "turned_over": turned,
        "left_out": [name for name in prices.series if name not in quotes],
    }
    return dataclasses.replace(
        prices, values=values, series=market.series, provenance={**prices.provenance, **facts}
    )


def quote_of(series: str, columns: tuple[str, ...]) -> str:
    """The column that quotes a series, or "" where there is none."""
    for name in (f"USD_per_{series}", f"{series}_per_USD", series):
        if name in columns:
            return name
    return ""
