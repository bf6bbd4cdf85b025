"""Candles: Garman-Klass by hand, tables of every shape, what is mended and refused, no leak."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.cli import InputError
from common.forecasting.ahead import until
from common.forecasting.baselines import CANDLE_HAR, Fitted, har_key, scaled_shape
from common.forecasting.candles import range_volatility, relative_volume
from common.forecasting.history import Prices, select
from common.forecasting.prices import COINS, load_prices, read_table
from common.forecasting.simulate import simulate
from common.forecasting.volatility import fit_log_har
from common.forecasting.windows import Windows
from tests.forecasting.helpers import with_parts
from tests.forecasting.price_tables import HOURS, table

HEADER = "ds,open,high,low,close,volume"
BTC = ["10,12,9,11,5", "11,11.5,10,10.5,7", "10.5,13,10,12,6"]
ETH = ["2,2.5,1.5,2,50", "2,2.2,2,2.1,60", "2.1,2.4,2,2.2,0"]


def rows_of(candles: list[str]) -> list[str]:
    return [f"{hour},{cells}" for hour, cells in zip(HOURS, candles, strict=True)]


def write_long(path: Path) -> Path:
    rows = [f"BTC,{row}" for row in rows_of(BTC)] + [f"ETH,{row}" for row in rows_of(ETH)]
    return table(path, f"unique_id,{HEADER}", *rows)


def long_table(prices: Prices) -> pd.DataFrame:
    """Prices with candles as a long table of a user."""
    assert prices.candles is not None
    times = pd.to_datetime(prices.times, utc=True)
    return pd.concat(
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": times,
                "high": prices.candles[:, 0, place],
                "low": prices.candles[:, 1, place],
                "close": prices.values[:, place],
                "volume": prices.candles[:, 2, place],
            }
        )
        for place, name in enumerate(prices.series)
    )


# ---------------------------------------------------------------------------------- by hand


def test_garman_klass_by_hand():
    past = np.array([[[100.0], [102.0], [102.0]]])  # (1, 3, 1)
    candles = np.array([[[100.0, 100, 0], [104, 99, 0], [103, 102.5, 0]]])[..., None]
    volatility = range_volatility(past, candles)[0, :, 0]
    first = 0.5 * np.log(104 / 99) ** 2 - (2 * np.log(2) - 1) * np.log(102 / 100) ** 2
    second = 0.5 * np.log(103 / 102) ** 2  # the close lies in the range: the low is 102
    np.testing.assert_allclose(volatility, np.sqrt([first, second]))
    differences = range_volatility(past, candles, log=False)[0, :, 0]
    expected = np.sqrt([0.5 * 25 - (2 * np.log(2) - 1) * 4, 0.5])
    np.testing.assert_allclose(differences, expected)


def test_garman_klass_finds_the_volatility_of_a_fine_walk():
    rng = np.random.default_rng(0)
    fine = 0.001 * rng.standard_normal((20_000, 400)).cumsum(1)  # deviation 0.02 of each walk
    before = np.zeros(len(fine))
    past = np.exp(np.stack([before, fine[:, -1]]))[None, :, :]  # (1, 2, walks)
    extremes = np.exp(np.stack([fine.max(1), fine.min(1), before]))  # (3, walks)
    candles = np.stack([np.ones_like(extremes), extremes])[None]
    variance = (range_volatility(past, candles) ** 2).mean()
    assert np.sqrt(variance) == pytest.approx(0.02, rel=0.06)  # a walk in steps has a smaller range


def test_volume_is_relative_to_the_windows_mean_and_may_be_none():
    candles = np.zeros((1, 4, 3, 2))
    candles[0, :, 2, 0] = [99, 1, 2, 3]  # the first belongs to no step
    volume = relative_volume(candles)[0]
    np.testing.assert_allclose(volume[:, 0], np.log([0.5, 1, 1.5]), atol=3e-3)
    np.testing.assert_allclose(volume[:, 1], 0, atol=2e-3)


# ------------------------------------------------------------------------------------ files


@pytest.mark.usefixtures("folder")
def test_a_long_table_a_folder_of_tickers_and_a_wide_table_give_the_same_candles(tmp_path):
    long = read_table(write_long(tmp_path / "long.csv"), candles=True)
    folder = tmp_path / "tickers"
    folder.mkdir()
    table(folder / "BTC.csv", HEADER, *rows_of(BTC))
    table(folder / "ETH.csv", HEADER, *reversed(rows_of(ETH)))  # newest first
    several = read_table(folder, candles=True)
    names = [f"{field}_{coin}" for coin in ("BTC", "ETH") for field in HEADER.split(",")[1:]]
    both = [f"{row},{eth}" for row, eth in zip(rows_of(BTC), ETH, strict=True)]
    wide = read_table(table(tmp_path / "wide.csv", ",".join(["time", *names]), *both), candles=True)

    for prices in (long, several, wide):
        assert prices.series == ("BTC", "ETH")
        np.testing.assert_array_equal(prices.values, [[11, 2], [10.5, 2.1], [12, 2.2]])
        assert prices.candles is not None
        np.testing.assert_array_equal(
            prices.candles[:, :, 0], [[12, 9, 5], [11.5, 10, 7], [13, 10, 6]]
        )
        np.testing.assert_array_equal(
            prices.candles[:, :, 1], [[2.5, 1.5, 50], [2.2, 2, 60], [2.4, 2, 0]]
        )
        assert prices.provenance["candles"]["columns"] == ["high", "low", "volume"]
        assert "with high, low and volume" in prices.provenance["read"]
        assert "left out: high" not in prices.provenance["read"]

    assert read_table(tmp_path / "long.csv").candles is None
    chosen = select(long, ["ETH", "BTC"])
    assert chosen.candles is not None
    np.testing.assert_array_equal(chosen.candles[:, 2], [[50, 5], [60, 7], [0, 6]])
    early = until(long, "2024-01-01T01:00Z")
    assert early.candles is not None
    assert early.candles.shape == (2, 3, 2)


@pytest.mark.usefixtures("folder")
def test_candles_keep_the_times_of_their_closes(tmp_path):
    prices = simulate(COINS.with_candles(), 60, 0)
    long = long_table(prices)
    holes = long[~((long.unique_id == "ETH") & (long.ds == long.ds.iloc[30]))]
    holes.to_csv(tmp_path / "holes.csv", index=False)
    read = read_table(tmp_path / "holes.csv", candles=True)
    kept = np.delete(np.arange(60), 30)
    assert prices.candles is not None
    assert read.candles is not None
    np.testing.assert_array_equal(read.times, prices.times[kept])
    np.testing.assert_allclose(read.candles, prices.candles[kept], rtol=1e-9)


@pytest.mark.usefixtures("folder")
def test_a_wrong_candle_is_mended_and_counted_and_many_are_refused(tmp_path):
    long = long_table(simulate(COINS.with_candles(), 60, 0)).reset_index(drop=True)
    wrong = long.copy()
    wrong.loc[5, "high"] = wrong.loc[5, "close"] / 2
    wrong.loc[6, "low"] = np.nan
    wrong.loc[7, "volume"] = -1
    wrong.to_csv(tmp_path / "wrong.csv", index=False)
    read = read_table(tmp_path / "wrong.csv", candles=True)
    assert read.candles is not None
    assert read.candles[5, 0, 0] == read.values[5, 0]
    for row in (6, 7):
        expected = [read.values[row, 0], read.values[row, 0], 0]
        np.testing.assert_array_equal(read.candles[row, :, 0], expected)
    assert read.provenance["candles"]["missing"] == 2
    assert read.provenance["candles"]["close_outside"] == 1
    assert "2 candles that are missing" in read.provenance["read"]

    other = long.assign(high=long.high / 3)
    other.to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(InputError, match="do not hold their close"):
        read_table(tmp_path / "other.csv", candles=True)


@pytest.mark.usefixtures("folder")
def test_closes_alone_are_refused_in_one_line(tmp_path):
    market = COINS.with_candles()
    closes = table(tmp_path / "closes.csv", "time,BTC,ETH", *[f"{hour},1,2" for hour in HOURS])
    with pytest.raises(InputError, match=r"--candles needs high, low and volume.*closes alone"):
        load_prices("csv", closes, market)
    rows = [f"{hour},1,2,1,1.5" for hour in HOURS]
    bars = table(tmp_path / "bars.csv", "time,open,high,low,close", *rows)
    with pytest.raises(InputError, match="no volume of bars"):
        load_prices("csv", bars, market)
    with pytest.raises(InputError, match="--source yahoo gives closes alone"):
        load_prices("yahoo", None, market)
    assert market.file == "crypto_hourly_candles.csv.gz"


def test_simulated_candles_hold_their_closes_and_leave_them_as_they_are():
    closes, prices = simulate(COINS, 500, 1), simulate(COINS.with_candles(), 500, 1)
    again = simulate(COINS.with_candles(), 500, 1)
    assert closes.candles is None
    assert prices.candles is not None
    np.testing.assert_array_equal(closes.values, prices.values)
    np.testing.assert_array_equal(prices.candles, again.candles)
    high, low, volume = prices.candles.swapaxes(0, 1)
    assert ((low <= prices.values) & (prices.values <= high)).all()
    assert (volume > 0).all()
    ranges = range_volatility(prices.values[None], prices.candles[None])[0]
    sizes = np.abs(np.diff(np.log(prices.values), axis=0))
    assert 1 < ranges.mean() / sizes.mean() < 1.6  # 1.25 of normal changes


# ------------------------------------------------------------------------------- log-HAR-t


def windows_of(prices: Prices) -> Windows:
    return with_parts(Windows(prices, None, 48, 3))


def test_a_window_has_the_candles_up_to_its_origin():
    prices = simulate(COINS.with_candles(), 300, 0)
    past, times, candles = windows_of(prices).inputs(np.array([100, 250]))
    assert prices.candles is not None
    assert candles.shape == (2, 48, 3, 7)
    np.testing.assert_array_equal(candles[1], prices.candles[203:251])
    assert past.shape == (2, 48, 7)
    assert times.shape == (2, 51)
    assert len(windows_of(simulate(COINS, 300, 0)).inputs(np.array([100]))) == 2


def test_log_har_reads_ranges_and_sees_none_past_its_origin_or_the_training_part():
    prices = simulate(COINS.with_candles(), 900, 0)
    windows = windows_of(prices)
    har = fit_log_har(windows)
    assert har.candles
    assert har_key(har) == CANDLE_HAR
    closes = fit_log_har(windows_of(simulate(COINS, 900, 0)))
    assert har.weights.shape[2] == 2 * closes.weights.shape[2]
    assert not closes.candles

    # poisoned candles after an origin, and after the training part
    assert prices.candles is not None
    origin = np.array([700])
    expected = scaled_shape(har, windows, origin).scale
    for row, changes in ((701, False), (700, True)):
        spoilt = prices.candles.copy()
        spoilt[row:, 0] *= 5
        of_spoilt = windows_of(dataclasses.replace(prices, candles=spoilt))
        scale = scaled_shape(har, of_spoilt, origin).scale
        assert np.array_equal(scale, expected) is not changes
    spoilt = prices.candles.copy()
    spoilt[windows.parts.train_end :] *= 7
    again = fit_log_har(windows_of(dataclasses.replace(prices, candles=spoilt)))
    for name, array in har.arrays.items():
        np.testing.assert_array_equal(array, getattr(again, name))
    with pytest.raises(ValueError, match="closes alone"):
        har.scale(*windows.inputs(origin)[:2])
    assert list(Fitted(har=har).distributions(windows, origin)) == [CANDLE_HAR]
