"""The backtest of groups: which rows there are, in which order, and what the ensemble is."""

from __future__ import annotations

import numpy as np
import pytest

from common.forecasting.backtest import Forecast
from common.forecasting.ensemble import Ensemble, ModelGroup, Pair, held_out_rows
from common.forecasting.metrics import LEVELS
from tests.forecasting.helpers import walk, windows_of

ORIGINS = np.arange(400, 690)


class Spread:
    """Forecasts the last price between one price less and one price more, shifted by `shift`."""

    def __init__(self, shift: float):
        self.shift = shift
        self.settings = {"context": 30, "horizon": 3}
        self.params = 10

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert times.shape == past.shape[:2]
        point = np.repeat(past[:, -1:], 3, axis=1) + self.shift
        return point, point[..., None] + 2 * LEVELS - 1


def group(model: str, *shifts: float, brief: bool = False) -> ModelGroup:
    forecasters = [Spread(shift) for shift in shifts]
    return ModelGroup(model, "spread", forecasters, f"mean of {len(shifts)}", 1.236, brief)


def test_the_ensemble_is_the_mean_of_what_was_added():
    rng = np.random.default_rng(0)
    points = rng.random((3, 4, 2, 1))
    quantiles = rng.random((3, 4, 2, 1, 99))
    ensemble = Ensemble(3)
    for point, of_seed in zip(points, quantiles, strict=True):
        ensemble.add(Forecast(point, of_seed))
    mean = ensemble.mean()
    np.testing.assert_allclose(mean.point, points.mean(0))
    np.testing.assert_allclose(mean.quantiles, quantiles.mean(0))


def test_a_group_has_rows_of_its_seeds_of_their_mean_and_of_it_before_recalibration():
    a = group("A", -0.5, 0.5)
    result = held_out_rows(windows_of(walk(700)), [a], ORIGINS, "test", None)
    rows = [row for row in result.rows if row.model == "A" and row.metric == "crps" and row.pooled]
    assert [row.variant for row in rows] == ["spread", "mean of 2, not recalibrated", "mean of 2"]
    assert [row.n_seeds for row in rows] == [2, 1, 1]
    assert [row.params for row in rows] == [10, 20, 20]
    assert [row.seconds for row in rows] == [1.24, None, None]
    models = dict.fromkeys(row.model for row in result.rows)
    assert list(models) == ["no change", "drift", "seasonal naive", "random walk", "A"]


def test_the_mean_of_opposite_shifts_is_no_change():
    windows = windows_of(walk(700))
    result = held_out_rows(windows, [group("A", -0.5, 0.5)], ORIGINS, "test", None)
    mean = result.ensembles["A", "spread"]
    last = np.repeat(windows.past(ORIGINS)[:, -1:], 3, axis=1)
    np.testing.assert_allclose(mean.point, last)
    pooled = {row.variant: row.value for row in result.rows if row.metric == "rmsse" and row.pooled}
    assert pooled["mean of 2"] == pytest.approx(1)
    assert pooled["spread"] > 1


def test_brief_groups_and_their_pairs_have_pooled_rows_alone():
    groups = [group("A", 0.1), group("B", 0.2, 0.3, brief=True), group("C", 0.4)]
    pairs = [Pair(groups[0].ensemble_key, other.ensemble_key) for other in groups[1:]]
    result = held_out_rows(windows_of(walk(700)), groups, ORIGINS, "test", None, pairs)
    assert list(result.ensembles) == [("A", "spread"), ("C", "spread")]
    assert all(row.pooled for row in result.rows if row.model == "B")
    assert not any("not recalibrated" in row.variant for row in result.rows if row.model == "B")
    assert pairs[0].variant == "mean of 1 against B, mean of 2"
    brief = [row for row in result.rows if row.variant == pairs[0].variant]
    whole = [row for row in result.rows if row.variant == pairs[1].variant]
    assert [row.metric for row in brief] == [
        "rmse_against",
        "p_rmse_against",
        "crps_against",
        "p_crps_against",
    ]
    assert len(whole) > len(brief)
    assert all(row.model == "A" for row in brief + whole)


def test_nothing_is_remembered_between_two_backtests():
    windows = windows_of(walk(700))
    groups = [group("A", 0.1, 0.2), group("B", 0.3)]
    pairs = [Pair(groups[0].ensemble_key, groups[1].ensemble_key)]
    first = held_out_rows(windows, groups, ORIGINS, "test", None, pairs)
    held_out_rows(windows, groups, ORIGINS[:100], "validation", None, pairs)
    again = held_out_rows(windows, groups, ORIGINS, "test", None, pairs)
    assert [(row.metric, row.value) for row in again.rows] == [
        (row.metric, row.value) for row in first.rows
    ]
