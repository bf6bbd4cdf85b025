"""Figures of assignment 1, drawn from a run folder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from common.figures import MARKERS, colours, figure, heat_map, learning_curve, read_run

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
FAMILIES = ("ELM", "binary ELM", "MLP")
PENALTIES = ("no penalty", "ridge", "lasso", "elastic net")


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    curves = pd.read_csv(folder / "metrics.csv")
    test = table[(table.protocol == "held-out") & (table.split == "test")]
    _learning(folder, record, curves)
    _accuracy(folder, record, test)
    _grid(folder, record, test)
    _paths(folder, record)
    _confusion(folder, record)
    if (folder / "reconstructions.npz").exists():
        _reconstructions(folder, record)


def _learning(folder: Path, record: dict, curves: pd.DataFrame) -> None:
    names = sorted(set(curves.name))
    with figure(folder / "learning_curves.png", record, (9.0, 3.0), 1, 3) as (
        _,
        (left, middle, right),
    ):
        if "vq_psnr" in names:
            learning_curve(
                left, curves, "train", "vq_reconstruction", color="#0072B2", label="reconstruction"
            )
            learning_curve(
                left,
                curves,
                "train",
                "vq_commitment",
                color="#D55E00",
                label="commitment",
                linestyle="--",
            )
            left.set(
                title="VQ-VAE, training part",
                xlabel="step",
                ylabel="mean squared error (standardised pixels)",
                yscale="log",
            )
            left.legend()
            learning_curve(
                middle, curves, "validation", "vq_psnr", color="#009E73", marker="o", markersize=3
            )
            middle.set(
                title="VQ-VAE, validation part", xlabel="step", ylabel="PSNR (dB), mean over faces"
            )
        for name, colour, marker in (
            ("MLPClassifier_loss", "#0072B2", "o"),
            ("CNNClassifier_loss", "#D55E00", "s"),
        ):
            part = curves[curves.name == name]
            mean = part.groupby("epoch").value.mean()
            if len(mean):
                right.plot(
                    mean.index,
                    mean,
                    color=colour,
                    marker=marker,
                    markersize=3,
                    label=f"{name[:3]}, mean of {part.groupby('epoch').size().max()} fits",
                )
        right.set(
            title="networks on codes, training part",
            xlabel="epoch",
            ylabel="cross-entropy (nats) + penalty",
        )
        right.legend()


def _baseline(test: pd.DataFrame, model: str) -> float:
    part = test[(test.model == model) & (test.metric == "accuracy")]
    return float(part.value.iloc[0]) if len(part) else np.nan


def _accuracy(folder: Path, record: dict, test: pd.DataFrame) -> None:
    part = test[(test.metric == "accuracy") & test.model.isin(FAMILIES)]
    names = list(dict.fromkeys(variant.rsplit(", ", 1)[0] for variant in part.variant))
    colour = colours(FAMILIES)
    with figure(folder / "accuracy_by_representation.png", record, (7.5, 3.6)) as (_, axes):
        for number, family in enumerate(FAMILIES):
            found = []
            for name in names:
                row = part[(part.model == family) & (part.variant == f"{name}, ridge")].iloc[0]
                found.append((row.value, row["std"] or 0.0))
            values, deviations = np.array(found, dtype=float).T
            places = np.arange(len(names)) + 0.26 * (number - 1)
            seeds = int(part[part.model == family].n_seeds.max())
            axes.bar(
                places,
                values,
                0.24,
                yerr=np.nan_to_num(deviations),
                color=colour[family],
                hatch=("", "//", "..")[number],
                edgecolor="white",
                capsize=2,
                label=f"{family} ({seeds} seed{'s' if seeds > 1 else ''})",
            )
            for place, value, top in zip(
                places, values, values + np.nan_to_num(deviations), strict=True
            ):
                axes.text(place, top + 0.01, f"{value:.3f}", ha="center", fontsize=6.5)
        for model, style in (("CNN", "--"), ("linear", "-."), ("largest class", ":")):
            axes.axhline(
                _baseline(test, model),
                color="#444444",
                linestyle=style,
                linewidth=1,
                label=f"{model}: {_baseline(test, model):.3f}",
            )
        axes.set_xticks(range(len(names)), names)
        axes.set(
            ylabel="test accuracy, ridge penalty",
            title="What a code map is shown as decides how well an untrained hidden layer does",
        )
        axes.legend(ncol=2, loc="upper left")
        axes.set_ylim(0, 1.45 * max(part.value.max(), np.nan_to_num(_baseline(test, "CNN"))))


def _grid(folder: Path, record: dict, test: pd.DataFrame) -> None:
    part = test[(test.metric == "accuracy") & test.model.isin(FAMILIES)]
    names = list(dict.fromkeys(variant.rsplit(", ", 1)[0] for variant in part.variant))
    limits = (float(part.value.min()), float(part.value.max()))
    with figure(folder / "accuracy_grid.png", record, (9.5, 2.9), 1, 3, sharey=True) as (
        picture,
        axes,
    ):
        for place, family in zip(axes, FAMILIES, strict=True):
            lookup = part[part.model == family].set_index("variant").value
            values = np.array(
                [
                    [lookup.get(f"{name}, {penalty}", np.nan) for penalty in PENALTIES]
                    for name in names
                ]
            )
            image = heat_map(place, values, names, list(PENALTIES), "{:.3f}", limits=limits)
            place.set_title(family)
        picture.colorbar(image, ax=axes, label="test accuracy, mean over seeds")


def _paths(folder: Path, record: dict) -> None:
    held = np.load(folder / "paths.npz", allow_pickle=False)
    cells = list(dict.fromkeys(name.split(" | ")[0] for name in held.files))
    names = [cell.split(", ")[1] for cell in cells if cell.startswith("ELM, ")]
    colour = colours(names)
    with figure(folder / "penalty_paths.png", record, (9.0, 5.2), 2, 3) as (_, axes):
        for column, penalty in enumerate(("ridge", "lasso", "elastic net")):
            for number, name in enumerate(names):
                if f"ELM, {name} | {penalty} | alphas" not in held:
                    continue
                read = {
                    what: held[f"ELM, {name} | {penalty} | {what}"]
                    for what in ("alphas", "accuracy", "share_used")
                }
                style = {
                    "color": colour[name],
                    "label": name,
                    "marker": MARKERS[number],
                    "markersize": 3,
                    "markevery": 4,
                }
                axes[0, column].plot(read["alphas"], read["accuracy"], **style)
                axes[1, column].plot(read["alphas"], read["share_used"], **style)
            for row, label in ((0, "validation accuracy"), (1, "share of units in use")):
                axes[row, column].set(
                    xscale="log",
                    xlabel=f"strength α of the {penalty} penalty",
                    ylabel=label if column == 0 else "",
                )
            axes[0, column].set_title(penalty)
            axes[1, column].set_ylim(-0.02, 1.05)
        axes[1, 0].legend()


def _confusion(folder: Path, record: dict) -> None:
    held = np.load(folder / "predictions.npz", allow_pickle=False)
    labels, best = held["labels"], record["notes"]["best_on_validation"]
    shown = [name for name in ("ELM", "binary ELM", "MLP", "CNN") if name in best]
    classes = np.unique(labels)
    with figure(
        folder / "confusion.png", record, (3.0 * len(shown) + 0.6, 3.5), 1, len(shown), sharey=True
    ) as (picture, axes):
        for place, name in zip(np.atleast_1d(axes), shown, strict=True):
            predictions = held[f"{name} | {best[name]['variant']}"]
            counts = sum(confusion_matrix(labels, row, labels=classes) for row in predictions)
            image = heat_map(
                place,
                counts / counts.sum(1, keepdims=True),
                [CLASSES[c] for c in classes],
                [CLASSES[c] for c in classes],
                limits=(0, 1),
            )
            place.set(title=f"{name}: {best[name]['variant']}", xlabel="predicted")
            place.title.set_fontsize(8)
        np.atleast_1d(axes)[0].set_ylabel("labelled")
        picture.colorbar(image, ax=axes, label="share of the labelled class")


def _reconstructions(folder: Path, record: dict) -> None:
    held = np.load(folder / "reconstructions.npz", allow_pickle=False)
    with figure(folder / "codes.png", record, (8.6, 4.2), 3, len(held["images"])) as (_, axes):
        for column in range(len(held["images"])):
            for row, (name, options) in enumerate(
                (
                    ("images", {"cmap": "gray", "vmin": 0, "vmax": 255}),
                    (
                        "codemaps",
                        {"cmap": "viridis", "vmin": 0, "vmax": 255, "interpolation": "nearest"},
                    ),
                    ("reconstructions", {"cmap": "gray", "vmin": 0, "vmax": 255}),
                )
            ):
                axes[row, column].imshow(held[name][column], **options)
                axes[row, column].set_xticks([])
                axes[row, column].set_yticks([])
                axes[row, column].grid(False)
                if column == 0:
                    axes[row, column].set_ylabel(
                        ("drawn face\n48 × 48", "code indices\n12 × 12", "decoded\n48 × 48")[row]
                    )
            axes[0, column].set_title(CLASSES[column], fontsize=8)
