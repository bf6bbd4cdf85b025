"""Every number that affects a result of assignment 2, with its default."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from common.cli import check_ranges
from common.forecasting.config import ForecastConfig, check_not_empty
from common.shard import Shard

Start = Literal["har", "ewma"]

WARM_UP = 0.15  # share of the one-cycle schedule before its peak
CLIP_NORM = 1.0  # of all gradients together

RANGES = {
    "assigned_units": (1, math.inf),
    "assigned_epochs": (1, math.inf),
    "assigned_lr": (0, math.inf),
    "context": (2, math.inf),
    "horizon": (1, math.inf),
    "units": (1, math.inf),
    "decays": (0, 1),
    "dropout": (0, 1),
    "epochs": (1, math.inf),
    "patience": (1, math.inf),
    "batch": (1, math.inf),
    "lr": (0, math.inf),
    "weight_decay": (0, math.inf),
    "teacher_forcing": (0, 1),
    "teacher_until": (0, 1),
    "range_weight": (0, math.inf),
}


@dataclasses.dataclass(frozen=True)
class Course:
    """The course's training of its Seq2Seq: Adam on the squared error of one window."""

    units: int
    epochs: int
    lr: float
    seed: int
    epsilon: float = 1e-7  # Keras' default; torch's is 1e-8


@dataclasses.dataclass(frozen=True)
class Config(ForecastConfig):
    """Assignment 2: Seq2Seq with attention on hourly prices."""

    assigned_units: int = 1000
    """LSTM units of the course's Seq2Seq"""
    assigned_epochs: int = 300
    """epochs of training on the course's one window"""
    assigned_lr: float = 1e-3
    """Adam's learning rate on the course's one window"""

    candles: bool = False
    """also read high, low and volume of every step, which --data must have beside the close"""
    range_weight: float = 0.2
    """weight of the ranges of the steps ahead in the objective with --candles, beside the CRPS"""
    context: int = 96
    """steps of history in each forecast's input"""
    horizon: int = 5
    """steps forecast ahead"""
    units: int = 48
    """LSTM units of the held-out networks"""
    decays: tuple[float, ...] = (0.5, 0.8, 0.9, 0.99, 0.97)
    """EWMA decays of the window's volatility features; the last one is that of --start ewma"""
    start: Start = "har"
    """what an untrained network forecasts: the log-HAR-t, or an EWMA-scaled random walk"""
    dropout: float = 0.3
    """share of the encoder's inputs dropped in training"""
    epochs: int = 3
    """most epochs of held-out training; the epoch with the best validation CRPS is used"""
    patience: int = 3
    """epochs without a better validation CRPS before held-out training stops"""
    batch: int = 256
    """windows per batch of held-out training"""
    lr: float = 5e-4
    """peak learning rate of held-out training (AdamW, one cycle)"""
    weight_decay: float = 0.05
    """AdamW's weight decay in held-out training"""
    teacher_forcing: float = 0.25
    """share of the decoder's inputs that are the truth when held-out training starts"""
    teacher_until: float = 0.1
    """share of held-out training after which no decoder input is the truth (linear in between)"""

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
            "seeds": 2,
            "assigned_units": 24,
            "assigned_epochs": 30,
            "units": 8,
            "epochs": 2,
            "batch": 64,
        }
        default: dict[str, object] = {"seeds": 2, "assigned_epochs": 150, "epochs": 2}
        return {"smoke": smoke, "default": default, "full": {}}

    @property
    def course(self) -> Course:
        """The course's training of its Seq2Seq."""
        return Course(self.assigned_units, self.assigned_epochs, self.assigned_lr, self.seed)


def ensemble_label(seeds: int) -> str:
    """The variant under which the mean forecast of the held-out networks is reported."""
    return f"mean of {seeds} seeds"
