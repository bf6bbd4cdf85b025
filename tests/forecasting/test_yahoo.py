"""Yahoo without a network: downloads, failures, the merged history and its cache."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yfinance

from common.cli import InputError
from common.forecasting.prices import CURRENCIES, load_prices
from common.forecasting.yahoo import cache_path, cached, fetch
from tests.forecasting.price_tables import NOW, PAIR, SINGLE, contents, recorded, without_hour


def test_a_download_drops_partial_hours_and_rows_that_lack_a_ticker(folder, yahoo):
    answers, calls = yahoo.answers, yahoo.calls
    frame = recorded()
    answers.append(without_hour(frame, [3, 7], "ETH-USD"))
    got = fetch(PAIR, now=NOW)
    assert calls == [
        {
            "tickers": ["BTC-USD", "ETH-USD"],
            "period": "729d",
            "interval": "1h",
            "auto_adjust": False,
            "progress": False,
            "threads": False,
            "timeout": 10,
        }
    ]
    assert (got.source, got.hourly, got.series) == ("yahoo", True, ("BTC", "ETH"))
    assert len(got.times) == 27
    # 12:00 still runs, 12:37 is a live quote
    assert got.provenance["last"] == "2025-06-10T11:00:00Z"
    assert got.provenance["dropped"] == {"partial_hours": 2, "hours_not_of_every_ticker": 2}
    assert got.provenance["gaps"]["missing_hours"] == 2
    assert got.provenance["fetched"] == "2025-06-10T12:37:12Z"
    np.testing.assert_allclose(got.values[-1], [111.1, 211.1])
    again = load_prices("cache", None, PAIR)
    np.testing.assert_array_equal(again.values, got.values)
    assert again.provenance == got.provenance
    assert json.loads(json.dumps(got.provenance)) == got.provenance
    assert got.provenance["read"].endswith("; 2 hours not of every ticker are left out")


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/London", "Asia/Kolkata", None])
def test_any_zone_of_the_frame_becomes_utc(yahoo, zone):
    answers = yahoo.answers
    answers.append(recorded(zone=zone) if zone else recorded().tz_localize(None))
    got = fetch(PAIR, now=NOW)
    assert (got.provenance["first"], got.provenance["last"]) == (
        "2025-06-09T07:00:00Z",
        "2025-06-10T11:00:00Z",
    )
    assert got.contiguous().all()


def test_flat_and_swapped_columns_are_read_too(yahoo):
    answers = yahoo.answers
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


LIMITED = "a rate limit"
OFFLINE = "cannot be reached"
UNKNOWN = "gave no hourly prices of BTC-USD, ETH-USD: an unknown ticker"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (yfinance.exceptions.YFRateLimitError(), LIMITED),
        (
            "['BTC-USD', 'ETH-USD']: YFRateLimitError('Too Many Requests. Rate limited. "
            "Try after a while.')",
            LIMITED,
        ),
        (
            "Failed to get ticker 'BTC-USD' reason: Failed to perform, curl: (6) "
            "Could not resolve host: query2.finance.yahoo.com",
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
def test_a_failed_download_is_tried_again_with_pauses_and_ends_in_one_line(
    folder, yahoo, answer, expected, capfd
):
    answers, calls = yahoo.answers, yahoo.calls
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
    answers, calls = yahoo.answers, yahoo.calls
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
    yahoo.answers.append(without_hour(frame, [0], "ETH-USD"))
    with pytest.raises(InputError, match="Yahoo: 0 rows of prices"):
        fetch(PAIR, now=NOW)
    assert not contents(folder)


def test_a_later_fetch_is_merged_into_the_history(yahoo):
    answers = yahoo.answers
    answers.append(recorded())
    first = fetch(PAIR, now=NOW)
    later = recorded("2025-06-11 08:10:00", hours=30)
    ten, eleven = pd.to_datetime(["2025-06-10 10:00", "2025-06-10 11:00"], utc=True)
    later.loc[eleven, ("Close", "BTC-USD")] = 150.0  # the newest hour of the cache
    later.loc[ten, ("Close", "BTC-USD")] *= 1.0005  # within the tolerance
    answers[:] = [later]
    merged = fetch(PAIR, now=pd.Timestamp("2025-06-11 08:10", tz="UTC"))
    assert merged.provenance["first"] == first.provenance["first"]
    assert merged.provenance["last"] == "2025-06-11T07:00:00Z"
    assert merged.contiguous().all()
    np.testing.assert_array_equal(merged.values[:28], first.values[:28])  # cached values stay
    assert merged.values[28, 0] == 150
    # a hole before the history, and history before that
    answers[:] = [recorded("2025-06-08 20:00:00", hours=10)]
    assert fetch(PAIR, now=NOW).provenance["gaps"]["count"] == 1


def test_other_prices_than_before_are_refused_and_the_cache_stays(folder, yahoo):
    answers = yahoo.answers
    answers.append(recorded())
    fetch(PAIR, now=NOW)
    before = contents(folder)
    changed = recorded()
    changed.loc[changed.index[[4, 9]], ("Close", "ETH-USD")] *= 1.01
    answers[:] = [changed]
    with pytest.raises(
        InputError,
        match=r"ETH at 2025-06-09 11:00:00\+00:00 is 213\.\d+ at Yahoo and 211\.09 in "
        r".*pair-1h\.parquet",
    ):
        fetch(PAIR, now=NOW)
    answers[:] = [OSError("Network is unreachable")]
    with pytest.raises(InputError, match=OFFLINE):
        fetch(PAIR, sleep=lambda _: None, now=NOW)
    assert contents(folder) == before


def tampered(path: Path) -> None:
    frame = pd.read_parquet(path)
    table_ = pq.read_table(path)
    frame.iloc[3, 1] += 1
    pq.write_table(
        pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(
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
    answers = yahoo.answers
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
    answers, calls = yahoo.answers, yahoo.calls
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


# ----------------------------------------------------------------- days, tickers and intervals

DAILY = dataclasses.replace(PAIR, name="daily", hourly=False)


def recorded_days(market=DAILY, days: int = 40, zone: str | None = None) -> pd.DataFrame:
    """A table in the shape of yfinance's daily prices: business days, and the running one."""
    index = pd.bdate_range(end="2025-06-10", periods=days, tz=zone).rename("Date")
    prices = ["Close", "High", "Low", "Open", "Volume"]
    columns = pd.MultiIndex.from_product([prices, sorted(market.tickers)], names=["Price", "T"])
    frame = pd.DataFrame(0.0, index, columns)
    for number, ticker in enumerate(market.tickers, 1):
        frame["Close", ticker] = 100.0 * number + np.arange(days)
    return frame


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York", "Europe/London", "Asia/Tokyo"])
def test_a_daily_market_asks_for_days_and_has_the_exchanges_own_dates(folder, yahoo, zone):
    yahoo.answers.append(recorded_days(zone=zone))
    got = fetch(DAILY, now=NOW)
    assert (yahoo.calls[0]["interval"], yahoo.calls[0]["period"]) == ("1d", "max")
    assert not got.hourly
    # Tuesday 10 June still runs; 38 business days before Monday the 9th is 16 April
    assert (got.provenance["first"], got.provenance["last"]) == ("2025-04-16", "2025-06-09")
    assert (got.times == got.times.astype("datetime64[D]")).all()
    assert np.is_busday(got.times.astype("datetime64[D]")).all()
    assert got.contiguous().all()
    assert got.provenance["dropped"] == {"partial_days": 1, "days_not_of_every_ticker": 0}
    np.testing.assert_array_equal(got.values[-1], [138, 238])
    assert (folder / "yahoo" / "daily-1d.parquet").exists()
    assert len(cached(DAILY, "7d").times) == 5
    # a later fetch is joined to it
    yahoo.answers[:] = [recorded_days(zone=zone)]
    assert len(fetch(DAILY, "1mo", now=NOW + pd.Timedelta(days=1)).times) == 22


def test_an_earlier_hourly_history_of_daily_prices_is_no_hindrance(folder, yahoo, monkeypatch):
    monkeypatch.setattr("common.forecasting.prices.reachable", lambda: False)
    hourly = dataclasses.replace(CURRENCIES, hourly=True)
    yahoo.answers.append(recorded(market=hourly))
    fetch(hourly, now=NOW)
    assert cache_path(hourly) == folder / "yahoo" / "currencies-1h.parquet"
    with pytest.raises(InputError, match=r"currencies-1d\.parquet does not exist"):
        cached(CURRENCIES)
    # without a file and a network `auto` simulates: the hourly history is another one
    assert load_prices("auto", None, CURRENCIES).source == "simulated"
    yahoo.answers[:] = [recorded_days(CURRENCIES)]
    assert fetch(CURRENCIES, now=NOW).provenance["last"] == "2025-06-09"
    assert load_prices("auto", None, CURRENCIES).source == "yahoo"


def test_no_daily_prices_are_called_daily(yahoo):
    yahoo.answers.append(None)
    with pytest.raises(InputError, match="gave no daily prices of BTC-USD, ETH-USD"):
        fetch(DAILY, attempts=1, now=NOW)


def test_every_set_of_tickers_has_a_history_of_its_own(folder, yahoo):
    apple = dataclasses.replace(CURRENCIES, series=("AAPL", "^GSPC"), tickers=("AAPL", "^GSPC"))
    swapped = dataclasses.replace(apple, series=apple.series[::-1], tickers=apple.tickers[::-1])
    other = dataclasses.replace(apple, series=("AAPL",), tickers=("AAPL",))
    paths = {cache_path(market) for market in (CURRENCIES, apple, other)}
    assert len(paths) == 3
    assert all(path.name.startswith("AAPL-") for path in paths - {cache_path(CURRENCIES)})
    assert cache_path(apple) == cache_path(swapped)
    assert cache_path(apple) != cache_path(dataclasses.replace(apple, hourly=True))
    yahoo.answers.append(recorded_days(apple))
    got = fetch(apple, now=NOW)
    assert yahoo.calls[0]["tickers"] == ["AAPL", "^GSPC"]
    assert got.provenance["tickers"] == ["AAPL", "^GSPC"]
    np.testing.assert_array_equal(cached(swapped).values, got.values[:, ::-1])
    assert cached(swapped).series == ("^GSPC", "AAPL")


def test_hours_of_a_stock_exchange_begin_at_half_past(yahoo):
    shares = dataclasses.replace(PAIR, series=("AAPL", "MSFT"), tickers=("AAPL", "MSFT"))
    frame = recorded(market=shares)
    half_past = frame.index[:-1] + pd.Timedelta(minutes=30)
    frame = frame.set_axis(half_past.append(frame.index[-1:]).rename("Datetime"))
    yahoo.answers.append(frame)
    got = fetch(shares, now=NOW)
    # of 12:00, which is stamped 12:30 here, nothing is known yet
    assert got.provenance["last"] == "2025-06-10T11:30:00Z"
    assert len(got.times) == 29


def test_tickers_that_share_no_row_are_one_line(folder, yahoo):
    frame = recorded()
    frame.loc[frame.index[:15], ("Close", "ETH-USD")] = np.nan
    frame.loc[frame.index[15:], ("Close", "BTC-USD")] = np.nan
    yahoo.answers.append(frame)
    with pytest.raises(InputError, match="BTC-USD, ETH-USD share 0 of 29 hours; ask for fewer"):
        fetch(PAIR, now=NOW)
    assert not contents(folder)


def test_an_unwritable_cache_is_one_line(folder, yahoo):
    yahoo.answers.append(recorded())
    (folder / "yahoo").write_text("a file in the way")
    with pytest.raises(InputError, match="cannot be written"):
        fetch(PAIR, now=NOW)
