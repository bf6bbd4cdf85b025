"""Figures of assignment 2, drawn from a run folder only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from common.figures import (
    MARKERS,
    PALETTE,
    by_horizon,
    calibration,
    cells,
    fans_of,
    figure,
    learning_curve,
    panels,
    read_run,
    seed_curves,
    tidy,
)


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    held = np.load(folder / "predictions.npz", allow_pickle=False)
    test = table[(table.protocol == "held-out") & (table.split == "test")]
    series = [str(name) for name in held["series"]]
    fans_of(folder / "forecast_fans.png", record, held)
    attention(folder, record, held)
    by_horizon(
        folder / "error_by_horizon.png",
        record,
        test[~test.variant.str.contains("not recalibrated")],
        "Seq2Seq",
    )
    mean = next(
        name
        for name in test.variant.unique()
        if name.startswith("mean of") and name.endswith("seeds")
    )
    cells(folder / "error_by_cell.png", record, test, series, "Seq2Seq", mean)
    calibration(folder / "calibration.png", record, held)
    curves(folder, record)
    assigned(folder, record, held, series)


def attention(folder: Path, record: dict[str, Any], held: Any) -> None:
    """Where in the context each step of the decoder looks: on average and at the origin of the fans."""
    with figure(folder / "attention.png", record, (8, 3.6), 2, 1, sharex=True) as (picture, axes):
        for panel, name, title in zip(
            axes,
            ("attention_mean", "attention_one"),
            ("mean over the test part", "the origin of the forecast fans"),
            strict=True,
        ):
            weights = held[name]
            image = panel.imshow(
                weights,
                cmap="cividis",
                aspect="auto",
                extent=(-weights.shape[1] + 0.5, 0.5, len(weights) + 0.5, 0.5),
            )
            panel.set_title(title)
            panel.set_ylabel("step ahead")
            panel.set_yticks(range(1, len(weights) + 1))
            panel.grid(False)
            picture.colorbar(image, ax=panel, label="weight")
        axes[1].set_xlabel("step of the context, counted back from the last known price")


def curves(folder: Path, record: dict[str, Any]) -> None:
    """As-assigned training loss, and the validation CRPS of every seed."""
    log = pd.read_csv(folder / "metrics.csv")
    with figure(folder / "learning_curves.png", record, (9, 3), 1, 2) as (_, axes):
        learning_curve(axes[0], log, "train", "assigned_mse", color=PALETTE[0])
        axes[0].set(
            yscale="log",
            xlabel="epoch",
            ylabel="training MSE (MinMax units)",
            title="As assigned: one window, teacher forced",
        )
        seed_curves(axes[1], log, "crps_seed")
        axes[1].set(title="Held out: epoch 0 is the untrained network")


def assigned(folder: Path, record: dict[str, Any], held: Any, series: list[str]) -> None:
    """The end of the course's window and the steps after it: truth, teacher forced, free-running, no change."""
    seen, coming = held["assigned | seen"], held["assigned | coming"]
    horizon, shown = len(coming), 12

    def lines(panel: Axes, s: int) -> None:
        truth = np.concatenate([seen, coming])[-shown - horizon :, s]
        panel.plot(np.arange(-shown, horizon) + 1, truth, color="black", lw=1, label="price")
        ahead = np.arange(1 - horizon, 1)
        for number, name in enumerate(
            ("teacher forced, trained window", "free-running, trained window")
        ):
            panel.plot(
                ahead,
                held[f"assigned | {name}"][:, s],
                color=PALETTE[number],
                marker=MARKERS[number],
                ms=3,
                label=name,
            )
        panel.plot(
            ahead + horizon,
            held["assigned | free-running, next steps"][:, s],
            color=PALETTE[2],
            marker="^",
            ms=3,
            label="free-running, next steps",
        )
        panel.plot(
            ahead + horizon,
            np.repeat(seen[-1, s], horizon),
            color="#888888",
            ls=":",
            label="no change",
        )
        panel.axvspan(0.5 - horizon, 0.5, color="#EEEEEE", zorder=0)

    with figure(folder / "as_assigned.png", record, **panels(len(series))) as (picture, axes):
        for number, (name, panel) in enumerate(zip(series, axes.flat, strict=False)):
            lines(panel, number)
            panel.set_title(name)
            panel.set_xlabel("step (0: end of the trained window)")
            panel.set_ylabel("price (USD)" if number % axes.shape[1] == 0 else "")
        tidy(axes, len(series))
        picture.suptitle(
            "As assigned: the grey steps were trained on, the five after them were not", fontsize=10
        )
