"""Targets of fewer series than a network has: the series are repeated until every slot is filled.

Shape letters: N windows, C context, H horizon, S series of the target, P slots of the network,
Q quantile levels.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from assignment3.model import Forecaster
from common.forecasting.history import Prices


def slot_series(series: int, slots: int) -> np.ndarray:
    """Which of the series each slot reads: int (P,), from the first again after the last."""
    return np.arange(slots) % series


def filled(prices: Prices, slots: int) -> Prices:
    """The prices with a column (and a name of its own) for each slot."""
    column_of = slot_series(len(prices.series), slots)
    names = [
        prices.series[column] if slot < len(prices.series) else f"{prices.series[column]} in {slot}"
        for slot, column in enumerate(column_of)
    ]
    return dataclasses.replace(prices, values=prices.values[:, column_of], series=tuple(names))


def predict_filled(
    network: Forecaster, past: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A network's forecast of fewer series: of prices (N, C, S) at times datetime64 (N, C).

    Point forecast (N, H, S) and quantiles (N, H, S, Q); a series in several slots has their mean.
    """
    series = past.shape[2]
    column_of = slot_series(series, len(network.settings["series"]))
    point, quantiles = network.predict(past[..., column_of], times)
    if series == len(column_of):
        return point, quantiles
    groups = [column_of == number for number in range(series)]
    points = [point[:, :, slots].mean(2) for slots in groups]
    means = [quantiles[:, :, slots].mean(2) for slots in groups]
    return np.stack(points, 2), np.stack(means, 2)


@dataclasses.dataclass(frozen=True)
class FilledForecaster:
    """An adapted network as a forecaster of the target's own series."""

    network: Forecaster

    @property
    def settings(self) -> dict[str, object]:
        """The network's settings."""
        return self.network.settings

    @property
    def params(self) -> int:
        """How many weights the network has."""
        return self.network.params

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Point (N, H, S) and quantiles (N, H, S, Q) in prices, of prices (N, C, S)."""
        return predict_filled(self.network, past, times)
