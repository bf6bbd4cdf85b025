"""Simulated prices have the market's statistics, heavy tails, clusters and a daily cycle."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from common.cli import InputError
from common.forecasting.prices import COINS, CURRENCIES
from common.forecasting.simulate import simulate


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
        if field.name not in ("name", "file", "hourly", "candle_file", "candles")
    }
    matrix = np.array(market.correlation)
    assert sizes == {7}
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 1)
    assert np.linalg.eigvalsh(matrix).min() > 0.1
