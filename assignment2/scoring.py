"""What the record of assignment 2 holds beside its backtest: the course's figure, and where the decoder looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from assignment2.model import Forecaster
from common.forecast import Windows


def answers(assigned: dict[str, Any]) -> list[tuple[str, str, np.ndarray, int]]:
    """What `assigned_rows` scores: the course's figure, and the same weights without the truth, on both windows."""
    ways = (
        "teacher forced, trained window",
        "free-running, trained window",
        "free-running, next steps",
    )
    return [("Seq2Seq", way, assigned[way], assigned["params"]) for way in ways]


def looks(windows: Windows, model: Forecaster, origin: np.ndarray) -> dict[str, np.ndarray]:
    """Attention (H, C - 1) of a network: the mean over the test part, and at one origin (1,)."""
    some = windows.parts.test[:: max(len(windows.parts.test) // 200, 1)]
    with torch.no_grad():
        mean, one = (model(*windows.inputs(at))[2].cpu().numpy().mean(0) for at in (some, origin))
    return {"attention_mean": mean, "attention_one": one}
