"""Quantile regression of absolute changes on the features of log-HAR-t: every level by itself.

Koenker & Bassett 1978, with a smoothed check loss (Fernandes, Guerre & Horta 2021). A quantile
of the logarithm of a change's size is linear in log-HAR-t's features, beside the clock:

    log quantile = bias + weights . features + log sqrt(mean of profile^2 over the h steps)

log-HAR-t is the same with equal weights at all levels; here large changes may hang on other speeds
than usual ones. A forecast is made symmetric by reading the sizes on both sides.

Shape letters: N windows, H horizon, S series, F features, K knots, Q quantile levels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import special

from common.forecasting.metrics import LEVELS
from common.forecasting.volatility import LogHar, read_features
from common.forecasting.windows import Windows

KNOTS = np.array([0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98])
SMOOTHING = 0.05  # width of the smoothed corner of the check loss, in units of log size
PENALTY = 10.0  # of the squared distance of weights from log-HAR-t's, in windows
SMALLEST = 1e-3  # of the usual change: the logarithm of a step that rests
NEWTON_STEPS = 30
CLOSE = 1e-6  # a Newton step that moves no weight further ends the fit
LARGEST_STEP = 1.0  # of a weight at once
LARGEST_SIZE = 100.0  # usual changes: a quantile beyond windows like those that were fitted


@dataclasses.dataclass(frozen=True)
class SizeQuantiles:
    """Quantiles of changes at N origins, computed where they are asked for.

    `features` (N, S, F), `offset` (N, H, S) of the clock, of each knot `weights` (K, H, S, F) and
    `bias` (K, H, S), and `largest` (S,), the size that no quantile exceeds.
    """

    features: np.ndarray
    offset: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    largest: np.ndarray

    def of_series(self, part: slice) -> SizeQuantiles:
        """The same for some of the series."""
        return SizeQuantiles(
            self.features[:, part],
            self.offset[..., part],
            self.weights[:, :, part],
            self.bias[..., part],
            self.largest[part],
        )

    def changes(self) -> np.ndarray:
        """Quantiles float32 (N, H, S, Q) of the changes."""
        inner = np.einsum("nsf,khsf->nhsk", self.features, self.weights, optimize=True)
        logs = np.moveaxis(self.bias, 0, -1) + inner + self.offset[..., None]  # (N, H, S, K)
        logs.sort(-1)  # levels that cross change places (Chernozhukov et al. 2010)
        logs = np.minimum(logs @ between_knots(), np.log(self.largest)[:, None])
        sizes = np.exp(logs.astype(np.float32))  # (N, H, S, Q // 2)
        middle = np.zeros_like(sizes[..., :1])
        return np.concatenate([-sizes[..., ::-1], middle, sizes], -1)

    def quantiles(self, last: np.ndarray, log: bool) -> np.ndarray:
        """Quantiles float32 (N, H, S, Q) of prices after the last ones (N, S)."""
        base = last.astype(np.float32)[:, None, :, None]
        changes = self.changes()
        return base * np.exp(changes) if log else base + changes


@dataclasses.dataclass(frozen=True)
class QuantileRegression:
    """A fitted quantile regression beside the log-HAR-t whose features it reads.

    `weights` (K, H, S, F) and `bias` (K, H, S) of each knot.
    """

    har: LogHar
    weights: np.ndarray
    bias: np.ndarray

    def at(self, windows: Windows, origins: np.ndarray) -> SizeQuantiles:
        """What it forecasts at the origins (N,)."""
        features, offset = standardised_features(self.har, windows, origins)
        largest = LARGEST_SIZE * self.har.usual
        return SizeQuantiles(features, offset, self.weights, self.bias, largest)


def fit_quantile_regression(windows: Windows, har: LogHar) -> QuantileRegression:
    """The quantile regression of the training part that `har` was fitted on."""
    train = windows.parts.train
    features, offset = standardised_features(har, windows, train)
    changes = np.abs(windows.changes(train))  # (N, H, S)
    horizon, series = changes.shape[1:]
    weights = np.empty((len(KNOTS), horizon, series, features.shape[2]))
    bias = np.empty((len(KNOTS), horizon, series))
    for h in range(horizon):
        for s in range(series):
            smallest = SMALLEST * max(changes[:, h, s].mean(), np.finfo(float).tiny)
            target = np.log(np.maximum(changes[:, h, s], smallest)) - offset[:, h, s]
            expected = har.weights[h, s]
            for number, level in enumerate(KNOTS):
                found = smoothed_quantile(features[:, s], target, level, expected)
                weights[number, h, s], bias[number, h, s] = found
    return QuantileRegression(har, weights, bias)


def standardised_features(
    har: LogHar, windows: Windows, origins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, S, F) as log-HAR-t weighs them, and the clock ahead (N, H, S)."""
    features, offset = read_features(har, windows, origins)
    return (features - har.mean) / har.deviation, offset


def smoothed_quantile(
    features: np.ndarray, target: np.ndarray, level: float, expected: np.ndarray
) -> tuple[np.ndarray, float]:
    """Weights (F,) and bias of the `level` quantile of targets (N,), linear in features (N, F).

    Newton's method on the check loss smoothed by a logistic kernel. A few windows leave the
    weights near those that are `expected` (F,).
    """
    count, number = features.shape
    inputs = np.concatenate([features, np.ones((count, 1))], 1)  # (N, F + 1)
    penalty = np.append(np.full(number, 2 * PENALTY / count), 1e-9)
    start = np.append(expected, np.quantile(target - features @ expected, level))
    found = start.copy()
    for _ in range(NEWTON_STEPS):
        below = special.expit((inputs @ found - target) / SMOOTHING)  # (N,): 1 where target is less
        gradient = inputs.T @ (below - level) / count + penalty * (found - start)
        density = below * (1 - below) / SMOOTHING
        curvature = (inputs.T * density) @ inputs / count + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        step *= min(1.0, LARGEST_STEP / max(np.abs(step).max(), CLOSE))
        found -= step
        if np.abs(step).max() < CLOSE:
            break
    return found[:number], float(found[number])


def between_knots() -> np.ndarray:
    """Weights (K, Q // 2) that interpolate log sizes at KNOTS to the levels above the median.

    Linear in the logarithm of a normal size's quantile: exact for log sizes of a normal.
    """
    levels = 2 * LEVELS[len(LEVELS) // 2 + 1 :] - 1  # (Q // 2,): of the size
    knots = normal_size(KNOTS)
    at = normal_size(levels)
    right = np.clip(np.searchsorted(knots, at), 1, len(knots) - 1)
    share = (at - knots[right - 1]) / (knots[right] - knots[right - 1])
    weights = np.zeros((len(knots), len(levels)))
    columns = np.arange(len(levels))
    weights[right - 1, columns] = 1 - share
    weights[right, columns] += share
    return weights


def normal_size(levels: np.ndarray) -> np.ndarray:
    """Logarithm of the quantiles at `levels` of a standard normal's absolute value."""
    return np.log(special.ndtri((1 + levels) / 2))
