"""Every number that affects a result of the template, and the options of its scripts.

Nothing heavy is imported here, so that --help answers at once.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from common.cli import (
    BaseConfig,
    Fields,
    PathOrNone,
    SavedRunConfig,
    check_ranges,
)

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32),
    "seeds": (1, math.inf),
    "rows": (1, math.inf),
    "alpha": (0, math.inf),
    "epochs": (1, math.inf),
    "batch": (1, math.inf),
    "lr": (0, math.inf),
}


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    """Template: ridge regression on a table of numbers."""

    source: Literal["auto", "csv", "simulated"] = "auto"
    """where the table comes from; auto: --data, else the built-in simulated sample"""
    seed: int = 0
    """seed of the simulated sample and of the split; the models use 0 .. seeds-1"""
    seeds: int = 5
    """how many models are trained"""
    rows: int = 2000
    """rows of the simulated sample"""
    alpha: float = 1e-3
    """penalty on the squared weights"""
    epochs: int = 30
    """passes over the training part"""
    batch: int = 32
    """rows per gradient step"""
    lr: float = 0.05
    """learning rate of the first epoch; it falls linearly to zero"""

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)

    @classmethod
    def presets(cls) -> dict[str, Fields]:
        return {
            "smoke": {"rows": 400, "seeds": 2, "epochs": 25},
            "full": {"rows": 20_000, "epochs": 60},
        }


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(SavedRunConfig):
    """Scores a saved model and draws the figures of its run again."""

    data: PathOrNone = None
    """a csv of numbers with y and the run's features (default: the run's own test part)"""
    out: PathOrNone = None
    """json file (default: evaluation-<data>.json in the run folder)"""


@dataclasses.dataclass(frozen=True)
class PredictConfig(SavedRunConfig):
    """Predicts y for rows without it."""

    data: PathOrNone = None
    """a csv of numbers with the run's features"""
    out: PathOrNone = None
    """csv file (default: predictions.csv in the run folder)"""
