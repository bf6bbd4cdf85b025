"""The average of several forecasts, which is often better than each (Bates & Granger 1969).

Shape letters: N origins, C context, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from common.files import JsonObject
from common.forecasting.volatility import LogHar, ScaledShape
from common.forecasting.windows import Forecaster


@dataclasses.dataclass(frozen=True)
class HarForecaster:
    """A fitted log-HAR-t as a forecaster; its point is no change."""

    har: LogHar
    settings: JsonObject
    """the numbers of steps, context and horizon"""

    @property
    def params(self) -> int:
        """Weights and biases of all steps and series."""
        return self.har.weights.size + self.har.bias.size

    def predict(
        self, past: np.ndarray, times: np.ndarray, *candles: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Point (N, H, S) and quantiles (N, H, S, Q) in prices, of prices (N, C, S)."""
        scaled = ScaledShape(self.har.scale(past, times, *candles), self.har.shape)
        point = np.repeat(past[:, -1:], scaled.scale.shape[1], axis=1)
        return point, scaled.quantiles(past[:, -1], self.har.log)


@dataclasses.dataclass(frozen=True)
class Average:
    """The mean of several forecasters' points and quantiles (level by level)."""

    members: Sequence[Forecaster]

    @property
    def settings(self) -> JsonObject:
        """Those of the first member."""
        return self.members[0].settings

    @property
    def params(self) -> int:
        """Those of all members together."""
        return sum(member.params for member in self.members)

    def predict(
        self, past: np.ndarray, times: np.ndarray, *candles: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Point (N, H, S) and quantiles (N, H, S, Q) in prices, of prices (N, C, S)."""
        forecasts = [member.predict(past, times, *candles) for member in self.members]
        point = mean_of([point for point, _ in forecasts])
        return point, mean_of([quantiles for _, quantiles in forecasts])


def mean_of(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of arrays of one shape; where all agree it is what they say, to the last bit.

    No change, averaged with itself, is no change: a test would find the rounding significant.
    """
    first, *others = arrays
    mean = first.copy()
    for other in others:
        mean += (other - first) / len(arrays)
    return mean
