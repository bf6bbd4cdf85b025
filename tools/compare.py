"""Two or more runs of one assignment side by side: `python -m common.compare RUN RUN ... [--metric kid] [--split test] [--cells]`.

Every run is set against the first. Where both give a standard deviation over seeds, Welch's t-test (1947) is made from mean, deviation
and number of seeds, and its p is adjusted by Holm (1979) over the rows of a metric. Seeds that two runs share are not paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro
from scipy.stats import ttest_ind_from_stats

from common.backtest import holm
from common.cli import InputError, PathOrNone, entry, parse
from common.figures import MARKERS, colours, figure, read_run
from common.run import write_text

KEY = ["protocol", "split", "model", "variant", "metric", "series", "horizon"]
WHAT = ["value", "std", "n_seeds"]
ROWS_IN_FIGURE = 40  # a metric; the table and the csv hold all


@dataclass(frozen=True)
class Config:
    """Prints and draws two or more run folders of one assignment side by side, each against the first."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    metric: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    cells: bool = False
    """also each series and step where a metric has a pooled row"""
    out: PathOrNone = None
    """the .png and .csv to write (default: compare-<run>-<run> in this folder)"""


def read(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """run.json, and value, std and n_seeds of metrics.json by KEY. Raises InputError where there is no readable finished run."""
    try:
        record, rows = read_run(folder)
        return record, rows.astype({"horizon": "Int64"} | dict.fromkeys(WHAT, float)).set_index(
            KEY
        )[WHAT]
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(
            f"{folder} holds no readable run.json and metrics.json; name folders of finished runs"
        ) from None


def align(tables: dict[str, pd.DataFrame], config: Config) -> pd.DataFrame:
    """The rows that every run has, by KEY; columns (what, run): value, std, n_seeds, and difference, p, p_holm against the first run.

    Raises InputError for a name that no common row has, and where nothing is in common.
    """
    table = pd.concat(tables, axis=1, join="inner").swaplevel(axis=1)
    for option, level in (
        ("metric", "metric"),
        ("protocol", "protocol"),
        ("split", "split"),
        ("models", "model"),
    ):
        wanted, found = getattr(config, option), table.index.get_level_values(level)
        if unknown := set(wanted) - set(found) if len(found) else ():
            raise InputError(
                f"--{option} {min(unknown)}: the runs have {', '.join(sorted(set(found)))} in common"
            )
        table = table[found.isin(wanted)] if wanted else table
    pooled = pd.Series(
        table.index.get_level_values("series").isna()
        & table.index.get_level_values("horizon").isna(),
        table.index,
    )
    if not config.cells:
        table = table[(pooled | ~pooled.groupby(level="metric").transform("any")).to_numpy()]
    if table.empty:
        raise InputError(
            "the runs have no row in common; name runs with the same protocol, split, model, variant and metric"
        )
    first, *others = tables
    for run in others:
        a, b = (table.xs(name, axis=1, level=1)[WHAT].to_numpy().T for name in (first, run))
        fit = (
            (a[2] >= 2) & (b[2] >= 2) & (a[1] + b[1] > 0)
        )  # without seeds or spread there is nothing to test
        table[("difference", run)], table[("p", run)] = b[0] - a[0], np.nan
        table.loc[fit, ("p", run)] = ttest_ind_from_stats(
            *a[:, fit], *b[:, fit], equal_var=False
        ).pvalue
    table = pd.concat([table, pd.concat({"p_holm": table["p"]}, axis=1)], axis=1).sort_index(
        level="metric", sort_remaining=False
    )
    for metric in table.index.unique("metric"):
        family = table["p"].to_numpy()[here := table.index.get_level_values("metric") == metric]
        family[np.isfinite(family)] = holm(family[np.isfinite(family)])
        table.loc[here, "p_holm"] = family
    return table


def printed(table: pd.DataFrame, runs: list[str]) -> str:
    """The table for a terminal: keys, value ± std of each run, difference and Holm's p."""
    lines = table.index.to_frame(index=False).astype("string").fillna("")
    lines = lines[
        [
            name
            for name in KEY
            if name in ("metric", "model", "variant") or lines[name].nunique() > 1
        ]
    ]
    for run in runs:
        pairs = table[[("value", run), ("std", run)]].to_numpy()
        lines[run] = [
            f"{value:.5g}" + (f" ± {std:.2g}" if np.isfinite(std) else "") for value, std in pairs
        ]
        if run != runs[0]:
            lines[f"{run} - {runs[0]}"] = (
                table[("difference", run)].map("{:+.3g}".format).to_numpy()
            )
            lines["p (Holm)" + f", {run}" * (len(runs) > 2)] = [
                f"{p:.3g}" if np.isfinite(p) else "" for p in table[("p_holm", run)]
            ]
    return lines.to_string(index=False)


def draw(path: Path, record: dict[str, Any], table: pd.DataFrame, runs: list[str]) -> None:
    """Left the value of each run and row with one standard deviation, right the difference with its standard error; * Holm's p < 0.05."""
    parts = [
        (metric, rows[:ROWS_IN_FIGURE])
        for metric, rows in table.groupby(level="metric", sort=False)
    ]
    heights = [0.7 + 0.22 * len(rows) for _, rows in parts]
    layout: dict[str, Any] = {"squeeze": False, "height_ratios": heights, "sharey": "row"}
    with figure(path, record, (10, sum(heights) + 0.8), len(parts), 2, **layout) as (picture, axes):
        for (left, right), (metric, rows) in zip(axes, parts, strict=True):
            variance = {run: rows[("std", run)] ** 2 / rows[("n_seeds", run)] for run in runs}
            for number, (run, colour) in enumerate(colours(runs).items()):
                y = np.arange(len(rows)) + 0.4 * ((number + 0.5) / len(runs) - 0.5)
                style = {
                    "color": colour,
                    "marker": MARKERS[number % len(MARKERS)],
                    "ms": 4,
                    "ls": "",
                    "elinewidth": 1,
                }
                left.errorbar(
                    rows[("value", run)], y, xerr=rows[("std", run)].fillna(0), label=run, **style
                )
                if run != runs[0]:
                    error = np.sqrt(variance[run] + variance[runs[0]]).fillna(0)
                    right.errorbar(rows[("difference", run)], y, xerr=error, **style)
            keys = rows.index.to_frame()[["model", "variant", "series", "horizon"]].itertuples(
                index=False
            )
            stars = (rows["p_holm"] < 0.05).any(axis=1)
            labels = [
                ", ".join(str(k) for k in key if pd.notna(k)) + " *" * bool(star)
                for key, star in zip(keys, stars, strict=True)
            ]
            left.set_yticks(range(len(rows)), labels, fontsize=7)
            left.set(ylim=(len(rows) - 0.5, -0.5), title=metric.replace("_", " "))
            right.axvline(0, color="#888888", lw=0.8)
            right.set_title(f"less {runs[0]}" + " (* p < 0.05)" * bool(stars.any()))
        picture.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(runs)
        )


def main(config: Config) -> pd.DataFrame:
    """Prints the table and writes the .csv and .png; returns the aligned rows. Raises InputError for runs that cannot be compared."""
    paths = [folder.resolve().parts for folder in config.runs]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise InputError(
            "name two or more different run folders: python -m common.compare RUN RUN ..."
        )
    depth = next(n for n in range(1, 99) if len({parts[-n:] for parts in paths}) == len(paths))
    runs = [
        "/".join(parts[-depth:]).lstrip("/") for parts in paths
    ]  # as much of the paths as tells the runs apart
    records, tables = zip(*(read(folder) for folder in config.runs), strict=True)
    if len(systems := sorted({str(record["assignment"]) for record in records})) > 1:
        raise InputError(
            f"the runs are of {' and '.join(systems)}; only runs of one assignment can be compared"
        )
    table = align(dict(zip(runs, tables, strict=True)), config)
    print(printed(table, runs))
    if len({str(record["data"].get("sha256")) for record in records}) > 1:
        print("note: the runs did not read the same data")
    stem = (
        str(config.out or "compare-" + "-".join(runs).replace("/", "-"))
        .removesuffix(".png")
        .removesuffix(".csv")
    )
    flat = table.set_axis([f"{what}: {run}" for what, run in table.columns], axis=1)
    write_text(Path(f"{stem}.csv"), flat.reset_index().to_csv(index=False, lineterminator="\n"))
    # the footer tells simulated data where any of the runs is made of them
    draw(
        Path(f"{stem}.png"),
        next((record for record in records if "notice" in record["data"]), records[0]),
        table,
        runs,
    )
    print(f"{stem}.csv and {stem}.png")
    return table


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
