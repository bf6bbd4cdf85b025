"""One style, and one colour per name, for every figure; figures are made from run folders only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import numpy as np
import pandas as pd

from common.files import JsonObject, atomic_path, read_json

matplotlib.use("Agg")  # before pyplot is imported
import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

# Okabe & Ito's palette is safe for colour-blind readers; each colour has a marker for grey prints
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE = Path(__file__).with_name("house.mplstyle")
WIDTH = 6.5  # inches of a report's text: a figure as wide is printed in its own size
FOOTER = 0.16  # inches at the bottom of a figure for the source line
Panels: TypeAlias = Any  # one Axes, or an array of them
Option: TypeAlias = Any  # a keyword argument that matplotlib takes


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, the same in every figure that lists the names in the same order."""
    return {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(names)}


def read_run(folder: Path) -> tuple[JsonObject, pd.DataFrame]:
    """run.json and the rows of metrics.json as a table."""
    record = read_json(Path(folder) / "run.json")
    metrics = read_json(Path(folder) / "metrics.json")
    return record, pd.DataFrame(metrics["rows"])


def source_line(record: JsonObject) -> str:
    """The footer of a figure: data, preset, commit, and the notice of simulated data."""
    data = record["data"]
    words = [
        f"data: {record['source']} ({data.get('path') or data.get('generator', '')})",
        f"preset {record['preset']}",
    ]
    if record.get("commit"):
        words.append(f"commit {record['commit'][:8]}{'+' if record.get('dirty') else ''}")
    if data.get("notice"):
        words.append("SIMULATED: " + data["notice"].split(";")[0])
    return " · ".join(words)


@contextmanager
def figure(
    path: Path,
    record: JsonObject,
    size: tuple[float, float],
    rows: int = 1,
    columns: int = 1,
    **options: Option,
) -> Iterator[tuple[Figure, Panels]]:
    """Yields (figure, axes) in the house style and writes the figure when the block ends well.

    `size` is in inches; the file carries the source line of the run's `record`.
    """
    with plt.style.context(STYLE):
        picture, axes = plt.subplots(rows, columns, figsize=size, **options)
        lift = FOOTER / size[1]
        picture.set_layout_engine("constrained", rect=(0, lift, 1, 1 - lift))
        try:
            yield picture, axes
            picture.text(0.01, lift / 4, source_line(record), fontsize=6, color="#666666")
            with atomic_path(Path(path)) as temporary:
                picture.savefig(temporary)
        finally:
            plt.close(picture)


def legend_below(picture: Figure, panels: Iterable[Axes], columns: int = 3) -> None:
    """One legend for all panels, under them and above the source line."""
    named: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        named |= dict(zip(map(str, labels), handles, strict=True))
    if named:
        in_letters = 72 * FOOTER / plt.rcParams["legend.fontsize"]
        picture.legend(
            list(named.values()),
            list(named),
            ncols=min(columns, len(named)),
            loc="outside lower center",
            borderaxespad=in_letters,
        )


def learning_curve(axes: Axes, table: pd.DataFrame, split: str, name: str, **style: Option) -> None:
    """Draws one streamed metric (a table read from metrics.csv) against the step."""
    part = table[(table.split == split) & (table.name == name)]
    axes.plot(part.step, part.value, **style)


def heat_map(
    axes: Axes,
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    texts: np.ndarray,
    **style: Option,
) -> AxesImage:
    """Draws a matrix (R, C) with `texts` (R, C) in its finite cells; returns the image.

    An `alpha` (R, C) among the options pales cells.
    """
    image = axes.imshow(values, aspect="auto", **style)
    opacity = np.broadcast_to(style.get("alpha", 1.0), values.shape)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)

    for (i, j), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        brightness = np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114))
        on_white = 1 - opacity[i, j] * (1 - brightness)
        colour = "white" if on_white < 0.5 else "black"
        axes.text(j, i, str(texts[i, j]), ha="center", va="center", fontsize=7, color=colour)
    return image
