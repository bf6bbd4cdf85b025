"""Figures of assignment 4, drawn from a run folder only."""

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
    panels,
    read_run,
    seed_curves,
)


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    held = np.load(folder / "predictions.npz", allow_pickle=False)
    series = [str(name) for name in held["series"]]
    chosen = f"LoRA, rank {record['config']['rank']}"
    test = table[
        (table.protocol == "held-out")
        & (table.split == "test")
        & ~table.variant.str.contains("against")
    ]
    mean = f"to convergence, mean of {record['config']['seeds']} seeds"
    pooled = test[test.series.isna() & test.horizon.isna()]
    fans_of(folder / "forecast_fans.png", record, held)
    some = test.model.isin(["no adaptation", "from scratch", "full fine-tuning", chosen]) & (
        test.variant == mean
    )
    by_horizon(
        folder / "error_by_horizon.png",
        record,
        test[some | test.variant.str.contains("residuals")],
        chosen,
    )
    cells(folder / "error_by_cell.png", record, test, series, chosen, mean)
    calibration(folder / "calibration.png", record, held)
    parameters(folder, record, pooled)
    shares(folder, record, pooled, chosen)
    forgetting(folder, record, table)
    singular_values(folder, record, held)
    curves(folder, record)


def style(name: str) -> dict[str, Any]:
    """One colour and marker a kind of strategy."""
    kinds = (
        "from scratch",
        "full fine-tuning",
        "LoRA",
        "attention only",
        "rsLoRA",
        "head only",
        "no adaptation",
    )
    place = next(number for number in (3, 4, 2, 0, 1, 5, 6) if kinds[number] in name)
    return {
        "color": PALETTE[place],
        "marker": MARKERS[place],
        "label": "LoRA, attention only" if place == 3 else kinds[place],
    }


def parameters(folder: Path, record: dict[str, Any], pooled: pd.DataFrame) -> None:
    """Error against the number of trained weights, mean and deviation of the seeds."""
    part = pooled[
        (pooled.variant == "to convergence") & pooled.metric.isin(["crps_ratio", "rmsse"])
    ]
    with figure(folder / "error_against_parameters.png", record, (10, 3.4), 1, 2) as (
        picture,
        axes,
    ):
        for panel, metric, label in zip(
            axes,
            ("crps_ratio", "rmsse"),
            ("CRPS ratio (1: rolling random walk)", "RMSSE (1: no change)"),
            strict=True,
        ):
            for name, rows in part[part.metric == metric].groupby("model", sort=False):
                look = style(str(name))
                if look["label"] in [line.get_label() for line in panel.containers]:
                    look["label"] = "_again"
                panel.errorbar(
                    np.maximum(rows.params, 100),
                    rows.value,
                    rows["std"].fillna(0),
                    ls="none",
                    ms=5,
                    capsize=2,
                    **look,
                )
            panel.set(
                xscale="log",
                xlabel="trained weights (no adaptation: 0, drawn at 100)",
                ylabel=label,
            )
        picture.legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="outside right center")
        picture.suptitle(
            "Error of each strategy on the test part, single networks: mean and deviation of the seeds",
            fontsize=10,
        )


def shares(folder: Path, record: dict[str, Any], pooled: pd.DataFrame, chosen: str) -> None:
    """Error against the share of the target's training part."""
    part = pooled[
        (pooled.metric == "crps_ratio")
        & pooled.model.isin(["from scratch", "full fine-tuning", chosen])
    ]
    part = part.assign(
        share=part.variant.map(
            lambda name: (
                100.0
                if name == "to convergence"
                else float(name.split(" %")[0])
                if name.endswith("% of the data")
                else np.nan
            )
        )
    )
    part = part[part.share.notna()].sort_values("share")
    untouched = pooled[
        (pooled.metric == "crps_ratio")
        & (pooled.model == "no adaptation")
        & (pooled.variant == "to convergence")
    ].value
    with figure(folder / "error_against_data.png", record, (5.5, 3.4)) as (_, panel):
        for name, rows in part.groupby("model", sort=False):
            panel.errorbar(
                rows.share,
                rows.value,
                rows["std"].fillna(0),
                capsize=2,
                ms=5,
                **(style(str(name)) | {"label": str(name)}),
            )
        panel.axhline(float(untouched.mean()), color="#888888", ls=":", label="no adaptation")
        panel.set(
            xscale="log",
            xlabel="share of the target's training part (%)",
            ylabel="CRPS ratio (1: rolling random walk)",
            title="Error by how much of the target is trained on",
        )
        ticks = sorted(part.share.unique())
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
        panel.legend()


def forgetting(folder: Path, record: dict[str, Any], table: pd.DataFrame) -> None:
    """Error on the coins after each adaptation over that before it; with the adapter off it is 1."""
    part = table[table.metric == "coin_crps"]
    with figure(folder / "forgetting.png", record, (7, 0.28 * len(part) + 1.2)) as (_, panel):
        for place, row in enumerate(part.itertuples()):
            panel.barh(
                place,
                row.value - 1,
                xerr=0 if np.isnan(row.std or np.nan) else row.std,
                left=1,
                color=style(row.model)["color"],
                height=0.7,
            )
        panel.axvline(1, color="#888888", lw=0.8)
        panel.set_yticks(range(len(part)), list(part.model))
        panel.invert_yaxis()
        panel.set(
            xlabel="CRPS on the coins' validation part, after over before (1: nothing forgotten)",
            title="Forgetting, with the adapter left on",
        )
        panel.grid(axis="y", visible=False)


def singular_values(folder: Path, record: dict[str, Any], held: Any) -> None:
    """Singular values of what each affine map changed by, full fine-tuning beside LoRA of the highest rank."""
    ranks = record["config"]["ranks"]
    names = [
        "full fine-tuning",
        f"LoRA, rank {record['config']['rank']}",
        f"LoRA, rank {max(ranks)}",
    ]
    paths = list(
        dict.fromkeys(key.split(" | ")[2] for key in held.files if key.startswith("singular | "))
    )
    # the first of them, the largest, is zero where the network before training was the best on validation
    changed = [
        path
        for path in paths
        if any(held[f"singular | {name} | {path}"].max() > 1e-12 for name in names)
    ]
    layout = panels(max(len(changed), 1)) | {"sharex": True, "sharey": True}
    with figure(folder / "singular_values.png", record, **layout) as (picture, axes):
        for panel, path in zip(axes.flat, changed, strict=False):
            for number, name in enumerate(dict.fromkeys(names)):
                values = held[f"singular | {name} | {path}"]
                values = values[
                    values > 1e-4 * max(values.max(), 1e-12)
                ]  # below: float32's noise of merging
                look = {
                    "label": name,
                    "color": PALETTE[(1, 2, 0)[number]],
                    "ls": ("-", "--", ":")[number],
                    "ms": 3,
                }
                if len(values):
                    panel.loglog(np.arange(1, len(values) + 1), values, **style(name) | look)
            panel.set_title(path, fontsize=8)
        for panel in axes.flat[len(changed) :]:
            panel.axis("off")
        if changed:
            axes.flat[0].legend(fontsize=6)
            picture.supylabel("singular value of the change", fontsize=9)
        else:
            picture.text(
                0.5,
                0.5,
                "unchanged: on validation the networks\nbefore training were the best",
                ha="center",
                va="center",
            )
        title = (
            "What training changed in each affine map (seed 0)"
            + ": singular values by their number" * bool(changed)
        )
        picture.suptitle(title, fontsize=10)


def curves(folder: Path, record: dict[str, Any]) -> None:
    """Validation CRPS of every seed of four strategies."""
    log = pd.read_csv(folder / "metrics.csv")
    rates = record["notes"]["learning_rates"]
    names = [
        "from scratch",
        "full fine-tuning",
        f"LoRA, rank {record['config']['rank']}",
        "head only",
    ]
    with figure(folder / "learning_curves.png", record, (11, 3), 1, 4, sharey=True) as (_, axes):
        for panel, name in zip(axes, names, strict=True):
            seed_curves(
                panel, log, f"crps_{name.replace(', ', '-').replace(' ', '_')}-{rates[name]:g}-"
            )
            panel.set(
                title=f"{name}, lr {rates[name]:g}",
                ylabel=panel.get_ylabel() if panel is axes[0] else "",
            )
