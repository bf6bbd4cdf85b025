"""log-HAR-t: features by hand, a planted law found again, Student's t as scipy has it, no leak."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from common.forecasting.backtest import Forecast, Reference, measure
from common.forecasting.baselines import (
    LOG_HAR,
    Fitted,
    baselines,
    fit_baselines,
    random_walk,
    scaled_shape,
)
from common.forecasting.config import RISKMETRICS
from common.forecasting.metrics import LEVELS
from common.forecasting.volatility import (
    HALF_LIVES,
    HOURS,
    STILL,
    LogHar,
    Prior,
    clock,
    fit_log_har,
    half_lives,
    speed_weights,
    student_t_scale,
    symmetric,
)
from common.forecasting.windows import Windows
from tests.forecasting.helpers import leaks, walk, windows_of, with_parts


def clustered(steps: int, series: int = 2, seed: int = 0) -> np.ndarray:
    """Prices (T, S) whose volatility comes in clusters and is twice as large at 14 o'clock."""
    rng = np.random.default_rng(seed)
    log_scale = np.zeros((steps, series))
    for step in range(1, steps):
        log_scale[step] = 0.97 * log_scale[step - 1] + 0.15 * rng.standard_normal(series)
    hour = np.arange(steps)[:, None] % 24
    size = 0.005 * np.exp(log_scale) * np.where(hour == 14, 2, 1)
    return 100 * np.exp(np.cumsum(size * rng.standard_t(5, (steps, series)), 0))


def test_the_clock_knows_hours_of_weekdays_and_of_weekends():
    times = np.array(["2024-01-05T14:30", "2024-01-06T14:00", "2024-01-08T00"], "datetime64[ns]")
    assert clock(times, HOURS).tolist() == [14, 24 + 14, 0]  # Friday, Saturday, Monday
    assert clock(times, 7).tolist() == [4, 5, 0]
    assert clock(times, 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize("steps", [1, 5, 95])
def test_the_weights_of_every_speed_add_up_to_one(steps):
    weights = speed_weights(steps)
    assert weights.shape == (len(half_lives(steps)), steps)
    np.testing.assert_allclose(weights.sum(1), 1)
    assert (np.diff(weights, axis=1) >= 0).all()  # the newest counts most
    assert half_lives(95) == HALF_LIVES


def test_features_by_hand():
    model = LogHar.blank(2, 3, 1, 1)
    past = np.exp(np.array([[[0.0, 0.0], [0.1, -0.2], [0.2, 0.2]]]))  # (1, 3, 2)
    times = np.datetime64("2024-01-01", "ns") + np.arange(3) * np.timedelta64(1, "h")
    features = model.features(past, times[None])
    # one speed: half of the newest, a quarter of the older, a quarter of the mean of both
    own = np.log([0.5 * 0.1 + 0.25 * 0.1 + 0.25 * 0.1, 0.5 * 0.4 + 0.25 * 0.2 + 0.25 * 0.3])
    np.testing.assert_allclose(features[0, :, 0], own, rtol=1e-3)
    np.testing.assert_allclose(features[0, :, 1], own.mean(), rtol=1e-3)
    scale = model.scale(past, np.append(times, times[-1:] + np.timedelta64(1, "h"))[None])
    np.testing.assert_array_equal(scale, np.ones((1, 1, 2)))


def test_without_features_the_scale_is_that_of_scipys_student_t():
    changes = 0.01 * np.random.default_rng(0).standard_t(4, 5000)
    weights, bias = student_t_scale(np.zeros((5000, 0)), np.zeros(5000), changes, np.zeros(0))
    _, _, scale = stats.t.fit(changes, floc=0)
    assert len(weights) == 0
    assert np.exp(bias) == pytest.approx(scale, rel=0.01)


def test_a_law_of_the_scale_is_found_again():
    rng = np.random.default_rng(1)
    features = rng.standard_normal((20_000, 2))
    offset = rng.uniform(-1, 1, 20_000)
    scale = np.exp(-4 + 0.5 * features[:, 0] - 0.3 * features[:, 1] + offset)
    changes = scale * rng.standard_t(5, 20_000)
    weights, bias = student_t_scale(features, offset, changes, np.zeros(2))
    np.testing.assert_allclose(weights, [0.5, -0.3], atol=0.02)
    assert bias == pytest.approx(-4, abs=0.02)


def test_it_learns_the_hour_and_beats_ewma_on_prices_that_were_not_seen():
    windows = with_parts(windows_of(clustered(6000), context=60))
    har = fit_log_har(windows)
    profile = har.profile.mean(1)
    assert profile.argmax() in (14, 14 + 24)
    assert profile[14] / np.delete(profile[:24], 14).mean() == pytest.approx(2, abs=0.3)
    np.testing.assert_allclose(har.shape, symmetric(har.shape))

    test = windows.parts.test
    rolling = random_walk(windows, test, None)
    reference = Reference(
        windows.past(test), windows.future(test), windows.prices.series, rolling, windows.log
    )
    scaled = scaled_shape(har, windows, test)
    ours = baselines(windows, test, distributions={LOG_HAR: scaled})[LOG_HAR]
    ewma = Forecast(ours.point, random_walk(windows, test, RISKMETRICS))
    ratio = measure(reference, ours).metrics["crps_ratio"].mean()
    assert ratio < measure(reference, ewma).metrics["crps_ratio"].mean() < 1
    coverage = measure(reference, ours).metrics["coverage_80"].mean()
    assert coverage == pytest.approx(0.8, abs=0.03)


def test_a_few_windows_stay_near_what_another_market_knows_and_many_do_not():
    known = fit_log_har(with_parts(windows_of(clustered(6000), context=60)))
    prior = Prior.of(known.by_hour_of_week(), len(known.profile))
    ratio = prior.profile / known.profile.mean(1)
    np.testing.assert_allclose(ratio, ratio[0])
    assert ratio[0] == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(prior.weights[0], (known.weights / known.deviation)[0].mean(0))

    market = windows_of(clustered(6000, seed=1), context=60)
    windows = with_parts(market)
    few = windows.parts.train[-100:]
    distance = {}
    for name, origins in {"few": few, "all": windows.parts.train}.items():
        for about in (None, prior):
            har = fit_log_har(windows, origins, about)
            raw = (har.weights / har.deviation).mean(1)  # (H, F)
            distance[name, about is prior] = np.abs(raw - prior.weights).mean()
    assert distance["few", True] < 0.5 * distance["few", False]
    alone, helped = distance["all", False], distance["all", True]
    assert helped == pytest.approx(alone, rel=0.5)

    # on windows that were not seen, the prior is worth something to the few
    helped = fit_log_har(windows, few, prior)
    assert likelihood(helped, windows) > likelihood(fit_log_har(windows, few), windows)


def likelihood(har: LogHar, windows: Windows) -> float:
    """Mean log-likelihood of the test part's changes as Student's t with four degrees."""
    test = windows.parts.test
    scale = har.scale(*windows.inputs(test))
    return float(stats.t.logpdf(windows.changes(test), 4, scale=scale).mean())


def test_prices_that_may_be_negative_and_those_that_never_move():
    values = walk(800, series=3) - 100
    values[:, 2] = 1.0
    windows = with_parts(windows_of(values, log=False))
    har = fit_log_har(windows)
    scale = har.scale(*windows.inputs(windows.parts.test))
    assert np.isfinite(scale).all()
    assert scale[..., 2].max() <= 10 * STILL
    quantiles = scaled_shape(har, windows, windows.parts.test).quantiles(
        values[windows.parts.test], log=False
    )
    assert (np.diff(quantiles, axis=-1) >= 0).all()
    np.testing.assert_allclose(
        quantiles[..., len(LEVELS) // 2][:, 0], values[windows.parts.test], rtol=1e-5
    )


def test_what_comes_after_an_origin_or_the_training_part_changes_nothing():
    values = walk(1500)
    windows = with_parts(windows_of(values))
    fitted = fit_baselines(windows)
    assert isinstance(fitted, Fitted)
    assert fitted.har is not None
    har = fitted.har

    def forecast(spoilt: np.ndarray, origins: np.ndarray) -> np.ndarray:
        of_spoilt = windows_of(spoilt)
        scaled = scaled_shape(har, of_spoilt, origins)
        return baselines(of_spoilt, origins, distributions={LOG_HAR: scaled})[LOG_HAR].distribution

    assert not leaks(forecast, values, np.array([320, 1400]))
    spoilt = values.copy()
    spoilt[windows.parts.train_end :] *= 7
    again = fit_log_har(with_parts(windows_of(spoilt)))
    for name, array in har.arrays.items():
        np.testing.assert_array_equal(array, getattr(again, name))
