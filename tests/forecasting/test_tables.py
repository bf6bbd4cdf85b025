"""Tables of prices: every shape and ending that is read, and every mistake in one line."""

from __future__ import annotations

import gzip
import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.cli import InputError
from common.forecasting.config import Reading
from common.forecasting.prices import COINS, Prices, load_prices, read_table
from common.forecasting.sessions import DAY, HOUR
from common.forecasting.simulate import simulate
from tests.forecasting.price_tables import HOURS, contents, hourly, table

pytestmark = pytest.mark.usefixtures("folder")


def made(times: list[str], hourly: bool) -> Prices:
    return Prices(
        np.array(times, "datetime64[ns]"),
        np.ones((len(times), 1)),
        ("a",),
        HOUR if hourly else DAY,
        "csv",
        {},
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
    gaps = read_table(table(tmp_path / "a.csv", "time,x", *rows)).provenance["gaps"]
    assert (gaps["count"], gaps["missing_hours"]) == (3, 5)
    assert gaps["largest"][0] == {
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
    assert read_table(tmp_path / "a.csv").series == ("x",)
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


def test_a_long_table_keeps_the_times_that_the_chosen_series_share(tmp_path):
    rows = [f"a,{hour},1" for hour in HOURS] + [
        f"b,{hour},2" for hour in [*HOURS[1:], "2024-01-01T03:00:00Z"]
    ]
    path = table(tmp_path / "a.csv", "unique_id,ds,y", *rows)
    read = read_table(path, Reading(columns=("a", "b")))
    assert read.values.tolist() == [[1, 2], [1, 2]]
    assert (read.series, read.provenance["times_not_in_every_series"]) == (("a", "b"), 2)
    assert "2 of 4 times are not in every series and left out" in read.provenance["read"]


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
    "small numbers as times": (["time,x", "1,1", "2,2"], "column time holds '1'"),
    "Excel's days": (["time,x", "45292,1", "45293,2"], "Excel's day numbers"),
    "time left out": (["time,x", f"{HOURS[0]},1", ",2"], "column time holds '' in row 2"),
    "impossible date": (["time,x", "2024-02-30,1", "2024-03-01,2"], "column time: .*2024-02-30"),
    "two forms": (["time,x", "2024-02-28,1", "13/02/2024,2"], "one form and zone"),
    "unreadable times": (["time,x", "a1b2,1", "zz9,2"], "one form and zone"),
    "far years": (["time,x", "3024-01-01,1", "3024-01-02,2"], "column time: .*3024"),
    "naive and aware": (
        ["time,x", "2024-01-01T00:00:00,1", "2024-01-01T01:00:00Z,2"],
        "row 2 names a zone, unlike row 1",
    ),
    "nothing but holes": (hourly(["nan", "", "-"]), "no row holds a price"),
    "holes everywhere": (
        hourly(["1,5", ",6", "2,"], "time,x,z"),
        r"no series has a price at 90% of the 3 times \(x \(67%, .*--columns .*--fill",
    ),
    "inf": (hourly(["1", "2", "-inf"]), "x at 2024-01-01 02:00:00"),
    "word": (hourly(["1", "2", "three"]), "column x holds 'three' in row 3"),
    "two decimal marks": (
        ["time;x;z", "2024-01-01;1,5;1.5", "2024-01-02;2,5;1"],
        "'1.5' in column z and '1,5' in column x: one decimal mark",
    ),
    "long row": (
        ["time,x", "2024-01-01,1,5", "2024-01-02,2,5"],
        "not a readable table .*line 1 holds 2 fields and a later one 3: 2024-01-01,1,5",
    ),
    "twice": (
        ["time,x", HOURS[0] + ",1", HOURS[0] + ",2"],
        "2024-01-01 00:00:00\\+00:00 stands twice",
    ),
    "unsorted": (
        ["time,x", HOURS[0] + ",1", "2042-01-01T01:00:00Z,1", HOURS[1] + ",2", HOURS[2] + ",2"],
        "01:00:00\\+00:00 comes after 2042-01-01 01:00",
    ),
    "minutes": (
        ["time,x", "2024-01-01T00:00,1", "2024-01-01T00:07,2", "2024-01-01T00:14,2"],
        "most steps are 7 minutes; allowed are minutes that divide an hour",
    ),
    "ten days": (
        ["time,x", "2024-01-01,1", "2024-01-11,2", "2024-01-21,2"],
        "most steps are 10 days",
    ),
    "half an hour": (
        [
            *hourly(["1", "2", "3"]),
            "2024-01-01T02:30:00Z,4",
            *(f"2024-01-01T0{hour}:00:00Z,4" for hour in (3, 4, 5)),
        ],
        "stand too close; steps of 1 hour or more",
    ),
    "two a day": (
        ["time,x", "2024-01-01,1", "2024-01-02T09:00,2", "2024-01-02T23:00,3", "2024-01-04,4"],
        "stand too close; steps of 1 day or more",
    ),
    "two names": (hourly(["1,2", "1,2", "1,2"], "time,x,x"), "two columns named x"),
    "no name": (hourly(["1,", "1,2", "1,"], "time,x,"), "a column without a name, the 3rd"),
    "long words": (["unique_id,ds,y", f"a,{HOURS[0]},x"], "no column of closes among y"),
    "long word": (
        ["unique_id,ds,y", f"a,{HOURS[0]},1", f"a,{HOURS[1]},x"],
        "column y holds 'x' in row 2",
    ),
    "long twice": (
        ["unique_id,ds,y", f"a,{HOURS[0]},1", f"a,{HOURS[0]},2", f"b,{HOURS[0]},2"],
        "series a: .* stands twice",
    ),
    "long unsorted": (
        [
            "unique_id,ds,y",
            *(f"a,{hour},1" for hour in (HOURS[0], "2042-01-01T01:00:00Z", *HOURS[1:])),
            *(f"b,{hour},1" for hour in HOURS),
        ],
        "series a: .* comes after",
    ),
    "long apart": (
        ["unique_id,ds,y", f"a,{HOURS[0]},1", f"b,{HOURS[1]},2"],
        r"no series has a price at 90% of the 2 times \(a \(50%",
    ),
    "long without rows": (["unique_id,ds,y"], "0 rows of prices"),
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
        ("a.csv", b"time,x\n\xff\0\xfe,1\n", "not a readable table"),
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
        ("a.xlsx", b"PK", "allowed are .csv.*save the sheet of a spreadsheet as CSV"),
        ("a.zip", b"PK", "not a readable table"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, name, raw, expected):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=expected) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_parquet_values_that_are_no_prices_are_named(tmp_path):
    times, path = pd.to_datetime(HOURS), tmp_path / "a.parquet"
    for column, expected in (
        ([True, False, True], "column x holds 'True' in row 1"),
        (["1", "2", "3,5;"], "column x holds '3,5;' in row 3"),
        ([1.0, np.inf, 3.0], "x at 2024-01-01 01:00:00\\+00:00 is missing or not finite"),
        ([None, None, None], "no row holds a price"),
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
