"""The Transformer: the weight count, positions, attention, both normalisations, leaks and files."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from assignment3.backend import keras, layers
from assignment3.config import EncoderSettings, ForecasterSettings, Normalisation
from assignment3.model import (
    Attention,
    Forecaster,
    SinusoidalPositions,
    course_transformer,
    encoder,
    load_all,
    load_model,
    pinball,
    save_model,
)
from common.cli import InputError
from common.forecasting.metrics import crps_quantiles
from common.forecasting.prices import COINS, Prices
from common.forecasting.simulate import simulate
from common.forecasting.volatility import LogHar, ScaledShape, fit_log_har
from common.forecasting.windows import MinMax, Windows, future, known_and_ahead, past, split
from tests.assignment2.helpers import CONTEXT, inputs
from tests.forecasting.helpers import leaks

HORIZON = 3
FITTED_HARS: dict[bytes, LogHar] = {}
SMALL = EncoderSettings(width=8, blocks=2, heads=2, key=4, feed_forward=0, norm="post", dropout=0.0)


@pytest.fixture(scope="module")
def prices() -> Prices:
    return simulate(COINS, 600, 1)


def forecaster(
    prices: Prices, normalisation: Normalisation = "log", random_head: bool = True
) -> Forecaster:
    settings = ForecasterSettings(
        series=prices.series,
        context=CONTEXT,
        horizon=HORIZON,
        normalisation=normalisation,
        decays=(0.8, 0.97),
        **dataclasses.asdict(SMALL),
    )
    model = Forecaster.build(settings, seed=0)
    known, _ = inputs(prices, np.arange(60, 300))
    model.fit_scales(known, har_of(prices))
    if random_head:
        kernel = model.model.get_layer("head").kernel
        kernel.assign(0.3 * np.random.default_rng(0).standard_normal(kernel.shape))
    return model


def har_of(prices: Prices) -> LogHar:
    """The log-HAR-t of prices, fitted once; of their differences where one has no logarithm."""
    key = prices.values.tobytes()
    if key not in FITTED_HARS:
        log = bool((prices.values > 0).all())
        parts = split(prices.contiguous(), CONTEXT, HORIZON, 150, 100)
        FITTED_HARS[key] = fit_log_har(Windows(prices, parts, CONTEXT, HORIZON, log=log))
    return FITTED_HARS[key]


def random_tokens(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# ------------------------------------------------------------------------------------ network


def test_the_courses_network_has_549_319_weights():
    assert course_transformer(7, 96, 5).count_params() == 549_319


def test_positions_by_hand():
    layer = SinusoidalPositions()
    code = np.asarray(layer(np.zeros((1, 50, 6), np.float32)))[0]
    for position in (0, 1, 7, 49):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)  # Vaswani et al. 2017, section 3.5
            columns = code[position, [2 * pair, 2 * pair + 1]]
            np.testing.assert_allclose(columns, [np.sin(angle), np.cos(angle)], atol=1e-5)
    # a shift is one rotation, the same everywhere
    rotate = [[np.cos(3), np.sin(3)], [-np.sin(3), np.cos(3)]]
    np.testing.assert_allclose(code[3:, :2], code[:-3, :2] @ np.transpose(rotate), atol=1e-5)


def test_attention_is_keras_own_with_the_same_weights():
    keras.utils.set_random_seed(0)
    ours = Attention(3, 4)
    keras_own = layers.MultiHeadAttention(3, 4)
    tokens = random_tokens(2, 9, 5)
    ours(tokens[:, -2:], tokens)
    keras_own(tokens[:, -2:], tokens)
    keras_own.set_weights(ours.get_weights())
    output, weights = ours(tokens[:, -2:], tokens, return_attention_scores=True)
    expected, scores = keras_own(tokens[:, -2:], tokens, return_attention_scores=True)
    np.testing.assert_allclose(output, expected, atol=1e-6)
    np.testing.assert_allclose(weights, scores, atol=1e-6)
    np.testing.assert_allclose(np.asarray(weights).sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("feed_forward", [0, 12])
def test_reading_fewer_positions_changes_none_of_them(norm, feed_forward):
    settings = dataclasses.replace(SMALL, norm=norm, feed_forward=feed_forward)
    source = keras.Input((9, 5))
    few = keras.Model(source, encoder(source, 3, settings))
    whole = keras.Model(source, encoder(source, 9, settings))
    whole.set_weights(few.get_weights())
    tokens = random_tokens(2, 9, 5)
    expected = whole.predict(tokens, verbose=0)[:, -3:]
    np.testing.assert_allclose(few.predict(tokens, verbose=0), expected, atol=1e-6)


def test_without_positions_attention_would_not_know_the_order():
    source = keras.Input((9, 5))
    model = keras.Model(source, encoder(source, 1, SMALL))
    tokens = random_tokens(1, 9, 5)
    shuffled = tokens[:, [3, 1, 0, 2, 4, 5, 6, 7, 8]]

    def outputs() -> tuple[np.ndarray, np.ndarray]:
        return model.predict(tokens, verbose=0), model.predict(shuffled, verbose=0)

    one, other = outputs()
    assert not np.allclose(one, other, atol=1e-4)
    positions = next(layer for layer in model.layers if isinstance(layer, SinusoidalPositions))
    positions.code = np.zeros_like(positions.code)
    model.make_predict_function(force=True)
    one, other = outputs()
    np.testing.assert_allclose(one, other, atol=1e-5)


# --------------------------------------------------------------------------------- forecaster


@pytest.mark.parametrize("normalisation", ["log", "minmax"])
def test_an_untrained_forecaster_is_no_change_with_scaled_intervals(prices, normalisation):
    model = forecaster(prices, normalisation, random_head=False)
    origins = np.arange(350, 400)
    known, times = inputs(prices, origins)
    point, quantiles = model.predict(known, times)
    last = prices.values[origins][:, None]
    np.testing.assert_allclose(point, np.repeat(last, HORIZON, 1), rtol=1e-12)
    _, unit = model.inputs(known, times)
    moves = np.asarray(model.fitted.fitted_shape) * unit[..., None]
    if normalisation == "log":
        expected = last[..., None] * np.exp(moves)
    else:
        expected = last[..., None] + moves * MinMax.fit(known, 1).span[..., None]
    np.testing.assert_allclose(quantiles, expected, rtol=1e-4)


@pytest.mark.parametrize("normalisation", ["log", "minmax"])
def test_a_path_change_goes_back_to_its_price(prices, normalisation):
    model = forecaster(prices, normalisation)
    origins = np.arange(350, 360)
    known = past(prices.values, origins, CONTEXT)
    coming = future(prices.values, origins, HORIZON)
    changes = model.targets(known, coming)
    np.testing.assert_allclose(model._prices(known, changes), coming, rtol=1e-10)
    one_quantile = model._prices(known, changes[..., None])[..., 0]
    np.testing.assert_allclose(one_quantile, coming, rtol=1e-10)


@pytest.mark.parametrize("normalisation", ["log", "minmax"])
def test_quantiles_never_cross(prices, normalisation):
    model = forecaster(prices, normalisation)
    _, quantiles = model.predict(*inputs(prices, np.arange(350, 400)))
    assert (np.diff(quantiles, axis=-1) >= 0).all()


@pytest.mark.parametrize("normalisation", ["log", "minmax"])
@pytest.mark.parametrize("output", [0, 1], ids=["point", "quantiles"])
def test_a_forecast_does_not_see_past_its_origin(prices, normalisation, output):
    model = forecaster(prices, normalisation)

    def forecast(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        return model.predict(*inputs(prices, at, values))[output]

    assert not leaks(forecast, prices.values, np.array([320, 450]))


def test_minmax_takes_prices_below_zero_and_does_not_care_about_their_level(prices):
    origins = np.arange(350, 360)
    low = prices.values - 1.5 * prices.values.max(0)
    model = forecaster(dataclasses.replace(prices, values=low), "minmax")
    assert (low[origins] < 0).any()
    point, quantiles = model.predict(*inputs(prices, origins, low))
    assert np.isfinite(quantiles).all()
    expected, _ = model.predict(*inputs(prices, origins))
    change = point - low[origins][:, None]
    expected_change = expected - prices.values[origins][:, None]
    np.testing.assert_allclose(change, expected_change, rtol=1e-5, atol=1e-9)


def test_the_last_tokens_know_the_hours_that_they_forecast(prices):
    model = forecaster(prices)
    origin = np.array([350])
    tokens, _ = model.inputs(*inputs(prices, origin))
    later, _ = model.inputs(*inputs(prices, origin + HORIZON))
    # three hours later the same hours stand three tokens earlier
    calendar = np.s_[-6:]
    expected = later[0, :-HORIZON, calendar]
    np.testing.assert_allclose(tokens[0, HORIZON:, calendar], expected, atol=1e-6)


def test_attention_sums_to_one_over_the_context(prices):
    weights = forecaster(prices).attention(*inputs(prices, np.arange(350, 360)))
    assert weights.shape == (10, SMALL.heads, HORIZON, CONTEXT - 1)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_the_objective_is_the_score():
    rng = np.random.default_rng(0)
    quantiles = np.sort(rng.random((4, 3, 2, 99), np.float32), -1)
    truth = rng.random((4, 3, 2), np.float32)
    expected = crps_quantiles(quantiles, truth)
    np.testing.assert_allclose(pinball(quantiles, truth), expected, atol=1e-6)


def test_an_untrained_log_forecaster_is_the_log_har_t(prices):
    har = har_of(prices)
    origins = np.arange(350, 400)
    known, times = inputs(prices, origins)
    _, quantiles = forecaster(prices, random_head=False).predict(known, times)
    hours = np.concatenate(known_and_ahead(times, CONTEXT, HORIZON), 1)
    scaled = ScaledShape(har.scale(known, hours), har.shape)
    np.testing.assert_allclose(quantiles, scaled.quantiles(known[:, -1], log=True), rtol=1e-5)


def test_an_untrained_minmax_forecaster_is_the_log_har_t_in_dollars(prices):
    har = har_of(prices)
    known, times = inputs(prices, np.arange(350, 400))
    _, quantiles = forecaster(prices, "minmax", random_head=False).predict(known, times)
    hours = np.concatenate(known_and_ahead(times, CONTEXT, HORIZON), 1)
    scale = har.scale(known, hours) * known[:, -1:]
    expected = known[:, -1:, :, None] + scale[..., None] * har.shape
    np.testing.assert_allclose(quantiles, expected, rtol=1e-5)


def test_minmax_starts_from_a_log_har_t_of_differences_where_prices_are_below_zero(prices):
    below = dataclasses.replace(prices, values=prices.values - prices.values.max())
    har = har_of(below)
    assert not har.log
    known, times = inputs(below, np.arange(350, 400))
    _, quantiles = forecaster(below, "minmax", random_head=False).predict(known, times)
    hours = np.concatenate(known_and_ahead(times, CONTEXT, HORIZON), 1)
    expected = known[:, -1:, :, None] + har.scale(known, hours)[..., None] * har.shape
    np.testing.assert_allclose(quantiles, expected, rtol=1e-4, atol=1e-2)


# -------------------------------------------------------------------------------------- files

FRESH_PROCESS = """
import sys, pathlib, numpy as np
from assignment3.model import load_all
folder = pathlib.Path(sys.argv[1])
arrays = np.load(folder / "forecast.npz", allow_pickle=False)
(model,) = load_all(folder, "log")
point, quantiles = model.predict(arrays["known"], arrays["times"])
np.testing.assert_array_equal(point, arrays["point"])
np.testing.assert_array_equal(quantiles, arrays["quantiles"])
assert model.settings["series"] == ["BTC", "ETH", "DOGE", "ADA", "LTC", "SOL", "DOT"]
"""


def test_a_saved_network_forecasts_the_same_in_a_fresh_process_bit_for_bit(prices, tmp_path):
    model = forecaster(prices)
    save_model(tmp_path / "model.log-0.keras", model.model)
    known, times = inputs(prices, np.arange(350, 360))
    point, quantiles = model.predict(known, times)
    np.savez(tmp_path / "forecast.npz", known=known, times=times, point=point, quantiles=quantiles)
    result = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_a_network_is_rebuilt_from_its_own_settings(prices):
    model = forecaster(prices)
    again = Forecaster.build(ForecasterSettings(**model.settings), seed=0)
    again.model.set_weights(model.model.get_weights())
    assert again.settings == model.settings
    window = inputs(prices, np.array([400]))
    for expected, output in zip(model.predict(*window), again.predict(*window), strict=True):
        np.testing.assert_array_equal(expected, output)


def test_a_missing_or_truncated_network_is_refused(prices, tmp_path):
    with pytest.raises(InputError, match=r"make it with: python assignment3/train\.py"):
        load_all(tmp_path, "log")
    path = tmp_path / "model.keras"
    save_model(path, forecaster(prices).model)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a network that assignment3 saved"):
        load_model(path)
