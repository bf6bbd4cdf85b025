"""One style and one colour a name for every figure of the repository; figures are made from run folders only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from common.run import atomic_path

matplotlib.use("Agg")
import matplotlib.dates as mdates
import matplotlib.pyplot as plt  # (the backend comes first)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import RcKeyType

# Okabe & Ito's palette, safe for colour-blind readers; each has its marker too, so figures survive in grey
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: dict[RcKeyType, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "figure.constrained_layout.use": True,
}


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, the same in every figure that lists the names in the same order."""
    return {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(names)}


def read_run(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """run.json and the rows of metrics.json as a table."""
    record = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))
    rows = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))["rows"]
    return record, pd.DataFrame(rows)


def source_line(record: dict[str, Any]) -> str:
    """The footer of a figure: data, preset, commit, and the notice that belongs to simulated data."""
    data = record["data"]
    words = [
        f"data: {record['source']} ({data.get('path') or data.get('generator', '')})",
        f"preset {record['preset']}",
    ]
    if record.get("commit"):
        words.append(f"commit {record['commit'][:8]}{'+' if record.get('dirty') else ''}")
    if data.get("notice"):
        words.append("SIMULATED: " + data["notice"].split(";")[0])
    return " · ".join(words)


@contextmanager
def figure(
    path: Path,
    record: dict[str, Any],
    size: tuple[float, float],
    rows: int = 1,
    columns: int = 1,
    **options: Any,
) -> Iterator[tuple[Figure, Any]]:
    """Yields (figure, axes) in the house style; writes it atomically with its source line when the block ends well."""
    with plt.rc_context(STYLE):
        picture, axes = plt.subplots(rows, columns, figsize=size, **options)
        try:
            yield picture, axes
            picture.supxlabel(source_line(record), fontsize=6, color="#666666", x=0.01, ha="left")
            with atomic_path(Path(path)) as temporary:
                picture.savefig(temporary)
        finally:
            plt.close(picture)


def learning_curve(axes: Axes, table: pd.DataFrame, split: str, name: str, **style: Any) -> None:
    """Draws one streamed metric (a table read from metrics.csv) against the step."""
    part = table[(table.split == split) & (table.name == name)]
    axes.plot(part.step, part.value, **style)


def heat_map(
    axes: Axes,
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    form: str = "{:.2f}",
    map_name: str = "cividis",
    limits: tuple[float, float] | None = None,
    marks: np.ndarray | None = None,
) -> Any:
    """Draws a matrix with its numbers, starred where `marks`; returns the image for a colour bar."""
    low, high = limits or (float(np.nanmin(values)), float(np.nanmax(values)))
    image = axes.imshow(values, cmap=map_name, vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = form.format(value) + ("*" if marks is not None and marks[i, j] else "")
            axes.text(
                j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black"
            )
    return image


def fan(
    axes: Axes,
    times: np.ndarray,
    past: np.ndarray,
    ahead: np.ndarray,
    quantiles: np.ndarray,
    levels: np.ndarray,
    actual: np.ndarray | None = None,
) -> None:
    """Draws one series: prices (T,), then the 95 % and 80 % intervals and median of quantiles (H, Q), and what came (H,)."""
    join = np.concatenate([times[-1:], ahead])

    def at(level: float) -> np.ndarray:
        return np.concatenate([past[-1:], [np.interp(level, levels, row) for row in quantiles]])

    axes.plot(times, past, color="black", lw=1, label="known prices")
    for share, strength in ((0.95, 0.2), (0.80, 0.4)):
        look: dict[str, Any] = {
            "color": PALETTE[0],
            "alpha": strength,
            "lw": 0,
            "label": f"{share:.0%} interval",
        }
        axes.fill_between(join, at((1 - share) / 2), at((1 + share) / 2), **look)
    axes.plot(join, at(0.5), color=PALETTE[0], label="median")
    axes.plot(join, np.repeat(past[-1], len(join)), color="#888888", ls=":", label="no change")
    if actual is not None:
        axes.plot(
            join, np.concatenate([past[-1:], actual]), color=PALETTE[1], lw=1, label="what came"
        )
    axes.xaxis.set_major_locator(mdates.AutoDateLocator(minticks=2, maxticks=3))
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(axes.xaxis.get_major_locator()))


def panels(count: int) -> dict[str, Any]:
    """Options of `figure` for a grid of `count` small panels, at most four beside each other."""
    columns = min(count, 4)
    rows = -(-count // columns)
    return {
        "size": (2.6 * columns + (2 if columns == 1 else 0), 2.2 * rows + 0.5),
        "rows": rows,
        "columns": columns,
        "squeeze": False,
    }


def tidy(axes: np.ndarray, used: int) -> None:
    """One legend, in the first unused panel of a grid where there is one, and no empty frames."""
    handles, labels = axes.flat[0].get_legend_handles_labels()
    for panel in axes.flat[used:]:
        panel.axis("off")
    (axes.flat[used] if used < axes.size else axes.flat[0]).legend(
        handles, labels, loc="center" if used < axes.size else "best"
    )


def fans(
    path: Path,
    record: dict[str, Any],
    series: Iterable[str],
    times: np.ndarray,
    past: np.ndarray,
    ahead: np.ndarray,
    quantiles: np.ndarray,
    levels: np.ndarray,
    title: str,
    actual: np.ndarray | None = None,
) -> None:
    """Writes one `fan` a series: prices (T, S) at times (T,), quantiles (H, S, Q) at times ahead (H,), what came (H, S)."""
    names = list(series)
    with figure(path, record, **panels(len(names))) as (picture, axes):
        for s, (name, panel) in enumerate(zip(names, axes.flat, strict=False)):
            fan(
                panel,
                times,
                past[:, s],
                ahead,
                quantiles[:, s],
                levels,
                None if actual is None else actual[:, s],
            )
            panel.set_title(name)
            panel.set_ylabel("price (USD)" if s % axes.shape[1] == 0 else "")
        tidy(axes, len(names))
        picture.suptitle(title, fontsize=10)


# --------------------------------------------------------------------------------------------- figures of a backtest


def fans_of(path: Path, record: dict[str, Any], held: Any) -> None:
    """The `fans` of a run: `held` is its predictions.npz with the arrays of common.forecast.fan_arrays."""
    times, known = held["fan_times"].astype("datetime64[m]"), len(held["fan_past"])
    title = f"Forecast from {str(times[known - 1]).replace('T', ' ')} UTC: 80 % and 95 % intervals, mean of the seeds"
    ahead, series = times[known:], [str(name) for name in held["series"]]
    fans(
        path,
        record,
        series,
        times[:known],
        held["fan_past"],
        ahead,
        held["fan_quantiles"],
        held["levels"],
        title,
        held["fan_future"],
    )


def by_horizon(path: Path, record: dict[str, Any], part: pd.DataFrame, scale: str) -> None:
    """RMSSE and CRPS ratio by step ahead of every model and variant among the rows `part`; the axes fit the model `scale`."""
    part = part[part.series.isna() & part.horizon.notna()]
    names = list(dict.fromkeys(zip(part.model, part.variant, strict=True)))
    with figure(path, record, (11, 3.4), 1, 2) as (picture, axes):
        shown = {
            "rmsse": "RMSSE (1: no change)",
            "crps_ratio": "CRPS ratio (1: rolling random walk)",
        }
        for panel, (metric, label) in zip(axes, shown.items(), strict=True):
            for number, (model, variant) in enumerate(names):
                rows = part[
                    (part.model == model) & (part.variant == variant) & (part.metric == metric)
                ].sort_values("horizon")
                style = {
                    "color": PALETTE[number % 8],
                    "marker": MARKERS[number % 8],
                    "ms": 4,
                    "ls": ("-", "--")[number // 8 % 2],
                }
                style["label"] = f"{model}, {variant}"
                panel.errorbar(rows.horizon, rows.value, rows["std"].fillna(0), **style)
            best = part[(part.metric == metric) & (part.model == scale)].value
            low, high = min(best.min(), 1), max(best.max(), 1)
            panel.set_ylim(low - 0.3 * (high - low) - 0.001, high + 0.5 * (high - low) + 0.001)
            panel.set(xlabel="step ahead", ylabel=label, xticks=sorted(part.horizon.unique()))
            panel.axhline(1, color="#888888", lw=0.8)
        picture.legend(
            *axes[1].get_legend_handles_labels(), fontsize=7, loc="outside right center"
        )  # ten lines leave no room inside
        picture.suptitle(
            "Error by step ahead, geometric mean over series, test part; rows off the scale are in metrics.json",
            fontsize=9,
        )


def cells(
    path: Path,
    record: dict[str, Any],
    test: pd.DataFrame,
    series: list[str],
    model: str,
    variant: str,
    metrics: Iterable[tuple[str, str, str]] = (
        ("rmsse", "p_rmse", "RMSSE against no change"),
        ("crps_ratio", "p_crps", "CRPS against the rolling random walk"),
    ),
) -> None:
    """(ratio, its p, title) of one model and variant by series and step; a star marks p < 0.05 after Holm."""
    part, metrics = (
        test[
            (test.model == model)
            & (test.variant == variant)
            & test.series.notna()
            & test.horizon.notna()
        ],
        list(metrics),
    )

    def matrix(metric: str) -> np.ndarray:
        return (
            part[part.metric == metric]
            .pivot(index="series", columns="horizon", values="value")
            .reindex(series)
            .to_numpy()
        )

    with figure(path, record, (9, 0.35 * len(series) + 1.4), 1, len(metrics)) as (_, axes):
        for panel, (metric, p, title) in zip(axes, metrics, strict=True):
            values = matrix(metric)
            spread = max(float(np.nanmax(np.abs(values - 1))), 1e-3)
            steps = [str(step + 1) for step in range(values.shape[1])]
            heat_map(
                panel,
                values,
                series,
                steps,
                "{:.4f}",
                "PuOr_r",
                (1 - spread, 1 + spread),
                matrix(p) < 0.05,
            )
            panel.set_xticks(panel.get_xticks(), panel.get_xticklabels(), rotation=0, ha="center")
            panel.set(title=f"{title} (* p < 0.05)", xlabel="step ahead")


def calibration(path: Path, record: dict[str, Any], held: Any) -> None:
    """Share of outcomes below each quantile, less the share that should be; `held` as in `fans_of`."""
    with figure(path, record, (6, 3.4)) as (_, panel):
        names = colours(str(name) for name in held["series"])
        for number, ((name, colour), line) in enumerate(
            zip(names.items(), held["below"], strict=True)
        ):
            # the markers tell them apart in grey
            style: dict[str, Any] = {
                "color": colour,
                "marker": MARKERS[number % 8],
                "ms": 4,
                "markevery": (2 * number, 14),
            }
            panel.plot(100 * held["levels"], 100 * (line - held["levels"]), label=name, **style)
        panel.axhspan(-2, 2, color="#EEEEEE", zorder=0)
        panel.axhline(0, color="#888888", lw=0.8)
        panel.set(xlabel="quantile level (%)", ylabel="outcomes below it, less the level (points)")
        panel.set_title("Calibration on the test part; grey: within 2 points")
        panel.legend(ncols=4)


def seed_curves(panel: Axes, log: pd.DataFrame, prefix: str) -> None:
    """Validation scores `<prefix><seed>` against the epoch, a line a seed."""
    names = [
        name
        for name in log.name.unique()
        if name.startswith(prefix) and name.removeprefix(prefix).isdigit()
    ]
    for number, name in enumerate(sorted(names)):
        part = log[log.name == name]
        style: dict[str, Any] = {
            "color": PALETTE[number % 8],
            "marker": MARKERS[number % 8],
            "ms": 3,
        }
        panel.plot(part.epoch, part.value, label=f"seed {name.removeprefix(prefix)}", **style)
    panel.set(xlabel="epoch", ylabel="validation CRPS (of a usual change)")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend()
