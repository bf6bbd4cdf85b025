"""Figures of the final project, drawn from a run folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from matplotlib.tri import Triangulation
from PIL import Image

from common.figures import (
    MARKERS,
    PALETTE,
    STYLE,
    figure,
    learning_curve,
    plt,
    read_run,
    source_line,
)
from common.run import atomic_path

MAPS = {"p": "cividis", "alpha": "cividis"}  # velocities change their sign: a diverging map
PARTS = ("interpolation", "gap", "extrapolation", "longer")


MOST = 30  # errors as large as this or larger are drawn here: the rollout has blown up


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    held = np.load(folder / "pictures.npz", allow_pickle=False)
    _fields(folder / "fields.png", record, held)
    _rollout(folder / "rollout.gif", record, held)
    _errors(
        folder / "error_by_time.png",
        record,
        np.load(folder / "errors.npz", allow_pickle=False),
        held,
    )
    _probe(folder / "probe.png", record, held)
    _models(folder / "models.png", record, table)
    _learning(folder / "learning_curves.png", record, pd.read_csv(folder / "metrics.csv"))
    if "attention" in held.files:
        _attention(folder / "attention.png", record, held)


def colours_of(models: list[str]) -> dict[str, dict[str, Any]]:
    """A colour, marker and dash for each model, the same in every figure of a run."""
    return {
        name: {
            "color": PALETTE[number % 8],
            "marker": MARKERS[number % 8],
            "ls": ("-", "--", ":")[number // 8 % 3],
        }
        for number, name in enumerate(models)
    }


def mesh_of(held: Any) -> Triangulation:
    """The mesh that a run's pictures are drawn on."""
    x, y = held["coordinates"].T
    return Triangulation(x, y, held["triangles"])


def paint(
    axes: Any,
    mesh: Triangulation,
    values: np.ndarray,
    name: str,
    low: float,
    high: float,
    map_name: str | None = None,
) -> Any:
    """Draws one field (P,) on the mesh, in proportion; returns the coloured mesh for a colour bar."""
    if map_name is None and name not in MAPS:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    shown = axes.tripcolor(
        mesh,
        values.astype(np.float32),
        vmin=low,
        vmax=high,
        cmap=map_name or MAPS.get(name, "RdBu_r"),
        shading="gouraud",
        rasterized=True,
    )
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    return shown


def _models_of(held: Any) -> list[str]:
    return [
        name.removeprefix("fields | ")
        for name in held.files
        if name.startswith("fields | ") and name != "fields | truth"
    ]


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Colour limits that a few extreme nodes do not set."""
    low, high = np.quantile(values.astype(np.float32), (0.002, 0.998))
    return float(low), float(max(high, low + 1e-6))


def _fields(path: Path, record: dict, held: Any) -> None:
    """Truth, prediction and error of every field at the end of the main horizon, of the first model."""
    mesh, names, model = (
        mesh_of(held),
        [str(name) for name in held["field_names"]],
        _models_of(held)[0],
    )
    at = int(np.searchsorted(held["frames"], record["config"]["frames"] - 1, "right")) - 1
    truth, guess = (
        held[f"fields | {name}"][at].astype(np.float32) for name in ("truth", model)
    )  # (P, F)
    x, y = np.ptp(held["coordinates"], 0)
    size = (3 * 3.6 + 0.6, len(names) * 3.6 * y / x + 0.9)
    with figure(path, record, size, len(names), 3, squeeze=False) as (picture, axes):
        for row, name in enumerate(names):
            low, high = _limits(truth[:, row])
            for panel, values, title in zip(
                axes[row],
                (truth, guess, guess - truth),
                ("simulation", model, "error"),
                strict=True,
            ):
                wide = _limits(np.abs(values[:, row]))[1]
                limits = (-wide, wide, "PuOr_r") if title == "error" else (low, high, None)
                shown = paint(panel, mesh, values[:, row], name, *limits)
                if title != "simulation":
                    picture.colorbar(shown, ax=panel, fraction=0.046, pad=0.02)
                if row == 0:
                    panel.set_title(title)
            axes[row, 0].set_ylabel(name, rotation=0, labelpad=12)
        time = held["time"][held["frames"][at]] - held["time"][0]
        picture.suptitle(
            f"After {held['frames'][at]} steps ({time:.2f} time units) from the first frame alone: {held['trajectory']}",
            fontsize=10,
        )


def _movie(
    path: Path,
    mesh: Triangulation,
    name: str,
    paths: dict[str, np.ndarray],
    labels: list[str],
    footer: str,
) -> None:
    """GIF of one field, fields (frames, P) of each title under another, a label a frame."""
    low, high = _limits(next(iter(paths.values())))
    x, y = np.ptp(mesh.x), np.ptp(mesh.y)
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        picture, axes = plt.subplots(
            len(paths),
            1,
            figsize=(5.4, len(paths) * (5.0 * y / x + 0.28) + 0.5),
            dpi=90,
            squeeze=False,
        )
        picture.subplots_adjust(
            left=0.02, right=0.98, top=0.93, bottom=0.12 / len(paths) + 0.06, hspace=0.3
        )

        picture.text(0.01, 0.005, footer, fontsize=5, color="#666666")
        canvas: Any = picture.canvas  # Agg's
        sheets = []
        for number, label in enumerate(labels):
            for (title, values), panel in zip(paths.items(), axes[:, 0], strict=True):
                panel.clear()
                paint(panel, mesh, values[number], name, low, high)
                panel.set_title(title, fontsize=8, pad=3)
            axes[-1, 0].set_xlabel(f"{name}, {label}", fontsize=8)
            canvas.draw()
            # without dither neighbouring pixels stay alike, and the file is a third smaller
            sheets.append(
                Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(
                    128, dither=Image.Dither.NONE
                )
            )
        plt.close(picture)
    with atomic_path(path) as temporary:
        sheets[0].save(
            temporary, format="GIF", save_all=True, append_images=sheets[1:], duration=100, loop=0
        )


def _telling(names: list[str]) -> int:
    """The field that a movie shows: alpha, else v, else the first."""
    return next((names.index(name) for name in ("alpha", "v") if name in names), 0)


def _rollout(path: Path, record: dict, held: Any) -> None:
    """GIF: the simulation above the first models, every second of the kept frames (the files are committed)."""
    names, frames, time = (
        [str(name) for name in held["field_names"]],
        held["frames"][::2],
        held["time"],
    )
    column = _telling(names)
    paths = {
        "simulation" if model == "truth" else model: held[f"fields | {model}"][::2, ..., column]
        for model in ("truth", *_models_of(held)[:3])
    }
    _movie(
        path,
        mesh_of(held),
        names[column],
        paths,
        [f"step {frame}, {time[frame] - time[0]:.2f} time units" for frame in frames],
        source_line(record),
    )


def draw_rollout(
    path: Path,
    coordinates: np.ndarray,
    triangles: np.ndarray,
    time: np.ndarray,
    names: tuple[str, ...],
    fields: np.ndarray,
    footer: str,
) -> None:
    """GIF of a rollout's fields (T, P, F), at most 100 frames of it, of the most telling field."""
    column, shown = _telling(list(names)), np.arange(0, len(fields), max(1, len(fields) // 100))
    x, y = coordinates.T
    _movie(
        path,
        Triangulation(x, y, triangles),
        names[column],
        {"prediction": fields[shown, :, column]},
        [f"step {frame}, {time[frame] - time[0]:.2f} time units" for frame in shown],
        footer,
    )


def _errors(path: Path, record: dict, errors: Any, held: Any) -> None:
    """Squared relative L2 against time, mean over trajectories, a band of the 95 % interval of that mean; a panel a field."""
    names, part = [str(name) for name in held["field_names"]], "interpolation"
    models = [name.split(" | ")[0] for name in errors.files if name.endswith(f"| {part}")]
    styles, times = colours_of(models), held["time"][1:] - held["time"][0]
    with figure(
        path, record, (3.4 * len(names) + 1.8, 3.6), 1, len(names), squeeze=False, sharey=True
    ) as (picture, axes):
        for column, (name, panel) in enumerate(zip(names, axes[0], strict=True)):
            for model in models:
                values = errors[f"{model} | {part}"][..., column]  # (N, T)
                line, style = values.mean(0), {key: styles[model][key] for key in ("color", "ls")}
                draws = values[
                    np.random.default_rng(0).integers(len(values), size=(400, len(values)))
                ].mean(1)
                panel.fill_between(
                    times[: len(line)],
                    *np.quantile(draws, (0.025, 0.975), axis=0),
                    color=style["color"],
                    alpha=0.12,
                    lw=0,
                )
                panel.plot(times[: len(line)], line, label=model, lw=1.1, **style)
            end = min(record["config"]["frames"], len(times)) - 1
            panel.axvline(times[end - 1], color="#888888", lw=0.8, ls=":")
            panel.set(xlabel="time since the given frame", title=name, yscale="log")
            panel.set_ylim(top=min(panel.get_ylim()[1], MOST))
        axes[0, 0].set_ylabel("squared relative L2 (1: as large as the field)")
        picture.legend(
            *axes[0, 0].get_legend_handles_labels(), fontsize=7, loc="outside right center"
        )
        picture.suptitle(
            f"Held-out trajectories ({part}); dotted: end of the horizon that is trained for",
            fontsize=9,
        )


def _probe(path: Path, record: dict, held: Any) -> None:
    """One node's signal, and its spectrum."""
    models, times = ["truth", *_models_of(held)[:3]], held["time"] - held["time"][0]
    with figure(path, record, (9.6, 3.2), 1, 2, width_ratios=(1.6, 1)) as (picture, (left, right)):
        for number, model in enumerate(models):
            signal = held[f"probe | {model}"].astype(np.float64)
            style = {
                "color": "black" if number == 0 else PALETTE[number - 1],
                "ls": "-" if number == 0 else ("--", ":", "-.")[number % 3],
                "lw": 1.2,
            }
            left.plot(
                times[: len(signal)],
                signal,
                label="simulation" if model == "truth" else model,
                **style,
            )
            power = np.abs(np.fft.rfft((signal - signal.mean()) * np.hanning(len(signal)))) ** 2
            right.semilogy(np.fft.rfftfreq(len(signal), times[1])[1:], power[1:] + 1e-12, **style)
        left.set(
            xlabel="time since the given frame",
            ylabel=str(held["probe_name"]),
            title="Signal at one node",
        )
        right.set(
            xlabel="frequency (1 / time unit)",
            ylabel="power (arbitrary unit)",
            title="Its spectrum (Hann window)",
        )
        picture.legend(*left.get_legend_handles_labels(), fontsize=7, loc="outside right center")


def _models(path: Path, record: dict, table: pd.DataFrame) -> None:
    """Squared relative L2 of the whole rollout, a line a model, a panel a part of the test set, with 95 % intervals over trajectories."""
    part = table[
        (table.split == "test")
        & table.series.isna()
        & table.horizon.isna()
        & table.metric.str.startswith("relative_l2_squared")
    ]
    shown = [name for name in PARTS if (part.variant == name).any()]
    values = part.pivot_table(
        index="model", columns=["metric", "variant"], values="value", sort=False
    )
    order = values["relative_l2_squared"][shown[0]].sort_values(ascending=False).index
    with figure(
        path,
        record,
        (2.6 * len(shown) + 2.2, 0.27 * len(order) + 1.1),
        1,
        len(shown),
        squeeze=False,
        sharey=True,
    ) as (_, axes):
        for panel, name in zip(axes[0], shown, strict=True):
            mean, low, high = (
                values[metric][name].reindex(order)
                for metric in (
                    "relative_l2_squared",
                    "relative_l2_squared_low",
                    "relative_l2_squared_high",
                )
            )
            mean, low, high = (each.clip(upper=MOST) for each in (mean, low, high))
            panel.errorbar(
                mean,
                range(len(order)),
                xerr=[(mean - low).clip(0), (high - mean).clip(0)],
                fmt="o",
                ms=4,
                color=PALETTE[0],
                ecolor="#888888",
                capsize=2,
            )
            more = f" (at {MOST}: that or more)" if (mean == MOST).any() else ""
            panel.set(
                xscale="log",
                title=name,
                xlabel=f"squared relative L2{more}",
                yticks=range(len(order)),
                yticklabels=order,
            )
        axes[0, 0].set_ylim(-0.6, len(order) - 0.4)


def _attention(path: Path, record: dict, held: Any) -> None:
    """How far back, or how far away, each stream looks in every other one: attention weights, mean over heads and blocks."""
    maps, pairs, patches = (
        held["attention"].astype(np.float32),
        [str(name) for name in held["pairs"]],
        str(held["tokens"]) == "patches",
    )
    top = float(maps.max() if patches else np.quantile(maps[maps > 0], 0.995))
    columns = min(3, len(pairs))
    lines = -(-len(pairs) // columns)
    with figure(
        path, record, (3.4 * columns + 0.6, 3.2 * lines + 0.3), lines, columns, squeeze=False
    ) as (picture, axes):
        for panel, weights, pair in zip(axes.flat, maps, pairs, strict=False):
            height, width = weights.shape
            reach = (-width / 2, width / 2, -height / 2, height / 2) if patches else None
            shown = panel.imshow(
                weights if patches else np.where(np.tri(*weights.shape), weights, np.nan),
                cmap="cividis",
                vmin=0,
                vmax=top,
                extent=reach,
                origin="lower" if patches else "upper",
            )
            panel.set_title(pair)
            panel.grid(False)
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True))
        for panel in axes[-1]:
            panel.set_xlabel("columns of patches away" if patches else "step looked at")
        for panel in axes[:, 0]:
            panel.set_ylabel("rows of patches away" if patches else "step of the query")
        for panel in axes.flat[len(pairs) :]:
            panel.axis("off")
        picture.colorbar(
            shown, ax=axes, label="mean attention weight" if patches else "attention weight"
        )


def _learning(path: Path, record: dict, log: pd.DataFrame) -> None:
    kinds = (("autoencoder error", "Autoencoders"), ("rollout error", "Temporal models"))
    with figure(path, record, (11, 3.6), 1, 2) as (_, axes):
        for panel, (kind, title) in zip(axes, kinds, strict=True):
            names = [name for name in log.name.unique() if name.startswith(f"{kind}, ")]
            for name, style in colours_of(names).items():
                learning_curve(
                    panel,
                    log,
                    "validation",
                    name,
                    label=name.removeprefix(f"{kind}, "),
                    ms=3,
                    lw=1,
                    **style,
                )
            panel.set(
                xlabel="step",
                ylabel=f"validation: squared relative L2 ({kind.split()[0]})",
                title=title,
                yscale="log",
            )
            panel.legend(fontsize=5, ncols=2)
