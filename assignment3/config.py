"""Every number that affects a result of assignment 3, with its default."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from common.forecast import ForecastConfig


@dataclasses.dataclass(frozen=True)
class Config(ForecastConfig):
    """Assignment 3: a Transformer encoder on hourly prices."""

    assigned_blocks: int = 4
    """encoder blocks of the course's network"""
    assigned_units: int = 64
    """units of the Seq2Seq beside it"""
    assigned_epochs: int = 1000
    """passes over the one window"""
    assigned_lr: float = 1e-3
    """learning rate (Adam)"""

    context: int = 96
    """steps that a forecast sees"""
    horizon: int = 5
    """steps that it tells"""
    width: int = 64
    """of the tokens"""
    blocks: int = 3
    """encoder blocks"""
    heads: int = 8
    """heads of their attention"""
    key: int = 64
    """width of each head"""
    feed_forward: int = 0
    """hidden units of the feed-forward part; 0: the course's single ReLU layer of the width"""
    norm: Literal["post", "pre"] = "post"
    """where layer normalisation stands: after each sum (the paper and the course) or before each part"""
    decays: tuple[float, ...] = (0.5, 0.8, 0.9, 0.99, 0.97)
    """speeds at which the window's volatility is told; the last one's is the scale of the forecast"""
    dropout: float = 0.2
    """share of the inputs left out in training"""
    epochs: int = 3
    """passes over the training part at most; the one with the best validation CRPS is kept"""
    patience: int = 3
    """passes without a better validation CRPS before training stops"""
    batch: int = 128
    """windows in a batch"""
    lr: float = 3e-4
    """peak learning rate (AdamW, warm-up and cosine)"""
    weight_decay: float = 0.05
    """AdamW's weight decay"""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        small = {
            "steps": 1500,
            "seeds": 2,
            "assigned_epochs": 20,
            "assigned_blocks": 1,
            "width": 16,
            "blocks": 2,
            "heads": 2,
            "key": 8,
            "epochs": 2,
        }
        return {"smoke": small, "default": {"seeds": 2, "epochs": 2}, "full": {}}

    def network(self) -> dict[str, Any]:
        """What `encoder` is told."""
        return {
            name: getattr(self, name)
            for name in ("width", "blocks", "heads", "key", "feed_forward", "norm", "dropout")
        }
