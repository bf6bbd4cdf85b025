"""Draws the three pictures at the top of the README from committed runs: `python -m tools.strip`.

They show what the figures of these runs show, at a size that can be read three in a row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from assignment5.figures import tile
from common.figures import figure
from common.files import read_json
from common.forecasting.figures import Ahead, Known, fan
from common.machine import ROOT
from final_project.painting import Scale, paint
from final_project.pictures import read_pictures

FLOWERS = ROOT / "assignment5" / "results" / "flowers-long"
FLOW = ROOT / "final_project" / "results" / "cylinder-core"
PRICES = ROOT / "assignment2" / "results" / "csv-full"
FOLDER = ROOT / "docs" / "strip"
SIZE = (4.0, 3.0)  # inches
TITLE = 12  # points
SHOWN_FIELD, SHOWN_COIN = "v", "BTC"
COLUMNS, ROWS = 8, 5  # of flowers


def draw_flowers(path: Path) -> None:
    """The first samples of the Transformer, none picked."""
    arrays = np.load(FLOWERS / "pictures.npz", allow_pickle=False)
    images = arrays["samples | Transformer | tuned"][: COLUMNS * ROWS]
    with figure(path, read_json(FLOWERS / "run.json"), SIZE) as (picture, axes):
        axes.imshow(tile(images, COLUMNS), interpolation="nearest")
        axes.axis("off")
        picture.suptitle("Samples of the Transformer, none picked", fontsize=TITLE)


def draw_wake(path: Path) -> None:
    """One field of a test trajectory at the end of the trained horizon, simulated and predicted."""
    record = read_json(FLOW / "run.json")
    pictures = read_pictures(FLOW / "pictures.npz", record)
    model, predicted = next(iter(pictures.fields.items()))
    stored = int(np.searchsorted(pictures.frames, record["config"]["frames"] - 1, "right")) - 1
    field = pictures.field_names.index(SHOWN_FIELD)
    truth = pictures.truth[stored, :, field]
    guess = predicted[stored, :, field]

    panels = {
        "simulation": (truth, Scale.of_field(SHOWN_FIELD, truth)),
        model: (guess, Scale.of_field(SHOWN_FIELD, truth)),
        "error (finer colours)": (guess - truth, Scale.of_error(guess - truth)),
    }
    with figure(path, record, SIZE, len(panels)) as (picture, axes):
        for panel, (title, (values, scale)) in zip(axes, panels.items(), strict=True):
            paint(panel, pictures.mesh, values, scale)
            panel.set_title(title, fontsize=10, pad=2)
        picture.suptitle(
            f"Wake of a cylinder after {pictures.frames[stored]} steps", fontsize=TITLE
        )


def draw_forecast(path: Path) -> None:
    """One forecast of one coin with its intervals, and the prices that followed."""
    arrays = np.load(PRICES / "predictions.npz", allow_pickle=False)
    times = arrays["fan_times"].astype("datetime64[m]")
    steps = len(arrays["fan_past"])
    known = Known(times[:steps], arrays["fan_past"])
    ahead = Ahead(times[steps:], arrays["fan_quantiles"], arrays["levels"], arrays["fan_future"])
    coin = list(arrays["series"]).index(SHOWN_COIN)
    with figure(path, read_json(PRICES / "run.json"), SIZE) as (picture, axes):
        fan(axes, known, ahead, coin)
        axes.set_ylabel("price (USD)")
        axes.legend(loc="lower left")
        picture.suptitle(f"{SHOWN_COIN}, five hours ahead", fontsize=TITLE)


def draw(folder: Path) -> None:
    """Writes flowers.png, wake.png and forecast.png into a folder."""
    draw_flowers(folder / "flowers.png")
    draw_wake(folder / "wake.png")
    draw_forecast(folder / "forecast.png")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    draw(FOLDER)
