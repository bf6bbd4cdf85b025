"""A checked price history: the one form in which every source hands on its prices.

Shape letters: T times, S series.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from common.cli import InputError
from common.files import JsonObject

HOUR = np.timedelta64(1, "h")
DAY = np.timedelta64(1, "D")
LONGEST_WEEKEND = 5 * DAY  # a step over a weekend with holidays is no gap in daily prices
LISTED_GAPS = 10  # in the provenance


@dataclasses.dataclass(frozen=True)
class Prices:
    """Checked prices of S series at T times, and where they come from.

    `times` datetime64[ns] (T,) in UTC, increasing; `values` float64 (T, S), finite; steps are
    hours if `hourly`, else days.
    """

    times: np.ndarray
    values: np.ndarray
    series: tuple[str, ...]
    hourly: bool
    source: str
    provenance: JsonObject

    def contiguous(self) -> np.ndarray:
        """Whether the step from each row to the next is no gap, bool (T - 1,).

        A step is one hour, or at most 5 days in a daily series.
        """
        steps = np.diff(self.times)
        return steps == HOUR if self.hourly else steps <= LONGEST_WEEKEND

    def moment(self, row: int) -> str:
        """The time of a row in ISO 8601; only the date in a daily series."""
        text = str(self.times[row])
        return f"{text[:19]}Z" if self.hourly else text[:10]

    @property
    def place(self) -> str:
        """The file or source of the prices, for messages."""
        return str(self.provenance.get("path", self.source))


def select(prices: Prices, series: Sequence[str]) -> Prices:
    """The prices of exactly these series, in this order.

    Raises InputError when the table lacks one of them or has others.
    """
    if set(prices.series) != set(series):
        raise InputError(
            f"{prices.place} has the series {', '.join(prices.series)}; "
            f"exactly {', '.join(series)} are needed"
        )
    columns = [prices.series.index(name) for name in series]
    return dataclasses.replace(prices, values=prices.values[:, columns], series=tuple(series))


def check_positive(prices: Prices, why: str) -> None:
    """Raises InputError that names the first price which is zero or negative, and `why`.

    `why` reads like "a logarithm needs prices above zero".
    """
    for row, column in np.argwhere(prices.values <= 0)[:1]:
        price = prices.values[row, column]
        raise InputError(
            f"{prices.place}: {prices.series[column]} is {price:g} at {prices.moment(row)}; {why}"
        )


# -------------------------------------------------------------------------------------- checks


def checked_prices(frame: pd.DataFrame, source: str, where: object, facts: JsonObject) -> Prices:
    """Prices of a table of times x series after the checks that all sources share.

    Times without a zone are read as UTC; `where` names the table in messages, `facts` join the
    provenance. Raises InputError for a price that is missing and for times that are not in order,
    hourly or daily.
    """
    values = np.ascontiguousarray(frame, np.float64)  # (T, S)
    check_complete(frame, values, where)
    check_order(frame.index, where)
    times, hourly = regular_times(frame.index, where)
    prices = Prices(times.to_numpy(), values, tuple(frame.columns), hourly, source, {})
    identity = {
        "rows": len(times),
        "first": prices.moment(0),
        "last": prices.moment(-1),
        "gaps": gaps_of(prices),
    }
    provenance = {"time_zone": zone_of(frame.index), **facts, **identity}
    return dataclasses.replace(prices, provenance=provenance)


def check_complete(frame: pd.DataFrame, values: np.ndarray, where: object) -> None:
    """Raises InputError for fewer than two rows, and for a price that is missing or not finite."""
    if len(frame) < 2:
        raise InputError(f"{where}: {len(frame)} rows of prices; at least 2 are needed")
    for row, column in np.argwhere(~np.isfinite(values))[:1]:
        raise InputError(
            f"{where}: {frame.columns[column]} at {frame.index[row]} is missing or not finite; "
            "every row needs every price"
        )


def check_order(times: pd.DatetimeIndex, where: object) -> None:
    """Raises InputError for a time that stands twice or comes after a later one."""
    for row in np.flatnonzero(times[1:] <= times[:-1])[:1]:
        twice = times[row] == times[row + 1]
        mistake = "stands twice" if twice else f"comes after {times[row]}"
        raise InputError(
            f"{where}: {times[row + 1]} {mistake}; every time once and in order is needed"
        )


def regular_times(index: pd.DatetimeIndex, where: object) -> tuple[pd.DatetimeIndex, bool]:
    """The times in UTC without a zone, in a daily series the local dates, and whether hourly.

    Raises InputError where most steps are neither an hour nor a day (of 5 days at most), and for
    two times that stand closer.
    """
    utc = index.tz_convert(None) if index.tz else index
    usual = np.sort(np.diff(utc))[(len(utc) - 2) // 2]  # the lower median
    hourly = bool(usual == HOUR)
    if not hourly and not DAY <= usual <= LONGEST_WEEKEND:
        raise InputError(
            f"{where}: most steps are {pd.Timedelta(usual)}; hourly or daily prices are needed"
        )
    times = utc if hourly else index.tz_localize(None).normalize()  # a day is its local date
    least = HOUR if hourly else DAY
    for row in np.flatnonzero(np.diff(times) < least)[:1]:
        raise InputError(
            f"{where}: {index[row]} and {index[row + 1]} stand too close; "
            f"steps of {pd.Timedelta(least)} or more are needed"
        )
    return times, hourly


def gaps_of(prices: Prices) -> JsonObject:
    """How many gaps a history has, how many steps they miss, and the largest of them."""
    steps = np.diff(prices.times)
    gaps = np.flatnonzero(~prices.contiguous())
    largest = gaps[np.argsort(-steps[gaps], kind="stable")][:LISTED_GAPS]
    unit = HOUR if prices.hourly else DAY
    return {
        "count": len(gaps),
        "missing_hours" if prices.hourly else "missing_days": int((steps[gaps] // unit - 1).sum()),
        "largest": [
            {"after": prices.moment(row), "before": prices.moment(row + 1)} for row in largest
        ],
    }


def zone_of(index: pd.DatetimeIndex) -> str:
    """What was done about the time zone of a table's times."""
    if index.tz is None:
        return "none named, read as UTC"
    zone = str(index.tz)
    return zone if zone == "UTC" else f"{zone}, turned into UTC"


def digest_of(frame: pd.DataFrame) -> str:
    """sha256 of a table's names, times and values."""
    digest = hashlib.sha256()
    digest.update("\0".join(frame.columns).encode())
    digest.update(frame.index.as_unit("ns").asi8.tobytes())
    digest.update(frame.to_numpy().tobytes("C"))
    return digest.hexdigest()


def one_line(error: object) -> str:
    """The beginning of an error's text on one line."""
    return " ".join(str(error).split())[:200]
