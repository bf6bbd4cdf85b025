"""The scripts of assignment 3: what a run leaves, leaks into training, resuming, refusals."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import assignment3.evaluate
import assignment3.predict
import assignment3.train
from assignment3.config import NORMALISATIONS, Config, PredictConfig
from assignment3.model import load_all
from common.forecasting.config import EvaluateConfig
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
    ROOT,
    assert_refused,
    assert_same_after_interruption,
    assert_shards_make_the_run,
    assert_summed_up,
    run_main,
    scores_alone,
)

SCRIPTS = {
    "train": (assignment3.train.main, Config),
    "evaluate": (assignment3.evaluate.main, EvaluateConfig),
    "predict": (assignment3.predict.main, PredictConfig),
}
SHORT = ("--preset", "smoke", "--seeds", 1, "--epochs", 1, "--assigned-epochs", 1)
FILES = (
    "run.json",
    "metrics.csv",
    "metrics.json",
    "report.pdf",
    "predictions.npz",
    "model.log-0.keras",
    "model.assigned-minmax.keras",
    "model.seq2seq.safetensors",
    "forecast_fans.png",
    "attention.png",
    "error_by_horizon.png",
    "error_by_cell_log.png",
    "log_against_seq2seq.png",
    "calibration.png",
    "learning_curves.png",
    "as_assigned.png",
)


def test_make_run_finds_its_rows(smoke3):
    assert_summed_up(3, smoke3)


def test_a_run_leaves_everything_that_the_readme_promises(smoke3):
    for name in FILES:
        assert (smoke3 / name).stat().st_size > 0, name


def test_the_rows_of_a_run(smoke3):
    rows = pd.DataFrame(json.loads((smoke3 / "metrics.json").read_text())["rows"])
    assert rows.value.notna().all()
    assert len(rows[rows.protocol == "as-assigned"]) == 2 * (2 + 3) + 2
    test = rows[(rows.protocol == "held-out") & (rows.split == "test")]
    pooled = test[test.series.isna() & test.horizon.isna()]
    assert set(pooled.model) == BASELINES | {"Transformer", "Seq2Seq", "average"}
    pairs = math.comb(5, 2)  # of both Transformers, Seq2Seq, their average and log-HAR-t
    assert len(pooled[pooled.metric == "crps_against"]) == pairs
    tested = test[(test.metric == "p_crps_against") & test.series.notna()]
    assert len(tested) == pairs * 35


def test_poisoned_test_prices_leave_the_trained_weights_as_they_are(tmp_path):
    weights = []
    for prices in write_clean_and_poisoned(tmp_path, 900):
        out = tmp_path / prices.stem
        words = (*SHORT, "--source", "csv", "--data", prices, "--out", out)
        with scores_alone():
            run_main(assignment3.train.main, Config, *words)
        models = [model for name in NORMALISATIONS for model in load_all(out, name)]
        weights.append([array for model in models for array in model.model.get_weights()])
    for clean, poisoned in zip(*weights, strict=True):
        np.testing.assert_array_equal(clean, poisoned)


def test_an_interrupted_and_resumed_run_is_the_same_run(smoke3, tmp_path):
    words = ("--preset", "smoke", "--source", "simulated")
    assert_same_after_interruption(
        smoke3, assignment3.train.main, Config, words, "minmax-0", tmp_path / "run"
    )


def test_shards_together_make_the_run_of_one_process(tmp_path):
    words = (*SHORT, "--source", "simulated", "--steps", 900)
    assert_shards_make_the_run(assignment3.train.main, Config, words, tmp_path)


def test_evaluate_repeats_the_runs_scores_and_scores_new_prices(smoke3, tmp_path):
    check_evaluate(assignment3.evaluate.main, smoke3, tmp_path)


@pytest.mark.parametrize("model", ["minmax", "seq2seq"])
def test_predict_forecasts_the_hours_after_the_last_known_one(smoke3, tmp_path, model):
    prices = simulate(COINS, 400, 7)
    table(prices).to_parquet(tmp_path / "now.parquet", index=False)
    out = tmp_path / "out.csv"
    options = ("--run", smoke3, "--data", tmp_path / "now.parquet", "--out", out)
    run_main(assignment3.predict.main, PredictConfig, *options, "--model", model)
    check_forecast(prices, out)


def test_the_example_in_python(smoke3, tmp_path, monkeypatch):
    table(simulate(COINS, 400, 7)).to_parquet(tmp_path / "prices.parquet")
    names = run_example("assignment3", smoke3, tmp_path, monkeypatch)
    assert len(names["table"]) == 5 * 7


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train", ["--source", "csv", "--data", "nowhere.csv"], "nowhere.csv"),
        ("train", ["--source", "csv", "--data", "short.csv"], "60 rows"),
        ("train", ["--source", "csv", "--data", "zero.csv"], "BTC"),
        ("evaluate", ["--run", "RUN", "--data", "missing.csv"], "DOT"),
        ("predict", ["--run", "RUN", "--data", "gap.csv"], "without a gap"),
    ],
)
def test_a_users_mistake_is_refused(smoke3, tmp_path, script, words, message):
    write_bad_tables(tmp_path)
    words = [smoke3 if word == "RUN" else word for word in words]
    assert_refused(*SCRIPTS[script], words, message, tmp_path)


def test_a_run_without_networks_is_refused(smoke3, tmp_path):
    for name in ("run.json", "metrics.json", "metrics.csv", "predictions.npz"):
        (tmp_path / name).write_bytes((smoke3 / name).read_bytes())
    message = "assignment3/train.py"
    assert_refused(
        assignment3.evaluate.main, EvaluateConfig, ["--run", tmp_path], message, tmp_path
    )
    file = tmp_path / "model.log-0.keras"
    file.write_bytes((smoke3 / "model.log-0.keras").read_bytes()[:-50])
    words = ["--run", tmp_path, "--source", "simulated"]
    message = "model.log-0.keras"
    assert_refused(assignment3.predict.main, PredictConfig, words, message, tmp_path)


def test_a_network_of_another_kind_ends_in_one_line(smoke3, tmp_path):
    """The course's network has no quantiles; a file of it stands where a forecaster should."""
    for file in smoke3.glob("*"):
        if file.is_file():
            shutil.copy(file, tmp_path)
    shutil.copy(smoke3 / "model.assigned-minmax.keras", tmp_path / "model.log-0.keras")
    message = f"the models in {tmp_path} cannot be used"
    assert_refused(
        assignment3.evaluate.main, EvaluateConfig, ["--run", tmp_path], message, tmp_path
    )
    words = ["--run", tmp_path, "--source", "simulated"]
    assert_refused(assignment3.predict.main, PredictConfig, words, message, tmp_path)


def test_options_are_read_before_tensorflow_is_imported():
    code = """
import sys, assignment3.config
assert not {"tensorflow", "keras", "torch"} & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
