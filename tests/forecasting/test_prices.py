"""Sources and their order, the choice of series, quotes per dollar, and the real data."""

from __future__ import annotations

import os
import time
import urllib.request
from http.client import BadStatusLine
from pathlib import Path
from unittest.mock import Mock
from urllib.error import HTTPError, URLError

import numpy as np
import pytest

from common.cli import InputError
from common.forecasting.prices import (
    COINS,
    CURRENCIES,
    Simulation,
    check_positive,
    load_prices,
    read_table,
    select,
)
from common.forecasting.simulate import simulate
from common.forecasting.yahoo import fetch
from tests.forecasting.price_tables import NOW, PAIR, contents, hourly, recorded, table

pytestmark = pytest.mark.usefixtures("folder")
OFFLINE = "cannot be reached"


def test_select_orders_and_refuses_other_series(tmp_path):
    source = simulate(COINS, 20)
    chosen = select(source, COINS.series[::-1])
    np.testing.assert_array_equal(chosen.values, source.values[:, ::-1])
    assert chosen.series == COINS.series[::-1]
    for wanted in (COINS.series[1:], (*COINS.series, "XRP"), ("XRP",)):
        with pytest.raises(
            InputError,
            match=f"has the series BTC, ETH.*DOT; exactly {', '.join(wanted)} are needed",
        ):
            select(source, wanted)


def test_check_positive_names_series_time_and_reason(tmp_path):
    read = read_table(
        table(
            tmp_path / "a.csv",
            "date,WTI,Brent",
            "2020-04-17,18.31,28",
            "2020-04-20,-36.98,0",
            "2020-04-21,8.91,1",
        )
    )
    with pytest.raises(
        InputError,
        match=r"a\.csv: WTI is -36\.98 at 2020-04-20; a logarithm needs prices above zero",
    ):
        check_positive(read, "a logarithm needs prices above zero")
    check_positive(simulate(COINS, 20), "not reached")


def test_quotes_per_dollar_become_the_markets_series(tmp_path):
    header = (
        "date,USD_per_EUR,USD_per_GBP,USD_per_AUD,JPY_per_USD,CAD_per_USD,CHF_per_USD,WTI,Brent"
    )
    path = table(
        tmp_path / CURRENCIES.file,
        header,
        "2024-01-01,1.1,1.2,0.7,150,1.25,0.8,70,75",
        "2024-01-02,1.1,1.2,0.7,100,1.25,0.8,-70,75",
    )
    for read in (load_prices("auto", None, CURRENCIES), load_prices("csv", path, CURRENCIES)):
        assert read.series == CURRENCIES.series
        np.testing.assert_allclose(read.values[1], [1.1, 1.2, 0.01, 0.7, 0.8, 1.25, -70])
        assert read.provenance["left_out"] == ["Brent"]
    table(
        path,
        header,
        "2024-01-01,1.1,1.2,0.7,150,1.25,0.8,70,75",
        "2024-01-02,1.1,1.2,0.7,0,1.25,0.8,-70,75",
    )
    with pytest.raises(InputError, match="JPY_per_USD is 0 at 2024-01-02"):
        load_prices("csv", path, CURRENCIES)
    assert load_prices(
        "csv", table(path, "date,USD_per_EUR", "2024-01-01,1", "2024-01-02,2"), CURRENCIES
    ).series == ("USD_per_EUR",)


def test_auto_takes_data_then_the_folder_then_yahoo_then_the_simulation(folder, yahoo, monkeypatch):
    answers, calls = yahoo.answers, yahoo.calls
    answers.append(ConnectionError("refused"))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("auto waits"))
    for answer, asked in (
        (URLError("no network"), 0),
        (TimeoutError(), 0),
        (BadStatusLine("?"), 0),
        (HTTPError("", 404, "", {}, None), 1),
    ):
        monkeypatch.setattr(urllib.request, "urlopen", Mock(side_effect=answer))
        simulated = load_prices("auto", None, PAIR, simulation=Simulation(3, 50))
        assert (simulated.source, len(calls), len(simulated.times)) == ("simulated", asked, 50)
    notice = simulated.provenance["notice"]
    assert notice.startswith("simulated prices, not real data; get real ones with --source yahoo,")
    assert "--data FILE, or pair.csv" in notice
    answers[:] = [recorded()]
    monkeypatch.setattr(urllib.request, "urlopen", Mock())
    assert load_prices("auto", None, PAIR).source == "yahoo"
    assert len(calls) == 2
    assert load_prices("auto", None, PAIR).source == "yahoo"
    assert len(calls) == 2  # the cache needs no network
    table(folder / "pair.csv", *hourly(["1", "2", "3"]))
    assert load_prices("auto", None, PAIR).source == load_prices("csv", None, PAIR).source == "csv"
    given = table(folder / "mine.csv", *hourly(["1", "2", "3"], "time,mine"))
    assert load_prices("auto", given, PAIR).series == ("mine",)
    assert load_prices("auto", given, PAIR).values.shape == (3, 1)


def test_an_explicit_source_never_falls_back(folder, yahoo, monkeypatch):
    yahoo.answers.append(ConnectionError("refused"))
    monkeypatch.setattr(fetch, "__defaults__", ("max", 1, lambda _: None, NOW))
    for source, data, expected in (
        ("csv", None, "pair.csv does not exist"),
        ("cache", None, "pair-1h.parquet does not exist; --source yahoo fetches it"),
        ("yahoo", None, OFFLINE),
        ("yahoo", folder, "goes with --source csv or auto, not with yahoo"),
        ("simulated", folder, "not with simulated"),
        ("binance", None, "allowed are auto, yahoo, cache, csv, simulated"),
        ("csv", folder / "no.csv", "no.csv does not exist"),
    ):
        with pytest.raises(InputError, match=expected):
            load_prices(source, data, PAIR)
    assert not contents(folder)


# ---------------------------------------------------------------------------------- real data

REAL = Path(os.environ.get("ADL_DATA_DIR") or "nowhere")


@pytest.mark.realdata
@pytest.mark.skipif(not (REAL / COINS.file).exists(), reason=f"no {COINS.file} in ADL_DATA_DIR")
def test_the_real_hours():
    real = load_prices("auto", None, COINS)
    assert (real.series, real.hourly, real.values.shape) == (COINS.series, True, (42_629, 7))
    assert (real.provenance["gaps"]["count"], real.provenance["gaps"]["missing_hours"]) == (10, 20)
    assert (real.provenance["first"], real.provenance["last"]) == (
        "2020-08-18T23:00:00Z",
        "2025-06-30T23:00:00Z",
    )
    assert (~real.contiguous()).sum() == 10
    check_positive(real, "not reached")
    returns = np.diff(np.log(real.values), axis=0)[real.contiguous()]
    np.testing.assert_allclose(returns.std(0), COINS.deviation, rtol=0.01)
    np.testing.assert_allclose(np.corrcoef(returns.T), COINS.correlation, atol=0.01)


@pytest.mark.realdata
@pytest.mark.skipif(
    not (REAL / CURRENCIES.file).exists(), reason=f"no {CURRENCIES.file} in ADL_DATA_DIR"
)
def test_the_real_days():
    real = load_prices("csv", None, CURRENCIES)
    assert (real.series, real.hourly, len(real.times)) == (CURRENCIES.series, False, 6431)
    with pytest.raises(
        InputError, match=r"WTI is -36\.98 at 2020-04-20; a logarithm needs prices above zero"
    ):
        check_positive(real, "a logarithm needs prices above zero")
    rows = (real.times >= np.datetime64("2010-01-01")) & (real.values[:, -1] > 0)
    returns = np.diff(np.log(real.values[rows]), axis=0)
    np.testing.assert_allclose(returns.std(0), CURRENCIES.deviation, rtol=0.01)
    np.testing.assert_allclose(np.corrcoef(returns.T), CURRENCIES.correlation, atol=0.006)
