"""Pretrained networks: their files, what a strategy leaves trainable, and the way back to weights.

Shape letters as in assignment3.model.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np

from assignment3.backend import keras
from assignment3.config import Normalisation
from assignment3.model import Forecaster, forecaster_files, load_model
from assignment4.lora import LoRA, lora_plus_rates
from assignment4.lora.adapter import Options
from assignment4.lora.adapter_file import weights_digest
from assignment4.lora.affine import affine_map, kernels
from assignment4.slots import predict_filled
from assignment4.strategies import Strategy, Variant
from common.cli import InputError
from common.files import JsonObject

PRETRAINED = Path(__file__).resolve().parents[1] / "assignment3" / "results"
COURSE_FILE = "model.assigned-minmax.keras"
SMALL_WEIGHTS = ("bias", "beta", "gamma")  # of affine maps and layer normalisations
VARIANTS: dict[Variant, Options] = {
    "LoRA": {},
    "rsLoRA": {"rank_stabilised": True},
    "DoRA": {"dora": True},
    "PiSSA": {"start": "pissa"},
    "LoRA+": {},  # another step of the optimiser, not another adapter
}


@dataclasses.dataclass(frozen=True)
class Base:
    """The pretrained networks of an assignment 3 run, one file per seed.

    `network` is the first of them; trained weights are put into it for a forecast, so that a
    hundred networks need one trace.
    """

    folder: Path
    files: list[Path]
    network: Forecaster

    @classmethod
    def open(cls, folder: Path, normalisation: Normalisation, series: int, seeds: int) -> Base:
        """Reads as many networks of a run folder as there are seeds, or all that there are.

        Raises InputError as `base_files` does.
        """
        files = base_files(folder, normalisation, series)[:seeds]
        return cls(folder, files, Forecaster(load_model(files[0])))

    def load(self, seed: int) -> keras.Model:
        """The pretrained network of a seed, anew."""
        return load_model(self.files[seed % len(self.files)])

    @functools.cached_property
    def digests(self) -> list[str]:
        """The digest of each network's weights, by seed."""
        return [base_digest(load_model(file)) for file in self.files]

    @property
    def slots(self) -> int:
        """How many series the networks forecast together."""
        return len(self.network.settings["series"])

    @property
    def widest(self) -> int:
        """The largest rank that an update of any layer can have."""
        return max(min(kernel.shape) for kernel in kernels(self.network.model).values())


def base_digest(model: keras.Model) -> str:
    """What names a pretrained network: the digest of its weights."""
    return weights_digest((weight.name, weight.numpy()) for weight in model.weights)


def base_files(folder: Path, normalisation: Normalisation, series: int) -> list[Path]:
    """The pretrained networks of an assignment 3 run, by seed.

    Raises InputError where there is none, or for more series than they have.
    """
    files = forecaster_files(folder, normalisation)
    for name in ("run.json", COURSE_FILE):
        if not (Path(folder) / name).is_file():
            raise InputError(
                f"{folder} holds no {name}; "
                "it is not a finished run of: python assignment3/train.py"
            )
    for file in files:
        model = load_model(file)
        is_forecaster = "quantiles" in [layer.name for layer in model.layers]
        slots = len(model.get_layer("quantiles").settings["series"]) if is_forecaster else 0
        if slots < series:
            raise InputError(
                f"{file} forecasts {slots} series, and there are {series} here; choose {slots} of "
                "them with --columns, or name another run of assignment3/train.py with --base"
            )
    return files


def adapt_by(
    model: keras.Model, strategy: Strategy, seed: int, alpha: float | None = None
) -> LoRA | None:
    """Leaves trainable of a pretrained network what the strategy trains.

    Returns the LoRA that holds its adapter, if it is one. A layer that is narrower than the rank
    gets an update of full rank. `alpha` None is the rank.
    """
    if strategy.kind in ("none", "head"):
        for layer in model.layers:
            layer.trainable = strategy.kind == "head" and layer.name == "head"
    if strategy.kind == "norms":
        for variable in model.trainable_variables:
            variable.trainable = variable.name in SMALL_WEIGHTS
    if strategy.kind != "lora":
        return None
    lora = LoRA(model)
    narrow = {}
    for path, layer in lora.targets().items():
        width = min(affine_map(path, layer).size)
        if width < strategy.rank:
            narrow[f"^{re.escape(path)}$"] = width
    options: Options = {"targets": strategy.targets, "seed": seed, "rank_pattern": narrow}
    lora.add("target", strategy.rank, alpha, **(options | VARIANTS[strategy.variant]))
    return lora


def rates_of(strategy: Strategy, lora: LoRA | None, ratio: float) -> list[float] | None:
    """Factors of the learning rate, one for each trained variable; LoRA+ alone has such."""
    if lora is None or strategy.variant != "LoRA+":
        return None
    return lora_plus_rates(lora, ratio)


def trained_weights(model: keras.Model) -> int:
    """How many weights are trained."""
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@dataclasses.dataclass(frozen=True)
class TunedBase(Base):
    """Networks that were adapted before, to be adapted again: `weights` by seed."""

    weights: list[list[np.ndarray]]

    def load(self, seed: int) -> keras.Model:
        """The adapted network of a seed, anew."""
        model = super().load(seed)
        model.set_weights(self.weights[seed])
        return model


@dataclasses.dataclass(frozen=True)
class Weights:
    """A trained forecaster as the plain weights of a shared network; `params` were trained."""

    shared: Forecaster
    arrays: list[np.ndarray]
    params: int

    @property
    def settings(self) -> JsonObject:
        return self.shared.settings

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Point (N, H, S) and quantiles (N, H, S, Q) in prices."""
        self.shared.model.set_weights(self.arrays)
        return predict_filled(self.shared, past, times)
