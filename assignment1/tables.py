"""Tables of faces as FER-2013 has them: columns emotion, pixels and Usage.

Shape letters: N rows, H W = 48 x 48 grey levels.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from assignment1.checks import Pictures, checked, whole_numbers
from assignment1.images import SIDE
from common.cli import InputError
from common.run import progress

ROWS_AT_ONCE = 512
NEEDED = "emotion, pixels and Usage are needed"
COLUMNS = {
    "emotion": ("emotion", "emotions", "label", "labels", "class", "expression"),
    "pixels": ("pixels", "pixel"),
    "usage": ("usage", "split", "part"),
}
VOTES = {"neutral", "happiness", "surprise", "sadness", "anger"}  # columns of FER+


def is_table(head: bytes) -> bool:
    """Whether the first bytes are those of a table with pixels."""
    line = head.decode("utf-8", "replace").splitlines()[0] if head.strip() else ""
    names = {word.strip(" \"'\ufeff").lower() for word in line.replace(";", ",").split(",")}
    return bool(names & set(COLUMNS["pixels"]))


def read_table(content: bytes, path: Path, labelled: bool) -> Pictures:
    """A csv of faces; `labelled` says whether the emotions must be there, else they are not read.

    `path` names the file in messages. Raises InputError.
    """
    table = parsed(content, path)
    column = columns_of(table, path, labelled)
    images = pixels_of(table[column["pixels"]], path)
    if not labelled:
        return Pictures(images, None, None)
    usage = table[column["usage"]].to_numpy() if "usage" in column else None
    return checked(path, images, table[column["emotion"]].to_numpy(), usage)


def parsed(content: bytes, path: Path) -> pd.DataFrame:
    """The table, with plain column names. Raises InputError."""
    line = content[:200].split(b"\n", 1)[0]
    separator = ";" if b";" in line and b"," not in line else ","
    if b"\t" in line and separator.encode() not in line:
        separator = "\t"
    try:
        stream = io.BytesIO(content)
        table = pd.read_csv(stream, sep=separator, encoding="utf-8-sig", low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise InputError(f"{path}: not a readable csv ({error})") from None
    table.columns = [str(name).strip().lower() for name in table.columns]
    return table


def columns_of(table: pd.DataFrame, path: Path, labelled: bool) -> dict[str, str]:
    """The names of the columns emotion, pixels and usage that there are. Raises InputError."""
    column = {}
    for kind, names in COLUMNS.items():
        found = [name for name in table.columns if name in names]
        if len(found) > 1:
            raise InputError(
                f"{path}: two columns for {kind} ({', '.join(found)}); {NEEDED}, each once"
            )
        if found:
            column[kind] = found[0]
    needed = ("emotion", "pixels") if labelled else ("pixels",)
    missing = [kind for kind in needed if kind not in column]
    if missing and set(table.columns) >= VOTES:
        raise InputError(
            f"{path}: the votes of FER+, without pixels; give fer2013.csv, which has both pixels "
            "and labels (Microsoft's FER+ repository joins the two)"
        )
    if "pixels" in missing and any(len(name.split()) == SIDE * SIDE for name in table.columns):
        raise InputError(f"{path}: no header line; put emotion,pixels,Usage first")
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; {NEEDED}")
    if table.empty:
        raise InputError(f"{path}: no rows")
    return column


def pixels_of(column: pd.Series, path: Path) -> np.ndarray:
    """Strings of 2,304 numbers -> uint8 (N, H, W). Raises InputError."""
    texts = column.fillna("").astype(str).to_numpy()
    images = np.empty((len(texts), SIDE * SIDE), np.uint8)
    for start in progress(range(0, len(texts), ROWS_AT_ONCE), "reading pixels"):
        rows = [numbers_of(text, path) for text in texts[start : start + ROWS_AT_ONCE]]
        for number, row in enumerate(rows, start):
            if len(row) != SIDE * SIDE:
                raise InputError(
                    f"{path}: row {number} has {len(row)} pixels; "
                    f"{SIDE * SIDE} are needed (is the file cut off?)"
                )
        images[start : start + len(rows)] = whole_numbers(np.stack(rows), path, 255)
    return images.reshape(-1, SIDE, SIDE)


def numbers_of(text: str, path: Path) -> np.ndarray:
    """The numbers (P,) in a string. Raises InputError for anything else in it."""
    text = text.strip("[] \t").replace(",", " ")  # lists that pandas wrote as text
    if not text.strip():
        return np.empty(0)
    try:
        return np.fromstring(text, dtype=np.int64, sep=" ")  # (ten times as fast as words)
    except ValueError:
        pass
    try:
        return np.array(text.split(), dtype=np.float64)  # as 7.0
    except ValueError as error:
        raise InputError(f"{path}: a pixel is not a number ({error})") from None
