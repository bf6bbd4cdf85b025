"""Figures of assignment 3, drawn from a run folder only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

import assignment2.config
from assignment3.config import NORMALISATIONS, Normalisation, average_label, ensemble_label
from common.figures import (
    WIDTH,
    figure,
    learning_curve,
    legend_below,
    read_run,
)
from common.files import JsonObject
from common.forecasting.assigned import Window, window_label
from common.forecasting.ensemble import ModelKey, Pair
from common.forecasting.figures import (
    KNOWN,
    CourseLine,
    by_horizon,
    calibration,
    cells,
    course_figure,
    fans_of,
    in_words,
    logarithmic,
    seed_curves,
    step_word,
)

Arrays = Mapping[str, np.ndarray]  # of predictions.npz

DRAWN: tuple[tuple[str, str, Window], ...] = (  # network, how it decodes, which steps
    ("Transformer", "", "trained"),
    ("Transformer", "", "next"),
    ("Seq2Seq", ", teacher forced", "trained"),
    ("Seq2Seq", ", free-running", "next"),
)
AGAINST = (  # (metric, its p, title) of one model against another
    ("rmse_against", "p_rmse_against", "RMSE"),
    ("crps_against", "p_crps_against", "CRPS"),
)


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    arrays = np.load(folder / "predictions.npz", allow_pickle=False)
    log = pd.read_csv(folder / "metrics.csv")
    series = [str(name) for name in arrays["series"]]
    test = table[(table.protocol == "held-out") & (table.split == "test")]
    seeds = record["config"]["seeds"]
    transformers: dict[Normalisation, ModelKey] = {
        normalisation: ("Transformer", ensemble_label(seeds, normalisation))
        for normalisation in NORMALISATIONS
    }
    seq2seq: ModelKey = ("Seq2Seq", assignment2.config.ensemble_label(seeds))

    # The mean forecasts beside the baselines, by step and by series:
    fans_of(folder / "forecast_fans.png", record, arrays)
    average: ModelKey = ("average", average_label(seeds))
    shown = ensembles_and_baselines(test, [*transformers.values(), seq2seq, average])
    by_horizon(folder / "error_by_horizon.png", record, shown, "Transformer")
    cells(folder / "error_by_cell_log.png", record, test, series, *transformers["log"])

    # The Transformer behind log against Seq2Seq, by series and step:
    variant = Pair(transformers["log"], seq2seq).variant
    titled = [
        (metric, p, f"{title}, Transformer (log) over Seq2Seq") for metric, p, title in AGAINST
    ]
    path = folder / "log_against_seq2seq.png"
    cells(path, record, test, series, "Transformer", variant, titled)

    calibration(folder / "calibration.png", record, arrays)
    attention(folder / "attention.png", record, arrays["attention_mean"])
    learning_curves(folder / "learning_curves.png", record, log)
    as_assigned(folder / "as_assigned.png", record, arrays)


def ensembles_and_baselines(test: pd.DataFrame, ensembles: list[ModelKey]) -> pd.DataFrame:
    """The rows of the mean forecasts and of every model that is not trained here."""
    trained = {model for model, _ in ensembles}
    keys = zip(test.model, test.variant, strict=True)
    shown = [key in ensembles or key[0] not in trained for key in keys]
    return test[shown]


def attention(path: Path, record: JsonObject, weights: np.ndarray) -> None:
    """Mean attention (A, H, T) of the last block's heads, by step ahead."""
    columns = min(len(weights), 4)
    rows = -(-len(weights) // columns)
    size = (WIDTH, 1.2 * rows + 0.8)
    shared = {"sharex": True, "sharey": True, "squeeze": False}
    largest = float(weights.max())
    with figure(path, record, size, rows, columns, **shared) as (picture, axes):
        for head, (panel, part) in enumerate(zip(axes.flat, weights, strict=False), 1):
            horizon, steps = part.shape
            image = panel.imshow(
                part,
                cmap="cividis",
                aspect="auto",
                extent=(-steps + 0.5, 0.5, horizon + 0.5, 0.5),
                vmin=0,
                vmax=largest,
            )
            panel.set(title=f"head {head}", yticks=range(1, horizon + 1))
            panel.grid(False)
        for panel in axes.flat[len(weights) :]:
            panel.axis("off")
        for panel in axes[:, 0]:
            panel.set_ylabel("step ahead")
        for panel in axes[-1]:
            panel.set_xlabel("step of context")
        picture.colorbar(image, ax=axes, label="weight")
        picture.suptitle(
            "Attention of the last block, mean over the test part; "
            f"0: the last known {step_word(record, 'hour')}"
        )


def learning_curves(path: Path, record: JsonObject, log: pd.DataFrame) -> None:
    """As-assigned training losses, and the validation CRPS of every held-out network."""
    with figure(path, record, (WIDTH, 4.8), 2, 2) as (picture, axes):
        first, *held_out = axes.flat
        for model, prefix in (("Transformer", "assigned_"), ("Seq2Seq", "assigned_seq2seq_")):
            for (normalisation, label), line in zip(NORMALISATIONS.items(), "-:", strict=True):
                style = {"color": KNOWN[model], "label": f"{model}, {label}", "ls": line}
                learning_curve(first, log, "train", prefix + normalisation, **style)
        first.set(
            xlabel="epoch",
            ylabel="training MSE (normalised)",
            title="As assigned",
        )
        logarithmic(first)
        first.legend()

        curves = {
            "crps_log-": "Transformer, log",
            "crps_minmax-": "Transformer, MinMax",
            "crps_seed": "Seq2Seq",
        }
        for panel, (prefix, title) in zip(held_out, curves.items(), strict=True):
            seed_curves(panel, log, prefix)
            panel.set_title(f"Held out: {title}")
        legend_below(picture, held_out, columns=5)


def as_assigned(path: Path, record: JsonObject, arrays: Arrays) -> None:
    """The course's window behind MinMax: both networks and no change."""
    lines = []
    for model, decoding, window in DRAWN:
        variant = f"{NORMALISATIONS['minmax']}{decoding}"
        key = f"assigned | {model}, {window_label(variant, window)}"
        label = window_label(f"{model}{decoding}", window)
        lines.append(CourseLine(label, key, window, KNOWN[model]))
    later = in_words(len(arrays["assigned | coming"]))
    title = f"As assigned, MinMax: the grey steps were trained on, the {later} after them were not"
    course_figure(path, record, arrays, lines, title)
