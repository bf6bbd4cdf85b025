"""Price tables that are damaged or long."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from common.forecasting.prices import COINS, read_table
from common.forecasting.simulate import simulate
from tests.conftest import peak_memory
from tests.fuzzing import HARM, few, harm, refused_or


def table_text() -> bytes:
    prices = simulate(COINS, 12, 0)
    frame = pd.DataFrame(prices.values[:, :2], columns=["BTC", "ETH"]).round(3)
    frame.insert(0, "time", np.datetime_as_string(prices.times, "s"))
    return frame.to_csv(index=False).encode()


def valid_prices(prices: object) -> bool:
    return bool(
        np.isfinite(prices.values).all()
        and (np.diff(prices.times) > np.timedelta64(0)).all()
        and prices.values.shape[1] > 0
    )


@pytest.mark.parametrize("name", ["prices.csv", "prices.csv.gz"])
@few(60)
@given(drawn=HARM)
def test_damaged_price_tables(tmp_path, name, drawn):
    raw = gzip.compress(table_text(), mtime=0) if name.endswith("gz") else table_text()
    (tmp_path / name).write_bytes(harm(raw, drawn))
    refused_or(lambda: read_table(tmp_path / name), tmp_path, valid_prices)


def test_a_million_rows_of_prices_in_bounded_memory(tmp_path):
    hours = np.datetime64("1900-01-01T00", "h") + np.arange(1_000_000)
    with open(tmp_path / "long.csv", "w") as file:
        file.write("time,BTC\n")
        for row, hour in enumerate(hours.astype(str)):
            file.write(f"{hour}:00:00Z,{100 + row % 97}.25\n")
    size = (tmp_path / "long.csv").stat().st_size / 2**20
    memory = peak_memory(f"""
from common.forecasting.prices import read_table
before = peak_mb()
prices = read_table({str(tmp_path / "long.csv")!r})
assert prices.values.shape == (1_000_000, 1) and prices.hourly
assert prices.provenance["gaps"]["count"] == 0
assert prices.values[96, 0] == 196.25""")
    assert memory < 20 * size, f"{memory:.0f} MiB for a file of {size:.0f}"  # (about 10 times)
