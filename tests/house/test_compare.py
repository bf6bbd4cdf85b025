"""Runs side by side: alignment, Welch's test, Holm, refusals, files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from common.cli import InputError, parse
from common.results import Row
from tests.conftest import assert_refused, run_main
from tools.compare import Config, main

SAMPLES = {
    "a": [[0.50, 0.52, 0.55, 0.51], [0.60, 0.61, 0.63]],
    "b": [[0.58, 0.57, 0.61], [0.62, 0.64, 0.61, 0.60, 0.65]],
}
MODELS = ("ELM", "MLP")


def row(model: str, values: list[float], **changes) -> dict:
    found = {
        "protocol": "held-out",
        "split": "test",
        "model": model,
        "variant": "ridge",
        "metric": "accuracy",
        "value": float(np.mean(values)),
    }
    found |= {
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "n_seeds": len(values),
    }
    keys = [field.name for field in dataclasses.fields(Row)]
    return dict.fromkeys(keys) | found | changes


def folder(place: Path, rows: list[dict], assignment: str = "assignment1", **data: str) -> Path:
    place.mkdir(parents=True)
    record = {
        "assignment": assignment,
        "source": "s",
        "preset": "full",
        "commit": "0123456789",
        "dirty": False,
        "data": data,
    }
    (place / "run.json").write_text(json.dumps(record))
    (place / "metrics.json").write_text(json.dumps({"run": {}, "metrics_info": {}, "rows": rows}))
    return place


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two runs: the rows of SAMPLES in another order, and rows that the comparison leaves out.

    These are a row of one seed, one of a single step, and rows that only one run has.
    """
    a = [row(*item) for item in zip(MODELS, SAMPLES["a"], strict=True)]
    b = [row(*item) for item in zip(MODELS, SAMPLES["b"], strict=True)]
    a += [
        row("CNN", [0.7]),
        row("only a", [0.1, 0.2]),
        row("ELM", [0.1, 0.2], horizon=1, series="x"),
    ]
    b += [
        row("CNN", [0.9]),
        row("MLP", [0.3, 0.4], split="validation"),
        row("ELM", [0.3, 0.5], horizon=1, series="x"),
    ]
    return [folder(tmp_path / "a", a, path="one"), folder(tmp_path / "b", b[::-1], path="one")]


def compared(runs: list[Path], *words: object) -> pd.DataFrame:
    return main(
        parse(Config, [*map(str, runs), "--out", str(runs[0].parent / "out"), *map(str, words)])
    )


def test_rows_are_aligned_on_their_key_and_set_against_the_first_run(pair):
    table = compared(pair).droplevel(
        ["protocol", "split", "variant", "metric", "series", "horizon"]
    )
    assert sorted(table.index) == [
        "CNN",
        "ELM",
        "MLP",
    ]  # neither the rows of one run nor the cell of a metric with pooled rows
    assert table.loc["CNN", ("value", "a")] == 0.7
    assert table.loc["CNN", ("difference", "b")] == pytest.approx(0.2)
    assert np.isnan(table.loc["CNN", ("p", "b")])  # one seed
    assert table.loc["ELM", ("value", "b")] == pytest.approx(np.mean(SAMPLES["b"][0]))
    assert len(compared(pair, "--cells")) == 4


def test_p_is_that_of_welch_on_the_samples_and_adjusted_by_holm(pair):
    table = compared(pair).droplevel(
        ["protocol", "split", "variant", "metric", "series", "horizon"]
    )
    p = [
        ttest_ind(a, b, equal_var=False).pvalue
        for a, b in zip(SAMPLES["a"], SAMPLES["b"], strict=True)
    ]
    np.testing.assert_allclose(table.loc[list(MODELS), ("p", "b")], p, rtol=1e-9)
    low, high = sorted(p)
    holm = {low: min(2 * low, 1), high: max(high, 2 * low)}  # by hand, for two
    np.testing.assert_allclose(
        table.loc[list(MODELS), ("p_holm", "b")], [holm[value] for value in p], rtol=1e-9
    )
    alone = compared(pair, "--models", "ELM")
    np.testing.assert_allclose(alone[("p_holm", "b")], p[:1], rtol=1e-9)  # a family of one


def test_the_family_of_holm_is_one_metric_over_all_runs(tmp_path):
    rows = {
        name: [row("ELM", SAMPLES[name][0]), row("ELM", SAMPLES[name][0], metric="kid")]
        for name in "ab"
    }
    runs = [
        folder(tmp_path / "a", rows["a"]),
        folder(tmp_path / "b", rows["b"]),
        folder(tmp_path / "c", rows["b"]),
    ]
    table = compared(runs)
    assert len(table) == 2
    np.testing.assert_allclose(table["p_holm"], 2 * table["p"], rtol=1e-9)


def test_no_spread_is_no_test(tmp_path):
    runs = [
        folder(tmp_path / name, [row("ELM", [value, value])])
        for name, value in (("a", 0.5), ("b", 0.7))
    ]
    assert compared(runs)["p"].isna().all(axis=None)


def test_table_and_figure_are_written_and_names_tell_runs_apart(tmp_path, capsys):
    runs = [
        folder(tmp_path / x / "run", [row("ELM", [0.1, 0.3])], notice="SIMULATED; see", sha256=x)
        for x in ("one", "two")
    ]
    main(Config(runs=tuple(runs), out=tmp_path / "out.png"))
    printed = capsys.readouterr().out
    assert "one/run" in printed
    assert "0.2 ± 0.14" in printed
    assert "not read the same data" in printed
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"
    assert pd.read_csv(tmp_path / "out.csv").loc[0, "value: two/run"] == pytest.approx(0.2)


def test_files_are_named_after_the_runs(pair, tmp_path):
    out = tmp_path / "here"
    out.mkdir()
    words = ["--metric", "accuracy", "--split", "test", "--protocol", "held-out"]
    with contextlib.chdir(out):
        run_main(main, Config, *pair, *words)
    assert sorted(path.name for path in out.iterdir()) == ["compare-a-b.csv", "compare-a-b.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "two or more"),
        (["a", "a"], "two or more different"),
        (["a", "missing"], "missing holds no readable"),
        (["a", "broken"], "broken holds no readable"),
        (["a", "other"], "assignment1 and assignment2"),
        (["a", "apart"], "no row in common"),
        (["a", "b", "--metric", "kid"], "--metric kid: the runs have accuracy in common"),
        (["a", "b", "--split", "train"], "--split train"),
        (["a", "b", "--models", "ELM", "U-Net"], "--models U-Net"),
        (["a", "b", "--models", "CNN", "--out", "nowhere/x"], "cannot be written"),
        (["a", "b", "--bogus"], "--bogus"),
    ],
)
def test_what_cannot_be_compared_is_refused(pair, tmp_path, words, message):
    folder(tmp_path / "other", [row("ELM", [0.5])], assignment="assignment2")
    folder(tmp_path / "apart", [row("ELM", [0.5], metric="kid")])
    (folder(tmp_path / "broken", []) / "metrics.json").write_text("{")
    paths = [tmp_path / word if (tmp_path / word).is_dir() else word for word in words]
    with pytest.raises(InputError, match=r"^[^\n]+$") as refusal:
        run_main(main, Config, *paths)
    assert message in str(refusal.value)


def test_a_refusal_leaves_nothing(pair, tmp_path):
    folder(tmp_path / "other", [row("ELM", [0.5])], assignment="assignment2")
    message = "only runs of one assignment"
    assert_refused(main, Config, ["a", "other"], message, tmp_path)
