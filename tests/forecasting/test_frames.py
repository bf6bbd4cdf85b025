"""fit and predict on data frames, with a train.py that needs no training."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from common.cli import InputError, parse
from common.forecasting.ahead import forecast_next
from common.forecasting.config import ForecastConfig, PredictConfig
from common.forecasting.frames import PRICES_FILE, fit_frame, predict_frame, predict_options
from common.forecasting.prices import load_for
from common.forecasting.saved import prices_of
from common.run import Run, SavedRun
from tests.conftest import ROOT
from tests.forecasting.price_tables import PAIR
from tests.forecasting.saved_runs import load, saved_run, walk_table, write
from tests.fuzzing import contents


def train(config: ForecastConfig) -> None:
    """What a train.py does with its options, less the training."""
    prices = load_for(config, PAIR)
    if len(prices.times) < 100:
        raise InputError(f"{len(prices.times)} rows give no test window")
    with Run(config, config.out, "assignment2/train.py", prices.source, prices.provenance):
        pass


def frames() -> dict[str, pd.DataFrame]:
    """The same prices in every shape of a frame."""
    wide = walk_table(300)
    times = pd.to_datetime(wide.time)
    indexed = wide.drop(columns="time").set_axis(pd.DatetimeIndex(times, name=None))
    long = wide.melt("time", var_name="unique_id", value_name="y").rename(columns={"time": "ds"})
    return {
        "text": wide,
        "times": wide.assign(time=times),
        "index": indexed,
        "named index": indexed.rename_axis("Date"),
        "naive index": indexed.tz_localize(None),
        "another zone": indexed.tz_convert("America/New_York"),
        "long": long[["unique_id", "ds", "y"]],
        "long with times": long.assign(ds=pd.to_datetime(long.ds)),
        "other columns": wide[["ETH", "time", "BTC"]],
    }


@pytest.mark.parametrize("name", frames())
def test_a_frame_is_trained_on_as_its_file_is(tmp_path, name):
    frame = frames()[name]
    before = frame.copy(deep=True)
    folder = fit_frame(frame, tmp_path / "run", ForecastConfig, train, {"test_steps": 60})
    pd.testing.assert_frame_equal(frame, before)

    run = SavedRun.open(folder, tmp_path, needs=())
    assert run.config["test_steps"] == 60
    prices = prices_of(run, PAIR)  # evaluate.py finds them
    columns = [prices.series.index(series) for series in PAIR.series]
    table = walk_table(300)
    np.testing.assert_array_equal(prices.values[:, columns], table[["BTC", "ETH"]])
    stamps = pd.DatetimeIndex(prices.times).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert list(stamps) == list(table.time)


def test_days_stay_days(tmp_path):
    table = walk_table(300, 0, "B")
    frame = table.drop(columns="time").set_axis(pd.DatetimeIndex(table.time))
    folder = fit_frame(frame, tmp_path / "run", ForecastConfig, train, {})
    prices = prices_of(SavedRun.open(folder, tmp_path, needs=()), PAIR)
    assert [prices.moment(row) for row in range(300)] == list(table.time)


def test_a_pandas_series_is_a_frame_of_one_column(tmp_path):
    table = walk_table(300)
    series = table.BTC.set_axis(pd.to_datetime(table.time))
    folder = fit_frame(series, tmp_path / "run", ForecastConfig, train, {})
    assert prices_of(SavedRun.open(folder, tmp_path, needs=()), PAIR).series == ("BTC",)
    with pytest.raises(InputError, match="a pandas data frame of prices is needed; list was given"):
        fit_frame([1.0, 2.0], tmp_path / "list", ForecastConfig, train, {})


def test_a_run_is_replaced_or_continued_only_when_asked(tmp_path):
    frame = walk_table(300)
    other = walk_table(300, 1)
    folder = fit_frame(frame, tmp_path / "run", ForecastConfig, train, {})
    before = contents(folder)
    for options, given, message in (
        ({}, frame, "holds a run; overwrite=True replaces it"),
        ({"resume": True}, other, "was made with another frame"),
        ({"overwrite": True}, other[:50], "50 rows"),
    ):
        with pytest.raises(InputError, match=message):
            fit_frame(given, folder, ForecastConfig, train, options)
        assert contents(folder) == before
    fit_frame(frame, folder, ForecastConfig, train, {"resume": True})
    fit_frame(other, folder, ForecastConfig, train, {"overwrite": True})
    prices = prices_of(SavedRun.open(folder, tmp_path, needs=()), PAIR)
    np.testing.assert_array_equal(prices.values, other[["BTC", "ETH"]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame[:50], "50 rows"),
        (
            lambda frame: frame.assign(BTC=frame.BTC.astype(object).where(frame.index != 3, "x")),
            "BTC",
        ),
        (lambda frame: frame[::-1].assign(time="soon"), "soon"),
        (lambda frame: frame[["time"]], "price"),
        (lambda frame: frame[:0], "0"),
    ],
)
def test_a_frame_that_train_would_refuse_leaves_nothing(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        fit_frame(change(walk_table(300)), tmp_path / "run", ForecastConfig, train, {})
    assert not (tmp_path / "run").exists()
    with pytest.raises(TypeError, match="tests_steps"):
        fit_frame(walk_table(300), tmp_path / "run", ForecastConfig, train, {"tests_steps": 3})
    with pytest.raises(InputError, match="--test-steps 0"):
        fit_frame(walk_table(300), tmp_path / "run", ForecastConfig, train, {"test_steps": 0})
    assert not (tmp_path / "run").exists()


def test_predict_gives_the_table_of_predict_py_and_writes_nothing(tmp_path):
    file = write(walk_table(400), tmp_path / "p.csv")
    run = saved_run(tmp_path / "run", file)
    words = ["--run", run, "--data", file, "--out", tmp_path / "out.csv", "--quantiles"]
    table = forecast_next(parse(PredictConfig, [str(word) for word in words]), tmp_path, PAIR, load)
    before = contents(tmp_path)
    for frame in (walk_table(400), walk_table(400)[["time", "ETH", "BTC"]]):
        config = predict_options(PredictConfig, str(run), {"quantiles": True})
        pd.testing.assert_frame_equal(predict_frame(frame, config, tmp_path, PAIR, load), table)
    assert contents(tmp_path) == before

    past = dataclasses.replace(config, at=str(walk_table(400).time[300]))
    assert predict_frame(frame, past, tmp_path, PAIR, load).time[0] == frame.time[301]
    with pytest.raises(InputError, match="trained on steps of 1 hour"):
        predict_frame(walk_table(400, 0, "D"), config, tmp_path, PAIR, load)
    with pytest.raises(InputError, match="ETH"):
        predict_frame(frame[["time", "BTC"]], config, tmp_path, PAIR, load)
    with pytest.raises(InputError, match="--at soon"):
        predict_options(PredictConfig, run, {"at": "soon"})
    with pytest.raises(InputError, match="--run nowhere does not exist"):
        predict_options(PredictConfig, "nowhere", {})


@pytest.mark.parametrize("assignment", ["assignment2", "assignment3", "assignment4"])
def test_nothing_heavy_is_imported_before_it_is_needed(assignment):
    code = f"""
import sys
from {assignment}.frames import fit, predict
assert not {{"tensorflow", "keras", "torch", "pandas", "numpy"}} & {{*sys.modules}}
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_kept_frame_has_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        fit_frame(walk_table(300), tmp_path / name, ForecastConfig, train, {})
    assert (tmp_path / "a" / PRICES_FILE).read_bytes() == (
        tmp_path / "b" / PRICES_FILE
    ).read_bytes()
