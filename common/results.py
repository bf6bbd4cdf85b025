"""The rows of metrics.json: one row per score, tidy, with what each metric means beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import pandas as pd

from common.files import JsonObject, write_json

SHOWN_SERIES = 12  # of more series only the first ones have panels in figures and rows in reports


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One score. `series` and `horizon` are None where the score is pooled over them.

    `value` and `std` are the mean and the deviation over `n_seeds` trainings (ddof = 1; None for
    one training), `params` counts trained weights, `seconds` is the time of one training and
    `peak_mb` the largest resident memory in MiB.
    """

    protocol: str
    split: str
    model: str
    variant: str
    metric: str
    value: float
    std: float | None = None
    n_seeds: int | None = None
    series: str | None = None
    horizon: int | None = None
    params: int | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    command: str | None = None


class Metric(NamedTuple):
    """What a metric means: its unit, which direction is better, and what 1.0 or 0 stands for."""

    unit: str
    better: Literal["higher", "lower"]
    reference: str


class Results(TypedDict):
    """The content of metrics.json."""

    run: JsonObject
    metrics_info: dict[str, dict[str, str]]
    rows: list[JsonObject]


def mean_and_std(values: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    """Mean and standard deviation (ddof = 1) of one value per seed; no deviation of one value."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def write_results(
    path: Path,
    run: JsonObject,
    metrics_info: Mapping[str, Metric],
    rows: Iterable[Row],
    command: str | None = None,
) -> Results:
    """Writes a metrics.json and returns its content; rows without a command get the given one.

    Raises ValueError for a metric that metrics_info does not explain.
    """
    table = []
    for row in rows:
        if row.metric not in metrics_info:
            raise ValueError(f"metric {row.metric} is not explained in metrics_info")
        table.append({**vars(row), "command": row.command or command})
    explained = {name: metric._asdict() for name, metric in metrics_info.items()}
    results: Results = {"run": run, "metrics_info": explained, "rows": table}
    write_json(path, results)
    return results


def print_table(
    rows: Sequence[JsonObject],
    columns: Mapping[str, str],
    *,
    across: str = "metric",
    index: Sequence[str] = ("model", "variant"),
    digits: int = 4,
    title: str = "",
) -> None:
    """Prints rows of metrics.json as a table: one line per `index`, one column per value.

    `columns` maps the values of the key `across` (a metric, a horizon, a variant, ...) to the
    titles of the columns; lines keep the order in which the rows first name them.
    """
    table = pd.DataFrame([row for row in rows if row[across] in columns])
    if table.empty:
        return
    table["cell"] = [
        _cell(value, std, digits) for value, std in zip(table.value, table["std"], strict=True)
    ]
    first = {"values": "cell", "aggfunc": "first", "sort": False}
    wide = table.pivot_table(index=list(index), columns=across, **first)
    present = {name: heading for name, heading in columns.items() if name in wide.columns}
    text = wide[list(present)].rename(columns=present).fillna("-").rename_axis(columns=None)
    if title:
        print(f"\n{title}")
    print(text.reset_index().to_string(index=False))


def _cell(value: float, std: float | None, digits: int) -> str:
    """A value and its deviation over seeds, in powers of ten where a rollout blew up."""
    if abs(value) >= 1e5:
        return f"{value:.1e}"
    deviation = "" if std is None or np.isnan(std) else f" ± {std:.{digits}f}"
    return f"{value:.{digits}f}{deviation}"
