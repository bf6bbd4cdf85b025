"""The backtest of whole groups of forecasters: every seed, their mean, and their comparison.

Shape letters: N origins, C context, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from common.forecasting.average import mean_of
from common.forecasting.backtest import (
    Entry,
    Forecast,
    ModelKey,
    Outcomes,
    Reference,
    Score,
    combine,
    compare,
    measured,
    outcomes_of,
    score_rows,
)
from common.forecasting.baselines import ROLLING_WALK, Fitted, baselines
from common.forecasting.metrics import (
    AT_ONCE_BYTES,
    LEVELS,
    at_once,
    change,
    outcome_sizes,
    widened,
    width_factors,
)
from common.forecasting.sessions import week_of
from common.forecasting.windows import Forecaster, Windows
from common.machine import peak_mb
from common.results import Row

KEPT_BYTES = 250e6  # of the quantiles of a group's networks that are kept, not computed again
TOGETHER = 12  # series whose baselines are computed at once, however many origins there are


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


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The rows of a backtest, and the ensemble forecasts that it was asked to keep."""

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

    ensemble: Forecast | None


def held_out_rows(
    windows: Windows,
    groups: Sequence[ModelGroup],
    origins: np.ndarray,
    split: str,
    fitted: Fitted,
    pairs: Sequence[Pair] = (),
    kept: Sequence[ModelKey] | None = None,
) -> HeldOut:
    """Rows of every baseline, of every group and of the pairs at the given origins (N,).

    The mean forecasts of the groups named by `kept` are returned too, by default those of the
    test part of every group that is not brief.
    """
    if kept is None:
        kept = [group.key for group in groups if split == "test" and not group.brief]
    baseline = backtest_baselines(windows, origins, split, fitted)
    rows = list(baseline.rows)
    scores = dict(baseline.scores)
    ensembles = {}
    for group in groups:
        keep = group.key in kept
        result = backtest_group(windows, group, origins, split, baseline.reference, keep)
        rows += pooled(result.rows) if group.brief else result.rows
        scores |= result.scores
        if result.ensemble is not None:
            ensembles[group.key] = result.ensemble

    brief = {group.ensemble_key for group in groups if group.brief}
    for pair in pairs:
        entry = Entry(model=pair.one[0], variant=pair.variant, split=split)
        compared = compare(scores[pair.one], scores[pair.other], entry)
        rows += pooled(compared) if {pair.one, pair.other} & brief else compared
    return HeldOut(rows, ensembles)


# ---------------------------------------------------------------------------------- baselines


def backtest_baselines(
    windows: Windows, origins: np.ndarray, split: str, fitted: Fitted
) -> BaselineBacktest:
    """The backtest of every baseline, some series at a time: a forecast fills hundreds of MB."""
    references = []
    outcomes: dict[ModelKey, list[Outcomes]] = {}
    distributions = fitted.distributions(windows, origins)
    for part in series_parts(len(origins) * windows.horizon, len(windows.prices.series)):
        some = of_series(windows, part)
        ridge = None if fitted.ridge is None else fitted.ridge.of_series(part)
        of_part = {key: scaled.of_series(part) for key, scaled in distributions.items()}
        forecasts = baselines(some, origins, ridge, of_part)
        reference = Reference(
            some.past(origins),
            some.future(origins),
            some.prices.series,
            forecasts[ROLLING_WALK].distribution,
            windows.log,
            week_of(some.prices.times[origins]),
        )
        references.append(reference)
        for key, forecast in forecasts.items():
            outcomes.setdefault(key, []).append(outcomes_of(reference, forecast))

    reference = Reference.joined(references)
    rows = []
    scores = {}
    for (model, variant), parts in outcomes.items():
        of_model = measured(reference, Outcomes.joined(parts, axis=2))
        scores[model, variant] = combine(reference, [of_model])
        entry = Entry(model=model, variant=variant, split=split)
        rows += score_rows(scores[model, variant], entry)
    return BaselineBacktest(rows, scores, reference)


def series_parts(cells: int, series: int) -> list[slice]:
    """Parts of the series whose quantiles (cells, S, Q) are computed together."""
    if series <= TOGETHER:
        return [slice(0, series)]
    together = max(int(AT_ONCE_BYTES / (4 * cells * len(LEVELS))), 1)
    return [slice(first, first + together) for first in range(0, series, together)]


def of_series(windows: Windows, part: slice) -> Windows:
    """The windows of some of the series, closes alone."""
    prices = windows.prices
    values = np.ascontiguousarray(prices.values[:, part])
    some = dataclasses.replace(prices, values=values, series=prices.series[part], candles=None)
    return dataclasses.replace(windows, prices=some)


# ------------------------------------------------------------------------------------- groups


class Sweep:
    """The forecasts of a group at ascending origins, block by block: every seed's, their mean last.

    The origins are those to score (N,) and, before them, those whose outcomes recalibrate their
    forecasts. What was computed once is kept where it is small, else computed again.
    """

    def __init__(self, windows: Windows, forecasters: Sequence[Forecaster], scored: np.ndarray):
        self.windows = windows
        self.forecasters = forecasters
        self.origins = np.sort(windows.before(scored))  # (L,)
        self.scored = np.isin(self.origins, scored)  # (L,)
        series = len(windows.prices.series)
        self.step = at_once(windows.horizon, series)
        one = 4 * windows.horizon * series * len(LEVELS)  # bytes of an origin
        small = one * len(scored) * len(forecasters) < KEPT_BYTES
        self._kept: dict[int, list[Forecast]] | None = {} if small else None

    def blocks(self, scored: bool = False) -> list[slice]:
        """Parts of the origins; with `scored` only those that hold one to score."""
        starts = range(0, len(self.origins), self.step)
        every = [slice(start, start + self.step) for start in starts]
        return [block for block in every if not scored or self.scored[block].any()]

    def forecasts(self, block: slice) -> list[Forecast]:
        """The forecasts of every seed at the origins of a block; kept ones are given away."""
        if self._kept is not None and block.start in self._kept:
            return self._kept.pop(block.start)
        inputs = self.windows.inputs(self.origins[block])
        return [Forecast(*forecaster.predict(*inputs)) for forecaster in self.forecasters]

    def factors(self) -> np.ndarray:
        """Factors (F, K, L, H, S) of `width_factors` of every seed and of their mean."""
        sizes = []
        for block in self.blocks():
            forecasts = self.forecasts(block)
            truth = self.windows.changes(self.origins[block]).astype(np.float32)
            changes = [self._changes(forecast, block) for forecast in with_mean(forecasts)]
            sizes.append(np.stack([outcome_sizes(of_seed, truth) for of_seed in changes]))
            if self._kept is not None and self.scored[block].any():
                self._kept[block.start] = forecasts
        together = np.concatenate(sizes, 2)
        return np.stack([width_factors(of_seed, self.windows.rolling) for of_seed in together])

    def recalibrated(self, forecast: Forecast, factors: np.ndarray, block: slice) -> Forecast:
        """A forecast at the origins of a block with corrected quantiles; its point stays."""
        changes = widened(self._changes(forecast, block), factors)
        last = self._last(block)[:, None, :, None]
        quantiles = last * np.exp(changes) if self.windows.log else last + changes
        return Forecast(forecast.point, quantiles)

    def _changes(self, forecast: Forecast, block: slice) -> np.ndarray:
        return change(forecast.distribution, self._last(block), self.windows.log)

    def _last(self, block: slice) -> np.ndarray:
        """The last known prices (B, S), in the precision of the quantiles."""
        return self.windows.prices.values[self.origins[block]].astype(np.float32)


def with_mean(forecasts: Sequence[Forecast]) -> list[Forecast]:
    """The forecasts of all seeds, and their mean behind them."""
    point = mean_of([forecast.point for forecast in forecasts])
    quantiles = mean_of([forecast.distribution for forecast in forecasts])
    return [*forecasts, Forecast(point, quantiles)]


def backtest_group(
    windows: Windows,
    group: ModelGroup,
    origins: np.ndarray,
    split: str,
    reference: Reference,
    keep: bool,
) -> GroupBacktest:
    """Rows of a group's seeds, of their mean before recalibration (if not brief) and of their mean.

    One forecast of all origins fills hundreds of MB: block by block, the seeds are predicted,
    recalibrated by their own past and scored. With `keep` the recalibrated mean is returned.
    """
    memory = peak_mb()
    sweep = Sweep(windows, group.forecasters, origins)
    outcomes, kept = swept(sweep, reference, keep)
    *of_seeds, of_mean, of_raw_mean = [
        measured(reference, Outcomes.joined(parts, axis=0)) for parts in outcomes
    ]

    seeds = combine(reference, of_seeds)
    seconds = None if group.seconds is None else round(group.seconds, 2)
    single = Entry(
        model=group.model,
        variant=group.variant,
        split=split,
        params=group.params,
        seconds=seconds,
        peak_mb=memory,
    )
    rows = score_rows(seeds, single)

    # Their mean, before and after recalibration:
    params = group.params * len(of_seeds)
    mean = Entry(model=group.model, variant=group.ensemble, split=split, params=params)
    if not group.brief:
        raw = dataclasses.replace(mean, variant=group.raw_ensemble)
        rows += score_rows(combine(reference, [of_raw_mean]), raw)
    whole = combine(reference, [of_mean])
    rows += score_rows(whole, mean)
    return GroupBacktest(rows, {group.key: seeds, group.ensemble_key: whole}, kept)


def swept(
    sweep: Sweep, reference: Reference, keep: bool
) -> tuple[list[list[Outcomes]], Forecast | None]:
    """Outcomes of every seed, of their mean, and last of the mean as it was before recalibration.

    Each is a list of blocks of origins; with `keep` the recalibrated mean comes with them.
    """
    factors = sweep.factors()  # (F, K, L, H, S)
    outcomes: list[list[Outcomes]] = [[] for _ in range(len(factors) + 1)]
    kept = []
    first = 0  # number of the block's first origin among the reference's
    for block in sweep.blocks(scored=True):
        rows = np.flatnonzero(sweep.scored[block])
        forecasts = with_mean(sweep.forecasts(block))
        for number, forecast in enumerate(forecasts):
            corrected = sweep.recalibrated(forecast, factors[number][:, block], block).at(rows)
            outcomes[number].append(outcomes_of(reference, corrected, first))
        outcomes[-1].append(outcomes_of(reference, forecasts[-1].at(rows), first))
        kept += [corrected] if keep else []
        first += len(rows)
    return outcomes, Forecast.joined(kept) if keep else None


def pooled(rows: Sequence[Row]) -> list[Row]:
    """The rows over all series and steps."""
    return [row for row in rows if row.series is None and row.horizon is None]
