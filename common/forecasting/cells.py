"""Files of prices as tables of cells: endings, compression, encodings, separators, parquet."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
import statistics
import zipfile
from collections.abc import Sequence
from pathlib import PurePath

import pandas as pd

from common.cli import InputError
from common.forecasting.history import one_line
from common.forecasting.names import label_of, time_rank

TEXT_ENDINGS = (".csv", ".txt", ".tsv")
EXCEL_ENDINGS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
ALLOWED = ".csv, .txt and .tsv, plain, .gz or .zip, and .parquet"
# the comma last: where the decimal mark is a comma too, another separator has as many
SEPARATORS = "\t;|,"
SAMPLE_LINES = 60
SAMPLE_CHARACTERS = 200_000
LONGEST_PREAMBLE = 20  # lines above the header
HEADER_LINES = 3  # that tell an encoding
ENCODINGS = {
    "cp1252": "Windows-1252",
    "latin-1": "latin-1",
    "cp1250": "Windows-1250",
    "cp1251": "Windows-1251",
    "cp1254": "Windows-1254",
    "gb18030": "GB 18030",
    "shift_jis": "Shift JIS",
    "euc_kr": "EUC-KR",
}
GZIP = b"\x1f\x8b"
# the first bytes of files that are no text, whatever their names say
BINARY = {
    b"PK\x03\x04": "a .zip or a spreadsheet: name it .zip, or save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: save the sheet as CSV UTF-8",
    b"PAR1": "a parquet file: name it .parquet",
}
LARGEST_MEMBER = 8 * 2**30  # bytes of a file inside a .zip, against archives made to fill the disk


def plain_name(name: str) -> str:
    """A file's name in small letters, without .gz."""
    return name.lower().removesuffix(".gz")


def is_table(name: str) -> bool:
    """Whether a file's name is that of a table which is read here."""
    return plain_name(name).endswith((*TEXT_ENDINGS, ".parquet", ".zip"))


def check_name(where: object, name: str) -> None:
    """Raises InputError for the name of a file of another kind."""
    if is_table(name):
        return
    advice = ""
    if name.lower().endswith(EXCEL_ENDINGS):
        advice = "; save the sheet of a spreadsheet as CSV UTF-8"
    raise InputError(f"{where}: allowed are {ALLOWED}{advice}")


def stem_of(name: str) -> str:
    """A file's name without its endings: BTC-USD.csv.gz -> BTC-USD."""
    for ending in (".gz", ".zip", *TEXT_ENDINGS, ".parquet"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name


def members_of(raw: bytes) -> list[tuple[str, bytes]]:
    """The tables inside a .zip as (name, bytes), sorted by name.

    Raises ValueError where it has none, and zipfile's errors for a damaged one.
    """
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        names = [name for name in sorted(infos) if is_visible(name) and is_table(name)]
        names = [name for name in names if not name.lower().endswith(".zip")]
        if not names:
            raise ValueError(f"it holds {', '.join(sorted(infos)) or 'nothing'}, and no table")
        if sum(infos[name].file_size for name in names) > LARGEST_MEMBER:
            raise ValueError("unpacked it has more than 8 GiB")
        return [(PurePath(name).name, archive.read(name)) for name in names]


def is_visible(name: str) -> bool:
    """Whether no part of a path is hidden, nor of the folder that macOS adds to a .zip."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in PurePath(name).parts)


# ------------------------------------------------------------------------------------ parquet


def parquet_cells(raw: bytes) -> pd.DataFrame:
    """The columns of a parquet file, a named or temporal index among them."""
    return index_as_column(pd.read_parquet(io.BytesIO(raw)))


def index_as_column(table: pd.DataFrame) -> pd.DataFrame:
    """A frame with its index as the first column; row numbers without a name are left out."""
    only_numbers = table.index.nlevels == 1 and table.index.dtype.kind in "iu"
    only_numbers &= table.index.name is None
    return table.reset_index(drop=only_numbers)


# --------------------------------------------------------------------------------------- text


def text_cells(name: str, raw: bytes, notes: list[str]) -> tuple[pd.DataFrame, str]:
    """All cells of a text file as strings (rows, columns), and its separator.

    A preamble above the header is left out, which is noted. Raises ValueError and the errors of
    gzip and pandas for what is no table.
    """
    zipped = name.lower().endswith(".gz") or raw.startswith(GZIP)
    text = text_of(gzip.decompress(raw) if zipped else raw, notes)
    text = text.lstrip("\r\n")
    lines = sample_of(text)
    separator, usual = separator_of(lines)

    # Lines above the header, such as an address:
    count = preamble_of(lines, separator, usual)
    if count:
        if not lines[0].lower().startswith("sep="):
            left_out = ", ".join(repr(one_line(line)[:60]) for line in lines[:count])
            notes.append(f"left out above the header: {left_out}")
        text = text[sum(len(line) for line in text.splitlines(keepends=True)[:count]) :]

    # Rows may end in a separator that the header lacks:
    header = fields_of(lines[count], separator) if lines else []
    rows = [fields_of(line, separator) for line in lines[count + 1 :]]
    if 1 < usual == len(header) + 1:
        first = next(row for row in rows if len(row) == usual)
        if any(row[-1].strip() for row in rows if len(row) == usual):
            raise ValueError(
                f"line {count + 1} holds {len(header)} fields and a later one {len(first)}: "
                f"{separator.join(first)}"
            )
        end = text.find("\n")
        text = text[:end].rstrip("\r") + separator + text[end:]

    # with header=None pandas refuses rows longer than the first and leaves equal names alone
    cells = pd.read_csv(
        io.StringIO(text),
        sep=separator,
        header=None,
        dtype="str",
        keep_default_na=False,
        skipinitialspace=separator != "\t",
    )
    return cells, separator


def text_of(raw: bytes, notes: list[str]) -> str:
    """A file's text: UTF-8, UTF-16, else that of an older encoding, which is noted.

    Raises ValueError for what is no text.
    """
    for start, kind in BINARY.items():
        if raw.startswith(start):
            raise ValueError(f"it is {kind}")
    head = raw[:2000]
    encoding = "utf-8-sig"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in head and len(head) > 3:  # UTF-16 without a byte order mark
        encoding = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8-sig":
            raise ValueError("neither UTF-8 nor UTF-16") from None
        text, encoding = other_text(raw)
    if "\0" in text:
        raise ValueError("not a text: it holds zero bytes")
    if encoding != "utf-8-sig":
        notes.append(f"read as {encoding}")
    return text


def other_text(raw: bytes) -> tuple[str, str]:
    """The text of another encoding, and its name: the first one that shows the most known names."""
    head = b"\n".join(raw.split(b"\n", HEADER_LINES)[:HEADER_LINES])
    known = {}
    for encoding in ENCODINGS:
        with contextlib.suppress(UnicodeDecodeError):
            known[encoding] = known_names(head.decode(encoding))
    for encoding in sorted(known, key=known.__getitem__, reverse=True):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode(encoding), ENCODINGS[encoding]
    raise ValueError("in no known encoding; save it as CSV UTF-8")


def known_names(text: str) -> int:
    """How many fields of some lines are usual names of columns."""
    words = [word.strip(" \"'\r") for word in re.split(r"[,;\t|\n]", text)]
    return sum(time_rank(word) >= 0 or label_of(word).field != "" for word in words)


def sample_of(text: str) -> list[str]:
    """The first lines of a text that are whole."""
    lines = text[:SAMPLE_CHARACTERS].splitlines()
    if len(text) > SAMPLE_CHARACTERS and len(lines) > 1:
        lines = lines[:-1]
    return lines[:SAMPLE_LINES]


def separator_of(lines: Sequence[str]) -> tuple[str, int]:
    """The separator that splits most lines into equally many fields, and how many these are."""
    best, chosen = (0.0, 0), (",", 1)
    for separator in SEPARATORS:
        counts = [len(fields_of(line, separator)) for line in lines if line.strip()]
        counts = [count for count in counts if count > 1]
        if not counts:
            continue
        usual = max(statistics.multimode(counts))
        share = counts.count(usual) / len(lines)
        if (share, usual) > best:
            best, chosen = (share, usual), (separator, usual)
    return chosen


def preamble_of(lines: Sequence[str], separator: str, usual: int) -> int:
    """How many lines stand above the header: addresses, comments, and lines of fewer fields.

    Of lines with fewer fields than usual, one just above a row of numbers may be the header.
    """
    count = 0
    while count < min(len(lines) - 1, LONGEST_PREAMBLE) and usual > 1:
        filled = [field for field in fields_of(lines[count], separator) if field.strip()]
        comment = lines[count].startswith("#") or lines[count].lower().startswith("sep=")
        if len(filled) > 1 and not comment:
            break
        count += 1
    counts = [len(fields_of(line, separator)) for line in lines[: count + LONGEST_PREAMBLE]]
    whole = counts.index(usual) if usual in counts else count
    if whole > count and not any(is_number(field) for field in fields_of(lines[whole], separator)):
        return whole
    return count


def is_number(field: str) -> bool:
    """Whether a field is a number with a decimal point."""
    try:
        float(field)
    except ValueError:
        return False
    return True


def fields_of(line: str, separator: str) -> list[str]:
    """The fields of one line, quotes minded."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a field longer than the module allows
        return line.split(separator)
