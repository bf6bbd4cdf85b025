"""Which columns of a table are prices, and of which series: wide, of one ticker, or long.

A table of one ticker (open, high, low, close, ...) gives its close; a long one the closes of all
its tickers; every other column of a wide one is a price, but for volumes, indices and clocks.

Shape letters: T times, S series.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from common.cli import InputError
from common.forecasting.candles import candle_columns
from common.forecasting.config import Reading
from common.forecasting.headers import Sheet
from common.forecasting.names import (
    CLOSE,
    FIELD_OF,
    FIELDS,
    LISTED,
    TICKER_FIELDS,
    Label,
    listed,
    plain,
)
from common.forecasting.numerals import (
    cells_of,
    decimal_mark,
    is_row_number,
    is_text,
    numbers_of,
)
from common.forecasting.rows import (
    long_frame,
    oldest_first,
    on_the_grid,
    ticker_column,
    without_repeats,
)
from common.forecasting.times import counts_time, is_times, table_times, time_columns

CANDLES_CHECKED = 1000  # rows
LEAST_CANDLES = 10  # rows that tell a table of bars
NEAR = 1.5  # times the low, at most, for a high
CLOSE_WORDS = [word.strip() for word in FIELDS[CLOSE].split(",")]
ROW_NAMES = ("", "index", "id", "no", "nr", "num", "number", "row", "#")
# the names that Binance gives its files of one month or day
BINANCE_FILE = r"(.+?)-\d+(?:s|m|h|d|w|mo)-\d{4}-\d{2}(?:-\d{2})?"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The names of columns or series to take, whether each has to be there, and with candles."""

    names: tuple[str, ...] = ()
    required: bool = False
    candles: bool = False

    @classmethod
    def of(cls, reading: Reading, series: Sequence[str], candles: bool = False) -> Wanted:
        """What --columns names, else the series that a saved run needs."""
        return cls(reading.columns or tuple(series), bool(reading.columns), candles)


@dataclasses.dataclass(frozen=True)
class Columns:
    """The price columns of a sheet as {series: column}, and whether the file's name names it."""

    prices: dict[str, str]
    by_file: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """The prices of one file: times x series (T, S), NaN where a series has none.

    `by_file` says that the file's name is that of its one series; `taken` are the wanted names
    that were columns; `candles` are frames like that of the prices by field, where wanted.
    """

    frame: pd.DataFrame
    by_file: bool
    taken: tuple[str, ...]
    candles: Mapping[str, pd.DataFrame] = dataclasses.field(default_factory=dict)


def part_of(
    sheet: Sheet, stem: str, reading: Reading, wanted: Wanted, where: object, notes: list[str]
) -> Part:
    """The prices of a sheet. Raises InputError with one line for whatever is not understood."""
    table = sheet.table
    clocks = time_columns(table, reading.time_column, where)
    labels = [label for label in sheet.labels if label.name not in clocks]
    if not labels:
        raise InputError(
            f"{where}: {len(table)} rows and 0 price columns beside the time, "
            f"{sheet.labels[0].name[:60]!r}; 2 and 1 are the least, separated by a comma, "
            "semicolon, tab or |"
        )
    times = table_times(table, clocks, reading.date_format, where, notes)
    table, times = without_repeats(table, times, notes)
    ticker = ticker_column(table, labels, times)
    labels = [
        dataclasses.replace(label, field="row") if counts_time(table[label.name], times) else label
        for label in labels
        if not ticker or label.name != ticker
    ]
    tickers = cells_of(table[ticker]) if ticker else None
    is_long = tickers is not None and tickers.nunique() > 1
    if tickers is not None and not wanted.names:
        check_tickers(tickers, f"{where}: column {ticker}")
    if is_long:
        notes.append(f"series are named by {ticker}")

    # The columns to read:
    taken = taken_columns(labels, wanted)
    name = series_name(stem) if tickers is None or tickers.empty else tickers.iloc[0]
    columns = columns_of(table, labels, taken, name, where, is_long)
    beside = candle_columns(labels, columns.prices, where) if wanted.candles else {}
    read = [name for of_field in (columns.prices, *beside.values()) for name in of_field.values()]
    others = [label for label in labels if label.name not in read]
    note_columns(columns, others, bool(taken), is_long, notes)
    by_file = columns.by_file and tickers is None

    # Their cells:
    chosen = list(columns.prices.values())
    mark = reading.decimal
    if mark == "auto":
        unread = [label.name for label in labels if label.name not in chosen]
        mark = decimal_mark(table, chosen, unread, sheet.separator, where)
    values = numbers_by_series(table, columns.prices, mark, where)
    if not is_long:
        if not taken:
            check_candles(values, columns.prices, where)
        times = on_the_grid(times, notes)
    of_rows = tickers if is_long else None
    frame = frame_of(values, times, of_rows, where, notes)
    candles = {
        field: frame_of(numbers_by_series(table, of_field, mark, where), times, of_rows, where, [])
        for field, of_field in beside.items()
    }
    return Part(frame, by_file, taken, candles)


def numbers_by_series(
    table: pd.DataFrame, columns: Mapping[str, str], mark: Literal[".", ","], where: object
) -> dict[str, np.ndarray]:
    """The numbers (rows,) of columns by series."""
    return {series: numbers_of(table[column], mark, where) for series, column in columns.items()}


def frame_of(
    values: Mapping[str, np.ndarray],
    times: pd.DatetimeIndex,
    tickers: pd.Series | None,
    where: object,
    notes: list[str],
) -> pd.DataFrame:
    """Times x series of numbers by series, or of the one column of a long table by its tickers."""
    if tickers is not None:
        return long_frame(times, tickers, next(iter(values.values())), where, notes)
    return oldest_first(pd.DataFrame(values).set_axis(times), where, notes)


def check_tickers(tickers: pd.Series, place: str) -> None:
    """Raises InputError where the names of series are fields of one ticker, or one is missing."""
    for row in np.flatnonzero(tickers == "")[:1]:
        raise InputError(f"{place} is empty in row {row + 1}; every row needs its ticker")
    names = tickers.unique()
    if len(names) > 1 and all(plain(name) in TICKER_FIELDS for name in names):
        raise InputError(
            f"{place} holds {listed(list(names))}, the fields of one ticker; "
            "--columns close takes its close"
        )


def series_name(stem: str) -> str:
    """The series that a file's name stands for."""
    match = re.fullmatch(BINANCE_FILE, stem)
    return match[1] if match else stem


def check_candles(
    values: Mapping[str, np.ndarray], columns: Mapping[str, str], where: object
) -> None:
    """Raises InputError for four columns that are open, high, low and close under other names.

    One of them is always the largest, another always the least and near it, and the two between
    lie now this way and now that, as no four markets or yields do.
    """
    names = list(values)
    prices = np.array([values[name][:CANDLES_CHECKED] for name in names])  # (S, T)
    prices = prices[:, np.isfinite(prices).all(0)]
    if len(names) < 4 or len(names) > LISTED or prices.shape[1] < LEAST_CANDLES:
        return
    for high, low in itertools.permutations(range(len(names)), 2):
        top, bottom = prices[high], prices[low]
        near = (top >= bottom) & (top <= NEAR * bottom)
        if not near.all() or (top > bottom).mean() < 0.5:
            continue
        inside = [
            column
            for column in range(len(names))
            if column not in (high, low)
            and ((bottom <= prices[column]) & (prices[column] <= top)).all()
        ]
        for one, other in itertools.combinations(inside, 2):
            up = (prices[one] < prices[other]).mean()
            down = (prices[one] > prices[other]).mean()
            if min(up, down) > 0.1:
                four = [columns[names[place]] for place in sorted((high, low, one, other))]
                raise InputError(
                    f"{where}: {', '.join(four)} look like open, high, low and close of one "
                    "ticker; name the close, or all of them, with --columns"
                )


# ------------------------------------------------------------------------------------ columns


def taken_columns(labels: Sequence[Label], wanted: Wanted) -> tuple[str, ...]:
    """Which of the wanted names are columns; for a run's series all are, or none is taken so.

    A run's series may also stand as a quote: USD_per_EUR or EUR_per_USD.
    """
    lower = {label.name.lower(): label.name for label in labels}
    if wanted.required:
        return tuple(name for name in wanted.names if name.lower() in lower)
    found = [quote_of(series, [label.name for label in labels]) for series in wanted.names]
    return tuple(found) if all(found) else ()


def quote_of(series: str, columns: Sequence[str]) -> str:
    """The column that quotes a series, or "" where there is none."""
    for name in (f"USD_per_{series}", f"{series}_per_USD", series):
        if name in columns:
            return name
    return ""


def columns_of(
    table: pd.DataFrame,
    labels: Sequence[Label],
    taken: Sequence[str],
    name: str,
    where: object,
    is_long: bool,
) -> Columns:
    """The columns to read as prices, by series; `name` is that of a table of one ticker.

    Raises InputError where no column is a price, or, in a long table, several are.
    """
    by_name = {label.name.lower(): label for label in labels}
    if taken:
        chosen = [by_name[column.lower()] for column in taken]
        columns = named_columns(chosen, name)
    else:
        columns = default_columns(table, labels, name, where)
    if is_long and len(columns.prices) != 1:
        raise InputError(
            f"{where}: a long table with several columns of numbers "
            f"({listed(list(columns.prices.values()))}); name one of them with --columns"
        )
    return columns


def note_columns(
    columns: Columns, others: Sequence[Label], taken: bool, is_long: bool, notes: list[str]
) -> None:
    """Notes which column is the price of one ticker, and which `others` are left out."""
    if columns.by_file or is_long:
        column = next(iter(columns.prices.values()))
        notes.append(f"the price is {column}")
    if others:
        advice = "" if taken else " (--columns takes others)"
        left_out = [label.name or "the first" for label in others]
        notes.append(f"left out: {listed(left_out)}{advice}")


def named_columns(chosen: Sequence[Label], name: str) -> Columns:
    """Columns that were asked for: a single field is the file's series, others keep their names."""
    if len(chosen) == 1 and chosen[0].field and not chosen[0].ticker:
        return Columns({name: chosen[0].name}, by_file=True)
    tickers = [label.ticker for label in chosen]
    unique = len(set(tickers)) == len(tickers) and all(tickers)
    return Columns({label.ticker if unique else label.name: label.name for label in chosen})


def default_columns(
    table: pd.DataFrame, labels: Sequence[Label], name: str, where: object
) -> Columns:
    """The prices of a table by themselves: its close, or every column that is a price."""
    prices = [label for label in labels if is_price(table[label.name], label)]
    own = {label.field for label in prices if not label.ticker}
    closes = [label for label in prices if label.field == CLOSE and not label.ticker]
    closes.sort(key=lambda label: close_rank(label.name))
    adjusted = [label for label in prices if label.field == "adj close" and not label.ticker]
    others = [label for label in prices if label.field in ("", "clock") or label.ticker]
    bars = len(own & {"open", "high", "low"})  # (one of them alone may be a ticker, as LOW)
    is_close = bool(closes) and plain(closes[0].name) == CLOSE
    one_ticker = bars > 1 or (bars and is_close) or not others
    if one_ticker and (closes or (adjusted and not others)):
        return Columns({name: (closes or adjusted)[0].name}, by_file=True)

    # A wide table: the closes of its tickers, and columns that are no field of any
    with_close = {label.ticker for label in prices if label.field == CLOSE}
    found: dict[str, str] = {}
    for label in prices:
        is_close = label.field == CLOSE
        if label.field == "adj close" and label.ticker not in with_close:
            is_close = bool(label.ticker)
        if is_close and label.ticker and label.ticker not in found:
            found[label.ticker] = label.name
        elif not label.ticker or label.ticker not in with_close:
            found[label.name] = label.name
    if not found or not (others or closes):
        raise no_closes(table, labels, where)
    return Columns(found)


def no_closes(table: pd.DataFrame, labels: Sequence[Label], where: object) -> InputError:
    """The refusal of a table in which no column can be a price; it quotes one that has digits."""
    names = listed([label.name for label in labels])
    for label in labels:
        cells = cells_of(table[label.name])
        if label.field in ("", CLOSE) and cells.str.contains(r"\d").any():
            cell = cells[cells.str.contains(r"\d")].iloc[0]
            return InputError(
                f"{where}: no column of closes among {names}: {label.name} holds {cell!r}, which "
                "is no number; write plain ones, or name another column with --columns"
            )
    return InputError(f"{where}: no column of closes among {names}; --columns names one")


def close_rank(name: str) -> int:
    """How far behind "close" a name of closes stands."""
    text = plain(name)
    return CLOSE_WORDS.index(text) if text in CLOSE_WORDS else len(CLOSE_WORDS)


def is_price(column: pd.Series, label: Label) -> bool:
    """Whether a column can be a price by its name and cells."""
    if label.field in ("volume", "other", "row"):
        return False
    if label.field == "clock" and (plain(label.name) in FIELD_OF or is_times(column)):
        return False  # (other names of times, as DATA, are tickers too)
    if label.name.lower() in ROW_NAMES and is_row_number(column):
        return False
    return not is_text(column)
