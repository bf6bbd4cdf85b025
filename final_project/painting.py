"""Fields painted on a mesh, and movies of them.

Shape letters: T frames, P nodes, M triangles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.tri import Triangulation
from PIL import Image

from common.figures import STYLE, plt
from common.files import atomic_path

POSITIVE = ("alpha",)  # drawn with a sequential map; velocities and pressure change their sign
SHARE = 0.002  # of the nodes may lie beyond either colour limit
LEAST_RANGE = 1e-9  # of colours, relative to the values: less is rounding
COLOURS = 128  # of a movie
MILLISECONDS = 100  # per frame of a movie


@dataclass(frozen=True)
class Scale:
    """Colour limits and the name of the colour map."""

    low: float
    high: float
    colours: str

    @classmethod
    def of_field(cls, name: str, values: np.ndarray) -> Scale:
        """For a field: limits that a few extreme nodes do not set.

        Symmetric about 0 where the field has both signs, as velocities and a pressure have.
        """
        low, high = limits(values)
        if name in POSITIVE or not low < 0 < high:
            return cls(low, high, "cividis")
        largest = max(abs(low), abs(high))
        return cls(-largest, largest, "RdBu_r")

    @classmethod
    def of_error(cls, values: np.ndarray) -> Scale:
        """For differences."""
        _, largest = limits(np.abs(values))
        return cls(-largest, largest, "PuOr_r")


def limits(values: np.ndarray) -> tuple[float, float]:
    """The quantiles of values at SHARE from either end, never equal."""
    low, high = np.quantile(values.astype(np.float64), (SHARE, 1 - SHARE))
    if high - low <= LEAST_RANGE * max(abs(low), abs(high)):  # the field is the same everywhere
        spread = 0.01 * abs(low) or 1.0
        return float(low - spread), float(low + spread)
    return float(low), float(high)


def paint(axes: Axes, mesh: Triangulation, values: np.ndarray, scale: Scale) -> QuadMesh:
    """Draws one field (P,) in proportion; returns what a colour bar describes."""
    painted = axes.tripcolor(
        mesh,
        values.astype(np.float64),
        vmin=scale.low,
        vmax=scale.high,
        cmap=scale.colours,
        shading="gouraud",
        rasterized=True,
    )
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    return cast(QuadMesh, painted)


@dataclass(frozen=True)
class Panel:
    """What one panel of a movie shows: values (T, P), and how they are coloured."""

    values: np.ndarray
    scale: Scale


@dataclass(frozen=True)
class Movie:
    """One field over time: panels, one under another, by title.

    labels : one per frame, drawn under the panels. footer : where the data come from.
    """

    mesh: Triangulation
    field: str
    panels: Mapping[str, Panel]
    labels: Sequence[str]
    footer: str

    def write(self, path: Path) -> None:
        """Writes the movie as a GIF."""
        with plt.style.context([STYLE, {"figure.constrained_layout.use": False}]):
            sheets = self._sheets()
        first, *others = sheets
        with atomic_path(path) as temporary:
            first.save(
                temporary,
                format="GIF",
                save_all=True,
                append_images=others,
                duration=MILLISECONDS,
                loop=0,
            )

    def _sheets(self) -> list[Image.Image]:
        """One image per label."""
        count = len(self.panels)
        height = 5.0 * np.ptp(self.mesh.y) / np.ptp(self.mesh.x) + 0.28  # inches per panel
        picture, axes = plt.subplots(
            count, 1, figsize=(5.4, count * height + 0.5), dpi=90, squeeze=False
        )
        bottom = 0.12 / count + 0.06
        picture.subplots_adjust(left=0.02, right=0.98, top=0.93, bottom=bottom, hspace=0.3)
        picture.text(0.01, 0.005, self.footer, fontsize=5, color="#666666")
        canvas = cast(FigureCanvasAgg, picture.canvas)

        sheets = []
        for number, label in enumerate(self.labels):
            for (title, shown), panel in zip(self.panels.items(), axes[:, 0], strict=True):
                scale = shown.scale
                panel.clear()
                paint(panel, self.mesh, shown.values[number], scale)
                colours = f"colours from {scale.low:.2g} to {scale.high:.2g}"
                panel.set_title(f"{title} ({colours})", fontsize=8, pad=3)
            axes[-1, 0].set_xlabel(f"{self.field}, {label}", fontsize=8)
            canvas.draw()
            pixels = np.asarray(canvas.buffer_rgba())[..., :3]
            # without dither neighbouring pixels are alike, and the file is a third smaller
            sheets.append(Image.fromarray(pixels).quantize(COLOURS, dither=Image.Dither.NONE))
        plt.close(picture)
        return sheets
