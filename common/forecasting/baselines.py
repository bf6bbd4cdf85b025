"""The forecasts that stand in every table of a backtest.

Shape letters: T times, N origins, C context, H horizon, S series, Q quantile levels, W residuals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from common.forecasting.backtest import Forecast, ModelKey
from common.forecasting.config import RISKMETRICS, ROLLING_HOURS
from common.forecasting.garch import Garch, fit_garch
from common.forecasting.metrics import LEVELS, at_once
from common.forecasting.quantile_regression import (
    QuantileRegression,
    SizeQuantiles,
    fit_quantile_regression,
)
from common.forecasting.ridge import RidgeWindow
from common.forecasting.volatility import LogHar, ScaledShape, ewma_means, fit_log_har
from common.forecasting.windows import Windows

BLOCK = 512  # origins whose residuals are sorted at a time
SEASON = 24  # steps: a day of hours

# ------------------------------------------------------------------------------------- points


def no_change(past: np.ndarray, horizon: int) -> np.ndarray:
    """The last price (N, H, S)."""
    return np.repeat(past[:, -1:], horizon, axis=1)


def drift(past: np.ndarray, horizon: int) -> np.ndarray:
    """The line through the first and the last price of the context (N, H, S)."""
    slope = (past[:, -1:] - past[:, :1]) / (past.shape[1] - 1)  # (N, 1, S)
    return past[:, -1:] + slope * np.arange(1, horizon + 1)[:, None]


def seasonal_naive(past: np.ndarray, horizon: int, season: int = SEASON) -> np.ndarray:
    """The price one season before (N, H, S); needs horizon <= season <= context."""
    return past[:, past.shape[1] - season :][:, :horizon]


# ------------------------------------------------------------------------------ distributions


def ewma_volatility(values: np.ndarray, decay: float, log: bool = True) -> np.ndarray:
    """Volatility (T, S) of prices (T, S) up to and including each row.

    The root of the exponentially weighted mean of squared one-step changes.
    """
    squares = np.diff(np.log(values) if log else values, axis=0) ** 2  # (T - 1, S)
    start = squares[:1]  # the first square stands for all before it
    return np.sqrt(np.concatenate([start, ewma_means(squares, decay, start)])) + 1e-12


def rolling_quantiles(
    values: np.ndarray,
    contiguous: np.ndarray,
    origins: np.ndarray,
    horizon: int,
    window: int = ROLLING_HOURS,
    decay: float | None = None,
    log: bool = True,
) -> np.ndarray:
    """Random walk with empirical residuals: quantiles (N, H, S, Q) of prices.

    The residuals are the h-step changes of the `window` steps before each origin. With `decay`
    they are first divided by the EWMA volatility at their own start and then multiplied by that at
    the origin. Changes over a gap are left out; a short history gives fewer residuals.
    """
    path = np.log(values) if log else values
    scale = np.ones_like(values) if decay is None else ewma_volatility(values, decay, log)
    gaps = np.concatenate([[0], np.cumsum(~contiguous)])  # (T,): gaps before each row
    series = values.shape[1]
    changes = np.empty((len(origins), horizon, series, len(LEVELS)), np.float32)
    for h in range(1, horizon + 1):
        moves = (path[h:] - path[:-h]) / scale[:-h]  # (T - h, S)
        moves[gaps[h:] != gaps[:-h]] = np.nan
        # rows are put in front, so that row i + window is the change that ends at i
        missing = np.full((window + h, series), np.nan)
        moves = np.concatenate([missing, moves]).astype(np.float32)  # (T + window, S)
        for s in range(series):
            residuals = np.lib.stride_tricks.sliding_window_view(moves[:, s], window)
            for start in range(0, len(origins), BLOCK):
                rows = origins[start : start + BLOCK]
                quantiles = quantiles_without_gaps(residuals[rows + 1])  # (N, Q)
                changes[start : start + BLOCK, h - 1, s] = quantiles * scale[rows, s, None]
    last = values[origins][:, None, :, None]
    return last * np.exp(changes) if log else last + changes


def quantiles_without_gaps(residuals: np.ndarray) -> np.ndarray:
    """Quantiles (N, Q) at LEVELS of residuals (N, W) that are not NaN, linear between them."""
    ordered = np.sort(residuals, axis=1)  # NaN come last
    if not np.isnan(ordered[:, -1]).any():
        position = LEVELS * (ordered.shape[1] - 1)  # (Q,): the same in every row
        low = position.astype(int)
        high = np.minimum(low + 1, ordered.shape[1] - 1)
        below = ordered[:, low]
        return below + (position - low) * (ordered[:, high] - below)
    count = (~np.isnan(ordered)).sum(1)
    newest = np.maximum(count, 1)[:, None] - 1  # (N, 1): the last that is no NaN
    position = LEVELS * newest  # (N, Q)
    low = position.astype(int)
    high = np.minimum(low + 1, newest)
    below = np.take_along_axis(ordered, low, 1)
    above = np.take_along_axis(ordered, high, 1)
    return below + (position - low) * (above - below)


# ---------------------------------------------------------------------------------------- all

ROLLING_WALK: ModelKey = ("random walk", "rolling residuals")  # crps_ratio is relative to it
EWMA_WALK: ModelKey = ("random walk", "EWMA-scaled residuals")
GARCH: ModelKey = ("GARCH-t", "filtered historical simulation")
LOG_HAR: ModelKey = ("log-HAR-t", "with the clock")
CANDLE_HAR: ModelKey = ("log-HAR-t", "with the clock and candles")
REGRESSION: ModelKey = ("quantile regression", "on the features of log-HAR-t")

Distributions: TypeAlias = Mapping[ModelKey, ScaledShape | SizeQuantiles]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The baselines that are fitted on a training part; None leaves one out."""

    ridge: RidgeWindow | None = None
    garch: Garch | None = None
    har: LogHar | None = None
    regression: QuantileRegression | None = None

    def distributions(self, windows: Windows, origins: np.ndarray) -> Distributions:
        """What the models of volatility forecast at the origins, all series together."""
        found: dict[ModelKey, ScaledShape | SizeQuantiles] = {}
        if self.garch is not None:
            found[GARCH] = self.garch.at(windows, origins)
        if self.regression is not None:
            found[REGRESSION] = self.regression.at(windows, origins)
        if self.har is not None:
            found[har_key(self.har)] = scaled_shape(self.har, windows, origins)
        return found


def har_key(har: LogHar) -> ModelKey:
    """Model and variant of the rows of a log-HAR-t, by what it reads."""
    return CANDLE_HAR if har.candles else LOG_HAR


def scaled_shape(har: LogHar, windows: Windows, origins: np.ndarray) -> ScaledShape:
    """What a log-HAR-t forecasts at the origins; it reads all series, some origins at a time."""
    together = at_once(windows.horizon, len(windows.prices.series))
    scales = [
        har.scale(*windows.inputs(origins[start : start + together]))
        for start in range(0, len(origins), together)
    ]
    return ScaledShape(np.concatenate(scales), har.shape)


def fit_baselines(windows: Windows, har: LogHar | None = None) -> Fitted:
    """NLinear, chosen on validation, GARCH-t, log-HAR-t and quantile regression on its features.

    All are fitted on the training part; `har` is its log-HAR-t where it has been fitted before.
    """
    train = windows.parts.train
    validation = windows.parts.validation
    ridge = RidgeWindow(windows.log).fit(
        windows.past(train),
        windows.future(train),
        windows.past(validation),
        windows.future(validation),
    )
    har = har or fit_log_har(windows)
    return Fitted(ridge, fit_garch(windows), har, fit_quantile_regression(windows, har))


def baselines(
    windows: Windows,
    origins: np.ndarray,
    ridge: RidgeWindow | None = None,
    distributions: Distributions = MappingProxyType({}),
) -> dict[ModelKey, Forecast]:
    """The forecasts that stand in every table; the point of a distribution is no change.

    `ridge` is NLinear, or None to leave it out, and `distributions` what the models of volatility
    forecast at the origins.
    """
    horizon = windows.horizon
    past = windows.past(origins)  # (N, C, S)
    last_price = no_change(past, horizon)
    forecasts = {
        ("no change", "last price"): Forecast(last_price),
        ("drift", "first to last of the context"): Forecast(drift(past, horizon)),
    }
    if windows.context >= SEASON >= horizon:
        seasonal = Forecast(seasonal_naive(past, horizon))
        forecasts["seasonal naive", f"{SEASON} steps before"] = seasonal
    if ridge is not None:
        forecasts["NLinear", "ridge"] = Forecast(ridge.predict(past))
    for key, decay in ((ROLLING_WALK, None), (EWMA_WALK, RISKMETRICS)):
        quantiles = random_walk(windows, origins, decay)
        forecasts[key] = Forecast(last_price, quantiles)
    for key, scaled in distributions.items():
        quantiles = scaled.quantiles(windows.prices.values[origins], windows.log)
        forecasts[key] = Forecast(last_price, quantiles)
    return forecasts


def random_walk(windows: Windows, origins: np.ndarray, decay: float | None) -> np.ndarray:
    """Quantiles (N, H, S, Q) of the random walk, scaled by EWMA volatility with `decay`."""
    return rolling_quantiles(
        windows.prices.values,
        windows.prices.contiguous(),
        origins,
        windows.horizon,
        windows.rolling,
        decay,
        windows.log,
    )
