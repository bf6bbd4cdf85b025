"""A checked price history: the one form in which every source hands on its prices.

Shape letters: T times, S series.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from common.cli import InputError
from common.files import JsonObject
from common.forecasting.names import listed
from common.forecasting.sessions import DAY, HOUR, WEEK, Sessions

LONGEST_WEEKEND = 5 * DAY  # a step over a weekend with holidays is no gap in daily prices
LEAST_ROWS = 8  # of days that tell their usual step
MINUTE = np.timedelta64(1, "m")
LISTED_GAPS = 10  # in the provenance


@dataclasses.dataclass(frozen=True)
class Prices:
    """Checked prices of S series at T times, and where they come from.

    `times` datetime64[ns] (T,) in UTC, increasing; `values` float64 (T, S), finite; `step` is the
    usual one: minutes that divide an hour, hours that divide a day, a day or a week. `candles`
    float64 (T, 3, S) are high, low and volume of each step where they were asked for.
    """

    times: np.ndarray
    values: np.ndarray
    series: tuple[str, ...]
    step: np.timedelta64
    source: str
    provenance: JsonObject
    candles: np.ndarray | None = None

    @property
    def hourly(self) -> bool:
        """Whether the steps are hours."""
        return bool(self.step == HOUR)

    @functools.cached_property
    def sessions(self) -> Sessions | None:
        """When the market is open; None where it never closes, and for days and weeks."""
        if self.step >= DAY or not len(self.times):
            return None
        sessions = Sessions.of(self.times, self.step)
        return sessions if sessions.closes else None

    def contiguous(self) -> np.ndarray:
        """Whether the step from each row to the next is no gap, bool (T - 1,).

        Below a day only the usual step and a regular closure are none; days may be 5 apart.
        """
        steps = np.diff(self.times)
        if self.step == WEEK:
            return steps < 2 * WEEK
        if self.step == DAY:
            return steps <= LONGEST_WEEKEND
        sessions = self.sessions
        regular = steps == self.step
        return regular if sessions is None else regular | sessions.steps_over(self.times)

    def moment(self, row: int) -> str:
        """The time of a row in ISO 8601; only the date in a series of days or weeks."""
        text = str(self.times[row])
        return f"{text[:19]}Z" if self.step < DAY else text[:10]

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
            f"{prices.place} has the series {listed(prices.series)}; "
            f"exactly {listed(series)} are needed"
        )
    columns = [prices.series.index(name) for name in series]
    values = prices.values.take(columns, axis=1)  # (rows stay next to each other in memory)
    candles = None if prices.candles is None else prices.candles.take(columns, axis=2)
    return dataclasses.replace(prices, values=values, series=tuple(series), candles=candles)


def check_positive(prices: Prices, why: str) -> None:
    """Raises InputError that names the first price which is zero or negative, and `why`.

    `why` reads like "a logarithm needs prices above zero".
    """
    for row, column in np.argwhere(prices.values <= 0)[:1]:
        price = prices.values[row, column]
        raise InputError(
            f"{prices.place}: {prices.series[column]} is {price:g} at {prices.moment(row)}; {why} "
            "(--columns takes other series)"
        )


# -------------------------------------------------------------------------------------- checks


def checked_prices(frame: pd.DataFrame, source: str, where: object, facts: JsonObject) -> Prices:
    """Prices of a table of times x series after the checks that all sources share.

    Times without a zone are read as UTC; `where` names the table in messages, `facts` join the
    provenance. Raises InputError for a price that is missing, for times that are not in order, and
    for steps that are none of minutes, hours, days and weeks.
    """
    values = np.ascontiguousarray(frame, np.float64)  # (T, S)
    check_complete(frame, values, where)
    check_order(frame.index, where)
    times, step = regular_times(frame.index, where)
    prices = Prices(times.to_numpy(), values, tuple(frame.columns), step, source, {})
    identity = {
        "rows": len(times),
        "step": words_of(step),
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


def regular_times(
    index: pd.DatetimeIndex, where: object
) -> tuple[pd.DatetimeIndex, np.timedelta64]:
    """The times in UTC without a zone, for days and weeks the local dates, and the usual step.

    Raises InputError for a usual step of another kind, and for two times that stand closer.
    """
    utc = index.tz_convert(None) if index.tz else index
    usual = np.sort(np.diff(utc))[(len(utc) - 2) // 2]  # the lower median
    step = step_of(usual, len(utc), where)
    times = utc if step < DAY else dates_of(index.tz_localize(None))
    least = min(step, DAY)
    for row in np.flatnonzero(np.diff(times) < least)[:1]:
        raise InputError(
            f"{where}: {index[row]} and {index[row + 1]} stand too close; "
            f"steps of {words_of(least)} or more are needed"
        )
    return times, step


def step_of(usual: np.timedelta64, rows: int, where: object) -> np.timedelta64:
    """The step that the usual distance of so many times stands for; few days may hold weekends.

    Raises InputError for a step of another kind.
    """
    if DAY <= usual < 2 * DAY or (rows < LEAST_ROWS and DAY <= usual <= LONGEST_WEEKEND):
        return DAY
    divides = usual >= MINUTE and (HOUR % usual == 0 or (usual >= HOUR and DAY % usual == 0))
    if usual == WEEK or divides:
        return np.timedelta64(usual, "ns")
    raise InputError(
        f"{where}: most steps are {words_of(usual)}; allowed are minutes that divide an hour, "
        "hours that divide a day, days and weeks"
    )


def dates_of(times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The dates of days that are stamped at any hour.

    A day that begins at midnight in Frankfurt is stamped 22:00 or 23:00 of the day before in UTC.
    Such stamps are of the next day where that leaves fewer Saturdays and Sundays, or, in a market
    without weekends, from 22:00 on; those of London are at 00:00 in winter and 23:00 in summer.
    """
    days = times.normalize()
    hours = (times - days) / pd.Timedelta(hours=1)
    early, late = hours <= 2, (hours >= 22) & (hours % 0.25 == 0)
    if early.any() and late.any() and (early | late).all():
        return (times + pd.Timedelta(hours=12)).normalize()
    if not len(days) or hours.min() < 12 or (hours % 0.25).any():  # 23:59:59 ends a day
        return days
    later = days + pd.Timedelta(days=1)
    at_weekends = int((days.day_of_week >= 5).sum())
    later_at_weekends = int((later.day_of_week >= 5).sum())
    if at_weekends != later_at_weekends:
        return days if at_weekends < later_at_weekends else later
    return later if hours.min() >= 22 else days


def words_of(step: np.timedelta64) -> str:
    """A step in words: 1 hour, 15 minutes, 1 day."""
    for unit, name in ((WEEK, "week"), (DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if step % unit == 0:
            count = int(step // unit)
            return f"{count} {name}{'s' if count > 1 else ''}"
    return str(pd.Timedelta(step))


def gaps_of(prices: Prices) -> JsonObject:
    """How many gaps a history has, how many steps they miss, and the largest of them."""
    steps = np.diff(prices.times)
    gaps = np.flatnonzero(~prices.contiguous())
    largest = gaps[np.argsort(-steps[gaps], kind="stable")][:LISTED_GAPS]
    unit = prices.step
    key = "missing_hours" if unit == HOUR else "missing_days" if unit == DAY else "missing_steps"
    return {
        "count": len(gaps),
        key: int((steps[gaps] // unit - 1).sum()),
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
