"""Scores of known forecasts, how they are pooled, and comparisons of two forecasts."""

from __future__ import annotations

import numpy as np
import pytest

from common.forecasting.backtest import (
    Entry,
    Forecast,
    Reference,
    compare,
    measure,
    pool,
    score,
    score_rows,
    weekly_standard_error,
)
from common.forecasting.baselines import drift, no_change, rolling_quantiles
from common.forecasting.metrics import diebold_mariano, holm
from common.results import Row
from tests.forecasting.helpers import walk, windows_of

ENTRY = Entry(model="drift", variant="x", split="test")


def reference_of(values: np.ndarray, origins: np.ndarray, log: bool = True) -> Reference:
    windows = windows_of(values, log=log)
    contiguous = np.ones(len(values) - 1, bool)
    rolling = rolling_quantiles(values, contiguous, origins, 3, 100, log=log)
    past = windows.past(origins)
    return Reference(past, windows.future(origins), windows.prices.series, rolling, log)


def still(values: np.ndarray, origins: np.ndarray) -> Forecast:
    return Forecast(no_change(windows_of(values).past(origins), 3))


def drifting(values: np.ndarray, origins: np.ndarray) -> Forecast:
    return Forecast(drift(windows_of(values).past(origins), 3))


def by_cell(rows: list[Row]) -> dict[tuple[str, str | None, int | None], Row]:
    return {(row.metric, row.series, row.horizon): row for row in rows}


def test_no_change_has_ratio_one_and_no_direction():
    values = walk(600)
    origins = np.arange(300, 590)
    reference = reference_of(values, origins)
    metrics = measure(reference, still(values, origins)).metrics
    truth = np.log(reference.actual / values[origins][:, None])
    np.testing.assert_allclose(metrics["rmsse"], 1)
    np.testing.assert_allclose(metrics["skill"], 0, atol=1e-12)
    assert np.isnan(metrics["direction_accuracy"]).all()
    np.testing.assert_allclose(metrics["rmse"], np.sqrt((truth**2).mean(0)))
    dollars = np.abs(reference.actual - values[origins][:, None])
    np.testing.assert_allclose(metrics["mae_usd"], dollars.mean(0))


def test_only_the_cells_that_leave_no_change_have_a_direction():
    values = walk(600)
    origins = np.arange(300, 590)
    reference = reference_of(values, origins)
    point = np.repeat(values[origins][:, None], reference.horizon, axis=1)
    point[:, 1, 0] = reference.actual[:, 1, 0]  # every move of one cell is known
    direction = measure(reference, Forecast(point)).metrics["direction_accuracy"]
    assert direction[1, 0] == 1
    assert np.isfinite(direction).sum() == 1
    assert pool("direction_accuracy", direction) == 1


def test_a_perfect_forecast_has_no_error_and_half_of_every_move_half_the_error():
    values = walk(600)
    origins = np.arange(300, 590)
    reference = reference_of(values, origins)
    actual = reference.actual
    perfect = measure(reference, Forecast(actual, np.repeat(actual[..., None], 99, -1))).metrics
    for name in ("rmse", "mae", "rmse_usd", "rmsse", "crps", "width_95"):
        np.testing.assert_allclose(perfect[name], 0, atol=1e-12)
    np.testing.assert_allclose(perfect["direction_accuracy"], 1)
    np.testing.assert_allclose(perfect["coverage_80"], 1)
    halfway = values[origins][:, None] * np.exp(reference.truth / 2)
    half = measure(reference, Forecast(halfway)).metrics
    np.testing.assert_allclose(half["rmsse"], 0.5)
    np.testing.assert_allclose(half["skill"], 0.75)


def test_rows_pool_as_the_table_says():
    values = walk(500)
    origins = np.arange(200, 490)
    reference = reference_of(values, origins)
    forecast = drifting(values, origins)
    rows = by_cell(score_rows(score(reference, [forecast, forecast]), ENTRY))
    cells = measure(reference, forecast).metrics
    logs = np.log(cells["rmsse"])  # (H, S)
    dollars = cells["rmse_usd"][1] ** 2  # (S,)
    assert rows["rmsse", None, None].value == pytest.approx(np.exp(logs.mean()))
    assert rows["rmsse", "B", None].value == pytest.approx(np.exp(logs[:, 1].mean()))
    assert rows["rmse_usd", None, 2].value == pytest.approx(np.sqrt(dollars.mean()))
    assert rows["rmsse", "A", 3].value == pytest.approx(cells["rmsse"][2, 0])
    assert rows["rmsse", None, None].n_seeds == 2
    assert rows["rmsse", None, None].std == 0
    assert ("p_rmse", "A", 1) in rows
    assert ("coverage_80", None, None) not in rows  # a point forecast has no interval


def test_deviations_are_over_seeds_and_tests_are_of_the_mean_loss():
    values = walk(500)
    origins = np.arange(200, 490)
    reference = reference_of(values, origins)
    forecasts = [still(values, origins), drifting(values, origins)]
    scored = score(reference, forecasts)
    measured = [measure(reference, forecast) for forecast in forecasts]
    ratios = [np.exp(np.log(seed.metrics["rmsse"]).mean()) for seed in measured]
    pooled = by_cell(score_rows(scored, ENTRY))["rmsse", None, None]
    assert pooled.value == pytest.approx(np.mean(ratios))
    assert pooled.std == pytest.approx(np.std(ratios, ddof=1))
    mean_loss = (measured[0].squared_errors + measured[1].squared_errors) / 2
    np.testing.assert_allclose(scored.squared_errors, mean_loss)


def test_validation_has_no_rows_by_series_and_step():
    values = walk(500)
    origins = np.arange(200, 490)
    scored = score(reference_of(values, origins), [drifting(values, origins)])
    rows = score_rows(scored, Entry(model="drift", variant="x", split="validation"))
    assert not any(row.series and row.horizon for row in rows)
    assert not any(row.metric.startswith("p_") for row in rows)


def test_a_comparison_by_hand():
    values = walk(500)
    origins = np.arange(200, 490)
    reference = reference_of(values, origins)
    a = score(reference, [drifting(values, origins)])
    b = score(reference, [still(values, origins)])
    rows = by_cell(compare(a, b, ENTRY))
    ratio = np.sqrt(a.squared_errors.mean(0) / b.squared_errors.mean(0))  # (H, S)
    assert rows["rmse_against", None, None].value == pytest.approx(np.exp(np.log(ratio).mean()))
    assert rows["rmse_against", "B", 2].value == pytest.approx(ratio[1, 1])
    p = [
        [
            diebold_mariano(a.crps[:, h, s], b.crps[:, h, s], h + 1)[1]
            for s in range(len(reference.series))
        ]
        for h in range(3)
    ]
    assert rows["p_crps_against", "A", 3].value == pytest.approx(holm(np.array(p))[2, 0])
    opposite = by_cell(compare(b, a, ENTRY))
    assert opposite["crps_against", None, None].value == pytest.approx(
        1 / rows["crps_against", None, None].value
    )
    assert opposite["p_crps_against", None, None] == rows["p_crps_against", None, None]


def test_a_constant_series_has_no_rmsse_and_the_others_are_pooled():
    values = walk(300)
    values[:, 1] = 7.0
    origins = np.arange(150, 290)
    scored = score(reference_of(values, origins), [drifting(values, origins)])
    rows = score_rows(scored, ENTRY)
    found = {(row.series, row.horizon): row.value for row in rows if row.metric == "rmsse"}
    assert not any(series == "B" for series, _ in found)
    assert found[None, None] == found["A", None]
    assert found[None, 2] == found["A", 2]

    # nor has it a part in a comparison, where its errors are rounding on one side and none on the
    # other
    wrong = Forecast(still(values, origins).point + 1e-15)
    rounded = score(reference_of(values, origins), [wrong])
    compared = by_cell(compare(rounded, scored, ENTRY))
    for metric in ("rmse_against", "crps_against"):
        assert compared[metric, None, None].value == compared[metric, "A", None].value
        assert (metric, "B", None) not in compared


def test_negative_prices_are_scored_as_differences():
    values = walk(400) - 100.0
    assert (values < 0).any()
    origins = np.arange(200, 390)
    scored = score(reference_of(values, origins, log=False), [still(values, origins)])
    ratios = [row.value for row in score_rows(scored, ENTRY) if row.metric == "rmsse"]
    np.testing.assert_allclose(ratios, 1)


def test_the_standard_error_over_weeks_is_that_of_weeks_drawn_again():
    rng = np.random.default_rng(0)
    weeks = np.repeat(np.arange(60), 168)
    level = rng.gamma(4, 0.25, 60)[weeks, None]  # a wild week is wild for every model
    others = level * rng.gamma(9, 1 / 9, (len(weeks), 6))
    assert weekly_standard_error(others, others, weeks) == 0
    assert weekly_standard_error(0.9 * others, others, weeks) == pytest.approx(0, abs=1e-12)

    # losses that differ by a factor of each week: the ratio's error is that of a weighted mean
    factor = rng.normal(0.97, 0.05, 60)
    found = weekly_standard_error(factor[weeks, None] * others, others, weeks)
    weight = np.bincount(weeks, others.mean(1))
    ratio = (factor * weight).sum() / weight.sum()
    expected = np.sqrt(((weight * (factor - ratio)) ** 2).sum()) / weight.sum()
    assert found == pytest.approx(expected, rel=0.1)
    assert np.isnan(weekly_standard_error(others, others, np.zeros(len(weeks))))
