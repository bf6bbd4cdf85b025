"""The scripts of assignment 2: what a run leaves, leaks into training, resuming, refusals."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

import assignment2.evaluate
import assignment2.predict
import assignment2.train
from assignment2.config import Config
from assignment2.frames import fit, predict
from common.cli import InputError, parse
from common.forecasting.config import EvaluateConfig, PredictConfig
from common.forecasting.prices import COINS
from common.forecasting.simulate import simulate
from tests.assignment2.helpers import (
    BASELINES,
    check_evaluate,
    check_forecast,
    run_example,
    table,
    write_bad_tables,
    write_clean_and_poisoned,
)
from tests.conftest import (
    assert_refused,
    assert_same_after_interruption,
    assert_shards_make_the_run,
    assert_summed_up,
    run_main,
    scores_alone,
)

SCRIPTS = {
    "train": (assignment2.train.main, Config),
    "evaluate": (assignment2.evaluate.main, EvaluateConfig),
    "predict": (assignment2.predict.main, PredictConfig),
}
SHORT = ("--preset", "smoke", "--seeds", 1, "--epochs", 1, "--assigned-epochs", 1)
FILES = (
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
)


def test_make_run_finds_its_rows(smoke2):
    assert_summed_up(2, smoke2)


def test_a_run_leaves_everything_that_the_readme_promises(smoke2):
    for name in FILES:
        assert (smoke2 / name).stat().st_size > 0, name


def test_the_rows_of_a_run(smoke2):
    rows = pd.DataFrame(json.loads((smoke2 / "metrics.json").read_text())["rows"])
    assert rows.value.notna().all()
    assert len(rows[rows.protocol == "as-assigned"]) == 5
    test = rows[(rows.protocol == "held-out") & (rows.split == "test")]
    pooled = test[test.series.isna() & test.horizon.isna()]
    assert set(pooled.model) == BASELINES | {"Seq2Seq"}
    assert (pooled[(pooled.model == "no change") & (pooled.metric == "rmsse")].value == 1).all()
    tested = test[(test.metric == "p_crps") & (test.model == "Seq2Seq")]
    assert len(tested) == 3 * 35  # each seed, their mean, and their mean before recalibration
    assert (pooled[pooled.variant == "quantile head"].n_seeds == 2).all()


def test_poisoned_test_prices_leave_the_trained_weights_as_they_are(tmp_path):
    files = []
    for prices in write_clean_and_poisoned(tmp_path, 900):
        out = tmp_path / prices.stem
        words = (*SHORT, "--source", "csv", "--data", prices, "--out", out)
        with scores_alone():
            run_main(assignment2.train.main, Config, *words)
        files.append((out / "model.seq2seq.safetensors").read_bytes())
    assert files[0] == files[1]


def test_an_interrupted_and_resumed_run_is_the_same_run(smoke2, tmp_path):
    words = ("--preset", "smoke", "--source", "simulated")
    assert_same_after_interruption(
        smoke2, assignment2.train.main, Config, words, "forecaster-1", tmp_path / "run"
    )


def test_shards_together_make_the_run_of_one_process(tmp_path):
    words = (*SHORT, "--source", "simulated", "--steps", 900, "--seeds", 2)
    assert_shards_make_the_run(assignment2.train.main, Config, words, tmp_path)


def test_evaluate_repeats_the_runs_scores_and_scores_new_prices(smoke2, tmp_path):
    check_evaluate(assignment2.evaluate.main, smoke2, tmp_path)


def test_predict_forecasts_the_hours_after_the_last_known_one(smoke2, tmp_path):
    prices = simulate(COINS, 400, 7)
    table(prices).to_parquet(tmp_path / "now.parquet", index=False)
    out = tmp_path / "out.csv"
    words = ("--run", smoke2, "--data", tmp_path / "now.parquet", "--out", out)
    run_main(assignment2.predict.main, PredictConfig, *words)
    check_forecast(prices, out)


def test_the_example_in_python(smoke2, tmp_path, monkeypatch):
    table(simulate(COINS, 400, 7)).to_parquet(tmp_path / "prices.parquet")
    names = run_example("assignment2", smoke2, tmp_path, monkeypatch)
    assert len(names["table"]) == 5 * 7
    assert list(names["table"])[-1] == "q0.99"


def test_a_data_frame_is_trained_on_and_forecast(tmp_path):
    frame = table(simulate(COINS, 500, 0))[["time", "ETH"]]
    small = {"context": 24, "horizon": 2, "seeds": 1, "epochs": 1, "assigned_epochs": 1}
    with scores_alone():
        run = fit(frame, tmp_path / "run", preset="smoke", **small)
    forecast = predict(frame, run)
    last = pd.Timestamp(frame.time.iloc[-1])
    assert list(pd.to_datetime(forecast.time)) == [last + pd.Timedelta(f"{h}h") for h in (1, 2)]

    # the same as from its file, and the frame's test part is found again:
    frame.to_csv(tmp_path / "p.csv", index=False)
    words = ("--run", run, "--data", tmp_path / "p.csv", "--out", tmp_path / "out.csv")
    run_main(assignment2.predict.main, PredictConfig, *words)
    written = pd.read_csv(tmp_path / "out.csv").forecast
    np.testing.assert_allclose(forecast.forecast, written, rtol=1e-7)
    run_main(assignment2.evaluate.main, EvaluateConfig, "--run", run, "--out", tmp_path / "s.json")


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train", ["--source", "csv", "--data", "nowhere.csv"], "nowhere.csv"),
        ("train", ["--source", "csv", "--data", "short.csv"], "60 rows"),
        ("train", ["--source", "csv", "--data", "zero.csv"], "BTC"),
        ("evaluate", ["--run", "RUN", "--data", "missing.csv"], "DOT"),
        ("evaluate", ["--run", "RUN", "--data", "short.csv"], "60 rows"),
        ("evaluate", ["--run", "nowhere"], "nowhere"),
        ("predict", ["--run", "RUN", "--data", "short.csv"], "96 rows"),
        ("predict", ["--run", "RUN", "--data", "gap.csv"], "without a gap"),
    ],
)
def test_a_users_mistake_is_refused(smoke2, tmp_path, script, words, message):
    write_bad_tables(tmp_path)
    words = [smoke2 if word == "RUN" else word for word in words]
    assert_refused(*SCRIPTS[script], words, message, tmp_path)


@pytest.mark.parametrize("about", [None, {}, {"seeds": 0, "settings": {}, "series": ["BTC"]}])
def test_a_model_file_of_another_kind_ends_in_one_line(smoke2, tmp_path, about):
    folder = tmp_path / "run"
    shutil.copytree(smoke2, folder, ignore=shutil.ignore_patterns("checkpoints"))
    metadata = None if about is None else {"seq2seq": json.dumps(about)}
    save_file({"x": np.zeros(3)}, folder / "model.seq2seq.safetensors", metadata=metadata)
    for script in ("evaluate", "predict"):
        source = ["--source", "simulated"] if script == "predict" else []
        words = ["--run", folder, *source]
        assert_refused(*SCRIPTS[script], words, str(folder), tmp_path)


@pytest.mark.parametrize(
    ("option", "value"), [("--epochs", "0"), ("--dropout", "1.5"), ("--decays", "2")]
)
def test_a_number_out_of_range_is_refused(option, value):
    with pytest.raises(InputError, match=option):
        parse(Config, [option, value])


def test_one_series_alone_works(tmp_path):
    table(simulate(COINS, 1500, 0))[["time", "ETH"]].to_csv(tmp_path / "one.csv", index=False)
    words = (*SHORT, "--data", tmp_path / "one.csv", "--out", tmp_path / "run")
    run_main(assignment2.train.main, Config, *words)
    rows = pd.DataFrame(json.loads((tmp_path / "run/metrics.json").read_text())["rows"])
    assert set(rows.series.dropna()) == {"ETH"}
    forecasts = np.load(tmp_path / "run/predictions.npz", allow_pickle=False)
    assert forecasts["fan_point"].shape == (5, 1)
