"""Price tables of the user: csv, tsv, txt (plain or .gz) and parquet, wide or long.

A reader turns a file's bytes into a table; a shape (wide, long) turns the table into times x
series; the checks of `history` are the same for all.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from common.cli import InputError
from common.files import JsonObject
from common.forecasting.history import Prices, check_order, checked_prices, one_line

TIME_NAMES = ("time", "date", "ds", "datetime", "timestamp")
LONG_NAMES = {"unique_id", "ds", "y"}
TEXT_ENDINGS = (".csv", ".txt", ".tsv")
SEPARATORS = ",;\t"
MISSING = ("", "nan", "na", "n/a", "null", "none", "<na>")


def read_table(path: Path) -> Prices:
    """Prices from a table with a time column and one column per series, or long (unique_id, ds, y).

    Raises InputError with one line that says where the table is not what is needed.
    """
    path = Path(path)
    check_file(path)
    try:
        raw = path.read_bytes()
        table, facts = read_parquet(raw) if is_parquet(path) else read_text(path, raw)
    except Exception as error:  # a damaged file raises pyarrow's, zlib's and pandas' own errors
        raise InputError(f"{path}: not a readable table ({one_line(error)})") from None
    table = named_columns(table, path)
    facts |= {"path": path.name, "sha256": hashlib.sha256(raw).hexdigest()}
    if {name.lower() for name in table.columns} >= LONG_NAMES:
        frame, left_out = long_prices(table, path)
        facts["times_not_in_every_series"] = left_out
    else:
        frame = wide_prices(table, path)
    return checked_prices(frame, "csv", path, facts)


# -------------------------------------------------------------------------------------- files


def check_file(path: Path) -> None:
    """Raises InputError where there is no file, or one of an unknown kind."""
    if not path.is_file():
        mistake = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {mistake}; a table of prices is needed")
    if not is_parquet(path) and not ending(path).endswith(TEXT_ENDINGS):
        raise InputError(f"{path}: allowed are .csv, .txt and .tsv, plain or .gz, and .parquet")


def ending(path: Path) -> str:
    """The file's name in small letters, without .gz."""
    return path.name.lower().removesuffix(".gz")


def is_parquet(path: Path) -> bool:
    """Whether the file's name is that of a parquet table."""
    return ending(path).endswith(".parquet")


def read_parquet(raw: bytes) -> tuple[pd.DataFrame, JsonObject]:
    """The columns of a parquet file, a named or temporal index among them."""
    table = pd.read_parquet(io.BytesIO(raw))
    only_numbers = table.index.dtype.kind in "iu" and table.index.name is None
    return table.reset_index(drop=only_numbers), {}


def read_text(path: Path, raw: bytes) -> tuple[pd.DataFrame, JsonObject]:
    """The columns of a text file as strings, and the separator that its first line has most of."""
    plain = gzip.decompress(raw) if path.name.lower().endswith(".gz") else raw
    text = plain.decode("utf-8-sig").lstrip("\r\n")
    header = text.partition("\n")[0]
    separator = max(SEPARATORS, key=header.count)
    # with header=None pandas refuses rows longer than the first and leaves equal names alone
    cells = pd.read_csv(
        io.StringIO(text), sep=separator, header=None, dtype="str", keep_default_na=False
    )
    table = cells.iloc[1:].reset_index(drop=True).set_axis(cells.iloc[0], axis=1)
    return table, {"separator": separator}


def named_columns(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table under its columns' names without blanks.

    Raises InputError for a column without a name, or with that of another.
    """
    names = [str(name).strip() for name in table.columns]
    lower = [name.lower() for name in names]
    for name in lower:
        if not name:
            raise InputError(f"{path}: a column without a name; each needs its own")
        if lower.count(name) > 1:
            raise InputError(f"{path}: two columns named {name}; each needs its own")
    return table.set_axis(names, axis=1)


# ------------------------------------------------------------------------------------- shapes


def wide_prices(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Times x series of a time column (the first where none has a known name) and the others."""
    known = [place for place, name in enumerate(table) if name.lower() in TIME_NAMES]
    time_column = known[0] if known else 0
    series = table.drop(columns=table.columns[time_column])
    if series.empty:
        raise InputError(
            f"{path}: {len(series)} rows and {series.shape[1]} price columns beside the time; "
            "2 and 1 are the least"
        )
    times = times_of(table.iloc[:, time_column], path)
    return pd.DataFrame({name: numbers_of(series[name], path) for name in series}).set_axis(times)


def long_prices(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, int]:
    """Times x series of the columns unique_id, ds, y, and how many times not every series has."""
    table = table.rename(columns=str.lower)
    times = times_of(table["ds"], path)
    prices = numbers_of(table["y"], path)
    names = table["unique_id"].astype("str").fillna("")
    for row in np.flatnonzero(~np.isfinite(prices))[:1]:
        raise InputError(
            f"{path}: {names[row]} at {times[row]} is missing or not finite; "
            "every row needs a price"
        )
    for name, rows in names.groupby(names).indices.items():
        check_order(times[rows], f"{path}, series {name}")
    whole = pd.Series(prices, [times, names]).unstack()[list(names.unique())]
    shared = whole.dropna()
    if shared.empty:
        raise InputError(
            f"{path}: its series ({', '.join(whole)}) share no time; "
            "rows with the same ds are needed"
        )
    return shared, len(whole) - len(shared)


# ------------------------------------------------------------------------------------ columns


def times_of(column: pd.Series, path: Path) -> pd.DatetimeIndex:
    """A column's times, in one form and one zone.

    Raises InputError for anything else, bare numbers included (days, seconds or milliseconds?).
    """
    text = column.astype("str").fillna("").str.strip()
    check_times(text, path)
    reasons = []
    for form in ("ISO8601", None):  # None: another form, that of the first row
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                parsed = pd.to_datetime(column if column.dtype.kind == "M" else text, format=form)
                times = pd.DatetimeIndex(parsed).as_unit("ns")
            except (ValueError, OverflowError) as error:
                reasons.append(one_line(error).split(". ")[0])
                continue
        guessed = any("Could not infer" in str(warning.message) for warning in caught)
        if not times.hasnans and not guessed:
            return times
    reason = reasons[0] if reasons else "no times"
    raise InputError(
        f"{path}: column {column.name}: {reason}; "
        "one form and zone are needed, such as 2024-01-31T13:00:00Z"
    )


def check_times(text: pd.Series, path: Path) -> None:
    """Raises InputError for a cell without a digit, and for one that is a bare number."""
    no_time = ~text.str.contains("[0-9]") | pd.to_numeric(text, errors="coerce").notna()
    for row in np.flatnonzero(no_time)[:1]:
        column = f"column {text.name}"
        if text.name.lower() not in TIME_NAMES:
            column = f"no time column, and the first, {text.name},"
        raise InputError(
            f"{path}: {column} holds {text[row]!r} in row {row + 1}; "
            "times such as 2024-01-31T13:00:00Z are needed"
        )


def numbers_of(column: pd.Series, path: Path) -> np.ndarray:
    """A column's numbers (T,), NaN where a cell is empty or names a missing value.

    Raises InputError for any other text.
    """
    if column.dtype.kind in "iuf":
        return column.to_numpy(np.float64, na_value=np.nan)
    text = column.astype("str").fillna("").str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    wrong = numbers.isna() & ~text.str.lower().isin(MISSING)
    for row in np.flatnonzero(wrong)[:1]:
        raise InputError(
            f"{path}: column {column.name} holds {text[row]!r} in row {row + 1}; "
            "numbers with a decimal point are needed"
        )
    return numbers.to_numpy(np.float64)
