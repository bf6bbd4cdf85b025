"""A table of numbers, or the built-in sample, as checked arrays, and its 70 / 15 / 15 split.

Shape letters: N rows, D features.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from common.cli import InputError
from common.files import JsonObject, sha256

NOTICE = (
    "built-in simulated rows, not real data; "
    "give your own table with --data PATH (a csv of numbers with a column y)"
)
LEAST_ROWS = 20  # fewer leave a part with too little to score
LISTED = 8  # features named when a table is read
FEATURES, NOISE = 8, 0.5  # of the simulated sample


@dataclasses.dataclass(frozen=True)
class Table:
    """Checked input: `features` float64 (N, D) with their `names`, `target` float64 (N,).

    The target is empty where the table has none and none is needed.
    """

    source: str
    features: np.ndarray
    target: np.ndarray
    names: tuple[str, ...]
    provenance: JsonObject


@dataclasses.dataclass(frozen=True)
class Split:
    """Row indices int64 of the three parts, disjoint."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load(source: str, path: Path | None, rows: int = 2000, seed: int = 0) -> Table:
    """Rows with a target from `source`: auto (`path`, else the built-in sample), csv or simulated.

    Raises InputError for anything that is missing, unreadable or too small.
    """
    if source == "csv" and path is None:
        raise InputError("--source csv: give the table with --data")
    if source == "simulated" and path is not None:
        raise InputError(f"--data {path} goes with --source csv or auto, not with simulated")
    table = simulate(rows, seed) if path is None else read(path, labelled=True)
    if len(table.features) < LEAST_ROWS:
        count = len(table.features)
        raise InputError(f"{path or '--rows'}: {count} rows; at least {LEAST_ROWS} are needed")
    return table


def simulate(rows: int, seed: int) -> Table:
    """y = X w + 0.5 e with X (N, 8), w and e standard normal.

    In the long run no model's RMSE is below 0.5.
    """
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(FEATURES)  # (D,)
    features = rng.standard_normal((max(rows, 0), FEATURES))  # (N, D)
    return Table(
        source="simulated",
        features=features,
        target=features @ weight + NOISE * rng.standard_normal(len(features)),
        names=tuple(f"x{number}" for number in range(FEATURES)),
        provenance={
            "generator": "data.py",
            "rows": rows,
            "notice": NOTICE,
            "read": f"{rows:,} simulated rows of {FEATURES} features",
        },
    )


def read(path: Path, labelled: bool) -> Table:
    """A csv of finite numbers with a header; y is the target and never a feature.

    `labelled` says whether the column y must be there. Raises InputError that names the file,
    and the first cell that is wrong.
    """
    if not Path(path).is_file():
        problem = "is a folder" if Path(path).is_dir() else "does not exist"
        raise InputError(f"--data {path} {problem}; a csv of numbers is needed")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except Exception as error:  # pandas has many ways to refuse a damaged file
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable csv ({reason})") from None

    # columns
    has_target = "y" in table
    names = tuple(str(name) for name in table.columns if name != "y")
    if (labelled and not has_target) or not names:
        needed = "y and at least one feature" if labelled else "at least one feature"
        raise InputError(f"{path}: columns {', '.join(table.columns)}; {needed} are needed")

    # numbers
    numbers = table.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)  # (N, columns)
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        row, column = wrong[0]
        cell = f"{table.columns[column]} is {table.iat[row, column]!r} in row {row + 1}"
        raise InputError(f"{path}: {cell}; finite numbers are needed")
    is_feature = table.columns != "y"
    listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    return Table(
        source="csv",
        features=numbers[:, is_feature],
        target=numbers[:, ~is_feature][:, 0] if has_target else np.empty(0),
        names=names,
        provenance={
            "path": Path(path).name,
            "sha256": sha256(path),
            "rows": len(table),
            "read": f"{path}: {len(table):,} rows of {len(names)} features ({listed})",
        },
    )


def digests(table: Table) -> np.ndarray:
    """A number int64 (N,) for each row's features and target, equal for equal rows."""
    rows = np.column_stack([table.features, table.target])  # (N, D + 1)
    whole = [hashlib.sha256(row.tobytes()).digest()[:8] for row in rows]
    return np.frombuffer(b"".join(whole), np.int64)


def split(count: int, seed: int) -> Split:
    """A random 70 % for training, 15 % for every choice and 15 % for the score.

    The generator is the split's own.
    """
    order = np.random.default_rng((seed, 70)).permutation(count)
    train, validation, test = np.split(order, (int(0.7 * count), int(0.85 * count)))
    return Split(np.sort(train), np.sort(validation), np.sort(test))
