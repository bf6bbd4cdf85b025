"""The rows of a table as times x series: long tables by ticker, and tables with the newest first.

Shape letters: T times, S series.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from common.cli import InputError
from common.forecasting.history import check_order, words_of
from common.forecasting.names import TICKER_NAMES, Label, is_ticker_name, plain
from common.forecasting.numerals import cells_of, is_text

LONGEST_HOLE = 10  # usual steps
MINUTES = (5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1440)
GRID = tuple(60 * 10**9 * minutes for minutes in MINUTES)  # nanoseconds
CODES = (
    "unique id",
    "ticker",
    "symbol",
    "code",
    "permno",
    "gvkey",
)  # columns of tickers that may be numbers


def ticker_column(table: pd.DataFrame, labels: Sequence[Label], times: pd.DatetimeIndex) -> str:
    """The column that says which ticker a row is of, or "".

    One without a usual name is taken where times stand several times and it is the only one of
    words.
    """
    known = [label.name for label in labels if is_ticker_name(label.name)]
    for name in sorted(known, key=lambda name: TICKER_NAMES.index(plain(name))):
        whole = cells_of(table[name]).str.fullmatch(r"\d+").all()
        if is_text(table[name]) or (plain(name) in CODES and whole):
            return name
    if not times.has_duplicates:
        return ""
    words = [label.name for label in labels if is_text(table[label.name])]
    several = [name for name in words if table[name].nunique() > 1]
    return several[0] if len(several) == 1 else ""


def long_frame(
    times: pd.DatetimeIndex,
    tickers: pd.Series,
    prices: np.ndarray,
    where: object,
    notes: list[str],
) -> pd.DataFrame:
    """Times x series of a long table (rows), in the order in which its tickers first stand.

    Raises InputError for a ticker whose times are not in order, or stand twice.
    """
    codes, names = pd.factorize(tickers)
    groups = pd.Series(codes).groupby(codes).indices
    rows = [np.sort(groups[code]) for code in range(len(names))]
    steps = [np.diff(times.asi8[row]) for row in rows]
    if any(map(len, steps)) and all((step < 0).all() for step in steps):
        notes.append("newest first, turned round")
        rows = [row[::-1] for row in rows]
    orders = [in_order(times.asi8[row]) for row in rows]
    rows = [row if order is None else row[order] for row, order in zip(rows, orders, strict=True)]
    if any(order is not None for order in orders):
        notes.append("rows are sorted by time")
    for name, row in zip(names, rows, strict=True):
        check_order(times[row], f"{where}, series {name}")
    stamps, places = np.unique(times.asi8, return_inverse=True)
    values = np.full((len(stamps), len(names)), np.nan)  # (T, S)
    values[places, codes] = prices
    index = pd.DatetimeIndex(stamps.view("M8[ns]"))
    if times.tz is not None:
        index = index.tz_localize("UTC").tz_convert(times.tz)
    return pd.DataFrame(values, index, list(names))


def oldest_first(frame: pd.DataFrame, where: object, notes: list[str]) -> pd.DataFrame:
    """The frame in the order of time, and without a last row that was written while a step ran.

    Raises InputError for a time that stands twice.
    """
    for time in frame.index[frame.index.duplicated()][:1]:
        local = frame.index.tz is None and time != time.normalize()
        advice = "; local times when clocks go back? write UTC or offsets" if local else ""
        raise InputError(
            f"{where}: {time} stands twice; every time once is needed, or a column named ticker in "
            f"a long table{advice}"
        )
    steps = np.diff(frame.index.asi8)
    if len(steps) and (steps < 0).all():
        notes.append("newest first, turned round")
        frame = frame.iloc[::-1]
    order = in_order(frame.index.asi8)
    if order is not None:
        notes.append("rows are sorted by time")
        frame = frame.iloc[order]
    return without_unfinished(frame, notes)


def in_order(stamps: np.ndarray) -> np.ndarray | None:
    """What sorts times that are not in order, where that leaves no long hole; else None.

    A hole is what a mistaken date leaves, which is to be refused.
    """
    if not (np.diff(stamps) < 0).any():
        return None
    order = np.argsort(stamps, kind="stable")
    steps = np.diff(stamps[order])
    usual = np.sort(steps)[(len(steps) - 1) // 2]  # the lower median
    harmless = steps.min() > 0 and steps.max() <= LONGEST_HOLE * usual
    return order if harmless else None


def without_unfinished(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The frame without a last row between two steps: a price of the moment of the download."""
    stamps = frame.index.asi8
    if len(stamps) < 4:
        return frame
    usual = int(np.median(np.diff(stamps[:-1])))
    if usual <= 0 or stamps[-1] - stamps[-2] >= usual:
        return frame
    if (stamps[:-1] % usual != stamps[-2] % usual).any():
        return frame  # (no regular steps before it either)
    notes.append(f"the last row, {frame.index[-1]}, is no whole step and left out")
    return frame.iloc[:-1]


def without_repeats(
    table: pd.DataFrame, times: pd.DatetimeIndex, notes: list[str]
) -> tuple[pd.DataFrame, pd.DatetimeIndex]:
    """The table and its times without rows that repeat another one in every cell."""
    if not times.has_duplicates:
        return table, times
    repeated = table.duplicated().to_numpy()
    count = int(repeated.sum())
    if count:
        notes.append(f"{count:,} row{'s' if count > 1 else ''} repeated in every cell left out")
    return table[~repeated].reset_index(drop=True), times[~repeated]


def on_the_grid(times: pd.DatetimeIndex, notes: list[str]) -> pd.DatetimeIndex:
    """Times that scatter by seconds about whole steps, as those of requests do, on these steps."""
    stamps = times.asi8
    if len(stamps) < 4:
        return times
    usual = float(np.median(np.abs(np.diff(stamps))))
    step = min(GRID, key=lambda length: abs(length - usual))
    rounded = (stamps + step // 2) // step * step
    scattered = len(np.unique(stamps % step)) > max(2, len(stamps) // 4)
    near = abs(usual - step) <= 0.02 * step and (abs(stamps - rounded) <= 0.1 * step).all()
    if not scattered or not near or len(np.unique(rounded)) < len(stamps):
        return times
    notes.append(f"times are rounded to whole steps of {words_of(np.timedelta64(step, 'ns'))}")
    on_grid = pd.DatetimeIndex(rounded.view("M8[ns]"))
    return on_grid if times.tz is None else on_grid.tz_localize("UTC")
