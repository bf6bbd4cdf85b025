"""Small markets, tables of prices and what yfinance returns."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from common.forecasting.prices import Market

NOW = pd.Timestamp("2025-06-10 12:37:12", tz="UTC")
PAIR = Market(
    name="pair",
    series=("BTC", "ETH"),
    tickers=("BTC-USD", "ETH-USD"),
    file="pair.csv",
    hourly=True,
    first=(100.0, 10.0),
    deviation=(0.01, 0.02),
    correlation=((1.0, 0.5), (0.5, 1.0)),
)
SINGLE = Market(
    name="single",
    series=("BTC",),
    tickers=("BTC-USD",),
    file="single.csv",
    hourly=True,
    first=(100.0,),
    deviation=(0.01,),
    correlation=((1.0,),),
)
HOURS = ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z", "2024-01-01T02:00:00Z"]


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def table(path: Path, *rows: str) -> Path:
    """Writes the rows as a text file."""
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def hourly(values: list[str], header: str = "time,x") -> list[str]:
    """The rows of a table of three hours."""
    return [header, *(f"{hour},{value}" for hour, value in zip(HOURS, values, strict=True))]


def recorded(
    last: str = "2025-06-10 12:37:12",
    hours: int = 30,
    zone: str = "UTC",
    market: Market = PAIR,
    value: float = 100.0,
) -> pd.DataFrame:
    """A table in the shape of yfinance 1.7.0: columns (Price, Ticker).

    Its rows are full hours, the running hour, and a live quote.
    """
    live = pd.Timestamp(last, tz="UTC")
    full = pd.date_range(end=live.floor("h"), periods=hours, freq="h")
    index = full.append(pd.DatetimeIndex([live])).rename("Datetime")
    prices = ["Adj Close", "Close", "High", "Low", "Open", "Volume"]
    columns = pd.MultiIndex.from_product(
        [prices, sorted(market.tickers)], names=["Price", "Ticker"]
    )
    frame = pd.DataFrame(0.0, index, columns)
    moments = index.hour.to_numpy() + index.day.to_numpy() / 100
    for number, ticker in enumerate(market.tickers, 1):
        frame["Close", ticker] = value * number + moments
    return frame.set_axis(index.tz_convert(zone))


def without_hour(frame: pd.DataFrame, rows: list[int], ticker: str) -> pd.DataFrame:
    """The table without a ticker's closes in some rows."""
    frame = frame.copy()
    frame.loc[frame.index[rows], ("Close", ticker)] = np.nan
    return frame
