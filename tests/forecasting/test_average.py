"""The average of forecasts: the mean level by level, and log-HAR-t as one of its members."""

from __future__ import annotations

import numpy as np

from common.forecasting.average import Average, HarForecaster, mean_of
from common.forecasting.baselines import scaled_shape
from common.forecasting.volatility import fit_log_har
from tests.forecasting.helpers import walk, windows_of, with_parts
from tests.forecasting.test_ensemble import Spread


def test_the_average_is_the_mean_level_by_level():
    windows = windows_of(walk(100))
    inputs = windows.inputs(np.arange(40, 60))
    members = [Spread(-1.0), Spread(0.0), Spread(4.0)]
    average = Average(members)
    point, quantiles = average.predict(*inputs)
    expected_point, expected = Spread(1.0).predict(*inputs)
    np.testing.assert_allclose(point, expected_point)
    np.testing.assert_allclose(quantiles, expected)
    assert average.params == 30
    assert average.settings == members[0].settings


def test_log_har_forecasts_as_the_baseline_does_and_its_point_is_no_change():
    windows = with_parts(windows_of(walk(900)))
    har = fit_log_har(windows)
    test = windows.parts.test
    point, quantiles = HarForecaster(har, {"context": 30, "horizon": 3}).predict(
        *windows.inputs(test)
    )
    last = windows.prices.values[test]
    expected = scaled_shape(har, windows, test).quantiles(last, windows.log)
    np.testing.assert_allclose(quantiles, expected, rtol=1e-6)
    np.testing.assert_array_equal(point, np.repeat(last[:, None], 3, axis=1))


def test_the_mean_of_equal_arrays_is_exact_and_leaves_them_alone():
    values = np.array([0.1, 1 / 3, 17.7])
    np.testing.assert_array_equal(mean_of([values] * 3), values)
    other = values + 3
    np.testing.assert_allclose(mean_of([values, values, other]), values + 1)
    np.testing.assert_array_equal(values, [0.1, 1 / 3, 17.7])
