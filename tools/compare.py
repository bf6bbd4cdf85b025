"""Compares two or more runs of one assignment.

python -m tools.compare RUN RUN ... [--metric kid] [--split test] [--cells]

Every run is compared with the first. Where both report a standard deviation over seeds, Welch's
t-test (1947) is computed from mean, deviation and number of seeds; its p is adjusted by Holm
(1979) over the rows of a metric. Seeds that two runs share are not paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro
from scipy.stats import ttest_ind_from_stats

from common.cli import InputError, PathOrNone, entry, read_options
from common.figures import MARKERS, colours, figure, read_run
from common.files import JsonObject, write_text
from common.forecasting.metrics import holm

KEY = ["protocol", "split", "model", "variant", "metric", "series", "horizon"]
VALUES = ["value", "std", "n_seeds"]
ROWS_IN_FIGURE = 40  # per metric; the table and the csv hold all
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Config:
    """Prints and draws two or more run folders of one assignment, each compared with the first."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """folders of finished runs"""
    metric: tuple[str, ...] = ()
    """only these metrics (default: all)"""
    protocol: tuple[str, ...] = ()
    """only these protocols (default: all)"""
    split: tuple[str, ...] = ()
    """only these splits (default: all)"""
    models: tuple[str, ...] = ()
    """only these models (default: all)"""
    cells: bool = False
    """also each series and step where a metric has a pooled row"""
    out: PathOrNone = None
    """name of the .png and .csv to write (default: compare-<run>-<run> in the current folder)"""


@dataclass(frozen=True)
class ComparedRun:
    """One run: its folder's distinguishing name, run.json, and VALUES of metrics.json by KEY."""

    name: str
    record: JsonObject
    table: pd.DataFrame

    @classmethod
    def read(cls, name: str, folder: Path) -> ComparedRun:
        """Reads a run folder. Raises InputError where there is no readable finished run."""
        try:
            record, rows = read_run(folder)
            types = {"horizon": "Int64", **dict.fromkeys(VALUES, float)}
            return cls(name, record, rows.astype(types).set_index(KEY)[VALUES])
        except (OSError, ValueError, TypeError, KeyError, InputError):
            raise InputError(
                f"{folder} holds no readable run.json and metrics.json; "
                "name folders of finished runs"
            ) from None


# ---------------------------------------------------------------------------------- the table


def choose_rows(table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The rows that the options choose.

    Raises InputError for a name that no row has, and where no row is left.
    """
    wanted_names = {
        "metric": ("metric", config.metric),
        "protocol": ("protocol", config.protocol),
        "split": ("split", config.split),
        "models": ("model", config.models),
    }
    for option, (level, wanted) in wanted_names.items():
        names = table.index.get_level_values(level)
        unknown = set(wanted) - set(names) if len(names) else set()
        if unknown:
            common = ", ".join(sorted(set(names)))
            raise InputError(f"--{option} {min(unknown)}: the runs have {common} in common")
        if wanted:
            table = table[names.isin(wanted)]
    if not config.cells:
        table = table[_pooled_where_possible(table)]
    if table.empty:
        raise InputError(
            "the runs have no row in common; name runs with the same protocol, split, model, "
            "variant and metric"
        )
    return table


def _pooled_where_possible(table: pd.DataFrame) -> np.ndarray:
    """Which rows are pooled over series and steps, or of a metric that has no pooled row."""
    series = table.index.get_level_values("series")
    horizon = table.index.get_level_values("horizon")
    pooled = pd.Series(series.isna() & horizon.isna(), table.index)
    return (pooled | ~pooled.groupby(level="metric").transform("any")).to_numpy()


def align(tables: dict[str, pd.DataFrame], config: Config) -> pd.DataFrame:
    """The rows that every run has, by KEY.

    Columns (what, run): value, std, n_seeds, and for every run but the first its difference from
    the first, p and p_holm.
    """
    table = pd.concat(tables, axis=1, join="inner").swaplevel(axis=1)
    table = choose_rows(table, config)
    first, *others = tables
    for run in others:
        reference = table.xs(first, axis=1, level=1)[VALUES].to_numpy().T  # (3, rows)
        compared = table.xs(run, axis=1, level=1)[VALUES].to_numpy().T
        table[("difference", run)] = compared[0] - reference[0]
        table[("p", run)] = np.nan
        # without several seeds or without spread there is nothing to test
        testable = (reference[2] >= 2) & (compared[2] >= 2) & (reference[1] + compared[1] > 0)
        test = ttest_ind_from_stats(
            *reference[:, testable], *compared[:, testable], equal_var=False
        )
        table.loc[testable, ("p", run)] = test.pvalue
    adjusted = pd.concat({"p_holm": table["p"]}, axis=1)
    table = pd.concat([table, adjusted], axis=1).sort_index(level="metric", sort_remaining=False)

    # one family per metric: all its rows and runs
    for metric in table.index.unique("metric"):
        rows = table.index.get_level_values("metric") == metric
        family = table["p"].to_numpy()[rows]
        tested = np.isfinite(family)
        family[tested] = holm(family[tested])
        table.loc[rows, "p_holm"] = family
    return table


def formatted(table: pd.DataFrame, runs: list[str]) -> str:
    """The table for a terminal: keys, value ± std of each run, difference and Holm's p."""
    lines = table.index.to_frame(index=False).astype("string").fillna("")
    always = ("metric", "model", "variant")
    lines = lines[[name for name in KEY if name in always or lines[name].nunique() > 1]]
    for run in runs:
        pairs = table[[("value", run), ("std", run)]].to_numpy()
        lines[run] = [
            f"{value:.5g} ± {std:.2g}" if np.isfinite(std) else f"{value:.5g}"
            for value, std in pairs
        ]
        if run == runs[0]:
            continue
        lines[f"{run} - {runs[0]}"] = table[("difference", run)].map("{:+.3g}".format).to_numpy()
        title = f"p (Holm), {run}" if len(runs) > 2 else "p (Holm)"
        lines[title] = [f"{p:.3g}" if np.isfinite(p) else "" for p in table[("p_holm", run)]]
    return lines.to_string(index=False)


# --------------------------------------------------------------------------------- the figure


def draw(path: Path, record: JsonObject, table: pd.DataFrame, runs: list[str]) -> None:
    """Left the value of each run with one standard deviation, right the difference from the first.

    The difference has its standard error; a star marks Holm's p < 0.05.
    """
    parts = [
        (str(metric), rows[:ROWS_IN_FIGURE])
        for metric, rows in table.groupby(level="metric", sort=False)
    ]
    heights = [0.7 + 0.22 * len(rows) for _, rows in parts]
    layout = {"squeeze": False, "height_ratios": heights, "sharey": "row"}
    size = (10, sum(heights) + 0.8)
    with figure(path, record, size, len(parts), 2, **layout) as (picture, axes):
        for (left, right), (metric, rows) in zip(axes, parts, strict=True):
            _draw_metric(left, right, rows, runs)
            left.set(ylim=(len(rows) - 0.5, -0.5), title=metric.replace("_", " "))
        handles = axes[0, 0].get_legend_handles_labels()
        picture.legend(*handles, loc="outside upper center", ncols=len(runs))


def _draw_metric(left, right, rows: pd.DataFrame, runs: list[str]) -> None:
    """One metric: values on the left axes, differences on the right."""
    first = runs[0]
    variance = {run: rows[("std", run)] ** 2 / rows[("n_seeds", run)] for run in runs}
    for number, (run, colour) in enumerate(colours(runs).items()):
        y = np.arange(len(rows)) + 0.4 * ((number + 0.5) / len(runs) - 0.5)
        marker = MARKERS[number % len(MARKERS)]
        style = {"color": colour, "marker": marker, "ms": 4, "ls": "", "elinewidth": 1}
        deviation = rows[("std", run)].fillna(0)
        left.errorbar(rows[("value", run)], y, xerr=deviation, label=run, **style)
        if run != first:
            error = np.sqrt(variance[run] + variance[first]).fillna(0)
            right.errorbar(rows[("difference", run)], y, xerr=error, **style)

    # one label per row, starred where a difference is significant
    significant = (rows["p_holm"] < SIGNIFICANT).any(axis=1)
    keys = rows.index.to_frame()[["model", "variant", "series", "horizon"]]
    labels = []
    for key, star in zip(keys.itertuples(index=False), significant, strict=True):
        name = ", ".join(str(item) for item in key if pd.notna(item))
        labels.append(f"{name} *" if star else name)
    left.set_yticks(range(len(rows)), labels, fontsize=7)
    right.axvline(0, color="#888888", lw=0.8)
    right.set_title(f"less {first} (* p < 0.05)" if significant.any() else f"less {first}")


# ------------------------------------------------------------------------------------- main


def short_names(folders: tuple[Path, ...]) -> list[str]:
    """As many trailing parts of the paths as distinguish the runs.

    Raises InputError for fewer than two different folders.
    """
    paths = [folder.resolve().parts for folder in folders]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise InputError("name two or more different run folders: python -m tools.compare RUN RUN")
    depth = 1
    while len({parts[-depth:] for parts in paths}) < len(paths):
        depth += 1
    return ["/".join(parts[-depth:]).lstrip("/") for parts in paths]


def main(config: Config) -> pd.DataFrame:
    """Prints the table, writes the .csv and .png, and returns the aligned rows.

    Raises InputError for runs that cannot be compared.
    """
    names = short_names(config.runs)
    runs = [ComparedRun.read(name, path) for name, path in zip(names, config.runs, strict=True)]
    systems = sorted({str(run.record["assignment"]) for run in runs})
    if len(systems) > 1:
        raise InputError(
            f"the runs are of {' and '.join(systems)}; only runs of one assignment can be compared"
        )
    table = align({run.name: run.table for run in runs}, config)
    print(formatted(table, names))
    if len({str(run.record["data"].get("sha256")) for run in runs}) > 1:
        print("note: the runs did not read the same data")

    # the files; the footer names simulated data where any of the runs is made of them
    default = "compare-" + "-".join(names).replace("/", "-")
    stem = str(config.out or default).removesuffix(".png").removesuffix(".csv")
    flat = table.set_axis([f"{what}: {run}" for what, run in table.columns], axis=1)
    write_text(Path(f"{stem}.csv"), flat.reset_index().to_csv(index=False, lineterminator="\n"))
    simulated = [run.record for run in runs if "notice" in run.record["data"]]
    draw(Path(f"{stem}.png"), [*simulated, runs[0].record][0], table, names)
    print(f"{stem}.csv and {stem}.png")
    return table


if __name__ == "__main__":
    entry(main, read_options(Config))
