"""Price tables of the user: a file, or a folder or .zip with a file for each ticker.

A file's bytes become cells (`cells`), a header and columns (`headers`), times (`times`) and numbers
(`numerals`), and prices by series (`shapes`); series that are not alike are cut by a stated rule
(`alike`); the checks of `history` are the same for all. What was read, chosen and left out stands
in the provenance as "read".
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.cli import InputError
from common.files import JsonObject
from common.forecasting.alike import alike, constants_of, jumps_of
from common.forecasting.candles import CANDLE_FIELDS, MENDED, aligned
from common.forecasting.cells import (
    check_name,
    index_as_column,
    is_table,
    is_visible,
    members_of,
    parquet_cells,
    plain_name,
    stem_of,
    text_cells,
)
from common.forecasting.config import Reading
from common.forecasting.folders import joined
from common.forecasting.headers import Sheet, sheet_of, sheet_of_frame
from common.forecasting.history import Prices, checked_prices, digest_of, one_line
from common.forecasting.names import listed
from common.forecasting.readings import with_read
from common.forecasting.shapes import Part, Wanted, part_of

DEFAULT = Reading()
Files = list[tuple[str, bytes]]  # their names and contents


def read_table(
    path: Path, reading: Reading = DEFAULT, series: Sequence[str] = (), candles: bool = False
) -> Prices:
    """Prices of a table, wide, long or of one ticker, or of a folder or .zip of such tables.

    `series` are those that a saved run needs: where all are there, others are left out. With
    `candles` the high, low and volume beside each close are read too. Raises InputError with one
    line that says where the table is not what is needed.
    """
    path = Path(path)
    notes: list[str] = []
    files, digest = files_of(path, notes)
    wanted = Wanted.of(reading, series, candles)
    facts: JsonObject = {"path": path.name, "sha256": digest}
    parts = []
    for name, raw in files:
        where = path if len(files) == 1 else f"{path}, {name}"
        sheet = sheet_of_file(where, name, raw, notes)
        if len(files) == 1 and not plain_name(name).endswith(".parquet"):
            facts = {"separator": sheet.separator, **facts}
        parts.append(part_of(sheet, stem_of(name), reading, wanted, where, notes))
    stems = [stem_of(name) for name, _ in files]
    frame = joined([part.frame for part in parts], stems, path, notes)
    by_file = len(parts) == 1 and parts[0].by_file
    taken = tuple(name for part in parts for name in part.taken)
    beside = {
        field: joined([part.candles[field] for part in parts], stems, path, [])
        for field in parts[0].candles
    }
    whole = Part(frame, by_file, taken, beside)
    return prices_of(whole, reading, wanted, path, facts, notes)


def read_frame(
    frame: pd.DataFrame, reading: Reading = DEFAULT, series: Sequence[str] = (), name: str = "frame"
) -> Prices:
    """Prices of a data frame, read as a file with the same columns; its index is one of them.

    `name` stands in messages, and names the series of a close without a ticker. Raises InputError
    as `read_table` does.
    """
    notes: list[str] = []
    wanted = Wanted.of(reading, series)
    sheet = sheet_of_frame(index_as_column(frame), name)
    part = part_of(sheet, name, reading, wanted, name, notes)
    facts: JsonObject = {"path": name, "sha256": digest_of(part.frame)}
    return prices_of(part, reading, wanted, name, facts, notes)


def prices_of(
    part: Part,
    reading: Reading,
    wanted: Wanted,
    where: object,
    facts: JsonObject,
    notes: list[str],
) -> Prices:
    """The checked prices of what was read, with the wanted series and a word on all of it."""
    frame, asked = chosen_series(part, wanted, where, notes)
    frame, ragged = alike(frame, asked, reading.fill, where, notes)
    if ragged:
        facts["times_not_in_every_series"] = ragged
    candles = None
    if part.candles:
        candles, facts["candles"] = candles_of(part, frame, where, notes)
    prices = dataclasses.replace(checked_prices(frame, "csv", where, facts), candles=candles)
    jump = jumps_of(prices.values, prices.series, pd.DatetimeIndex(prices.times))
    still = constants_of(prices.values, prices.series)
    return with_read(prices, [*notes, *filter(None, (jump, still))])


def candles_of(
    part: Part, frame: pd.DataFrame, where: object, notes: list[str]
) -> tuple[np.ndarray, JsonObject]:
    """The candles (T, 3, S) of the frame's closes, and what is recorded of them."""
    beside = part.candles
    if frame.shape[1] == 1 == part.frame.shape[1]:  # perhaps under another name by now
        beside = {
            field: of_field.set_axis(frame.columns, axis=1) for field, of_field in beside.items()
        }
    candles, mended = aligned(beside, frame, where)
    notes.append("with high, low and volume of every step")
    for what, count in mended.items():
        if count:
            notes.append(f"{count:,} candles {MENDED[what]}")
    return candles, {"columns": list(CANDLE_FIELDS), **mended}


def chosen_series(
    part: Part, wanted: Wanted, where: object, notes: list[str]
) -> tuple[pd.DataFrame, bool]:
    """The wanted series of a frame, else all, and whether they were asked for.

    Raises InputError for a name of --columns that is neither a series nor a column.
    """
    frame = part.frame
    by_name = {str(name).lower(): name for name in frame}
    found = [by_name[name.lower()] for name in wanted.names if name.lower() in by_name]
    if wanted.required:
        columns = {name.lower() for name in part.taken}
        for name in wanted.names:
            if name.lower() not in by_name and name.lower() not in columns:
                raise InputError(
                    f"--columns {name}: {where} has the series {listed(list(map(str, frame)))}, "
                    "and no column of that name"
                )
        return frame[found] if found else frame, True
    if wanted.names and len(found) == len(wanted.names):
        left_out = [str(name) for name in frame if name not in found]
        if left_out:
            notes.append(f"left out, as the run has no such series: {listed(left_out)}")
        return frame[found], True
    if len(wanted.names) == 1 and part.by_file:
        # AAPL-2025.csv for a run of AAPL: the same ticker, from a later file
        words = re.split(r"[^A-Za-z0-9]+", str(frame.columns[0]).lower())
        if re.split(r"[^A-Za-z0-9]+", wanted.names[0].lower())[0] in words:
            notes.append(f"taken as {wanted.names[0]}")
            return frame.set_axis(list(wanted.names), axis=1), True
    return frame, bool(part.taken)


# -------------------------------------------------------------------------------------- files


def files_of(path: Path, notes: list[str]) -> tuple[Files, str]:
    """The tables in a file, a folder or a .zip, and one sha256 over them.

    Raises InputError where there is none, or where it cannot be read.
    """
    if path.is_dir():
        return files_of_folder(path, notes)
    if not path.is_file():
        kind = "is no regular file" if path.exists() else "does not exist"
        raise InputError(f"{path} {kind}; a table of prices is needed")
    check_name(path, path.name)
    raw = contents(path)
    digest = hashlib.sha256(raw).hexdigest()
    if not path.name.lower().endswith(".zip"):
        return [(path.name, raw)], digest
    try:
        return members_of(raw), digest
    except Exception as error:  # zipfile and zlib raise many
        raise InputError(f"{path}: not a readable table ({one_line(error)})") from None


def files_of_folder(folder: Path, notes: list[str]) -> tuple[Files, str]:
    """The tables of a folder, and one sha256 over their names and contents."""
    try:
        places = sorted(place for place in folder.iterdir() if is_visible(place.name))
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror})") from None
    tables = [place for place in places if place.is_file() and is_table(place.name)]
    if not tables:
        raise InputError(f"{folder} is a folder without a table of prices; one a ticker is needed")
    others = [place.name for place in places if place not in tables]
    if others:
        notes.append(f"left out of the folder: {listed(others)}")
    files: Files = []
    digest = hashlib.sha256()
    for place in tables:
        raw = contents(place)
        digest.update(f"{place.name}\0{hashlib.sha256(raw).hexdigest()}\n".encode())
        files += (
            files_of(place, notes)[0] if place.suffix.lower() == ".zip" else [(place.name, raw)]
        )
    return files, digest.hexdigest()


def contents(path: Path) -> bytes:
    """A file's bytes. Raises InputError where the system refuses them."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None


def sheet_of_file(where: object, name: str, raw: bytes, notes: list[str]) -> Sheet:
    """The named columns of a file's bytes. Raises InputError where it is damaged, or no table."""
    is_parquet = plain_name(name).endswith(".parquet")
    try:
        if is_parquet:
            frame = parquet_cells(raw)
        else:
            frame, separator = text_cells(name, raw, notes)
    except Exception as error:  # a damaged file raises pyarrow's, zlib's and pandas' own errors
        raise InputError(f"{where}: not a readable table ({one_line(error)})") from None
    return sheet_of_frame(frame, where) if is_parquet else sheet_of(frame, separator, where, notes)
