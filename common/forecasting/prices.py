"""Prices from the user's tables, from Yahoo or simulated: one function for every source."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from common.cli import InputError, data_folder, option_of
from common.forecasting.candles import NEEDED
from common.forecasting.config import ForecastConfig, PredictConfig, Reading, Source
from common.forecasting.history import Prices, check_positive, select
from common.forecasting.markets import COINS, CURRENCIES, Market
from common.forecasting.readings import with_read
from common.forecasting.shapes import quote_of
from common.forecasting.simulate import simulate
from common.forecasting.tables import DEFAULT, read_frame, read_table
from common.forecasting.yahoo import cached, days_of, fetch, reachable

__all__ = [
    "COINS",
    "CURRENCIES",
    "Market",
    "Prices",
    "Simulation",
    "check_positive",
    "load_for",
    "load_prices",
    "read_frame",
    "read_table",
    "select",
]


@dataclasses.dataclass(frozen=True)
class Simulation:
    """Which history is simulated, and how many steps it has."""

    seed: int = 0
    steps: int = 20_000


def load_for(config: ForecastConfig, market: Market, series: Sequence[str] = ()) -> Prices:
    """The prices that a run's options name; a resumed run takes those that it began with.

    `series` are those that a saved run needs. Raises InputError as `load_prices` does.
    """
    source, market = asked_of_yahoo(config, market)
    return load_prices(
        "cache" if config.resume and source == "yahoo" else source,
        config.data,
        market,
        config.period,
        Reading.of(config),
        series,
        Simulation(config.seed, config.steps),
    )


def asked_of_yahoo(config: ForecastConfig | PredictConfig, market: Market) -> tuple[Source, Market]:
    """The source and the market of a config's tickers and interval, which are Yahoo's alone.

    Raises InputError where they are given with another source.
    """
    for option, value in (("--tickers", config.tickers), ("--interval", config.interval)):
        if value and (config.data is not None or config.source not in ("auto", "yahoo", "cache")):
            raise InputError(f"{option} goes with --source yahoo, not with a file or a simulation")
    if config.interval:
        market = dataclasses.replace(market, hourly=config.interval == "1h")
    if config.tickers:
        market = market.with_tickers(config.tickers)
    asked = bool(config.tickers or config.interval) and config.source == "auto"
    return ("yahoo" if asked else config.source), market


def load_prices(
    source: str,
    data: Path | None,
    market: Market,
    period: str = "max",
    reading: Reading = DEFAULT,
    series: Sequence[str] = (),
    simulation: Simulation = Simulation(),
) -> Prices:
    """Prices from "csv", "yahoo", "cache" (Yahoo's as last fetched) or "simulated".

    "auto" takes the first of `data`, the data folder, the cache, Yahoo and the simulation that
    there is. `period` ("60d", "6mo", "max") is for Yahoo's; `reading` says how a file is read, and
    `series` which ones of it a saved run needs. Raises InputError with one line for anything
    missing, unreadable or out of range; only "auto" falls back, with a notice in the provenance of
    a simulation.
    """
    sources = get_args(Source)
    if source not in sources:
        raise InputError(f"--source {source}; allowed are {', '.join(sources)}")
    if data is not None and source not in ("auto", "csv"):
        raise InputError(f"--data {data} goes with --source csv or auto, not with {source}")
    days_of(period)  # refuses a wrong one, whatever the source
    path = data_folder() / market.file if data is None else Path(data)
    if source == "csv" or (source == "auto" and (data is not None or path.exists())):
        return usd_prices(read_table(path, reading, series, market.candles), market)
    for field in dataclasses.fields(Reading):
        if getattr(reading, field.name) != field.default:
            raise InputError(
                f"{option_of(field.name)} is for a file of prices; name it with --data"
            )
    prices = prices_without_file(source, market, period, simulation)
    return prices if "read" in prices.provenance else with_read(prices)


def prices_without_file(source: str, market: Market, period: str, simulation: Simulation) -> Prices:
    """Prices from Yahoo or its cache, or simulated; "auto" takes the first that there is."""
    if market.candles and source in ("cache", "yahoo"):
        raise InputError(f"{NEEDED}; --source {source} gives closes alone: name a file with --data")
    if market.candles:
        return simulate(market, simulation.steps, simulation.seed)
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
    return simulate(market, simulation.steps, simulation.seed)


def usd_prices(prices: Prices, market: Market) -> Prices:
    """The quotes USD_per_X and X_per_USD of fx_oil_daily.csv as the market's series in USD per X.

    Any other table stays as it is. Raises InputError for a quote per USD that is not above zero.
    """
    quotes = [quote_of(name, prices.series) for name in market.series]
    if "" in quotes or quotes == list(market.series) or prices.candles is not None:
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
    read = f"{prices.provenance.get('read', '')}; as USD per unit: {', '.join(market.series)}"
    if facts["left_out"]:
        read += f"; left out: {', '.join(facts['left_out'])}"
    provenance = {**prices.provenance, **facts, "read": read}
    return dataclasses.replace(prices, values=values, series=market.series, provenance=provenance)
