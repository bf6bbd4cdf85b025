"""Yahoo without a network: downloads, failures, the merged history and its cache."""

from __future__ import annotations

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
from common.forecasting.prices import load_prices
from common.forecasting.yahoo import cached, fetch
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


def test_an_unwritable_cache_is_one_line(folder, yahoo):
    yahoo.answers.append(recorded())
    (folder / "yahoo").write_text("a file in the way")
    with pytest.raises(InputError, match="cannot be written"):
        fetch(PAIR, now=NOW)
