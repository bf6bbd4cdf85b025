"""The rows of a table as times x series: long tables by ticker, and tables with the newest first.

Shape letters: T times, S series.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from common.cli import InputError
from common.forecasting.history import check_order
from common.forecasting.names import TICKER_NAMES, Label, is_ticker_name, plain
from common.forecasting.numerals import cells_of, is_text

CODES = ("unique id", "ticker", "symbol", "code")  # columns of tickers that may be numbers


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
    """The frame, turned round where its times only ever go back.

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
        return frame.iloc[::-1]
    return frame
