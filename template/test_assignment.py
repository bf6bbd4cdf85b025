"""The template's mathematics, and its scripts as a user calls them.

Move this file to tests/<assignment>/test_assignment.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.cli import InputError
from template import config, data, evaluate, predict, train
from template.model import Ridge, scores
from tests.conftest import (
    assert_refused,
    assert_same_after_interruption,
    results,
    run_main,
    smoke_run,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one unbroken smoke run."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    return smoke_run(train.main, config.Config, "simulated", folder)


def test_scores_by_hand():
    found = scores(np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([1.0, 5.0]), mean=3.0)
    np.testing.assert_allclose(found["rmse"], [2**0.5, 5**0.5])
    np.testing.assert_allclose(found["r2"], [0.5, -0.25])


def test_training_ends_near_the_closed_form(run):
    table = data.simulate(400, 0)
    parts = data.split(400, 0)
    model = Ridge.load(run / "model.ridge.npz")
    z, y = model.standardise(table.features[parts.train]), table.target[parts.train] - model.mean
    best = np.linalg.solve(z.T @ z + 1e-3 * len(z) * np.eye(8), z.T @ y)  # the normal equations
    np.testing.assert_allclose(model.weight, np.tile(best, (2, 1)), atol=0.1)
    assert not np.allclose(model.weight[0], model.weight[1], atol=1e-9)  # the seeds differ


def test_the_split_is_disjoint_and_whole():
    parts = data.split(101, 3)
    assert sorted(np.concatenate(list(vars(parts).values()))) == list(range(101))


def test_what_is_not_in_the_training_part_changes_no_scale():
    table, parts = data.simulate(100, 0), data.split(100, 0)
    poisoned = table.features.copy()
    poisoned[np.concatenate([parts.validation, parts.test])] = 1e9
    one, other = (
        Ridge.untrained(table.names, x[parts.train], table.target[parts.train])
        for x in (table.features, poisoned)
    )
    assert np.array_equal(one.shift, other.shift)
    assert np.array_equal(one.scale, other.scale)


def test_a_run_leaves_everything_that_the_readme_promises(run):
    for name in (
        "run.json",
        "metrics.csv",
        "metrics.json",
        "predictions.npz",
        "model.ridge.npz",
        "learning_curves.png",
        "test_rows.png",
    ):
        assert (run / name).stat().st_size > 0, name
    assert (run / "report.pdf").read_bytes()[:5] == b"%PDF-"
    assert not list(run.glob(".*.tmp*"))
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert "not real data" in record["data"]["notice"]
    rows = pd.DataFrame(json.loads((run / "metrics.json").read_text())["rows"])
    assert len(rows) == 8  # 2 parts x 2 models x 2 metrics
    error = rows[(rows.split == "test") & (rows.metric == "rmse")].set_index("model").value
    assert error["ridge"] < 0.7 < error["mean"]
    with np.load(run / "predictions.npz", allow_pickle=False) as held:
        np.testing.assert_allclose(
            np.sqrt(((held["ridge"] - held["target"]) ** 2).mean(1)).mean(), error["ridge"]
        )


def test_an_interrupted_run_that_is_resumed_gives_the_same_metrics(run, tmp_path):
    words = ["--preset", "smoke", "--source", "simulated"]
    assert_same_after_interruption(
        run, train.main, config.Config, words, "ridge-1", tmp_path / "run"
    )


def test_evaluate_and_predict(run, tmp_path):
    out = tmp_path / "scores.json"
    run_main(evaluate.main, config.EvaluateConfig, "--run", run, "--out", out)
    scored_again = {
        (row["model"], row["metric"]): row["value"] for row in json.loads(out.read_text())["rows"]
    }
    scored = {
        (row["model"], row["metric"]): row["value"]
        for row in results(run)["rows"]
        if row["split"] == "test"
    }
    assert scored_again == scored

    # given rows: those that were trained or chosen on are left out, and nothing is drawn again
    old, new = data.simulate(400, 0), data.simulate(30, 5)
    frame = pd.DataFrame(np.vstack([old.features, new.features]), columns=new.names)
    frame = frame.assign(y=np.concatenate([old.target, new.target]))
    frame.to_csv(tmp_path / "both.csv")
    picture = (run / "test_rows.png").stat().st_mtime_ns
    words = ["--run", run, "--data", tmp_path / "both.csv", "--out", tmp_path / "both.json"]
    with pytest.raises(InputError, match="has the features Unnamed: 0"):
        run_main(evaluate.main, config.EvaluateConfig, *words)
    frame.to_csv(tmp_path / "both.csv", index=False)
    given = run_main(evaluate.main, config.EvaluateConfig, *words)
    assert given["run"]["rows"] == 400 - 340 + 30
    assert {row["split"] for row in given["rows"]} == {"given"}
    assert (run / "test_rows.png").stat().st_mtime_ns == picture

    # rows without y, their columns in another order
    table = data.simulate(30, 5)
    frame = pd.DataFrame(table.features, columns=table.names)[list(table.names[::-1])]
    frame.to_csv(tmp_path / "new.csv", index=False)
    words = ["--run", run, "--data", tmp_path / "new.csv", "--out", tmp_path / "y.csv"]
    run_main(predict.main, config.PredictConfig, *words)
    expected = Ridge.load(run / "model.ridge.npz").predict(table.features).mean(0)
    predicted = pd.read_csv(tmp_path / "y.csv").y
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "y.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("main", "config_class", "words", "message"),
    [
        (train.main, config.Config, ["--data", "words.csv"], "'many' in row 2"),
        (train.main, config.Config, ["--epochs", "0"], "--epochs 0: allowed are 1 and more"),
        (evaluate.main, config.EvaluateConfig, ["--run", "nowhere"], "nowhere"),
        (predict.main, config.PredictConfig, ["--data", "nowhere.csv"], "nowhere.csv"),
        (predict.main, config.PredictConfig, [], "--data is needed"),
    ],
)
def test_a_users_mistake_is_one_line(tmp_path, main, config_class, words, message):
    (tmp_path / "words.csv").write_text("a,y\n1,2\nmany,3\n")
    assert_refused(main, config_class, words, message, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable csv"),
        ("a,b\n1,2\n", "y and at least"),
        ("y\n1\n", "at least one feature"),
        ("a,y\n1,inf\n", "'inf' in row 1"),
        ("a,y\n1,2\n", "at least 20"),
        ("a,y\n1,\n", "'' in row 1"),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        data.load("csv", tmp_path / "t.csv")
