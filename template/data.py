"""A table of numbers, or the built-in sample -> checked arrays, and a 70 / 15 / 15 split.

Shape letters: N rows, D features.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.cli import InputError
from common.run import sha256

NOTICE = "built-in simulated rows, not real data; give your own table with --data PATH (a csv of numbers with a column y)"
LEAST = 20  # rows: fewer leave a part with too little to score


@dataclasses.dataclass(frozen=True)
class Table:
    """Checked input: `features` float64 (N, D) with their `names`, `target` float64 (N,) or None where no label is needed."""

    source: str
    features: np.ndarray
    target: np.ndarray | None
    names: tuple[str, ...]
    provenance: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Split:
    """Row indices int64 of the three parts, disjoint."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load(source: str, path: Path | None, rows: int = 2000, seed: int = 0) -> Table:
    """Rows with a target from `source` ("auto" | "csv" | "simulated"); auto takes `path`, else the built-in sample.

    Raises InputError with one line for anything that is missing, unreadable or too small.
    """
    if source == "csv" and path is None:
        raise InputError("--source csv: give the table with --data")
    if source == "simulated" and path is not None:
        raise InputError(f"--data {path} goes with --source csv or auto, not with simulated")
    table = simulate(rows, seed) if path is None else read(path, labelled=True)
    if len(table.features) < LEAST:
        raise InputError(
            f"{path or '--rows'}: {len(table.features)} rows; at least {LEAST} are needed"
        )
    return table


def simulate(rows: int, seed: int) -> Table:
    """y = X w + 0.5 e with X (N, 8), w and e standard normal: no model's RMSE is below 0.5 in the long run."""
    rng = np.random.default_rng(seed)
    weight, features = (
        rng.standard_normal(8),
        rng.standard_normal((max(rows, 0), 8)),
    )  # (D,), (N, D)
    target = features @ weight + 0.5 * rng.standard_normal(len(features))
    return Table(
        "simulated",
        features,
        target,
        tuple(f"x{d}" for d in range(8)),
        {"generator": "data.py", "rows": rows, "notice": NOTICE},
    )


def read(path: Path, labelled: bool) -> Table:
    """A csv of finite numbers with a header; `labelled` says whether the column y must be there (it is never a feature).

    Raises InputError that names the file, and the first cell that is wrong.
    """
    if not Path(path).is_file():
        raise InputError(
            f"--data {path} {'is a folder' if Path(path).is_dir() else 'does not exist'}; a csv of numbers is needed"
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except Exception as error:  # pandas has many ways to refuse a damaged file
        raise InputError(
            f"{path}: not a readable csv ({' '.join(str(error).split())[:200]})"
        ) from None
    if (labelled and "y" not in table) or table.columns.drop("y", errors="ignore").empty:
        raise InputError(
            f"{path}: columns {', '.join(table.columns)}; {'y and ' if labelled else ''}at least one feature are needed"
        )
    numbers = table.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    for row, column in np.argwhere(~np.isfinite(numbers))[:1]:
        raise InputError(
            f"{path}: {table.columns[column]} is {table.iat[row, column]!r} in row {row + 1}; finite numbers are needed"
        )
    place = table.columns != "y"
    target = numbers[:, ~place][:, 0] if "y" in table else None
    names = tuple(str(name) for name in table.columns[place])
    return Table(
        "csv",
        numbers[:, place],
        target,
        names,
        {"path": Path(path).name, "sha256": sha256(path), "rows": len(table)},
    )


def split(count: int, seed: int) -> Split:
    """A random 70 % to train on, 15 % for every choice, 15 % scored once; its generator is its own."""
    order = np.random.default_rng((seed, 70)).permutation(count)
    return Split(
        *(np.sort(part) for part in np.split(order, (int(0.7 * count), int(0.85 * count))))
    )
