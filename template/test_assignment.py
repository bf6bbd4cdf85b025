"""The template's mathematics, and its scripts as a user calls them. Move this file to tests/test_<assignment>.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import template
from common.cli import InputError
from template import data
from template.model import Ridge, scores
from tests.conftest import assert_refused, assert_same_after_kill_9, call, results, smoke

HERE = str(Path(template.__file__).resolve().parent)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One unbroken smoke run."""
    return smoke(HERE, "simulated", tmp_path_factory.mktemp("smoke"))


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


def test_kill_9_in_training_and_resume_gives_the_same_metrics(run, tmp_path):
    assert_same_after_kill_9(run, HERE, "simulated", tmp_path, "done-ridge-0.safetensors")


def test_evaluate_and_predict(run, tmp_path):
    done = call(f"{HERE}/evaluate.py", "--run", run, "--out", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    again = {
        (row["model"], row["metric"]): row["value"]
        for row in json.loads((tmp_path / "scores.json").read_text())["rows"]
    }
    kept = {
        (row["model"], row["metric"]): row["value"]
        for row in results(run)["rows"]
        if row["split"] == "test"
    }
    assert again == kept
    table = data.simulate(30, 5)
    frame = pd.DataFrame(table.features, columns=table.names)[
        list(table.names[::-1])
    ]  # another order of the columns
    frame.to_csv(tmp_path / "new.csv", index=False)
    done = call(
        f"{HERE}/predict.py",
        "--run",
        run,
        "--data",
        tmp_path / "new.csv",
        "--out",
        tmp_path / "answers.csv",
    )
    assert done.returncode == 0, done.stderr
    expected = Ridge.load(run / "model.ridge.npz").predict(table.features).mean(0)
    np.testing.assert_allclose(
        pd.read_csv(tmp_path / "answers.csv").y, expected, rtol=1e-4, atol=1e-5
    )
    assert (tmp_path / "answers.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train", ["--source", "csv", "--data", "words.csv"], "'many' in row 2"),
        ("evaluate", ["--run", "nowhere"], "nowhere"),
        ("predict", ["--data", "words.csv", "--run", "nowhere"], "nowhere"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, script, words, message):
    (tmp_path / "words.csv").write_text("a,y\n1,2\nmany,3\n")
    assert_refused(f"{HERE}/{script}.py", words, message, tmp_path)


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
