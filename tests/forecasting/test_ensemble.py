"""The backtest of groups: which rows there are, in which order, and what the ensemble is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from common.forecasting import ensemble
from common.forecasting.backtest import Forecast
from common.forecasting.baselines import Fitted, fit_baselines
from common.forecasting.ensemble import ModelGroup, Pair, held_out_rows, pooled, with_mean
from common.forecasting.metrics import LEVELS
from common.forecasting.windows import Windows, split
from tests.forecasting.helpers import walk, windows_of

ORIGINS = np.arange(400, 690)


class Spread:
    """Forecasts the last price between one price less and one price more, shifted by `shift`."""

    def __init__(self, shift: float):
        self.shift = shift
        self.settings = {"context": 30, "horizon": 3}
        self.params = 10

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert len(times) == len(past)
        assert times.shape[1] > past.shape[1]  # the steps ahead are scheduled
        point = np.repeat(past[:, -1:], 3, axis=1) + self.shift
        return point, point[..., None] + 2 * LEVELS - 1


def group(model: str, *shifts: float, brief: bool = False) -> ModelGroup:
    forecasters = [Spread(shift) for shift in shifts]
    return ModelGroup(model, "spread", forecasters, f"mean of {len(shifts)}", 1.236, brief)


def test_the_mean_stands_behind_the_seeds():
    rng = np.random.default_rng(0)
    points = rng.random((3, 4, 2, 1))
    quantiles = rng.random((3, 4, 2, 1, 99))
    seeds = [Forecast(point, of_seed) for point, of_seed in zip(points, quantiles, strict=True)]
    *same, mean = with_mean(seeds)
    assert same == seeds
    np.testing.assert_allclose(mean.point, points.mean(0))
    np.testing.assert_allclose(mean.quantiles, quantiles.mean(0))


def test_a_group_has_rows_of_its_seeds_of_their_mean_and_of_it_before_recalibration():
    a = group("A", -0.5, 0.5)
    result = held_out_rows(windows_of(walk(700)), [a], ORIGINS, "test", Fitted())
    rows = [row for row in pooled(result.rows) if row.model == "A" and row.metric == "crps"]
    assert [row.variant for row in rows] == ["spread", "mean of 2, not recalibrated", "mean of 2"]
    assert [row.n_seeds for row in rows] == [2, 1, 1]
    assert [row.params for row in rows] == [10, 20, 20]
    assert [row.seconds for row in rows] == [1.24, None, None]
    models = dict.fromkeys(row.model for row in result.rows)
    assert list(models) == ["no change", "drift", "seasonal naive", "random walk", "A"]


def test_the_mean_of_opposite_shifts_is_no_change():
    windows = windows_of(walk(700))
    result = held_out_rows(windows, [group("A", -0.5, 0.5)], ORIGINS, "test", Fitted())
    mean = result.ensembles["A", "spread"]
    last = np.repeat(windows.past(ORIGINS)[:, -1:], 3, axis=1)
    np.testing.assert_allclose(mean.point, last)
    of_variant = {row.variant: row.value for row in pooled(result.rows) if row.metric == "rmsse"}
    assert of_variant["mean of 2"] == pytest.approx(1)
    assert of_variant["spread"] > 1


def test_brief_groups_and_their_pairs_have_pooled_rows_alone():
    groups = [group("A", 0.1), group("B", 0.2, 0.3, brief=True), group("C", 0.4)]
    pairs = [Pair(groups[0].ensemble_key, other.ensemble_key) for other in groups[1:]]
    result = held_out_rows(windows_of(walk(700)), groups, ORIGINS, "test", Fitted(), pairs)
    assert list(result.ensembles) == [("A", "spread"), ("C", "spread")]
    brief = [row for row in result.rows if row.model == "B"]
    assert pooled(brief) == brief
    assert not any("not recalibrated" in row.variant for row in result.rows if row.model == "B")
    assert pairs[0].variant == "mean of 1 against B, mean of 2"
    brief = [row for row in result.rows if row.variant == pairs[0].variant]
    whole = [row for row in result.rows if row.variant == pairs[1].variant]
    assert [row.metric for row in brief] == [
        "rmse_against",
        "p_rmse_against",
        "crps_against",
        "p_crps_against",
        "crps_against_se",
    ]
    assert len(whole) > len(brief)
    assert all(row.model == "A" for row in brief + whole)


def test_nothing_is_remembered_between_two_backtests():
    windows = windows_of(walk(700))
    groups = [group("A", 0.1, 0.2), group("B", 0.3)]
    pairs = [Pair(groups[0].ensemble_key, groups[1].ensemble_key)]
    first = held_out_rows(windows, groups, ORIGINS, "test", Fitted(), pairs)
    held_out_rows(windows, groups, ORIGINS[:100], "validation", Fitted(), pairs)
    again = held_out_rows(windows, groups, ORIGINS, "test", Fitted(), pairs)
    assert [(row.metric, row.value) for row in again.rows] == [
        (row.metric, row.value) for row in first.rows
    ]


def test_blocks_of_origins_and_of_series_change_no_score(monkeypatch):
    windows = windows_of(walk(700, series=5))
    groups = [group("A", 0.1, 0.2, brief=True), group("B", 0.3)]
    pairs = [Pair(groups[0].ensemble_key, groups[1].ensemble_key)]
    fitted = fit_baselines(windows_with_parts(windows))
    whole = held_out_rows(windows, groups, ORIGINS, "test", fitted, pairs)
    # 7 origins at a time, forecast twice; baselines of two series at a time
    monkeypatch.setattr(ensemble, "at_once", lambda horizon, series: 7)
    monkeypatch.setattr(ensemble, "KEPT_BYTES", 0)
    monkeypatch.setattr(ensemble, "series_parts", lambda cells, series: parts_of_two(series))
    blocks = held_out_rows(windows, groups, ORIGINS, "test", fitted, pairs)
    for one, other in zip(blocks.rows, whole.rows, strict=True):
        changing = {"value": 0, "std": None, "peak_mb": None}
        assert dataclasses.replace(one, **changing) == dataclasses.replace(other, **changing)
        assert one.value == pytest.approx(other.value, rel=1e-5)
    mean = blocks.ensembles["B", "spread"]
    np.testing.assert_array_equal(mean.quantiles, whole.ensembles["B", "spread"].quantiles)
    assert held_out_rows(windows, groups, ORIGINS, "test", Fitted(), kept=[]).ensembles == {}


def parts_of_two(series: int) -> list[slice]:
    return [slice(first, first + 2) for first in range(0, series, 2)]


def windows_with_parts(windows: Windows) -> Windows:
    parts = split(windows.prices.contiguous(), windows.context, windows.horizon, 290, 100)
    return dataclasses.replace(windows, known=parts)


def test_many_series_are_forecast_in_blocks_of_bounded_size():
    assert ensemble.series_parts(40_000, 7) == [slice(0, 7)]
    parts = ensemble.series_parts(750 * 5, 200)
    assert parts[0].start == 0
    assert parts[-1].stop >= 200
    assert all(4 * 750 * 5 * 99 * (part.stop - part.start) <= 16e6 for part in parts)
    wide = windows_of(walk(700))
    prices = dataclasses.replace(wide.prices, series=tuple(f"S{s}" for s in range(210)))
    sweep = ensemble.Sweep(dataclasses.replace(wide, prices=prices), [Spread(0)], ORIGINS)
    assert 4 * sweep.step * 3 * 210 * 99 <= 16e6
    # blocks of few series are those that a network forecasts at once
    assert ensemble.Sweep(windows_of(walk(700)), [Spread(0)], ORIGINS).step % 512 == 0
