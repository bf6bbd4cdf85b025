"""Random walks, windows of them, the leak test and a second formula of the CRPS."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from common.forecasting.history import Prices
from common.forecasting.sessions import HOUR
from common.forecasting.windows import Windows, split

Forecast = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of values (T, S) and origins (N,)


def walk(steps: int, series: int = 2, seed: int = 0) -> np.ndarray:
    """Prices (T, S) around 100 with heavy-tailed returns."""
    returns = np.random.default_rng(seed).standard_t(5, (steps, series)) * 0.01
    return 100 * np.exp(np.cumsum(returns, 0))


def windows_of(
    values: np.ndarray, context: int = 30, horizon: int = 3, log: bool = True
) -> Windows:
    """Windows of hourly prices (T, S) without a gap and without parts."""
    hours = np.arange(len(values)) * np.timedelta64(1, "h")
    times = np.datetime64("2024-01-01T00", "ns") + hours
    series = tuple("ABCDEFG"[: values.shape[1]])
    return Windows(Prices(times, values, series, HOUR, "csv", {}), None, context, horizon, log)


def with_parts(windows: Windows) -> Windows:
    """The windows with a quarter for testing and one for validation."""
    rows = len(windows.prices.times)
    parts = split(
        windows.prices.contiguous(), windows.context, windows.horizon, rows // 4, rows // 4
    )
    return dataclasses.replace(windows, known=parts)


def leaks(forecast: Forecast, values: np.ndarray, origins: np.ndarray) -> bool:
    """Whether a forecast changes in any bit when what comes after its origin is spoilt.

    Everything after the origin is shuffled, then poisoned; each origin is forecast alone.
    """
    rng = np.random.default_rng(0)
    for origin in origins:
        alone = np.array([origin])
        clean = forecast(values, alone)
        tail = values[origin + 1 :]
        for spoilt_tail in (rng.permutation(tail, axis=0) * 3, np.full_like(tail, 1e9)):
            spoilt = np.concatenate([values[: origin + 1], spoilt_tail])
            if not np.array_equal(clean, forecast(spoilt, alone)):
                return True
    return False


def crps_samples(samples: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """CRPS (...) of samples (..., M): E|X - y| - E|X - X'| / 2 (Gneiting & Raftery 2007, eq. 21).

    The second mean is over all M^2 pairs.
    """
    count = samples.shape[-1]
    ordered = np.sort(samples, -1)
    weights = (2 * np.arange(1, count + 1) - count - 1) / count**2  # of |x_i - x_j| / (2 M^2)
    return np.abs(samples - actual[..., None]).mean(-1) - ordered @ weights
