"""Scores of forecasts at rolling origins: every function is pure, nothing is remembered in between.

`score` sets a model's forecasts, one per training seed, against what came; `score_rows` makes the
rows of metrics.json of a score, `compare` those of two scores at the same origins.

Shape letters: N origins, C context, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from common.forecasting.metrics import (
    BLOCK,
    change,
    crps_quantiles,
    diebold_mariano,
    holm,
    interval,
    lags_for,
    long_run_variance,
)
from common.results import Row, mean_and_std

# metrics that the test part also has for every series and step
BY_CELL = ("rmsse", "crps_ratio", "coverage_80", "coverage_95")
BOOTSTRAPS = 1000  # draws of weeks
Cells: TypeAlias = dict[str, np.ndarray]  # values (H, S) by metric
ModelKey: TypeAlias = tuple[str, str]  # model and variant of a row


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Prices at N origins: a point (N, H, S), and quantiles (N, H, S, Q) at LEVELS or None."""

    point: np.ndarray
    quantiles: np.ndarray | None = None

    @property
    def distribution(self) -> np.ndarray:
        """The quantiles. Raises ValueError for a point forecast, which has none."""
        if self.quantiles is None:
            raise ValueError("a point forecast has no quantiles")
        return self.quantiles

    def at(self, rows: np.ndarray | slice) -> Forecast:
        """The forecast at some of the origins."""
        quantiles = None if self.quantiles is None else self.quantiles[rows]
        return Forecast(self.point[rows], quantiles)

    @classmethod
    def joined(cls, parts: list[Forecast]) -> Forecast:
        """Forecasts with quantiles of parts of the origins as one; the list is emptied."""
        count = sum(len(part.point) for part in parts)
        point = np.empty((count, *parts[0].point.shape[1:]), parts[0].point.dtype)
        whole = parts[0].distribution
        quantiles = np.empty((count, *whole.shape[1:]), whole.dtype)
        end = count
        while parts:
            part = parts.pop()
            rows = slice(end - len(part.point), end)
            point[rows] = part.point
            quantiles[rows] = part.distribution
            end = rows.start
        return cls(point, quantiles)


class Reference:
    """What came after each origin, and the losses of the two references.

    `past` (N, C, S) and `actual` (N, H, S) are prices; `rolling_quantiles` (N, H, S, Q) are those
    of the random walk with rolling empirical residuals, whose CRPS is crps_ratio's denominator.
    Changes are log returns, or price differences where `log` is false. `weeks` (N,) numbers the
    calendar weeks of the origins, over which standard errors are taken.
    """

    def __init__(
        self,
        past: np.ndarray,
        actual: np.ndarray,
        series: tuple[str, ...],
        rolling_quantiles: np.ndarray,
        log: bool = True,
        weeks: np.ndarray | None = None,
    ):
        self.last = past[:, -1]  # (N, S)
        self.actual = actual
        self.series = series
        self.log = log
        self.weeks = weeks
        self.truth = change(actual, self.last, log)  # (N, H, S)
        self.squared_errors = self.truth**2  # (N, H, S): of no change
        walk = Forecast(actual, rolling_quantiles)
        self.crps = outcomes_of(self, walk).crps  # (N, H, S): of the random walk

    @classmethod
    def joined(cls, parts: Sequence[Reference]) -> Reference:
        """That of parts of the series as one."""
        if len(parts) == 1:
            return parts[0]
        whole = copy.copy(parts[0])
        whole.series = tuple(name for part in parts for name in part.series)
        for name in ("last", "actual", "truth", "squared_errors", "crps"):
            setattr(whole, name, np.concatenate([getattr(part, name) for part in parts], -1))
        return whole

    @property
    def horizon(self) -> int:
        """Steps ahead."""
        return self.truth.shape[1]

    @property
    def moved(self) -> np.ndarray:
        """Whether the price of a series ever was another after so many steps: (H, S) of bool."""
        return np.any(self.squared_errors > 0, axis=0)


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What a forecast was worth at N origins, of which every metric is made; all are (N, H, S).

    `covered` and `widths` are of the central intervals by their share in per cent; a point
    forecast has none.
    """

    point: np.ndarray
    crps: np.ndarray
    covered: dict[int, np.ndarray]
    widths: dict[int, np.ndarray]

    @classmethod
    def joined(cls, parts: Sequence[Outcomes], axis: int) -> Outcomes:
        """Those of parts of the origins (axis 0) or of the series (axis 2) as one."""
        if len(parts) == 1:
            return parts[0]
        percents = parts[0].covered
        return cls(
            np.concatenate([part.point for part in parts], axis),
            np.concatenate([part.crps for part in parts], axis),
            {p: np.concatenate([part.covered[p] for part in parts], axis) for p in percents},
            {p: np.concatenate([part.widths[p] for part in parts], axis) for p in percents},
        )


@dataclasses.dataclass(frozen=True)
class Measured:
    """One seed's forecast against what came: metrics (H, S), squared errors and CRPS (N, H, S)."""

    metrics: Cells
    squared_errors: np.ndarray
    crps: np.ndarray


@dataclasses.dataclass(frozen=True)
class Score:
    """The metrics (H, S) of each seed, and the losses (N, H, S), means over the seeds."""

    reference: Reference
    seeds: Sequence[Cells]
    squared_errors: np.ndarray
    crps: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """Which forecasts a table's rows are about; `params`, `seconds`, `peak_mb` as in Row."""

    model: str
    variant: str
    split: str
    protocol: str = "held-out"
    params: int | None = None
    seconds: float | None = None
    peak_mb: float | None = None

    def row(
        self, metric: str, cell: Cell, value: float, std: float | None = None, n_seeds: int = 1
    ) -> Row:
        """The row of one value of one cell."""
        return Row(
            **vars(self),
            metric=metric,
            value=value,
            std=std,
            n_seeds=n_seeds,
            series=cell.series,
            horizon=cell.horizon,
        )


# ------------------------------------------------------------------------------------- scores


def score(reference: Reference, forecasts: Iterable[Forecast]) -> Score:
    """The score of a model's forecasts, one per seed; a generator's are measured one by one."""
    return combine(reference, [measure(reference, forecast) for forecast in forecasts])


def combine(reference: Reference, measured: Sequence[Measured]) -> Score:
    """The score of one model's seeds."""
    return Score(
        reference,
        [seed.metrics for seed in measured],
        _mean_of([seed.squared_errors for seed in measured]),
        _mean_of([seed.crps for seed in measured]),
    )


def _mean_of(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of arrays of one shape, added up in their order."""
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total / len(arrays)


def measure(reference: Reference, forecast: Forecast) -> Measured:
    """Metrics (H, S) and losses (N, H, S) of one forecast; without quantiles, CRPS is |error|."""
    return measured(reference, outcomes_of(reference, forecast))


def outcomes_of(reference: Reference, forecast: Forecast, first: int = 0) -> Outcomes:
    """The outcomes of a forecast at the reference's origins from number `first` on.

    Its changes, twice the size of its quantiles, are in memory for a few origins at a time.
    """
    parts = []
    for start in range(0, len(forecast.point), BLOCK):
        block = slice(start, start + BLOCK)
        point = forecast.point[block]
        rows = slice(first + start, first + start + len(point))
        last = reference.last[rows]
        truth = reference.truth[rows]
        if forecast.quantiles is None:
            error = change(point, last, reference.log) - truth
            parts.append(Outcomes(point, np.abs(error), {}, {}))
            continue
        changes = change(forecast.quantiles[block], last, reference.log)  # (B, H, S, Q)
        covered = {}
        widths = {}
        for percent in (80, 95):
            low, high = interval(changes, percent / 100)
            covered[percent] = (truth >= low) & (truth <= high)
            widths[percent] = high - low
        parts.append(Outcomes(point, crps_quantiles(changes, truth), covered, widths))
    return Outcomes.joined(parts, axis=0)


def measured(reference: Reference, outcomes: Outcomes) -> Measured:
    """Metrics (H, S) and losses (N, H, S) of a forecast's outcomes at all origins."""
    error = change(outcomes.point, reference.last, reference.log) - reference.truth  # (N, H, S)
    metrics = _point_metrics(reference, outcomes.point, error)
    for percent, covered in outcomes.covered.items():
        metrics[f"coverage_{percent}"] = covered.mean(0)
        metrics[f"width_{percent}"] = outcomes.widths[percent].mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = outcomes.crps.mean(0) / reference.crps.mean(0)
    metrics |= {"crps": outcomes.crps.mean(0), "crps_ratio": ratio}
    return Measured(metrics, error**2, outcomes.crps)


def _point_metrics(reference: Reference, point: np.ndarray, error: np.ndarray) -> Cells:
    """Metrics (H, S) of a point forecast (N, H, S) whose changes are wrong by `error` (N, H, S)."""
    squared = error**2
    dollars = point - reference.actual
    # a constant series has no scale: nan, and no row
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(squared.mean(0) / reference.squared_errors.mean(0))
    return {
        "rmse": np.sqrt(squared.mean(0)),
        "mae": np.abs(error).mean(0),
        "rmse_usd": np.sqrt((dollars**2).mean(0)),
        "mae_usd": np.abs(dollars).mean(0),
        "rmsse": ratio,
        "skill": 1 - ratio**2,
        "direction_accuracy": _direction_accuracy(error + reference.truth, reference.truth),
    }


def _direction_accuracy(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share (H, S) of changes (N, H, S) other than 0 whose sign was predicted.

    NaN for a series and step where every prediction is no change, which has no sign.
    """
    moved = truth != 0
    right = (np.sign(predicted) == np.sign(truth)) & moved
    with np.errstate(divide="ignore", invalid="ignore"):
        share = right.sum(0) / moved.sum(0)
    return np.where(np.any(predicted != 0, axis=0), share, np.nan)


def significance(of: Score) -> Cells:
    """Standard error of rmsse over origins, and Holm's p against both references, all (H, S).

    Tested are the losses averaged over the seeds: the p values are over time, not over seeds.
    """
    reference = of.reference
    tests = {
        "p_rmse": (of.squared_errors, reference.squared_errors),
        "p_crps": (of.crps, reference.crps),
    }
    standard_error = ratio_standard_error(of.squared_errors, reference.squared_errors)
    adjusted = {name: holm(cell_tests(*losses)) for name, losses in tests.items()}
    return {"rmsse_se": standard_error} | adjusted


def ratio_standard_error(squared_errors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Standard error (H, S) of rmsse over origins, of squared errors (N, H, S): delta method."""
    count, horizons, _ = squared_errors.shape
    standard_error = np.zeros(squared_errors.shape[1:])
    for h in range(horizons):
        scale = np.maximum(reference[:, h].mean(0), 1e-300)  # (S,)
        ratio = squared_errors[:, h].mean(0) / scale
        excess = squared_errors[:, h] - ratio * reference[:, h]  # (N, S)
        variance = long_run_variance(excess, lags_for(count, h + 1))
        slope = 2 * np.sqrt(np.maximum(ratio, 1e-12)) * scale
        standard_error[h] = np.sqrt(variance) / slope
    return standard_error


def cell_tests(losses: np.ndarray, others: np.ndarray) -> np.ndarray:
    """p (H, S) of Diebold-Mariano tests of losses (N, H, S), not yet corrected."""
    horizons, series = losses.shape[1:]
    p = np.ones((horizons, series))
    for h in range(horizons):
        for s in range(series):
            _, p[h, s] = diebold_mariano(losses[:, h, s], others[:, h, s], h + 1)
    return p


def weekly_standard_error(losses: np.ndarray, others: np.ndarray, weeks: np.ndarray) -> float:
    """Standard error of the pooled ratio of mean losses (N, C) of C cells over time.

    By a bootstrap of whole calendar weeks (N,), so that the hours of a wild week stay together: the
    deviation of the geometric mean of the ratios over BOOTSTRAPS draws. NaN for a single week.
    """
    _, week = np.unique(weeks, return_inverse=True)
    count = int(week.max()) + 1
    if count < 2 or not losses.size:
        return float("nan")
    totals = []
    for loss in (losses, others):
        of_weeks = np.zeros((count, loss.shape[1]))
        np.add.at(of_weeks, week, loss)
        totals.append(of_weeks)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), BOOTSTRAPS)
    mine, other = (draws @ total for total in totals)  # (BOOTSTRAPS, C)
    moving = (mine > 0).all(0) & (other > 0).all(0)
    return float(np.exp(np.log(mine[:, moving] / other[:, moving]).mean(1)).std(ddof=1))


# --------------------------------------------------------------------------------------- rows


@dataclasses.dataclass(frozen=True)
class Cell:
    """A part of the values (H, S): those of a series and of a step; None is over all of them."""

    series: str | None = None
    horizon: int | None = None
    index: tuple[slice, slice] = (slice(None), slice(None))


def marginal_cells(reference: Reference) -> list[Cell]:
    """All values, then those of each series, then those of each step."""
    every = slice(None)
    by_series = [
        Cell(name, None, (every, slice(s, s + 1))) for s, name in enumerate(reference.series)
    ]
    by_step = [Cell(None, h + 1, (slice(h, h + 1), every)) for h in range(reference.horizon)]
    return [Cell(), *by_series, *by_step]


def single_cells(reference: Reference) -> list[Cell]:
    """Each value by itself: series by series, each with its steps."""
    return [
        Cell(name, h + 1, (slice(h, h + 1), slice(s, s + 1)))
        for s, name in enumerate(reference.series)
        for h in range(reference.horizon)
    ]


def pool(metric: str, values: np.ndarray) -> float:
    """A metric's values (...) as one: geometric mean of ratios, root mean square of RMSE.

    Values that are not finite do not count: those of a price that never moves, which has no scale.
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan")
    if metric in ("rmse", "rmse_usd"):
        return float(np.sqrt(np.mean(values**2)))
    if metric in ("rmsse", "crps_ratio"):
        return geometric_mean(values)
    if metric == "skill":
        return float(1 - np.exp(np.mean(np.log(1 - values))))
    return float(np.mean(values))


def geometric_mean(values: np.ndarray) -> float:
    """The geometric mean of the finite ones of values (...)."""
    values = values[np.isfinite(values)]
    return float(np.exp(np.mean(np.log(values)))) if values.size else float("nan")


def score_rows(of: Score, entry: Entry) -> list[Row]:
    """Rows of a score: pooled, by series and by step, mean and deviation over the training seeds.

    The test part also has the metrics BY_CELL and the tests of significance for every series and
    step. Values that are not finite have no row.
    """
    marginal = marginal_cells(of.reference)
    single = single_cells(of.reference) if entry.split == "test" else []
    rows = []
    for metric in of.seeds[0]:
        for cell in marginal + (single if metric in BY_CELL else []):
            values = np.array([pool(metric, seed[metric][cell.index]) for seed in of.seeds])
            if np.isfinite(values).all():
                rows.append(entry.row(metric, cell, *mean_and_std(values), len(values)))
    rows += standard_error_rows("crps_ratio_se", of, of.reference.crps, entry)
    if not single:
        return rows
    for metric, values in significance(of).items():
        for cell in single:
            value = pool(metric, values[cell.index])
            if np.isfinite(value):
                rows.append(entry.row(metric, cell, value, n_seeds=len(of.seeds)))
    return rows


def standard_error_rows(metric: str, one: Score, others: np.ndarray, entry: Entry) -> list[Row]:
    """The standard error over weeks of the pooled ratio, where the weeks are known and several."""
    if one.reference.weeks is None:
        return []
    moved = one.reference.moved
    value = weekly_standard_error(one.crps[:, moved], others[:, moved], one.reference.weeks)
    row = entry.row(metric, Cell(), value, n_seeds=len(one.seeds))
    return [row] if np.isfinite(value) else []


def compare(a: Score, b: Score, entry: Entry) -> list[Row]:
    """Rows of the ratios of a's losses to b's at the same origins, and of their significance.

    Ratios are pooled, by series, by step and by both. The p values are by both (Holm), and one of
    the losses pooled over series and steps.
    """
    reference = a.reference
    marginal = marginal_cells(reference)
    single = single_cells(reference)
    losses = {
        "rmse_against": (a.squared_errors, b.squared_errors, reference.squared_errors),
        "crps_against": (a.crps, b.crps, reference.crps),
    }
    rows = []
    for metric, (mine, other, scale) in losses.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = mine.mean(0) / other.mean(0)  # (H, S)
        ratio = np.where(reference.moved, ratio, np.nan)
        if metric == "rmse_against":
            ratio = np.sqrt(ratio)
        rows += [
            entry.row(metric, cell, geometric_mean(ratio[cell.index])) for cell in marginal + single
        ]
        p = holm(cell_tests(mine, other))  # (H, S)
        rows.append(entry.row(f"p_{metric}", Cell(), pooled_test(mine, other, scale)))
        rows += [entry.row(f"p_{metric}", cell, p[cell.index].item()) for cell in single]
    rows += standard_error_rows("crps_against_se", a, b.crps, entry)
    return [row for row in rows if np.isfinite(row.value)]


def pooled_test(losses: np.ndarray, others: np.ndarray, scale: np.ndarray) -> float:
    """p of a Diebold-Mariano test of losses (N, H, S) pooled in units of the mean of `scale`."""
    unit = scale.mean(0)  # (H, S)
    unit = np.where(unit > 0, unit, np.inf)  # a series that never moves has no weight
    pooled = (losses / unit).mean((1, 2))  # (N,)
    pooled_others = (others / unit).mean((1, 2))
    _, p = diebold_mariano(pooled, pooled_others, losses.shape[1])
    return p
