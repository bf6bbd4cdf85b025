"""What the figures of a run are drawn from: its stored fields, probes, errors, and model styles.

Shape letters: N trajectories, T frames, S steps of a rollout, P nodes, F fields, M pairs of groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.tri import Triangulation

from common.figures import MARKERS, PALETTE, Option
from common.files import JsonObject

PARTS = ("interpolation", "gap", "extrapolation", "longer", "other starts")
DASHES = ("-", "--", ":")
FURTHER_DASHES = ("-.", "--")  # of models that have no style of their own


@dataclass(frozen=True)
class Attention:
    """Exchange attention by pair of groups; see `artifacts.attention_arrays` for the two shapes."""

    maps: np.ndarray
    pairs: tuple[str, ...]
    of_patches: bool


@dataclass(frozen=True)
class Pictures:
    """pictures.npz: one held-out trajectory and its rollouts by the first models of the run.

    frames : which of the times (T,) are stored. fields : float64 (frames, P, F) by model.
    probes : (T,) by model. The simulation itself is `truth` and `true_probe`.
    """

    mesh: Triangulation
    time: np.ndarray
    frames: np.ndarray
    field_names: tuple[str, ...]
    trajectory: str
    probe_name: str
    truth: np.ndarray
    true_probe: np.ndarray
    fields: dict[str, np.ndarray]
    probes: dict[str, np.ndarray]
    attention: Attention | None

    def label(self, stored: int) -> str:
        """Step and time of a stored frame."""
        frame = int(self.frames[stored])
        return step_label(frame, self.time)


def step_label(frame: int, time: np.ndarray) -> str:
    """Number and time of a frame since the first."""
    return f"step {frame}, {time[frame] - time[0]:.2f} time units"


def read_pictures(path: Path, record: JsonObject) -> Pictures:
    """The arrays of pictures.npz with their names."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    attention = None
    if "attention" in arrays:
        attention = Attention(
            arrays["attention"].astype(np.float32),
            tuple(map(str, arrays["pairs"])),
            str(arrays["tokens"]) == "patches",
        )
    models = [name for name in record["config"]["models"] if f"fields | {name}" in arrays]
    x, y = arrays["coordinates"].T
    fields = {
        name: arrays[f"fields | {name}"].astype(np.float64) * arrays["scale"] + arrays["mean"]
        for name in ("truth", *models)
    }
    return Pictures(
        mesh=Triangulation(x, y, arrays["triangles"]),
        time=arrays["time"],
        frames=arrays["frames"],
        field_names=tuple(map(str, arrays["field_names"])),
        trajectory=str(arrays["trajectory"]),
        probe_name=str(arrays["probe_name"]),
        truth=fields.pop("truth"),
        true_probe=arrays["probe | truth"].astype(np.float64),
        fields=fields,
        probes={name: arrays[f"probe | {name}"].astype(np.float64) for name in models},
        attention=attention,
    )


def read_errors(path: Path, models: Sequence[str]) -> dict[str, np.ndarray]:
    """Squared relative L2 (N, S, F) of the interpolation part by model, from errors.npz."""
    with np.load(path, allow_pickle=False) as archive:
        labels = {model: f"{model} | {PARTS[0]}" for model in models}
        return {model: archive[label] for model, label in labels.items() if label in archive.files}


@dataclass(frozen=True)
class Style:
    """Colour, marker and dash of one model, the same in every figure of a run."""

    colour: str
    marker: str
    dash: str

    @property
    def line(self) -> dict[str, Option]:
        """As arguments of a plotted line."""
        return {"color": self.colour, "ls": self.dash}


# Models that committed runs compare look the same in every run: ours full, methods of others
# dashed (in Paul Tol's muted colours), what needs no training grey, and floors dotted.
KNOWN = {
    "patches, joint, wide": Style("#D55E00", "D", "-"),
    "patch SEA": Style("#0072B2", "o", "-"),
    "patches, no exchange, matched": Style("#009E73", "^", "-"),
    "patches, addition, matched": Style("#E69F00", "P", "-"),
    "patches, joint, matched": Style("#CC79A7", "X", "-"),
    "SEA": Style("#56B4E9", "s", "-"),
    "no exchange, matched": Style("#117733", "v", "-"),
    "as published": Style("#000000", "*", "-"),
    "FNO": Style("#332288", "h", "--"),
    "U-Net": Style("#882255", "p", "--"),
    "Transolver": Style("#44AA99", "8", "--"),
    "parameter interpolation": Style("#555555", "<", "--"),
    "POD + linear": Style("#888888", ">", "--"),
    "persistence": Style("#AAAAAA", "d", "--"),
    "autoencoder": Style("#999933", "v", ":"),
    "autoencoder, as published": Style("#000000", "^", ":"),
    "grid, there and back": Style("#8C6D31", "s", ":"),
}


def styles_of(record: JsonObject, table: pd.DataFrame) -> dict[str, Style]:
    """A style for each model with an error: first those that the run trains, then the others."""
    scored = table[table.metric == "relative_l2_squared"].model.unique()
    trained = [name for name in record["config"]["models"] if name in scored]
    others = [name for name in scored if name not in trained]
    styles = {}
    further = 0
    for name in [*trained, *others]:
        if name in KNOWN:
            styles[name] = KNOWN[name]
            continue
        colour = PALETTE[further % len(PALETTE)]
        dash = FURTHER_DASHES[further // len(PALETTE) % len(FURTHER_DASHES)]
        styles[name] = Style(colour, MARKERS[further % len(MARKERS)], dash)
        further += 1
    return styles


def parts_note(record: JsonObject) -> str:
    """What the names of the test parts mean for the data of this run."""
    spans = [
        f"{part} {min(values):.1f} to {max(values):.1f}"
        for part, values in record["notes"]["distances"].items()
        if part in PARTS
    ]
    listed = "; ".join(spans) or "the first parameter does not vary"
    return f"distance from the nearest trained parameter, in % of the trained range: {listed}"
