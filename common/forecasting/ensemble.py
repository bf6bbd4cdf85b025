"""The backtest of whole groups of forecasters: every seed, their mean, and their comparison.

Shape letters: N origins, C context, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from common.forecasting.backtest import (
    Entry,
    Forecast,
    ModelKey,
    Reference,
    Score,
    combine,
    compare,
    measure,
    score,
    score_rows,
)
from common.forecasting.baselines import ROLLING_WALK, baselines
from common.forecasting.ridge import RidgeWindow
from common.forecasting.windows import Forecaster, Windows
from common.machine import peak_mb
from common.results import Row


@dataclasses.dataclass(frozen=True)
class ModelGroup:
    """Forecasters of one model, one per seed, and the names under which they are reported."""

    model: str
    """model of every row"""
    variant: str
    """variant of the rows of single seeds"""
    forecasters: Sequence[Forecaster]
    """one per seed"""
    ensemble: str
    """variant of the rows of the mean forecast over the seeds"""
    seconds: float | None = None
    """mean seconds of one training"""
    brief: bool = False
    """whether only scores pooled over series and steps are reported"""

    @property
    def key(self) -> ModelKey:
        """Model and variant of the single seeds."""
        return self.model, self.variant

    @property
    def ensemble_key(self) -> ModelKey:
        """Model and variant of the mean forecast."""
        return self.model, self.ensemble

    @property
    def raw_ensemble(self) -> str:
        """Variant of the mean forecast before it is recalibrated."""
        return f"{self.ensemble}, not recalibrated"

    @property
    def params(self) -> int:
        """Trained weights of one forecaster."""
        return self.forecasters[0].params


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two forecasts to compare, by model and variant; the rows are the first one's."""

    one: ModelKey
    other: ModelKey

    @property
    def variant(self) -> str:
        """Variant of the rows of the comparison."""
        return f"{self.one[1]} against {self.other[0]}, {self.other[1]}"


class Ensemble:
    """The mean of `count` forecasts that are added one by one, so that no two are in memory."""

    def __init__(self, count: int):
        self.count = count
        self._point: np.ndarray | float = 0.0
        self._quantiles: np.ndarray | float = 0.0

    def add(self, forecast: Forecast) -> None:
        """Adds one forecast with quantiles."""
        self._point = self._point + forecast.point / self.count
        self._quantiles = self._quantiles + forecast.distribution / self.count

    def mean(self) -> Forecast:
        """The mean of all that was added."""
        return Forecast(np.asarray(self._point), np.asarray(self._quantiles))


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The rows of a backtest, and the ensemble forecasts of its groups that are not brief."""

    rows: list[Row]
    ensembles: dict[ModelKey, Forecast]  # by the key of the group


# ----------------------------------------------------------------------------------- backtest


@dataclasses.dataclass(frozen=True)
class Backtest:
    """Rows, and the scores that they are made of by model and variant."""

    rows: list[Row]
    scores: dict[ModelKey, Score]


@dataclasses.dataclass(frozen=True)
class BaselineBacktest(Backtest):
    """The backtest of every baseline, and the reference that all scores are relative to."""

    reference: Reference


@dataclasses.dataclass(frozen=True)
class GroupBacktest(Backtest):
    """The backtest of a group, and its mean forecast."""

    ensemble: Forecast


def held_out_rows(
    windows: Windows,
    groups: Sequence[ModelGroup],
    origins: np.ndarray,
    split: str,
    ridge: RidgeWindow | None,
    pairs: Sequence[Pair] = (),
) -> HeldOut:
    """Rows of every baseline, of every group and of the pairs at the given origins (N,)."""
    baseline = backtest_baselines(windows, origins, split, ridge)
    rows = list(baseline.rows)
    scores = dict(baseline.scores)
    ensembles = {}
    for group in groups:
        result = backtest_group(windows, group, origins, split, baseline.reference)
        rows += pooled(result.rows) if group.brief else result.rows
        scores |= result.scores
        if not group.brief:
            ensembles[group.key] = result.ensemble

    brief = {group.ensemble_key for group in groups if group.brief}
    for pair in pairs:
        entry = Entry(model=pair.one[0], variant=pair.variant, split=split)
        compared = compare(scores[pair.one], scores[pair.other], entry)
        rows += pooled(compared) if {pair.one, pair.other} & brief else compared
    return HeldOut(rows, ensembles)


def backtest_baselines(
    windows: Windows, origins: np.ndarray, split: str, ridge: RidgeWindow | None
) -> BaselineBacktest:
    """The backtest of every baseline; their forecasts, hundreds of MB, are released."""
    forecasts = baselines(windows, origins, ridge)
    reference = Reference(
        windows.past(origins),
        windows.future(origins),
        windows.prices.series,
        forecasts[ROLLING_WALK].distribution,
        windows.log,
    )
    rows = []
    scores = {}
    for (model, variant), forecast in forecasts.items():
        scored = score(reference, [forecast])
        scores[model, variant] = scored
        rows += score_rows(scored, Entry(model=model, variant=variant, split=split))
    return BaselineBacktest(rows, scores, reference)


def backtest_group(
    windows: Windows, group: ModelGroup, origins: np.ndarray, split: str, reference: Reference
) -> GroupBacktest:
    """Rows of a group's seeds, of their mean before recalibration (if not brief) and of their mean.

    One forecast of all origins fills hundreds of MB, so that the seeds are predicted, measured
    and added to the ensemble one after another.
    """
    look_back = windows.before(origins)
    inputs = windows.inputs(look_back)
    count = len(group.forecasters)
    memory = peak_mb()

    # Seeds, each recalibrated by its own past:
    ensemble = Ensemble(count)
    measured = []
    for forecaster in group.forecasters:
        forecast = Forecast(*forecaster.predict(*inputs))
        ensemble.add(forecast)
        measured.append(measure(reference, recalibrated(windows, forecast, look_back, origins)))
    seeds = combine(reference, measured)
    entry = Entry(
        model=group.model,
        variant=group.variant,
        split=split,
        params=group.params,
        seconds=None if group.seconds is None else round(group.seconds, 2),
        peak_mb=memory,
    )
    rows = score_rows(seeds, entry)

    # Their mean, before and after recalibration:
    raw = ensemble.mean()
    mean = recalibrated(windows, raw, look_back, origins)
    of_mean = Entry(
        model=group.model, variant=group.ensemble, split=split, params=group.params * count
    )
    if not group.brief:
        plain = dataclasses.replace(of_mean, variant=group.raw_ensemble)
        rows += score_rows(score(reference, [raw.last(len(origins))]), plain)
    whole = score(reference, [mean])
    rows += score_rows(whole, of_mean)
    return GroupBacktest(rows, {group.key: seeds, group.ensemble_key: whole}, mean)


def recalibrated(
    windows: Windows, forecast: Forecast, look_back: np.ndarray, origins: np.ndarray
) -> Forecast:
    """The forecast at the origins, of that at `look_back`, corrected by the outcomes known then."""
    quantiles = windows.recalibrated(forecast.distribution, look_back)
    return Forecast(forecast.point, quantiles).last(len(origins))


def pooled(rows: Sequence[Row]) -> list[Row]:
    """The rows over all series and steps."""
    return [row for row in rows if row.pooled]
