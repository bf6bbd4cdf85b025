"""Seq2Seq with candles: what it starts from, leaks, files, and every script with and without."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import assignment2.evaluate
import assignment2.predict
import assignment2.train
from assignment2.config import Config
from assignment2.frames import fit, predict
from assignment2.model import Forecaster, load_forecasters, range_loss, save_forecasters
from common.cli import InputError
from common.forecasting.baselines import CANDLE_HAR, scaled_shape
from common.forecasting.candles import range_volatility
from common.forecasting.config import EvaluateConfig, PredictConfig
from common.forecasting.prices import COINS, Prices
from common.forecasting.simulate import simulate
from common.forecasting.volatility import fit_log_har
from common.forecasting.windows import Parts, Windows
from tests.assignment2.helpers import check_forecast, pooled_test_scores, table
from tests.conftest import assert_refused, run_main
from tests.forecasting.test_candles import long_table

CONTEXT, HORIZON = 48, 3
SHORT = ("--preset", "smoke", "--seeds", 1, "--epochs", 1, "--assigned-epochs", 1, "--candles")


def simulated(steps: int, seed: int) -> Prices:
    return simulate(COINS.with_candles(), steps, seed)


def windows_of(prices: Prices, train: np.ndarray | None = None) -> Windows:
    parts = None if train is None else Parts(train, train, train, int(train[-1]) + HORIZON + 1)
    return Windows(prices, parts, CONTEXT, HORIZON)


def forecaster(prices: Prices, random_head: bool = True, seed: int = 0) -> Forecaster:
    torch.manual_seed(seed)
    model = Forecaster(7, CONTEXT, HORIZON, 8, (0.8, 0.97), 0.0, "har", candles=True)
    windows = windows_of(prices, np.arange(60, 300))
    train = windows.parts.train
    model.fit_scales(windows.inputs(train), windows.changes(train), fit_log_har(windows))
    if random_head:
        torch.nn.init.normal_(model.network.head.weight, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def prices() -> Prices:
    return simulated(500, 1)


def test_an_untrained_network_is_the_log_har_with_ranges(prices):
    windows = windows_of(prices, np.arange(60, 300))
    origins = np.arange(350, 400)
    point, quantiles = forecaster(prices, random_head=False).predict(*windows.inputs(origins))
    last = prices.values[origins]
    expected = scaled_shape(fit_log_har(windows), windows, origins).quantiles(last, log=True)
    np.testing.assert_allclose(quantiles, expected, rtol=1e-4)
    np.testing.assert_array_equal(point, np.repeat(last[:, None], HORIZON, 1))


@pytest.mark.parametrize("field", [0, 1, 2], ids=["high", "low", "volume"])
def test_candles_after_the_origin_change_no_forecast_and_those_before_do(prices, field):
    model = forecaster(prices)
    origin = np.array([400])
    point, quantiles = model.predict(*windows_of(prices).inputs(origin))
    assert prices.candles is not None
    for row, changes in ((401, False), (395, True)):
        spoilt = prices.candles.copy()
        spoilt[row:, field] *= 0.5 if field == 1 else 2
        of_spoilt = windows_of(dataclasses.replace(prices, candles=spoilt))
        other_point, other = model.predict(*of_spoilt.inputs(origin))
        assert np.array_equal(quantiles, other) is not changes
        assert changes or np.array_equal(point, other_point)


def test_a_network_with_candles_needs_them_and_comes_back_from_its_file(prices, tmp_path):
    model = forecaster(prices)
    inputs = windows_of(prices).inputs(np.array([400]))
    with pytest.raises(ValueError, match="closes alone"):
        model.predict(*inputs[:2])
    save_forecasters(tmp_path / "m.safetensors", [model], prices.series)
    (again,), _ = load_forecasters(tmp_path / "m.safetensors")
    assert again.settings["candles"]
    for expected, output in zip(model.predict(*inputs), again.predict(*inputs), strict=True):
        np.testing.assert_array_equal(expected, output)
    closes = Forecaster(7, CONTEXT, HORIZON, 8, (0.8, 0.97), 0.0, "har")
    assert "candles" not in closes.settings
    assert closes.params < model.params


def test_the_range_loss_is_the_variance_of_the_log_of_spread_over_range(prices):
    windows = windows_of(prices)
    origins = np.array([100, 200])
    assert prices.candles is not None
    steps = range_volatility(prices.values[None], prices.candles[None])[0]  # from row 1 on
    expected = np.sqrt([(steps[origin : origin + 2] ** 2).sum(0) for origin in origins])
    ranges = windows.ranges_ahead(origins)
    np.testing.assert_allclose(ranges[:, 1], expected)

    quantiles = torch.zeros(2, HORIZON, 7, 99)
    quantiles[0, ..., -10], quantiles[1, ..., -10] = 0.01, 0.04
    factors = torch.tensor([[1.0], [4.0]])[..., None]
    same = torch.full((2, HORIZON, 7), 0.02) * factors
    assert range_loss(quantiles, same) == pytest.approx(0, abs=1e-9)  # a factor costs nothing
    other = torch.full((2, HORIZON, 7), 0.02)
    assert range_loss(quantiles, other) == pytest.approx(np.var(np.log([1.0, 4.0])), rel=1e-5)


# ---------------------------------------------------------------------------------- scripts


@pytest.fixture(scope="module")
def candle_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on a file of simulated candles."""
    folder = tmp_path_factory.mktemp("candles")
    long_table(simulated(1200, 0)).to_csv(folder / "prices.csv.gz", index=False)
    out = folder / "run"
    words = (*SHORT, "--data", folder / "prices.csv.gz", "--out", out)
    run_main(assignment2.train.main, Config, *words)
    return out


def test_a_run_says_what_it_read_and_evaluate_repeats_its_scores(candle_run, tmp_path):
    record = json.loads((candle_run / "run.json").read_text())
    assert record["config"]["candles"] is True
    assert record["data"]["candles"]["columns"] == ["high", "low", "volume"]
    rows = json.loads((candle_run / "metrics.json").read_text())["rows"]
    assert CANDLE_HAR in {(row["model"], row["variant"]) for row in rows}

    out = tmp_path / "scores.json"
    run_main(assignment2.evaluate.main, EvaluateConfig, "--run", candle_run, "--out", out)
    again = json.loads(out.read_text())["rows"]
    assert pooled_test_scores(again) == pytest.approx(pooled_test_scores(rows))


def test_new_candles_are_scored_and_forecast_and_closes_are_refused(candle_run, tmp_path):
    prices = simulated(400, 7)
    long_table(prices).to_parquet(tmp_path / "new.parquet", index=False)
    table(prices).to_csv(tmp_path / "closes.csv", index=False)
    new = ("--run", candle_run, "--data", tmp_path / "new.parquet")
    run_main(assignment2.evaluate.main, EvaluateConfig, *new, "--out", tmp_path / "new.json")
    assert json.loads((tmp_path / "new.json").read_text())["run"]["origins"] == 400 - 96 - 5 + 1
    run_main(assignment2.predict.main, PredictConfig, *new, "--out", tmp_path / "out.csv")
    check_forecast(prices, tmp_path / "out.csv")

    closes = ["--run", candle_run, "--data", "closes.csv"]
    train = [*SHORT, "--data", "closes.csv", "--out", "run"]
    for script, config, words in (
        (assignment2.evaluate, EvaluateConfig, closes),
        (assignment2.predict, PredictConfig, closes),
        (assignment2.train, Config, train),
    ):
        assert_refused(script.main, config, words, "closes alone", tmp_path)


def test_built_in_data_have_candles_too(tmp_path):
    words = (*SHORT, "--source", "simulated", "--out", tmp_path / "run")
    run_main(assignment2.train.main, Config, *words)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["data"]["candles"]["columns"] == ["high", "low", "volume"]
    assert "simulated" in record["data"]["notice"]


def test_data_frames_are_closes_alone(candle_run, tmp_path):
    frame = pd.DataFrame(table(simulate(COINS, 400, 7)))
    with pytest.raises(InputError, match="closes alone"):
        fit(frame, tmp_path / "run", preset="smoke", candles=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="closes alone"):
        predict(frame, candle_run)
