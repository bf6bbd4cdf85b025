"""The numbers of a table: decimal and thousand marks, currency signs, missing values.

A table has one decimal mark. It is told by cells that can be read in one way only, as 1,234.5 or
1.0712; where all that have a mark can be thousands, as 998 beside 1.001, none is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from common.cli import InputError

Mark = Literal[".", ","]
MISSING = (
    *("", "nan", "na", "n/a", "#n/a", "null", "none", "<na>", "nat", "nd", "n.a.", "n.d."),
    *("#n/a n/a", "#value!", "#ref!", "#div/0!", "#num!", "#name?"),
    *(".", "..", "-", "--", "\N{EN DASH}", "\N{EM DASH}"),
)
CODES = (
    "USD[TC]?|EUR|GBP|BRL|CHF|JPY|CNY|CNH|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|TRY|RUB|ZAR|MXN|"
    "KRW|HKD|SGD|zł|kr\\.?|Kč|Ft|Rs\\.?"
)
# codes stand apart from the number: EUR1 is a word
CURRENCY = f"(?:R|C|A|HK|US)?[$€£¥₿₹₽₩₺฿]|^(?:{CODES})[ \u00a0]|[ \u00a0](?:{CODES})$"
# thousand marks that are no decimal mark anywhere: blanks of several widths, apostrophes
BLANK = "[ \u00a0\u202f\u2009'\N{RIGHT SINGLE QUOTATION MARK}]"
GROUPS = 4  # of three digits at most
ENOUGH = 10_000  # cells of a column that tell its decimal mark
SIGN = "[+-]?"
EXPONENT = "(?:[eE][+-]?\\d+)?"


def cells_of(column: pd.Series) -> pd.Series:
    """A column's cells as text without surrounding blanks; "" where there is none."""
    return column.astype("str").fillna("").str.strip()


def is_text(column: pd.Series) -> bool:
    """Whether a column holds words, and no number at all."""
    if column.dtype.kind in "iufb":
        return False
    if column.dtype.kind == "M":
        return True
    for cells in (column.iloc[:ENOUGH], column):  # the first tell nearly always
        text = cells_of(cells)
        text = text[~text.str.lower().isin(MISSING)]
        if looks_numeric(text).any():
            return False
    return len(text) > 0


def looks_numeric(text: pd.Series) -> pd.Series:
    """Which cells are a number in one reading or another, infinity included."""
    number = f"{SIGN}(?:[\\d.,]*\\d[\\d.,]*{EXPONENT}|(?i:inf|infinity))"
    return without_signs(text).str.fullmatch(number)


def without_signs(text: pd.Series) -> pd.Series:
    """The cells without signs of currency, and without blanks and apostrophes between thousands."""
    if not text.str.contains(f"{CURRENCY}|{BLANK}").any():
        return text
    text = text.str.replace(CURRENCY, "", regex=True)
    text = text.str.replace(f"^{BLANK}+|{BLANK}+$", "", regex=True)
    for _ in range(GROUPS):
        text = text.str.replace(rf"(\d){BLANK}(\d{{3}})(\D|$)", r"\1\2\3", regex=True)
    return text


def is_row_number(column: pd.Series) -> bool:
    """Whether a column counts its rows: whole numbers, each one more than the one before."""
    numbers = pd.to_numeric(cells_of(column), errors="coerce").to_numpy(np.float64)
    return len(numbers) > 1 and bool((np.abs(np.diff(numbers)) == 1).all())


# ------------------------------------------------------------------------------ decimal mark


def decimal_mark(
    table: pd.DataFrame,
    names: Sequence[str],
    beside: Sequence[str],
    separator: str,
    where: object,
) -> Mark:
    """The decimal mark of a table's columns, told by those `beside` them where they do not tell.

    Raises InputError where its cells contradict each other, or can all be thousands.
    """
    head = {name: table[name].iloc[:ENOUGH] for name in names}
    if len(table) > ENOUGH and any(has_proof(column) for column in head.values()):
        return mark_of(head, separator, where)
    whole = {name: table[name] for name in names}
    try:
        return mark_of(whole, separator, where)
    except InputError:
        telling = [table[name] for name in beside if has_proof(table[name])]
        if not telling or any(has_proof(column) for column in whole.values()):
            raise
        return mark_of({str(column.name): column for column in telling}, separator, where)


def has_proof(column: pd.Series) -> bool:
    """Whether a column has a cell that tells its decimal mark."""
    text = marked_cells(column)
    return bool((text.str.fullmatch(one_way(".")) | text.str.fullmatch(one_way(","))).any())


def mark_of(columns: Mapping[str, pd.Series], separator: str, where: object) -> Mark:
    """The decimal mark of some columns. Raises InputError as `decimal_mark` does."""
    evidence: dict[str, str] = {}  # a cell for each mark
    doubtful = ""
    for name, column in columns.items():
        text = marked_cells(column)
        for mark in (".", ","):
            proof = text[text.str.fullmatch(one_way(mark))]
            if len(proof):
                evidence.setdefault(mark, f"{proof.iloc[0]!r} in column {name}")
        if not doubtful:
            doubtful = doubtful_cell(column, text, separator)
    if len(evidence) == 2:
        raise InputError(
            f"{where} holds {evidence['.']} and {evidence[',']}: one decimal mark is needed; "
            "--decimal . or --decimal , says which"
        )
    if evidence:
        return "," if "," in evidence else "."
    if doubtful:
        raise InputError(
            f"{where}: {doubtful}; --decimal . or --decimal , says which mark is the decimal one"
        )
    return "."


def marked_cells(column: pd.Series) -> pd.Series:
    """The cells of a column that hold a point or a comma, without signs of currency."""
    if column.dtype.kind in "iufbM":
        return pd.Series([], dtype="str")
    text = cells_of(column)
    text = text[text.str.contains("[.,]") & text.str.contains(r"\d")]
    return without_signs(text)


def one_way(mark: str) -> str:
    """What a number looks like that has this decimal mark without a doubt."""
    other = "," if mark == "." else "."
    point, group = f"\\{mark}", f"\\{other}"
    return (
        f"{SIGN}(?:"
        f"\\d{{1,3}}(?:{group}\\d{{3}})+{point}\\d*"  # 1,234.5
        f"|\\d{{1,3}}(?:{group}\\d{{3}}){{2,}}"  # 1,234,567
        f"|\\d{{1,2}}(?:{group}\\d\\d)+{group}\\d{{3}}(?:{point}\\d*)?"  # 1,23,456.7 in India
        f"|\\d*{point}(?:\\d{{0,2}}|\\d{{4,}}){EXPONENT}"  # 1.5, 1.0712
        f"|\\d*{point}\\d+[eE][+-]?\\d+"  # 1.234e-05
        f"|(?:0\\d*|\\d{{4,}}|){point}\\d{{3}}"  # 0.123, 1234.567, .123
        ")"
    )


def doubtful_cell(column: pd.Series, marked: pd.Series, separator: str) -> str:
    """The first cell that may be a thousand, where no other of its column tells; else "".

    Points are taken as decimal where all cells have one and a comma separates the columns.
    """
    marked = marked[marked.str.fullmatch(f"{SIGN}[1-9]\\d{{0,2}}[.,]\\d{{3}}")]
    if marked.empty:
        return ""
    plain = cells_of(column).str.fullmatch(f"{SIGN}\\d+").any()
    if plain or separator == ";" or marked.str.contains(",").any():
        cell = str(marked.iloc[0])
        readings = f"{re.sub('[.,]', '', cell)} (thousands) or {cell.replace(',', '.')}"
        row = int(marked.index[0]) + 1
        return f"{cell!r} in row {row} of column {column.name} may be {readings}"
    return ""


# ------------------------------------------------------------------------------------ numbers


def numbers_of(column: pd.Series, mark: Mark, where: object) -> np.ndarray:
    """A column's numbers (T,), NaN where a cell is empty or names a missing value.

    Raises InputError for any other text.
    """
    if column.dtype.kind in "iuf":
        return column.to_numpy(np.float64, na_value=np.nan)
    text = cells_of(column)
    if mark == ".":
        numbers = pd.to_numeric(text, errors="coerce")
        left = numbers.isna() & ~text.str.lower().isin(MISSING)
    else:
        numbers = pd.Series(np.nan, text.index)
        left = ~text.str.lower().isin(MISSING)
    if left.any():
        plain = plain_numbers(text[left], mark)
        numbers = numbers.astype("float64")
        numbers[left] = pd.to_numeric(plain, errors="coerce")
        wrong = left & numbers.isna()
        for row in np.flatnonzero(wrong)[:1]:
            raise InputError(
                f"{where}: column {column.name} holds {text.iloc[row]!r} in row {row + 1}; "
                f"numbers with the decimal mark {mark} are needed"
            )
    return numbers.to_numpy(np.float64)


def plain_numbers(text: pd.Series, mark: Mark) -> pd.Series:
    """Cells with thousand marks and another decimal mark as plain numbers; others as ""."""
    group = "," if mark == "." else "."
    text = without_signs(text)
    start = f"(?:\\d{{1,3}}|\\d{{1,2}}(?:\\{group}\\d\\d)+)"  # 1,23,456.7 in India
    grouped = f"{SIGN}{start}(?:\\{group}\\d{{3}})+(?:\\{mark}\\d*)?"
    simple = f"{SIGN}(?:\\d+\\{mark}?\\d*|\\{mark}\\d+){EXPONENT}|{SIGN}(?i:inf|infinity)"
    known = text.str.fullmatch(grouped) | text.str.fullmatch(simple)
    text = text.where(known, "")
    return text.str.replace(group, "", regex=False).str.replace(mark, ".", regex=False)
