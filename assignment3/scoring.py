"""What the record of assignment 3 holds beside its backtest: the course's figures, and where the last block looks."""

from __future__ import annotations

from typing import Any

import numpy as np

from assignment3.backend import keras
from assignment3.model import Forecaster
from common.forecast import Windows


def answers(assigned: dict[str, Any]) -> list[tuple[str, str, np.ndarray, int]]:
    """What `assigned_rows` scores: both networks behind both normalisations, on the trained window and after it."""
    named = [
        (*name.partition(", ")[::2], forecast)
        for name, forecast in assigned.items()
        if ", " in name
    ]
    return [
        (model, variant, forecast, assigned[f"params | {model}"])
        for model, variant, forecast in named
    ]


def looks(windows: Windows, forecaster: Forecaster, origin: np.ndarray) -> dict[str, np.ndarray]:
    """Attention (A, H, C - 1) of the last block's heads: the mean over the test part, and at one origin (1,)."""
    layer = forecaster.model.get_layer(f"attention_{forecaster.settings['blocks']}")
    before = keras.Model(forecaster.model.input, layer.input)
    some = windows.parts.test[:: max(len(windows.parts.test) // 200, 1)]

    def weights(at: np.ndarray) -> np.ndarray:
        query, value = before(forecaster.inputs(*windows.inputs(at))[0])
        return np.asarray(layer(query, value, return_attention_scores=True)[1]).mean(0)

    return {"attention_mean": weights(some), "attention_one": weights(origin)}
