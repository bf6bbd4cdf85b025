"""Figures of assignment 1, drawn from a run folder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter
from sklearn.metrics import confusion_matrix

from assignment1.config import INTERVAL, RESAMPLES
from assignment1.selection import ELM_FAMILIES
from assignment1.sweep import QUANTITIES, SWEPT, sweep_key
from assignment1.variants import (
    CNN,
    FAMILIES,
    GAUSSIAN_ELM,
    LABEL_AWARE,
    LARGEST_CLASS,
    LINEAR,
    LOOK_UP,
    MLP,
    NO_CODES,
    OBJECTIVES,
    PATCHES,
    PENALTIES,
    PENALTY_LABELS,
    PICTURE_CNN,
    READOUTS,
    REPRESENTATIONS,
    Variant,
    path_key,
    prediction_key,
)
from assignment1.words import CLASSES
from common.figures import (
    MARKERS,
    PALETTE,
    WIDTH,
    Option,
    colours,
    figure,
    heat_map,
    learning_curve,
    legend_below,
    read_run,
)
from common.files import JsonObject

BLUE, VERMILION = PALETTE[:2]
HATCHES = dict(zip(FAMILIES, ("", "//", ".."), strict=True))
MODELS = (*FAMILIES, CNN, PICTURE_CNN)  # one colour each
BASELINES = {PICTURE_CNN: (0, (6, 2)), CNN: "--", LINEAR: "-.", LARGEST_CLASS: ":"}
SWEEP_STYLES = {LOOK_UP: ("--", "o"), PATCHES: ("-", "s")}  # lines and markers


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    curves = pd.read_csv(folder / "metrics.csv")
    test = table[
        (table.protocol == "held-out") & (table.split == "test") & (table.metric == "accuracy")
    ]
    draw_learning(folder, record, curves)
    draw_accuracy(folder, record, test)
    draw_grid(folder, record, test)
    draw_paths(folder, record)
    draw_units(folder, record)
    draw_recall(folder, record)
    draw_confusion(folder, record)
    if (folder / "reconstructions.npz").exists():
        draw_reconstructions(folder, record)


# ----------------------------------------------------------------------------------- training


def draw_learning(folder: Path, record: JsonObject, curves: pd.DataFrame) -> None:
    """Losses of the VQ-VAE, its reconstructions on validation, and losses of the networks."""
    path = folder / "learning_curves.png"
    with figure(path, record, (WIDTH, 2.7), 1, 3) as (picture, (left, middle, right)):
        if (curves.name == "vq_psnr").any():
            vq_losses(left, curves)
            style = {"color": "black", "marker": "o", "markersize": 3}
            learning_curve(middle, curves, "validation", "vq_psnr", **style)
            middle.set_title("VQ-VAE, validation part")
            middle.set(xlabel="step", ylabel="PSNR (dB), mean over faces")
        network_losses(right, curves)
        legend_below(picture, (left, right), columns=5)


def vq_losses(axes: Axes, curves: pd.DataFrame) -> None:
    """The two terms of the VQ-VAE's loss against the step."""
    learning_curve(axes, curves, "train", "vq_reconstruction", color=BLUE, label="reconstruction")
    dashed = {"color": VERMILION, "label": "commitment", "linestyle": "--"}
    learning_curve(axes, curves, "train", "vq_commitment", **dashed)
    axes.set_title("VQ-VAE, training part")
    axes.set(xlabel="step", ylabel="squared error (standardised)", yscale="log")


def network_losses(axes: Axes, curves: pd.DataFrame) -> None:
    """The mean loss over all fits of a kind of network against the epoch."""
    kinds = {"MLP": MLP, "CNN": CNN, "PictureCNN": PICTURE_CNN}
    for (name, kind), marker in zip(kinds.items(), MARKERS, strict=False):
        part = curves[curves.name == f"{name}Classifier_loss"]
        if part.empty:
            continue
        epochs = part.groupby("epoch")
        fits = epochs.size().max()
        mean = epochs.value.mean()[epochs.size() == fits]  # some fits have more passes than others
        label = f"{kind}, mean of {fits} fits" if fits > 1 else kind
        style: dict[str, Option] = {"color": colours(MODELS)[kind], "marker": marker}
        axes.plot(mean.index, mean, label=label, markersize=3, **style)
    axes.set_title("networks, training part")
    axes.set(xlabel="epoch", ylabel="cross-entropy + penalty (nats)")


# ----------------------------------------------------------------------------------- accuracy


def shown_representations(test: pd.DataFrame) -> list[str]:
    """The representations that the run tried, in the order of the tables."""
    labels = set(test.variant)
    return [name for name in REPRESENTATIONS if Variant(name, "ridge").label in labels]


def draw_accuracy(folder: Path, record: JsonObject, test: pd.DataFrame) -> None:
    """Test accuracy under the ridge penalty by representation and family, with the baselines."""
    names = shown_representations(test)
    highest = test[test.model.isin(MODELS)].value.max()
    path = folder / "accuracy_by_representation.png"
    with figure(path, record, (WIDTH, 3.2)) as (picture, axes):
        for number, family in enumerate(FAMILIES):
            accuracy_bars(axes, test[test.model == family], names, family, number)
        for model, style in BASELINES.items():
            rows = test[test.model == model]
            if rows.empty:
                continue
            value = float(rows.value.iloc[0])
            label = f"{model}: {value:.3f}"
            axes.axhline(value, color="#444444", linestyle=style, linewidth=1, label=label)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("test accuracy, ridge penalty")
        axes.set_title("Accuracy by the representation of a code map")
        axes.set_ylim(0, 1.2 * highest)
        legend_below(picture, [axes], columns=4)


def accuracy_bars(
    axes: Axes, rows: pd.DataFrame, names: list[str], family: str, number: int
) -> None:
    """One bar per representation of a family, the number-th of three groups of bars."""
    ridge = rows.set_index("variant").loc[[Variant(name, "ridge").label for name in names]]
    values = ridge["value"].to_numpy(float)
    deviations = np.nan_to_num(ridge["std"].to_numpy(float))
    seeds = int(rows.n_seeds.max())
    positions = np.arange(len(names)) + 0.26 * (number - 1)
    axes.bar(
        positions,
        values,
        0.24,
        yerr=deviations,
        color=colours(MODELS)[family],
        hatch=HATCHES[family],
        edgecolor="white",
        capsize=2,
        label=f"{family} ({seeds} seed{'s' if seeds > 1 else ''})",
    )
    style: dict[str, Option] = {"ha": "center", "fontsize": 7, "rotation": 90}
    style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # over the baselines
    for position, value, top in zip(positions, values, values + deviations, strict=True):
        axes.text(position, top + 0.015, f"{value:.3f}", **style)


def draw_grid(folder: Path, record: JsonObject, test: pd.DataFrame) -> None:
    """Test accuracy of every representation and penalty, one panel per family."""
    part = test[test.model.isin(FAMILIES)]
    names = shown_representations(test)
    penalties = [PENALTY_LABELS[penalty] for penalty in PENALTIES]
    limits = {"vmin": part.value.min(), "vmax": part.value.max()}
    path = folder / "accuracy_grid.png"
    with figure(path, record, (WIDTH, 2.5), 1, 3, sharey=True) as (picture, axes):
        for panel, family in zip(axes, FAMILIES, strict=True):
            accuracy = part[part.model == family].set_index("variant").value
            values = np.full((len(names), len(penalties)), np.nan)
            for row, name in enumerate(names):
                for column, penalty in enumerate(PENALTIES):
                    values[row, column] = accuracy.get(Variant(name, penalty).label, np.nan)
            texts = np.char.mod("%.3f", values)
            image = heat_map(panel, values, names, penalties, texts, **limits)
            panel.set_title(family)
        picture.colorbar(image, ax=axes, label="test accuracy")


# ------------------------------------------------------------------------------------- choices


def draw_paths(folder: Path, record: JsonObject) -> None:
    """Validation accuracy and share of units in use along the penalty paths of the Gaussian ELM."""
    path = folder / "penalty_paths.png"
    penalties = [penalty for penalty in PENALTIES if penalty is not None]
    with (
        np.load(folder / "paths.npz", allow_pickle=False) as arrays,
        figure(path, record, (WIDTH, 4.1), 2, 3, sharey="row") as (_, axes),
    ):
        names = [
            name
            for name in REPRESENTATIONS
            if path_key(GAUSSIAN_ELM, Variant(name, "ridge"), "alphas") in arrays
        ]
        colour = colours(names)
        for column, penalty in enumerate(penalties):
            accuracy, share = axes[:, column]
            for number, name in enumerate(names):
                variant = Variant(name, penalty)
                if path_key(GAUSSIAN_ELM, variant, "alphas") not in arrays:
                    continue
                alphas = arrays[path_key(GAUSSIAN_ELM, variant, "alphas")]
                style: dict[str, Option] = {
                    "color": colour[name],
                    "label": name,
                    "marker": MARKERS[number],
                    "markersize": 3,
                    "markevery": 4,
                }
                accuracy.plot(alphas, arrays[path_key(GAUSSIAN_ELM, variant, "accuracy")], **style)
                share.plot(alphas, arrays[path_key(GAUSSIAN_ELM, variant, "share_used")], **style)
            label = PENALTY_LABELS[penalty]
            accuracy.set_title(label)
            for panel in (accuracy, share):
                panel.set(xscale="log", xlabel="strength α")
            share.set_ylim(-0.02, 1.05)
        axes[0, 0].set_ylabel("validation accuracy")

        # ridge uses all units: the legend takes the place of its panel
        constant = axes[1, penalties.index("ridge")]
        for line in list(constant.lines):
            line.remove()
        constant.axis("off")
        constant.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="center", title="representation"
        )
        axes[1, 1].set_ylabel("share of units in use")
        axes[1, 1].tick_params(labelleft=True)


def draw_units(folder: Path, record: JsonObject) -> None:
    """Validation accuracy and seconds of a fit against the number of hidden units."""
    with (
        np.load(folder / "units.npz", allow_pickle=False) as arrays,
        figure(folder / "units.png", record, (WIDTH, 3.3), 1, 2) as (drawn, (left, right)),
    ):
        for family in ELM_FAMILIES:
            for name in SWEPT:
                if sweep_key(family, name, "units") not in arrays:
                    continue
                units, accuracy, seconds = (
                    arrays[sweep_key(family, name, quantity)] for quantity in QUANTITIES
                )  # (U,), (U, S), (U, S)
                line, marker = SWEEP_STYLES[name]
                style: dict[str, Option] = {"color": colours(MODELS)[family], "linestyle": line}
                style |= {"marker": marker, "markersize": 4, "label": f"{family}, {name}"}
                deviation = accuracy.std(1, ddof=1) if accuracy.shape[1] > 1 else None
                left.errorbar(units, accuracy.mean(1), deviation, capsize=2, **style)
                right.plot(units, np.median(seconds, 1), **style)
        draws = accuracy.shape[1]
        left.set(ylabel="validation accuracy")
        left.set_title(f"mean ± std of {draws} draws" if draws > 1 else "one draw")
        right.set(yscale="log", ylabel="seconds")
        right.set_title("from codes to output weights")
        for axes in (left, right):
            axes.set_xscale("log", base=2)  # sizes are doubled, so their ticks are even
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.set_xlabel("hidden units")
        drawn.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)


def draw_recall(folder: Path, record: JsonObject) -> None:
    """Recall of every class by each model's choice on validation, with intervals over faces."""
    chosen = record["notes"]["best_on_validation"]
    shown = [name for name in MODELS if name in chosen]
    with (
        np.load(folder / "predictions.npz", allow_pickle=False) as arrays,
        figure(folder / "recall.png", record, (WIDTH, 3.0)) as (_, axes),
    ):
        labels = arrays["labels"]
        classes, counts = np.unique(labels, return_counts=True)
        for number, model in enumerate(shown):
            predictions = arrays[prediction_key(model, chosen[model]["variant"])]  # (S, n)
            recalls = [recall_interval((predictions == c)[:, labels == c]) for c in classes]
            middle, low, high = np.array(recalls).T  # (classes,) each
            positions = np.arange(len(classes)) + 0.15 * (number - (len(shown) - 1) / 2)
            style: dict[str, Option] = {"color": colours(MODELS)[model], "markersize": 4}
            bars = np.abs(np.array([low, high]) - middle)
            marker = MARKERS[number]
            axes.errorbar(
                positions, middle, bars, fmt=marker, linestyle="", capsize=2, label=model, **style
            )
        names = [f"{CLASSES[c]}\n{count:,}" for c, count in zip(classes, counts, strict=True)]
        axes.set_xticks(range(len(classes)), names)
        axes.set(ylim=(0, 1), ylabel="recall, 95 % interval over faces")
        axes.set_xlabel("labelled class and its test faces")
        axes.legend(ncol=2)


def recall_interval(right: np.ndarray) -> tuple[float, float, float]:
    """The mean of right answers (S, n) of one class, and its interval over resampled faces."""
    of_face = right.mean(0)  # (n,)
    drawn = np.random.default_rng(0).integers(len(of_face), size=(RESAMPLES, len(of_face)))
    low, high = np.percentile(of_face[drawn].mean(1), INTERVAL)
    return float(of_face.mean()), float(low), float(high)


def draw_confusion(folder: Path, record: JsonObject) -> None:
    """Shares of predictions by labelled class, for each model's choice on validation."""
    chosen = record["notes"]["best_on_validation"]
    shown = [name for name in FAMILIES if name in chosen]
    path = folder / "confusion.png"
    size = (WIDTH, 2.9)
    with (
        np.load(folder / "predictions.npz", allow_pickle=False) as arrays,
        figure(path, record, size, 1, len(shown), sharey=True, squeeze=False) as (picture, axes),
    ):
        labels = arrays["labels"]
        classes = np.unique(labels)
        names = [CLASSES[number] for number in classes]
        for panel, model in zip(axes[0], shown, strict=True):
            variant = chosen[model]["variant"]
            predictions = arrays[prediction_key(model, variant)]  # (S, n)
            counts = sum(confusion_matrix(labels, row, labels=classes) for row in predictions)
            shares = counts / counts.sum(1, keepdims=True)
            texts = np.char.lstrip(np.char.mod("%.2f", shares), "0")  # .38 fits its cell
            image = heat_map(panel, shares, names, names, texts, vmin=0, vmax=1)
            panel.set_title("\n".join([model, *variant.split(", ")]))
            panel.set_xlabel("predicted")
        axes[0, 0].set_ylabel("labelled")
        picture.colorbar(image, ax=axes, label="share of the class")


# --------------------------------------------------------------------------------------- faces


def draw_reconstructions(folder: Path, record: JsonObject) -> None:
    """Drawn faces, their codes, and what the codes decode to."""
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255}
    coded = {"interpolation": "nearest"}
    kinds: tuple[tuple[str, str, dict[str, Option]], ...] = (
        ("images", "drawn face\n48 × 48", grey),
        ("colours", "codes\n12 × 12", coded),
        ("reconstructions", "decoded\n48 × 48", grey),
    )
    with np.load(folder / "reconstructions.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name, _, _ in kinds}
    count = len(arrays["images"])
    with figure(folder / "codes.png", record, (WIDTH, 3.3), 3, count) as (_, axes):
        for line, (name, label, style) in zip(axes, kinds, strict=True):
            for panel, image in zip(line, arrays[name], strict=True):
                panel.imshow(image, **style)
                panel.set(xticks=[], yticks=[])
                panel.grid(False)
            line[0].set_ylabel(label)
        for panel, expression in zip(axes[0], CLASSES, strict=False):
            panel.set_title(expression)


def draw_probabilities(
    path: Path, record: JsonObject, images: np.ndarray, names: list[str], table: pd.DataFrame
) -> None:
    """The first faces uint8 (n, 48, 48) beside bars of their probabilities, one colour per model.

    `record` is the run's run.json, `table` that of predict.py, `names` are of all faces in it.
    """
    columns = [name for name in table if name.startswith("p_")]
    classes = [name.removeprefix("p_") for name in columns]
    colour = colours(table.model.unique())
    size = (WIDTH, 1.5 * len(images) + 0.6)
    options = {"squeeze": False, "width_ratios": (1, 3.2)}
    with figure(path, record, size, len(images), 2, **options) as (_, axes):
        for (left, right), image, name in zip(axes, images, names, strict=False):
            left.imshow(image, cmap="gray", vmin=0, vmax=255)
            left.set(xticks=[], yticks=[])
            left.set_title(name[-28:], fontsize=7)
            of_face = table[table.face == name]
            for number, (model, rows) in enumerate(of_face.groupby("model", sort=False)):
                positions = np.arange(len(columns)) + 0.27 * (number - 1)
                values = rows[columns].to_numpy()[0]
                right.bar(positions, values, 0.25, color=colour[model], label=model)
            right.set_xticks(range(len(columns)), classes)
            right.set(ylim=(0, 1), ylabel="probability")
        axes[0, 1].legend(ncol=3)


# --------------------------------------------------------------------------------- objectives


def draw_objectives(folder: Path) -> None:
    """Draws the figures of a finished run of codes.py into its folder."""
    record, table = read_run(folder)
    draw_trade(folder, record, table)
    draw_decoded(folder, record)


def draw_trade(folder: Path, record: JsonObject, table: pd.DataFrame) -> None:
    """PSNR against the accuracy of what is read from the codes, a point per objective."""
    quality = table[table.metric == "psnr"].set_index("variant").value
    shown = [label for label in OBJECTIVES.values() if label in quality]
    path = folder / "objectives.png"
    with figure(path, record, (WIDTH, 3.4), 1, 2, sharey=True) as (drawn, axes):
        for panel, readout in zip(axes, READOUTS, strict=True):
            rows = table[table.model == readout].pivot(
                index="variant", columns="metric", values="value"
            )
            for number, label in enumerate(shown):
                accuracy = rows.loc[label]
                below = accuracy.accuracy - accuracy.accuracy_low
                above = accuracy.accuracy_high - accuracy.accuracy
                bound = label == OBJECTIVES[LABEL_AWARE]
                style: dict[str, Option] = {"color": PALETTE[number], "fmt": MARKERS[number]}
                style |= {"markerfacecolor": "white" if bound else PALETTE[number]}
                place = (quality[label], accuracy.accuracy)
                panel.errorbar(*place, [[below], [above]], capsize=2, label=label, **style)
            trade_lines(panel, table, readout)
            panel.set(xlabel="PSNR (dB), validation", title=readout)
            panel.margins(x=0.1)
            panel.locator_params(axis="x", nbins=5)
        axes[0].set_ylabel("validation accuracy, 95 % interval over faces")
        handles = axes[0].get_legend_handles_labels()
        drawn.legend(*handles, loc="outside upper center", ncols=3)


def trade_lines(panel: Axes, table: pd.DataFrame, readout: str) -> None:
    """What there is without codes: the same read-out of the faces, and the largest class."""
    part = table[(table.variant == NO_CODES) & (table.metric == "accuracy")].set_index("model")
    for model, name, style in ((readout, NO_CODES, "--"), (LARGEST_CLASS, LARGEST_CLASS, ":")):
        if model in part.index:
            value = float(part.value[model])
            panel.axhline(value, color="#444444", linestyle=style, linewidth=1)
            place = panel.get_yaxis_transform()  # along the axis in shares, and at the value
            text = f"{name}: {value:.3f}"
            panel.text(0.02, value, text, transform=place, fontsize=7, va="bottom")


def draw_decoded(folder: Path, record: JsonObject) -> None:
    """Built-in faces, and what each VQ-VAE makes of them."""
    with np.load(folder / "reconstructions.npz", allow_pickle=False) as archive:
        drawn = archive["images"] / 255
        lines = {"drawn face": drawn}
        lines |= {label: archive[label] for label in OBJECTIVES.values() if label in archive}
    size = (WIDTH, 0.8 * len(lines) + 0.5)
    with figure(folder / "decoded.png", record, size, len(lines), len(drawn)) as (_, axes):
        for line, (label, faces) in zip(axes, lines.items(), strict=True):
            for panel, face in zip(line, faces, strict=True):
                panel.imshow(face, cmap="gray", vmin=0, vmax=1)
                panel.set(xticks=[], yticks=[])
                panel.grid(False)
            words = label.replace(" (", "\n(").replace(": ", ":\n")
            line[0].set_ylabel(words, fontsize=7, rotation=0, ha="right", va="center")
        for panel, expression in zip(axes[0], CLASSES, strict=False):
            panel.set_title(expression)
