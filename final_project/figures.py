"""Figures of the final project, drawn from a run folder alone.

Shape letters: N trajectories, T frames, S steps of a rollout, P nodes, F fields, M pairs of groups.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.tri import Triangulation

from common.figures import (
    MARKERS,
    PALETTE,
    WIDTH,
    Option,
    figure,
    learning_curve,
    legend_below,
    read_run,
    source_line,
)
from common.files import JsonObject
from final_project.config import CLOCK, CONTROLS, MODELS
from final_project.painting import Movie, Panel, Scale, paint
from final_project.patches import patch_table
from final_project.pictures import (
    DASHES,
    PARTS,
    Attention,
    Pictures,
    Style,
    parts_note,
    read_errors,
    read_pictures,
    step_label,
    styles_of,
)
from final_project.raw import readable
from final_project.stride import dominant_period, movie_frames

AUTOENCODERS = {  # as the rows name them, by their name in metrics.csv
    "own": "autoencoder",
    "as published": "autoencoder, as published",
}
DRAWN = 3  # models in the figure of a probe
MOST = 30  # errors as large as this or larger are drawn here: the rollout has blown up
RESAMPLED = 400  # draws of a bootstrap band
FRAMES_OF_ROLLOUT = 100  # of the movie of a prediction
TITLE_CHARACTERS = 115  # in a line as wide as a figure


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    with readable(folder / "metrics.json"):
        record, table = read_run(folder)
        styles = styles_of(record, table)
    with readable(folder / "pictures.npz"):
        pictures = read_pictures(folder / "pictures.npz", record)
    draw_fields(folder / "fields.png", record, pictures)
    draw_run_movie(folder / "rollout.gif", record, pictures)
    with readable(folder / "errors.npz"):
        errors = read_errors(folder / "errors.npz", list(styles))
    draw_errors(folder / "error_by_time.png", record, pictures, errors, styles)
    draw_probe(folder / "probe.png", record, pictures, styles)
    draw_models(folder / "models.png", record, table, styles)
    draw_exchange(folder / "exchange.png", record, table, pictures.field_names)
    draw_mesh(folder / "mesh.png", record, pictures.mesh)
    with readable(folder / "metrics.csv"):
        log = pd.read_csv(folder / "metrics.csv")
    draw_learning(folder / "learning_curves.png", record, log, styles)
    if (log.split == CLOCK).any():  # (the first committed runs did not log seconds)
        draw_seconds(folder / "error_by_seconds.png", record, log, styles)
    if pictures.attention is not None:
        draw_attention(folder / "attention.png", record, pictures.attention)


# --------------------------------------------------------------------------------------- fields


def draw_fields(path: Path, record: JsonObject, pictures: Pictures) -> None:
    """Simulation, prediction and error of every field at the end of the main horizon."""
    model, predicted = next(iter(pictures.fields.items()))
    last = record["config"]["frames"] - 1
    stored = int(np.searchsorted(pictures.frames, last, "right")) - 1
    truth = pictures.truth[stored]  # (P, F)
    guess = predicted[stored]
    mesh = pictures.mesh

    rows = len(pictures.field_names)
    size = (WIDTH, rows * (1.75 * np.ptp(mesh.y) / np.ptp(mesh.x) + 0.08) + 0.9)
    with figure(path, record, size, rows, 3, squeeze=False) as (picture, axes):
        for panel, title in zip(axes[0], ("simulation", model, "error"), strict=True):
            panel.set_title(title)
        for row, name in enumerate(pictures.field_names):
            error = guess[:, row] - truth[:, row]
            scale = Scale.of_field(name, truth[:, row])
            paint(axes[row, 0], mesh, truth[:, row], scale)
            shown = paint(axes[row, 1], mesh, guess[:, row], scale)
            differences = paint(axes[row, 2], mesh, error, Scale.of_error(error))
            picture.colorbar(shown, ax=axes[row, 1], fraction=0.046, pad=0.02)
            picture.colorbar(differences, ax=axes[row, 2], fraction=0.046, pad=0.02)
            axes[row, 0].set_ylabel(name, rotation=0, labelpad=12)
        frame = pictures.frames[stored]
        time = pictures.time[frame] - pictures.time[0]
        picture.suptitle(
            f"After {frame} steps ({time:.2f} time units) from the first frame alone\n"
            f"{pictures.trajectory}"
        )


def movie_field(names: Sequence[str]) -> int:
    """Number of the field that a movie shows: alpha, else v, else the first."""
    for name in ("alpha", "v"):
        if name in names:
            return list(names).index(name)
    return 0


def draw_run_movie(path: Path, record: JsonObject, pictures: Pictures) -> None:
    """GIF of the simulation, the first model and its error, at the stored frames."""
    number = movie_field(pictures.field_names)
    name = pictures.field_names[number]
    model, fields = next(iter(pictures.fields.items()))
    truth = pictures.truth[..., number]  # (T, P)
    error = fields[..., number] - truth
    scale = Scale.of_field(name, truth)
    panels = {
        "simulation": Panel(truth, scale),
        model: Panel(fields[..., number], scale),
        f"error of {model}": Panel(error, Scale.of_error(error)),
    }

    labels = []
    for stored, frame in enumerate(pictures.frames):
        beyond = "" if frame < record["config"]["frames"] else ", beyond the trained horizon"
        labels.append(pictures.label(stored) + beyond)
    Movie(pictures.mesh, name, panels, labels, source_line(record)).write(path)


def draw_rollout(
    path: Path,
    coordinates: np.ndarray,
    triangles: np.ndarray,
    time: np.ndarray,
    names: tuple[str, ...],
    fields: np.ndarray,
    footer: str,
) -> None:
    """GIF of a rollout's fields (T, P, F), about FRAMES_OF_ROLLOUT of its frames, of one field."""
    number = movie_field(names)
    values = fields[..., number]  # (T, P)
    with np.errstate(over="ignore", invalid="ignore"):  # a rollout may blow up
        probe = values[:, values.std(0).argmax()]  # the node that moves the most
    frames = movie_frames(len(values), dominant_period(probe), FRAMES_OF_ROLLOUT)
    shown = values[frames]
    x, y = coordinates.T
    movie = Movie(
        Triangulation(x, y, triangles),
        names[number],
        {"prediction": Panel(shown, Scale.of_field(names[number], shown))},
        [step_label(int(frame), time) for frame in frames],
        footer,
    )
    movie.write(path)


# --------------------------------------------------------------------------------------- errors


def draw_errors(
    path: Path,
    record: JsonObject,
    pictures: Pictures,
    errors: dict[str, np.ndarray],
    styles: dict[str, Style],
) -> None:
    """Squared relative L2 against time, one panel per field.

    Mean over trajectories, with a band of the 95 % interval of that mean.
    """
    names = pictures.field_names
    times = pictures.time[1:] - pictures.time[0]
    end = min(record["config"]["frames"], len(times)) - 1
    columns = 3 if len(names) == 3 else min(2, len(names))
    rows = -(-len(names) // columns)
    size = (WIDTH, 2.0 * rows + 1.3)
    options: dict[str, Option] = {"squeeze": False, "sharex": True, "sharey": True}
    with figure(path, record, size, rows, columns, **options) as (picture, axes):
        for panel in axes.flat[len(names) :]:
            panel.axis("off")
        for column, (name, panel) in enumerate(zip(names, axes.flat, strict=False)):
            for model, values in errors.items():
                draw_error(panel, times, values[..., column], model, styles[model])
            panel.axvline(times[end - 1], color="#888888", lw=0.8, ls=":")
            panel.set(title=name, yscale="log")
            panel.set_ylim(top=min(panel.get_ylim()[1], MOST))
        for panel in axes[-1]:
            panel.set_xlabel("time since the given frame")
        picture.supylabel("squared relative L2 (1: as large as the field)")
        legend_below(picture, axes[0, :1])
        picture.suptitle(
            f"Held-out trajectories ({PARTS[0]}); dotted: end of the horizon of training"
        )


def draw_error(axes: Axes, times: np.ndarray, values: np.ndarray, model: str, style: Style) -> None:
    """Mean over trajectories of errors (N, S) at times, and the interval of that mean."""
    if not values.any():
        return  # a field that is the same everywhere, and is predicted so
    rows = np.random.default_rng(0).integers(len(values), size=(RESAMPLED, len(values)))
    low, high = np.quantile(values[rows].mean(1), (0.025, 0.975), axis=0)
    steps = times[: values.shape[1]]
    axes.fill_between(steps, low, high, color=style.colour, alpha=0.12, lw=0)
    axes.plot(steps, values.mean(0), label=model, lw=1.1, **style.line)


def draw_models(
    path: Path, record: JsonObject, table: pd.DataFrame, styles: dict[str, Style]
) -> None:
    """Squared relative L2 of the whole rollout of every model, one panel per test part.

    With 95 % intervals, over what the run's notes say.
    """
    pooled = table.series.isna() & table.horizon.isna() & (table.split == "test")
    values = table[pooled & table.model.isin(list(styles))].pivot_table(
        index="model", columns=["metric", "variant"], values="value", sort=False
    )
    parts = [part for part in PARTS if ("relative_l2_squared", part) in values.columns]
    order = values["relative_l2_squared"][parts[0]].sort_values(ascending=False).index
    values = values.reindex(order).clip(upper=MOST)

    size = (WIDTH, 0.21 * len(order) + 1.1)
    options: dict[str, Option] = {"squeeze": False, "sharey": True}
    with figure(path, record, size, 1, len(parts), **options) as (picture, axes):
        for panel, part in zip(axes[0], parts, strict=True):
            means = values["relative_l2_squared", part]
            lows = values["relative_l2_squared_low", part]
            highs = values["relative_l2_squared_high", part]
            for row, model in enumerate(order):
                mean = means[model]
                spans = [[max(mean - lows[model], 0)], [max(highs[model] - mean, 0)]]
                style = styles[model]
                panel.errorbar(
                    mean, row, xerr=spans, fmt=style.marker, ms=4, color=style.colour, capsize=2
                )
            panel.set(xscale="log", title=part)
            panel.set_yticks(range(len(order)), order)
            panel.xaxis.set_major_locator(LogLocator(numticks=2))
            panel.xaxis.set_minor_locator(NullLocator())
        axes[0, 0].set_ylim(-0.6, len(order) - 0.4)
        blown_up = f"; {MOST}: that or more" if (values == MOST).any(axis=None) else ""
        axes[0, len(parts) // 2].set_xlabel(f"squared relative L2 of rollouts{blown_up}")
        picture.suptitle(wrapped(parts_note(record)), fontsize=7)


def draw_probe(
    path: Path, record: JsonObject, pictures: Pictures, styles: dict[str, Style]
) -> None:
    """One node's signal, and its spectrum."""
    times = pictures.time - pictures.time[0]
    size = np.ptp(pictures.true_probe) or 1.0  # the spectrum has no unit
    lines: list[tuple[str, np.ndarray, str]] = [("simulation", pictures.true_probe, "black")]
    for model, probe in list(pictures.probes.items())[:DRAWN]:
        lines.append((model, probe, styles[model].colour))

    with figure(path, record, (WIDTH, 2.5), 1, 2, width_ratios=(1.6, 1)) as (picture, axes):
        left, right = axes
        for number, (label, signal, colour) in enumerate(lines):
            style: dict[str, Option] = {"color": colour, "lw": 1.2}
            style["ls"] = ("-", ":", "-.", "--")[number]
            left.plot(times[: len(signal)], signal, label=label, **style)
            windowed = (signal - signal.mean()) * np.hanning(len(signal))
            power = np.abs(np.fft.rfft(windowed / size)) ** 2
            frequencies = np.fft.rfftfreq(len(signal), times[1])
            right.semilogy(frequencies[1:], power[1:] + 1e-12, **style)
        left.set(xlabel="time since the given frame", ylabel=pictures.probe_name)
        left.set_title("Signal at one node")
        right.set(xlabel="frequency (1 / time unit)", ylabel="power (arbitrary unit)")
        right.set_title("Its spectrum (Hann window)")
        legend_below(picture, [left], columns=1 + DRAWN)


def draw_worth(path: Path, record: JsonObject, facts: JsonObject, rows: list[JsonObject]) -> None:
    """Error against processor seconds, of the surrogate and of its solver on coarser meshes.

    `facts` and `rows` are what worth.json holds; one panel per part.
    """
    table = pd.DataFrame(rows)
    table = table[table.metric == "relative_l2_squared"]
    parts = list(dict.fromkeys(table.variant))
    size = (WIDTH, 2.6)
    options: dict[str, Option] = {"squeeze": False, "sharey": True}
    with figure(path, record, size, 1, len(parts), **options) as (picture, axes):
        for panel, part in zip(axes[0], parts, strict=True):
            here = table[table.variant == part]
            model = here[here.model == facts["model"]].iloc[0]
            solver = here[here.model != facts["model"]].sort_values("seconds")
            label = "solver, coarse to fine"
            panel.loglog(solver.seconds, solver.value, "o-", color="black", ms=4, label=label)
            star: dict[str, Option] = {"color": PALETTE[0], "ms": 11, "label": model.model}
            panel.loglog(model.seconds, model.value, "*", **star)
            for times in (1, 10, 100):
                panel.axvline(times * model.seconds, color="#999999", lw=0.7, ls=":")
            panel.set(title=part, xlabel="processor seconds a trajectory")
        axes[0, 0].set_ylabel("squared relative L2")
        axes[0, 0].legend()
        picture.suptitle(
            f"{facts['steps']} steps from the first frame; dotted: 1, 10 and 100 times the "
            "surrogate's seconds"
        )


def draw_exchange(
    path: Path, record: JsonObject, table: pd.DataFrame, fields: Sequence[str]
) -> None:
    """Error of each model with an exchange over that of its controls, by field and test part.

    With 95 % intervals; draws nothing where the run has no such pair.
    """
    ratios = table[table.metric.str.startswith("exchange_ratio")]
    pairs = [
        f"{model} over {control}" for model, controls in CONTROLS.items() for control in controls
    ]
    pairs = [pair for pair in pairs if (ratios.model == pair).any()]
    if not pairs:
        return
    parts = [part for part in PARTS if (ratios.variant == part).any()]
    rows = ["all fields", *fields]
    values = ratios.assign(series=ratios.series.fillna(rows[0])).pivot_table(
        index=["model", "variant", "series"], columns="metric", values="value"
    )

    size = (WIDTH, 0.17 * len(rows) * len(pairs) + 1.4)
    options: dict[str, Option] = {"squeeze": False, "sharey": True, "sharex": True}
    with figure(path, record, size, 1, len(parts), **options) as (picture, axes):
        for panel, part in zip(axes[0], parts, strict=True):
            for number, pair in enumerate(pairs):
                below = (number - (len(pairs) - 1) / 2) / (len(pairs) + 1)
                draw_ratios(panel, values, (pair, part), rows, below, number)
            panel.axvline(1, color="#444444", lw=0.8)
            panel.set(xscale="log", title=part)
            panel.set_yticks(range(len(rows)), rows)
            panel.xaxis.set_major_locator(LogLocator(base=4, numticks=4))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_locator(NullLocator())
        axes[0, 0].invert_yaxis()
        axes[0, len(parts) // 2].set_xlabel("ratio of squared errors; below 1 the exchange helps")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        picture.legend(handles, labels, loc="outside upper center")


def draw_ratios(
    axes: Axes,
    values: pd.DataFrame,
    which: tuple[str, str],
    rows: Sequence[str],
    below: float,
    number: int,
) -> None:
    """The ratios of one pair and part, one under another, each `below` its field's place."""
    for place, series in enumerate(rows):
        if (*which, series) not in values.index:
            continue  # a field that is the same everywhere
        ratio = values.loc[(*which, series)]
        low = ratio["exchange_ratio"] - ratio["exchange_ratio_low"]
        high = ratio["exchange_ratio_high"] - ratio["exchange_ratio"]
        axes.errorbar(
            ratio["exchange_ratio"],
            place + below,
            xerr=[[max(low, 0)], [max(high, 0)]],
            fmt=MARKERS[number],
            color=PALETTE[number],
            ms=4,
            capsize=2,
            label=which[0] if place == 0 else None,
        )


def draw_mesh(path: Path, record: JsonObject, mesh: Triangulation) -> None:
    """The mesh, its triangles coloured by the patch of the autoencoder that they lie in."""
    boxes = tuple(record["config"]["boxes"])
    nodes = np.stack([mesh.x, mesh.y], 1)
    patch = np.zeros(len(nodes))
    for number, members in enumerate(patch_table(nodes, *boxes)):
        row = number // boxes[0]  # neighbours above one another have different colours too
        patch[members[members >= 0]] = (number + 3 * row) % len(PALETTE)
    of_triangles = np.median(patch[mesh.triangles], axis=1)
    height = 6.1 * np.ptp(mesh.y) / np.ptp(mesh.x) + 0.9
    with figure(path, record, (WIDTH, height)) as (_, axes):
        axes.tripcolor(
            mesh, of_triangles, cmap=ListedColormap(PALETTE), vmin=-0.5, vmax=7.5, alpha=0.35
        )
        axes.triplot(mesh, color="#333333", lw=0.25)
        axes.set(aspect="equal", xlabel="x", ylabel="y")
        axes.set_title(f"{len(nodes):,} nodes in {boxes[0]} x {boxes[1]} patches")
        axes.grid(False)


# ------------------------------------------------------------------------ attention and training


def draw_attention(path: Path, record: JsonObject, attention: Attention) -> None:
    """Attention weights of each stream on every other one, mean over heads and blocks.

    By how far back the other's frame is, or by how far away its patch is.
    """
    maps = attention.maps
    largest = 1.0 if attention.of_patches else 0.995  # a frame's weight on itself is an outlier
    top = float(np.quantile(maps[maps > 0], largest))
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    size = (WIDTH * max(2, columns) / 3, 1.9 * rows + 0.5)
    with figure(path, record, size, rows, columns, squeeze=False) as (picture, axes):
        for panel, weights, pair in zip(axes.flat, maps, attention.pairs, strict=False):
            height, width = weights.shape
            drawing: dict[str, Option] = {"cmap": "cividis", "vmin": 0, "vmax": top}
            if attention.of_patches:
                extent = (-width / 2, width / 2, -height / 2, height / 2)
                shown = panel.imshow(weights, extent=extent, origin="lower", **drawing)
            else:
                past = np.where(np.tri(height, width), weights, np.nan)
                shown = panel.imshow(past, **drawing)
            panel.set_title(pair)
            panel.grid(False)
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True))
        for panel in axes.flat[len(maps) :]:
            panel.axis("off")

        across, up, bar = "attended step", "step of the query", "attention weight"
        if attention.of_patches:
            across, up = "columns of patches away", "rows of patches away"
            bar = "mean attention weight"
        for panel in axes[-1]:
            panel.set_xlabel(across)
        for panel in axes[:, 0]:
            panel.set_ylabel(up)
        picture.colorbar(shown, ax=axes, label=bar)


def draw_learning(
    path: Path, record: JsonObject, log: pd.DataFrame, styles: dict[str, Style]
) -> None:
    """Validation error against the training step, one line per network and seed."""
    checks = log[log.split == "validation"].name.value_counts()
    coded = {  # codes that are left untrained have one check and no curve
        name: model
        for label, model in AUTOENCODERS.items()
        if checks.get(name := f"autoencoder error, {label}", 0) > 1 and model in styles
    }
    columns = 2 if coded else 1
    with figure(path, record, (WIDTH, 3.4), 1, columns, squeeze=False) as (picture, axes):
        for name, model in coded.items():
            draw_curve(axes[0, 0], log, name, styles[model], 0, model)
            axes[0, 0].set_title("autoencoders")
        for model, style in styles.items():
            for number, name in enumerate(trainings_of(model, log)):
                draw_curve(axes[0, -1], log, name, style, number, model if number == 0 else None)
        axes[0, -1].set_title("models of rollouts, one line per seed")
        axes[0, 0].set_ylabel("validation: squared relative L2")
        for panel in axes[0]:
            panel.set(xlabel="training step", yscale="log")
        legend_below(picture, axes[0])


def draw_seconds(
    path: Path, record: JsonObject, log: pd.DataFrame, styles: dict[str, Style]
) -> None:
    """Validation error of rollouts against the seconds of training, one line per network and seed.

    The seconds of a temporal model begin after those of its autoencoder, whose own error, of true
    frames that are coded and decoded, is drawn as a thin line.
    """
    coded = {kind: by_seconds(log, f"autoencoder error, {kind}") for kind in AUTOENCODERS}
    with figure(path, record, (WIDTH, 3.9)) as (picture, axes):
        for kind, alone in AUTOENCODERS.items():
            if len(coded[kind]) > 1 and alone in styles:  # (codes may be left untrained)
                curve = coded[kind]
                colour = styles[alone].colour
                axes.plot(curve.seconds, curve.error, color=colour, lw=0.8, ls="--", label=alone)
        for model, style in styles.items():
            before = 0.0
            if model in MODELS and len(coded[MODELS[model].autoencoder]):
                before = coded[MODELS[model].autoencoder].seconds.max()
            curves = [by_seconds(log, name) for name in trainings_of(model, log)]
            curves = [curve for curve in curves if len(curve)]
            for number, curve in enumerate(curves):
                label = model if number == 0 else None
                marks = {"color": style.colour, "marker": style.marker, "ms": 3, "lw": 1}
                axes.plot(before + curve.seconds, curve.error, label=label, **marks)
        axes.set(xscale="log", yscale="log", xlabel="seconds of training, both stages")
        axes.set_ylim(top=min(axes.get_ylim()[1], MOST))
        axes.set_ylabel("validation: squared relative L2 of rollouts")
        legend_below(picture, [axes])


def wrapped(text: str) -> str:
    """A title in lines that fit a figure's width."""
    return textwrap.fill(text, TITLE_CHARACTERS)


def trainings_of(model: str, log: pd.DataFrame) -> list[str]:
    """The names that the trainings of a model have in metrics.csv, by seed."""
    name = f"rollout error, {model}"
    named = log.name[(log.name == name) | log.name.str.startswith(f"{name}, seed ")]
    return sorted(named.unique())


def by_seconds(log: pd.DataFrame, name: str) -> pd.DataFrame:
    """One network's columns `seconds` and `error` on validation, a row for each check."""
    named = log[log.name == name]
    times = named[named.split == CLOCK].set_index("step").value.rename("seconds")
    errors = named[named.split == "validation"].set_index("step").value.rename("error")
    return pd.concat([times, errors], axis=1, join="inner").sort_index()


def draw_curve(
    axes: Axes, log: pd.DataFrame, name: str, style: Style, seed: int, label: str | None
) -> None:
    """One streamed validation error, dashed by seed."""
    dash = DASHES[seed % len(DASHES)]
    learning_curve(
        axes,
        log,
        "validation",
        name,
        label=label,
        color=style.colour,
        marker=style.marker,
        ls=dash,
        ms=3,
        lw=1,
    )
