"""The exchange-rate benchmark: its parts, its windows, the published error, a small run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from assignment3.config import ExchangeConfig
from assignment3.exchange import (
    Benchmark,
    beats_no_change,
    load,
    main,
    split_by_share,
    z_scored,
)
from common.cli import InputError, data_folder, parse
from tests.conftest import assert_refused, run_main

REAL = data_folder() / "exchange_rate_lai2017.txt.gz"


def test_the_parts_of_the_benchmark():
    parts = split_by_share(1000, 96, 24)
    assert (parts.train[0], parts.train[-1] + 24) == (95, 699)
    assert (parts.validation[0] + 1, parts.validation[-1] + 24) == (700, 799)
    assert (parts.test[0] + 1, parts.test[-1] + 24) == (800, 999)  # every window, the last one too
    assert len(parts.test) == 200 - 24 + 1
    with pytest.raises(InputError, match="no validation window"):
        split_by_share(600, 96, 150)


def test_windows_by_series_are_less_their_last_value_and_come_back():
    values = np.random.default_rng(0).standard_normal((50, 2))
    benchmark = Benchmark(values, split_by_share(50, 8, 3), 8, 3)
    origins = np.array([20, 30])
    contexts, targets = benchmark.by_series(origins)
    second_window_second_series = values[23:31, 1] - values[30, 1]
    np.testing.assert_allclose(contexts[3], second_window_second_series, atol=1e-6)
    np.testing.assert_allclose(targets[0], values[21:24, 0] - values[20, 0], atol=1e-6)
    rates = benchmark.rates(targets, origins)
    np.testing.assert_allclose(rates, benchmark.future(origins), atol=1e-6)


def test_validation_prefers_only_a_forecast_that_is_clearly_better():
    rng = np.random.default_rng(0)
    actual = rng.standard_normal((200, 3, 2))
    unchanged = np.zeros_like(actual)
    assert beats_no_change(0.5 * actual, actual, unchanged, 0.05)
    assert not beats_no_change(unchanged, actual, unchanged, 0.05)
    assert not beats_no_change(-actual, actual, unchanged, 0.05)
    assert not beats_no_change(0.5 * actual[:5], actual[:5], unchanged[:5], 0.05)  # too few


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.exists(), reason=f"no {REAL.name} in ADL_DATA_DIR")
@pytest.mark.parametrize(("horizon", "published"), [(96, 0.081), (192, 0.167), (336, 0.305)])
def test_no_change_has_the_published_error(horizon, published):
    """Zeng et al. 2023, table 2, Repeat."""
    values = z_scored(load(REAL))
    parts = split_by_share(len(values), 96, horizon)
    benchmark = Benchmark(values, parts, 96, horizon)
    errors = benchmark.future(parts.test) - values[parts.test][:, None]
    assert np.mean(errors**2) == pytest.approx(published, abs=0.002)


@pytest.fixture
def rates(tmp_path):
    walk = 1 + 0.01 * np.random.default_rng(0).standard_normal((900, 2)).cumsum(0)
    np.savetxt(tmp_path / "rates.txt", walk, delimiter=",")
    return tmp_path / "rates.txt"


def test_the_benchmark_runs_on_a_small_table(rates, tmp_path):
    out = tmp_path / "run"
    run_main(main, ExchangeConfig, "--preset", "smoke", "--data", rates, "--out", out)
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"no change", "NLinear", "Transformer"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "bad.txt"], "row 2"),
        (["--data", "nowhere.txt"], "nowhere.txt"),
        (["--data", "rates.txt", "--horizons", "400"], "no validation window"),
    ],
)
def test_a_users_mistake_is_refused(rates, tmp_path, words, message):
    (tmp_path / "bad.txt").write_text("1.0,2.0\n1.0,nan\n")
    assert_refused(main, ExchangeConfig, words, message, tmp_path)


def test_a_patch_that_does_not_divide_the_context_is_refused():
    with pytest.raises(InputError, match="--patch 7"):
        parse(ExchangeConfig, ["--patch", "7"])
