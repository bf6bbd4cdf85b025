"""Figures of assignment 3, drawn from a run folder only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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
    means = {
        name.partition(",")[0]: name
        for name in test.variant.unique()
        if name.endswith("seeds") and "against" not in name
    }
    shown = ~test.variant.str.contains("not recalibrated|against") & ~test.variant.isin(
        ["log", "MinMax", "quantile head"]
    )
    fans_of(folder / "forecast_fans.png", record, held)
    by_horizon(folder / "error_by_horizon.png", record, test[shown], "Transformer")
    for name in ("log", "MinMax"):
        cells(
            folder / f"error_by_cell_{name.lower()}.png",
            record,
            test,
            series,
            "Transformer",
            means[name],
        )
    against = (
        ("rmse_against", "p_rmse_against", "RMSE"),
        ("crps_against", "p_crps_against", "CRPS"),
    )
    seq2seq = next(
        name
        for name in test[test.model == "Seq2Seq"].variant.unique()
        if name.startswith("mean of") and name.endswith("seeds")
    )
    for one, (model, variant), title in (
        ("log", ("Seq2Seq", seq2seq), "Seq2Seq"),
        ("log", ("Transformer", means["MinMax"]), "MinMax"),
    ):
        titled = [
            (metric, p, f"{label}, Transformer (log) over {title}") for metric, p, label in against
        ]
        path = folder / f"log_against_{title.lower()}.png"
        cells(
            path,
            record,
            test,
            series,
            "Transformer",
            f"{means[one]} against {model}, {variant}",
            titled,
        )
    calibration(folder / "calibration.png", record, held)
    attention(folder, record, held)
    curves(folder, record)
    assigned(folder, record, held, series)


def attention(folder: Path, record: dict[str, Any], held: Any) -> None:
    """Where the last block's heads look, by step ahead: the mean over the test part."""
    weights = held["attention_mean"]  # (A, H, T)
    with figure(
        folder / "attention.png",
        record,
        **(panels(len(weights)) | {"sharex": True, "sharey": True}),
    ) as (picture, axes):
        for head, (panel, part) in enumerate(zip(axes.flat, weights, strict=False), 1):
            extent = (-part.shape[1] + 0.5, 0.5, len(part) + 0.5, 0.5)
            image = panel.imshow(
                part,
                cmap="cividis",
                aspect="auto",
                extent=extent,
                vmin=0,
                vmax=float(weights.max()),
            )
            panel.set(title=f"head {head}", yticks=range(1, len(part) + 1))
            panel.grid(False)
        for panel in axes.flat[len(weights) :]:
            panel.axis("off")
        for panel in axes[:, 0]:
            panel.set_ylabel("step ahead")
        for panel in axes[-1]:
            panel.set_xlabel("step of the context")
        picture.colorbar(image, ax=axes, label="weight")
        picture.suptitle(
            "Attention of the last block, mean over the test part; 0: the last known hour",
            fontsize=9,
        )


def curves(folder: Path, record: dict[str, Any]) -> None:
    """As-assigned training losses, and the validation CRPS of every held-out network."""
    log = pd.read_csv(folder / "metrics.csv")
    with figure(folder / "learning_curves.png", record, (12, 3), 1, 4) as (_, axes):
        names = {
            "assigned_log": "Transformer, log",
            "assigned_minmax": "Transformer, MinMax",
            "assigned_seq2seq_log": "Seq2Seq, log",
            "assigned_seq2seq_minmax": "Seq2Seq, MinMax",
        }
        for number, (name, label) in enumerate(names.items()):
            learning_curve(
                axes[0],
                log,
                "train",
                name,
                color=PALETTE[number],
                label=label,
                ls="-" if number < 2 else "--",
            )
        axes[0].set(
            yscale="log", xlabel="epoch", ylabel="training MSE (normalised)", title="As assigned"
        )
        axes[0].legend()
        for panel, prefix, title in zip(
            axes[1:],
            ("crps_log-", "crps_minmax-", "crps_seed"),
            ("Transformer, log", "Transformer, MinMax", "Seq2Seq"),
            strict=True,
        ):
            seed_curves(panel, log, prefix)
            panel.set(
                title=f"Held out: {title}", ylabel=panel.get_ylabel() if panel is axes[1] else ""
            )


def assigned(folder: Path, record: dict[str, Any], held: Any, series: list[str]) -> None:
    """The end of the course's window and the steps after it, MinMax: truth, both networks, no change."""
    seen, coming = held["assigned | seen"], held["assigned | coming"]
    horizon, shown = len(coming), 12
    lines = (
        ("Transformer, MinMax", "trained window", "Transformer, trained window"),
        ("Transformer, MinMax", "next steps", "Transformer, next steps"),
        (
            "Seq2Seq, MinMax",
            "teacher forced, trained window",
            "Seq2Seq teacher forced, trained window",
        ),
        ("Seq2Seq, MinMax", "free-running, next steps", "Seq2Seq free-running, next steps"),
    )
    with figure(folder / "as_assigned.png", record, **panels(len(series))) as (picture, axes):
        for s, (name, panel) in enumerate(zip(series, axes.flat, strict=False)):
            panel.plot(
                np.arange(-shown, horizon) + 1,
                np.concatenate([seen, coming])[-shown - horizon :, s],
                color="black",
                lw=1,
                label="price",
            )
            for number, (model, way, label) in enumerate(lines):
                ahead = np.arange(1 - horizon, 1) + (horizon if way.endswith("next steps") else 0)
                panel.plot(
                    ahead,
                    held[f"assigned | {model}, {way}"][:, s],
                    color=PALETTE[number],
                    marker=MARKERS[number],
                    ms=3,
                    label=label,
                )
            panel.plot(
                np.arange(1, horizon + 1),
                np.repeat(seen[-1, s], horizon),
                color="#888888",
                ls=":",
                label="no change",
            )
            panel.axvspan(0.5 - horizon, 0.5, color="#EEEEEE", zorder=0)
            panel.set(
                title=name,
                xlabel="step (0: end of the trained window)",
                ylabel="price (USD)" if s % axes.shape[1] == 0 else "",
            )
        tidy(axes, len(series))
        picture.suptitle(
            "As assigned, MinMax: the grey steps were trained on, the five after them were not",
            fontsize=10,
        )
