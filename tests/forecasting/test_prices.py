"""Prices: the gap rule, every bad table, Yahoo without a network, the cache, and the simulation."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import logging
import os
import urllib.request
from http.client import BadStatusLine
from pathlib import Path
from unittest.mock import Mock
from urllib.error import HTTPError, URLError

import numpy as np
import pandas as pd
import pytest
import yfinance
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import prices as module
from common.cli import InputError
from common.prices import (
    COINS,
    CURRENCIES,
    Market,
    Prices,
    cached,
    check_positive,
    fetch,
    load_prices,
    read_table,
    select,
    simulate,
)

NOW = pd.Timestamp("2025-06-10 12:37:12", tz="UTC")
PAIR = Market(
    "pair",
    ("BTC", "ETH"),
    ("BTC-USD", "ETH-USD"),
    "pair.csv",
    True,
    (100.0, 10.0),
    (0.01, 0.02),
    ((1.0, 0.5), (0.5, 1.0)),
)
SINGLE = Market("single", ("BTC",), ("BTC-USD",), "single.csv", True, (100.0,), (0.01,), ((1.0,),))
HOURS = ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z", "2024-01-01T02:00:00Z"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty data folder, and no network."""
    if "realdata" not in request.keywords:
        monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path))
    for place, name in ((yfinance, "download"), (urllib.request, "urlopen")):
        monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("the network was asked"))
    return tmp_path


def contents(place: Path) -> dict[str, str]:
    return {
        str(p.relative_to(place)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in place.rglob("*")
        if p.is_file()
    }


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------------- the rule


def made(times: list[str], hourly: bool) -> Prices:
    return Prices(
        np.array(times, "datetime64[ns]"), np.ones((len(times), 1)), ("a",), hourly, "csv", {}
    )


def test_only_an_hour_is_contiguous_in_hourly_prices():
    steps = made(
        ["2024-01-01T00", "2024-01-01T01", "2024-01-01T03", "2024-01-01T04"], True
    ).contiguous()
    assert steps.tolist() == [True, False, True]
    assert steps.dtype == bool


def test_weekends_and_holidays_are_no_gaps_in_daily_prices():
    days = ["2024-12-20", "2024-12-23", "2024-12-24", "2024-12-29", "2025-01-04"]
    assert made(days, False).contiguous().tolist() == [True, True, True, False]


def test_gaps_are_counted_and_the_largest_come_first(tmp_path):
    hours = np.delete(np.arange(60), [5, 20, 21, 22, 40])
    rows = [f"{np.datetime64('2024-01-01T00') + int(h)}:00,1" for h in hours]
    found = read_table(table(tmp_path / "a.csv", "time,x", *rows)).provenance["gaps"]
    assert (found["count"], found["missing_hours"]) == (3, 5)
    assert found["largest"][0] == {
        "after": "2024-01-01T19:00:00Z",
        "before": "2024-01-01T23:00:00Z",
    }
    daily = read_table(
        table(
            tmp_path / "b.csv",
            "date,x",
            "2024-01-01,1",
            "2024-01-02,1",
            "2024-01-05,1",
            "2024-01-15,1",
            "2024-01-16,1",
        )
    )
    assert not daily.hourly
    assert daily.provenance["gaps"] == {
        "count": 1,
        "missing_days": 9,
        "largest": [{"after": "2024-01-05", "before": "2024-01-15"}],
    }


# --------------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(
    "ending",
    [
        "wide.csv",
        "wide.csv.gz",
        "wide.txt",
        "wide.tsv",
        "wide.parquet",
        "index.parquet",
        "long.csv",
        "long.parquet",
    ],
)
def test_round_trip(tmp_path, ending):
    source, path = simulate(COINS, 200), tmp_path / ending
    frame = pd.DataFrame(
        source.values, pd.DatetimeIndex(source.times, tz="UTC", name="time"), list(source.series)
    )
    wide = frame.reset_index()
    longs = wide.melt("time", var_name="unique_id", value_name="y").rename(columns={"time": "ds"})
    if ending == "index.parquet":
        frame.to_parquet(path)
    elif ending.endswith("parquet"):
        (longs if "long" in ending else wide).to_parquet(path)
    else:
        (longs if "long" in ending else wide).to_csv(
            path, index=False, sep="\t" if ".t" in ending else ","
        )
    read = read_table(path)
    np.testing.assert_array_equal(read.times, source.times)
    np.testing.assert_array_equal(read.values, source.values)
    assert (read.series, read.hourly, read.source) == (source.series, True, "csv")
    assert read.times.dtype == np.dtype("datetime64[ns]")
    assert read.values.flags.c_contiguous
    assert read.provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.provenance["path"] == ending
    assert (read.provenance["rows"], read.provenance["last"], read.provenance["time_zone"]) == (
        200,
        "2024-12-31T23:00:00Z",
        "UTC",
    )
    assert json.loads(json.dumps(read.provenance)) == read.provenance


@pytest.mark.parametrize(("sign", "name"), [(",", "Date"), (";", "timestamp"), ("\t", "DS")])
def test_separators_and_names_of_the_time_column(tmp_path, sign, name):
    path = table(
        tmp_path / "a.csv", sign.join(["x", name]), *(sign.join(["1.5", hour]) for hour in HOURS)
    )
    read = read_table(path)
    assert (read.series, read.provenance["separator"], read.values.tolist()) == (
        ("x",),
        sign,
        [[1.5]] * 3,
    )


def test_a_time_column_without_a_known_name_is_the_first_and_a_byte_order_mark_is_no_name(tmp_path):
    (tmp_path / "a.csv").write_text(
        "\n\ufeff".lstrip() + ",x\r\n" + "".join(f"{hour},1\r\n" for hour in HOURS),
        encoding="utf-8-sig",
    )
    with pytest.raises(InputError, match="a column without a name"):
        read_table(tmp_path / "a.csv")
    assert read_table(
        table(tmp_path / "b.csv", "\ufeffwhen,x", *(f"{hour},1" for hour in HOURS))
    ).series == ("x",)


@pytest.mark.parametrize(
    ("times", "first", "zone"),
    [
        (
            ["2024-01-01 00:00", "2024-01-01 01:00"],
            "2024-01-01T00:00:00Z",
            "none named, read as UTC",
        ),
        (
            ["2024-01-01T00:00:00+02:00", "2024-01-01T01:00:00+02:00"],
            "2023-12-31T22:00:00Z",
            "UTC+02:00, turned into UTC",
        ),
        (
            ["13/02/2024 00:00", "13/02/2024 01:00"],
            "2024-02-13T00:00:00Z",
            "none named, read as UTC",
        ),
        (
            ["2024-01-01T00:00:00+02:00", "2024-01-02T00:00:00+02:00"],
            "2024-01-01",
            "UTC+02:00, turned into UTC",
        ),
        (
            [
                "2024-01-01T16:30:00",
                "2024-01-02T16:00:00",
                "2024-01-03T16:00:00",
                "2024-01-04T16:00:00",
            ],
            "2024-01-01",
            "none named, read as UTC",
        ),
        (["2024-01-05", "2024-01-08"], "2024-01-05", "none named, read as UTC"),
    ],
)
def test_times_become_utc_and_days_keep_their_date(tmp_path, times, first, zone):
    read = read_table(table(tmp_path / "a.csv", "time,x", *(f"{moment},1" for moment in times)))
    assert (read.provenance["first"], read.provenance["time_zone"]) == (first, zone)


def test_zoned_parquet_days_across_a_change_of_clocks_are_days(tmp_path):
    days = pd.date_range("2024-03-28", periods=6, tz="Europe/Berlin")
    pd.DataFrame({"x": np.arange(6.0)}, days).to_parquet(tmp_path / "a.parquet")
    read = read_table(tmp_path / "a.parquet")
    assert not read.hourly
    assert read.times.astype("datetime64[D]").astype(str).tolist() == [
        str(day.date()) for day in days
    ]


def test_a_parquet_index_of_row_numbers_is_no_price(tmp_path):
    frame = pd.DataFrame({"time": pd.to_datetime(HOURS), "x": pd.array([1, 2, 3], "Int64")}).iloc[
        [0, 1, 2]
    ]
    frame.set_axis([7, 8, 9]).to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").series == ("x",)


def test_a_long_table_keeps_the_times_that_all_series_share(tmp_path):
    rows = [f"a,{hour},1" for hour in HOURS] + [
        f"b,{hour},2" for hour in [*HOURS[1:], "2024-01-01T03:00:00Z"]
    ]
    read = read_table(table(tmp_path / "a.csv", "unique_id,ds,y", *rows))
    assert read.values.tolist() == [[1, 2], [1, 2]]
    assert (read.series, read.provenance["times_not_in_every_series"]) == (("a", "b"), 2)


def hourly(values: list[str], header: str = "time,x") -> list[str]:
    return [header, *(f"{hour},{value}" for hour, value in zip(HOURS, values, strict=True))]


BAD = {
    "missing": (None, "does not exist"),
    "empty": ([""], "not a readable table"),
    "blank": (["", "", " "], "not a readable table|0 rows"),
    "header only": (["time,x"], "0 rows"),
    "one row": (["time,x", "2024-01-01,1"], "1 rows of prices; at least 2"),
    "no price column": (["time", *HOURS], "0 price columns"),
    "no time column": (
        ["x,y", "1,2", "3,4"],
        "no time column, and the first, x, holds '1' in row 1",
    ),
    "words as times": (["time,x", "now,1", "today,2"], "column time holds 'now' in row 1"),
    "bare numbers as times": (
        ["time,x", "1704067200,1", "1704070800,2"],
        "column time holds '1704067200'",
    ),
    "compact dates": (["date,x", "20240101,1", "20240102,2"], "column date holds '20240101'"),
    "time left out": (["time,x", f"{HOURS[0]},1", ",2"], "column time holds '' in row 2"),
    "impossible date": (["time,x", "2024-02-30,1", "2024-03-01,2"], "column time: .*2024-02-30"),
    "two forms": (["time,x", "2024-02-28,1", "13/02/2024,2"], "one form and zone"),
    "unreadable times": (["time,x", "a1b2,1", "zz9,2"], "one form and zone"),
    "far years": (["time,x", "3024-01-01,1", "3024-01-02,2"], "column time: .*3024"),
    "mixed offsets": (
        ["time,x", "2024-01-01T00:00:00+01:00,1", "2024-01-01T01:00:00+02:00,2"],
        "Mixed timezones",
    ),
    "naive and aware": (
        ["time,x", "2024-01-01T00:00:00,1", "2024-01-01T01:00:00Z,2"],
        "Mixed timezones",
    ),
    "nan": (hourly(["1", "nan", "3"]), "x at 2024-01-01 01:00:00\\+00:00 is missing or not finite"),
    "empty cell": (hourly(["1,5", ",6", "2,"], "time,x,z"), "x at 2024-01-01 01:00:00"),
    "short row": (["time,x,z", f"{HOURS[0]},1,2", f"{HOURS[1]},1"], "z at 2024-01-01 01:00:00"),
    "inf": (hourly(["1", "2", "-inf"]), "x at 2024-01-01 02:00:00"),
    "word": (hourly(["1", "2", "three"]), "column x holds 'three' in row 3"),
    "decimal comma": (
        ["time;x", "2024-01-01;1,5", "2024-01-02;2,5"],
        "column x holds '1,5' in row 1",
    ),
    "thousands": (["time;x", "2024-01-01;11.945,01", "2024-01-02;1"], "column x holds '11.945,01'"),
    "long row": (
        ["time,x", "2024-01-01,1,5", "2024-01-02,2,5"],
        "not a readable table .*Expected 2 fields",
    ),
    "twice": (
        ["time,x", HOURS[0] + ",1", HOURS[0] + ",2"],
        "2024-01-01 00:00:00\\+00:00 stands twice",
    ),
    "unsorted": (
        ["time,x", HOURS[1] + ",1", HOURS[0] + ",2"],
        "00:00:00\\+00:00 comes after 2024-01-01 01:00",
    ),
    "minutes": (
        ["time,x", "2024-01-01T00:00,1", "2024-01-01T00:15,2", "2024-01-01T00:30,2"],
        "most steps are 0 days 00:15:00",
    ),
    "weeks": (["time,x", "2024-01-01,1", "2024-01-08,2", "2024-01-15,2"], "most steps are 7 days"),
    "half an hour": (
        [*hourly(["1", "2", "3"]), "2024-01-01T02:30:00Z,4"],
        "stand too close; steps of 0 days 01:00:00",
    ),
    "two a day": (
        ["time,x", "2024-01-01,1", "2024-01-02T09:00,2", "2024-01-02T23:00,3", "2024-01-04,4"],
        "stand too close; steps of 1 days",
    ),
    "two names": (hourly(["1,2", "1,2", "1,2"], "time,x,x"), "two columns named x"),
    "no name": (hourly(["1,", "1,", "1,"], "time,x,"), "a column without a name"),
    "long nan": (
        ["unique_id,ds,y", f"a,{HOURS[0]},1", f"b,{HOURS[0]},nan"],
        "b at 2024-01-01 00:00:00\\+00:00 is missing",
    ),
    "long word": (["unique_id,ds,y", f"a,{HOURS[0]},x"], "column y holds 'x' in row 1"),
    "long twice": (
        ["unique_id,ds,y", f"a,{HOURS[0]},1", f"a,{HOURS[0]},2"],
        "series a: .* stands twice",
    ),
    "long unsorted": (
        ["unique_id,ds,y", f"a,{HOURS[1]},1", f"b,{HOURS[0]},1", f"a,{HOURS[0]},2"],
        "series a: .* comes after",
    ),
    "long apart": (
        ["unique_id,ds,y", f"a,{HOURS[0]},1", f"b,{HOURS[1]},2"],
        "its series \\(a, b\\) share no time",
    ),
    "long without rows": (["unique_id,ds,y"], "share no time"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_one_line_and_changes_nothing(tmp_path, case):
    rows, expected = BAD[case]
    path = tmp_path / "prices.csv" if rows is None else table(tmp_path / "prices.csv", *rows)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=expected) as caught:
        load_prices("auto", path, COINS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("a.csv", b"time,x\n\xff\xfe,1\n", "not a readable table"),
        ("a.csv", b'time,x\n"2024-01-01,1\n', "not a readable table"),
        ("a.csv", b"", "not a readable table"),
        ("a.csv.gz", b"no gzip", "not a readable table"),
        ("a.csv.gz", gzip.compress(b"time,x\n" * 50, mtime=0)[:-12], "not a readable table"),
        (
            "a.csv.gz",
            gzip.compress(b"time,x\n" * 50, mtime=0)[:20] + b"\0" * 9,
            "not a readable table",
        ),
        ("a.parquet", b"PAR1 and nothing else PAR1", "not a readable table"),
        ("a.parquet", b"", "not a readable table"),
        ("a.xlsx", b"PK", "allowed are .csv"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, name, raw, expected):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=expected) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is a folder"):
        read_table(tmp_path)


def test_parquet_values_that_are_no_prices_are_named(tmp_path):
    times, path = pd.to_datetime(HOURS), tmp_path / "a.parquet"
    for column, expected in (
        ([True, False, True], "column x holds 'True' in row 1"),
        (["1", "2", "3,5"], "column x holds '3,5' in row 3"),
        ([1.0, None, 3.0], "x at 2024-01-01 01:00:00\\+00:00 is missing"),
        (pd.array([1, 2, None], "Int64"), "x at 2024-01-01 02:00:00"),
        ([None, None, None], "x at 2024-01-01 00:00:00"),
    ):
        pd.DataFrame({"time": times, "x": column}).to_parquet(path)
        with pytest.raises(InputError, match=expected):
            read_table(path)
    for stamps, expected in (
        ([1, 2, 3], "holds '1' in row 1"),
        ([times[0], pd.NaT, times[2]], "column time holds '' in row 2"),
    ):
        pd.DataFrame({"time": stamps, "x": [1.0, 2.0, 3.0]}).to_parquet(path)
        with pytest.raises(InputError, match=expected):
            read_table(path)


CELLS = st.one_of(
    st.sampled_from(
        [
            "time",
            "ds",
            "unique_id",
            "y",
            "",
            "2024-01-01",
            "2024-01-02 03:00",
            "2024-01-01T00:00:00Z",
            "1e999",
            "9" * 400,
            "nat1",
        ]
    ),
    st.floats().map(str),
    st.text(max_size=6),
    st.dates().map(str),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(st.lists(CELLS, min_size=1, max_size=3).map(",".join), max_size=5).map("\n".join),
    )
)
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_no_content_of_a_file_ends_in_a_traceback(tmp_path, name, content):
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    (tmp_path / name).write_bytes(
        gzip.compress(raw, 1, mtime=0)
        if name.endswith("gz") and not isinstance(content, bytes)
        else raw
    )
    try:
        read = read_table(tmp_path / name)
    except InputError:
        return
    assert np.isfinite(read.values).all()
    assert (np.diff(read.times) > np.timedelta64(0)).all()


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


# ---------------------------------------------------------------------------------------------------------------- yahoo


def recorded(
    last: str = "2025-06-10 12:37:12",
    hours: int = 30,
    zone: str = "UTC",
    market: Market = PAIR,
    value: float = 100.0,
) -> pd.DataFrame:
    """A frame in the shape of yfinance 1.7.0: (Price, Ticker) columns, full hours, the running hour, and a live quote as last row."""
    live = pd.Timestamp(last, tz="UTC")
    index = (
        pd.date_range(end=live.floor("h"), periods=hours, freq="h")
        .append(pd.DatetimeIndex([live]))
        .rename("Datetime")
    )
    columns = pd.MultiIndex.from_product(
        [["Adj Close", "Close", "High", "Low", "Open", "Volume"], sorted(market.tickers)],
        names=["Price", "Ticker"],
    )
    frame = pd.DataFrame(0.0, index, columns)
    for i, ticker in enumerate(market.tickers):
        frame["Close", ticker] = (
            value * (i + 1) + index.hour.to_numpy() + index.day.to_numpy() / 100
        )
    return frame.set_axis(index.tz_convert(zone))


@pytest.fixture
def yahoo(monkeypatch):
    """Answers in place of yfinance.download, one a call, the last one again and again; exceptions are raised, strings are logged."""
    answers, calls = [], []

    def download(tickers, **options):
        calls.append({"tickers": tickers, **options})
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):  # as yfinance does: a line in the log and an empty frame
            logging.getLogger("yfinance").error(answer)
            return recorded()[:0]
        return answer

    monkeypatch.setattr(yfinance, "download", download)
    return answers, calls


def test_a_download_drops_partial_hours_and_rows_that_lack_a_ticker(folder, yahoo):
    answers, calls = yahoo
    frame = recorded()
    frame.loc[frame.index[[3, 7]], ("Close", "ETH-USD")] = np.nan
    answers.append(frame)
    got = fetch(PAIR, now=NOW)
    assert calls == [
        {
            "tickers": ["BTC-USD", "ETH-USD"],
            "period": "729d",
            "interval": "1h",
            "auto_adjust": False,
            "progress": False,
        }
        | {"threads": False, "timeout": 10}
    ]
    assert (got.source, got.hourly, got.series, len(got.times)) == (
        "yahoo",
        True,
        ("BTC", "ETH"),
        27,
    )
    assert (
        got.provenance["last"] == "2025-06-10T11:00:00Z"
    )  # 12:00 still runs, 12:37 is a live quote
    assert got.provenance["dropped"] == {"partial_hours": 2, "hours_not_of_every_ticker": 2}
    assert got.provenance["gaps"]["missing_hours"] == 2
    assert got.provenance["fetched"] == "2025-06-10T12:37:12Z"
    np.testing.assert_allclose(got.values[-1], [111.1, 211.1])
    again = load_prices("cache", None, PAIR)
    np.testing.assert_array_equal(again.values, got.values)
    assert again.provenance == got.provenance
    assert json.loads(json.dumps(got.provenance)) == got.provenance


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/London", "Asia/Kolkata", None])
def test_any_zone_of_the_frame_becomes_utc(yahoo, zone):
    answers, _ = yahoo
    answers.append(recorded(zone=zone) if zone else recorded().tz_localize(None))
    got = fetch(PAIR, now=NOW)
    assert (got.provenance["first"], got.provenance["last"]) == (
        "2025-06-09T07:00:00Z",
        "2025-06-10T11:00:00Z",
    )
    assert got.contiguous().all()


def test_flat_and_swapped_columns_are_read_too(yahoo):
    answers, _ = yahoo
    frame = recorded(market=SINGLE)
    shapes = [
        frame,
        frame.droplevel("Ticker", axis=1),
        frame.swaplevel(axis=1),
        pd.concat([frame, frame[-5:]]),
    ]
    for shape in shapes:
        answers[:] = [shape]
        np.testing.assert_allclose(fetch(SINGLE, now=NOW).values[-2:, 0], [110.1, 111.1])


LIMITED, OFFLINE, UNKNOWN = (
    "a rate limit",
    "cannot be reached",
    "gave no hourly prices of BTC-USD, ETH-USD: an unknown ticker",
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (yfinance.exceptions.YFRateLimitError(), LIMITED),
        (
            "['BTC-USD', 'ETH-USD']: YFRateLimitError('Too Many Requests. Rate limited. Try after a while.')",
            LIMITED,
        ),
        (
            "Failed to get ticker 'BTC-USD' reason: Failed to perform, curl: (6) Could not resolve host: query2.finance.yahoo.com",
            OFFLINE,
        ),
        (ConnectionError("refused"), OFFLINE),
        (TimeoutError("timed out"), OFFLINE),
        ("['BTC-USD']: possibly delisted; no price data found  (period=729d)", UNKNOWN),
        (None, UNKNOWN),
        (pd.DataFrame(), UNKNOWN),
        (TypeError("'NoneType' object is not subscriptable"), UNKNOWN),
        (pd.DataFrame({"Volume": [1.0]}, pd.DatetimeIndex(["2025-06-10"])), "KeyError"),
    ],
)
def test_a_failed_download_is_tried_again_with_pauses_and_told_in_one_line(
    folder, yahoo, answer, expected, capfd
):
    answers, calls = yahoo
    answers.append(answer)
    pauses: list[float] = []
    with pytest.raises(InputError, match=expected) as caught:
        fetch(PAIR, attempts=4, sleep=pauses.append, now=NOW)
    assert pauses == [2, 4, 8]
    assert len(calls) == 4
    assert "\n" not in str(caught.value)
    assert not contents(folder)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("yfinance").propagate
    assert not logging.getLogger("yfinance").handlers


def test_a_ticker_that_came_back_empty_is_named_and_a_later_attempt_counts(folder, yahoo):
    answers, calls = yahoo
    frame = recorded()
    frame["Close", "ETH-USD"] = np.nan
    answers.append(frame)
    with pytest.raises(InputError, match="gave no hourly prices of ETH-USD: an unknown ticker"):
        fetch(PAIR, attempts=2, sleep=lambda _: None, now=NOW)
    answers[:] = [TimeoutError("timed out"), frame, recorded()]
    calls.clear()
    assert len(fetch(PAIR, sleep=lambda _: None, now=NOW).times) == 29
    assert len(calls) == 3


def test_no_full_hour_that_all_share_is_one_line(folder, yahoo):
    frame = recorded(hours=2)
    frame.loc[frame.index[0], ("Close", "ETH-USD")] = np.nan
    yahoo[0].append(frame)
    with pytest.raises(InputError, match="Yahoo: 0 rows of prices"):
        fetch(PAIR, now=NOW)
    assert not contents(folder)


def test_a_later_fetch_is_merged_into_the_history(yahoo):
    answers, _ = yahoo
    answers.append(recorded())
    first = fetch(PAIR, now=NOW)
    later = recorded("2025-06-11 08:10:00", hours=30)
    eleven = later.index == pd.Timestamp("2025-06-10 11:00", tz="UTC")
    later.loc[eleven, ("Close", "BTC-USD")] = 150.0  # the newest hour of the cache
    later.loc[later.index == pd.Timestamp("2025-06-10 10:00", tz="UTC"), ("Close", "BTC-USD")] *= (
        1.0005
    )
    answers[:] = [later]
    merged = fetch(PAIR, now=pd.Timestamp("2025-06-11 08:10", tz="UTC"))
    assert (merged.provenance["first"], merged.provenance["last"]) == (
        first.provenance["first"],
        "2025-06-11T07:00:00Z",
    )
    assert merged.contiguous().all()
    np.testing.assert_array_equal(
        merged.values[:28], first.values[:28]
    )  # within the tolerance the cached values stay
    assert merged.values[28, 0] == 150
    earlier = recorded(
        "2025-06-08 20:00:00", hours=10
    )  # a hole before the history, and history before that
    answers[:] = [earlier]
    assert fetch(PAIR, now=NOW).provenance["gaps"]["count"] == 1


def test_other_prices_than_before_are_refused_and_the_cache_stays(folder, yahoo):
    answers, _ = yahoo
    answers.append(recorded())
    fetch(PAIR, now=NOW)
    before = contents(folder)
    changed = recorded()
    changed.loc[changed.index[[4, 9]], ("Close", "ETH-USD")] *= 1.01
    answers[:] = [changed]
    with pytest.raises(
        InputError,
        match=r"ETH at 2025-06-09 11:00:00\+00:00 is 213\.\d+ at Yahoo and 211\.09 in .*pair-1h\.parquet",
    ):
        fetch(PAIR, now=NOW)
    answers[:] = [OSError("Network is unreachable")]
    with pytest.raises(InputError, match=OFFLINE):
        fetch(PAIR, sleep=lambda _: None, now=NOW)
    assert contents(folder) == before


def tampered(path: Path) -> None:
    frame = pd.read_parquet(path)
    table_ = module.pq.read_table(path)
    frame.iloc[3, 1] += 1
    module.pq.write_table(
        module.pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(
            table_.schema.metadata
        ),
        path,
    )


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-50]),
        lambda path: path.write_bytes(b""),
        lambda path: pd.DataFrame({"time": [1], "BTC": [2.0]}).to_parquet(path),
        tampered,
    ],
)
def test_a_damaged_cache_is_refused_or_fetched_anew(folder, yahoo, harm, capsys):
    answers, _ = yahoo
    answers.append(recorded())
    good, path = fetch(PAIR, now=NOW), folder / "yahoo" / "pair-1h.parquet"
    harm(path)
    before = contents(folder)
    with pytest.raises(InputError, match="is damaged; --source yahoo fetches it anew"):
        load_prices("cache", None, PAIR)
    answers[:] = [ConnectionError("refused")]
    with pytest.raises(InputError, match=OFFLINE):
        fetch(PAIR, attempts=1, now=NOW)
    assert contents(folder) == before
    answers[:] = [recorded()]
    capsys.readouterr()
    np.testing.assert_array_equal(fetch(PAIR, now=NOW).values, good.values)
    assert (
        capsys.readouterr().err == f"warning: {path} is damaged; --source yahoo fetches it anew\n"
    )
    assert cached(PAIR).provenance["rows"] == 29


def test_period_limits_the_request_and_what_is_returned(yahoo):
    answers, calls = yahoo
    answers.append(recorded(hours=24 * 60))
    assert len(fetch(PAIR, now=NOW).times) == 24 * 60 - 1
    assert [
        len(fetch(PAIR, period, now=NOW).times) for period in ("2d", "1wk", "1mo", "9999y")
    ] == [48, 168, 720, 1439]
    assert [call["period"] for call in calls] == ["729d", "2d", "1wk", "1mo", "729d"]
    assert len(cached(PAIR, "1d").times) == 24
    for period in ("", "0d", "2", "1h", "ytd", "1 d"):
        with pytest.raises(InputError, match="allowed are max, or a number and d, wk, mo or y"):
            load_prices("auto", None, PAIR, period)


def test_an_unwritable_cache_is_one_line(folder, yahoo):
    yahoo[0].append(recorded())
    (folder / "yahoo").write_text("a file in the way")
    with pytest.raises(InputError, match="cannot be written"):
        fetch(PAIR, now=NOW)


# -------------------------------------------------------------------------------------------------------------- sources


def test_auto_takes_data_then_the_folder_then_yahoo_then_the_simulation(folder, yahoo, monkeypatch):
    answers, calls = yahoo
    answers.append(ConnectionError("refused"))
    monkeypatch.setattr(module.time, "sleep", lambda _: pytest.fail("auto waits"))
    for answer, asked in (
        (URLError("no network"), 0),
        (TimeoutError(), 0),
        (BadStatusLine("?"), 0),
        (HTTPError("", 404, "", {}, None), 1),
    ):
        monkeypatch.setattr(urllib.request, "urlopen", Mock(side_effect=answer))
        simulated = load_prices("auto", None, PAIR, seed=3, steps=50)
        assert (simulated.source, len(calls), len(simulated.times)) == ("simulated", asked, 50)
    assert (
        "simulated prices, not real data; get real ones with --source yahoo, --data FILE, or pair.csv"
        in simulated.provenance["notice"]
    )
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
    yahoo[0].append(ConnectionError("refused"))
    monkeypatch.setattr(module.fetch, "__defaults__", ("max", 1, lambda _: None, NOW))
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


# ----------------------------------------------------------------------------------------------------------- simulation


@pytest.mark.parametrize("market", [COINS, CURRENCIES], ids=lambda market: market.name)
@pytest.mark.parametrize("seed", range(3))
def test_simulated_returns_have_the_markets_statistics(market, seed):
    drawn = simulate(market, 20_000, seed)
    returns = np.diff(np.log(drawn.values), axis=0)
    np.testing.assert_allclose(returns.std(0), market.deviation, rtol=0.1)
    assert np.abs(np.corrcoef(returns.T) - market.correlation).max() < 0.1
    assert abs(np.corrcoef(returns.T)[0, 1] - market.correlation[0][1]) < 0.05
    assert (np.mean(returns**4, 0) / np.mean(returns**2, 0) ** 2 > 6).all()  # heavy tails
    size = np.abs(returns)
    for lag, least in (
        (1, 0.1),
        (24, 0.06),
    ):  # volatility comes in clusters, the sign of a return does not
        assert all(np.corrcoef(size[lag:, i], size[:-lag, i])[0, 1] > least for i in range(7))
        assert all(
            abs(np.corrcoef(np.sign(returns[lag:, i]), np.sign(returns[:-lag, i]))[0, 1]) < 0.04
            for i in range(7)
        )
    assert (np.abs(returns.mean(0)) < 4 * returns.std(0) / np.sqrt(len(returns))).all()
    np.testing.assert_allclose(drawn.values[0], market.first)
    assert drawn.contiguous().all()


def test_simulated_hours_have_a_daily_cycle_and_days_are_business_days():
    drawn = simulate(COINS)
    size = np.abs(np.diff(np.log(drawn.values), axis=0)).mean(1)
    hour = pd.DatetimeIndex(drawn.times[1:]).hour
    cycle = np.array([size[hour == h].mean() for h in range(24)]) / size.mean()
    assert cycle[13:18].mean() > 1.15
    assert cycle[1:6].mean() < 0.85
    assert (drawn.hourly, drawn.provenance["last"], drawn.provenance["rows"]) == (
        True,
        "2024-12-31T23:00:00Z",
        20_000,
    )
    daily = simulate(CURRENCIES, 300)
    assert (daily.hourly, daily.provenance["last"]) == (False, "2024-12-31")
    assert (pd.DatetimeIndex(daily.times).day_of_week < 5).all()


def test_a_simulation_repeats_itself_and_seeds_differ():
    first, again, other = simulate(COINS, 500, 1), simulate(COINS, 500, 1), simulate(COINS, 500, 2)
    np.testing.assert_array_equal(first.values, again.values)
    assert first.provenance == again.provenance
    assert not np.array_equal(first.values, other.values)
    with pytest.raises(InputError, match="--steps 5"):
        simulate(COINS, 5)


@pytest.mark.parametrize("market", [COINS, CURRENCIES], ids=lambda market: market.name)
def test_the_markets_tables_fit_together(market):
    sizes = {
        len(getattr(market, field.name))
        for field in dataclasses.fields(market)
        if field.name not in ("name", "file", "hourly")
    }
    matrix = np.array(market.correlation)
    assert sizes == {7}
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 1)
    assert np.linalg.eigvalsh(matrix).min() > 0.1


# ------------------------------------------------------------------------------------------------------------ real data

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
