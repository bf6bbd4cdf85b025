"""CRPS, intervals, tests of significance and recalibration against hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from common.forecasting.metrics import (
    LEVELS,
    change,
    crps_quantiles,
    diebold_mariano,
    holm,
    interval,
    kept_shares,
    lags_for,
    long_run_variance,
    metrics_info,
    recalibrate,
)
from tests.forecasting.helpers import crps_samples

# ------------------------------------------------------------------------------------- scores


def test_crps_of_quantiles_by_hand():
    # levels 0.25, 0.5, 0.75 at 0, 1, 3 and outcome 2: pinball 0.25 * 2, 0.5 * 1, 0.25 * 1
    quantiles = np.array([[[[0.0, 1.0, 3.0]]]])
    crps = crps_quantiles(quantiles, np.array([[[2.0]]]), np.array([0.25, 0.5, 0.75]))
    assert crps[0, 0, 0] == pytest.approx(2 * (0.5 + 0.5 + 0.25) / 3)  # twice their mean


def test_crps_of_quantiles_agrees_with_that_of_samples():
    by_hand = crps_samples(np.array([0.0, 2.0]), np.array(1.0))
    assert by_hand == pytest.approx(0.5)  # E|X - y| = 1, E|X - X'| = 1
    samples = np.random.default_rng(0).gamma(2, size=(6, 1, 1, 5000))
    actual = np.linspace(0, 5, 6)[:, None, None]
    quantiles = np.quantile(samples, LEVELS, axis=-1).transpose(1, 2, 3, 0)
    expected = crps_samples(samples, actual)
    np.testing.assert_allclose(crps_quantiles(quantiles, actual), expected, rtol=0.015)


def test_crps_agrees_with_the_normal_distributions_closed_form():
    actual = np.linspace(-2, 2, 9)
    # Gneiting & Raftery 2007, eq. 22
    density = 2 * stats.norm.pdf(actual) - 1 / np.sqrt(np.pi)
    exact = actual * (2 * stats.norm.cdf(actual) - 1) + density
    quantiles = np.broadcast_to(stats.norm.ppf(LEVELS), (9, 1, 1, 99))
    crps = crps_quantiles(quantiles, actual[:, None, None])[:, 0, 0]
    np.testing.assert_allclose(crps, exact, rtol=0.012)  # 99 levels leave out the tails' hundredth


def test_a_certain_forecast_has_its_absolute_error_for_crps():
    quantiles = np.full((1, 1, 1, 99), 3.0)
    assert crps_quantiles(quantiles, np.array([[[5.0]]]))[0, 0, 0] == pytest.approx(2.0, rel=1e-5)


def test_intervals_are_linear_between_levels():
    assert interval(LEVELS, 0.95) == (pytest.approx(0.025), pytest.approx(0.975))
    assert interval(LEVELS, 0.80) == (pytest.approx(0.10), pytest.approx(0.90))


def test_changes_of_quantiles_are_from_the_last_price():
    np.testing.assert_allclose(change(np.full((1, 1, 1, 2), np.e), np.ones((1, 1))), 1)
    assert change(np.full((1, 1, 1), 5.0), np.full((1, 1), -2.0), log=False)[0, 0, 0] == 7


def test_without_the_logarithm_changes_are_in_prices():
    assert metrics_info()["crps"].unit == "log return"
    assert metrics_info(log=False)["crps"].unit == "price unit (USD)"
    assert metrics_info(log=False)["rmsse"] == metrics_info()["rmsse"]


# ------------------------------------------------------------------------------- significance


def test_newey_west_by_hand():
    # centred -2 0 -1 3: squares 14, lag-1 products 0 + 0 - 3
    series = np.array([1.0, 3.0, 2.0, 6.0])
    assert long_run_variance(series, 0) == pytest.approx(14 / 16)
    assert long_run_variance(series, 1) == pytest.approx((14 - 2 * 0.5 * 3) / 16)
    assert (lags_for(8000, 1), lags_for(100, 9)) == (10, 8)


def test_diebold_mariano_by_hand():
    rng = np.random.default_rng(1)
    loss = rng.random(50)
    reference = rng.random(50) + 0.1
    difference = loss - reference
    statistic, p = diebold_mariano(loss, reference, 1)
    error = np.sqrt(long_run_variance(difference, lags_for(50, 1)))
    expected = difference.mean() / error * np.sqrt(49 / 50)  # HLN at horizon 1
    assert statistic == pytest.approx(expected)
    assert p == pytest.approx(2 * stats.t.sf(abs(expected), 49))
    assert diebold_mariano(loss, loss, 1) == (0.0, 1.0)


def test_diebold_mariano_rejects_equal_forecasts_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    p = [diebold_mariano(*rng.normal(size=(2, 300)) ** 2, 1)[1] for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.10


def test_holm_by_hand():
    adjusted = holm(np.array([[0.01, 0.04], [0.03, 0.5]]))
    np.testing.assert_allclose(adjusted, [[0.04, 0.09], [0.09, 0.5]])


# ------------------------------------------------------------------------------ recalibration


def test_recalibration_gives_a_wrong_width_its_coverage_and_waits_for_outcomes():
    actual = np.random.default_rng(0).normal(size=(3000, 2, 1)).astype(np.float32)
    half_as_wide = (0.5 * stats.norm.ppf(LEVELS)).astype(np.float32)
    wrong = np.broadcast_to(half_as_wide, (3000, 2, 1, 99))
    corrected = recalibrate(wrong, actual, 500, 100)
    np.testing.assert_array_equal(corrected[:100, 0], wrong[:100, 0])  # nothing to learn from yet
    for share in (0.5, 0.8, 0.95):
        low, high = interval(corrected[600:], share)
        inside = (actual[600:] >= low) & (actual[600:] <= high)
        assert inside.mean() == pytest.approx(share, abs=0.02)
    assert (np.diff(corrected, axis=-1) >= 0).all()


def test_the_factor_of_an_interval_by_hand():
    actual = np.random.default_rng(0).normal(size=(800, 2, 1)).astype(np.float32)
    wrong = np.broadcast_to(0.5 * stats.norm.ppf(LEVELS), (800, 2, 1, 99)).astype(np.float32)
    corrected = recalibrate(wrong, actual, 500, 100)
    # the 80 % interval at origin 700, two steps ahead, from the outcomes of origins 199 .. 698
    outcomes = actual[199:699, 1, 0]
    low, high = (abs(end[0, 1, 0]) for end in interval(wrong, 0.8))
    size = np.abs(outcomes) / np.where(outcomes >= 0, high, low)
    expected = wrong[700, 1, 0, 89] * np.quantile(size, 0.8)
    assert corrected[700, 1, 0, 89] == pytest.approx(expected, rel=1e-3)


def test_recalibration_sees_no_outcome_that_is_not_known_yet():
    rng = np.random.default_rng(1)
    actual = rng.normal(size=(400, 3, 2))
    quantiles = np.sort(rng.normal(size=(400, 3, 2, 99)), -1)
    clean = recalibrate(quantiles, actual, 100, 20)
    # at origin 300 the outcomes h + 1 steps after origins up to 300 - (h + 1) are known
    for h in range(3):
        spoilt = actual.copy()
        spoilt[300 - h :, h] = rng.permutation(actual[300 - h :, h]) * 50
        corrected = recalibrate(quantiles, spoilt, 100, 20)
        np.testing.assert_array_equal(corrected[300, h], clean[300, h])
        spoilt[300 - h - 1, h] *= 50
        corrected = recalibrate(quantiles, spoilt, 100, 20)
        assert not np.array_equal(corrected[300, h], clean[300, h])


def test_a_location_is_kept_only_where_it_is_significantly_better():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((2000, 2, 3))
    location = 0.5 * rng.standard_normal((2000, 2, 3))
    location[:, 0, 1] += 0.5 * truth[:, 0, 1]  # the one cell that knows something
    kept = kept_shares(location, truth)
    assert kept[0, 1] > 0
    assert (kept > 0).sum() == 1
    assert (kept_shares(-truth, truth) == 0).all()
    np.testing.assert_allclose(kept_shares(truth / 2, truth), 1)
    np.testing.assert_allclose(kept_shares(2 * truth, truth), 0.5)
