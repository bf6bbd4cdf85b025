"""Exports with other words, notes around the table, other dates and numbers, and rows to tidy."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from common.cli import InputError
from common.forecasting.config import Reading
from common.forecasting.prices import read_frame, read_table
from tests.forecasting.price_tables import table

DAYS = ["2024-01-29", "2024-01-30", "2024-01-31"]
HOURS = ["2024-01-29T00:00", "2024-01-29T01:00", "2024-01-29T02:00"]
BARS = [(10.5, 13.5, 9.5, 11.5), (11.5, 14.5, 10.5, 12.25), (12.5, 15.5, 11.5, 13.75)]
CLOSES = [11.5, 12.25, 13.75]  # the last of each bar
STAMPS = [1706486400, 1706490000, 1706493600]  # of HOURS


def bars(times: list, pattern: str) -> list[str]:
    """Rows with the numbers of each time's bar, as the pattern places them."""
    return [
        pattern.format(time, *numbers, open=numbers[0], high=numbers[1], low=numbers[2])
        for time, numbers in zip(times, BARS, strict=True)
    ]


def closes(times: list, sign: str = ",") -> list[str]:
    """Rows of a time and a close."""
    return [f"{time}{sign}{close}" for time, close in zip(times, CLOSES, strict=True)]


def close_of(path, *rows, times=DAYS, name="a"):
    """Reads the rows and checks that they are the closes at the times; returns what was told."""
    read = read_table(table(path / "a.csv", *rows))
    assert read.series == (name,)
    np.testing.assert_array_equal(read.times, np.array(times, "datetime64[ns]"))
    assert read.values[:, 0].tolist() == CLOSES
    return read.provenance["read"]


# -------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "header",
    [
        "Date,PX_OPEN,PX_HIGH,PX_LOW,PX_LAST",
        "timestamp,open (USD),high (USD),low (USD),close (USD)",
        "Date,Open*,High,Low,Close**",
        "date,o,h,l,c",
        "time,mid.o,mid.h,mid.l,mid.c",
        "time_period_start,price_open,price_high,price_low,price_close",
        "日期,开盘,最高,最低,收盘",
        "日付,始値,高値,安値,終値",
        "날짜,시가,고가,저가,종가",
        "Дата,Откр.,Макс.,Мин.,Цена",
        "Data,Otwarcie,Najwyzszy,Najnizszy,Zamkniecie",
        "Datum,Openen,Hoog,Laag,Laatste",
        "Tarih,Açılış,Yüksek,Düşük,Şimdi",
        "Datum,Eröffnung,Tageshoch,Tagestief,Schluss",
    ],
)
def test_the_close_of_a_bar_in_other_words(tmp_path, header):
    told = close_of(tmp_path, header, *bars(DAYS, "{},{},{},{},{}"))
    assert f"the price is {header.split(',')[-1]}" in told


def test_the_short_names_of_polygon_with_the_time_at_the_end(tmp_path):
    rows = bars(STAMPS, "1000,{4},{1},{4},{2},{3},{0}000,55")
    close_of(tmp_path, "v,vw,o,c,h,l,t,n", *rows, times=HOURS)


@pytest.mark.parametrize(
    ("header", "series"),
    [
        ("Date,A-USD.Open,A-USD.Close,B.Close", ("A-USD", "B")),
        ("Date,A-volume,A-close,B-close", ("A", "B")),
        ("Date,aOpen,aClose,bClose", ("a", "b")),
        ("Date,A_Volume,A_Adj Close,B_Adj Close", ("A", "B")),
        ("Date,A_return,A,B", ("A", "B")),
    ],
)
def test_tickers_beside_their_fields(tmp_path, header, series):
    rows = [f"{day},0.5,{close},{close + 1}" for day, close in zip(DAYS, CLOSES, strict=True)]
    read = read_table(table(tmp_path / "a.csv", header, *rows))
    assert read.series == series
    assert read.values.tolist() == [[close, close + 1] for close in CLOSES]


def candles(header: str, between: str = "up") -> list[str]:
    """Bars in columns of any name; `between` up: the close lies above the open and below by turns.

    With "rising" the second column is always the smaller of the inner two.
    """
    rows = []
    for row, day in enumerate(pd.bdate_range("2024-01-01", periods=20)):
        inner = (11, 12) if between == "rising" or row % 2 else (12, 11)
        rows.append(f"{day:%Y-%m-%d},{inner[0]}.5,13.5,10.5,{inner[1]}.5")
    return [header, *rows]


def test_bars_in_unknown_words_are_refused_and_chosen_with_columns(tmp_path):
    path = table(tmp_path / "a.csv", *candles("Date,alku,ylin,alin,loppu"))
    with pytest.raises(InputError, match=r"alku, ylin, alin, loppu look like open, .*--columns"):
        read_table(path)
    assert read_table(path, Reading(columns=("loppu",))).values[:2, 0].tolist() == [11.5, 12.5]
    rates = table(tmp_path / "b.csv", *candles("Date,2Y,10Y,1Y,5Y", "rising"))
    assert len(read_table(rates).series) == 4  # in one order always, as no open and close are


def test_fields_as_tickers_of_a_long_table_are_refused(tmp_path):
    rows = [f"{day},{field},{close}" for day, close in zip(DAYS, CLOSES, strict=True)
            for field in ("open", "close", "volume")]  # fmt: skip
    path = table(tmp_path / "a.csv", "date,field,value", *rows)
    with pytest.raises(InputError, match=r"open, close, volume, .*--columns close"):
        read_table(path)
    assert read_table(path, Reading(columns=("close",))).values[:, 0].tolist() == CLOSES
    rows = [f"{day},{name},1" for day in DAYS for name in ("A", "")]
    with pytest.raises(InputError, match="column ticker is empty in row 2"):
        read_table(table(tmp_path / "b.csv", "date,ticker,close", *rows))


# ---------------------------------------------------------------------- around and in the table


@pytest.mark.parametrize(
    ("above", "name"),
    [
        (["Security,BTC Curncy", "Start Date,2024-01-29", "Period,D", "", "Date,PX_LAST"], "a"),
        (["Back to Contents,Data 1: Oil", "Sourcekey,RWTC", "Date,WTI"], "WTI"),
        (["Title,A$1=USD", "Units,USD", "Multiplier,1", "Series ID,FXRUSD"], "FXRUSD"),
        (["Fecha de consulta: 01/04/2024", "Título,FIX", "Fecha,SF43718"], "SF43718"),
        (["Dates,BTC Curncy", ",PX_LAST"], "BTC Curncy"),
    ],
)
def test_notes_above_the_table_are_no_header(tmp_path, above, name):
    close_of(tmp_path, *above, *closes(DAYS), name=name)


def test_notes_below_a_header_without_a_name_of_the_times(tmp_path):
    header = [",BBEX3.D.USD,BBEX3.D.USD_FLAGS", ",Euro reference rate,", "unit,USD,"]
    close_of(tmp_path, *header, *(f"{row}," for row in closes(DAYS)), name="BBEX3.D.USD")


def test_a_first_row_that_is_damaged_is_no_note(tmp_path):
    with pytest.raises(InputError, match="column Date holds 'x' in row 1"):
        read_table(table(tmp_path / "a.csv", "Date,BTC", "x,1", *closes(DAYS)))


def test_a_source_below_and_headers_in_the_table_are_left_out(tmp_path):
    rows = closes(DAYS)
    told = close_of(tmp_path, "Date,Close", *rows, "Downloaded from Barchart.com as of 04-01-2024")
    assert "left out below the table: 'Downloaded from Barchart" in told
    told = close_of(tmp_path, "Date,Close", *rows[:2], "Date,Close", *rows[2:])
    assert "the header is repeated 1 time and left out" in told


def test_empty_lines_and_words_of_errors_are_no_prices(tmp_path):
    rows = [*closes(DAYS)[:2], ",", *closes(DAYS)[2:], ",", " , "]
    close_of(tmp_path, "Date,Close", *rows)
    words = ["2024-02-01,#N/A N/A", "2024-02-02,#VALUE!"]
    assert "2 rows without any price" in close_of(tmp_path, "Date,Close", *closes(DAYS), *words)


def test_a_price_that_never_moves_is_told(tmp_path):
    rows = [f"{day},1,{close}" for day, close in zip(DAYS, CLOSES, strict=True)]
    read = read_table(table(tmp_path / "a.csv", "Date,USDT,BTC", *rows))
    assert read.provenance["read"].endswith("; USDT never moves")


def test_repeated_rows_are_left_out_and_others_of_the_same_time_refused(tmp_path):
    rows = closes(DAYS)
    told = close_of(tmp_path, "Date,Close", *rows, *rows[1:])
    assert "2 rows repeated in every cell left out" in told
    with pytest.raises(InputError, match="2024-01-30 00:00:00 stands twice"):
        read_table(table(tmp_path / "a.csv", "Date,Close", *rows, "2024-01-30,99"))


def test_rows_are_sorted_unless_a_date_stands_apart(tmp_path):
    rows = closes(DAYS)
    told = close_of(tmp_path, "Date,Close", rows[1], rows[2], rows[0])
    assert "rows are sorted by time" in told
    with pytest.raises(InputError, match="2024-01-30 00:00:00 comes after 2042-01-29"):
        read_table(table(tmp_path / "a.csv", "Date,Close", "2042-01-29,1", *rows[1:]))
    longs = [f"{row},{name}" for name, order in (("A", (0, 1, 2)), ("B", (1, 0, 2)))
             for row in (rows[place] for place in order)]  # fmt: skip
    read = read_table(table(tmp_path / "b.csv", "date,close,ticker", *longs))
    assert read.values.tolist() == [[close, close] for close in CLOSES]


@pytest.mark.parametrize("last", ["2024-01-29T03:17:23Z", "2024-01-29T03:00:01Z"])
def test_a_last_row_of_the_moment_is_left_out(tmp_path, last):
    times = [f"{hour}:00Z" for hour in (*HOURS, "2024-01-29T03:00")]
    rows = [f"{time},{row}" for row, time in enumerate((*times, last), 1)]
    read = read_table(table(tmp_path / "a.csv", "time,BTC", *rows))
    assert read.values[:, 0].tolist() == [1, 2, 3, 4]
    assert "is no whole step and left out" in read.provenance["read"]


def test_times_of_requests_are_rounded_to_whole_steps(tmp_path):
    seconds = [3, 17, 0, 31, 8, 22]
    stamps = [1706486400 + 3600 * row + late for row, late in enumerate(seconds)]
    rows = [f"{stamp}123,{row + 1}.5" for row, stamp in enumerate(stamps)]
    read = read_table(table(tmp_path / "a.csv", "timestamp,price", *rows))
    assert [str(time)[:19] for time in read.times[:2]] == [f"{hour}:00" for hour in HOURS[:2]]
    assert "times are rounded to whole steps of 1 hour" in read.provenance["read"]
    late = [f"2024-01-0{day} 16:{day}0:00,{day}" for day in range(1, 6)]  # a day has no clock
    assert read_table(table(tmp_path / "b.csv", "time,price", *late)).moment(0) == "2024-01-01"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"PK\x03\x04\x14\0", "it is a .zip or a spreadsheet: name it .zip"),
        (b"PAR1\x15\x04", "it is a parquet file: name it .parquet"),
        (b"\xd0\xcf\x11\xe0\xa1", "it is a spreadsheet: save the sheet as CSV UTF-8"),
        (b"<!DOCTYPE html>\n<p>Too many requests\n", "beside the time, '<!DOCTYPE html>'"),
        (b"Date BTC\n2024-01-29 1\n2024-01-30 2\n", "separated by a comma, semicolon, tab"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path, raw, message):
    (tmp_path / "a.csv").write_bytes(raw)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("encoding", "name", "header"),
    [
        ("cp1252", "Windows-1252", "Data,Abertura,Máxima,Mínima,Último"),
        ("cp1250", "Windows-1250", "Data,Otwarcie,Najwyższy,Najniższy,Zamknięcie"),
        ("cp1251", "Windows-1251", "Дата,Откр.,Макс.,Мин.,Цена"),
        ("cp1254", "Windows-1254", "Tarih,Açılış,Yüksek,Düşük,Şimdi"),
        ("gb18030", "GB 18030", "日期,开盘,最高,最低,收盘"),
        ("shift_jis", "Shift JIS", "日付,始値,高値,安値,終値"),
        ("euc_kr", "EUC-KR", "날짜,시가,고가,저가,종가"),
    ],
)
def test_older_encodings_are_told_by_their_header(tmp_path, encoding, name, header):
    rows = [header, *bars(DAYS, "{},{},{},{},{}")]
    (tmp_path / "a.csv").write_bytes("\n".join(rows).encode(encoding))
    read = read_table(tmp_path / "a.csv")
    assert read.values[:, 0].tolist() == CLOSES
    assert f"read as {name}; the price is {header.split(',')[-1]}" in read.provenance["read"]


def test_a_packed_file_without_its_ending(tmp_path):
    text = "\n".join(["Date,BTC", *closes(DAYS)])
    (tmp_path / "a.csv").write_bytes(gzip.compress(text.encode()))
    assert read_table(tmp_path / "a.csv").values[:, 0].tolist() == CLOSES


# ---------------------------------------------------------------------------- dates and numbers


@pytest.mark.parametrize(
    ("pattern", "times"),
    [
        ("{} de enero de 2024", DAYS),
        ("{} januari 2024", DAYS),
        ("{}JAN2024", DAYS),
        ("2024年01月{}日", DAYS),
        ("2024- 01- {}", DAYS),
        ("202401{}.0", DAYS),
        ("Mon Jan 29 {}:00:00 2024", HOURS),
        ("20240129  {}:00:00", HOURS),
        ("20240129T{}0000Z", HOURS),
        ('"2024-01-29 {}:00:00,000"', HOURS),
        ("2024-01-29T{}:00:00+00:00[Europe/London]", HOURS),
    ],
)
def test_dates_in_other_forms(tmp_path, pattern, times):
    places = [29, 30, 31] if times is DAYS else ["00", "01", "02"]
    close_of(tmp_path, "date,close", *closes([pattern.format(p) for p in places]), times=times)


def test_dates_in_an_exponent_have_lost_their_digits(tmp_path):
    rows = [f"1.70649E+12,{row}" for row in range(3)]
    with pytest.raises(InputError, match="has cut digits off"):
        read_table(table(tmp_path / "a.csv", "time,BTC", *rows))


@pytest.mark.parametrize("pattern", ["%m/%d/%y", "%d-%b-%y"])
def test_years_of_two_digits_are_not_in_the_future(tmp_path, pattern):
    days = pd.bdate_range("1965-12-20", periods=20)
    rows = [f"{day.strftime(pattern)},{row}" for row, day in enumerate(days, 1)]
    read = read_table(table(tmp_path / "a.csv", "Date,GE", *rows))
    np.testing.assert_array_equal(read.times, days.to_numpy())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_candles_of_several_days_are_no_days(tmp_path, count):
    days = pd.date_range("2024-01-01", periods=20, freq=f"{count}D")
    rows = [f"{day:%Y-%m-%d},{row}" for row, day in enumerate(days, 1)]
    with pytest.raises(InputError, match=f"most steps are {count} days; allowed are"):
        read_table(table(tmp_path / "a.csv", "Date,BTC", *rows))


def test_days_of_london_are_its_own_in_winter_and_summer(tmp_path):
    days = pd.bdate_range("2024-03-18", periods=15)
    stamps = [day.tz_localize("Europe/London").tz_convert("UTC") for day in days]
    rows = [f"{stamp:%Y-%m-%d %H:%M:%S},{row}" for row, stamp in enumerate(stamps, 1)]
    assert {stamp.hour for stamp in stamps} == {0, 23}
    read = read_table(table(tmp_path / "a.csv", "time,GBP", *rows))
    np.testing.assert_array_equal(read.times, days.to_numpy())


@pytest.mark.parametrize(
    ("cell", "price"),
    [
        ("CHF 1.5", 1.5),
        ("1.5 zł", 1.5),
        ("C$1.5", 1.5),
        ('"1,40,000.50"', 140000.5),
        ('"₹ 10,01,40,000.50"', 100140000.5),
    ],
)
def test_currencies_and_groups_of_india(tmp_path, cell, price):
    read = read_table(table(tmp_path / "a.csv", "Date,X", *(f"{day},{cell}" for day in DAYS)))
    assert read.values[:, 0].tolist() == [price] * 3


@pytest.mark.parametrize("cell", ["4.5%", "12.5K"])
def test_a_cell_that_is_no_plain_number_is_quoted(tmp_path, cell):
    path = table(tmp_path / "a.csv", "Date,X", *(f"{day},{cell}" for day in DAYS))
    with pytest.raises(InputError, match=f"X holds '{cell}', which is no number; .*--columns"):
        read_table(path)


def test_words_that_end_in_a_digit_are_no_numbers():
    frame = pd.DataFrame({"date": DAYS * 2, "pair": ["EUR1"] * 3 + ["USD1"] * 3, "v": CLOSES * 2})
    assert read_frame(frame).series == ("EUR1", "USD1")
