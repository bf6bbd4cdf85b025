"""Simulated prices: heavy tails, volatility in clusters and no predictable mean.

Shape letters: T times, S series, B burn-in.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from common.cli import InputError
from common.files import JsonObject
from common.forecasting.candles import CANDLE_FIELDS
from common.forecasting.history import Prices, checked_prices, digest_of
from common.forecasting.markets import Market

LEAST_STEPS = 10
DEGREES_OF_FREEDOM = 4  # of Student's t
MEMORY = 0.99  # of log volatility from step to step
BURN_IN = 1000  # steps of log volatility before the first price
SHARED_VOLATILITY = 0.5  # of all series
OWN_VOLATILITY = 0.1  # of each series
USUAL_VOLUME = 1000.0  # of a step
VOLUME_NOISE = 0.4  # deviation of the logarithm of a volume over that of its volatility
DAY_MEAN, DAY_WAVE, BUSIEST_HOUR = 1.05, 0.3, 15  # the cycle of the day in hourly prices, in UTC


def simulate(market: Market, steps: int = 20_000, seed: int = 0) -> Prices:
    """Prices with the market's deviations and correlations of log returns.

    Shocks are multivariate Student t; log volatility is a shared and an own AR(1) (stochastic
    volatility, Taylor 1986), times a cycle of the day when hourly. A market with candles has the
    same closes, with highs, lows and volumes. Raises InputError for fewer than 10 steps.
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
    fetched = "" if market.candles else "--source yahoo, "
    facts: JsonObject = {
        "generator": "common/forecasting/simulate.py",
        "seed": seed,
        "steps": steps,
        "sha256": digest_of(frame),
        "notice": f"simulated prices, not real data; get real ones with {fetched}"
        f"--data FILE, or {market.file} in the folder that ADL_DATA_DIR names (default data/)",
    }
    if not market.candles:
        return checked_prices(frame, "simulated", "simulation", facts)
    facts["candles"] = {"columns": list(CANDLE_FIELDS)}
    candles = _candles(path, returns / shocks, np.random.default_rng((seed, 1)))
    candles[:, :2] *= np.array(market.first)
    candles[:, 0] = np.maximum(candles[:, 0], values)  # (rounding)
    candles[:, 1] = np.minimum(candles[:, 1], values)
    prices = checked_prices(frame, "simulated", "simulation", facts)
    return dataclasses.replace(prices, candles=candles)


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


def _candles(path: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """High and low over the first price and volume (T, 3, S) of logarithms of prices (T, S).

    Within a step the price is a Brownian bridge of the step's size (T - 1, S), whose largest and
    least value have known laws; the volume grows with the size.
    """
    change = np.diff(path, axis=0)  # (T - 1, S)
    up, down = 2 * sizes**2 * rng.standard_exponential((2, *sizes.shape))
    high = path[:-1] + (change + np.sqrt(change**2 + up)) / 2
    low = path[:-1] + (change - np.sqrt(change**2 + down)) / 2
    noise = np.exp(VOLUME_NOISE * rng.standard_normal(sizes.shape))
    volume = USUAL_VOLUME * sizes / sizes.mean(0) * noise
    steps = np.stack([np.exp(high), np.exp(low), volume], axis=1)  # (T - 1, 3, S)
    close = np.exp(path[:1])
    first = np.stack([close, close, np.full_like(close, USUAL_VOLUME)], axis=1)
    return np.concatenate([first, steps])
