"""The scripts of assignment 4: what a run leaves, resuming, one adapter in use, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import assignment4.evaluate
import assignment4.predict
import assignment4.train
from assignment4.artifacts import SCALES
from assignment4.config import Config, EvaluateConfig, PredictConfig
from assignment4.figures import draw_figures
from common.files import load_state, save_state, write_arrays
from common.forecasting.prices import CURRENCIES, Prices
from common.forecasting.simulate import simulate
from tests.assignment2.helpers import run_example, table
from tests.conftest import (
    ROOT,
    Main,
    assert_refused,
    assert_summed_up,
    results,
    run_main,
    smoke_run,
)

SCRIPTS: dict[str, tuple[Main, type]] = {
    "train": (assignment4.train.main, Config),
    "evaluate": (assignment4.evaluate.main, EvaluateConfig),
    "predict": (assignment4.predict.main, PredictConfig),
}
FILES = (
    "run.json",
    "metrics.csv",
    "metrics.json",
    "report.pdf",
    "predictions.npz",
    "adapter.r2-0.safetensors",
    "adapter.r2-0.json",
    "scales.safetensors",
    "error_against_parameters.png",
    "error_against_data.png",
    "forgetting.png",
    "singular_values.png",
    "forecast_fans.png",
    "error_by_horizon.png",
    "error_by_cell.png",
    "calibration.png",
    "learning_curves.png",
)
MODELS = {
    "no adaptation",
    "head only",
    "biases and layer norms",
    "from scratch",
    "full fine-tuning",
    "LoRA, rank 2",
    "LoRA, rank 2, attention only",
}
VARIANTS = {"to convergence", "10 % of the data"}


def daily_table(prices: Prices) -> pd.DataFrame:
    """Rates as a user's table with a date per row."""
    dates = [str(time)[:10] for time in prices.times]
    return table(prices).assign(time=dates)


def pooled_scores(folder: Path, file: str) -> dict[tuple[str, str, str], float]:
    """The scores over all series and steps of the test part, by model, variant and metric."""
    rows = json.loads((folder / file).read_text())["rows"]
    return {
        (row["model"], row["variant"], row["metric"]): row["value"]
        for row in rows
        if row["split"] == "test" and row["series"] is row["horizon"] is None
    }


# ------------------------------------------------------------------------------------------ train


def test_make_run_finds_its_rows(smoke4):
    assert_summed_up(4, smoke4)


def test_a_run_leaves_everything_that_the_readme_promises(smoke4):
    for name in FILES:
        assert (smoke4 / name).stat().st_size > 0, name
    trained = json.loads((smoke4 / "adapter.r2-0.json").read_text())["trained_weights"]
    sizes = [
        (smoke4 / f"adapter.r2-0.{suffix}").stat().st_size for suffix in ("safetensors", "json")
    ]
    assert sum(sizes) <= 4 * trained + 4096


def test_the_rows_of_a_run(smoke4):
    rows = pd.DataFrame(json.loads((smoke4 / "metrics.json").read_text())["rows"])
    assert rows.value.notna().all()
    test = rows[(rows.protocol == "held-out") & (rows.split == "test")]
    pooled = test[test.series.isna() & test.horizon.isna()]
    assert set(pooled.model) >= MODELS
    assert set(pooled.variant) >= VARIANTS
    forgotten = rows[rows.metric == "coin_crps"].set_index(["model", "variant"]).value
    assert forgotten["no adaptation", "to convergence"] == pytest.approx(1, abs=1e-6)
    for model in ("full fine-tuning", "LoRA, rank 2"):
        assert forgotten[model, "after 2 adaptations in sequence"] != 1
    sizes = rows[rows.metric == "adapter_bytes"].set_index("model").value
    assert 0 == sizes["no adaptation"] < sizes["LoRA, rank 2"]


def test_networks_that_training_never_improved_are_counted(smoke4):
    notes = json.loads((smoke4 / "run.json").read_text())["notes"]
    log = pd.read_csv(smoke4 / "metrics.csv")
    for label, rate in notes["learning_rates"].items():
        name = f"crps_{label.replace(', ', '-').replace(' ', '_')}-{rate:g}-0"
        curve = log[log.name == name].value.to_numpy()
        if label == "no adaptation":
            assert not len(curve)
        else:
            first = label == "from scratch"  # which is trained for one epoch at least
            assert notes["untrained"][label] == int(curve[int(first) :].argmin() == 0 and not first)


def test_the_printed_order_is_that_of_validation(smoke4, capsys):
    metrics = json.loads((smoke4 / "metrics.json").read_text())
    assignment4.train.print_choice(metrics, {"from scratch": 1, "head only": 0}, 1)
    lines = capsys.readouterr().out.strip().splitlines()
    validation = {
        row["model"]: row["value"]
        for row in metrics["rows"]
        if row["split"] == "validation"
        and row["metric"] == "crps_ratio"
        and row["variant"] == "to convergence"
        and row["series"] is row["horizon"] is None
    }
    ordered = sorted(validation, key=validation.__getitem__)
    printed = [line.strip() for line in lines[2 : 2 + len(ordered)]]
    assert all(line.startswith(model) for line, model in zip(printed, ordered, strict=True))
    assert lines[-1].startswith("from scratch: 1 of 1 networks")


def test_figures_are_drawn_where_training_changed_nothing(smoke4, tmp_path):
    """The network before training may be the best on validation, as on simulated rates."""
    shutil.copytree(smoke4, tmp_path / "run")
    with np.load(smoke4 / "predictions.npz", allow_pickle=False) as arrays:
        unchanged = {
            name: 0 * values if name.startswith("singular") else values
            for name, values in arrays.items()
        }
    write_arrays(tmp_path / "run" / "predictions.npz", **unchanged)
    draw_figures(tmp_path / "run")


@pytest.mark.slow  # minutes; assignment 3 interrupts the same training
def test_a_resumed_run_is_the_same(smoke3, smoke4, tmp_path):
    """A run that lost its end and its last parts is resumed to the same rows and metrics.csv."""
    folder = tmp_path / "run"
    shutil.copytree(smoke4, folder)
    (folder / "metrics.json").unlink()
    parts = sorted((folder / "checkpoints").glob("done-*"), key=lambda file: file.stat().st_mtime)
    for file in parts[-6:]:
        file.unlink()
    main, config_class = SCRIPTS["train"]
    smoke_run(main, config_class, "simulated", folder, "--base", smoke3, "--resume")
    assert results(folder) == results(smoke4)
    assert (folder / "metrics.csv").read_bytes() == (smoke4 / "metrics.csv").read_bytes()


# -------------------------------------------------------------------------------- one adapter


def test_evaluate_repeats_the_scores_of_one_adapter(smoke3, smoke4, tmp_path):
    adapter = smoke4 / "adapter.r2-0.safetensors"
    options = ("--run", smoke4, "--adapter", adapter, "--base", smoke3)
    run_main(*SCRIPTS["evaluate"], *options, "--out", tmp_path / "scores.json")
    scores = pooled_scores(tmp_path, "scores.json")
    recorded = pooled_scores(smoke4, "metrics.json")
    assert scores["LoRA", "adapter.r2-0", "crps"] == pytest.approx(
        recorded["LoRA, rank 2", "to convergence", "crps"], rel=1e-5
    )


def test_an_adapter_named_alone_is_one_of_its_own_run(smoke3, smoke4, tmp_path):
    adapter = smoke4 / "adapter.r2-0.safetensors"
    words = ("--adapter", adapter, "--base", smoke3, "--out", tmp_path / "scores.json")
    run_main(*SCRIPTS["evaluate"], *words)
    found = json.loads((tmp_path / "scores.json").read_text())["run"]
    assert found["folder"] == str(smoke4)


def test_predict_forecasts_the_next_business_days(smoke3, smoke4, tmp_path):
    daily_table(simulate(CURRENCIES, 300, 7)).to_csv(tmp_path / "now.csv", index=False)
    adapter = smoke4 / "adapter.r2-0.safetensors"
    options = ("--run", smoke4, "--adapter", adapter, "--base", smoke3)
    data = ("--data", tmp_path / "now.csv", "--out", tmp_path / "out.csv")
    run_main(*SCRIPTS["predict"], *options, *data)
    forecast = pd.read_csv(tmp_path / "out.csv")
    assert len(forecast) == 35
    assert np.is_busday(forecast.time.to_numpy().astype("datetime64[D]")).all()
    nested = (forecast.low_95 < forecast.low_80) & (forecast.high_80 < forecast.high_95)
    assert nested.all()


def test_the_example_in_python(smoke3, smoke4, tmp_path, monkeypatch):
    daily_table(simulate(CURRENCIES, 300, 7)).to_parquet(tmp_path / "rates.parquet")
    base = tmp_path / "assignment3" / "results" / "csv-full"
    shutil.copytree(smoke3, base, ignore=shutil.ignore_patterns("checkpoints"))
    names = run_example("assignment4", smoke4, tmp_path, monkeypatch)
    assert len(names["table"]) == 5 * 7


# --------------------------------------------------------------------------------------- refusals


def test_a_negative_price_reaches_no_logarithm(smoke3, tmp_path):
    prices = simulate(CURRENCIES, 500, 1)
    prices.values[400, -1] = -36.98
    daily_table(prices).to_csv(tmp_path / "oil.csv", index=False)
    words = ["--preset", "smoke", "--base", smoke3, "--data", "oil.csv", "--normalisation", "log"]
    assert_refused(*SCRIPTS["train"], words, "WTI is -36.98", tmp_path)


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train", ["--base", "EMPTY"], "python assignment3/train.py"),
        ("train", ["--base", "nowhere"], "--base nowhere does not exist"),
        ("train", ["--base", "BASE", "--data", "eight.csv"], "forecasts 7 series, and there are 8"),
        ("train", ["--base", "TRUNCATED"], "not a network that assignment3 saved"),
        ("train", ["--base", "BASE", "--ranks", "0", "--out", "never"], "--ranks"),
        ("train", ["--base", "BASE", "--ranks", "2", "65", "--out", "never"], "--ranks 65"),
        ("train", ["--rank", "4"], "--rank 4: allowed are those of --ranks: 2"),
        ("train", ["--shares", "1"], "--shares 1.0"),
        ("predict", ["--run", "RUN", "--base", "OTHER", "--adapter", "ADAPTER"], "another base"),
        ("predict", ["--run", "RUN", "--base", "EMPTY", "--adapter", "ADAPTER"], "does not exist"),
        ("predict", ["--run", "EMPTY"], "EMPTY"),
        ("predict", ["--run", "BASE"], "python assignment4/train.py"),
        ("predict", ["--run", "RUN", "--adapter", "nowhere.safetensors"], "--adapter nowhere"),
        ("predict", ["--run", "RUN", "--adapter", "ALONE"], "scales.safetensors"),
    ],
)
def test_a_users_mistake_is_refused(
    smoke3, smoke4, tmp_path, tmp_path_factory, script, words, message
):
    rates = daily_table(simulate(CURRENCIES, 300, 3))
    rates.assign(NOK=rates["EUR"] / 9).to_csv(tmp_path / "eight.csv", index=False)
    paths = {
        name: tmp_path_factory.mktemp(name) for name in ("EMPTY", "TRUNCATED", "OTHER", "ALONE")
    }
    for name in ("run.json", "model.assigned-minmax.keras"):
        shutil.copy(smoke3 / name, paths["TRUNCATED"] / name)
    network = (smoke3 / "model.minmax-0.keras").read_bytes()
    (paths["TRUNCATED"] / "model.minmax-0.keras").write_bytes(network[:-50])
    shutil.copy(smoke3 / "model.log-0.keras", paths["OTHER"] / "model.minmax-0.keras")
    for suffix in ("safetensors", "json"):
        shutil.copy(smoke4 / f"adapter.r2-0.{suffix}", paths["ALONE"])
    adapter = "adapter.r2-0.safetensors"
    paths |= {"BASE": smoke3, "RUN": smoke4, "ADAPTER": smoke4 / adapter}
    paths["ALONE"] /= adapter
    options = ["--preset", "smoke", "--source", "auto"] if script == "train" else []
    given = [paths.get(word, word) for word in words]
    assert_refused(*SCRIPTS[script], [*options, *given], message, tmp_path)


@pytest.mark.parametrize("changed", [{"bases": [3]}, {"fitted": [np.ones(3)]}, {"bases": []}])
def test_scales_of_another_kind_end_in_one_line(smoke3, smoke4, tmp_path, changed):
    folder = tmp_path / "run"
    shutil.copytree(smoke4, folder, ignore=shutil.ignore_patterns("checkpoints"))
    save_state(folder / SCALES, load_state(folder / SCALES) | changed)
    message = f"the models in {folder} cannot be used"
    words = ["--run", folder, "--base", smoke3]
    assert_refused(*SCRIPTS["evaluate"], words, message, tmp_path)
    assert_refused(*SCRIPTS["predict"], [*words, "--source", "simulated"], message, tmp_path)


def test_options_are_read_before_tensorflow_is_imported():
    code = """
import sys, assignment4.config
assert not {"tensorflow", "keras", "torch", "pandas"} & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
