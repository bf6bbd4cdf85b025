"""Price histories from Yahoo, from the user's tables or simulated -> one checked array that knows where it comes from.

Shape letters: T times, S series.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import logging
import re
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.signal import lfilter

from common.cli import InputError, data_folder
from common.run import atomic_path, sha256

SOURCES = ("auto", "yahoo", "cache", "csv", "simulated")
TIME_NAMES = {"time", "date", "ds", "datetime", "timestamp"}
TEXT_ENDINGS = (".csv", ".txt", ".tsv")
HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")
LONGEST_STEP = 5 * DAY  # between two days of a daily series: a weekend with holidays
YAHOO_DAYS = 729  # Yahoo keeps 730 days of hourly prices and refuses some tickers at exactly that


@dataclasses.dataclass(frozen=True)
class Prices:
    """Checked prices: `times` datetime64[ns] (T,) in UTC, increasing; `values` float64 (T, S), finite; hours, else days."""

    times: np.ndarray
    values: np.ndarray
    series: tuple[str, ...]
    hourly: bool
    source: str
    provenance: dict[str, Any]

    def contiguous(self) -> np.ndarray:
        """bool (T-1,): the step from row i to i + 1 is no gap, that is exactly an hour, or at most 5 days in a daily series."""
        steps = np.diff(self.times)
        return steps == HOUR if self.hourly else steps <= LONGEST_STEP


@dataclasses.dataclass(frozen=True)
class Market:
    """A set of S series: Yahoo's tickers, the file in the data folder, and one step's figures for the simulation."""

    name: str
    series: tuple[str, ...]
    tickers: tuple[str, ...]
    file: str
    hourly: bool
    first: tuple[float, ...]  # a typical price
    deviation: tuple[float, ...]  # of a step's log return
    correlation: tuple[tuple[float, ...], ...]  # of the log returns


def _market(name: str, file: str, hourly: bool, tickers: str, first: Sequence[float], deviation: Sequence[float], above: str) -> Market:
    """A Market from "SERIES=TICKER ..." and the correlations above the diagonal, row by row."""
    series, symbols = zip(*(pair.split(":") for pair in tickers.split()), strict=True)
    matrix = np.eye(len(series))
    matrix[np.triu_indices(len(series), 1)] = np.array(above.split(), float)
    matrix = np.maximum(matrix, matrix.T)
    return Market(name, series, symbols, file, hourly, tuple(first), tuple(deviation), tuple(map(tuple, matrix.tolist())))
