"""Dates, numbers and columns that can be read in two ways: read rightly, or refused with both."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from common.cli import InputError
from common.forecasting.config import ForecastConfig, PredictConfig, Reading
from common.forecasting.markets import COINS
from common.forecasting.prices import asked_of_yahoo, load_prices, read_frame, read_table
from tests.forecasting.price_tables import table

pytestmark = pytest.mark.usefixtures("folder")
BARS = [
    "Date,Open,High,Low,Close,Adj Close,Volume",
    "2018-11-26,2649.97,2674.35,2649.97,2673.45,2671.45,3443950000",
    "2018-11-27,2663.75,2682.53,2655.89,2682.17,2672.17,3485220000",
]


def dated(*dates: str) -> list[str]:
    """The rows of a table with these dates."""
    return ["Date,BTC", *(f"{date},{row}.5" for row, date in enumerate(dates, 1))]


def days(pattern: str, last: int) -> list[str]:
    """Dates with days from 1 on."""
    return dated(*(pattern.format(day) for day in range(1, last + 1)))


def hours(count: int) -> list[str]:
    """Hours from 2023 on."""
    return [f"2023-01-{1 + hour // 24:02d}T{hour % 24:02d}:00Z" for hour in range(count)]


# -------------------------------------------------------------------------------------- dates


@pytest.mark.parametrize(
    ("rows", "times"),
    [
        (days("{:02d}/01/2020", 13), ["2020-01-01", "2020-01-13"]),
        (days("01/{:02d}/2020", 13), ["2020-01-01", "2020-01-13"]),
        (days("{:02d}-05-13", 30), ["2013-05-01", "2013-05-30"]),
        (days("13-05-{:02d}", 30), ["2013-05-01", "2013-05-30"]),
        (days("{:02d}-Jan-18", 9), ["2018-01-01", "2018-01-09"]),
        (days("{:02d}/01/18", 20), ["2018-01-01", "2018-01-20"]),
        (days('"Jan {:02d}, 2018"', 9), ["2018-01-01", "2018-01-09"]),
        (days('"{} January 2018"', 9), ["2018-01-01", "2018-01-09"]),
        (days("{}. März 2018", 9), ["2018-03-01", "2018-03-09"]),
        (days("{:02d}.02.2020", 9), ["2020-02-01", "2020-02-09"]),
        (days("2020.02.{:02d}", 9), ["2020-02-01", "2020-02-09"]),
        (days("202002{:02d}", 9), ["2020-02-01", "2020-02-09"]),
        (days("2020-02-{:02d} 23:59:59.999", 9), ["2020-02-01", "2020-02-09"]),
        (days("01/31/2024 {}:00 PM", 9), ["2024-01-31T13", "2024-01-31T21"]),
        (days("31/01/2024 {:02d}:00", 9), ["2024-01-31T01", "2024-01-31T09"]),
        # hours of three days, of which one reading leaves a hole of a month
        (
            dated(*(f"0{day}/02/2024 {hour:02d}:00" for day in (1, 2, 3) for hour in range(24))),
            ["2024-02-01T00", "2024-02-03T23"],
        ),
        (days("2024-01-31 {:02d}:00:00 +0000 UTC", 9), ["2024-01-31T01", "2024-01-31T09"]),
        (days("31.01.2024 {:02d}:00:00.000 GMT+0100", 9), ["2024-01-31T00", "2024-01-31T08"]),
        (days('"Wed, {:02d} Jan 2024 UTC"', 9), ["2024-01-01", "2024-01-09"]),
    ],
)
def test_dates_of_every_order(tmp_path, rows, times):
    read = read_table(table(tmp_path / "a.csv", *rows))
    assert [read.times[0], read.times[-1]] == [np.datetime64(time) for time in times]
    assert read.values[:3, 0].tolist() == [1.5, 2.5, 3.5]


def test_hours_across_a_change_of_clocks_become_utc_and_days_their_local_date(tmp_path):
    hourly = dated(
        "2024-10-27T01:00+02:00",
        "2024-10-27T02:00+02:00",
        "2024-10-27T02:00+01:00",
        "2024-10-27T03:00+01:00",
    )
    read = read_table(table(tmp_path / "a.csv", *hourly))
    assert read.hourly
    assert read.times[0] == np.datetime64("2024-10-26T23:00")
    assert (np.diff(read.times) == np.timedelta64(1, "h")).all()
    daily = dated(
        "2023-03-24 00:00:00+01:00", "2023-03-27 00:00:00+02:00", "2023-03-28 00:00:00+02:00"
    )
    read = read_table(table(tmp_path / "a.csv", *daily))
    assert read.times.astype("M8[D]").astype(str).tolist() == [
        "2023-03-24",
        "2023-03-27",
        "2023-03-28",
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            days("{:02d}/02/2020", 11),
            r"'01/02/2020' in row 1 may be 2020-02-01 \(day/month/year\) or 2020-01-02 "
            r"\(month/day/year\); --date-format day-first or month-first",
        ),
        (
            dated("01/01/2020", "13/02/2020", "01/14/2020"),
            "'01/14/2020' in row 3 is no day/month/year; '13/02/2020' in row 2 is no month",
        ),
        (dated("2024-01-01", "2024-01-02", "13/01/2024"), "holds '13/01/2024' in row 3"),
        (dated("2024-01-01 02:00", "2024-01-01 02:00"), "stands twice.*clocks go back"),
    ],
)
def test_dates_that_are_not_clear_are_refused_with_their_readings(tmp_path, rows, expected):
    with pytest.raises(InputError, match=expected):
        read_table(table(tmp_path / "a.csv", *rows))


@pytest.mark.parametrize(
    ("date_format", "first"),
    [
        ("day-first", "2020-02-01"),
        ("%d/%m/%Y", "2020-02-01"),
        ("month-first", "2020-01-02"),
    ],
)
def test_the_date_format_chooses(tmp_path, date_format, first):
    path = table(tmp_path / "a.csv", *dated("01/02/2020", "02/02/2020", "03/02/2020"))
    if first == "2020-01-02":
        path = table(tmp_path / "a.csv", *dated("01/02/2020", "01/03/2020", "01/04/2020"))
    read = read_table(path, Reading(date_format=date_format))
    assert read.times[0] == np.datetime64(first)
    with pytest.raises(InputError, match=r"'01/02/2020' in row 1 is no time.*--date-format %Y"):
        read_table(path, Reading(date_format="%Y-%m-%d"))
    early = table(tmp_path / "b.csv", "t,x", "0,1.5", "3600,2.5", "7200,3.5")
    assert read_table(early, Reading(date_format="s")).times[0] == np.datetime64("1970-01-01")
    with pytest.raises(InputError, match="allowed are a strptime form such as"):
        Reading(date_format="European")


# ------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        (["d;x", "2024-01-01;1,5", "2024-01-02;2,25"], [1.5, 2.25]),
        (["d;x", "2024-01-01;11.945,01", "2024-01-02;998"], [11945.01, 998]),
        (["d;x", "2024-01-01;1.234.567", "2024-01-02;1.234"], [1234567, 1234]),
        (["d,x", '2024-01-01,"1,234.5"', '2024-01-02,"1,234"'], [1234.5, 1234]),
        (["d;x", "2024-01-01;11'234.50", "2024-01-02;998.10"], [11234.5, 998.1]),
        (["d;x", "2024-01-01;7 234,50", "2024-01-02;998,10"], [7234.5, 998.1]),
        (["d,x", "2024-01-01,$184.40", "2024-01-02,$18.50"], [184.4, 18.5]),
        (["d,x", "2024-01-01,151.123", "2024-01-02,151.001"], [151.123, 151.001]),
        (["d,x", "2024-01-01,0.123", "2024-01-02,1"], [0.123, 1]),
        (["d,x", "2024-01-01,1e-05", "2024-01-02,1.234E3"], [1e-5, 1234]),
        (["d;x;z", "2024-01-01;1.001;1.0712", "2024-01-02;998;1.0713"], [1.001, 998]),
    ],
)
def test_the_decimal_mark_is_told_by_the_cells(tmp_path, rows, values):
    assert read_table(table(tmp_path / "a.csv", *rows)).values[:, 0].tolist() == values


@pytest.mark.parametrize("sign", ";,")
def test_thousands_that_may_be_fractions_are_refused(tmp_path, sign):
    rows = ["Date,GOLD", "2016-01-08,998", "2016-01-09,1.001", "2016-01-10,1.068"]
    path = table(tmp_path / "a.csv", *(row.replace(",", sign) for row in rows))
    with pytest.raises(
        InputError, match=r"'1.001' in row 2 of column GOLD may be 1001 .*--decimal"
    ):
        read_table(path)
    assert read_table(path, Reading(decimal=",")).values[:, 0].tolist() == [998, 1001, 1068]
    read = read_table(path, Reading(decimal="."))
    assert read.values[:, 0].tolist() == [998, 1.001, 1.068]
    assert "GOLD jumps from 998 to 1.001 at 2016-01-09" in read.provenance["read"]


# ------------------------------------------------------------------------------------ columns


@pytest.mark.parametrize(
    ("header", "series"),
    [
        ("time,BTC,Volume BTC,ETH,ETH_volume", ("BTC", "ETH")),
        ("time,BTC_open,BTC_close,ETH_high,ETH_close", ("BTC", "ETH")),
        ("time,unix,open,close,market_cap", ("a",)),
        ("time,Year,Month,BTC,total_volume", ("BTC",)),
        ("time,BTC,Trades,Change %,marketCap", ("BTC",)),
        ("time,\"('Close', 'A')\",\"('Close', 'B')\",\"('Volume', 'A')\",openInterest", ("A", "B")),
        ("time,close,RSI,high,MACD", ("a",)),
        ("time,LOW,AAPL,Y,MSFT", ("LOW", "AAPL", "Y", "MSFT")),
        ("time,DATA,T,DT,HIGH", ("DATA", "T", "DT", "HIGH")),
    ],
)
def test_volumes_indices_and_clocks_are_no_prices(tmp_path, header, series):
    rows = [f"2024-01-0{day},{day}234.5,2.5,3.5,4.5" for day in (1, 2, 3)]
    path = table(tmp_path / "a.csv", header, *rows)
    read = read_table(path)
    assert read.series == series
    if len(series) < 4:
        assert "left out: " in read.provenance["read"]


def test_a_clock_or_row_number_of_any_name_is_no_price(tmp_path):
    rows = [f"{row},2024-01-01T0{row}:00Z,{1704067200 + 3600 * row},7.5" for row in range(4)]
    read = read_table(table(tmp_path / "a.csv", ",time,stamp,BTC", *rows))
    assert read.series == ("BTC",)
    assert "left out: the first, stamp" in read.provenance["read"]


def test_columns_and_the_time_column_are_chosen(tmp_path):
    path = table(tmp_path / "GSPC.csv", *BARS)
    adjusted = read_table(path, Reading(columns=("adj close",)))
    assert (adjusted.series, adjusted.values[0, 0]) == (("GSPC",), 2671.45)
    both = read_table(path, Reading(columns=("Volume", "Close")))
    assert (both.series, both.values[1].tolist()) == (("Volume", "Close"), [3485220000, 2682.17])
    with pytest.raises(InputError, match=r"--columns Clse: .*has the series GSPC"):
        read_table(path, Reading(columns=("Clse",)))
    other = table(tmp_path / "b.csv", "a,b,date", "1,2024-01-01,2023-05-05", "2,2024-01-02,x")
    read = read_table(other, Reading(time_column="B", columns=("a",)))
    assert (read.series, read.times[0]) == (("a",), np.datetime64("2024-01-01"))
    with pytest.raises(InputError, match=r"--time-column z: .* has 'a', 'b', 'date'"):
        read_table(other, Reading(time_column="z"))
    with pytest.raises(InputError, match="--columns names a twice"):
        Reading(columns=("a", "a"))
    longs = [
        "ticker,date,close,open",
        *(f"{name},2024-01-0{day},{day},9" for name in "ABC" for day in (1, 2)),
    ]
    read = read_table(table(tmp_path / "c.csv", *longs), Reading(columns=("C", "A")))
    assert (read.series, read.values.tolist()) == (("C", "A"), [[1, 1], [2, 2]])
    read = read_table(tmp_path / "c.csv", Reading(columns=("open",)))
    assert (read.series, read.values[0].tolist()) == (("A", "B", "C"), [9, 9, 9])


def test_a_saved_runs_series_are_found(tmp_path):
    wide = table(tmp_path / "a.csv", "time,X,BTC,ETH", *(f"{hour},1,2,3" for hour in hours(3)))
    assert read_table(wide, series=("ETH", "BTC")).values[0].tolist() == [3, 2]
    assert read_table(wide, series=("ETH", "SOL")).series == ("X", "BTC", "ETH")
    bars = table(tmp_path / "AAPL-2025.csv", *BARS)
    assert read_table(bars, series=("AAPL",)).series == ("AAPL",)
    assert read_table(bars, series=("MSFT",)).series == ("AAPL-2025",)


def test_a_table_without_a_header_is_refused(tmp_path):
    for rows in (["2023-01-02 00:00:00,20209.23", "2023-01-02 01:00:00,20210.1"], ["1.5,2.5"] * 3):
        with pytest.raises(InputError, match=r"no header line; put one .* such as time,BTC"):
            read_table(table(tmp_path / "a.csv", *rows))


# -------------------------------------------------------------------- series that are not alike


def long_rows(**lives: list[int]) -> list[str]:
    """A long table with prices of series in some hours."""
    times = hours(300)
    return [
        "unique_id,ds,y",
        *(f"{name},{times[hour]},{10 + hour}" for name, life in lives.items() for hour in life),
    ]


def test_a_delisted_series_is_left_out_and_named_and_the_others_stay_whole(tmp_path):
    rows = long_rows(BTC=list(range(300)), LUNA=list(range(120)))
    read = read_table(table(tmp_path / "a.csv", *rows))
    assert (read.series, len(read.times)) == (("BTC",), 300)
    assert "LUNA (40%, 2023-01-01 to 2023-01-05T23:00)" in read.provenance["read"]
    both = read_table(tmp_path / "a.csv", Reading(columns=("LUNA", "BTC")))
    assert (both.series, len(both.times)) == (("LUNA", "BTC"), 120)
    assert "180 of 300 times are not in every series" in both.provenance["read"]


def test_holes_are_counted_filled_or_refused(tmp_path):
    every = list(range(300))
    few = table(
        tmp_path / "a.csv", *long_rows(A=every, B=[h for h in every if h not in (0, 50, 51)])
    )
    read = read_table(few)
    assert len(read.times) == 297
    assert "3 of 300 times are not in every series and left out" in read.provenance["read"]
    filled = read_table(few, Reading(fill="forward"))  # but not before the series begins
    assert len(filled.times) == 299
    assert filled.values[48:52, 1].tolist() == [59, 59, 59, 62]  # hours 49 to 52
    assert "2 missing prices filled" in filled.provenance["read"]
    holes = {name: [h for h in every if h % 17 != place] for place, name in enumerate("ABC")}
    many = table(tmp_path / "b.csv", *long_rows(**holes, D=every))
    with pytest.raises(InputError, match=r"54 of 300 times .* more than 10%.*--columns.*--fill"):
        read_table(many)


def test_a_series_with_many_holes_has_the_step_of_the_others(tmp_path):
    days = pd.bdate_range("2024-01-01", periods=60)
    rows = [f"{day:%Y-%m-%d},{row},{'' if row % 3 == 0 else row}" for row, day in enumerate(days)]
    path = table(tmp_path / "a.csv", "Date,A,B", *rows)
    filled = read_table(path, Reading(fill="forward"))
    assert filled.series == ("A", "B")
    assert filled.values[1:5, 1].tolist() == [2, 2, 4, 5]
    assert read_table(path).series == ("A",)


def test_series_of_different_steps_are_refused(tmp_path):
    rows = long_rows(BTC=list(range(300)), SPX=list(range(0, 300, 24)))
    with pytest.raises(InputError, match="the steps of BTC are 1 hour, those of SPX 1 day"):
        read_table(table(tmp_path / "a.csv", *rows))


def test_files_of_a_folder_that_do_not_go_together_are_refused(tmp_path):
    place = tmp_path / "prices"
    place.mkdir()
    with pytest.raises(InputError, match="is a folder without a table of prices"):
        read_table(place)
    table(place / "A.csv", "date,close", "2024-01-01,1", "2024-01-02,2")
    table(place / "B.csv", "date,x", "2024-01-01,3", "2024-01-02,4")
    read = read_table(place)
    assert (read.series, read.values.tolist()) == (("A", "x"), [[1, 3], [2, 4]])
    digest = read.provenance["sha256"]
    table(place / "C.csv", "date,x", "2024-01-01,5", "2024-01-02,6")
    with pytest.raises(InputError, match="x stands in B and C at the same times"):
        read_table(place)
    table(place / "C.csv", "date,x", "2024-01-03,5", "2024-01-04,6")
    table(place / "A.csv", "date,close", *(f"2024-01-0{day},{day}" for day in range(1, 5)))
    assert read_table(place).values[:, 1].tolist() == [3, 4, 5, 6]
    assert read_table(place).provenance["sha256"] != digest
    (place / "A.csv").write_bytes(b"")
    with pytest.raises(InputError, match=r"prices, A\.csv: not a readable table"):
        read_table(place)


def test_a_frame_is_read_as_a_file(tmp_path):
    index = pd.date_range("2024-01-01", periods=3, freq="h", tz="UTC")
    columns = pd.MultiIndex.from_product([["Close", "Volume"], ["A", "B"]])
    frame = pd.DataFrame(np.arange(12.0).reshape(3, 4), index, columns)
    read = read_frame(frame)
    assert (read.series, read.values[1].tolist()) == (("A", "B"), [4, 5])
    assert read_frame(frame[["Close"]]["Close"], series=("B",)).values[:, 0].tolist() == [1, 5, 9]


# ------------------------------------------------------------------------------------ options


def test_options_of_a_file_need_a_file(folder):
    with pytest.raises(InputError, match="--columns is for a file of prices"):
        load_prices("simulated", None, COINS, reading=Reading(columns=("BTC",)))
    for config in (
        ForecastConfig(tickers=("AAPL",), data=folder),
        PredictConfig(interval="1d", source="simulated"),
    ):
        with pytest.raises(InputError, match="goes with --source yahoo"):
            asked_of_yahoo(config, COINS)
    source, market = asked_of_yahoo(
        ForecastConfig(tickers=("AAPL", "BTC-USD"), interval="1d"), COINS
    )
    assert (source, market.tickers, market.hourly) == ("yahoo", ("AAPL", "BTC-USD"), False)


def test_every_config_reads_alike():
    config = PredictConfig(columns=("A",), decimal=",", fill="forward", source="csv")
    assert Reading.of(config) == Reading(columns=("A",), decimal=",", fill="forward")
