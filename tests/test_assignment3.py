"""The Transformer: the course's weight count, positions, attention, saving, both normalisations, leaks, and the real scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assignment3.backend import keras, layers
from assignment3.exchange import apart, load, parts_of
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
from common.backtest import LEVELS, crps_quantiles, rolling_quantiles
from common.cli import InputError, data_folder
from common.prices import COINS, simulate
from common.windows import MinMax, future, leaks, past, steps_ahead
from tests.conftest import assert_refused, assert_same_after_kill_9, call
from tests.test_assignment2 import check_evaluate, table

REAL = data_folder()
SMALL = {
    "width": 8,
    "blocks": 2,
    "heads": 2,
    "key": 4,
    "feed_forward": 0,
    "norm": "post",
    "dropout": 0.0,
}


@pytest.fixture(scope="module")
def prices():
    return simulate(COINS, 600, 1)


def inputs(prices, at, values=None):
    values = prices.values if values is None else values
    return past(values, at, 48), past(prices.times[:, None], at, 48)[..., 0]


def forecaster(prices, normalisation="log", random_head=True) -> Forecaster:
    model, at = (
        Forecaster.build(prices.series, 48, 3, normalisation, (0.8, 0.97), seed=0, **SMALL),
        np.arange(60, 300),
    )
    seen = inputs(prices, at)
    model.fit_scales(*seen, model.targets(seen[0], future(prices.values, at, 3)))
    if random_head:
        kernel = model.model.get_layer("head").kernel
        kernel.assign(0.3 * np.random.default_rng(0).standard_normal(kernel.shape))
    return model


# --------------------------------------------------------------------------------------------------------------- network


def test_the_courses_network_has_549_319_weights():
    assert course_transformer(7, 96, 5).count_params() == 549_319


def test_positions_by_hand():
    layer = SinusoidalPositions()
    code = np.asarray(layer(np.zeros((1, 50, 6), np.float32)))[0]
    for position in (0, 1, 7, 49):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)  # Vaswani et al. 2017, section 3.5
            np.testing.assert_allclose(
                code[position, [2 * pair, 2 * pair + 1]], [np.sin(angle), np.cos(angle)], atol=1e-5
            )
    # a shift is one rotation, the same everywhere
    rotate = [[np.cos(3), np.sin(3)], [-np.sin(3), np.cos(3)]]
    np.testing.assert_allclose(code[3:, :2], code[:-3, :2] @ np.transpose(rotate), atol=1e-5)


def test_attention_is_keras_own_with_the_same_weights():
    keras.utils.set_random_seed(0)
    ours, theirs, tokens = (
        Attention(3, 4),
        layers.MultiHeadAttention(3, 4),
        np.random.default_rng(0).standard_normal((2, 9, 5)).astype(np.float32),
    )
    ours(tokens[:, -2:], tokens)
    theirs(tokens[:, -2:], tokens)
    theirs.set_weights(ours.get_weights())
    mine, weights = ours(tokens[:, -2:], tokens, return_attention_scores=True)
    its, expected = theirs(tokens[:, -2:], tokens, return_attention_scores=True)
    np.testing.assert_allclose(mine, its, atol=1e-6)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(np.asarray(weights).sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("feed_forward", [0, 12])
def test_reading_fewer_positions_changes_none_of_them(norm, feed_forward):
    source, tokens = (
        keras.Input((9, 5)),
        np.random.default_rng(0).standard_normal((2, 9, 5)).astype(np.float32),
    )
    few, whole = (
        keras.Model(
            source, encoder(source, read, **(SMALL | {"norm": norm, "feed_forward": feed_forward}))
        )
        for read in (3, 9)
    )
    whole.set_weights(few.get_weights())
    np.testing.assert_allclose(
        few.predict(tokens, verbose=0), whole.predict(tokens, verbose=0)[:, -3:], atol=1e-6
    )


def test_without_positions_attention_would_not_know_the_order():
    source = keras.Input((9, 5))
    model, tokens = (
        keras.Model(source, encoder(source, 1, **SMALL)),
        np.random.default_rng(0).standard_normal((1, 9, 5)).astype(np.float32),
    )
    mixed = tokens[:, [3, 1, 0, 2, 4, 5, 6, 7, 8]]
    assert not np.allclose(
        model.predict(tokens, verbose=0), model.predict(mixed, verbose=0), atol=1e-4
    )
    positions = next(layer for layer in model.layers if isinstance(layer, SinusoidalPositions))
    positions.code = np.zeros_like(positions.code)
    model.make_predict_function(force=True)
    np.testing.assert_allclose(
        model.predict(tokens, verbose=0), model.predict(mixed, verbose=0), atol=1e-5
    )


# ------------------------------------------------------------------------------------------------------------ forecaster


@pytest.mark.parametrize("normalisation", ["log", "minmax"])
def test_an_untrained_forecaster_is_no_change_with_scaled_intervals(prices, normalisation):
    model, at = forecaster(prices, normalisation, random_head=False), np.arange(350, 400)
    seen = inputs(prices, at)
    point, quantiles = model.predict(*seen)
    np.testing.assert_allclose(point, np.repeat(prices.values[at][:, None], 3, 1), rtol=1e-12)
    _, unit = model.inputs(*seen)
    moves = np.asarray(model.fitted.fitted_shape) * unit[..., None]
    last = prices.values[at][:, None, :, None]
    span = MinMax.fit(seen[0], 1).span[..., None]
    np.testing.assert_allclose(
        quantiles,
        last * np.exp(moves) if normalisation == "log" else last + moves * span,
        rtol=1e-4,
    )


@pytest.mark.parametrize("normalisation", ["log", "minmax"])
def test_a_path_change_goes_back_to_its_price(prices, normalisation):
    model, at = forecaster(prices, normalisation), np.arange(350, 360)
    seen, coming = past(prices.values, at, 48), future(prices.values, at, 3)
    np.testing.assert_allclose(model._prices(seen, model.targets(seen, coming)), coming, rtol=1e-10)
    np.testing.assert_allclose(
        model._prices(seen, model.targets(seen, coming)[..., None])[..., 0], coming, rtol=1e-10
    )


@pytest.mark.parametrize("normalisation", ["log", "minmax"])
def test_quantiles_never_cross_and_nothing_past_the_origin_is_seen(prices, normalisation):
    model = forecaster(prices, normalisation)
    _, quantiles = model.predict(*inputs(prices, np.arange(350, 400)))
    assert (np.diff(quantiles, axis=-1) >= 0).all()
    for place in (0, 1):
        assert not leaks(
            lambda values, at, place=place: model.predict(*inputs(prices, at, values))[place],
            prices.values,
            np.array([320, 450]),
        )


def test_minmax_takes_prices_below_zero_and_does_not_care_about_their_level(prices):
    model, at = forecaster(prices, "minmax"), np.arange(350, 360)
    low = prices.values - 1.5 * prices.values.max(0)
    point, quantiles = model.predict(*inputs(prices, at, low))
    assert (low[at] < 0).any()
    assert np.isfinite(quantiles).all()
    np.testing.assert_allclose(
        point - low[at][:, None],
        model.predict(*inputs(prices, at))[0] - prices.values[at][:, None],
        rtol=1e-5,
        atol=1e-9,
    )


def test_the_last_tokens_know_the_hours_that_they_forecast(prices):
    model, at = forecaster(prices), np.array([350])
    seen, times = inputs(prices, at)
    tokens, _ = model.inputs(seen, times)
    later = model.inputs(*inputs(prices, at + 3))[0]
    np.testing.assert_allclose(
        tokens[0, 3:, -6:], later[0, :-3, -6:], atol=1e-6
    )  # three hours later the same tokens are three places earlier


def test_the_objective_is_the_score():
    rng = np.random.default_rng(0)
    quantiles, truth = (
        np.sort(rng.random((4, 3, 2, 99), np.float32), -1),
        rng.random((4, 3, 2), np.float32),
    )
    np.testing.assert_allclose(
        pinball(quantiles, truth), crps_quantiles(quantiles, truth), atol=1e-6
    )


def test_a_saved_network_tells_the_same_in_a_fresh_process_bit_for_bit(prices, tmp_path):
    model, at = forecaster(prices), np.arange(350, 360)
    save_model(tmp_path / "model.log-0.keras", model.model)
    seen, times = inputs(prices, at)
    point, quantiles = model.predict(seen, times)
    np.savez(tmp_path / "told.npz", seen=seen, times=times, point=point, quantiles=quantiles)
    script = """
import sys, pathlib, numpy as np
from assignment3.model import load_all
place = pathlib.Path(sys.argv[1])
held = np.load(place / "told.npz", allow_pickle=False)
(model,) = load_all(place, "log")
for told, expected in zip(model.predict(held["seen"], held["times"]), (held["point"], held["quantiles"])):
    np.testing.assert_array_equal(told, expected)
assert model.settings["series"] == ["BTC", "ETH", "DOGE", "ADA", "LTC", "SOL", "DOT"]
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_missing_or_truncated_network_is_refused(prices, tmp_path):
    with pytest.raises(InputError, match=r"make it with: python assignment3/train\.py"):
        load_all(tmp_path, "log")
    save_model(tmp_path / "model.keras", forecaster(prices).model)
    (tmp_path / "model.keras").write_bytes((tmp_path / "model.keras").read_bytes()[:-100])
    with pytest.raises(InputError, match="not a network that assignment3 saved"):
        load_model(tmp_path / "model.keras")


def test_days_ahead_leave_out_weekends_where_the_history_does():
    weekdays = np.busday_offset("2024-01-01", np.arange(10)).astype("datetime64[ns]")[
        None
    ]  # the last is a Friday
    assert [str(day)[:10] for day in steps_ahead(weekdays, 3)[0]] == [
        "2024-01-15",
        "2024-01-16",
        "2024-01-17",
    ]
    every = (np.datetime64("2024-01-01") + np.arange(12)).astype("datetime64[ns]")[None]
    assert [str(day)[:10] for day in steps_ahead(every, 2)[0]] == ["2024-01-13", "2024-01-14"]
    hours = np.datetime64("2024-01-01T22", "ns") + np.arange(2) * np.timedelta64(1, "h")
    assert [str(hour)[:13] for hour in steps_ahead(hours[None], 2)[0]] == [
        "2024-01-02T00",
        "2024-01-02T01",
    ]


# --------------------------------------------------------------------------------------------------------------- exchange


def test_the_parts_of_the_exchange_benchmark():
    parts = parts_of(1000, 96, 24)
    assert (parts["train"][0], parts["train"][-1] + 24) == (95, 699)
    assert (parts["validation"][0] + 1, parts["validation"][-1] + 24) == (700, 799)
    assert (parts["test"][0] + 1, parts["test"][-1] + 24) == (
        800,
        999,
    )  # every window, the last one too
    assert len(parts["test"]) == 200 - 24 + 1
    with pytest.raises(InputError, match="no validation window"):
        parts_of(600, 96, 150)


def test_series_apart_are_the_windows_less_their_last_value():
    values = np.random.default_rng(0).standard_normal((50, 2))
    seen, ahead = apart(values, np.array([20, 30]), 8, 3)
    np.testing.assert_allclose(
        seen[3], values[23:31, 1] - values[30, 1], atol=1e-6
    )  # second window, second series
    np.testing.assert_allclose(ahead[0], values[21:24, 0] - values[20, 0], atol=1e-6)


@pytest.mark.realdata
@pytest.mark.skipif(
    not (REAL / "exchange_rate_lai2017.txt.gz").exists(),
    reason="no exchange_rate_lai2017.txt.gz in ADL_DATA_DIR",
)
def test_no_change_has_the_published_error_on_the_exchange_benchmark():
    rates = load(REAL / "exchange_rate_lai2017.txt.gz")
    known = rates[: int(len(rates) * 0.7)]
    values = (rates - known.mean(0)) / known.std(0)
    for horizon, published in (
        (96, 0.081),
        (192, 0.167),
        (336, 0.305),
    ):  # Zeng et al. 2023, table 2, Repeat
        at = parts_of(len(rates), 96, horizon)["test"]
        assert np.mean((future(values, at, horizon) - values[at][:, None]) ** 2) == pytest.approx(
            published, abs=0.002
        )


def test_the_exchange_benchmark_runs_on_a_small_table(tmp_path):
    walk = 1 + 0.01 * np.random.default_rng(0).standard_normal((900, 2)).cumsum(0)
    np.savetxt(tmp_path / "rates.txt", walk, delimiter=",")
    done = call(
        "assignment3/exchange.py",
        "--preset",
        "smoke",
        "--data",
        tmp_path / "rates.txt",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run/metrics.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"no change", "NLinear", "Transformer"}
    (tmp_path / "bad.txt").write_text("1.0,2.0\n1.0,nan\n")
    assert_refused("assignment3/exchange.py", ["--data", "bad.txt"], "row 2", tmp_path)
    assert_refused("assignment3/exchange.py", ["--data", "nowhere.txt"], "nowhere.txt", tmp_path)
    assert_refused(
        "assignment3/exchange.py", ["--data", "rates.txt", "--patch", "7"], "--patch 7", tmp_path
    )


# ---------------------------------------------------------------------------------------------------------------- scripts


def test_a_run_leaves_everything_that_the_readme_promises(smoke3):
    for name in (
        "run.json",
        "metrics.csv",
        "metrics.json",
        "report.pdf",
        "predictions.npz",
        "model.log-0.keras",
        "model.minmax-1.keras",
        "model.assigned-minmax.keras",
        "model.seq2seq.safetensors",
        "forecast_fans.png",
        "attention.png",
        "error_by_horizon.png",
        "error_by_cell_log.png",
        "error_by_cell_minmax.png",
        "log_against_seq2seq.png",
        "log_against_minmax.png",
        "calibration.png",
        "learning_curves.png",
        "as_assigned.png",
    ):
        assert (smoke3 / name).stat().st_size > 0, name
    rows = pd.DataFrame(json.loads((smoke3 / "metrics.json").read_text())["rows"])
    assert rows.value.notna().all()
    assert len(rows[rows.protocol == "as-assigned"]) == 2 * (2 + 3) + 2
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
        "Transformer",
        "Seq2Seq",
    }
    against = pooled[pooled.metric == "crps_against"]
    assert len(against) == 3
    assert (
        len(rows[(rows.metric == "p_crps_against") & (rows.split == "test") & rows.series.notna()])
        == 3 * 35
    )


def test_poisoned_test_prices_leave_the_trained_weights_as_they_are(tmp_path):
    steps = 1500
    whole = simulate(COINS, steps, 0)
    spoilt = whole.values.copy()
    spoilt[-steps // 4 :] *= np.random.default_rng(0).uniform(0.5, 2, spoilt[-steps // 4 :].shape)
    table(whole).to_csv(tmp_path / "clean.csv", index=False)
    table(whole).assign(**dict(zip(whole.series, spoilt.T, strict=True))).to_csv(
        tmp_path / "poisoned.csv", index=False
    )
    words, found = (
        [
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
        ],
        [],
    )
    for name in ("clean", "poisoned"):
        done = call(
            "assignment3/train.py",
            *words,
            "--data",
            tmp_path / f"{name}.csv",
            "--out",
            tmp_path / name,
        )
        assert done.returncode == 0, done.stderr
        found.append(
            [
                model.model.get_weights()
                for n in ("log", "minmax")
                for model in load_all(tmp_path / name, n)
            ]
        )
    for clean, poisoned in zip(*found, strict=True):
        for left, right in zip(clean, poisoned, strict=True):
            np.testing.assert_array_equal(left, right)


def test_kill_9_in_training_and_resume_gives_the_same_metrics(smoke3, tmp_path):
    assert_same_after_kill_9(smoke3, "assignment3", "simulated", tmp_path, "minmax-0.safetensors")


def test_evaluate_repeats_the_runs_scores_and_scores_new_prices(smoke3, tmp_path):
    check_evaluate("assignment3/evaluate.py", smoke3, tmp_path)


@pytest.mark.parametrize("model", ["minmax", "seq2seq"])
def test_predict_tells_the_hours_after_the_last_known_one(smoke3, tmp_path, model):
    whole = simulate(COINS, 400, 7)
    table(whole).to_parquet(tmp_path / "now.parquet", index=False)
    done = call(
        "assignment3/predict.py",
        "--run",
        smoke3,
        "--data",
        tmp_path / "now.parquet",
        "--model",
        model,
        "--out",
        tmp_path / "out.csv",
    )
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tmp_path / "out.csv")
    assert len(found) == 35
    assert pd.Timestamp(found.time[0]) == pd.Timestamp(whole.times[-1], tz="UTC") + pd.Timedelta(
        "1h"
    )
    assert (
        (found.low_95 < found.low_80)
        & (found.low_80 < found.high_80)
        & (found.high_80 < found.high_95)
    ).all()
    assert (tmp_path / "out.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train", ["--source", "csv", "--data", "nowhere.csv"], "nowhere.csv"),
        ("train", ["--source", "csv", "--data", "short.csv"], "60 rows"),
        ("train", ["--source", "csv", "--data", "zero.csv"], "BTC"),
        ("evaluate", ["--run", "RUN", "--data", "missing.csv"], "DOT"),
        ("evaluate", ["--run", "EMPTY"], "assignment3/train.py"),
        ("predict", ["--run", "RUN", "--data", "gap.csv"], "without a gap"),
        ("predict", ["--run", "TRUNCATED", "--data", "short.csv"], "model.log-0.keras"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    smoke3, tmp_path, tmp_path_factory, script, words, message
):
    whole = table(simulate(COINS, 300, 3))
    whole[:60].to_csv(tmp_path / "short.csv", index=False)
    whole.assign(BTC=[0.0, *whole.BTC[1:]]).to_csv(tmp_path / "zero.csv", index=False)
    whole.drop(columns="DOT").to_csv(tmp_path / "missing.csv", index=False)
    whole.drop(index=280).to_csv(tmp_path / "gap.csv", index=False)
    empty, truncated = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("truncated")
    (truncated / "model.log-0.keras").write_bytes((smoke3 / "model.log-0.keras").read_bytes()[:-50])
    places: dict[str, Path] = {"RUN": smoke3, "EMPTY": empty, "TRUNCATED": truncated}
    assert_refused(
        f"assignment3/{script}.py", [places.get(word, word) for word in words], message, tmp_path
    )


def test_no_change_is_where_the_backtest_starts_from(prices):
    """The intervals of an untrained log forecaster are an EWMA-scaled random walk's, up to how the scale is started."""
    model, at = forecaster(prices, random_head=False), np.arange(350, 560)
    _, quantiles = model.predict(*inputs(prices, at))
    walk = rolling_quantiles(prices.values, prices.contiguous(), at, 3, decay=0.97)
    truth = future(prices.values, at, 3)
    last = prices.values[at][:, None, :, None]
    ours, theirs = (
        crps_quantiles(np.log(q / last), np.log(truth / last[..., 0]), LEVELS).mean()
        for q in (quantiles, walk)
    )
    assert ours == pytest.approx(theirs, rel=0.05)
