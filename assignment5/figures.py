"""Figures of assignment 5, drawn from a run folder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from common.figures import MARKERS, PALETTE, figure, learning_curve, read_run
from common.run import atomic_path


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder."""
    record, table = read_run(folder)
    held = np.load(folder / "pictures.npz", allow_pickle=False)
    grids = {name.removeprefix("samples | "): held[name] for name in held.files if name.startswith("samples | ")}
    _samples(folder, record, grids)
    _steps(folder, record, held)
    _interpolation(folder, record, held["interpolation"])
    _trajectory(folder / "trajectory.gif", held["trajectory"])
    _evaluations(folder, record, table)
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
    with figure(folder / "samples.png", record, (9.6, 3.9 * rows + 0.4), rows, 2, squeeze=False) as (picture, axes):
        for (name, images), panel in zip(grids.items(), axes.flat, strict=False):
            panel.imshow(tile(images.reshape(-1, *images.shape[1:]), 8), interpolation="nearest")
            panel.set_title(name.replace(" | ", ", "))
        for panel in axes.flat:
            panel.axis("off")
        picture.suptitle("Samples of DDIM, 20 steps, from the same noises; none picked", fontsize=10)


def _steps(folder: Path, record: dict, held: np.lib.npyio.NpzFile) -> None:
    counts, images = held["step_counts"], held["steps"]
    with figure(folder / "steps.png", record, (6.4, 6.0)) as (_, panel):
        side = images.shape[2] + 1
        panel.imshow(tile(images.swapaxes(0, 1).reshape(-1, *images.shape[2:]), len(counts)), interpolation="nearest")
        panel.set_xticks([side * (place + 0.5) for place in range(len(counts))], [str(count) for count in counts])
        panel.set(xlabel="DDIM steps", yticks=[], title="The same noise, more steps (a row a noise)")
        panel.grid(False)


def _interpolation(folder: Path, record: dict, images: np.ndarray) -> None:
    count = images.shape[1]
    with figure(folder / "interpolation.png", record, (8, 4.2)) as (_, panel):
        panel.imshow(tile(images.reshape(-1, *images.shape[2:]), count), interpolation="nearest")
        panel.set_xticks(
            [(images.shape[2] + 1) * (place + 0.5) for place in range(count)], [f"{place / (count - 1):.2f}" for place in range(count)]
        )
        panel.set(xlabel="share of the way on the sphere between two noises", yticks=[], title="Spherical interpolation (a row a pair)")
        panel.grid(False)


def _trajectory(path: Path, frames: np.ndarray) -> None:
    """GIF of the predicted image while noise is taken away; the last frame stays."""
    zoom, sheets = max(1, 96 // frames.shape[2]), []
    for number, images in enumerate(frames):
        sheet = np.kron(tile(images, 5), np.ones((zoom, zoom, 1), np.uint8))
        picture = Image.new("RGB", (sheet.shape[1], sheet.shape[0] + 16), "white")
        picture.paste(Image.fromarray(sheet), (0, 0))
        ImageDraw.Draw(picture).text((4, sheet.shape[0] + 2), f"predicted image, step {number + 1} of {len(frames)}", fill="black")
        sheets.append(picture.quantize(128))
    with atomic_path(path) as temporary:
        sheets[0].save(temporary, save_all=True, append_images=sheets[1:], duration=[120] * (len(sheets) - 1) + [1500], loop=0)


def _evaluations(folder: Path, record: dict, table: pd.DataFrame) -> None:
    """KID on validation against the number of network evaluations, a line a sampler, a panel a space of features."""
    part = table[(table.split == "validation") & (table.metric == "kid")]
    spaces = list(part.series.unique())
    with figure(folder / "kid_by_evaluations.png", record, (5.2 * len(spaces), 3.4), 1, len(spaces), squeeze=False) as (_, axes):
        for panel, space in zip(axes.flat, spaces, strict=True):
            for number, (name, rows) in enumerate(part[part.series == space].groupby("variant", sort=False)):
                rows = rows.sort_values("horizon")
                error = rows["std"].fillna(0) / np.sqrt(rows.n_seeds)
                style = {"color": PALETTE[number], "marker": MARKERS[number], "ms": 4, "capsize": 2, "label": name.split(", ")[1]}
                panel.errorbar(rows.horizon, rows.value, error, **style)
            panel.set(
                xlabel="network evaluations",
                ylabel=f"KID, features: {space}",
                xscale="log",
                yscale="log",
                title=f"{part.model.iloc[0]}, validation part",
            )
            ticks = sorted(part.horizon.unique())
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.minorticks_off()
            panel.legend(title="± one standard error over sets of noise", title_fontsize=7)


def _learning(folder: Path, record: dict, log: pd.DataFrame) -> None:
    with figure(folder / "learning_curves.png", record, (9.6, 3.4), 1, 2) as (picture, (left, right)):
        names = [name.removeprefix("loss, ") for name in log.name.unique() if name.startswith("loss, ")]
        for number, name in enumerate(names):
            style = {"color": PALETTE[number], "label": name}
            smooth = log[log.name == f"loss, {name}"].assign(value=lambda part: part.value.rolling(10, min_periods=1).mean())
            learning_curve(left, smooth, "train", f"loss, {name}", **style)
            learning_curve(right, log, "validation", f"noise error, {name}", marker=MARKERS[number], ms=3, **style)
        left.set(xlabel="step", ylabel="training loss (each in its own target)", title="Training, mean of ten readings", yscale="log")
        right.set(xlabel="step", ylabel="mean absolute error of the noise (sd)", title="Validation part, averaged weights", yscale="log")
        picture.legend(*left.get_legend_handles_labels(), loc="outside right center")


def _distances(folder: Path, record: dict, held: np.lib.npyio.NpzFile) -> None:
    with figure(folder / "nearest_training_image.png", record, (6.4, 3.4)) as (_, panel):
        top = max(float(held[name].max()) for name in held.files)
        for number, name in enumerate(held.files):
            values = np.sort(held[name])
            share = np.arange(1, len(values) + 1) / len(values)
            panel.plot(values, share, color="black" if number == 0 else PALETTE[number - 1], ls="--" if number == 0 else "-", label=name)
        panel.set(xlim=(0, top), xlabel="distance to the nearest training image (own features)", ylabel="share of images below it",
                  title="Memorisation: copies would lie left of the held-out images")  # fmt: skip
        panel.legend()
