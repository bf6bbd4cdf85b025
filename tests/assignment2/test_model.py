"""Seq2Seq: the weight count, Keras' function, decoding, the quantile head, leaks and files."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from assignment2.config import Config, Start
from assignment2.model import Forecaster, Seq2Seq, load_forecasters, pinball, save_forecasters
from assignment2.train import truth_share
from common.cli import InputError
from common.forecasting.baselines import scaled_shape
from common.forecasting.metrics import LEVELS, crps_quantiles
from common.forecasting.prices import COINS, Prices
from common.forecasting.simulate import simulate
from common.forecasting.volatility import LogHar, fit_log_har
from common.forecasting.windows import Parts, Windows, calendar, future, steps_ahead
from tests.assignment2.helpers import CONTEXT, inputs
from tests.forecasting.helpers import leaks

HORIZON = 3
DECAYS = (0.8, 0.97)


@pytest.fixture(scope="module")
def prices() -> Prices:
    return simulate(COINS, 600, 1)


def changes(prices: Prices, origins: np.ndarray) -> np.ndarray:
    return np.log(future(prices.values, origins, HORIZON) / prices.values[origins, None])


def log_har(prices: Prices, origins: np.ndarray) -> LogHar:
    parts = Parts(origins, origins, origins, int(origins[-1]) + HORIZON + 1)
    return fit_log_har(Windows(prices, parts, CONTEXT, HORIZON))


def forecaster(
    prices: Prices, random_head: bool = True, seed: int = 0, start: Start = "har"
) -> Forecaster:
    torch.manual_seed(seed)
    model = Forecaster(7, CONTEXT, HORIZON, 8, DECAYS, 0.0, start)
    origins = np.arange(60, 300)
    har = log_har(prices, origins) if start == "har" else None
    model.fit_scales(inputs(prices, origins), changes(prices, origins), har)
    if random_head:
        torch.nn.init.normal_(model.network.head.weight, std=0.3)
    return model.eval()


# ------------------------------------------------------------------------------------ Seq2Seq


def test_the_courses_network_has_8_078_007_weights():
    model = Seq2Seq(7, 7, 1000, 7)
    second_biases = 2 * 4000  # torch's, held at zero
    assert model.params == 8_078_007
    assert sum(weight.numel() for weight in model.parameters()) == 8_078_007 + second_biases


def test_training_leaves_the_second_bias_at_zero():
    model = Seq2Seq(2, 2, 4, 2)
    loss = model(torch.randn(3, 5, 2), torch.randn(3, 2, 2)).square().sum()
    loss.backward()
    assert model.encoder.bias_hh_l0.grad is None
    assert not model.decoder.bias_hh_l0.any()


def test_teacher_forcing_is_decoding_that_is_fed_the_truth():
    torch.manual_seed(0)
    model = Seq2Seq(3, 3, 6, 3)
    context = torch.randn(2, 9, 3)
    truth = torch.randn(2, 4, 3)
    forced = model(context, truth)
    fed, attention = model.decode(context, truth[:, 0], 4, lambda _, step: truth[:, step])
    torch.testing.assert_close(forced, fed)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4))
    free, _ = model.decode(context, truth[:, 0], 4)
    assert not torch.allclose(free[:, 1:], forced[:, 1:])
    torch.testing.assert_close(free[:, 0], forced[:, 0])


def test_attention_by_hand():
    model = Seq2Seq(1, 1, 2, 1)
    memory = torch.randn(1, 5, 2)
    state = (torch.randn(1, 1, 2), torch.randn(1, 1, 2))
    output, attention, (hidden, _) = model.step(torch.zeros(1, 1, 1), memory, state)
    query = hidden[0, 0]
    weights = torch.exp(memory[0] @ query) / torch.exp(memory[0] @ query).sum()
    torch.testing.assert_close(attention[0, 0], weights)
    expected = model.head.weight @ torch.cat([query, weights @ memory[0]]) + model.head.bias
    torch.testing.assert_close(output[0, 0], expected)


KERAS = """
import sys, numpy as np, keras
from keras import layers
arrays = np.load(sys.argv[1], allow_pickle=False)
a, b = keras.Input((7, 3)), keras.Input((4, 3))
encoder = layers.LSTM(5, return_sequences=True, return_state=True, name="encoder")
decoder = layers.LSTM(5, return_sequences=True, name="decoder")
memory, h, c = encoder(a)
decoded = decoder(b, initial_state=[h, c])
context = layers.Attention()([decoded, memory])
model = keras.Model([a, b], layers.Dense(3, name="head")(layers.Concatenate()([decoded, context])))
for name in ("encoder", "decoder"):
    kernels = [arrays[f"{name}.weight_{part}_l0"].T for part in ("ih", "hh")]
    model.get_layer(name).set_weights([*kernels, arrays[f"{name}.bias_ih_l0"]])
model.get_layer("head").set_weights([arrays["head.weight"].T, arrays["head.bias"]])
np.save(sys.argv[2], model.predict([arrays["context"], arrays["fed"]], verbose=0))
"""


def test_the_network_is_keras_function_with_the_same_weights(tmp_path):
    """Keras' own layers, built as the course built them, give the same outputs."""
    torch.manual_seed(0)
    model = Seq2Seq(3, 3, 5, 3)
    context = torch.randn(2, 7, 3)
    fed = torch.randn(2, 4, 3)
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    np.savez(tmp_path / "in.npz", context=context.numpy(), fed=fed.numpy(), **weights)
    result = subprocess.run(
        [sys.executable, "-c", KERAS, str(tmp_path / "in.npz"), str(tmp_path / "out.npy")],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"},
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    outputs = np.load(tmp_path / "out.npy", allow_pickle=False)
    np.testing.assert_allclose(outputs, model(context, fed).detach().numpy(), atol=1e-5)


# --------------------------------------------------------------------------------- forecaster


def test_the_calendar_names_hour_and_weekday():
    hours = np.datetime64("2024-01-01T00") + np.arange(24 * 14)  # from a Monday's midnight
    columns = calendar(hours)
    np.testing.assert_allclose(columns[0], [0, 1, 0, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(columns[24:48, :4], columns[:24, :4], atol=1e-6)
    np.testing.assert_allclose(columns[168:], columns[:168], atol=1e-5)


def test_the_steps_ahead_go_on_by_the_hour_or_by_the_day():
    hours = (np.datetime64("2024-01-01T22") + np.arange(2)).astype("datetime64[ns]")
    ahead = steps_ahead(hours[None], 2)[0].astype("datetime64[h]")
    assert [str(hour) for hour in ahead] == ["2024-01-02T00", "2024-01-02T01"]
    days = (np.datetime64("2024-01-01") + np.arange(12)).astype("datetime64[ns]")
    ahead = steps_ahead(days[None], 2)[0].astype("datetime64[D]")
    assert [str(day) for day in ahead] == ["2024-01-13", "2024-01-14"]


@pytest.mark.parametrize("start", ["har", "ewma"])
def test_an_untrained_forecaster_is_no_change_with_scaled_intervals(prices, start):
    model = forecaster(prices, random_head=False, start=start)
    origins = np.arange(350, 400)
    point, quantiles = model.predict(*inputs(prices, origins))
    last = prices.values[origins][:, None]
    np.testing.assert_array_equal(point, np.repeat(last, HORIZON, 1))
    _, sigma, _ = model.inputs(*inputs(prices, origins))
    base = (model.shape * model.spread[..., None]).numpy()
    expected = last[..., None] * np.exp(base * sigma.numpy()[..., None])
    np.testing.assert_allclose(quantiles, expected, rtol=1e-4)


def test_an_untrained_forecaster_is_the_log_har_that_it_starts_from(prices):
    train = np.arange(60, 300)
    har = log_har(prices, train)
    origins = np.arange(350, 400)
    _, quantiles = forecaster(prices, random_head=False).predict(*inputs(prices, origins))
    windows = Windows(prices, None, CONTEXT, HORIZON)
    expected = scaled_shape(har, windows, origins).quantiles(prices.values[origins], log=True)
    np.testing.assert_allclose(quantiles, expected, rtol=1e-4)


def test_quantiles_never_cross(prices):
    _, quantiles = forecaster(prices).predict(*inputs(prices, np.arange(350, 400)))
    assert (np.diff(quantiles, axis=-1) >= 0).all()


@pytest.mark.parametrize("output", [0, 1], ids=["point", "quantiles"])
def test_a_forecast_does_not_see_past_its_origin(prices, output):
    model = forecaster(prices)
    origins = np.array([320, 450])

    def forecast(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        return model.predict(*inputs(prices, at, values))[output]

    assert not leaks(forecast, prices.values, origins)


def test_a_recalibrated_forecast_does_not_see_past_its_origin_either(prices):
    model = forecaster(prices)

    def forecast(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        windows = Windows(dataclasses.replace(prices, values=values), None, CONTEXT, HORIZON)
        look_back = windows.before(at)
        _, quantiles = model.predict(*windows.inputs(look_back))
        return windows.recalibrated(quantiles, look_back)[-1:]

    origin = np.array([450])
    _, raw = model.predict(*inputs(prices, origin))
    assert not np.allclose(forecast(prices.values, origin), raw, rtol=1e-4)  # it has an effect
    assert not leaks(forecast, prices.values, np.array([320, 450]))


def test_the_objective_is_the_score():
    quantiles = torch.rand(4, 3, 2, 99).sort(-1)[0]
    truth = torch.rand(4, 3, 2)
    loss = pinball(quantiles, truth, torch.tensor(LEVELS, dtype=torch.float32))
    crps = crps_quantiles(quantiles.numpy(), truth.numpy())
    np.testing.assert_allclose(loss.numpy(), crps, atol=1e-6)


def test_the_share_of_the_truth_falls_linearly_to_none():
    config = Config(teacher_forcing=0.25, teacher_until=0.1)
    shares = [truth_share(config, step, 1000) for step in (0, 50, 100, 999)]
    np.testing.assert_allclose(shares, [0.25, 0.125, 0, 0])


def test_shrink_lies_between_no_change_and_the_location(prices):
    model = forecaster(prices)
    origins = np.arange(350, 500)
    windows = inputs(prices, origins)
    location = model(*windows)[0].detach().numpy()
    model.fit_shrink(windows, -location)  # the opposite of what is forecast
    assert (model.shrink == 0).all()
    model.fit_shrink(windows, location / 2)
    np.testing.assert_allclose(model.shrink.numpy(), 0.5, atol=1e-3)
    model.fit_shrink(windows, changes(prices, origins))
    assert ((model.shrink >= 0) & (model.shrink <= 1)).all()


def test_saved_forecasters_come_back_bit_for_bit(prices, tmp_path):
    models = [forecaster(prices, seed=seed) for seed in range(2)]
    save_forecasters(tmp_path / "m.safetensors", models, prices.series)
    loaded, series = load_forecasters(tmp_path / "m.safetensors")
    assert series == prices.series
    window = inputs(prices, np.array([400]))
    for model, again in zip(models, loaded, strict=True):
        for expected, output in zip(model.predict(*window), again.predict(*window), strict=True):
            np.testing.assert_array_equal(expected, output)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="not forecasters"):
        load_forecasters(tmp_path / "bad.safetensors")
