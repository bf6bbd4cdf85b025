"""Figures of the template, drawn from a run folder only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from common.figures import PALETTE, colours, figure, learning_curve, read_run
from common.files import JsonObject


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, _ = read_run(folder)
    draw_learning_curves(folder, record)
    draw_test_rows(folder, record)


def draw_learning_curves(folder: Path, record: JsonObject) -> None:
    """Validation RMSE against the epoch, one line per seed."""
    log = pd.read_csv(folder / "metrics.csv")
    names = [f"rmse_seed{seed}" for seed in range(record["config"]["seeds"])]
    with figure(folder / "learning_curves.png", record, (6, 3.2)) as (_, axes):
        for seed, (name, colour) in enumerate(colours(names).items()):
            learning_curve(axes, log, "validation", name, label=f"seed {seed}", color=colour)
        axes.set(xlabel="epoch", ylabel="validation RMSE (unit of y)")
        axes.legend()


def draw_test_rows(folder: Path, record: JsonObject) -> None:
    """Predictions of the test part against y."""
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        target, predictions = file["target"], file["ridge"]
    with figure(folder / "test_rows.png", record, (4, 3.6)) as (_, axes):
        axes.plot(target, predictions.mean(0), ".", color=PALETTE[0], alpha=0.5)
        axes.axline((target.mean(), target.mean()), slope=1, color="#888888", lw=0.8)
        axes.set(xlabel="y, test part", ylabel="prediction, mean over seeds")
