"""The times of a table: which columns hold them, and their cells as times."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from common.cli import InputError
from common.forecasting.dates import COMPACT, EXAMPLE, date_times, is_date, read_form, read_iso
from common.forecasting.names import plain, time_rank

NUMBER = r"[+-]?\d{1,20}(?:\.\d{0,20})?(?:[eE]\+?\d{1,2})?"
TIME_OF_DAY = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:\s*[AaPp][Mm])?"
CLOCK_NUMBER = r"[0-2]\d[0-5]\d(?:[0-5]\d)?"
CLOCK_NAMES = ("time", "hour", "clock", "time utc", "heure", "hora", "uhrzeit", "ora")
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}  # nanoseconds
UNIT_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
CHECKED_ROWS = 1000
LAST_MINUTE = pd.Timedelta(hours=23, minutes=59)
EARLIEST, LATEST = 631_152_000, 4_102_444_800  # 1990 and 2100 in seconds since 1970


# --------------------------------------------------------------------------- which columns


def time_columns(table: pd.DataFrame, wanted: str, where: object) -> list[str]:
    """The column of the times, or the two of dates and of times of day.

    It is the wanted one, else of those with a usual name the first that holds dates, or numbers;
    else the first column whose cells are times. Raises InputError where there is none.
    """
    names = list(table.columns)
    if wanted:
        found = [name for name in names if name.lower() == wanted.strip().lower()]
        if not found:
            raise InputError(f"--time-column {wanted}: {where} has {', '.join(map(repr, names))}")
        return [found[0]]
    known = sorted((name for name in names if time_rank(name) >= 0), key=time_rank)
    days = [name for name in known if is_times(table[name])]
    dated = [name for name in days if not is_numeric(table[name]) or is_compact(table[name])]
    found = dated or days
    if len(found) > 1:  # days beside hours: the finer ones
        found.sort(key=lambda name: -table[name].nunique())
    if not found:
        found = [name for name in names if is_times(table[name]) and not is_numeric(table[name])]
        found = found or [name for name in names if is_clock(table[name])]
    time = (found or known or names)[0]
    return [time, *clock_beside(table, time)]


def clock_beside(table: pd.DataFrame, time: str) -> list[str]:
    """The column with the times of day of a column of dates, as MetaTrader has; else []."""
    dates = table[time]
    if dates.dtype.kind == "M" or table.empty or dates.astype("str").str.contains(r"[:T]").any():
        return []
    for name in table.columns:
        if name == time or plain(name) not in CLOCK_NAMES:
            continue
        text = table[name].astype("str").fillna("").str.strip()
        if text.str.fullmatch(TIME_OF_DAY).all() or text.str.fullmatch(CLOCK_NUMBER).all():
            return [name]
        if plain(name) == "hour" and text.str.fullmatch(r"1?\d|2[0-3]").all():
            return [name]
    return []


def is_times(column: pd.Series) -> bool:
    """Whether the first cell of a column is a time."""
    if column.dtype.kind == "M":
        return True
    cells = column.dropna().astype("str").str.strip()
    return not cells.empty and looks_like_time(str(cells.iloc[0]))


def looks_like_time(cell: str) -> bool:
    """Whether a cell begins with a date, or is a number that can be a date of 1990 to 2100."""
    cell = cell.strip()
    if not is_number(cell):
        return is_date(cell)
    return re.fullmatch(COMPACT, cell) is not None or unit_of(float(cell)) != ""


def is_number(cell: str) -> bool:
    """Whether a cell is a bare number."""
    return re.fullmatch(NUMBER, cell, re.ASCII) is not None


def counts_time(column: pd.Series, times: pd.DatetimeIndex) -> bool:
    """Whether a column is a clock beside the times: numbers since 1970 that go on as they do."""
    numbers = pd.to_numeric(column.iloc[:CHECKED_ROWS], errors="coerce").to_numpy(np.float64)
    if len(numbers) < 3 or not np.isfinite(numbers).all() or not unit_of(float(numbers[0])):
        return False
    steps = np.diff(numbers) * UNITS[unit_of(float(numbers[0]))]
    return bool(np.allclose(steps, np.diff(times.asi8[:CHECKED_ROWS]), rtol=1e-6, atol=1e3))


def is_clock(column: pd.Series) -> bool:
    """Whether numbers are counts since 1970 that only grow, or only fall, whatever their name."""
    if not is_times(column) or not is_numeric(column):
        return False
    counts = pd.to_numeric(column).to_numpy(np.float64)
    steps = np.diff(counts)
    known = bool(unit_of(float(counts.min()))) and bool(unit_of(float(counts.max())))
    return known and len(steps) > 1 and bool((steps > 0).all() or (steps < 0).all())


def is_numeric(column: pd.Series) -> bool:
    """Whether all cells of a column are bare numbers."""
    if column.dtype.kind in "iuf":
        return True
    return bool(column.astype("str").fillna("").str.strip().str.fullmatch(NUMBER).all())


def is_compact(column: pd.Series) -> bool:
    """Whether all cells of a column are dates without separators, as 20240131."""
    return bool(column.astype("str").fillna("").str.strip().str.fullmatch(COMPACT).all())


def unit_of(number: float) -> str:
    """The unit since 1970 in which a number lies in 1990 to 2100, or ""."""
    for unit, nanoseconds in UNITS.items():
        if EARLIEST <= number * (nanoseconds / 10**9) < LATEST:
            return unit
    return ""


# ------------------------------------------------------------------------------- their cells


def table_times(
    table: pd.DataFrame, names: list[str], date_format: str, where: object, notes: list[str]
) -> pd.DatetimeIndex:
    """The times of a table's rows (T,), of one column or joined of dates and times of day.

    A day that is stamped with its last minute is its date.
    """
    times = joined_times(table, names, date_format, where, notes)
    if len(times) and ((times - times.normalize()) >= LAST_MINUTE).all():
        notes.append("days are stamped with their last minute")
        return times.normalize()
    return times


def joined_times(
    table: pd.DataFrame, names: list[str], date_format: str, where: object, notes: list[str]
) -> pd.DatetimeIndex:
    """The times as they are written, of one column or of two."""
    column = table[names[0]]
    place = f"{where}: column {names[0]}"
    unknown = time_rank(names[0]) < 0 and not is_times(column)
    if unknown and not date_format:
        place = f"{where}: no time column, and the first, {names[0]},"
    if len(names) == 1:
        return times_of(column, date_format, place, notes)
    notes.append(f"{names[0]} and {names[1]} are joined")
    days = column.astype("str").fillna("").str.strip()
    clock = table[names[1]].astype("str").fillna("").str.strip()
    clock = clock.str.replace(r"^(\d{1,2})$", r"\1:00", regex=True)
    clock = clock.str.replace(r"^(\d\d)(\d\d)(\d\d)?$", r"\1:\2:\3", regex=True)
    clock = clock.str.replace(r":$", "", regex=True).str.replace(r"^(\d):", r"0\1:", regex=True)
    days = days.str.replace(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", regex=True)
    return times_of(days + " " + clock, date_format, place, notes)


def times_of(column: pd.Series, date_format: str, place: str, notes: list[str]) -> pd.DatetimeIndex:
    """A column's times (T,): with a zone where the cells name one, else without.

    `place` names file and column in messages; what was chosen between is noted. Raises InputError
    for cells that are no times, are of several forms, or can be read in two ways.
    """
    text = column.astype("str").fillna("").str.strip()
    check_filled(text, place)
    if column.dtype.kind == "M":
        return pd.DatetimeIndex(column).as_unit("ns")
    numbers = text.str.fullmatch(NUMBER)
    if date_format in UNITS or (not date_format and numbers.any()):
        return number_times(text, numbers, date_format, place, notes)
    if "%" not in date_format:
        return date_times(text, date_format, place, notes)
    times, reason = read_form(text, text, date_format, notes)
    if times is None:
        raise InputError(f"{place}: {reason} of the form --date-format {date_format}")
    return times


def check_filled(text: pd.Series, place: str) -> None:
    """Raises InputError for a cell without a digit."""
    for row in np.flatnonzero(~text.str.contains("[0-9]"))[:1]:
        cell = "" if text.iloc[row] == "NaT" else text.iloc[row]
        raise InputError(
            f"{place} holds {cell!r} in row {row + 1}; times such as {EXAMPLE} are needed"
        )


def number_times(
    text: pd.Series, numbers: pd.Series, unit: str, place: str, notes: list[str]
) -> pd.DatetimeIndex:
    """Times of dates without separators, as 20240131, or of counts since 1970.

    The unit of a count is told by its size: no number lies in 1990 to 2100 in two of them.
    """
    text = text.str.replace(
        r"^(\d{8})\.0*$", r"\1", regex=True
    )  # 20240131.0 of a column with holes
    needed = f"times such as {EXAMPLE}, or numbers since 1970 (--date-format s, ms, us or ns),"
    for row in np.flatnonzero(~numbers)[:1]:
        raise InputError(f"{place} holds {text.iloc[row]!r} in row {row + 1}; {needed} are needed")
    if not unit and text.str.fullmatch(COMPACT).all():
        compact = text.str.replace(r"^(\d{8})(\d{4,6})$", r"\1T\2", regex=True)
        times, reason = read_iso(compact, text, notes)
        if times is None:
            raise InputError(f"{place}: {reason} written as 20240131")
        return times

    counts = pd.to_numeric(text)
    sizes = counts.to_numpy(np.float64)
    factors = np.full(len(counts), UNITS.get(unit, 0), np.int64)
    for nanoseconds in () if unit else UNITS.values():
        seconds = sizes * (nanoseconds / 10**9)
        factors[(seconds >= EARLIEST) & (seconds < LATEST)] = nanoseconds
    unusable = (factors == 0) | ~(np.abs(sizes * factors) < 2.0**62)
    for row in np.flatnonzero(unusable)[:1]:
        serial = ((sizes > 20_000) & (sizes < 80_000)).all()
        advice = "; Excel's day numbers? save the column as dates" if serial else ""
        raise InputError(
            f"{place} holds {text.iloc[row]!r} in row {row + 1}; {needed} are needed{advice}"
        )
    if text.str.contains("[eE]").any() and counts.duplicated().any():
        raise InputError(
            f"{place} holds {text.iloc[0]!r} in row 1: a spreadsheet has cut digits off, and times "
            "stand twice; write numbers without an exponent"
        )
    whole = counts.dtype.kind in "iu"
    stamps = counts.to_numpy().astype("int64") * factors if whole else np.rint(sizes * factors)
    used = [UNIT_WORDS[name] for name, size in UNITS.items() if (factors == size).any()]
    notes.append(f"times are {' and '.join(used)} since 1970")
    return pd.DatetimeIndex(stamps.astype("int64").view("M8[ns]")).tz_localize("UTC")
