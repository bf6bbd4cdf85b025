"""The bodies of evaluate.py and predict.py, with a forecaster that needs no training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.cli import InputError, parse
from common.files import write_arrays
from common.forecasting import ahead as ahead_module
from common.forecasting import scripts
from common.forecasting.ahead import forecast_next, until
from common.forecasting.config import EvaluateConfig, PredictConfig
from common.forecasting.history import Prices
from common.forecasting.markets import Market
from common.forecasting.metrics import LEVELS, crps_quantiles
from common.forecasting.prices import read_table
from common.forecasting.saved import SavedForecasters
from common.forecasting.scripts import evaluate
from tests.forecasting.price_tables import PAIR
from tests.forecasting.saved_runs import HORIZON, draw, load, saved_run, walk_table, write
from tests.fuzzing import contents

Words = tuple[object, ...]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run on p.csv beside it."""
    monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path / "nothing"))
    folder = saved_run(tmp_path / "run", write(walk_table(400), tmp_path / "p.csv"))
    (folder / "drawn.png").unlink(missing_ok=True)
    return folder


def scored(run: Path, *words: object, load: Callable[[Path], SavedForecasters] = load) -> dict:
    """What evaluate.py writes, read back from the file that it names last."""
    config = parse(EvaluateConfig, ["--run", str(run), *(str(word) for word in words)])
    return evaluate(config, run.parent, PAIR, load, draw)


def values(found: dict) -> dict[tuple[object, ...], float]:
    """The scores of evaluate.py, less NLinear's, which only a run's own part has."""
    keys = ("model", "variant", "metric", "series", "horizon")
    return {
        tuple(row[key] for key in keys): row["value"]
        for row in found["rows"]
        if row["model"] != "NLinear"
    }


def ahead(run: Path, *words: object, load: Callable[[Path], SavedForecasters] = load):
    words = ("--run", run, "--source", "csv", *words)
    config = parse(PredictConfig, [str(word) for word in words])
    return forecast_next(config, run.parent, PAIR, load)


def refused(call: Callable[[], object], folder: Path, *messages: str) -> None:
    """InputError with every message in one line, and no file more, less or changed."""
    before = contents(folder)
    with pytest.raises(InputError) as refusal:
        call()
    line = str(refusal.value)
    assert "\n" not in line
    for message in messages:
        assert message in line
    assert contents(folder) == before


# ------------------------------------------------------------------------------ given prices


def test_given_prices_are_scored_under_their_own_name(run, tmp_path, capsys):
    own = (run / "metrics.json").read_bytes()
    new = write(walk_table(300, 7), tmp_path / "new.csv.gz")
    found = scored(run, "--data", new)
    assert found["run"]["origins"] == 300 - 8 - 2 + 1
    assert {row["split"] for row in found["rows"]} == {"given"}
    cells = [row for row in found["rows"] if row["series"] and row["horizon"]]
    assert {row["metric"] for row in cells} >= {"rmsse", "crps_ratio", "p_crps"}
    assert json.loads((run / "evaluation-new.json").read_text()) == found
    printed = capsys.readouterr().out
    assert "held out, given prices" in printed
    assert "test part" not in printed
    assert not (run / "drawn.png").exists()
    assert not (run / "evaluation.json").exists()
    assert (run / "metrics.json").read_bytes() == own


def test_a_second_table_overwrites_nothing(run, tmp_path):
    scored(run)
    (tmp_path / "other").mkdir()
    first = write(walk_table(300, 7), tmp_path / "new.csv")
    second = write(walk_table(300, 8), tmp_path / "other" / "new.csv")
    for file in (first, second, first, second):
        scored(run, "--data", file)
    names = {path.name for path in run.glob("evaluation*")}
    assert len(names) == 3
    assert {"evaluation.json", "evaluation-new.json"} < names
    digests = {json.loads((run / name).read_text())["run"]["data"]["sha256"] for name in names}
    assert len(digests) == 3

    # a file of scores that is damaged is left as it is
    third = write(walk_table(300, 9), tmp_path / "third.csv")
    (run / "evaluation-third.json").write_text("{")
    scored(run, "--data", third)
    assert (run / "evaluation-third.json").read_text() == "{"


def test_the_runs_own_file_is_scored_where_it_was_not_trained(run, tmp_path, capsys):
    found = scored(run, "--data", tmp_path / "p.csv")
    printed = capsys.readouterr().out
    train, validation = 255, 59  # rows 7 to 261 and 271 to 329
    both = train + validation
    words = f"{both} of 391 origins lie in the part that the models were trained ({train}) or "
    assert words + f"stopped ({validation}) on and are left out" in printed
    assert found["run"]["left_out"]["trained"] == train
    assert found["run"]["left_out"]["stopped"] == validation
    assert found["run"]["origins"] == 391 - both - found["run"]["left_out"]["reaching_into_them"]

    # its own rows are known in another file too, and by their dates once its file has gone
    table = walk_table(400)
    copy = write(table[["time", "ETH", "BTC"]], tmp_path / "copy.csv")
    assert scored(run, "--data", copy)["run"]["origins"] == found["run"]["origins"]
    (tmp_path / "p.csv").unlink()
    assert scored(run, "--data", copy)["run"]["origins"] == found["run"]["origins"]
    assert "(told by date: the run's own prices are not here)" in capsys.readouterr().out
    moved = write(table, tmp_path / "moved.csv")
    assert scored(run, "--data", moved)["run"]["origins"] == found["run"]["origins"]
    assert "(told by time and price)" in capsys.readouterr().out


def test_nothing_left_to_score_is_refused(run, tmp_path):
    begin = write(walk_table(400)[:200], tmp_path / "begin.csv")
    call = lambda: scored(run, "--data", begin)  # noqa: E731
    refused(call, tmp_path, "191 of 191 origins", "trained (191)", "0 are left to score")


def test_origins_from_scores_a_part_with_its_own_history(run, tmp_path):
    test_start = walk_table(400).time[400 - 60 - 1]  # the first origin of the run's test part
    own = scored(run, "--out", tmp_path / "own.json")
    part = scored(run, "--data", tmp_path / "p.csv", "--origins-from", test_start)
    assert part["run"]["origins"] == own["run"]["origins"] == 59
    assert part["run"]["first"] == test_start
    # models of volatility need a training part, or networks that they were saved with:
    fitted = {"GARCH-t", "log-HAR-t", "quantile regression"}
    again = {key: value for key, value in values(own).items() if key[0] not in fitted}
    assert values(part) == again


def test_series_that_the_run_does_not_have_are_left_out_and_named(run, tmp_path, capsys):
    table = walk_table(300, 7)
    plain = write(table, tmp_path / "plain.csv")
    more = table.assign(XRP=np.arange(1.0, 301), DOGE=np.arange(2.0, 302))
    extra = write(more[["time", "XRP", "ETH", "DOGE", "BTC"]], tmp_path / "extra.csv")
    found = scored(run, "--data", extra)
    printed = capsys.readouterr().out
    assert "read: extra.csv: 2 series (BTC, ETH), 300 hours" in printed
    assert "XRP" in printed
    assert values(found) == values(scored(run, "--data", plain))
    words = ("--out", tmp_path / "out.csv", "--data")
    pd.testing.assert_frame_equal(ahead(run, *words, extra), ahead(run, *words, plain))


def test_given_prices_are_read_as_the_options_say(run, tmp_path):
    table = walk_table(300, 7).round(3)
    plain = write(table, tmp_path / "plain.csv")
    german = tmp_path / "german.csv"
    table.rename(columns={"time": "Zeit"}).to_csv(german, index=False, sep=";", decimal=",")
    options = ("--decimal", ",", "--time-column", "Zeit")
    found = scored(run, "--data", german, *options)
    assert values(found) == values(scored(run, "--data", plain))
    words = ("--out", tmp_path / "out.csv", "--data")
    as_plain = ahead(run, *words, plain)
    pd.testing.assert_frame_equal(ahead(run, *words, german, *options), as_plain)


@pytest.mark.parametrize(
    ("words", "tickers", "interval"),
    [
        ((), ("AAPL", "MSFT"), "1d"),
        (("--tickers", "SPY", "QQQ"), ("SPY", "QQQ"), "1d"),
        (("--interval", "1h"), ("AAPL", "MSFT"), "1h"),
    ],
)
def test_yahoo_is_asked_for_the_tickers_of_the_run(
    run, tmp_path, monkeypatch, words, tickers, interval
):
    record = json.loads((run / "run.json").read_text())
    record["config"] |= {"tickers": ["AAPL", "MSFT"], "interval": "1d"}
    (run / "run.json").write_text(json.dumps(record))
    asked = []

    def load_prices(source: str, data: Path | None, market: Market, *_: object) -> Prices:
        asked.append((source, data, market.tickers, "1h" if market.hourly else "1d"))
        raise InputError("stop")

    monkeypatch.setattr(ahead_module, "load_prices", load_prices)
    config = parse(PredictConfig, ["--run", str(run), "--source", "yahoo", *words])
    with pytest.raises(InputError, match="stop"):
        forecast_next(config, run.parent, PAIR, load)
    assert asked == [("yahoo", None, tickers, interval)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "p.csv", "--origins-from", "2024-01-18"), "0 origins of p.csv are left"),
        (("--data", "p.csv", "--origins-from", "soon"), "--origins-from soon: allowed are"),
        (("--origins-from", "2024-01-10"), "--origins-from goes with --data"),
        (("--forecasts", "f.xlsx"), "--forecasts f.xlsx: allowed are .parquet, .csv, .csv.gz"),
        (("--forecasts", "none/f.csv"), "the folder none does not exist"),
        (("--data", "days.csv"), "trained on steps of 1 hour"),
        (("--data", "short.csv"), "12 rows hold 3 windows of 8 + 2 rows"),
        (("--data", "zero.csv"), "BTC is 0"),
        (("--data", "missing.csv"), "ETH"),
    ],
)
def test_a_users_mistake_is_refused(run, tmp_path, monkeypatch, words, message):
    table = walk_table(400)
    write(walk_table(300, 3, "D"), tmp_path / "days.csv")
    write(table[:12], tmp_path / "short.csv")
    write(table.assign(BTC=[0.0, *table.BTC[1:]]), tmp_path / "zero.csv")
    write(table[["time", "BTC"]], tmp_path / "missing.csv")
    monkeypatch.chdir(tmp_path)
    refused(lambda: scored(run, *words), tmp_path, message)


def test_a_run_keeps_its_step(run, tmp_path):
    days = write(walk_table(300, 3, "D"), tmp_path / "days.csv")
    refused(
        lambda: ahead(run, "--data", days, "--out", tmp_path / "out.csv"),
        tmp_path,
        "was trained on steps of 1 hour, and the steps of days.csv are 1 day",
    )
    # a run of days in a market of hours, as committed runs tell it: by the unit of their gaps
    daily = saved_run(tmp_path / "daily", days)
    record = json.loads((daily / "run.json").read_text())
    record["data"].pop("step", None)
    (daily / "run.json").write_text(json.dumps(record))
    hours = write(walk_table(300, 7), tmp_path / "hours.csv")
    message = "was trained on steps of 1 day, and the steps of hours.csv are 1 hour"
    refused(lambda: scored(daily, "--data", hours), tmp_path, message)
    days_too = write(walk_table(200, 5, "D"), tmp_path / "more.csv")
    assert scored(daily, "--data", days_too)["run"]["origins"] == 191


# ----------------------------------------------------------------------------------- outputs


def test_a_folder_that_cannot_be_written_needs_out(run, tmp_path, monkeypatch):
    monkeypatch.setattr(scripts.os, "access", lambda path, mode: Path(path) != run)
    before = contents(run)
    out = tmp_path / "elsewhere.json"
    assert scored(run, "--out", out)["run"]["origins"] == 59
    scored(run, "--data", tmp_path / "p.csv", "--out", out)
    assert contents(run) == before
    never: Callable[[Path], SavedForecasters] = lambda folder: pytest.fail("models were read")  # noqa: E731
    refused(lambda: scored(run, load=never), tmp_path, "cannot be written; name a file", "--out")


@pytest.mark.parametrize("name", ["f.parquet", "f.csv", "f.csv.gz"])
def test_every_forecast_of_a_backtest(run, tmp_path, capsys, name):
    found = scored(run, "--out", tmp_path / "own.json", "--forecasts", tmp_path / name)
    file = tmp_path / name
    table = pd.read_parquet(file) if name == "f.parquet" else pd.read_csv(file)
    quantiles = [f"q{level:.2f}" for level in LEVELS]
    ends = [f"y_hat-{end}-{share}" for share in (80, 95) for end in ("lo", "hi")]
    assert list(table) == ["unique_id", "ds", "cutoff", "y", "y_hat", *ends, *quantiles]
    assert len(table) == 59 * HORIZON * 2
    assert f"mean of 2 seeds is in {file}: 236 rows" in capsys.readouterr().out
    assert not table.duplicated(["unique_id", "cutoff", "ds"]).any()

    # what came, and when
    hours = [pd.to_datetime(table[column]).dt.tz_localize(None) for column in ("cutoff", "ds")]
    assert set((hours[1] - hours[0]) / pd.Timedelta("1h")) == {1, 2}
    wide = walk_table(400).set_index("time")
    stamps = hours[1].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    actual = [wide[name][stamp] for name, stamp in zip(table.unique_id, stamps, strict=True)]
    np.testing.assert_allclose(table.y, actual, rtol=1e-7)

    # the scores of the backtest come out of the table
    moments = hours[0].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    last = np.array([wide[name][at] for name, at in zip(table.unique_id, moments, strict=True)])
    changes = np.log(table[quantiles].to_numpy() / last[:, None])
    crps = crps_quantiles(changes[:, None, None], np.log(table.y.to_numpy() / last)[:, None, None])
    (row,) = [
        row["value"]
        for row in found["rows"]
        if (row["metric"], row["variant"], row["series"], row["horizon"])
        == ("crps", "mean of 2 seeds", "BTC", None)
    ]
    assert crps[table.unique_id == "BTC"].mean() == pytest.approx(row, rel=1e-4)
    np.testing.assert_allclose(table["y_hat-lo-80"], table["q0.10"], rtol=1e-6)


# ----------------------------------------------------------------------------------- predict


def test_predict_from_a_past_date_reads_nothing_after_it(run, tmp_path):
    table = walk_table(400, 7)
    spoilt = table.copy()
    spoilt.loc[301:, ["BTC", "ETH"]] *= 1e6 * np.arange(1, 100)[:, None]
    tables = {"whole": table, "cut": table[:301], "spoilt": spoilt}
    at = ("--at", pd.Timestamp(table.time[300]) + pd.Timedelta("40min"))
    outputs = []
    for name, given in tables.items():
        words = ("--data", write(given, tmp_path / f"{name}.csv"), "--out", tmp_path / "out.csv")
        ahead(run, *words, *(() if name == "cut" else at), "--quantiles")
        outputs.append((tmp_path / "out.csv").read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]
    forecast = pd.read_csv(tmp_path / "out.csv")
    assert list(forecast.time[:2]) == list(table.time[301:303])
    np.testing.assert_allclose(forecast.no_change[0], table.BTC[300], rtol=1e-7)


def test_predict_writes_all_quantiles_when_asked(run, tmp_path):
    words = ("--data", tmp_path / "p.csv", "--out", tmp_path / "out.csv")
    plain = ahead(run, *words)
    whole = ahead(run, *words, "--quantiles")
    assert list(whole)[: plain.shape[1]] == list(plain)
    quantiles = whole.loc[:, "q0.01":"q0.99"].to_numpy()
    assert quantiles.shape == (4, 99)
    assert (np.diff(quantiles) >= 0).all()
    np.testing.assert_allclose(whole.low_80, whole["q0.10"], rtol=1e-6)
    np.testing.assert_allclose(whole.high_80, whole["q0.90"], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--at", "2023-12-31"), "the first price of p.csv is of 2024-01-01T00:00:00Z"),
        (("--at", "yesterday"), "--at yesterday: allowed are"),
        (("--at", "2024-01-01T03:00Z"), "the last 8 rows are needed without a gap; 4 rows"),
    ],
)
def test_a_past_date_that_cannot_be_is_refused(run, tmp_path, words, message):
    data = ("--data", tmp_path / "p.csv", "--out", tmp_path / "out.csv")
    refused(lambda: ahead(run, *data, *words), tmp_path, message)


def test_a_gap_in_the_last_rows_is_named(run, tmp_path):
    table = walk_table(400)
    gap = write(table.drop(index=range(390, 395)), tmp_path / "gap.csv")
    words = ("--data", gap, "--out", tmp_path / "out.csv")
    refused(
        lambda: ahead(run, *words),
        tmp_path,
        f"after {table.time[389]} nothing comes until {table.time[395]}, and 5 rows follow",
        f"--at {table.time[389]}",
    )
    forecast = ahead(run, *words, "--at", table.time[389])
    assert forecast.time[0] == table.time[390]


def test_a_market_that_closes_is_forecast_at_its_open_hours(tmp_path):
    """Currencies: Sunday 22:00 to Friday 21:00 in UTC; a window steps over the weekend."""
    table = walk_table(24 * 7 * 8)
    times = pd.to_datetime(table.time)
    hours = times.dt.day_of_week * 24 + times.dt.hour  # of the week
    currencies = table[(hours < 4 * 24 + 21) | (hours >= 6 * 24 + 22)].reset_index(drop=True)
    file = write(currencies, tmp_path / "fx.csv")
    run = saved_run(tmp_path / "run", file, steps=200)
    words = ("--data", file, "--out", tmp_path / "out.csv")
    friday = ahead(run, *words, "--at", "2024-02-16T20:00Z")
    assert list(friday.time[:2]) == ["2024-02-18T22:00:00Z", "2024-02-18T23:00:00Z"]
    monday = ahead(run, *words, "--at", "2024-02-19T01:00Z")  # its context holds the weekend
    assert list(monday.time[:2]) == ["2024-02-19T02:00:00Z", "2024-02-19T03:00:00Z"]


def test_a_date_alone_is_the_day_of_daily_prices(tmp_path):
    prices = read_table(write(walk_table(30, 0, "D"), tmp_path / "days.csv"))
    assert until(prices, "2024-01-20").moment(-1) == "2024-01-20"
    assert until(prices, "2024-01-20T23:00+05:00").moment(-1) == "2024-01-20"
    assert until(prices, "2030-01-01").moment(-1) == "2024-01-30"


# --------------------------------------------------------------------------- damaged folders

RECORDS: dict[str, object] = {
    "a list": [],
    "no config": {"data": {}, "notes": {}},
    "config a list": {"config": [], "data": {}, "notes": {}},
    "an empty config and no source": {"config": {}, "data": {}, "notes": {}},
    "steps are a word": {
        "config": {"test_steps": "x"},
        "data": {"sha256": "0"},
        "notes": {},
        "source": "csv",
    },
    "data a number": {"config": {"data": 3}, "data": {}, "notes": {}, "source": "csv"},
    "a source of another kind": {"config": {}, "data": {}, "notes": {}, "source": ["csv"]},
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_run_json_ends_in_one_line(run, tmp_path, name):
    (run / "run.json").write_text(json.dumps(RECORDS[name]))
    other = write(walk_table(300, 7), tmp_path / "new.csv")
    refused(lambda: scored(run), tmp_path)
    if name in ("a list", "no config", "config a list"):
        refused(lambda: scored(run, "--data", other), tmp_path, "run.json")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.csv", "step,epoch,split,name,value\n1,1,tr\xe4in,a,1\n".encode("latin-1")),
        ("metrics.csv", b"a,b\n1,2\n"),
        ("metrics.csv", None),
        ("metrics.json", b"[]"),
        ("metrics.json", b"{}"),
        ("metrics.json", b'{"rows": [1]}'),
        ("predictions.npz", b"\x80\x04N."),
        ("predictions.npz", b"PK"),
        ("predictions.npz", None),
    ],
)
def test_damaged_files_of_a_run_are_refused_before_any_work(run, tmp_path, file, content):
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_bytes(content)
    never: Callable[[Path], SavedForecasters] = lambda folder: pytest.fail("models were read")  # noqa: E731
    refused(lambda: scored(run, load=never), tmp_path, file)
    if file != "metrics.json":
        scored(run, "--out", tmp_path / "scores.json")


def test_pickled_arrays_are_refused(run, tmp_path):
    np.savez(run / "predictions.npz", levels=np.array([{}], object))
    refused(lambda: scored(run), tmp_path, "predictions.npz")


def test_files_that_cannot_be_drawn_end_in_one_line(run):
    def broken(folder: Path) -> None:
        raise KeyError("fan_times")

    write_arrays(run / "predictions.npz", other=LEVELS)
    config = parse(EvaluateConfig, ["--run", str(run)])
    with pytest.raises(InputError, match=r"figures .* cannot be used \(KeyError: 'fan_times'\)"):
        evaluate(config, run.parent, PAIR, load, broken)


@pytest.mark.parametrize("error", [KeyError("seq2seq"), ValueError("no layer"), TypeError("3")])
def test_models_of_another_kind_end_in_one_line(run, tmp_path, error):
    def foreign(folder: Path) -> SavedForecasters:
        raise error

    for call in (
        lambda: scored(run, load=foreign),
        lambda: ahead(run, "--data", tmp_path / "p.csv", load=foreign),
    ):
        refused(call, tmp_path, f"the models in {run} cannot be used", "--run")


def test_a_run_without_its_folder_of_models_is_refused(run, tmp_path):
    shutil.rmtree(run)
    refused(lambda: scored(run), tmp_path, "does not exist")
