"""Quantile regression: the check loss at its least, planted laws, symmetry, no leak."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats

from common.forecasting import quantile_regression
from common.forecasting.metrics import LEVELS
from common.forecasting.quantile_regression import (
    KNOTS,
    SMOOTHING,
    between_knots,
    fit_quantile_regression,
    smoothed_quantile,
)
from common.forecasting.volatility import fit_log_har
from tests.forecasting.helpers import leaks, walk, windows_of, with_parts
from tests.forecasting.test_volatility import clustered


def check_loss(error: np.ndarray, level: float) -> float:
    return float(np.maximum(level * error, (level - 1) * error).mean())


def test_no_small_move_lowers_the_check_loss(monkeypatch):
    monkeypatch.setattr(quantile_regression, "PENALTY", 0)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((4000, 2))
    target = features @ [0.5, -0.2] + (1 + 0.3 * np.abs(features[:, 0])) * rng.standard_normal(4000)
    for level in (0.1, 0.5, 0.9):
        weights, bias = smoothed_quantile(features, target, level, np.zeros(2))
        fitted = features @ weights + bias
        best = check_loss(target - fitted, level)
        for move in (features[:, 0], features[:, 1], np.ones(4000)):
            for size in (-0.1, 0.1):
                assert check_loss(target - fitted - size * move, level) > best
        assert abs((target < fitted).mean() - level) < SMOOTHING / 10  # the defining property


def test_levels_find_weights_of_their_own():
    rng = np.random.default_rng(1)
    feature = rng.uniform(-1.7, 1.7, (20_000, 1))
    target = (3 + feature[:, 0]) * rng.standard_normal(20_000)
    for level in (0.2, 0.8):
        weights, bias = smoothed_quantile(feature, target, level, np.zeros(1))
        assert abs(weights[0] - stats.norm.ppf(level)) < 0.06
        assert abs(bias - 3 * stats.norm.ppf(level)) < 0.06


def test_few_windows_leave_the_weights_where_they_are_expected():
    rng = np.random.default_rng(2)
    features = rng.standard_normal((12, 5))
    expected = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
    weights, _ = smoothed_quantile(features, rng.standard_normal(12), 0.9, expected)
    assert np.abs(weights - expected).max() < 0.1


def test_log_sizes_of_a_normal_are_interpolated_exactly():
    upper = LEVELS[len(LEVELS) // 2 + 1 :]
    knots = np.log(3 * stats.halfnorm.ppf(KNOTS))
    np.testing.assert_allclose(np.exp(knots @ between_knots()), 3 * stats.norm.ppf(upper))


def test_forecasts_are_symmetric_ordered_and_as_wide_as_the_law():
    windows = with_parts(windows_of(clustered(6000), context=60, horizon=2))
    har = fit_log_har(windows)
    forecast = fit_quantile_regression(windows, har).at(windows, windows.parts.test)
    changes = forecast.changes()
    np.testing.assert_array_equal(changes, -changes[..., ::-1])
    assert (np.diff(changes, axis=-1) >= 0).all()
    truth = windows.changes(windows.parts.test)
    assert abs((truth < changes[..., 89]).mean() - 0.9) < 0.02
    one = forecast.of_series(slice(1, 2)).changes()
    np.testing.assert_array_equal(one, changes[:, :, 1:])
    last = windows.prices.values[windows.parts.test]
    prices = forecast.quantiles(last, log=True)
    np.testing.assert_allclose(np.log(prices[..., 20] / last[:, None]), changes[..., 20], atol=1e-5)


def test_nothing_after_the_origin_counts():
    values = walk(900)
    windows = with_parts(windows_of(values))
    regression = fit_quantile_regression(windows, fit_log_har(windows))

    def forecast(values: np.ndarray, origins: np.ndarray) -> np.ndarray:
        prices = dataclasses.replace(windows.prices, values=values)
        return regression.at(dataclasses.replace(windows, prices=prices), origins).changes()

    assert not leaks(forecast, values, windows.parts.test[[0, 50]])
