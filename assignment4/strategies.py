"""What may be trained of a pretrained forecaster, and the way back to a plain one.

Shape letters as in assignment3.model.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from assignment3.backend import keras
from assignment3.model import Forecaster, forecaster_files, load_model
from assignment4.lora import LoRA, affine_layers, split
from common.cli import InputError

PRETRAINED = Path(__file__).resolve().parents[1] / "assignment3" / "results"
ATTENTION = (r"attention_\d+/",)  # q, k, v and output projection of every block


@dataclasses.dataclass(frozen=True)
class Strategy:
    """One way to adapt: kind "none" | "head" | "scratch" | "full" | "lora"; the rest is LoRA's."""

    name: str
    kind: str
    rank: int = 0
    targets: tuple[str, ...] | None = None
    rank_stabilised: bool = False


def strategies(ranks: tuple[int, ...], rank: int) -> list[Strategy]:
    """Every strategy of the comparison; attention alone at `rank`, rsLoRA at `rank` and at the highest of `ranks`."""
    return [
        Strategy("no adaptation", "none"),
        Strategy("head only", "head"),
        Strategy("from scratch", "scratch"),
        Strategy("full fine-tuning", "full"),
        *(Strategy(f"LoRA, rank {r}", "lora", r) for r in ranks),
        Strategy(f"LoRA, rank {rank}, attention only", "lora", rank, ATTENTION),
        *(
            Strategy(f"rsLoRA, rank {r}", "lora", r, None, True)
            for r in dict.fromkeys((rank, max(ranks)))
        ),
    ]


def course_strategies(ranks: tuple[int, ...]) -> list[Strategy]:
    """Those of the course."""
    return [
        Strategy("from scratch", "scratch"),
        Strategy("full fine-tuning", "full"),
        *(Strategy(f"LoRA, rank {r}", "lora", r) for r in ranks),
    ]


def part_name(strategy: Strategy, seed: int, lr: float, less: dict[str, Any]) -> str:
    """The name of one training, in metrics.csv and of its checkpoints."""
    named = (f"{key}_{value:g}" for key, value in less.items())
    return "-".join(
        [strategy.name.replace(", ", "-").replace(" ", "_"), f"{lr:g}", *named, str(seed)]
    )


def prepare(
    model: keras.Model, strategy: Strategy, seed: int, alpha: float | None = None
) -> LoRA | None:
    """Leaves trainable of a pretrained network what the strategy trains; returns the LoRA that holds its adapter, if it is one."""
    if strategy.kind in ("none", "head"):
        for layer in model.layers:
            layer.trainable = strategy.kind == "head" and layer.name == "head"
    if strategy.kind != "lora":
        return None
    lora = LoRA(model)
    widths = {path: min(split(path, layer).size) for path, layer in lora.targets().items()}
    narrow = {
        f"^{re.escape(path)}$": width for path, width in widths.items() if width < strategy.rank
    }  # their update is of full rank
    lora.add(
        "target", strategy.rank, alpha, strategy.targets, strategy.rank_stabilised, seed, narrow
    )
    return lora


def trained_weights(model: keras.Model) -> int:
    """How many weights are trained."""
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    """The matrix (in, out) of every affine map, by path."""
    return {
        path: layer.kernel.numpy().reshape(split(path, layer).size)
        for path, layer in affine_layers(model).items()
    }


@dataclasses.dataclass
class Weights:
    """A trained forecaster as the plain weights of one shared network, so that a hundred of them need one trace."""

    shared: Forecaster
    arrays: list[np.ndarray]
    params: int

    @property
    def settings(self) -> dict[str, Any]:
        return self.shared.settings

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Point (N, H, S) and quantiles (N, H, S, Q) in prices."""
        self.shared.model.set_weights(self.arrays)
        return self.shared.predict(past, times)


def base_files(folder: Path, normalisation: str, series: int) -> list[Path]:
    """The pretrained networks of an assignment 3 run, by seed. Raises InputError where there is none, or for another number of series."""
    files = forecaster_files(folder, normalisation)
    for name in ("run.json", "model.assigned-minmax.keras"):
        if not (Path(folder) / name).is_file():
            raise InputError(
                f"{folder} holds no {name}; it is not a finished run of: python assignment3/train.py"
            )
    for file in files:
        model = load_model(file)
        if (
            "quantiles" not in [layer.name for layer in model.layers]
            or len(model.get_layer("quantiles").settings["series"]) != series
        ):
            raise InputError(
                f"{file} is not a forecaster of {series} series, as many as there are here; name another run with --base"
            )
    return files
