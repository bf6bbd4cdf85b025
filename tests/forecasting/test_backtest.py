"""Windows, metrics, significance and baselines against hand-computed cases; leaks; the speed of scoring."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.backtest import (
    LEVELS,
    RISKMETRICS,
    Backtest,
    RidgeWindow,
    baselines,
    change,
    crps_quantiles,
    crps_samples,
    diebold_mariano,
    drift,
    ewma_volatility,
    holm,
    interval,
    lags_for,
    long_run_variance,
    no_change,
    recalibrate,
    rolling_quantiles,
    seasonal_naive,
)
from common.cli import InputError
from common.windows import MinMax, future, leaks, origins, past, split


def walk(steps: int, series: int = 2, seed: int = 0) -> np.ndarray:
    return 100 * np.exp(
        np.cumsum(np.random.default_rng(seed).standard_t(5, (steps, series)) * 0.01, 0)
    )


# --------------------------------------------------------------------------------------------------------------- windows


def test_windows_never_straddle_a_gap():
    contiguous = np.array([True, True, True, False, True, True, True, True])  # rows 0-3 and 4-8
    assert origins(contiguous, 2, 1).tolist() == [1, 2, 5, 6, 7]
    assert origins(contiguous, 3, 2).tolist() == [6]
    assert origins(contiguous, 5, 1).tolist() == []


@settings(max_examples=60, deadline=None)
@given(
    st.integers(80, 400),
    st.integers(2, 12),
    st.integers(1, 6),
    st.lists(st.integers(0, 78), max_size=5),
)
def test_parts_share_no_row_and_every_test_origin_is_scored(steps, context, horizon, gaps):
    contiguous = np.ones(steps - 1, bool)
    contiguous[gaps] = False
    try:
        parts = split(contiguous, context, horizon, 40, 30)
    except InputError:
        return
    rows = [
        set(np.concatenate([np.arange(at - context + 1, at + horizon + 1) for at in part]))
        for part in (parts.train, parts.validation, parts.test)
    ]
    assert not rows[0] & rows[1]
    assert not rows[1] & rows[2]
    assert max(rows[0]) < parts.train_end
    test_start = steps - min(40, steps // 4)
    every = origins(contiguous, context, horizon)
    assert parts.test.tolist() == every[every + 1 >= test_start].tolist()
    # a gap of one context between the targets of two parts
    assert parts.validation.min() + 1 - (parts.train.max() + horizon) > context
    assert parts.test.min() + 1 - (parts.validation.max() + horizon) > context


def test_past_and_future_meet_at_the_origin():
    values = np.arange(20.0)[:, None]
    assert past(values, np.array([4, 9]), 3)[..., 0].tolist() == [[2, 3, 4], [7, 8, 9]]
    assert future(values, np.array([4, 9]), 2)[..., 0].tolist() == [[5, 6], [10, 11]]


def test_a_history_that_is_too_short_is_refused():
    with pytest.raises(InputError, match="30 rows give no"):
        split(np.ones(29, bool), 20, 5, 10, 10)


def test_minmax_inverts_and_keeps_a_constant_series():
    values = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]])
    scaler = MinMax.fit(values)
    assert scaler.transform(values).tolist() == [[0, 0], [1, 0], [0.5, 0]]
    np.testing.assert_array_equal(scaler.inverse(scaler.transform(values)), values)


def test_the_leak_test_finds_a_leak():
    values = walk(60)
    assert not leaks(lambda v, at: past(v, at, 5), values, np.array([10, 40]))
    assert leaks(lambda v, at: past(v, at + 1, 5), values, np.array([10, 40]))


# --------------------------------------------------------------------------------------------------------------- metrics


def test_crps_of_quantiles_by_hand():
    # levels 0.25, 0.5, 0.75 at 0, 1, 3 and outcome 2: pinball 0.25 * 2, 0.5 * 1, 0.25 * 1; twice their mean
    found = crps_quantiles(
        np.array([[[[0.0, 1.0, 3.0]]]]), np.array([[[2.0]]]), np.array([0.25, 0.5, 0.75])
    )
    assert found[0, 0, 0] == pytest.approx(2 * (0.5 + 0.5 + 0.25) / 3)


def test_crps_of_samples_by_hand_and_by_all_pairs():
    assert crps_samples(np.array([0.0, 2.0]), np.array(1.0)) == pytest.approx(
        0.5
    )  # E|X-y| = 1, E|X-X'| = 1
    samples, actual = np.random.default_rng(0).normal(size=(4, 30)), np.arange(4.0)
    pairs = np.abs(samples[:, :, None] - samples[:, None]).mean((1, 2)) / 2
    np.testing.assert_allclose(
        crps_samples(samples, actual), np.abs(samples - actual[:, None]).mean(1) - pairs
    )


def test_crps_agrees_with_the_normal_distributions_closed_form():
    actual = np.linspace(-2, 2, 9)
    exact = (
        actual * (2 * stats.norm.cdf(actual) - 1) + 2 * stats.norm.pdf(actual) - 1 / np.sqrt(np.pi)
    )  # Gneiting & Raftery 2007, eq. 22
    quantiles = np.broadcast_to(stats.norm.ppf(LEVELS), (9, 1, 1, 99))
    np.testing.assert_allclose(
        crps_quantiles(quantiles, actual[:, None, None])[:, 0, 0], exact, rtol=0.012
    )  # the mean of 99 levels leaves out the tails' hundredth


def test_a_certain_forecast_has_its_absolute_error_for_crps():
    quantiles = np.full((1, 1, 1, 99), 3.0)
    assert crps_quantiles(quantiles, np.array([[[5.0]]]))[0, 0, 0] == pytest.approx(2.0, rel=1e-5)


def test_intervals_are_linear_between_levels():
    low, high = interval(LEVELS, 0.95)
    assert (low, high) == (pytest.approx(0.025), pytest.approx(0.975))
    low, high = interval(LEVELS, 0.80)
    assert (low, high) == (pytest.approx(0.10), pytest.approx(0.90))


def test_newey_west_by_hand():
    series = np.array(
        [1.0, 3.0, 2.0, 6.0]
    )  # centred -2 0 -1 3: squares 14, lag-1 products 0 + 0 - 3
    assert long_run_variance(series, 0) == pytest.approx(14 / 16)
    assert long_run_variance(series, 1) == pytest.approx((14 - 2 * 0.5 * 3) / 16)
    assert (lags_for(8000, 1), lags_for(100, 9)) == (10, 8)


def test_diebold_mariano_by_hand():
    rng = np.random.default_rng(1)
    loss, reference = rng.random(50), rng.random(50) + 0.1
    difference = loss - reference
    statistic, p = diebold_mariano(loss, reference, 1)
    expected = (
        difference.mean()
        / np.sqrt(long_run_variance(difference, lags_for(50, 1)))
        * np.sqrt(49 / 50)
    )  # HLN at horizon 1
    assert statistic == pytest.approx(expected)
    assert p == pytest.approx(2 * stats.t.sf(abs(expected), 49))
    assert diebold_mariano(loss, loss, 1) == (0.0, 1.0)


def test_diebold_mariano_rejects_equal_forecasts_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    p = [diebold_mariano(*rng.normal(size=(2, 300)) ** 2, 1)[1] for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.10


def test_holm_by_hand():
    np.testing.assert_allclose(
        holm(np.array([[0.01, 0.04], [0.03, 0.5]])), [[0.04, 0.09], [0.09, 0.5]]
    )


def bench(
    values: np.ndarray, at: np.ndarray, context: int = 30, horizon: int = 3, log: bool = True
) -> Backtest:
    rolling = rolling_quantiles(values, np.ones(len(values) - 1, bool), at, horizon, 100, log=log)
    names = tuple("ABCDEFG"[: values.shape[1]])
    return Backtest(past(values, at, context), future(values, at, horizon), names, rolling, log)


def test_every_metric_of_a_known_forecast():
    values, at = walk(600), np.arange(300, 590)
    scores = bench(values, at)
    actual, last = future(values, at, 3), values[at]
    still, *_ = scores.measure(no_change(past(values, at, 30), 3), None)
    np.testing.assert_allclose(still["rmsse"], 1)
    np.testing.assert_allclose(still["skill"], 0, atol=1e-12)
    assert np.isnan(still["direction_accuracy"]).all()
    truth = np.log(actual / last[:, None])
    np.testing.assert_allclose(still["rmse"], np.sqrt((truth**2).mean(0)))
    np.testing.assert_allclose(still["mae_usd"], np.abs(actual - last[:, None]).mean(0))
    perfect, *_ = scores.measure(actual, np.repeat(actual[..., None], 99, -1))
    for name in ("rmse", "mae", "rmse_usd", "rmsse", "crps", "width_95"):
        np.testing.assert_allclose(perfect[name], 0, atol=1e-12)
    np.testing.assert_allclose(perfect["direction_accuracy"], 1)
    np.testing.assert_allclose(perfect["coverage_80"], 1)
    half, *_ = scores.measure(
        last[:, None] * np.exp(truth / 2), None
    )  # half of every move: half the error
    np.testing.assert_allclose(half["rmsse"], 0.5)
    np.testing.assert_allclose(half["skill"], 0.75)


def test_rows_pool_as_the_table_says():
    values, at = walk(500), np.arange(200, 490)
    scores = bench(values, at)
    point = drift(past(values, at, 30), 3)
    rows = {
        (row["metric"], row["series"], row["horizon"]): row
        for row in scores.rows("drift", "x", [(point, None), (point, None)])
    }
    cells, *_ = scores.measure(point, None)
    assert rows["rmsse", None, None]["value"] == pytest.approx(
        np.exp(np.log(cells["rmsse"]).mean())
    )
    assert rows["rmsse", "B", None]["value"] == pytest.approx(
        np.exp(np.log(cells["rmsse"][:, 1]).mean())
    )
    assert rows["rmse_usd", None, 2]["value"] == pytest.approx(
        np.sqrt((cells["rmse_usd"][1] ** 2).mean())
    )
    assert rows["rmsse", "A", 3]["value"] == pytest.approx(cells["rmsse"][2, 0])
    assert rows["rmsse", None, None]["n_seeds"] == 2
    assert rows["rmsse", None, None]["std"] == 0
    assert ("p_rmse", "A", 1) in rows
    assert ("coverage_80", None, None) not in rows  # a point forecast has no interval


def test_a_constant_series_has_no_rmsse():
    values = walk(300)
    values[:, 1] = 7.0
    rows = bench(values, np.arange(150, 290)).rows(
        "drift", "x", [(drift(past(values, np.arange(150, 290), 30), 3), None)]
    )
    series = {row["series"] for row in rows if row["metric"] == "rmsse"}
    assert "A" in series
    assert not {"B", None} & series


def test_negative_prices_are_scored_as_differences():
    values = walk(400) - 100.0
    assert (values < 0).any()
    at = np.arange(200, 390)
    rows = bench(values, at, log=False).rows(
        "no change", "x", [(no_change(past(values, at, 30), 3), None)]
    )
    np.testing.assert_allclose([row["value"] for row in rows if row["metric"] == "rmsse"], 1)


def test_scoring_8000_origins_takes_under_two_seconds():
    rng = np.random.default_rng(0)
    quantiles = np.sort(rng.standard_normal((8000, 5, 7, 99), dtype=np.float32) * 0.01, -1)
    actual = rng.standard_normal((8000, 5, 7)) * 0.01
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        crps_quantiles(quantiles, actual)
        for share in (0.80, 0.95):
            low, high = interval(quantiles, share)
            ((actual >= low) & (actual <= high)).mean(0)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 2


def test_recalibration_gives_a_wrong_width_its_coverage_and_waits_for_outcomes():
    rng = np.random.default_rng(0)
    actual = rng.normal(size=(3000, 2, 1)).astype(np.float32)
    wrong = np.broadcast_to(0.5 * stats.norm.ppf(LEVELS), (3000, 2, 1, 99)).astype(
        np.float32
    )  # half as wide as it should be
    found = recalibrate(wrong, actual, 500, 100)
    np.testing.assert_array_equal(found[:100, 0], wrong[:100, 0])  # nothing to learn from yet
    for share in (0.5, 0.8, 0.95):
        low, high = interval(found[600:], share)
        assert ((actual[600:] >= low) & (actual[600:] <= high)).mean() == pytest.approx(
            share, abs=0.02
        )
    assert (np.diff(found, axis=-1) >= 0).all()
    # by hand: factor of the 80 % interval at origin 700, two steps ahead, from origins 199 .. 698
    size = np.abs(actual[199:699, 1, 0]) / np.where(
        actual[199:699, 1, 0] >= 0, *(abs(end[0, 1, 0]) for end in interval(wrong, 0.8)[::-1])
    )
    assert found[700, 1, 0, 89] == pytest.approx(
        wrong[700, 1, 0, 89] * np.quantile(size, 0.8), rel=1e-3
    )


def test_recalibration_sees_no_outcome_that_is_not_known_yet():
    rng = np.random.default_rng(1)
    actual = rng.normal(size=(400, 3, 2))
    quantiles = np.sort(rng.normal(size=(400, 3, 2, 99)), -1)
    clean = recalibrate(quantiles, actual, 100, 20)
    for h in range(
        3
    ):  # at origin 300 the outcomes h + 1 steps after origins up to 300 - (h + 1) are known
        spoilt = actual.copy()
        spoilt[300 - h :, h] = rng.permutation(actual[300 - h :, h]) * 50
        np.testing.assert_array_equal(
            recalibrate(quantiles, spoilt, 100, 20)[300, h], clean[300, h]
        )
        spoilt[300 - h - 1, h] *= 50
        assert not np.array_equal(recalibrate(quantiles, spoilt, 100, 20)[300, h], clean[300, h])


# ------------------------------------------------------------------------------------------------------------- baselines


def test_simple_baselines_by_hand():
    seen = np.array([[[1.0], [2.0], [4.0], [7.0]]])
    assert no_change(seen, 2)[0, :, 0].tolist() == [7, 7]
    assert drift(seen, 2)[0, :, 0].tolist() == [9, 11]
    assert seasonal_naive(seen, 2, 3)[0, :, 0].tolist() == [2, 4]


def test_ewma_volatility_by_hand():
    values = np.exp(np.array([[0.0], [0.1], [0.3], [0.2]]))
    first = 0.01
    second = 0.9 * first + 0.1 * 0.04
    np.testing.assert_allclose(
        ewma_volatility(values, 0.9)[:, 0] ** 2,
        [first, first, second, 0.9 * second + 0.1 * 0.01],
        rtol=1e-6,
    )


@pytest.mark.parametrize("decay", [None, RISKMETRICS])
def test_rolling_quantiles_are_those_of_the_residuals_before_the_origin(decay):
    values, contiguous = walk(400), np.ones(399, bool)
    contiguous[310] = False
    at = np.array([50, 305, 330, 390])
    found = rolling_quantiles(values, contiguous, at, 2, 60, decay)
    scale = np.ones_like(values) if decay is None else ewma_volatility(values, decay)
    for number, origin in enumerate(at):
        ends = np.array(
            [end for end in range(max(origin - 59, 2), origin + 1) if not end - 2 <= 310 < end]
        )
        residuals = np.log(values[ends] / values[ends - 2]) / scale[ends - 2]
        expected = values[origin] * np.exp(np.quantile(residuals, LEVELS, axis=0) * scale[origin])
        np.testing.assert_allclose(found[number, 1].T, expected, rtol=1e-5)


def test_ridge_finds_a_linear_law_and_shrinks_to_no_change_without_one():
    rng = np.random.default_rng(0)
    steps = np.zeros((3000, 1))
    for t in range(1, 3000):
        steps[t] = -0.5 * steps[t - 1] + 0.01 * rng.standard_normal()
    values = np.exp(np.cumsum(steps, 0))
    at, val = np.arange(20, 2000), np.arange(2100, 2900)
    ridge = RidgeWindow().fit(
        past(values, at, 10), future(values, at, 1), past(values, val, 10), future(values, val, 1)
    )
    predicted = np.log(ridge.predict(past(values, val, 10))[:, 0] / values[val])
    assert np.corrcoef(predicted[:, 0], -0.5 * steps[val, 0])[0, 1] > 0.98
    noise = walk(3000, 1)
    ridge = RidgeWindow().fit(
        past(noise, at, 10), future(noise, at, 1), past(noise, val, 10), future(noise, val, 1)
    )
    assert np.abs(np.log(ridge.predict(past(noise, val, 10))[:, 0] / noise[val])).mean() < 0.002


def test_no_baseline_sees_past_the_origin():
    values, contiguous = walk(500), np.ones(499, bool)
    at, val = np.arange(40, 200), np.arange(210, 300)
    ridge = RidgeWindow().fit(
        past(values, at, 30), future(values, at, 3), past(values, val, 30), future(values, val, 3)
    )
    names = [
        (model, variant)
        for model, variant, *_ in baselines(values, contiguous, val[:2], 30, 3, ridge)
    ]
    assert len(names) == 6
    for number in range(len(names)):

        def forecast(v: np.ndarray, one: np.ndarray, number: int = number) -> np.ndarray:
            _, _, point, quantiles = list(baselines(v, contiguous, one, 30, 3, ridge))[number]
            return point if quantiles is None else quantiles

        assert not leaks(forecast, values, np.array([320, 400])), names[number]


def test_changes_of_quantiles_are_from_the_last_price():
    np.testing.assert_allclose(change(np.full((1, 1, 1, 2), np.e), np.ones((1, 1))), 1)
    assert change(np.full((1, 1, 1), 5.0), np.full((1, 1), -2.0), log=False)[0, 0, 0] == 7
