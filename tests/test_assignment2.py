"""Seq2Seq: the course's weight count, Keras' function, decoding identities, the quantile head, leaks, and the real scripts."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from assignment2.model import Forecaster, Seq2Seq, load_forecasters, pinball, save_forecasters
from common.backtest import LEVELS, crps_quantiles
from common.cli import InputError
from common.forecast import Windows
from common.prices import COINS, simulate
from common.windows import calendar, ewma_matrices, future, leaks, past
from tests.conftest import assert_refused, assert_same_after_kill_9, call

DECAYS = (0.8, 0.97)


@pytest.fixture(scope="module")
def prices():
    return simulate(COINS, 600, 1)


def forecaster(prices, random_head: bool = True, seed: int = 0) -> Forecaster:
    torch.manual_seed(seed)
    model = Forecaster(7, 48, 3, 8, DECAYS, 0.0)
    model.fit_scales(
        *inputs(prices, np.arange(60, 300)),
        np.log(future(prices.values, np.arange(60, 300), 3) / prices.values[60:300, None]),
    )
    if random_head:
        torch.nn.init.normal_(model.network.head.weight, std=0.3)
    return model.eval()


def inputs(prices, at, values=None):
    values = prices.values if values is None else values
    return past(values, at, 48), past(prices.times[:, None], at, 48)[..., 0]


def test_the_courses_network_has_8_078_007_weights():
    model = Seq2Seq(7, 7, 1000, 7)
    assert model.parameters_trained == 8_078_007
    assert (
        sum(p.numel() for p in model.parameters()) == 8_078_007 + 2 * 4000
    )  # torch's second biases, held at zero


def test_training_leaves_the_second_bias_at_zero():
    model = Seq2Seq(2, 2, 4, 2)
    loss = model(torch.randn(3, 5, 2), torch.randn(3, 2, 2)).square().sum()
    loss.backward()
    assert model.encoder.bias_hh_l0.grad is None
    assert not model.decoder.bias_hh_l0.any()


def test_teacher_forcing_is_decoding_that_is_fed_the_truth():
    torch.manual_seed(0)
    model, context, truth = Seq2Seq(3, 3, 6, 3), torch.randn(2, 9, 3), torch.randn(2, 4, 3)
    forced = model(context, truth)
    fed, attention = model.decode(context, truth[:, 0], 4, lambda _, step: truth[:, step])
    torch.testing.assert_close(forced, fed)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4))
    free, _ = model.decode(context, truth[:, 0], 4)
    assert not torch.allclose(free[:, 1:], forced[:, 1:])
    torch.testing.assert_close(free[:, 0], forced[:, 0])


def test_attention_by_hand():
    model = Seq2Seq(1, 1, 2, 1)
    memory, state = torch.randn(1, 5, 2), (torch.randn(1, 1, 2), torch.randn(1, 1, 2))
    output, attention, (hidden, _) = model.step(torch.zeros(1, 1, 1), memory, state)
    query = hidden[0, 0]
    weights = torch.exp(memory[0] @ query) / torch.exp(memory[0] @ query).sum()
    torch.testing.assert_close(attention[0, 0], weights)
    expected = model.head.weight @ torch.cat([query, weights @ memory[0]]) + model.head.bias
    torch.testing.assert_close(output[0, 0], expected)


def test_the_network_is_keras_function_with_the_same_weights(tmp_path):
    """Keras' own layers, built as the course built them, give the same outputs for copied weights."""
    torch.manual_seed(0)
    model, context, fed = Seq2Seq(3, 3, 5, 3), torch.randn(2, 7, 3), torch.randn(2, 4, 3)
    arrays = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    np.savez(tmp_path / "in.npz", context=context.numpy(), fed=fed.numpy(), **arrays)
    script = """
import sys, numpy as np, keras
from keras import layers
held = np.load(sys.argv[1], allow_pickle=False)
a, b = keras.Input((7, 3)), keras.Input((4, 3))
memory, h, c = layers.LSTM(5, return_sequences=True, return_state=True, name="encoder")(a)
decoded = layers.LSTM(5, return_sequences=True, name="decoder")(b, initial_state=[h, c])
context = layers.Attention()([decoded, memory])
model = keras.Model([a, b], layers.Dense(3, name="head")(layers.Concatenate()([decoded, context])))
for name in ("encoder", "decoder"):
    model.get_layer(name).set_weights([held[name + ".weight_ih_l0"].T, held[name + ".weight_hh_l0"].T, held[name + ".bias_ih_l0"]])
model.get_layer("head").set_weights([held["head.weight"].T, held["head.bias"]])
np.save(sys.argv[2], model.predict([held["context"], held["fed"]], verbose=0))
"""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "in.npz"), str(tmp_path / "out.npy")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy", allow_pickle=False),
        model(context, fed).detach().numpy(),
        atol=1e-5,
    )


def test_ewma_matrices_are_the_recursion():
    squares, (matrix,) = torch.rand(20), ewma_matrices(20, (0.9,))
    level, expected = squares.mean(), []
    for square in squares:
        level = 0.9 * level + 0.1 * square
        expected.append(level)
    torch.testing.assert_close(torch.from_numpy(matrix) @ squares, torch.stack(expected))


def test_calendar_names_hour_and_weekday():
    monday = np.datetime64("2024-01-01T00") + np.arange(24 * 14)
    found = calendar(monday)
    np.testing.assert_allclose(found[0], [0, 1, 0, 1, 0, 1], atol=1e-6)  # Monday, midnight
    np.testing.assert_allclose(found[24:48, :4], found[:24, :4], atol=1e-6)
    np.testing.assert_allclose(found[168:], found[:168], atol=1e-5)


def test_an_untrained_forecaster_is_no_change_with_scaled_intervals(prices):
    model, at = forecaster(prices, random_head=False), np.arange(350, 400)
    point, quantiles = model.predict(*inputs(prices, at))
    np.testing.assert_array_equal(point, np.repeat(prices.values[at][:, None], 3, 1))
    _, sigma, _ = model.inputs(*inputs(prices, at))
    base = (model.shape * model.spread[..., None]).numpy()
    expected = prices.values[at][:, None, :, None] * np.exp(base * sigma.numpy()[:, None, :, None])
    np.testing.assert_allclose(quantiles, expected, rtol=1e-4)


def test_quantiles_never_cross(prices):
    _, quantiles = forecaster(prices).predict(*inputs(prices, np.arange(350, 400)))
    assert (np.diff(quantiles, axis=-1) >= 0).all()


def test_a_forecast_does_not_see_past_its_origin(prices):
    model = forecaster(prices)
    assert not leaks(
        lambda values, at: model.predict(*inputs(prices, at, values))[1],
        prices.values,
        np.array([320, 450]),
    )
    assert not leaks(
        lambda values, at: model.predict(*inputs(prices, at, values))[0],
        prices.values,
        np.array([320, 450]),
    )


def test_a_recalibrated_forecast_does_not_see_past_its_origin_either(prices):
    model = forecaster(prices)

    def forecast(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        windows = Windows(dataclasses.replace(prices, values=values), None, 48, 3)
        look_back = windows.before(at)
        return windows.recalibrated(model.predict(*windows.inputs(look_back))[1], look_back)[-1:]

    raw = model.predict(*inputs(prices, np.array([450])))[1]
    assert not np.allclose(
        forecast(prices.values, np.array([450])), raw, rtol=1e-4
    )  # it does learn from what came
    assert not leaks(forecast, prices.values, np.array([320, 450]))


def test_the_objective_is_the_score():
    quantiles, truth = torch.rand(4, 3, 2, 99).sort(-1)[0], torch.rand(4, 3, 2)
    found = pinball(quantiles, truth, torch.tensor(LEVELS, dtype=torch.float32))
    np.testing.assert_allclose(
        found.numpy(), crps_quantiles(quantiles.numpy(), truth.numpy()), atol=1e-6
    )


def test_shrink_lies_between_no_change_and_the_location(prices):
    model, at = forecaster(prices), np.arange(350, 500)
    changes = np.log(future(prices.values, at, 3) / prices.values[at][:, None])
    before = model(*inputs(prices, at))[0].detach().numpy()
    model.fit_shrink(*inputs(prices, at), -before)  # the opposite of what is forecast
    assert (model.shrink == 0).all()
    model.fit_shrink(*inputs(prices, at), before / 2)
    np.testing.assert_allclose(model.shrink.numpy(), 0.5, atol=1e-3)
    model.fit_shrink(*inputs(prices, at), changes)
    assert ((model.shrink >= 0) & (model.shrink <= 1)).all()


def test_saved_forecasters_come_back_bit_for_bit(prices, tmp_path):
    models = [forecaster(prices, seed=seed) for seed in range(2)]
    save_forecasters(tmp_path / "m.safetensors", models, prices.series)
    again, series = load_forecasters(tmp_path / "m.safetensors")
    assert series == prices.series
    for one, other in zip(models, again, strict=True):
        for left, right in zip(
            one.predict(*inputs(prices, np.array([400]))),
            other.predict(*inputs(prices, np.array([400]))),
            strict=True,
        ):
            np.testing.assert_array_equal(left, right)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="not forecasters"):
        load_forecasters(tmp_path / "bad.safetensors")


def table(prices, rows=slice(None)) -> pd.DataFrame:
    return pd.DataFrame(prices.values[rows], columns=list(prices.series)).assign(
        time=pd.to_datetime(prices.times[rows], utc=True).strftime("%Y-%m-%dT%H:%M:%SZ")
    )[["time", *prices.series]]


def test_a_run_leaves_everything_that_the_readme_promises(smoke2):
    for name in (
        "run.json",
        "metrics.csv",
        "metrics.json",
        "report.pdf",
        "predictions.npz",
        "model.seq2seq.safetensors",
        "forecast_fans.png",
        "attention.png",
        "error_by_horizon.png",
        "error_by_cell.png",
        "calibration.png",
        "learning_curves.png",
        "as_assigned.png",
    ):
        assert (smoke2 / name).stat().st_size > 0, name
    rows = pd.DataFrame(json.loads((smoke2 / "metrics.json").read_text())["rows"])
    assert rows.value.notna().all()
    assigned = rows[rows.protocol == "as-assigned"]
    assert len(assigned) == 5
    pooled = rows[
        (rows.protocol == "held-out")
        & (rows.split == "test")
        & rows.series.isna()
        & rows.horizon.isna()
    ]
    assert set(pooled.model) == {
        "no change",
        "drift",
        "seasonal naive",
        "NLinear",
        "random walk",
        "Seq2Seq",
    }
    assert (pooled[(pooled.model == "no change") & (pooled.metric == "rmsse")].value == 1).all()
    cells = rows[(rows.metric == "p_crps") & (rows.model == "Seq2Seq") & (rows.split == "test")]
    assert len(cells) == 3 * 35  # each seed, their mean, and it before recalibration
    assert (pooled[pooled.variant == "quantile head"].n_seeds == 2).all()


def test_poisoned_test_prices_leave_the_trained_weights_as_they_are(smoke2, tmp_path):
    steps = json.loads((smoke2 / "run.json").read_text())["config"]["steps"]
    prices = simulate(COINS, steps, 0)
    spoilt = prices.values.copy()
    spoilt[-steps // 4 :] *= np.random.default_rng(0).uniform(0.5, 2, spoilt[-steps // 4 :].shape)
    clean, poisoned = tmp_path / "clean.csv", tmp_path / "poisoned.csv"
    table(prices).to_csv(clean, index=False)
    table(prices).assign(**dict(zip(prices.series, spoilt.T, strict=True))).to_csv(
        poisoned, index=False
    )
    words = [
        "--preset",
        "smoke",
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--assigned-epochs",
        "1",
        "--source",
        "csv",
    ]
    files = []
    for path in (clean, poisoned):
        done = call("assignment2/train.py", *words, "--data", path, "--out", tmp_path / path.stem)
        assert done.returncode == 0, done.stderr
        files.append((tmp_path / path.stem / "model.seq2seq.safetensors").read_bytes())
    assert files[0] == files[1]


def test_kill_9_in_training_and_resume_gives_the_same_metrics(smoke2, tmp_path):
    assert_same_after_kill_9(
        smoke2, "assignment2", "simulated", tmp_path, "forecaster-1.safetensors"
    )


def check_evaluate(script: str, run: Path, place: Path) -> None:
    """evaluate.py repeats the run's pooled scores, and scores every origin of prices that the run has not seen."""
    done = call(script, "--run", run, "--out", place / "scores.json")
    assert done.returncode == 0, done.stderr

    def pooled(rows: list[dict]) -> dict:
        return {
            (row["model"], row["variant"], row["metric"]): row["value"]
            for row in rows
            if row["protocol"] == "held-out"
            and row["split"] == "test"
            and row["series"] is None
            and row["horizon"] is None
        }

    again = pooled(json.loads((place / "scores.json").read_text())["rows"])
    assert again == pytest.approx(pooled(json.loads((run / "metrics.json").read_text())["rows"]))
    table(simulate(COINS, 400, 7)).to_csv(place / "new.csv.gz", index=False)
    done = call(script, "--run", run, "--data", place / "new.csv.gz", "--out", place / "new.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "new.json").read_text())["run"]["origins"] == 400 - 96 - 5 + 1


def test_evaluate_repeats_the_runs_scores_and_scores_new_prices(smoke2, tmp_path):
    check_evaluate("assignment2/evaluate.py", smoke2, tmp_path)


def test_predict_tells_the_hours_after_the_last_known_one(smoke2, tmp_path):
    prices = simulate(COINS, 400, 7)
    table(prices).to_parquet(tmp_path / "now.parquet", index=False)
    done = call(
        "assignment2/predict.py",
        "--run",
        smoke2,
        "--data",
        tmp_path / "now.parquet",
        "--out",
        tmp_path / "out.csv",
    )
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tmp_path / "out.csv")
    assert len(found) == 35
    assert pd.Timestamp(found.time[0]) == pd.Timestamp(prices.times[-1], tz="UTC") + pd.Timedelta(
        "1h"
    )
    assert (found.low_95 < found.low_80).all()
    assert (found.low_80 < found.high_80).all()
    assert (found.high_80 < found.high_95).all()
    np.testing.assert_allclose(
        found[found.series == "BTC"].no_change, prices.values[-1, 0], rtol=1e-6
    )
    assert (tmp_path / "out.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train", ["--source", "csv", "--data", "nowhere.csv"], "nowhere.csv"),
        ("train", ["--source", "csv", "--data", "short.csv"], "60 rows"),
        ("train", ["--source", "csv", "--data", "zero.csv"], "BTC"),
        ("evaluate", ["--run", "RUN", "--data", "missing.csv"], "DOT"),
        ("evaluate", ["--run", "RUN", "--data", "extra.csv"], "XRP"),
        ("evaluate", ["--run", "RUN", "--data", "short.csv"], "60 rows"),
        ("evaluate", ["--run", "nowhere"], "nowhere"),
        ("predict", ["--run", "RUN", "--data", "short.csv"], "96 rows"),
        ("predict", ["--run", "RUN", "--data", "gap.csv"], "without a gap"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(smoke2, tmp_path, script, words, message):
    whole = table(simulate(COINS, 300, 3))
    whole[:60].to_csv(tmp_path / "short.csv", index=False)
    whole.assign(BTC=[0.0, *whole.BTC[1:]]).to_csv(tmp_path / "zero.csv", index=False)
    whole.drop(columns="DOT").to_csv(tmp_path / "missing.csv", index=False)
    whole.assign(XRP=1.0).to_csv(tmp_path / "extra.csv", index=False)
    whole.drop(index=280).to_csv(tmp_path / "gap.csv", index=False)
    assert_refused(
        f"assignment2/{script}.py",
        [smoke2 if word == "RUN" else word for word in words],
        message,
        tmp_path,
    )


def test_one_series_alone_works(tmp_path):
    one = simulate(COINS, 1500, 0)
    table(one)[["time", "ETH"]].to_csv(tmp_path / "one.csv", index=False)
    done = call(
        "assignment2/train.py",
        "--preset",
        "smoke",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--assigned-epochs",
        "2",
        "--data",
        tmp_path / "one.csv",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    rows = pd.DataFrame(json.loads((Path(tmp_path) / "run/metrics.json").read_text())["rows"])
    assert set(rows.series.dropna()) == {"ETH"}
