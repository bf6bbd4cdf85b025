"""Transfer: what each strategy trains, adapters on a forecaster, forgetting, negative prices, and the real scripts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assignment3.model import Forecaster, save_model
from assignment4.figures import draw_figures
from assignment4.scoring import pairs
from assignment4.strategies import (
    Strategy,
    Weights,
    base_files,
    kernels,
    prepare,
    strategies,
    trained_weights,
)
from common.cli import InputError
from common.forecast import Group, Windows
from common.prices import COINS, CURRENCIES, simulate
from common.run import write_arrays
from tests.conftest import assert_refused, call, results, smoke
from tests.test_assignment2 import table
from tests.test_assignment3 import SMALL

FULL = {
    "width": 64,
    "blocks": 3,
    "heads": 8,
    "key": 64,
    "feed_forward": 0,
    "norm": "post",
    "dropout": 0.2,
}


def build(seed: int = 0, **network) -> Forecaster:
    return Forecaster.build(
        CURRENCIES.series, 48, 3, "minmax", (0.8, 0.97), seed=seed, **(SMALL | network)
    )


@pytest.fixture(scope="module")
def days():
    return simulate(CURRENCIES, 500, 1)


@pytest.mark.parametrize(
    ("kind", "trained"),
    [("none", set()), ("head", {"head/kernel", "head/bias"}), ("full", None), ("scratch", None)],
)
def test_what_a_strategy_trains(kind, trained):
    model = build().model
    prepare(model, Strategy(kind, kind), 0)
    paths = {variable.path for variable in model.trainable_variables}
    every = {
        variable.path for variable in model.weights if not variable.path.startswith("quantiles/")
    }
    assert paths == (every if trained is None else trained)


def test_lora_reaches_every_affine_map_and_attention_alone_where_that_is_asked():
    model = build().model
    lora = prepare(model, Strategy("LoRA", "lora", 2), 0, alpha=4)
    assert set(lora.update()) == set(kernels(model))
    assert trained_weights(model) == lora.count()
    lora = prepare(build().model, Strategy("LoRA", "lora", 2, (r"attention_\d+/",)), 0)
    assert {path.partition("/")[0] for path in lora.update()} == {"attention_1", "attention_2"}


def test_a_layer_narrower_than_the_rank_takes_its_own_width():
    lora = prepare(build(**FULL).model, Strategy("LoRA", "lora", 32), 0)
    assert {path: matrix.shape for path, matrix in lora.update().items()}["head"] == (64, 28)
    assert lora._adapters["target"].factors["head"][1].shape == (28, 28)
    assert lora._adapters["target"].factors["attention_2/query"][1].shape == (32, 8, 64)


def test_the_shares_of_the_weights_are_those_of_the_issue():
    model = Forecaster.build(
        COINS.series, 96, 5, "log", (0.5, 0.8, 0.9, 0.99, 0.97), seed=0, **FULL
    ).model
    whole = trained_weights(model)
    shares = {}
    for rank in (2, 8):
        lora = prepare(model, Strategy("LoRA", "lora", rank), 0)
        shares[rank] = lora.count() / whole
        lora.detach()
    assert shares[8] == pytest.approx(0.14, abs=0.01)
    assert shares[2] < 0.04


def test_every_strategy_has_its_name_once():
    names = [strategy.name for strategy in strategies((1, 2, 4, 8, 16, 32), 8)]
    assert len(names) == len(set(names)) == 4 + 6 + 1 + 2


def test_an_adapter_switched_off_leaves_the_forecast_on_the_coins_as_it_was(days):
    base = build()
    windows = Windows(days, None, 48, 3, log=False)
    seen = windows.inputs(np.arange(100, 110))
    kernel = base.model.get_layer("head").kernel
    kernel.assign(0.3 * np.random.default_rng(0).standard_normal(kernel.shape))
    before = base.predict(*seen)
    lora = prepare(base.model, Strategy("LoRA", "lora", 2), 0)
    for variable in lora.trainable_variables:
        variable.assign(0.3 * np.random.default_rng(1).standard_normal(variable.shape))
    changed = Forecaster(base.model).predict(*seen)
    assert np.abs(changed[1] / before[1] - 1).max() > 1e-4
    with lora.disabled():
        for told, expected in zip(Forecaster(base.model).predict(*seen), before, strict=True):
            np.testing.assert_array_equal(told, expected)
    lora.merge()
    merged = Weights(build(), base.model.get_weights(), 0)
    np.testing.assert_allclose(merged.predict(*seen)[1], changed[1], rtol=1e-5)


def test_a_negative_price_reaches_no_logarithm(days, tmp_path, smoke3):
    values = days.values.copy()
    values[400, -1] = -36.98
    frame = pd.DataFrame(values, columns=list(days.series)).assign(
        date=[str(time)[:10] for time in days.times]
    )[["date", *days.series]]
    frame.to_csv(tmp_path / "oil.csv", index=False)
    words = ["--preset", "smoke", "--base", smoke3, "--data", "oil.csv"]
    assert_refused(
        "assignment4/train.py", [*words, "--normalisation", "log"], "WTI is -36.98", tmp_path
    )


def test_a_base_of_another_shape_or_none_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"make it with: python assignment3/train\.py"):
        base_files(tmp_path, "minmax", 7)
    save_model(tmp_path / "model.minmax-0.keras", build().model)
    with pytest.raises(InputError, match=r"holds no run\.json"):
        base_files(tmp_path, "minmax", 7)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "model.assigned-minmax.keras").write_bytes(b"")
    assert len(base_files(tmp_path, "minmax", 7)) == 1
    with pytest.raises(InputError, match="is not a forecaster of 3 series"):
        base_files(tmp_path, "minmax", 3)


def test_pairs_name_rows_that_exist():
    whole = [
        Group(strategy.name, "to convergence", [], "mean") for strategy in strategies((2, 8), 8)
    ]
    less = [
        Group(name, "5 % of the data", [], "mean 5")
        for name in ("from scratch", "full fine-tuning", "LoRA, rank 8")
    ]
    found = pairs(whole, less, 8)
    rows = {(group.model, group.mean) for group in (*whole, *less)}
    assert {name for pair in found for name in pair} <= rows
    assert (("LoRA, rank 8", "mean 5"), ("from scratch", "mean 5")) in found
    assert len(found) == len(set(found))


# ---------------------------------------------------------------------------------------------------------------- scripts


@pytest.fixture(scope="module")
def smoke4(smoke3, tmp_path_factory) -> Path:
    """One unbroken run of assignment 4, on assignment 3's."""
    return smoke(
        "assignment4", "simulated", tmp_path_factory.mktemp("smoke"), "--base", str(smoke3)
    )


def test_a_run_leaves_everything_that_the_readme_promises(smoke4):
    for name in (
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
    ):
        assert (smoke4 / name).stat().st_size > 0, name
    rows = pd.DataFrame(json.loads((smoke4 / "metrics.json").read_text())["rows"])
    assert rows.value.notna().all()
    pooled = rows[
        (rows.protocol == "held-out")
        & (rows.split == "test")
        & rows.series.isna()
        & rows.horizon.isna()
    ]
    assert {
        "no adaptation",
        "head only",
        "from scratch",
        "full fine-tuning",
        "LoRA, rank 2",
        "LoRA, rank 2, attention only",
        "rsLoRA, rank 2",
    } <= set(pooled.model)
    assert {"to convergence", "1 epoch", "2 epochs", "10 % of the data"} <= set(pooled.variant)
    weights = json.loads((smoke4 / "adapter.r2-0.json").read_text())["trained_weights"]
    size = sum(
        (smoke4 / f"adapter.r2-0.{suffix}").stat().st_size for suffix in ("safetensors", "json")
    )
    assert size <= 4 * weights + 4096
    forgotten = rows[rows.metric == "coin_crps"].set_index("model").value
    assert forgotten["no adaptation"] == pytest.approx(1, abs=1e-6)


def test_figures_are_drawn_where_training_changed_nothing(smoke4, tmp_path):
    shutil.copytree(smoke4, tmp_path / "run")
    with np.load(smoke4 / "predictions.npz", allow_pickle=False) as held:
        arrays = {
            name: values * (not name.startswith("singular")) if values.dtype.kind == "f" else values
            for name, values in held.items()
        }
    write_arrays(tmp_path / "run" / "predictions.npz", **arrays)
    draw_figures(
        tmp_path / "run"
    )  # the pass before training may be the best on validation, as on simulated rates


def test_a_resumed_run_is_the_same(smoke3, smoke4, tmp_path):
    """What a run finished is kept: one that lost its end and half of its parts comes to the same rows."""
    shutil.copytree(smoke4, tmp_path / "run")
    (tmp_path / "run/metrics.json").unlink()
    for file in sorted(
        (tmp_path / "run/checkpoints").glob("done-*"), key=lambda file: file.stat().st_mtime
    )[-6:]:
        file.unlink()
    smoke("assignment4", "simulated", tmp_path, "--base", str(smoke3), "--resume")
    assert results(tmp_path / "run") == results(smoke4)


def test_evaluate_and_predict_take_one_adapter(smoke3, smoke4, tmp_path):
    adapter = smoke4 / "adapter.r2-0.safetensors"
    done = call(
        "assignment4/evaluate.py",
        "--run",
        smoke4,
        "--adapter",
        adapter,
        "--base",
        smoke3,
        "--out",
        tmp_path / "scores.json",
    )
    assert done.returncode == 0, done.stderr
    rows = {
        (row["model"], row["variant"], row["metric"]): row["value"]
        for row in json.loads((tmp_path / "scores.json").read_text())["rows"]
        if row["series"] is row["horizon"] is None
    }
    whole = {
        (row["model"], row["variant"], row["metric"]): row["value"]
        for row in json.loads((smoke4 / "metrics.json").read_text())["rows"]
        if row["series"] is row["horizon"] is None and row["split"] == "test"
    }
    assert rows["LoRA", "adapter.r2-0", "crps"] == pytest.approx(
        whole["LoRA, rank 2", "to convergence", "crps"], rel=1e-5
    )
    days = simulate(CURRENCIES, 300, 7)
    frame = table(days)
    frame["time"] = [str(time)[:10] for time in days.times]
    frame.to_csv(tmp_path / "now.csv", index=False)
    done = call(
        "assignment4/predict.py",
        "--run",
        smoke4,
        "--adapter",
        adapter,
        "--base",
        smoke3,
        "--data",
        tmp_path / "now.csv",
        "--out",
        tmp_path / "out.csv",
    )
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tmp_path / "out.csv")
    assert len(found) == 35
    assert np.is_busday(found.time.to_numpy().astype("datetime64[D]")).all()
    assert ((found.low_95 < found.low_80) & (found.high_80 < found.high_95)).all()


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train", ["--base", "EMPTY"], "python assignment3/train.py"),
        ("train", ["--base", "BASE", "--data", "three.csv"], "is not a forecaster of 3 series"),
        ("train", ["--base", "TRUNCATED"], "not a network that assignment3 saved"),
        ("train", ["--base", "BASE", "--ranks", "0", "--out", "never"], "--ranks"),
        ("train", ["--base", "BASE", "--ranks", "65", "--out", "never"], "--ranks"),
        ("predict", ["--run", "RUN", "--base", "OTHER", "--adapter", "ADAPTER"], "another base"),
        ("predict", ["--run", "RUN", "--base", "EMPTY", "--adapter", "ADAPTER"], "does not exist"),
        ("predict", ["--run", "EMPTY"], "python assignment4/train.py"),
        ("predict", ["--run", "RUN", "--adapter", "nowhere.safetensors"], "scales.safetensors"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    smoke3, smoke4, tmp_path, tmp_path_factory, script, words, message
):
    days = simulate(CURRENCIES, 300, 3)
    frame = table(days)
    frame[["time", "EUR", "GBP", "JPY"]].to_csv(tmp_path / "three.csv", index=False)
    empty, truncated, other = (
        tmp_path_factory.mktemp(name) for name in ("empty", "truncated", "other")
    )
    for name in ("run.json", "model.assigned-minmax.keras"):
        shutil.copy(smoke3 / name, truncated / name)
    (truncated / "model.minmax-0.keras").write_bytes(
        (smoke3 / "model.minmax-0.keras").read_bytes()[:-50]
    )
    shutil.copy(smoke3 / "model.log-0.keras", other / "model.minmax-0.keras")
    places = {
        "EMPTY": empty,
        "TRUNCATED": truncated,
        "OTHER": other,
        "BASE": smoke3,
        "RUN": smoke4,
        "ADAPTER": smoke4 / "adapter.r2-0.safetensors",
    }
    words = [places.get(word, word) for word in words]
    assert_refused(
        f"assignment4/{script}.py",
        ["--preset", "smoke", "--source", "auto", *words] if script == "train" else words,
        message,
        tmp_path,
    )
