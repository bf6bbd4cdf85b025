"""Figures of assignment 5, drawn from a run folder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image, ImageDraw

from common.figures import MARKERS, PALETTE, figure, learning_curve, read_run
from common.run import atomic_path


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    held = np.load(folder / "pictures.npz", allow_pickle=False)
    grids = {
        name.removeprefix("samples | "): held[name]
        for name in held.files
        if name.startswith("samples | ")
    }
    _samples(folder, record, grids)
    _steps(folder, record, held)
    _interpolation(folder, record, held["interpolation"])
    _trajectory(folder / "trajectory.gif", held["trajectory"])
    even = table[
        (table.split == "validation")
        & (table.model == table.model.iloc[0])
        & ~table.variant.str.contains(", times")
    ]
    draw_evaluations(folder / "kid_by_evaluations.png", record, even)
    _learning(folder, record, pd.read_csv(folder / "metrics.csv"))
    _distances(folder, record, np.load(folder / "distances.npz", allow_pickle=False))


def tile(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """uint8 (N, S, S, 3) as one white-ruled picture with so many columns."""
    rows, side = -(-len(images) // columns), images.shape[1]
    sheet = np.full((rows * (side + gap) + gap, columns * (side + gap) + gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (gap + (side + gap) * place for place in divmod(number, columns))
        sheet[top : top + side, left : left + side] = image
    return sheet


def _samples(folder: Path, record: dict, grids: dict[str, np.ndarray]) -> None:
    """One grid a network and recipe, from the same noises."""
    rows = -(-len(grids) // 2)
    with figure(
        folder / "samples.png", record, (9.6, 3.9 * rows + 0.4), rows, 2, squeeze=False
    ) as (picture, axes):
        for (name, images), panel in zip(grids.items(), axes.flat, strict=False):
            panel.imshow(tile(images.reshape(-1, *images.shape[1:]), 8), interpolation="nearest")
            panel.set_title(name.replace(" | ", ", "))
        for panel in axes.flat:
            panel.axis("off")
        picture.suptitle(
            "Samples of DDIM, 20 steps, from the same noises; none picked", fontsize=10
        )


def _sheet(
    path: Path, record: dict, images: np.ndarray, ticks: list[str], xlabel: str, title: str
) -> None:
    """Images uint8 (R, C, S, S, 3) as R rows under one title, a tick under each column."""
    rows, columns, side = images.shape[:3]
    with figure(path, record, (0.86 * columns + 0.2, 0.86 * rows + 0.95)) as (picture, panel):
        panel.imshow(tile(images.reshape(-1, *images.shape[2:]), columns), interpolation="nearest")
        panel.set_xticks([(side + 1) * (place + 0.5) for place in range(columns)], ticks)
        panel.tick_params(length=0)
        panel.set(xlabel=xlabel, yticks=[])
        panel.spines[:].set_visible(False)
        panel.grid(False)
        picture.suptitle(title, fontsize=10)


def _steps(folder: Path, record: dict, held: np.lib.npyio.NpzFile) -> None:
    ticks = [str(count) for count in held["step_counts"]]
    _sheet(
        folder / "steps.png",
        record,
        held["steps"].swapaxes(0, 1),
        ticks,
        "DDIM steps",
        "The same noise, more steps (a row a noise)",
    )


def _interpolation(folder: Path, record: dict, images: np.ndarray) -> None:
    ticks = [f"{share:.2f}" for share in np.linspace(0, 1, images.shape[1])]
    label, title = (
        "share of the way on the sphere between two noises",
        "Spherical interpolation (a row a pair)",
    )
    _sheet(folder / "interpolation.png", record, images, ticks, label, title)


def _trajectory(path: Path, frames: np.ndarray) -> None:
    """GIF of the predicted image while noise is taken away; the last frame stays."""
    zoom, sheets = max(1, 96 // frames.shape[2]), []
    for number, images in enumerate(frames):
        sheet = np.kron(tile(images, 5), np.ones((zoom, zoom, 1), np.uint8))
        picture = Image.new("RGB", (sheet.shape[1], sheet.shape[0] + 16), "white")
        picture.paste(Image.fromarray(sheet), (0, 0))
        ImageDraw.Draw(picture).text(
            (4, sheet.shape[0] + 2),
            f"predicted image, step {number + 1} of {len(frames)}",
            fill="black",
        )
        sheets.append(picture.quantize(128))
    with atomic_path(path) as temporary:
        sheets[0].save(
            temporary,
            save_all=True,
            append_images=sheets[1:],
            duration=[120] * (len(sheets) - 1) + [1500],
            loop=0,
        )


def _plain_log(axis: Axis) -> None:
    """A logarithmic axis with plain numbers at 1, 1.5, 2, 3, 5 and 7 of a decade, or wherever a narrow range needs them."""
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def draw_evaluations(path: Path, record: dict, part: pd.DataFrame) -> None:
    """KID against the number of network evaluations, a line a sampler, a panel a model and space of features; dotted: within 5 % of the most DDIM steps."""
    part = part[part.metric == "kid"]
    panels = list(part.groupby(["series", "model"], sort=False))
    with figure(
        path, record, (max(5.2 * len(panels), 6.4), 3.6), 1, len(panels), squeeze=False
    ) as (picture, axes):
        for panel, ((space, model), found) in zip(axes.flat, panels, strict=True):
            for number, (name, rows) in enumerate(found.groupby("variant", sort=False)):
                rows = rows.sort_values("horizon")
                error = rows["std"].fillna(0) / np.sqrt(rows.n_seeds)
                sampler = name.split(", ", 1)[1]
                style = {
                    "color": PALETTE[number],
                    "marker": MARKERS[number],
                    "ms": 4,
                    "capsize": 2,
                    "label": sampler,
                }
                panel.errorbar(rows.horizon, rows.value, error, **style)
                if sampler == "DDIM" and len(rows) > 1:
                    panel.axhline(
                        1.05 * rows.value.iloc[-1],
                        color="#888888",
                        ls=":",
                        label=f"5 % above DDIM at {rows.horizon.iloc[-1]:g}",
                    )
            panel.set(
                xlabel="network evaluations",
                ylabel=f"KID, features: {space}",
                xscale="log",
                yscale="log",
            )
            panel.set_title(f"{model}, {found.split.iloc[0]} part")
            ticks = sorted(
                found[found.variant == found.variant.iloc[0]].horizon
            )  # (another sampler's would stand too close to these)
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.set_xticks([], minor=True)
            _plain_log(panel.yaxis)
        picture.legend(
            *axes.flat[0].get_legend_handles_labels(),
            loc="outside right center",
            title="± one standard error\nover sets of noise",
            title_fontsize=7,
        )


def _learning(folder: Path, record: dict, log: pd.DataFrame) -> None:
    with figure(folder / "learning_curves.png", record, (9.6, 3.4), 1, 2) as (
        picture,
        (left, right),
    ):
        names = [
            name.removeprefix("loss, ") for name in log.name.unique() if name.startswith("loss, ")
        ]
        for number, name in enumerate(names):
            style = {"color": PALETTE[number], "label": name, "marker": MARKERS[number], "ms": 3}
            smooth = log[log.name == f"loss, {name}"].assign(
                value=lambda part: part.value.rolling(10, min_periods=1).mean()
            )
            learning_curve(
                left, smooth, "train", f"loss, {name}", markevery=max(1, len(smooth) // 10), **style
            )
            learning_curve(right, log, "validation", f"noise error, {name}", **style)
        left.set(
            xlabel="step",
            ylabel="training loss (each in its own target)",
            title="Training, mean of ten readings",
            yscale="log",
        )
        right.set(
            xlabel="step",
            ylabel="mean absolute error of the noise (sd)",
            title="Validation part, averaged weights",
            yscale="log",
        )
        for panel in (left, right):
            _plain_log(panel.yaxis)
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        picture.legend(*left.get_legend_handles_labels(), loc="outside right center")


def _distances(folder: Path, record: dict, held: np.lib.npyio.NpzFile) -> None:
    with figure(folder / "nearest_training_image.png", record, (6.4, 3.4)) as (_, panel):
        top = max(float(held[name].max()) for name in held.files)
        for number, name in enumerate(held.files):
            values = np.sort(held[name])
            share = np.arange(1, len(values) + 1) / len(values)
            panel.plot(
                values,
                share,
                color="black" if number == 0 else PALETTE[number - 1],
                ls="--" if number == 0 else "-",
                label=name,
            )
        panel.set(
            xlim=(0, top),
            xlabel="distance to the nearest training image (own features)",
            ylabel="share of images below it",
            title="Memorisation: copies would lie left of the held-out images",
        )
        panel.legend()
