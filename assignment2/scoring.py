"""What the record of assignment 2 holds beside its backtest: the course's figure, and where the decoder looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from assignment2.model import Forecaster
from common.forecast import Windows


def cases(assigned: dict[str, Any]) -> list[tuple[str, str, str, np.ndarray, np.ndarray, int]]:
    """What `assigned_rows` scores: the course's figure, the same weights without the truth, and no change, on both windows."""
    seen, coming, horizon = assigned["seen"], assigned["coming"], len(assigned["coming"])
    target, params = seen[-horizon:], assigned["params"]
    return [
        *(
            ("train", "Seq2Seq", way, assigned[way], target, params)
            for way in ("teacher forced, trained window", "free-running, trained window")
        ),
        ("test", "Seq2Seq", "free-running, next steps", assigned["free-running, next steps"], coming, params),
        ("train", "no change", "trained window", np.repeat(seen[-horizon - 1 : -horizon], horizon, 0), target, 0),
        ("test", "no change", "next steps", np.repeat(seen[-1:], horizon, 0), coming, 0),
    ]


def looks(windows: Windows, model: Forecaster, origin: np.ndarray) -> dict[str, np.ndarray]:
    """Attention (H, C - 1) of a network: the mean over the test part, and at one origin (1,)."""
    some = windows.parts.test[:: max(len(windows.parts.test) // 200, 1)]
    with torch.no_grad():
        mean, one = (model(*windows.inputs(at))[2].cpu().numpy().mean(0) for at in (some, origin))
    return {"attention_mean": mean, "attention_one": one}
