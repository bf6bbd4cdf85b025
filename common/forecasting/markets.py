"""The markets that the assignments forecast: their series, and what a simulation needs of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self


@dataclasses.dataclass(frozen=True)
class Market:
    """S series that belong together.

    `tickers` are Yahoo's, `file` is the table in the data folder, `first` a typical price of each
    series; `deviation` and `correlation` are those of the log returns of one step. `candles` asks
    for high, low and volume beside the closes, which `candle_file` has.
    """

    name: str
    series: tuple[str, ...]
    tickers: tuple[str, ...]
    file: str
    hourly: bool
    first: tuple[float, ...]
    deviation: tuple[float, ...]
    correlation: tuple[tuple[float, ...], ...]
    candle_file: str = ""
    candles: bool = False

    def with_candles(self) -> Self:
        """The market with high, low and volume of each step, and the table that has them."""
        return dataclasses.replace(self, file=self.candle_file or self.file, candles=True)

    def with_tickers(self, tickers: Sequence[str]) -> Self:
        """The market of other tickers of Yahoo's, which no simulation stands for.

        Series are named without -USD and =X where that leaves them different.
        """
        short = tuple(ticker.removesuffix("=X").removesuffix("-USD") for ticker in tickers)
        series = short if len(set(short)) == len(short) and all(short) else tuple(tickers)
        return dataclasses.replace(self, series=series, tickers=tuple(tickers))


# measured on crypto_hourly_usdt.csv.gz, 2020-08 to 2025-06
COINS = Market(
    name="coins",
    series=("BTC", "ETH", "DOGE", "ADA", "LTC", "SOL", "DOT"),
    tickers=("BTC-USD", "ETH-USD", "DOGE-USD", "ADA-USD", "LTC-USD", "SOL-USD", "DOT-USD"),
    file="crypto_hourly_usdt.csv.gz",
    hourly=True,
    first=(40_000.0, 2_100.0, 0.10, 0.50, 86.0, 47.0, 6.6),
    deviation=(0.00658, 0.00854, 0.01448, 0.01129, 0.01025, 0.01374, 0.01174),
    correlation=(
        (1.00, 0.84, 0.53, 0.68, 0.73, 0.62, 0.68),
        (0.84, 1.00, 0.54, 0.72, 0.76, 0.66, 0.73),
        (0.53, 0.54, 1.00, 0.51, 0.51, 0.45, 0.50),
        (0.68, 0.72, 0.51, 1.00, 0.69, 0.61, 0.70),
        (0.73, 0.76, 0.51, 0.69, 1.00, 0.59, 0.69),
        (0.62, 0.66, 0.45, 0.61, 0.59, 1.00, 0.61),
        (0.68, 0.73, 0.50, 0.70, 0.69, 0.61, 1.00),
    ),
    candle_file="crypto_hourly_candles.csv.gz",
)

# USD per unit; measured on fx_oil_daily.csv, 2010 to 2024, without the day of WTI's negative price
CURRENCIES = Market(
    name="currencies",
    series=("EUR", "GBP", "JPY", "AUD", "CAD", "CHF", "WTI"),
    tickers=(
        "EURUSD=X",
        "GBPUSD=X",
        "JPYUSD=X",
        "AUDUSD=X",
        "CADUSD=X",
        "CHFUSD=X",
        "CL=F",
    ),
    file="fx_oil_daily.csv",
    hourly=False,
    first=(1.16, 1.37, 0.0092, 0.76, 0.78, 1.06, 73.0),
    deviation=(0.00535, 0.00568, 0.00596, 0.0069, 0.00504, 0.00619, 0.0301),
    correlation=(
        (1.00, 0.62, 0.32, 0.56, 0.48, 0.66, 0.06),
        (0.62, 1.00, 0.20, 0.55, 0.49, 0.44, 0.08),
        (0.32, 0.20, 1.00, 0.20, 0.10, 0.40, -0.05),
        (0.56, 0.55, 0.20, 1.00, 0.70, 0.41, 0.14),
        (0.48, 0.49, 0.10, 0.70, 1.00, 0.35, 0.18),
        (0.66, 0.44, 0.40, 0.41, 0.35, 1.00, 0.01),
        (0.06, 0.08, -0.05, 0.14, 0.18, 0.01, 1.00),
    ),
)
