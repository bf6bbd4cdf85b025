"""The options that the forecasting assignments share, and the numbers of their references.

Nothing heavy is imported here, so that `--help` and a refusal answer at once.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal

from common.cli import BaseConfig, PathOrNone, SavedRunConfig, check_ranges

Source = Literal["auto", "yahoo", "cache", "csv", "simulated"]

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

RANGES = {
    "steps": (10, math.inf),
    "seed": (0, math.inf),
    "seeds": (1, math.inf),
    "test_steps": (1, math.inf),
    "validation_steps": (1, math.inf),
    "assigned_steps": (2, math.inf),
}


@dataclasses.dataclass(frozen=True)
class ForecastConfig(BaseConfig):
    """The options that the train.py of every forecasting assignment has."""

    source: Source = "auto"
    """where the prices come from; auto: --data, else the data folder, else Yahoo, else simulated"""
    period: str = "max"
    """how much history to ask Yahoo for: 1mo, 3mo, 1y, ..., max (729 days of hourly prices)"""
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
        check_ranges(self, RANGES)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(SavedRunConfig):
    """Backtest of saved forecasters and of every baseline."""

    data: PathOrNone = None
    """prices to score on (csv, csv.gz, parquet; wide or long; default: the run's own test part)"""
    out: PathOrNone = None
    """file for the scores (default: evaluation.json in the run folder)"""


@dataclasses.dataclass(frozen=True)
class PredictConfig(SavedRunConfig):
    """Forecast of the next steps."""

    source: Source = "auto"
    """where the latest prices come from: Yahoo, its cache, a file (--data) or a simulation"""
    data: PathOrNone = None
    """file with the latest prices (csv, csv.gz, parquet; wide or long)"""
    out: Path = Path("forecast.csv")
    """table to write; a figure of the same name is written next to it"""
