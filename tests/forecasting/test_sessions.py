"""Markets that close, steps of every length, and days that are stamped at any hour."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.cli import InputError
from common.forecasting.config import LEAST_OUTCOMES
from common.forecasting.history import Prices, checked_prices
from common.forecasting.sessions import DAY, HOUR, Sessions
from common.forecasting.tables import read_table
from common.forecasting.windows import Windows, split


def prices_at(times: pd.DatetimeIndex) -> Prices:
    """One series with a price at each time."""
    values = 100 + np.arange(len(times)) % 7
    return checked_prices(pd.DataFrame({"x": values}, times), "csv", "x.csv", {})


def currency_hours(weeks: int, start: str = "2024-01-07") -> pd.DatetimeIndex:
    """Hours from Sunday 22:00 to Friday 21:00 in UTC."""
    hours = pd.date_range(start, periods=weeks * 168, freq="h")
    of_week = hours.day_of_week * 24 + hours.hour
    return hours[(of_week >= 6 * 24 + 22) | (of_week <= 4 * 24 + 21)]


def stock_hours(days: int) -> pd.DatetimeIndex:
    """Seven bars a day from 14:30 in UTC, Monday to Friday."""
    dates = pd.bdate_range("2024-01-01", periods=days)
    return pd.DatetimeIndex(
        [date + pd.Timedelta(hours=14.5 + bar) for date in dates for bar in range(7)]
    )


def times_ahead(prices: Prices, origins: np.ndarray, horizon: int) -> np.ndarray:
    """The scheduled times (N, H) after the origins."""
    return Windows(prices, None, 2, horizon).inputs(origins)[1][:, 2:]


def test_a_week_of_a_market_that_closes_has_no_gap_and_a_hole_in_open_hours_is_one():
    times = currency_hours(12)
    assert prices_at(times).contiguous().all()
    hole = times.delete(np.arange(300, 304))  # four hours of a Tuesday
    gaps = np.flatnonzero(~prices_at(hole).contiguous())
    assert gaps.tolist() == [299]
    holiday = times[(times < "2024-02-14") | (times >= "2024-02-15")]  # a Wednesday
    assert prices_at(holiday).contiguous().all()


def test_a_market_that_never_closes_has_a_gap_wherever_an_hour_is_missing():
    times = pd.date_range("2024-01-01", periods=12 * 168, freq="h")
    prices = prices_at(times.delete([500, 900, 901]))
    assert prices.sessions is None
    assert np.flatnonzero(~prices.contiguous()).tolist() == [499, 898]


def test_stocks_of_seven_bars_a_day_have_windows_of_any_length_and_forecasts_in_open_hours():
    prices = prices_at(stock_hours(60))
    windows = Windows(prices, None, context=48, horizon=9)
    origins = windows.origins()
    assert len(origins) == 60 * 7 - 48 - 9 + 1
    _, times = windows.inputs(origins)
    real = prices.times[origins[:, None] + 1 + np.arange(9)]
    known = origins >= 10 * 7  # from the third week on
    np.testing.assert_array_equal(times[known, 48:], real[known])


def test_the_hours_ahead_step_over_the_weekend_and_follow_summer_time():
    times = currency_hours(10)
    friday = np.array([np.flatnonzero(times == "2024-03-01 21:00")[0]])
    ahead = times_ahead(prices_at(times), friday, 3)[0]
    assert ahead.astype("datetime64[h]").astype(str).tolist() == [
        "2024-03-03T22",
        "2024-03-03T23",
        "2024-03-04T00",
    ]
    summer = times.append(currency_hours(10, "2024-03-17") - pd.Timedelta(hours=1))
    prices = prices_at(summer[~summer.duplicated()].sort_values())
    assert prices.contiguous().all()
    late = np.array([np.flatnonzero(prices.times == np.datetime64("2024-05-17T20"))[0]])
    ahead = times_ahead(prices, late, 1)[0]
    assert str(ahead[0])[:13] == "2024-05-19T21"


def test_what_comes_after_an_origin_changes_no_time_ahead():
    times = currency_hours(12)
    for origin in range(400, 700, 37):
        later = times[origin + 1 :] + pd.Timedelta(hours=90)
        whole, poisoned = (
            Sessions.of(history.to_numpy(), HOUR).ahead(times[[origin]].to_numpy(), 24)
            for history in (times, times[: origin + 1].append(later))
        )
        np.testing.assert_array_equal(poisoned[0], whole[0])
        assert poisoned[1].all()


def test_a_forecast_after_a_holiday_or_a_change_of_the_hours_lands_in_open_hours():
    dates = pd.bdate_range("2024-01-01", periods=80)
    usual = [date + pd.Timedelta(hours=14.5 + bar) for date in dates for bar in range(7)]
    times = pd.DatetimeIndex(usual)
    times = times[(times < "2024-02-13") | (times >= "2024-02-14")]  # a Tuesday without prices
    changed = times.where(times < "2024-03-11", times - pd.Timedelta(hours=1))
    prices = prices_at(changed)
    assert prices.contiguous().all()
    monday = np.array([np.flatnonzero(changed == "2024-02-19 20:30")[0]])
    assert str(times_ahead(prices, monday, 1)[0, 0])[:16] == "2024-02-20T14:30"
    later = np.array([np.flatnonzero(changed == "2024-03-29 19:30")[0]])
    assert str(times_ahead(prices, later, 1)[0, 0])[:16] == "2024-04-01T13:30"


@pytest.mark.parametrize(
    ("freq", "words", "ahead"),
    [
        ("15min", "15 minutes", "2024-01-01T00:15"),
        ("4h", "4 hours", "2024-01-01T04:00"),
        ("12h", "12 hours", "2024-01-01T12:00"),
        ("W-FRI", "1 week", "2024-01-12T00:00"),
    ],
)
def test_steps_of_every_length(freq, words, ahead):
    start = "2024-01-05" if freq == "W-FRI" else "2024-01-01"
    times = pd.date_range(end=start, periods=400, freq=freq)
    prices = prices_at(times)
    assert prices.provenance["step"] == words
    assert prices.contiguous().all()
    windows = Windows(prices, None, 24, 5)
    assert windows.rolling >= LEAST_OUTCOMES  # else nothing could be recalibrated
    _, scheduled = windows.inputs(np.array([399]))
    assert str(scheduled[0, 24])[:16] == ahead
    assert (np.diff(scheduled[0]) == prices.step).all()


def test_days_stamped_at_local_midnight_are_the_days_that_began_then():
    stamps = ["2023-08-10 22:00", "2023-08-13 22:00", "2023-08-14 22:00"]
    prices = prices_at(pd.DatetimeIndex(stamps).tz_localize("UTC"))
    assert [prices.moment(row) for row in range(3)] == ["2023-08-11", "2023-08-14", "2023-08-15"]
    closes = ["2023-08-10 21:00", "2023-08-11 21:00", "2023-08-14 21:00"]  # of New York
    prices = prices_at(pd.DatetimeIndex(closes).tz_localize("UTC"))
    assert [prices.moment(row) for row in range(3)] == ["2023-08-10", "2023-08-11", "2023-08-14"]


def test_a_refusal_names_the_longest_stretch_and_a_context_that_fits():
    contiguous = np.ones(700, bool)
    contiguous[6::7] = False  # seven rows, then a gap
    with pytest.raises(InputError, match=r"has 7 rows; --context 2 is the longest that fits"):
        split(contiguous, 48, 5, 100, 100)
    for rows in (90, 250, 400):
        with pytest.raises(InputError, match=r"--context \d+ is the longest that fits") as caught:
            split(np.ones(rows - 1, bool), 200, 5, 8760, 4380)
        longest = int(re.findall(r"--context (\d+)", str(caught.value))[0])
        assert len(split(np.ones(rows - 1, bool), longest, 5, 8760, 4380).train)
        with pytest.raises(InputError, match="no train window"):
            split(np.ones(rows - 1, bool), longest + 1, 5, 8760, 4380)
    with pytest.raises(InputError, match="without a gap; give a longer history"):
        split(np.ones(11, bool), 24, 5, 8760, 4380)
    assert prices_at(pd.date_range("2024-01-01", periods=9)).step == DAY


@pytest.mark.realdata
def test_nearly_every_hour_of_currencies_is_an_origin():
    file = Path(os.environ.get("ADL_DATA_DIR", "nowhere")) / "fx_hourly.csv.gz"
    if not file.exists():
        pytest.skip("no fx_hourly.csv.gz in ADL_DATA_DIR")
    prices = read_table(file)
    windows = Windows(prices, None, 72, 5)
    origins = windows.origins()
    assert len(origins) >= 0.95 * len(prices.times)
    _, times = windows.inputs(origins)
    real = prices.times[origins[:, None] + 1 + np.arange(5)]
    assert (times[:, 72:] == real).mean() > 0.98
