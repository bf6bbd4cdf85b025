"""Every baseline by hand, and none of them sees past its origin."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from common.forecasting.backtest import ModelKey
from common.forecasting.baselines import (
    baselines,
    drift,
    ewma_volatility,
    no_change,
    rolling_quantiles,
    seasonal_naive,
)
from common.forecasting.config import RISKMETRICS
from common.forecasting.metrics import LEVELS
from common.forecasting.ridge import RidgeWindow
from common.forecasting.windows import future, past
from tests.forecasting.helpers import leaks, walk, windows_of


def test_simple_baselines_by_hand():
    seen = np.array([[[1.0], [2.0], [4.0], [7.0]]])
    assert no_change(seen, 2)[0, :, 0].tolist() == [7, 7]
    assert drift(seen, 2)[0, :, 0].tolist() == [9, 11]
    assert seasonal_naive(seen, 2, 3)[0, :, 0].tolist() == [2, 4]


def test_ewma_volatility_by_hand():
    values = np.exp(np.array([[0.0], [0.1], [0.3], [0.2]]))
    first = 0.01
    second = 0.9 * first + 0.1 * 0.04
    third = 0.9 * second + 0.1 * 0.01
    variance = ewma_volatility(values, 0.9)[:, 0] ** 2
    np.testing.assert_allclose(variance, [first, first, second, third], rtol=1e-6)


@pytest.mark.parametrize("decay", [None, RISKMETRICS])
def test_rolling_quantiles_are_those_of_the_residuals_before_the_origin(decay):
    values = walk(400)
    contiguous = np.ones(399, bool)
    contiguous[310] = False
    origins = np.array([50, 305, 330, 390])
    quantiles = rolling_quantiles(values, contiguous, origins, 2, 60, decay)
    scale = np.ones_like(values) if decay is None else ewma_volatility(values, decay)
    for number, origin in enumerate(origins):
        ends = np.arange(max(origin - 59, 2), origin + 1)
        ends = ends[(ends <= 310) | (ends - 2 > 310)]  # no change over the gap
        residuals = np.log(values[ends] / values[ends - 2]) / scale[ends - 2]
        changes = np.quantile(residuals, LEVELS, axis=0) * scale[origin]
        expected = values[origin] * np.exp(changes)
        np.testing.assert_allclose(quantiles[number, 1].T, expected, rtol=1e-5)


def fitted(values: np.ndarray, context: int, horizon: int) -> RidgeWindow:
    """NLinear of the rows 20 to 2000, chosen on those from 2100."""
    train = np.arange(20, 2000)
    validation = np.arange(2100, 2900)
    return RidgeWindow().fit(
        past(values, train, context),
        future(values, train, horizon),
        past(values, validation, context),
        future(values, validation, horizon),
    )


def test_ridge_finds_a_linear_law_and_shrinks_to_no_change_without_one():
    rng = np.random.default_rng(0)
    returns = np.zeros((3000, 1))
    for t in range(1, 3000):
        returns[t] = -0.5 * returns[t - 1] + 0.01 * rng.standard_normal()
    values = np.exp(np.cumsum(returns, 0))
    validation = np.arange(2100, 2900)
    prices = fitted(values, 10, 1).predict(past(values, validation, 10))[:, 0]
    predicted = np.log(prices / values[validation])
    assert np.corrcoef(predicted[:, 0], -0.5 * returns[validation, 0])[0, 1] > 0.98
    noise = walk(3000, 1)
    prices = fitted(noise, 10, 1).predict(past(noise, validation, 10))[:, 0]
    assert np.abs(np.log(prices / noise[validation])).mean() < 0.002


def test_no_baseline_sees_past_the_origin():
    values = walk(3000)
    ridge = fitted(values, 30, 3)
    names = list(baselines(windows_of(values), np.array([320]), ridge))
    assert len(names) == 6

    def forecast(name: ModelKey, spoilt: np.ndarray, origins: np.ndarray) -> np.ndarray:
        base = baselines(windows_of(spoilt), origins, ridge)[name]
        return base.point if base.quantiles is None else base.quantiles

    for name in names:
        assert not leaks(partial(forecast, name), values, np.array([320, 400])), name
