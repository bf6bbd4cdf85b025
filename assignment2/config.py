"""Every number that affects a result of assignment 2, with its default."""

from __future__ import annotations

import dataclasses
from typing import Any

from common.forecast import ForecastConfig


@dataclasses.dataclass(frozen=True)
class Config(ForecastConfig):
    """Assignment 2: Seq2Seq with attention on hourly prices."""

    assigned_units: int = 1000
    """units of the course's LSTMs"""
    assigned_epochs: int = 300
    """its passes over the one window"""
    assigned_lr: float = 1e-3
    """its learning rate (Adam)"""

    context: int = 96
    """steps that a forecast sees"""
    horizon: int = 5
    """steps that it tells"""
    units: int = 32
    """units of the held-out LSTMs"""
    decays: tuple[float, ...] = (0.5, 0.8, 0.9, 0.99, 0.97)
    """speeds at which the window's volatility is told; the last one's is the scale of the forecast"""
    dropout: float = 0.2
    """share of the encoder's inputs left out in training"""
    epochs: int = 5
    """passes over the training part at most"""
    patience: int = 3
    """passes without a better validation CRPS before training stops"""
    batch: int = 256
    """windows in a batch"""
    lr: float = 1e-3
    """peak learning rate (AdamW, one cycle)"""
    weight_decay: float = 0.05
    """AdamW's weight decay"""
    teacher_forcing: float = 0.25
    """share of decoder inputs that are the truth when training starts"""
    teacher_until: float = 0.1
    """share of the training after which none are (scheduled sampling, linear between)"""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        return {
            "smoke": {
                "steps": 1500,
                "seeds": 2,
                "assigned_units": 24,
                "assigned_epochs": 30,
                "units": 8,
                "epochs": 2,
                "batch": 128,
            },
            "full": {},
        }
