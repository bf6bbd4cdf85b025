"""What the record of assignment 3 holds beside its backtest: the course's figures, and where the last block looks."""

from __future__ import annotations

from typing import Any

import numpy as np

from assignment3.backend import keras
from assignment3.model import Forecaster
from common.forecast import Windows


def cases(assigned: dict[str, Any]) -> list[tuple[str, str, str, np.ndarray, np.ndarray, int]]:
    """What `assigned_rows` scores: both networks behind both normalisations, and no change, on the trained window and after it."""
    seen, coming, horizon = assigned["seen"], assigned["coming"], len(assigned["coming"])
    target, found = seen[-horizon:], []
    for name, forecast in assigned.items():
        model, _, variant = name.partition(", ")
        if variant:
            after = variant.endswith("next steps")
            found.append(
                ("test" if after else "train", model, variant, forecast, coming if after else target, assigned[f"params | {model}"])
            )
    still = (("train", "trained window", seen[-horizon - 1], target), ("test", "next steps", seen[-1], coming))
    return found + [(split, "no change", where, np.tile(last, (horizon, 1)), truth, 0) for split, where, last, truth in still]


def looks(windows: Windows, forecaster: Forecaster, origin: np.ndarray) -> dict[str, np.ndarray]:
    """Attention (A, H, C - 1) of the last block's heads: the mean over the test part, and at one origin (1,)."""
    layer = forecaster.model.get_layer(f"attention_{forecaster.settings['blocks']}")
    before = keras.Model(forecaster.model.input, layer.input)
    some = windows.parts.test[:: max(len(windows.parts.test) // 200, 1)]

    def weights(at: np.ndarray) -> np.ndarray:
        query, value = before(forecaster.inputs(*windows.inputs(at))[0])
        return np.asarray(layer(query, value, return_attention_scores=True)[1]).mean(0)

    return {"attention_mean": weights(some), "attention_one": weights(origin)}
