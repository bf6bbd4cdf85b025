"""Figures of assignment 5, drawn from a run folder alone.

Shape letters: N images, R rows, C columns, S side.
"""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from PIL import Image, ImageDraw

from assignment5.config import (
    GIVEN,
    NETWORKS,
    SAMPLERS,
    Network,
    Sampling,
    samples_key,
    training_name,
    trainings_of,
)
from common.cli import InputError
from common.figures import (
    MARKERS,
    PALETTE,
    WIDTH,
    Option,
    figure,
    learning_curve,
    legend_below,
    source_line,
)
from common.files import JsonObject, atomic_path, read_json

FRAME_MS = 120  # milliseconds that a frame of the trajectory stays
LAST_FRAME_MS = 1500
HELD_OUT = "held-out images"  # among the distances
ROWS = ("split", "model", "variant", "metric", "value", "std", "n_seeds", "series", "horizon")
LOG = ("step", "epoch", "split", "name", "value")
PICTURES = {"steps": 5, "trajectory": 5, "interpolation": 5}  # rank of the arrays in pictures.npz
DAMAGE = (  # what reading a damaged file raises
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError),
    *(zipfile.BadZipFile, zlib.error, RuntimeError, SyntaxError, OverflowError, MemoryError),
)


@dataclass(frozen=True)
class Drawable:
    """What the figures of a run are drawn from: run.json, tables and arrays."""

    record: JsonObject
    table: pd.DataFrame  # rows of metrics.json
    log: pd.DataFrame  # metrics.csv
    trainings: list[tuple[Network, str]]
    pictures: dict[str, np.ndarray]
    distances: dict[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path) -> Drawable:
        """The files of a finished run. Raises InputError for one that is damaged or of another."""
        record, rows = read_json(folder / "run.json"), read_json(folder / "metrics.json")
        with damaged(folder / "run.json"):
            only = record["config"].get("only") or []  # (earlier runs trained all)
            trainings = trainings_of(map(str, record["config"]["recipes"]), only)
            source_line(record)
            if not trainings:
                raise ValueError("no recipes")
        with damaged(folder / "metrics.json"):
            table = pd.DataFrame(rows["rows"])[list(ROWS)]
            kids = table[(table.split == "validation") & (table.metric == "kid")]
            numbers = kids[["value", "horizon", "n_seeds"]].astype(float)
            words = kids[["variant", "series"]].map(lambda value: isinstance(value, str))
            if not np.isfinite(numbers).all(axis=None) or not words.all(axis=None):
                raise ValueError("rows of KID without numbers or names")
            if NETWORKS[0] not in set(kids.model):
                raise ValueError("no KID on the validation part")
        with damaged(folder / "metrics.csv"):
            log = pd.read_csv(folder / "metrics.csv", encoding="utf-8")[list(LOG)]
            log = log.astype({"step": float, "value": float})
        pictures = arrays_in(folder / "pictures.npz", PICTURES)
        with damaged(folder / "pictures.npz"):
            if len(pictures["step_counts"]) != len(pictures["steps"]):
                raise ValueError("steps without their counts")
            for network, recipe in trainings:
                check_pictures(pictures[samples_key(network, recipe)], 4)
        distances = arrays_in(folder / "distances.npz", {})
        with damaged(folder / "distances.npz"):
            for name in (HELD_OUT, *(training_name(*training) for training in trainings)):
                if distances[name].ndim != 1 or not np.isfinite(distances[name]).all():
                    raise ValueError(f"{name} holds no distances")
        return cls(record, table, log, trainings, pictures, distances)


@contextlib.contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turns what a damaged or foreign file raises while it is read into one line."""
    try:
        yield
    except DAMAGE as error:
        raise InputError(
            f"{path} is damaged or of another kind of run ({type(error).__name__}: {error}); "
            "copy it again, or give --out, with which no figure of the run is drawn"
        ) from None


def arrays_in(path: Path, kinds: dict[str, int]) -> dict[str, np.ndarray]:
    """The arrays of an .npz. Raises InputError where one of `kinds` is no pictures of that rank."""
    with damaged(path), open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
        for name, rank in kinds.items():
            check_pictures(arrays[name], rank)
        return arrays


def check_pictures(array: np.ndarray, rank: int) -> None:
    """Raises ValueError where an array is not uint8 (..., S, S, 3) of that rank, with pictures."""
    square = array.ndim == rank and array.shape[-1] == 3 and array.shape[-2] == array.shape[-3]
    if array.dtype != np.uint8 or not square or not array.size:
        raise ValueError(f"{array.dtype} {array.shape} are no pictures")


def draw_figures(folder: Path) -> None:
    """Draws every figure of a finished run into its folder. Raises InputError as `Drawable`."""
    drawable = Drawable.read(folder)
    record, pictures = drawable.record, drawable.pictures
    names = [training_name(network, recipe) for network, recipe in drawable.trainings]

    grids = {
        training_name(network, recipe): pictures[samples_key(network, recipe)]
        for network, recipe in drawable.trainings
    }
    draw_samples(folder / "samples.png", record, grids)
    draw_sheet(
        folder / "steps.png",
        record,
        pictures["steps"].swapaxes(0, 1),
        ticks=[str(count) for count in pictures["step_counts"]],
        xlabel="DDIM steps",
        title="The same noise, more steps (one row per noise)",
    )
    between = pictures["interpolation"]
    draw_sheet(
        folder / "interpolation.png",
        record,
        between,
        ticks=[f"{share:.2f}" for share in np.linspace(0, 1, between.shape[1])],
        xlabel="share of the way on the sphere between two noises",
        title="Spherical interpolation (one row per pair)",
    )
    draw_trajectory(folder / "trajectory.gif", pictures["trajectory"])
    table = drawable.table
    first = table[(table.split == "validation") & (table.model == NETWORKS[0])]
    recipe = drawable.trainings[0][1]
    draw_evaluations(folder / "kid_by_evaluations.png", record, first, recipe)
    draw_learning_curves(folder / "learning_curves.png", record, drawable.log, names)
    draw_distances(
        folder / "distances.png",
        record,
        {name: drawable.distances[name] for name in (HELD_OUT, *names)},
    )


# -------------------------------------------------------------------------------------- pictures


def tile(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Images uint8 (N, S, S, 3) as one picture in rows of `columns`, with white lines between."""
    side = images.shape[1]
    pitch = side + gap
    rows = -(-len(images) // columns)
    sheet = np.full((rows * pitch + gap, columns * pitch + gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top = gap + pitch * row
        left = gap + pitch * column
        sheet[top : top + side, left : left + side] = image
    return sheet


def draw_samples(path: Path, record: JsonObject, grids: dict[str, np.ndarray]) -> None:
    """One grid (N, S, S, 3) per network and recipe, from the same noises."""
    rows = -(-len(grids) // 2)
    in_rows = max(-(-len(images) // 8) for images in grids.values())
    size = (WIDTH, (0.4 * in_rows + 0.25) * rows + 0.5)
    with figure(path, record, size, rows, 2, squeeze=False) as (picture, axes):
        for (name, images), panel in zip(grids.items(), axes.flat, strict=False):
            panel.imshow(tile(images, 8), interpolation="nearest")
            panel.set_title(name)
        for panel in axes.flat:
            panel.axis("off")
        title = "Samples of DDIM, 20 steps, from the same noises; none picked"
        picture.suptitle(title)


def draw_sheet(
    path: Path, record: JsonObject, images: np.ndarray, *, ticks: list[str], xlabel: str, title: str
) -> None:
    """Images uint8 (R, C, S, S, 3) as R rows under one title, with a tick under each column."""
    rows, columns, side = images.shape[:3]
    side_in = min(0.8, WIDTH / columns - 0.03)  # inches of an image
    size = (side_in * columns + 0.2, side_in * rows + 0.8)
    with figure(path, record, size) as (_, panel):
        sheet = tile(images.reshape(-1, *images.shape[2:]), columns)
        panel.imshow(sheet, interpolation="nearest")
        centres = [(side + 1) * (column + 0.5) for column in range(columns)]
        panel.set_xticks(centres, ticks)
        panel.tick_params(length=0)
        panel.set(xlabel=xlabel, yticks=[], title=title)
        panel.spines[:].set_visible(False)
        panel.grid(False)


def draw_closest(folder: Path, pairs: np.ndarray) -> None:
    """Draws nearest.png of a run from pairs uint8 (N, 2, S, S, 3) of a sample and its neighbour.

    It holds training images, so that it is ignored by git.
    """
    record = read_json(folder / "run.json")
    with figure(folder / "nearest.png", record, (WIDTH, 5.2)) as (picture, panel):
        sheet = tile(pairs.reshape(-1, *pairs.shape[2:]), 8)
        panel.imshow(sheet, interpolation="nearest")
        panel.axis("off")
        title = "Pairs: a sample (left) and the nearest training image (right); the closest first"
        picture.suptitle(title)


def draw_trajectory(path: Path, frames: np.ndarray) -> None:
    """GIF of predicted images uint8 (frames, N, S, S, 3) as noise is removed; the last stays."""
    zoom = max(1, 96 // frames.shape[2])
    sheets = []
    for number, images in enumerate(frames, 1):
        sheet = np.kron(tile(images, 5), np.ones((zoom, zoom, 1), np.uint8))
        height, width = sheet.shape[:2]
        picture = Image.new("RGB", (width, height + 16), "white")
        picture.paste(Image.fromarray(sheet), (0, 0))
        caption = f"predicted image, step {number} of {len(frames)}"
        ImageDraw.Draw(picture).text((4, height + 2), caption, fill="black")
        sheets.append(picture.quantize(128))
    durations = [FRAME_MS] * (len(sheets) - 1) + [LAST_FRAME_MS]
    with atomic_path(path) as temporary:
        sheets[0].save(
            temporary, save_all=True, append_images=sheets[1:], duration=durations, loop=0
        )


# ---------------------------------------------------------------------------------------- curves


def plain_log(axis: Axis) -> None:
    """A logarithmic axis with plain numbers at 1, 1.5, 2, 3, 5 and 7 of a decade."""
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def draw_evaluations(
    path: Path, record: JsonObject, table: pd.DataFrame, recipe: str, power: float = 1.0
) -> None:
    """KID against network evaluations, one line per sampler.

    One panel per space of features and model of the table; dotted: within 5 % of the most DDIM
    steps. Only rows whose sampler has times of this power are drawn.
    """
    kids = table[(table.metric == "kid") & table.horizon.notna()]  # (of samplers)
    panels = list(kids.groupby(["series", "model"], sort=False))
    size = (WIDTH, 3.4)
    with figure(path, record, size, 1, len(panels), squeeze=False) as (picture, axes):
        for panel, ((space, model), rows) in zip(axes.flat, panels, strict=True):
            draw_samplers(panel, rows, recipe, power)
            panel.set(
                xlabel="network evaluations",
                ylabel=f"KID, features: {space}",
                xscale="log",
                yscale="log",
            )
            panel.set_title(f"{model}, {part_words(rows.split.iloc[0])}")
            ticks = sorted(rows.horizon[rows.variant == rows.variant.iloc[0]].unique())
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.set_xticks([], minor=True)
            plain_log(panel.yaxis)
        picture.suptitle(
            "Error by evaluations of the network; bars: one standard error over sets of noise;\n"
            "one training per network"
        )
        legend_below(picture, axes.flat, columns=4)


def part_words(split: str) -> str:
    """What the rows of a split are scored against."""
    return "given images" if split == GIVEN else f"{split} part"


def draw_samplers(panel: Axes, rows: pd.DataFrame, recipe: str, power: float) -> None:
    """One line of KID per sampler, with its standard error."""
    for number, sampler in enumerate(SAMPLERS):
        sampling = Sampling(sampler, power=power)
        line = rows[rows.variant == sampling.variant(recipe)].sort_values("horizon")
        if line.empty:
            continue
        error = line["std"].fillna(0) / np.sqrt(line.n_seeds)
        panel.errorbar(
            line.horizon,
            line.value,
            error,
            color=PALETTE[number],
            marker=MARKERS[number],
            ms=4,
            capsize=2,
            label=sampling.label,
        )
        if sampler == "ddim" and len(line) > 1:
            most = line.iloc[-1]
            label = f"5 % above {sampling.label} at {most.horizon:g}"
            panel.axhline(1.05 * most.value, color="#888888", ls=":", label=label)


def draw_learning_curves(
    path: Path, record: JsonObject, log: pd.DataFrame, names: list[str]
) -> None:
    """Training loss and error of the noise against the step, one line per training."""
    with figure(path, record, (WIDTH, 3.0), 1, 2) as (picture, (left, right)):
        for number, name in enumerate(names):
            style: dict[str, Option] = {
                "color": PALETTE[number],
                "marker": MARKERS[number],
                "label": name,
                "ms": 3,
            }
            loss = f"loss, {name}"
            smooth = log[log.name == loss].copy()
            smooth["value"] = smooth.value.rolling(10, min_periods=1).mean()
            every = max(1, len(smooth) // 10)
            learning_curve(left, smooth, "train", loss, markevery=every, **style)
            learning_curve(right, log, "validation", f"noise error, {name}", **style)
        left.set(
            xlabel="step",
            ylabel="training loss (own target)",
            title="Training, mean of ten readings",
            yscale="log",
        )
        right.set(
            xlabel="step",
            ylabel="error of the noise (sd)",
            title="Validation part, averaged weights",
        )
        plain_log(left.yaxis)
        for panel in (left, right):
            panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        legend_below(picture, [left])


def draw_distances(path: Path, record: JsonObject, distances: dict[str, np.ndarray]) -> None:
    """Cumulative shares of distances (N,) to the nearest training image; held-out images first."""
    top = max(float(values.max()) for values in distances.values())
    with figure(path, record, (WIDTH, 3.0)) as (_, panel):
        for number, (name, values) in enumerate(distances.items()):
            share = np.arange(1, len(values) + 1) / len(values)
            held_out = number == 0
            panel.plot(
                np.sort(values),
                share,
                color="black" if held_out else PALETTE[number - 1],
                ls="--" if held_out else "-",
                label=name,
            )
        panel.set(
            xlim=(0, top),
            xlabel="distance to the nearest training image (features of the network trained here)",
            ylabel="share of images below it",
            title="Memorisation: copies would lie left of the held-out images",
        )
        panel.legend()
