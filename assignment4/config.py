"""Every number that affects a result of assignment 4, with its default."""

from __future__ import annotations

import dataclasses
from typing import Any

from assignment3.model import Normalisation
from common.cli import PathOrNone
from common.forecast import ForecastConfig


@dataclasses.dataclass(frozen=True)
class Config(ForecastConfig):
    """Assignment 4: transfer of a forecaster to currencies and oil."""

    base: PathOrNone = None
    """run folder of assignment 3 that holds the pretrained networks (default: its newest finished run)"""
    normalisation: Normalisation = "minmax"
    """which of its networks; minmax takes oil's negative price of April 2020, log refuses it"""
    steps: int = 3000
    """days of the simulated sample"""

    assigned_epochs: int = 1000
    """passes over it from scratch"""
    assigned_ranks: tuple[int, ...] = (2, 8, 16)
    """the course's ranks; each strategy but scratch is tuned for one and for two passes"""
    assigned_lr: float = 1e-3
    """learning rate (Adam)"""

    test_steps: int = 1500
    """steps of the test part at the end of the history (at most a quarter of it)"""
    validation_steps: int = 750
    """steps of the validation part before it"""
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """of LoRA on every affine map"""
    rank: int = 8
    """of LoRA on attention alone, of rsLoRA, and of LoRA where data are few; its adapters are saved"""
    shares: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5)
    """of the training part, its last windows; the whole is always trained on"""
    lrs: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    """peak learning rates that each strategy may choose from on validation, with one seed"""
    lora_lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """the same for LoRA and for the head alone, which bear larger ones"""
    epochs: int = 5
    """passes over the whole training part at most; over a share of it more by one over the share's square root"""
    patience: int = 2
    """passes without a better validation CRPS before training stops, for a share likewise"""
    batch: int = 32
    """windows in a batch"""
    alpha: float = 16.0
    """of LoRA: its update is scaled by alpha over the rank"""
    weight_decay: float = 0.01
    """AdamW's weight decay"""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        small = {
            "steps": 700,
            "seeds": 1,
            "assigned_epochs": 20,
            "ranks": (2,),
            "rank": 2,
            "assigned_ranks": (2,),
            "shares": (0.1,),
            "epochs": 2,
            "lrs": (3e-4,),
            "lora_lrs": (1e-3,),
        }
        few = {
            "steps": 2000,
            "seeds": 2,
            "ranks": (2, 8),
            "shares": (0.05,),
            "lrs": (3e-4,),
            "lora_lrs": (1e-3,),
            "epochs": 3,
        }
        return {"smoke": small, "default": few, "full": {}}
