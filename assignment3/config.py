"""Every number that affects a result of assignment 3, with its default."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import assignment2.config
import common.forecasting.config
from assignment2.config import Course
from common.cli import BaseConfig, InputError, check_ranges
from common.forecasting.config import ForecastConfig, check_not_empty
from common.shard import Shard

Normalisation = Literal["log", "minmax"]
NORMALISATIONS: dict[Normalisation, str] = {"log": "log", "minmax": "MinMax"}  # as tables name them
Norm = Literal["post", "pre"]
AVERAGED = "Seq2Seq, Transformer (log) and log-HAR-t"


def ensemble_label(seeds: int, normalisation: Normalisation) -> str:
    """The variant under which the mean forecast of the Transformers is reported."""
    return f"{NORMALISATIONS[normalisation]}, {assignment2.config.ensemble_label(seeds)}"


def average_label(seeds: int) -> str:
    """The variant under which the mean over the seeds of their averages is reported."""
    return f"{AVERAGED}, {assignment2.config.ensemble_label(seeds)}"


RANGES = {
    "assigned_blocks": (1, math.inf),
    "assigned_units": (1, math.inf),
    "assigned_epochs": (1, math.inf),
    "assigned_lr": (0, math.inf),
    "context": (2, math.inf),
    "horizon": (1, math.inf),
    "horizons": (1, math.inf),
    "contexts": (2, math.inf),
    "patch": (1, math.inf),
    "width": (1, math.inf),
    "blocks": (1, math.inf),
    "heads": (1, math.inf),
    "key": (1, math.inf),
    "feed_forward": (0, math.inf),
    "decays": (0, 1),
    "dropout": (0, 1),
    "epochs": (1, math.inf),
    "patience": (1, math.inf),
    "batch": (1, math.inf),
    "lr": (0, math.inf),
    "weight_decay": (0, math.inf),
    "seeds": (1, math.inf),
}


# ----------------------------------------------------------------------------------- networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Size of a Transformer encoder.

    `feed_forward` 0 is the course's single ReLU layer of the width, otherwise it is the number of
    hidden units of the paper's two layers. `norm` is "post" (after each sum: the paper and the
    course) or "pre" (before each part).
    """

    width: int
    blocks: int
    heads: int
    key: int
    feed_forward: int
    norm: Norm
    dropout: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForecasterSettings(EncoderSettings):
    """All that a forecaster's network is rebuilt from; a saved .keras file holds these fields."""

    series: tuple[str, ...]
    context: int
    horizon: int
    normalisation: Normalisation
    decays: tuple[float, ...]


COURSE_ENCODER = EncoderSettings(
    width=64, blocks=4, heads=8, key=64, feed_forward=0, norm="post", dropout=0.0
)


@dataclasses.dataclass(frozen=True)
class FitRecipe:
    """Held-out training: AdamW, linear warm-up and cosine, stopped on validation."""

    seed: int
    epochs: int  # at most
    patience: int  # epochs without a better validation CRPS before training stops
    batch: int
    lr: float  # peak
    weight_decay: float
    warm_up: float = 0.15  # share of the steps before the peak
    clip_norm: float = 1.0  # of all gradients together
    least_epochs: int = 0  # after so many the network is another than the untrained one


# ------------------------------------------------------------------------------------ options


@dataclasses.dataclass(frozen=True)
class Config(ForecastConfig):
    """Assignment 3: a Transformer encoder on hourly prices."""

    assigned_blocks: int = 3
    """encoder blocks of the course's Transformer: three at least were asked for"""
    assigned_units: int = 64
    """LSTM units of the Seq2Seq trained like the course's Transformer"""
    assigned_epochs: int = 1000
    """epochs of training on the course's one window"""
    assigned_lr: float = 1e-3
    """Adam's learning rate on the course's one window"""

    context: int = 96
    """steps of history in each forecast's input"""
    horizon: int = 5
    """steps forecast ahead"""
    width: int = 64
    """width of the held-out Transformer's tokens"""
    blocks: int = 2
    """encoder blocks of the held-out Transformer"""
    heads: int = 8
    """attention heads per encoder block"""
    key: int = 16
    """width of each attention head"""
    feed_forward: int = 0
    """hidden units of each block's feed-forward part; 0: the course's single ReLU layer"""
    norm: Norm = "post"
    """post: layer normalisation after each sum (the paper, the course); pre: before each part"""
    decays: tuple[float, ...] = (0.5, 0.8, 0.9, 0.99, 0.97)
    """EWMA decays of the window's volatility features"""
    dropout: float = 0.2
    """share of the encoder's inputs dropped in training"""
    epochs: int = 3
    """most epochs of held-out training; the epoch with the best validation CRPS is used"""
    patience: int = 3
    """epochs without a better validation CRPS before held-out training stops"""
    batch: int = 128
    """windows per batch of held-out training"""
    lr: float = 3e-4
    """peak learning rate of held-out training (AdamW, warm-up and cosine)"""
    weight_decay: float = 0.05
    """AdamW's weight decay in held-out training"""

    shard: str = "0/1"
    """i/n: do only every n-th training, the i-th first, in a process of its own (others do the
    rest); the same command without --shard then takes over what all of them did"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, RANGES)
        check_not_empty(self, "decays")
        Shard.of(self.shard)

    @classmethod
    def presets(cls) -> dict[str, dict[str, object]]:
        smoke: dict[str, object] = {
            "steps": 1500,
            "seeds": 1,
            "assigned_epochs": 20,
            "assigned_blocks": 1,
            "width": 16,
            "blocks": 1,
            "heads": 2,
            "key": 8,
            "epochs": 2,
        }
        default: dict[str, object] = {"seeds": 1, "epochs": 1, "assigned_epochs": 300}
        return {"smoke": smoke, "default": default, "full": {}}

    @property
    def seq2seq(self) -> assignment2.config.Config:
        """Assignment 2's held-out networks on the same windows, with as many epochs at most."""
        return assignment2.config.Config(
            context=self.context, horizon=self.horizon, epochs=self.epochs, seeds=self.seeds
        )

    @property
    def course_seq2seq(self) -> Course:
        """The course's training of the Seq2Seq, as long as that of the Transformer."""
        return Course(self.assigned_units, self.assigned_epochs, self.assigned_lr, self.seed)

    def forecaster(
        self, series: tuple[str, ...], normalisation: Normalisation
    ) -> ForecasterSettings:
        """The held-out network for the named series."""
        return ForecasterSettings(
            series=series,
            context=self.context,
            horizon=self.horizon,
            normalisation=normalisation,
            decays=self.decays,
            width=self.width,
            blocks=self.blocks,
            heads=self.heads,
            key=self.key,
            feed_forward=self.feed_forward,
            norm=self.norm,
            dropout=self.dropout,
        )

    def recipe(self, seed: int) -> FitRecipe:
        """The held-out training of one seed."""
        return FitRecipe(seed, self.epochs, self.patience, self.batch, self.lr, self.weight_decay)


@dataclasses.dataclass(frozen=True)
class PredictConfig(common.forecasting.config.PredictConfig):
    """Forecast of the next hours."""

    model: Literal["log", "minmax", "seq2seq"] = "log"
    """the Transformers of one normalisation (log, minmax), or the Seq2Seq"""


@dataclasses.dataclass(frozen=True)
class ExchangeConfig(BaseConfig):
    """Assignment 3 on the exchange-rate benchmark."""

    script: ClassVar[str] = "exchange.py"

    horizons: tuple[int, ...] = (96, 192, 336, 720)
    """days forecast ahead, one benchmark each"""
    context: int = 96
    """days of history in each forecast's input"""
    patch: int = 8
    """days per token; must divide --context"""
    width: int = 64
    """width of the Transformer's tokens"""
    blocks: int = 3
    """encoder blocks of the Transformer"""
    heads: int = 8
    """attention heads per encoder block"""
    key: int = 64
    """width of each attention head"""
    dropout: float = 0.2
    """share of the encoder's inputs dropped in training"""
    epochs: int = 3
    """epochs of training; the epoch with the best validation error is used"""
    batch: int = 256
    """windows of one series per batch"""
    lr: float = 3e-4
    """AdamW's learning rate"""
    weight_decay: float = 0.05
    """AdamW's weight decay"""
    seeds: int = 5
    """networks trained per horizon"""

    clip_norm: ClassVar[float] = 1.0  # of all gradients together
    significance: ClassVar[float] = 0.05  # of the test by which validation prefers the network

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)
        check_not_empty(self, "horizons")
        if self.context % self.patch:
            raise InputError(f"--patch {self.patch} does not divide --context {self.context}")

    @classmethod
    def presets(cls) -> dict[str, dict[str, object]]:
        smoke: dict[str, object] = {
            "horizons": (12,),
            "epochs": 1,
            "seeds": 1,
            "blocks": 1,
            "batch": 1024,
        }
        return {"smoke": smoke, "default": {"horizons": (96,), "seeds": 2}, "full": {}}

    @property
    def encoder(self) -> EncoderSettings:
        """The encoder of one series' patches."""
        return EncoderSettings(
            width=self.width,
            blocks=self.blocks,
            heads=self.heads,
            key=self.key,
            feed_forward=0,
            norm="pre",
            dropout=self.dropout,
        )


@dataclasses.dataclass(frozen=True)
class LookbackConfig(BaseConfig):
    """Linear models at several look-backs on the exchange-rate benchmark."""

    script: ClassVar[str] = "lookback.py"

    horizons: tuple[int, ...] = (96, 192, 336, 720)
    """days forecast ahead, one benchmark each"""
    contexts: tuple[int, ...] = (96, 336, 512)
    """look-backs in days, one of which is chosen"""
    epochs: int = 10
    """most epochs of training; the epoch with the best validation error is used"""
    patience: int = 3
    """epochs without a better validation error before training stops"""
    batch: int = 32
    """windows of all series per batch"""
    lr: float = 5e-4
    """Adam's learning rate, halved after every epoch"""
    seeds: int = 5
    """networks trained per model, look-back and horizon"""

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)
        check_not_empty(self, "horizons", "contexts")

    @classmethod
    def presets(cls) -> dict[str, dict[str, object]]:
        smoke: dict[str, object] = {
            "horizons": (12,),
            "contexts": (32, 64),
            "epochs": 1,
            "seeds": 1,
        }
        return {"smoke": smoke, "default": {"horizons": (96,), "seeds": 2}, "full": {}}
