"""Figures of assignment 2, drawn from a run folder only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from assignment2.config import ensemble_label
from common.figures import (
    PALETTE,
    WIDTH,
    Option,
    figure,
    learning_curve,
    legend_below,
    read_run,
)
from common.files import JsonObject
from common.forecasting.assigned import Window, window_label
from common.forecasting.figures import (
    CourseLine,
    by_horizon,
    calibration,
    cells,
    course_figure,
    fans_of,
    in_words,
    logarithmic,
    seed_curves,
)

Arrays = Mapping[str, np.ndarray]  # of predictions.npz

# how the course's network decodes, which steps, and a colour
DRAWN: tuple[tuple[str, Window, str], ...] = (
    ("teacher forced", "trained", PALETTE[5]),
    ("free-running", "trained", PALETTE[0]),
    ("free-running", "next", PALETTE[0]),
)


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    arrays = np.load(folder / "predictions.npz", allow_pickle=False)
    series = [str(name) for name in arrays["series"]]
    test = table[(table.protocol == "held-out") & (table.split == "test")]
    ensemble = ensemble_label(record["config"]["seeds"])
    corrected = test[test.variant != f"{ensemble}, not recalibrated"]

    fans_of(folder / "forecast_fans.png", record, arrays)
    by_horizon(folder / "error_by_horizon.png", record, corrected, "Seq2Seq")
    cells(folder / "error_by_cell.png", record, test, series, "Seq2Seq", ensemble)
    calibration(folder / "calibration.png", record, arrays)
    attention(folder / "attention.png", record, arrays)
    learning_curves(folder / "learning_curves.png", record, pd.read_csv(folder / "metrics.csv"))
    as_assigned(folder / "as_assigned.png", record, arrays)


def attention(path: Path, record: JsonObject, arrays: Arrays) -> None:
    """Which steps of the context each step of the decoder attends to: on average and once."""
    titles = {
        "attention_mean": "mean over the test part",
        "attention_one": "the origin of the forecast fans",
    }
    largest = max(float(arrays[name].max()) for name in titles)
    with figure(path, record, (WIDTH, 3.2), 2, 1, sharex=True) as (picture, axes):
        for panel, (name, title) in zip(axes, titles.items(), strict=True):
            weights = arrays[name]  # (H, T)
            horizon, steps = weights.shape
            extent = (-steps + 0.5, 0.5, horizon + 0.5, 0.5)
            style: dict[str, Option] = {"cmap": "cividis", "vmin": 0, "vmax": largest}
            image = panel.imshow(weights, aspect="auto", extent=extent, **style)
            panel.set(title=title, ylabel="step ahead", yticks=range(1, horizon + 1))
            panel.grid(False)
        picture.colorbar(image, ax=axes, label="weight")
        axes[1].set_xlabel("step of the context, counted back from the last known price")


def learning_curves(path: Path, record: JsonObject, log: pd.DataFrame) -> None:
    """As-assigned training loss, and the validation CRPS of every seed."""
    with figure(path, record, (WIDTH, 2.9), 1, 2) as (picture, (left, right)):
        learning_curve(left, log, "train", "assigned_mse", color=PALETTE[0])
        left.set(
            xlabel="epoch",
            ylabel="training MSE (MinMax units)",
            title="As assigned, teacher forced",
        )
        logarithmic(left)
        seed_curves(right, log, "crps_seed")
        right.set(title="Held out (epoch 0: untrained)")
        legend_below(picture, [right], columns=5)


def as_assigned(path: Path, record: JsonObject, arrays: Arrays) -> None:
    """The course's window: teacher forced, free-running and no change."""
    lines = []
    for decoding, window, colour in DRAWN:
        label = window_label(decoding, window)
        lines.append(CourseLine(label, f"assigned | {label}", window, colour))
    later = in_words(len(arrays["assigned | coming"]))
    title = f"As assigned: the grey steps were trained on, the {later} after them were not"
    course_figure(path, record, arrays, lines, title)
