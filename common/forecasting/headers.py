"""The header of a text table: one line, yfinance's two or three, or none above known columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from common.cli import InputError
from common.forecasting.names import TICKER_FIELDS, Label, label_of, plain, time_rank, with_letters
from common.forecasting.numerals import MISSING
from common.forecasting.times import CLOCK_NUMBER, TIME_OF_DAY, is_number, looks_like_time

LONGEST_HEADER = 3  # lines
LONGEST_PREAMBLE = 30  # lines of as many fields as the table has, above its header
LONGEST_FOOTER = 5  # lines of one field below a table
CHECKED_ROWS = 1000  # of a table without a header
OHLC = ("open", "high", "low", "close")
# the columns that Binance's files have, with a header and without
BINANCE = (
    *("open_time", *OHLC, "volume", "close_time", "quote_asset_volume", "number_of_trades"),
    *("taker_buy_base_asset_volume", "taker_buy_quote_asset_volume", "ignore"),
)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table under its columns' names, what each column is, and the separator of its file."""

    table: pd.DataFrame
    labels: tuple[Label, ...]
    separator: str = ","


def sheet_of(cells: pd.DataFrame, separator: str, where: object, notes: list[str]) -> Sheet:
    """The cells of a text table under the names of its header.

    Raises InputError for a table without a header whose columns are not known by their cells.
    """
    cells = without_footer(cells, where, notes)
    if is_data(cells, 0):
        labels = labels_of_data(cells, separator, where)
        named = ", ".join(label.name for label in labels if label.name)
        notes.append(f"no header line; taken as {named}")
        return named_sheet(cells, labels, separator, where)
    count = 1
    while count < min(LONGEST_PREAMBLE, len(cells)) and not is_data(cells, count):
        count += 1
    lines = [[str(cell).strip() for cell in cells.iloc[row].fillna("")] for row in range(count)]
    above = 1 < count < min(LONGEST_PREAMBLE, len(cells))  # several lines above the first row
    several = labels_of_lines(lines) if above and count <= LONGEST_HEADER else None
    if several is not None:
        notes.append(f"{count} header lines, as yfinance writes them")
    else:
        place = header_among(lines) if above else None
        if place is None:
            place, lines, count = 0, lines[:1], 1
        left_out = [separator.join(line)[:60] for line in (*lines[:place], *lines[place + 1 :])]
        if count > 1:
            told = ", ".join(map(repr, left_out))
            notes.append(f"left out beside the header: {told}")
        several = tuple(label_of(name) for name in lines[place])
    table = cells.iloc[count:].reset_index(drop=True)
    return named_sheet(without_headers(table, lines, notes), several, separator, where)


def header_among(lines: Sequence[Sequence[str]]) -> int | None:
    """Which of several lines above the first row is the header; None where that is not clear.

    It is the last one that begins with a usual name of times, else the first one if it begins
    with an empty field, else the last one if all of its fields are different words.
    """
    named = [
        place
        for place, line in enumerate(lines)
        if time_rank(line[0]) >= 0 and not is_date_in(line)
    ]
    words = [all(cell and not is_number(cell) for cell in line) for line in lines]
    if named:
        place = named[-1]
    elif not lines[0][0]:
        place = 0
    elif words[-1] and len(set(lines[-1])) == len(lines[-1]) and not is_date_in(lines[-1]):
        place = len(lines) - 1
    else:
        return None
    below = [cell for line in lines[place + 1 :] for cell in line]
    return None if any(is_number(cell) for cell in below) else place


def is_date_in(line: Sequence[str]) -> bool:
    """Whether a line has a date, so that it is no header."""
    return any(looks_like_time(cell) for cell in line)


def without_footer(cells: pd.DataFrame, where: object, notes: list[str]) -> pd.DataFrame:
    """The cells without empty lines, and without the last ones of one field, as a source."""
    if cells.shape[1] < 2:
        return cells
    blank = cells.index[cells.iloc[:, 0].fillna("").str.strip() == ""]
    texts = cells.loc[blank].fillna("").apply(lambda column: column.str.strip())
    cells = cells.drop(index=blank[(texts == "").all(axis=1)])
    if not len(cells):
        raise InputError(f"{where}: every line is empty; a table of prices is needed")
    end = len(cells)
    while end > max(len(cells) - LONGEST_FOOTER, 2):
        first, *others = (str(cell).strip() for cell in cells.iloc[end - 1].fillna(""))
        if any(others) or not first or looks_like_time(first):
            break
        end -= 1
    for first in cells.iloc[end:, 0]:
        notes.append(f"left out below the table: {str(first).strip()[:60]!r}")
    return cells.iloc[:end]


def without_headers(
    table: pd.DataFrame, lines: Sequence[Sequence[str]], notes: list[str]
) -> pd.DataFrame:
    """The table without rows that repeat a line of its header, as joined files have them."""
    repeated = pd.Series(False, table.index)
    for line in lines:
        if line[0]:
            repeated |= table.iloc[:, 0].astype("str").str.strip() == line[0]
    for row in np.flatnonzero(repeated):
        cells = [str(cell).strip() for cell in table.iloc[row].fillna("")]
        repeated.iloc[row] = cells in [list(line) for line in lines]
    count = int(repeated.sum())
    if not count:
        return table
    notes.append(f"the header is repeated {count} time{'s' if count > 1 else ''} and left out")
    return table[~repeated].reset_index(drop=True)


def sheet_of_frame(frame: pd.DataFrame, where: object) -> Sheet:
    """The columns of a data frame; pairs of field and ticker are yfinance's."""
    labels = []
    for column in frame.columns:
        words = [str(word).strip() for word in column] if isinstance(column, tuple) else []
        fields = [word for word in words if plain(word) in TICKER_FIELDS]
        others = [word for word in words if word and word not in fields]
        if len(fields) == 1 and len(others) <= 1:
            name = " ".join((*others, *fields))
            labels.append(Label(name, "".join(others), TICKER_FIELDS[plain(fields[0])]))
        else:
            labels.append(label_of(" ".join(words) if words else str(column)))
    return named_sheet(frame, tuple(labels), ",", where)


def named_sheet(
    table: pd.DataFrame, labels: Sequence[Label], separator: str, where: object
) -> Sheet:
    """The table under names, without columns that have neither a name nor cells.

    Raises InputError for a name that stands twice, and where a later column has none.
    """
    names = [label.name.strip() for label in labels]
    kept = []
    for place, name in enumerate(names):
        cells = table.iloc[:, place]
        empty = cells.isna() | cells.astype("str").str.strip().isin(("",))
        if name or not empty.all():
            kept.append(place)
        if not name and place and not empty.all():
            raise InputError(
                f"{where}: a column without a name, the {ordinal(place + 1)}; each needs its own"
            )
    if not kept:
        raise InputError(f"{where}: no column has a name; a table of prices is needed")
    lower = [names[place].lower() for place in kept]
    for name in lower:
        if lower.count(name) > 1:
            raise InputError(f"{where}: two columns named {name}; each needs its own")
    chosen = with_letters([dataclasses.replace(labels[place], name=names[place]) for place in kept])
    table = table.iloc[:, kept].set_axis([label.name for label in chosen], axis=1)
    return Sheet(table, tuple(chosen), separator)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ..."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number // 10 % 10 != 1 else 0, "th")
    return f"{number}{ending}"


def is_data(cells: pd.DataFrame, row: int) -> bool:
    """Whether a row holds values: its first cell is a time, or numbers and times are all it has."""
    if row >= len(cells):
        return False
    filled = [str(cell).strip() for cell in cells.iloc[row].fillna("") if str(cell).strip()]
    if not filled:
        return False
    first = str(cells.iat[row, 0] if isinstance(cells.iat[row, 0], str) else "").strip()
    if first and looks_like_time(first):
        return True
    times = [looks_like_time(cell) for cell in filled]
    numbers = [is_number(cell) for cell in filled]
    if all(time or number for time, number in zip(times, numbers, strict=True)):
        return True
    return any(times) and sum(numbers) > 1


# ------------------------------------------------------------------------------- header lines


def labels_of_lines(lines: Sequence[Sequence[str]]) -> tuple[Label, ...] | None:
    """The labels of yfinance's header lines, or None for lines of another kind.

    One line names the field of each column, another its ticker; a last one may name the index.
    """
    lines = list(lines)
    time = lines[0][0]
    if not any(lines[-1][1:]):
        time = lines.pop()[0]
    if len(lines) > 2:
        return None
    fields = [line for line in lines if all(is_field(word) for word in line[1:])]
    if len(fields) != 1 or not lines:
        return None
    tickers = next((line for line in lines if line is not fields[0]), [""] * len(fields[0]))
    labels = [
        Label(f"{ticker} {field}".strip(), ticker, label_of(field).field)
        for field, ticker in zip(fields[0][1:], tickers[1:], strict=True)
    ]
    return (label_of(time if time.lower() not in ("price", "ticker") else "time"), *labels)


def is_field(word: str) -> bool:
    """Whether a word is a field that yfinance gives of every ticker."""
    return label_of(word).field != "" and label_of(word).ticker == ""


# ----------------------------------------------------------------------------- without header


def labels_of_data(cells: pd.DataFrame, separator: str, where: object) -> tuple[Label, ...]:
    """The labels of a table without a header: a ticker, a time, open, high, low, close, and others.

    They are known by each row's low being its least and its high its largest price. Raises
    InputError for any other table.
    """
    rows = cells.iloc[:CHECKED_ROWS].fillna("").astype("str")
    first = [str(cell).strip() for cell in rows.iloc[0]]
    names: list[str] = []
    if not is_number(first[0]) and not looks_like_time(first[0]):
        names.append("ticker")
    if len(names) < len(first) and looks_like_time(first[len(names)]):
        names.append("date")
        clock = rows.iloc[:, len(names)] if len(names) < len(first) else pd.Series([""])
        if clock.str.fullmatch(TIME_OF_DAY).all() or clock.str.fullmatch(CLOCK_NUMBER).all():
            names.append("time")
        prices = rows.iloc[:, len(names) : len(names) + 4]
        if prices.shape[1] == 4 and are_candles(prices, separator):
            names = list(BINANCE) if len(first) == len(BINANCE) else [*names, *OHLC, "volume"]
            rest = [f"column {place}" for place in range(len(names) + 1, len(first) + 1)]
            return tuple(label_of(name) for name in (*names, *rest)[: len(first)])
    raise InputError(
        f"{where}: line 1 begins with {first[0]!r}, so there is no header line; "
        "put one with the columns' names first, such as time,BTC"
    )


def are_candles(cells: pd.DataFrame, separator: str) -> bool:
    """Whether four columns are open, high, low and close in every row."""
    texts = cells.replace(list(MISSING), "")
    if separator != ",":
        texts = texts.apply(lambda column: column.str.replace(",", ".", regex=False))
    prices = texts.apply(pd.to_numeric, errors="coerce").dropna().to_numpy("float64")
    if not len(prices):
        return False
    low, high = prices[:, 2], prices[:, 1]
    inside = (prices >= low[:, None]) & (prices <= high[:, None])
    return bool(inside.all() and (high > low).any())
