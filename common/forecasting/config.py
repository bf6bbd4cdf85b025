"""The options that the forecasting assignments share, and the numbers of their references.

Nothing heavy is imported here, so that `--help` and a refusal answer at once.
"""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from common.cli import (
    BaseConfig,
    InputError,
    PathOrNone,
    SavedRunConfig,
    check_ranges,
    check_writable,
    option_of,
)

Source = Literal["auto", "yahoo", "cache", "csv", "simulated"]
Interval = Literal["", "1h", "1d"]

# how far residuals and recalibration look back
ROLLING_HOURS = 1440  # 60 days
ROLLING_DAYS = 250  # a year of trading days
# decay of the EWMA volatility (J. P. Morgan 1996); the best of 0.90 to 0.99 on validation too
RISKMETRICS = 0.94
# recalibration corrects these central intervals, each from at least so many outcomes
RECALIBRATED_SHARES = (0.5, 0.8, 0.95)
LEAST_OUTCOMES = 200
# a backtest of new prices needs so many forecast origins
LEAST_ORIGINS = 10
# of a table with every forecast of a backtest
FORECAST_ENDINGS = (".parquet", ".csv", ".csv.gz")

RANGES = {
    "steps": (10, math.inf),
    "seed": (0, math.inf),
    "seeds": (1, math.inf),
    "test_steps": (1, math.inf),
    "validation_steps": (1, math.inf),
    "assigned_steps": (2, math.inf),
}


# readings of dates and clocks that --date-format names by a word instead of a strptime form
DATE_WORDS = ("day-first", "month-first", "year-first", "s", "ms", "us", "ns")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file of prices is read where its own shape leaves a choice."""

    columns: tuple[str, ...] = ()
    """price columns or tickers of a file to take (default: the close of all that share times)"""
    time_column: str = ""
    """column of a price file that holds the times (default: found by its name and cells)"""
    decimal: Literal["auto", ".", ","] = "auto"
    """decimal mark of a price file, where 1.001 may be a thousand; auto: told by its cells"""
    date_format: str = ""
    """dates of a price file: day-first, month-first, year-first, %d.%m.%Y, or s, ms, us, ns"""
    fill: Literal["none", "forward"] = "none"
    """forward: carry a series' last price over times of a file at which it has none"""

    def __post_init__(self) -> None:
        known = "%" in self.date_format or self.date_format in ("", *DATE_WORDS)
        if not known:
            raise InputError(
                f"--date-format {self.date_format}; allowed are a strptime form such as "
                f"%d.%m.%Y, or {', '.join(DATE_WORDS)}"
            )
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise InputError(f"--columns names {name} twice; once is enough")

    @classmethod
    def of(cls, options: Reading) -> Self:
        """Only the options about reading, of a config that has them among others."""
        fields = dataclasses.fields(Reading)
        return cls(**{field.name: getattr(options, field.name) for field in fields})


@dataclasses.dataclass(frozen=True)
class ForecastConfig(Reading, BaseConfig):
    """The options that the train.py of every forecasting assignment has."""

    source: Source = "auto"
    """where the prices come from; auto: --data, else the data folder, else Yahoo, else simulated"""
    period: str = "max"
    """how much history to ask Yahoo for: 1mo, 3mo, 1y, ..., max (729 days of hourly prices)"""
    tickers: tuple[str, ...] = ()
    """tickers to ask Yahoo for, as AAPL MSFT or BTC-USD (default: the assignment's own series)"""
    interval: Interval = ""
    """step of Yahoo's prices: 1h or 1d (default: that of the assignment's own series)"""
    steps: int = 20_000
    """steps of the simulated history: hours for the coins, days for the currencies"""
    seed: int = 0
    """seed of simulated prices and as-assigned networks; held-out networks have 0 to seeds - 1"""
    seeds: int = 5
    """held-out networks to train of each kind, one per seed"""
    test_steps: int = 8760
    """steps of the test part at the end of the history (at most a quarter of the history)"""
    validation_steps: int = 4380
    """steps of the validation part before the test part (at most a quarter of the history)"""
    assigned_steps: int = 101
    """steps of the course's one window, its last --horizon steps being the target"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, RANGES)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Reading, SavedRunConfig):
    """Backtest of saved forecasters and of every baseline."""

    data: PathOrNone = None
    """prices to score on: a table, or a folder of one per ticker (default: the run's test part)"""
    out: PathOrNone = None
    """file for the scores (default: evaluation.json or evaluation-<data>.json in the run folder)"""
    origins_from: str = ""
    """score --data from this date on (2024-01-31 or 2024-01-31T13:00Z); rows before are history"""
    forecasts: PathOrNone = None
    """also write every forecast: .parquet, .csv, .csv.gz (unique_id, ds, cutoff, y, y_hat, ...)"""

    def check(self) -> None:
        super().check()
        if self.origins_from:
            moment_of("--origins-from", self.origins_from)
            if self.data is None:
                raise InputError("--origins-from goes with --data; the run's test part is whole")
        if self.forecasts is None:
            return
        if not self.forecasts.name.endswith(FORECAST_ENDINGS):
            endings = ", ".join(FORECAST_ENDINGS)
            raise InputError(f"--forecasts {self.forecasts}: allowed are {endings}")
        if not self.forecasts.absolute().parent.is_dir():
            folder = self.forecasts.parent
            raise InputError(f"--forecasts {self.forecasts}: the folder {folder} does not exist")
        check_writable("--forecasts", self.forecasts.parent)


@dataclasses.dataclass(frozen=True)
class PredictConfig(Reading, SavedRunConfig):
    """Forecast of the next steps."""

    source: Source = "auto"
    """where the latest prices come from: Yahoo, its cache, a file (--data) or a simulation"""
    data: PathOrNone = None
    """the latest prices: a table (csv, csv.gz, zip, parquet), or a folder of one per ticker"""
    tickers: tuple[str, ...] = ()
    """tickers to ask Yahoo for (default: those that the run was trained on)"""
    interval: Interval = ""
    """step of Yahoo's prices: 1h or 1d (default: that of the assignment's own series)"""
    out: Path = Path("forecast.csv")
    """table to write; a figure of the same name is written next to it"""
    at: str = ""
    """forecast from a past date (2024-01-31 or 2024-01-31T13:00Z): later prices are not read"""
    quantiles: bool = False
    """also write the 99 quantiles, q0.01 to q0.99, beside the two intervals"""

    def check(self) -> None:
        super().check()
        if self.at:
            moment_of("--at", self.at)


def check_not_empty(config: object, *names: str) -> None:
    """Raises InputError for the first of the named tuples of a config that holds no value."""
    for name in names:
        if not getattr(config, name):
            raise InputError(f"{option_of(name)}: at least one value is needed")


def moment_of(option: str, text: str) -> datetime:
    """The time that an option names, in UTC without a zone; a date alone is its midnight.

    Raises InputError for anything else.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{option} {text}: allowed are a date or a time, as 2024-01-31 or 2024-01-31T13:00Z"
        ) from None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
