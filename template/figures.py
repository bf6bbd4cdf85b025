"""Figures of the template, drawn from a run folder only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from common.figures import PALETTE, colours, figure, learning_curve, read_run


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, _ = read_run(folder)
    log = pd.read_csv(folder / "metrics.csv")
    with figure(folder / "learning_curves.png", record, (6, 3.2)) as (_, axes):
        for name, colour in colours(log.name.unique()).items():
            learning_curve(
                axes,
                log,
                "validation",
                name,
                label=name.removeprefix("rmse_").replace("seed", "seed "),
                color=colour,
            )
        axes.set(xlabel="epoch", ylabel="validation RMSE (unit of y)")
        axes.legend()
    with np.load(folder / "predictions.npz", allow_pickle=False) as held:
        target, answers = held["target"], held["ridge"]
    with figure(folder / "test_rows.png", record, (4, 3.6)) as (_, axes):
        axes.plot(target, answers.mean(0), ".", color=PALETTE[0], alpha=0.5)
        axes.axline((target.mean(), target.mean()), slope=1, color="#888888", lw=0.8)
        axes.set(xlabel="y, test part", ylabel="ridge, mean of the seeds")
