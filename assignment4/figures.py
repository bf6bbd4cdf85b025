"""Figures of assignment 4, drawn from a run folder only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.lib.npyio import NpzFile

from assignment4.jobs import CONVERGENCE, Job, ensemble_label, sequence_label
from assignment4.strategies import (
    FROM_SCRATCH,
    FULL,
    HEAD_ONLY,
    NO_ADAPTATION,
    Kind,
    Relative,
    Strategy,
    Variant,
    compared,
    lora,
    main_strategies,
    singular_key,
)
from common.figures import MARKERS, PALETTE, WIDTH, Option, figure, legend_below, read_run
from common.files import JsonObject
from common.forecasting.figures import (
    at_one,
    by_horizon,
    calibration,
    cells,
    fans_of,
    panels,
    seed_curves,
)

Number = TypeVar("Number", float, pd.Series)
CRPS_RATIO = "CRPS ratio (1: rolling random walk)"
RMSE_RATIO = "RMSE / RMSE of no change"
FORGOTTEN = "CRPS on the coins, change in % (0: nothing forgotten)"
NO_WEIGHTS = 100  # where no trained weights are drawn on the logarithmic axis
UNCHANGED = 1e-12  # largest singular value of a map that training left as it was
NOISE = 1e-4  # of the largest singular value: below it is the rounding of merging in float32
# colour and marker of each kind of strategy, and of each variant of LoRA
KINDS: dict[Kind, tuple[str, str]] = {
    "scratch": (PALETTE[0], MARKERS[0]),
    "full": (PALETTE[1], MARKERS[1]),
    "head": (PALETTE[5], MARKERS[5]),
    "none": ("#661100", MARKERS[6]),
    "norms": (PALETTE[7], MARKERS[7]),
}
VARIANTS: dict[Variant, tuple[str, str]] = {
    "LoRA": (PALETTE[2], MARKERS[2]),
    "rsLoRA": (PALETTE[4], MARKERS[4]),
    "DoRA": ("#882255", "<"),
    "PiSSA": ("#332288", ">"),
    "LoRA+": ("#999933", "h"),
}
ATTENTION = (PALETTE[3], MARKERS[3])
LARGE_RANK = "#004D38"  # of LoRA, where two ranks are beside each other
MAPS = 6  # affine maps whose singular values are drawn


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a run that its figures depend on."""

    ranks: tuple[int, ...]
    rank: int
    relatives: tuple[Relative, ...]
    windows: dict[str, int]
    seeds: int

    @classmethod
    def of(cls, record: JsonObject) -> Options:
        """The options in run.json."""
        config = record["config"]
        windows = record["notes"]["windows"]
        relatives = tuple(config.get("relatives", ["rsLoRA"]))  # (older runs have no other)
        ranks = tuple(config["ranks"])
        return cls(ranks, config["rank"], relatives, windows, config["seeds"])

    @property
    def strategies(self) -> list[Strategy]:
        return compared(self.ranks, self.rank, self.relatives)


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    options = Options.of(record)
    arrays = np.load(folder / "predictions.npz", allow_pickle=False)
    log = pd.read_csv(folder / "metrics.csv")
    test = table[(table.protocol == "held-out") & (table.split == "test")]
    pooled = test[test.series.isna() & test.horizon.isna()]

    chosen = lora(options.rank).label
    ensemble = ensemble_label(CONVERGENCE, options.seeds)
    series = [str(name) for name in arrays["series"]]
    main_models = [NO_ADAPTATION, *main_strategies(options.rank)]
    ensembles = test.model.isin([strategy.label for strategy in main_models]) & (
        test.variant == ensemble
    )
    baselines = test.model.isin(["random walk", "log-HAR-t"])

    fans_of(folder / "forecast_fans.png", record, arrays)
    known = {strategy.label: Style.of(strategy).colour for strategy in main_models}
    path = folder / "error_by_horizon.png"
    by_horizon(path, record, test[ensembles | baselines], chosen, known)
    cells(folder / "error_by_cell.png", record, test, series, chosen, ensemble)
    calibration(folder / "calibration.png", record, arrays)
    parameters(folder, record, options, pooled)
    shares(folder, record, options, pooled)
    forgetting(folder, record, options, table[table.metric == "coin_crps"])
    singular_values(folder, record, options, arrays)
    curves(folder, record, options, log)


@dataclasses.dataclass(frozen=True)
class Style:
    """Colour, marker and legend of a kind of strategy."""

    colour: str
    marker: str
    label: str

    @classmethod
    def of(cls, strategy: Strategy) -> Style:
        """The style of a strategy, the same for every rank."""
        if strategy.kind != "lora":
            return cls(*KINDS[strategy.kind], strategy.label)
        if strategy.attention_only:
            return cls(*ATTENTION, "LoRA, attention only")
        return cls(*VARIANTS[strategy.variant], strategy.variant)


def parameters(folder: Path, record: JsonObject, options: Options, pooled: pd.DataFrame) -> None:
    """Error against the number of trained weights, mean and deviation of the seeds.

    The RMSE has no panel where all forecasts are no change itself.
    """
    converged = pooled[pooled.variant == CONVERGENCE]
    labels = {"crps_ratio": CRPS_RATIO, "rmsse": RMSE_RATIO}
    if at_one(converged[converged.metric == "rmsse"].value):
        del labels["rmsse"]
    path = folder / "error_against_parameters.png"
    grid = {"columns": len(labels), "squeeze": False}
    with figure(path, record, (WIDTH, 3.3), **grid) as (picture, axes):
        for panel, (metric, label) in zip(axes.flat, labels.items(), strict=True):
            _errors_by_parameters(panel, options, converged[converged.metric == metric])
            panel.set(
                xscale="log",
                xlabel=f"trained weights (none: drawn at {NO_WEIGHTS})",
                ylabel=label,
            )
        legend_below(picture, axes[0, :1], columns=5)
        picture.suptitle(
            "Error of each strategy on the test part, single networks: mean and deviation of\n"
            "the seeds; the numbers are ranks of LoRA"
        )


def _errors_by_parameters(panel: Axes, options: Options, rows: pd.DataFrame) -> None:
    """One point per strategy; each kind stands in the legend once."""
    labelled: set[str] = set()
    for strategy in options.strategies:
        style = Style.of(strategy)
        row = rows[rows.model == strategy.label]
        panel.errorbar(
            np.maximum(row.params, NO_WEIGHTS),
            row.value,
            row["std"].fillna(0),
            ls="none",
            ms=5,
            capsize=2,
            color=style.colour,
            marker=style.marker,
            label="_again" if style.label in labelled else style.label,
        )
        labelled.add(style.label)
        if style.label == "LoRA" and len(row):
            place = (row.params.iloc[0], row.value.iloc[0])
            near: dict[str, Option] = {"xytext": (4, 3), "textcoords": "offset points"}
            panel.annotate(str(strategy.rank), place, fontsize=7, color=style.colour, **near)


def shares(folder: Path, record: JsonObject, options: Options, pooled: pd.DataFrame) -> None:
    """Error against how many windows of the target's training part were trained on."""
    ratios = pooled[pooled.metric == "crps_ratio"].set_index(["model", "variant"]).sort_index()
    variants = sorted(options.windows, key=options.windows.__getitem__)
    counts = [options.windows[variant] for variant in variants]
    with figure(folder / "error_against_data.png", record, (0.72 * WIDTH, 3.2)) as (_, panel):
        shown = list(main_strategies(options.rank))
        if {(NO_ADAPTATION.label, variant) for variant in variants} <= set(ratios.index):
            shown.append(NO_ADAPTATION)
        for strategy in shown:
            style = Style.of(strategy)
            rows = ratios.reindex([(strategy.label, variant) for variant in variants])
            panel.errorbar(
                counts,
                rows.value,
                rows["std"].fillna(0),
                capsize=2,
                ms=5,
                color=style.colour,
                marker=style.marker,
                label=strategy.label,
            )
        if len(ratios) and NO_ADAPTATION not in shown:  # (prices that never move have no ratio)
            untouched = ratios.loc[(NO_ADAPTATION.label, CONVERGENCE)].value
            panel.axhline(untouched, color="#888888", ls=":", label=NO_ADAPTATION.label)
        panel.set(
            xscale="log",
            xlabel="windows of the target that are trained on",
            ylabel=CRPS_RATIO,
            title="Error by how much of the target is trained on",
        )
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.minorticks_off()
        panel.legend()


def forgetting(folder: Path, record: JsonObject, options: Options, rows: pd.DataFrame) -> None:
    """By how much each adaptation, and a sequence of them, changed the error on the coins.

    Without the adapter it is by nothing.
    """
    ratios = rows.set_index(["variant", "model"]).sort_index()
    labels = [strategy.label for strategy in options.strategies]
    stages = [stage for stage in range(1, len(rows)) if sequence_label(stage) in set(rows.variant)]
    panels_of = {"width_ratios": (1.5, 1)} if stages else {}
    size = (WIDTH if stages else 0.8 * WIDTH, 0.22 * len(labels) + 1.2)
    with figure(
        folder / "forgetting.png", record, size, 1, 2 if stages else 1, squeeze=False, **panels_of
    ) as (_, axes):
        panel = axes[0, 0]
        for number, strategy in enumerate(options.strategies):
            row = ratios.loc[CONVERGENCE, strategy.label]
            panel.barh(
                number,
                percent(row.value),
                xerr=0 if pd.isna(row["std"]) else 100 * row["std"],
                color=Style.of(strategy).colour,
                height=0.7,
            )
        panel.axvline(0, color="#888888", lw=0.8)
        panel.set_yticks(range(len(labels)), labels)
        panel.invert_yaxis()
        panel.set(
            xlabel=FORGOTTEN,
            title="Forgetting, the adapter left on",
        )
        panel.grid(axis="y", visible=False)
        if stages:
            _along_sequence(axes[0, 1], options, ratios, stages)


def percent(ratio: Number) -> Number:
    """A ratio as the difference from 1 in percent, whose axis needs no offset."""
    return 100 * (ratio - 1)


def _along_sequence(
    panel: Axes, options: Options, ratios: pd.DataFrame, stages: Sequence[int]
) -> None:
    """Forgetting after one adaptation, two, and so on, of the strategies that had them."""
    for strategy in (FULL, lora(options.rank)):
        style = Style.of(strategy)
        along = ratios.loc[[(sequence_label(stage), strategy.label) for stage in stages]]
        panel.errorbar(
            stages,
            percent(along.value),
            100 * along["std"].fillna(0),
            capsize=2,
            ms=5,
            color=style.colour,
            marker=style.marker,
            label=strategy.label,
        )
    panel.axhline(0, color="#888888", lw=0.8)
    panel.set_xticks(stages)
    panel.set(
        xlabel="adaptations, one after another",
        ylabel=FORGOTTEN,
        title="In sequence",
    )
    panel.legend()


def singular_values(folder: Path, record: JsonObject, options: Options, arrays: NpzFile) -> None:
    """Singular values of what affine maps changed by: full fine-tuning, LoRA of two ranks.

    Drawn are the maps that full fine-tuning changed the most.
    """
    strategies = list(dict.fromkeys((FULL, lora(options.rank), lora(max(options.ranks)))))
    prefix = singular_key(FULL, "")
    paths = [key.removeprefix(prefix) for key in arrays.files if key.startswith(prefix)]
    # the largest is zero where the network before training was the best on validation
    changed = [
        path
        for path in paths
        if any(arrays[singular_key(strategy, path)].max() > UNCHANGED for strategy in strategies)
    ]
    largest = {path: arrays[singular_key(FULL, path)].max() for path in changed}
    most = sorted(changed, key=largest.__getitem__, reverse=True)[:MAPS]
    shown = [path for path in changed if path in most]
    layout = panels(max(len(shown), 1)) | {"sharex": True, "sharey": True}
    title = "What training changed in an affine map (seed 0)"
    with figure(folder / "singular_values.png", record, **layout) as (picture, axes):
        for panel, path in zip(axes.flat, shown, strict=False):
            for number, strategy in enumerate(strategies):
                _spectrum(panel, number, strategy, arrays[singular_key(strategy, path)])
            panel.set_title(path, fontsize=7)
        for panel in axes.flat[len(shown) :]:
            panel.axis("off")
        if changed:
            if len(shown) < len(changed):
                title += f": the {len(shown)} of {len(changed)} maps that changed the most"
            for panel in axes[-1]:
                panel.set_xlabel("number of the singular value")
            for panel in axes[:, 0]:
                panel.set_ylabel("singular value")
            legend_below(picture, axes.flat[:1])
        else:
            text = "unchanged: on validation the networks\nbefore training were the best"
            picture.text(0.5, 0.5, text, ha="center", va="center")
        picture.suptitle(title)


def _spectrum(panel: Axes, number: int, strategy: Strategy, values: np.ndarray) -> None:
    """The singular values of one map under one strategy, without the noise of merging."""
    values = values[values > NOISE * max(values.max(), UNCHANGED)]
    if len(values):
        panel.loglog(
            np.arange(1, len(values) + 1),
            values,
            color=(PALETTE[1], PALETTE[2], LARGE_RANK)[number],
            ls=("-", "--", ":")[number],
            marker=("s", "^", "v")[number],
            ms=3,
            label=strategy.label,
        )


def curves(folder: Path, record: JsonObject, options: Options, log: pd.DataFrame) -> None:
    """Validation CRPS of every seed of four strategies."""
    rates = record["notes"]["learning_rates"]
    strategies = (FROM_SCRATCH, FULL, lora(options.rank), HEAD_ONLY)
    shared = {"sharex": True, "sharey": True}
    with figure(folder / "learning_curves.png", record, (WIDTH, 4.4), 2, 2, **shared) as (
        picture,
        axes,
    ):
        for panel, strategy in zip(axes.flat, strategies, strict=True):
            rate = rates[strategy.label]
            seed_curves(panel, log, f"crps_{Job(strategy, 0, rate).kind}-")
            panel.set_title(f"{strategy.label}, lr {rate:g}")
            panel.label_outer()
        legend_below(picture, axes.flat, columns=5)
