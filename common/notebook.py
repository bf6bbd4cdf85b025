"""Figures in the house style below the cells of a notebook."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from IPython import display
from matplotlib.figure import Figure
from PIL import Image

from common.figures import Option, Panels, figure, plt
from common.files import JsonObject

DPI = 100  # of a screen
COLOURS = 256  # of a picture: with them a notebook of six stays below 300 kB


@contextmanager
def shown(
    record: JsonObject,
    size: tuple[float, float],
    rows: int = 1,
    columns: int = 1,
    **options: Option,
) -> Iterator[tuple[Figure, Panels]]:
    """As `figure`, but the picture is shown below the cell when the block ends well."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        with figure(path, record, size, rows, columns, **options) as (picture, axes):
            plt.rcParams["savefig.dpi"] = DPI  # until `figure` puts back the style
            yield picture, axes
        small = io.BytesIO()
        with Image.open(path) as drawn:
            few = drawn.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            few.save(small, "PNG", optimize=True)
    display.display(display.Image(small.getvalue()))
