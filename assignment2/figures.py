"""Figures of assignment 2, drawn from a run folder only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from common.figures import MARKERS, PALETTE, colours, fans, figure, heat_map, learning_curve, panels, read_run, tidy


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    held = np.load(folder / "predictions.npz", allow_pickle=False)
    test = table[(table.protocol == "held-out") & (table.split == "test")]
    series = [str(name) for name in held["series"]]
    times, known = held["fan_times"].astype("datetime64[m]"), len(held["fan_past"])
    title = f"Forecast from {str(times[known - 1]).replace('T', ' ')} UTC: 80 % and 95 % intervals, mean of the seeds"
    fans(folder / "forecast_fans.png", record, series, times[:known], held["fan_past"], times[known:], held["fan_quantiles"], held["levels"], title,
         held["fan_future"])  # fmt: skip
    attention(folder, record, held)
    by_horizon(folder, record, test)
    cells(folder, record, test, series)
    calibration(folder, record, held, series)
    curves(folder, record)
    assigned(folder, record, held, series)


def attention(folder: Path, record: dict[str, Any], held: Any) -> None:
    """Where in the context each step of the decoder looks: on average and at the origin of the fans."""
    with figure(folder / "attention.png", record, (8, 3.6), 2, 1, sharex=True) as (picture, axes):
        for panel, name, title in zip(
            axes, ("attention_mean", "attention_one"), ("mean over the test part", "the origin of the forecast fans"), strict=True
        ):
            weights = held[name]
            image = panel.imshow(weights, cmap="cividis", aspect="auto", extent=(-weights.shape[1] + 0.5, 0.5, len(weights) + 0.5, 0.5))
            panel.set_title(title)
            panel.set_ylabel("step ahead")
            panel.set_yticks(range(1, len(weights) + 1))
            panel.grid(False)
            picture.colorbar(image, ax=panel, label="weight")
        axes[1].set_xlabel("step of the context, counted back from the last known price")


def by_horizon(folder: Path, record: dict[str, Any], test: pd.DataFrame) -> None:
    """RMSSE and CRPS ratio of every model by step ahead."""
    part = test[test.series.isna() & test.horizon.notna() & ~test.variant.str.contains("not recalibrated")]
    names = list(dict.fromkeys(zip(part.model, part.variant, strict=True)))
    with figure(folder / "error_by_horizon.png", record, (9, 3.4), 1, 2) as (picture, axes):
        for panel, metric, label in zip(
            axes, ("rmsse", "crps_ratio"), ("RMSSE (1: no change)", "CRPS ratio (1: rolling random walk)"), strict=True
        ):
            for number, (model, variant) in enumerate(names):
                rows = part[(part.model == model) & (part.variant == variant) & (part.metric == metric)].sort_values("horizon")
                panel.errorbar(
                    rows.horizon,
                    rows.value,
                    rows["std"].fillna(0),
                    color=PALETTE[number % 8],
                    marker=MARKERS[number % 8],
                    ms=4,
                    label=f"{model}, {variant}",
                )
            best = part[(part.metric == metric) & (part.model == "Seq2Seq")].value
            low, high = min(best.min(), 1), max(best.max(), 1)
            panel.set_ylim(low - 0.3 * (high - low) - 0.001, high + 1.2 * (high - low) + 0.001)
            panel.set(xlabel="step ahead", ylabel=label, xticks=sorted(part.horizon.unique()))
            panel.axhline(1, color="#888888", lw=0.8)
        axes[1].legend(fontsize=6, loc="upper left", ncols=2)
        picture.suptitle("Error by step ahead, geometric mean over series, test part; rows off the scale are in metrics.json", fontsize=9)


def cells(folder: Path, record: dict[str, Any], test: pd.DataFrame, series: list[str]) -> None:
    """RMSSE and CRPS ratio of the mean over seeds, by series and step; a star marks p < 0.05 after Holm."""
    part = test[(test.model == "Seq2Seq") & test.variant.str.fullmatch(r"mean of \d+ seeds") & test.series.notna() & test.horizon.notna()]

    def matrix(metric: str) -> np.ndarray:
        return part[part.metric == metric].pivot(index="series", columns="horizon", values="value").loc[series].to_numpy()

    with figure(folder / "error_by_cell.png", record, (9, 0.35 * len(series) + 1.4), 1, 2) as (_, axes):
        for panel, metric, p, title in zip(
            axes,
            ("rmsse", "crps_ratio"),
            ("p_rmse", "p_crps"),
            ("RMSSE against no change", "CRPS against the rolling random walk"),
            strict=True,
        ):
            values = matrix(metric)
            spread = max(float(np.abs(values - 1).max()), 1e-3)
            steps = [str(step + 1) for step in range(values.shape[1])]
            heat_map(panel, values, series, steps, "{:.4f}", "PuOr_r", (1 - spread, 1 + spread), matrix(p) < 0.05)
            panel.set_xticks(panel.get_xticks(), panel.get_xticklabels(), rotation=0, ha="center")
            panel.set(title=f"{title} (* p < 0.05)", xlabel="step ahead")


def calibration(folder: Path, record: dict[str, Any], held: Any, series: list[str]) -> None:
    """Share of outcomes below each quantile, less the share that should be."""
    with figure(folder / "calibration.png", record, (6, 3.4)) as (_, panel):
        for number, ((name, colour), line) in enumerate(zip(colours(series).items(), held["below"], strict=True)):
            style = {"color": colour, "marker": MARKERS[number % 8], "ms": 4, "markevery": (2 * number, 14)}  # told apart in grey
            panel.plot(100 * held["levels"], 100 * (line - held["levels"]), label=name, **style)
        panel.axhspan(-2, 2, color="#EEEEEE", zorder=0)
        panel.axhline(0, color="#888888", lw=0.8)
        panel.set(
            xlabel="quantile level (%)",
            ylabel="outcomes below it, less the level (points)",
            title="Calibration on the test part; grey: within 2 points",
        )
        panel.legend(ncols=4)


def curves(folder: Path, record: dict[str, Any]) -> None:
    """As-assigned training loss, and the validation CRPS of every seed."""
    log = pd.read_csv(folder / "metrics.csv")
    with figure(folder / "learning_curves.png", record, (9, 3), 1, 2) as (_, axes):
        learning_curve(axes[0], log, "train", "assigned_mse", color=PALETTE[0])
        axes[0].set(yscale="log", xlabel="epoch", ylabel="training MSE (MinMax units)", title="As assigned: one window, teacher forced")
        names = sorted(name for name in log.name.unique() if name.startswith("crps_seed"))
        for number, name in enumerate(names):
            part = log[log.name == name]
            axes[1].plot(
                part.epoch,
                part.value,
                color=PALETTE[number % 8],
                marker=MARKERS[number % 8],
                ms=3,
                label=name.removeprefix("crps_").replace("seed", "seed "),
            )
        axes[1].set(xlabel="epoch", ylabel="validation CRPS (of a usual change)", title="Held out: epoch 0 is the untrained network")
        axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1].legend()


def assigned(folder: Path, record: dict[str, Any], held: Any, series: list[str]) -> None:
    """The end of the course's window and the steps after it: truth, teacher forced, free-running, no change."""
    seen, coming = held["assigned | seen"], held["assigned | coming"]
    horizon, shown = len(coming), 12

    def lines(panel: Axes, s: int) -> None:
        truth = np.concatenate([seen, coming])[-shown - horizon :, s]
        panel.plot(np.arange(-shown, horizon) + 1, truth, color="black", lw=1, label="price")
        ahead = np.arange(1 - horizon, 1)
        for number, name in enumerate(("teacher forced, trained window", "free-running, trained window")):
            panel.plot(ahead, held[f"assigned | {name}"][:, s], color=PALETTE[number], marker=MARKERS[number], ms=3, label=name)
        panel.plot(
            ahead + horizon,
            held["assigned | free-running, next steps"][:, s],
            color=PALETTE[2],
            marker="^",
            ms=3,
            label="free-running, next steps",
        )
        panel.plot(ahead + horizon, np.repeat(seen[-1, s], horizon), color="#888888", ls=":", label="no change")
        panel.axvspan(0.5 - horizon, 0.5, color="#EEEEEE", zorder=0)

    with figure(folder / "as_assigned.png", record, **panels(len(series))) as (picture, axes):
        for number, (name, panel) in enumerate(zip(series, axes.flat, strict=False)):
            lines(panel, number)
            panel.set_title(name)
            panel.set_xlabel("step (0: end of the trained window)")
            panel.set_ylabel("price (USD)" if number % axes.shape[1] == 0 else "")
        tidy(axes, len(series))
        picture.suptitle("As assigned: the grey steps were trained on, the five after them were not", fontsize=10)
