"""What the tests of assignments 2 and 3 share: windows, price tables and runs of the scripts."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.forecasting.config import EvaluateConfig, ForecastConfig
from common.forecasting.prices import COINS, Prices
from common.forecasting.simulate import simulate
from common.forecasting.windows import past
from common.results import Results
from tests.conftest import ROOT, no_data_folder, run_main

CONTEXT = 48
WALKS = {"random walk", "GARCH-t", "quantile regression", "log-HAR-t"}
BASELINES = {"no change", "drift", "seasonal naive", "NLinear"} | WALKS


def inputs(
    prices: Prices, origins: np.ndarray, values: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Prices (N, 48, S) and times (N, 48) up to the origins, of other `values` where given."""
    values = prices.values if values is None else values
    times = past(prices.times[:, None], origins, CONTEXT)[..., 0]
    return past(values, origins, CONTEXT), times


def table(prices: Prices) -> pd.DataFrame:
    """Prices as a user's wide table."""
    times = pd.to_datetime(prices.times, utc=True).strftime("%Y-%m-%dT%H:%M:%SZ")
    wide = pd.DataFrame(prices.values, columns=list(prices.series)).assign(time=times)
    return wide[["time", *prices.series]]


def write_clean_and_poisoned(folder: Path, steps: int) -> tuple[Path, Path]:
    """The simulated prices as a file, and once more with another last quarter (the test part)."""
    clean = table(simulate(COINS, steps, 0))
    series = clean.columns[1:]
    last = clean.index[-steps // 4 :]
    factors = np.random.default_rng(0).uniform(0.5, 2, (len(last), len(series)))
    poisoned = clean.copy()
    poisoned.loc[last, series] *= factors
    clean.to_csv(folder / "clean.csv", index=False)
    poisoned.to_csv(folder / "poisoned.csv", index=False)
    return folder / "clean.csv", folder / "poisoned.csv"


def write_bad_tables(folder: Path) -> None:
    """Price tables that a user may give and that must be refused."""
    whole = table(simulate(COINS, 300, 3))
    whole[:60].to_csv(folder / "short.csv", index=False)
    whole.assign(BTC=[0.0, *whole.BTC[1:]]).to_csv(folder / "zero.csv", index=False)
    whole.drop(columns="DOT").to_csv(folder / "missing.csv", index=False)
    whole.drop(index=280).to_csv(folder / "gap.csv", index=False)


def pooled_test_scores(rows: list[dict]) -> dict[tuple[str, str, str], float]:
    """{(model, variant, metric): value} of the held-out rows over all series and steps."""
    return {
        (row["model"], row["variant"], row["metric"]): row["value"]
        for row in rows
        if row["protocol"] == "held-out"
        and row["split"] == "test"
        and row["series"] is None
        and row["horizon"] is None
    }


def check_evaluate(main: Callable[[EvaluateConfig], Results], run: Path, folder: Path) -> None:
    """evaluate.py repeats the run's pooled scores, and scores every origin of new prices."""
    run_main(main, EvaluateConfig, "--run", run, "--out", folder / "scores.json")
    evaluated = json.loads((folder / "scores.json").read_text())["rows"]
    trained = json.loads((run / "metrics.json").read_text())["rows"]
    assert pooled_test_scores(evaluated) == pytest.approx(pooled_test_scores(trained))

    table(simulate(COINS, 400, 7)).to_csv(folder / "new.csv.gz", index=False)
    out = folder / "new.json"
    words = ("--run", run, "--data", folder / "new.csv.gz", "--out", out)
    run_main(main, EvaluateConfig, *words)
    assert json.loads(out.read_text())["run"]["origins"] == 400 - 96 - 5 + 1


def run_example(
    assignment: str, run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """The names that its example in docs/own-data.md leaves, with a run in place of its training.

    It is run in `folder`, which holds its table of prices.
    """
    train = importlib.import_module(f"{assignment}.train")
    trained = []

    def copy_run(config: ForecastConfig) -> None:
        trained.append(config)
        shutil.copytree(
            run, config.out, ignore=shutil.ignore_patterns("checkpoints"), dirs_exist_ok=True
        )

    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (example,) = (text for text in examples if f"{assignment}.frames" in text)
    names: dict[str, object] = {}
    with contextlib.chdir(folder), no_data_folder():
        monkeypatch.setattr(train, "main", copy_run)
        exec(example, names)
    (config,) = trained
    assert config.preset == "smoke"
    assert config.data == config.out / "prices.parquet"
    return names


def check_forecast(prices: Prices, file: Path) -> None:
    """A table of predict.py: five hours of every coin, intervals nested, a figure beside it."""
    forecast = pd.read_csv(file)
    assert len(forecast) == 5 * len(prices.series)
    last = pd.Timestamp(prices.times[-1], tz="UTC")
    assert pd.Timestamp(forecast.time[0]) == last + pd.Timedelta("1h")
    assert (forecast.low_95 < forecast.low_80).all()
    assert (forecast.low_80 < forecast.high_80).all()
    assert (forecast.high_80 < forecast.high_95).all()
    no_change = forecast[forecast.series == prices.series[0]].no_change
    np.testing.assert_allclose(no_change, prices.values[-1, 0], rtol=1e-6)
    assert file.with_suffix(".png").stat().st_size > 0
