"""Simulated prices: heavy tails, volatility in clusters and no predictable mean.

Shape letters: T times, S series, B burn-in.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from common.cli import InputError
from common.forecasting.history import Prices, checked_prices, digest_of
from common.forecasting.markets import Market

LEAST_STEPS = 10
DEGREES_OF_FREEDOM = 4  # of Student's t
MEMORY = 0.99  # of log volatility from step to step
BURN_IN = 1000  # steps of log volatility before the first price
SHARED_VOLATILITY = 0.5  # of all series
OWN_VOLATILITY = 0.1  # of each series
DAY_MEAN, DAY_WAVE, BUSIEST_HOUR = 1.05, 0.3, 15  # the cycle of the day in hourly prices, in UTC


def simulate(market: Market, steps: int = 20_000, seed: int = 0) -> Prices:
    """Prices with the market's deviations and correlations of log returns.

    Shocks are multivariate Student t; log volatility is a shared and an own AR(1) (stochastic
    volatility, Taylor 1986), times a cycle of the day when hourly. Raises InputError for fewer
    than 10 steps.
    """
    if steps < LEAST_STEPS:
        raise InputError(f"--steps {steps}; a simulation has at least {LEAST_STEPS}")
    end, frequency = ("2024-12-31 23:00", "h") if market.hourly else ("2024-12-31", "B")
    times = pd.date_range(end=end, periods=steps, freq=frequency, tz="UTC", unit="ns")
    rng = np.random.default_rng(seed)

    # Shocks, then volatility, in this order of draws:
    shocks = _shocks(market, steps - 1, rng)
    volatility = _volatility(len(market.series), steps - 1, rng)
    returns = shocks * volatility  # (T - 1, S)
    if market.hourly:
        hours = times.hour.to_numpy()[1:, None]
        returns *= DAY_MEAN + DAY_WAVE * np.cos(2 * np.pi * (hours - BUSIEST_HOUR) / 24)
    returns *= np.array(market.deviation) / returns.std(0)

    # Prices from the market's first ones:
    path = np.concatenate([np.zeros((1, returns.shape[1])), np.cumsum(returns, 0)])  # (T, S)
    values = np.array(market.first) * np.exp(path)
    frame = pd.DataFrame(values, times, list(market.series))
    facts = {
        "generator": "common/forecasting/simulate.py",
        "seed": seed,
        "steps": steps,
        "sha256": digest_of(frame),
        "notice": "simulated prices, not real data; get real ones with --source yahoo, "
        f"--data FILE, or {market.file} in the folder that ADL_DATA_DIR names (default data/)",
    }
    return checked_prices(frame, "simulated", "simulation", facts)


def _shocks(market: Market, count: int, rng: np.random.Generator) -> np.ndarray:
    """Correlated Student t shocks (T - 1, S), one divisor for all series: crashes come together."""
    normal = rng.standard_normal((count, len(market.series)))
    root = np.linalg.cholesky(market.correlation)
    # einsum rather than a BLAS product, whose last bits depend on the number of threads
    correlated = np.einsum("ts,us->tu", normal, root)
    return correlated * np.sqrt(2 / rng.chisquare(DEGREES_OF_FREEDOM, (count, 1)))


def _volatility(series: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Volatility (T - 1, S) of a shared and an own AR(1) with unit variance."""
    noise = rng.standard_normal((count + BURN_IN, 1 + series))
    waves = lfilter([np.sqrt(1 - MEMORY**2)], [1, -MEMORY], noise, axis=0)[BURN_IN:]
    return np.exp(SHARED_VOLATILITY * waves[:, :1] + OWN_VOLATILITY * waves[:, 1:])
