"""GARCH(1,1)-t: the recursion by hand, planted numbers found again, no leak."""

from __future__ import annotations

import numpy as np
import pytest

from common.forecasting.baselines import GARCH, baselines
from common.forecasting.garch import USUAL, Garch, fit_garch, fit_series
from common.forecasting.metrics import LEVELS
from tests.forecasting.helpers import leaks, walk, windows_of, with_parts


def test_the_variances_of_later_steps_by_hand():
    shape = np.zeros((2, 1, len(LEVELS)))
    model = Garch(np.ones(1), np.full(1, 0.1), np.full(1, 0.2), np.full(1, 0.7), shape, log=False)
    scale = model.scale(np.array([[0.0], [1.0], [3.0]]), 2)
    first = 1.0
    second = 0.1 + 0.2 * 1 + 0.7 * first
    third = 0.1 + 0.2 * 4 + 0.7 * second
    np.testing.assert_allclose(scale[:, 0, 0] ** 2, [first, second, third])
    np.testing.assert_allclose(scale[2, 1, 0] ** 2, third + 0.1 + 0.9 * third)


def test_planted_numbers_are_found_again():
    rng = np.random.default_rng(0)
    shocks = rng.standard_t(6, 20_000) / np.sqrt(1.5)
    variance = 1.0
    changes = np.empty_like(shocks)
    for step, shock in enumerate(shocks):
        changes[step] = np.sqrt(variance) * shock
        variance = 0.05 + 0.10 * changes[step] ** 2 + 0.85 * variance
    omega, alpha, beta = fit_series(changes)
    assert (omega, alpha, beta) == pytest.approx((0.05, 0.10, 0.85), abs=0.02)


def test_few_changes_and_none_have_the_usual_numbers():
    assert fit_series(np.ones(20))[1:] == USUAL
    assert fit_series(np.zeros(500))[1:] == USUAL
    values = walk(600)
    values[:, 1] = 3.0
    model = fit_garch(with_parts(windows_of(values)))
    assert np.isfinite(model.scale(values, 3)).all()
    assert (model.shape[:, 1] == 0).all()


def test_what_comes_after_an_origin_changes_nothing():
    values = walk(900)
    model = fit_garch(with_parts(windows_of(values)))

    def forecast(spoilt: np.ndarray, origins: np.ndarray) -> np.ndarray:
        windows = windows_of(spoilt)
        found = baselines(windows, origins, distributions={GARCH: model.at(windows, origins)})
        return found[GARCH].distribution

    assert not leaks(forecast, values, np.array([320, 800]))
