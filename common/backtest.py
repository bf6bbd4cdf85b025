"""The one place where a forecast is scored: baselines, metrics and significance over rolling origins.

A forecaster maps prices (N, C, S) to prices (N, H, S), or to quantiles of them (N, H, S, Q) at LEVELS. Scores are of the
change from the last known price: its logarithm (log return), or the plain difference where a price may be negative.

Shape letters: T times, N origins, C context, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.signal import lfilter

from common.windows import past

LEVELS = np.arange(1, 100) / 100
ROLLING = 1440  # steps that residuals and calibration look back: 60 days of hours
ROLLING_DAYS = 250  # in daily prices: a year of trading
Cell = tuple[
    str | None, int | None, Any
]  # series, horizon (None: over all) and which part of (H, S), or that part
RISKMETRICS = 0.94  # decay of the EWMA volatility (J. P. Morgan 1996); of 0.90 to 0.99 the best on the validation part too
EXPLAINED = {
    "rmse": ("log return", "lower", "0: every price right; compare with the row of no change"),
    "mae": ("log return", "lower", "0: every price right; compare with the row of no change"),
    "rmse_usd": (
        "price unit (USD)",
        "lower",
        "0: every price right; pooled over series it is ruled by the dearest one",
    ),
    "mae_usd": (
        "price unit (USD)",
        "lower",
        "0: every price right; pooled over series it is ruled by the dearest one",
    ),
    "rmsse": (
        "ratio",
        "lower",
        "RMSE over that of no change at the same origins; 1.0: no better than the last price; pooled: geometric mean",
    ),
    "rmsse_se": (
        "ratio",
        "lower",
        "standard error of rmsse over origins (delta method, Newey-West); 0: known exactly",
    ),
    "skill": (
        "share",
        "higher",
        "1 - rmsse squared: share of no change's squared error that is explained; 0: none",
    ),
    "direction_accuracy": (
        "share",
        "higher",
        "share of changes whose sign was named, changes of 0 left out; 0.5: a coin toss",
    ),
    "crps": (
        "log return",
        "lower",
        "continuous ranked probability score; for a point forecast it is the absolute error; 0: certain and right",
    ),
    "crps_ratio": (
        "ratio",
        "lower",
        "CRPS over that of the random walk with rolling empirical residuals; 1.0: as good; pooled: geometric mean",
    ),
    "coverage_80": ("share", "higher", "share of outcomes inside the 80 % interval; 0.80 is right"),
    "coverage_95": ("share", "higher", "share of outcomes inside the 95 % interval; 0.95 is right"),
    "width_80": (
        "log return",
        "lower",
        "mean width of the 80 % interval; of two with right coverage the narrower is better",
    ),
    "width_95": (
        "log return",
        "lower",
        "mean width of the 95 % interval; of two with right coverage the narrower is better",
    ),
    "p_rmse": (
        "probability",
        "lower",
        "Diebold-Mariano against no change on squared errors, two-sided, Holm over series x horizons",
    ),
    "p_crps": (
        "probability",
        "lower",
        "Diebold-Mariano against the rolling random walk on CRPS, two-sided, Holm over series x horizons",
    ),
    "rmse_against": (
        "ratio",
        "lower",
        "RMSE over that of the other forecast at the same origins; 1.0: equal; pooled: geometric mean",
    ),
    "crps_against": (
        "ratio",
        "lower",
        "CRPS over that of the other forecast at the same origins; 1.0: equal; pooled: geometric mean",
    ),
    "p_rmse_against": (
        "probability",
        "lower",
        "Diebold-Mariano between the two on squared errors, two-sided; Holm over series x horizons, pooled: of the losses over no change's",
    ),
    "p_crps_against": (
        "probability",
        "lower",
        "Diebold-Mariano between the two on CRPS, two-sided; Holm over series x horizons, pooled: of the losses over the rolling random walk's",
    ),
    "mse": (
        "squared price unit (USD squared)",
        "lower",
        "over all series and steps, as the course counted it: ruled by the dearest series; 0: every price right",
    ),
}


def metrics_info(log: bool = True) -> dict[str, dict[str, str]]:
    """What each metric means, for metrics.json; without the logarithm changes are told in price units."""
    return {
        name: {
            "unit": unit if log else unit.replace("log return", "price unit (USD)"),
            "better": better,
            "reference": text,
        }
        for name, (unit, better, text) in EXPLAINED.items()
    }


# --------------------------------------------------------------------------------------------------------------- metrics


def change(prices: np.ndarray, last: np.ndarray, log: bool = True) -> np.ndarray:
    """Change of prices (N, H, S) or (N, H, S, Q) from the last ones (N, S), in log return or price units."""
    last = last[:, None, :, None] if prices.ndim == 4 else last[:, None]
    if not log:
        return prices - last
    ratio = prices / last
    np.maximum(
        ratio, 1e-6, out=ratio
    )  # an additive forecast may tell prices below zero: all but a millionth lost
    return np.log(ratio, out=ratio)


def crps_quantiles(
    quantiles: np.ndarray, actual: np.ndarray, levels: np.ndarray = LEVELS
) -> np.ndarray:
    """CRPS (N, H, S) of quantiles (N, H, S, Q): twice the mean pinball loss over the levels (Gneiting & Ranjan
    2011), about 1 % above the integral over all levels."""
    tau, found = levels.astype(np.float32), np.empty(actual.shape)
    for start in range(0, len(actual), 256):  # blocks that stay in the cache
        error = (actual[start : start + 256, ..., None] - quantiles[start : start + 256]).astype(
            np.float32
        )
        negative = np.minimum(error, 0).sum(-1)
        found[start : start + 256] = 2 * (error @ tau - negative) / len(tau)
    return found


def crps_samples(samples: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """CRPS (...) of samples (..., M): E|X - y| - E|X - X'| / 2, the second mean over all M^2 pairs (Gneiting & Raftery 2007, eq. 21)."""
    ordered, count = np.sort(samples, -1), samples.shape[-1]
    weights = (
        2 * np.arange(1, count + 1) - count - 1
    ) / count**2  # sum over pairs of |x_i - x_j| / (2 M^2)
    return np.abs(samples - actual[..., None]).mean(-1) - ordered @ weights


def interval(
    quantiles: np.ndarray, share: float, levels: np.ndarray = LEVELS
) -> tuple[np.ndarray, np.ndarray]:
    """Ends (...) of the central interval from quantiles (..., Q), linear between levels."""

    def at(level: float) -> np.ndarray:
        right = int(np.clip(np.searchsorted(levels, level - 1e-12), 1, len(levels) - 1))
        part = (level - levels[right - 1]) / (levels[right] - levels[right - 1])
        return quantiles[..., right - 1] * (1 - part) + quantiles[..., right] * part

    return at((1 - share) / 2), at((1 + share) / 2)


def long_run_variance(series: np.ndarray, lags: int) -> np.ndarray:
    """Newey-West variance of the mean of (N, ...) along the first axis, Bartlett weights."""
    centred, count = series - series.mean(0), len(series)
    total = (centred**2).sum(0)
    for lag in range(1, min(lags, count - 1) + 1):
        total = total + 2 * (1 - lag / (lags + 1)) * (centred[lag:] * centred[:-lag]).sum(0)
    return np.maximum(total, 0) / count**2


def lags_for(count: int, horizon: int) -> int:
    """Newey-West lags: at least horizon - 1, and the rule 4 (N / 100)^(2/9)."""
    return max(horizon - 1, int(4 * (count / 100) ** (2 / 9)))


def diebold_mariano(loss: np.ndarray, reference: np.ndarray, horizon: int) -> tuple[float, float]:
    """Statistic (negative: the first loss is smaller) and two-sided p of equal losses (N,), with the correction of
    Harvey, Leybourne & Newbold (1997) and Student's t with N - 1 degrees; (0, 1) where the losses are identical."""
    difference = loss - reference
    count, variance = (
        len(difference),
        float(long_run_variance(difference, lags_for(len(difference), horizon))),
    )
    if variance == 0:
        return 0.0, 1.0
    correction = np.sqrt((count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count)
    statistic = float(difference.mean() / np.sqrt(variance) * correction)
    return statistic, float(2 * stats.t.sf(abs(statistic), count - 1))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) adjusted p of a family of any shape."""
    flat = p.ravel()
    order = np.argsort(flat)
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(
        np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1)), 1
    )
    return adjusted.reshape(p.shape)


# ------------------------------------------------------------------------------------------------------------- baselines


def no_change(past: np.ndarray, horizon: int) -> np.ndarray:
    """The last price (N, H, S)."""
    return np.repeat(past[:, -1:], horizon, axis=1)


def drift(past: np.ndarray, horizon: int) -> np.ndarray:
    """The line through the first and the last price of the context (N, H, S)."""
    slope = (past[:, -1:] - past[:, :1]) / (past.shape[1] - 1)
    return past[:, -1:] + slope * np.arange(1, horizon + 1)[:, None]


def seasonal_naive(past: np.ndarray, horizon: int, season: int = 24) -> np.ndarray:
    """The price one season before (N, H, S); needs horizon <= season <= context."""
    return past[:, past.shape[1] - season :][:, :horizon]


class RidgeWindow:
    """NLinear (Zeng et al. 2023) in closed form: changes from the last price, linear in the context's changes from it, one
    weight matrix (C - 1, H) a series, ridge strength chosen on validation among `alphas` (relative to the Gram's trace)."""

    alphas = np.logspace(-4, 3, 15)

    def __init__(self, log: bool = True):
        self.log = log

    def _inputs(self, past: np.ndarray) -> np.ndarray:
        return change(past[:, :-1], past[:, -1], self.log)  # (N, C - 1, S)

    def fit(
        self,
        past: np.ndarray,
        future: np.ndarray,
        past_validation: np.ndarray,
        future_validation: np.ndarray,
    ) -> RidgeWindow:
        """Prices (N, C, S), (N, H, S) of the training part and of the validation part."""
        x, y = self._inputs(past), change(future, past[:, -1], self.log)
        x_val, y_val = (
            self._inputs(past_validation),
            change(future_validation, past_validation[:, -1], self.log),
        )
        self.weights, self.alpha = [], []
        for s in range(x.shape[2]):
            variance, axes = np.linalg.eigh(x[..., s].T @ x[..., s])
            right = axes.T @ (x[..., s].T @ y[..., s])
            strengths = self.alphas * variance.mean()
            tries = [axes @ (right / (variance + strength)[:, None]) for strength in strengths]
            errors = [((x_val[..., s] @ weights - y_val[..., s]) ** 2).mean() for weights in tries]
            self.weights.append(tries[int(np.argmin(errors))])
            self.alpha.append(float(self.alphas[int(np.argmin(errors))]))
        return self

    def predict(self, past: np.ndarray) -> np.ndarray:
        """Prices (N, H, S)."""
        found = np.stack(
            [self._inputs(past)[..., s] @ weights for s, weights in enumerate(self.weights)], -1
        )
        return np.exp(found) * past[:, -1:] if self.log else found + past[:, -1:]


def ewma_volatility(values: np.ndarray, decay: float, log: bool = True) -> np.ndarray:
    """Root of the exponentially weighted mean of squared one-step changes up to and including each row: (T, S)."""
    steps = np.diff(np.log(values) if log else values, axis=0) ** 2
    start = steps[:1]  # the first square stands for all before it
    found, _ = lfilter([1 - decay], [1, -decay], steps, axis=0, zi=decay * start)
    return np.sqrt(np.concatenate([start, found])) + 1e-12


def rolling_quantiles(
    values: np.ndarray,
    contiguous: np.ndarray,
    at: np.ndarray,
    horizon: int,
    window: int = ROLLING,
    decay: float | None = None,
    log: bool = True,
) -> np.ndarray:
    """Random walk with empirical residuals: quantiles (N, H, S, Q) of prices from the h-step changes of the `window` steps
    before each origin (60 days of hours); with `decay` those changes are first divided by the EWMA volatility at their own
    start and multiplied by that at the origin. Changes over a gap are left out; a short history gives fewer residuals."""
    path, scale = (np.log(values) if log else values), np.ones_like(values)
    if decay is not None:
        scale = ewma_volatility(values, decay, log)
    gaps = np.concatenate([[0], np.cumsum(~contiguous)])
    found = np.empty((len(at), horizon, values.shape[1], len(LEVELS)), np.float32)
    for h in range(1, horizon + 1):
        moves = (path[h:] - path[:-h]) / scale[:-h]
        moves[gaps[h:] != gaps[:-h]] = np.nan
        moves = np.concatenate([np.full((window + h, values.shape[1]), np.nan), moves]).astype(
            np.float32
        )  # row i + window: ends at i
        for s in range(values.shape[1]):
            view = np.lib.stride_tricks.sliding_window_view(moves[:, s], window)
            for start in range(0, len(at), 512):
                rows = at[start : start + 512]
                ordered = np.sort(view[rows + 1], axis=1)  # nan come last
                count = (~np.isnan(ordered)).sum(1)
                place = LEVELS * (np.maximum(count, 1)[:, None] - 1)
                low = place.astype(int)
                high = np.minimum(low + 1, np.maximum(count, 1)[:, None] - 1)
                below, above = (
                    np.take_along_axis(ordered, low, 1),
                    np.take_along_axis(ordered, high, 1),
                )
                found[start : start + 512, h - 1, s] = (
                    below + (place - low) * (above - below)
                ) * scale[rows, s, None]
    last = values[at][:, None, :, None]
    return last * np.exp(found) if log else last + found


def recalibrate(
    quantiles: np.ndarray, actual: np.ndarray, window: int = ROLLING, least: int = 200
) -> np.ndarray:
    """Quantiles (N, H, S, Q) of changes at ascending origins, widened or narrowed about their median by how the central 50, 80
    and 95 % intervals did over the `window` origins before: each interval gets the width that would have held its share.

    A forecast h steps ahead is judged by outcomes (N, H, S) of origins at least h before; with fewer than `least` it stays.
    """
    shares, middle = (0.5, 0.8, 0.95), quantiles.shape[-1] // 2
    median, factors = quantiles[..., middle], []
    for share in shares:
        low, high = interval(quantiles, share)
        half = np.where(actual >= median, high - median, median - low)
        size = np.abs(actual - median) / np.maximum(
            half, 1e-12
        )  # 1: the outcome is the end of the interval
        factor = np.ones_like(size)
        for h in range(size.shape[1]):
            known = (
                pd.DataFrame(size[:, h])
                .rolling(window, min_periods=least)
                .quantile(share)
                .shift(h + 1)
            )
            factor[:, h] = known.fillna(1.0)
        factors.append(factor)
    found = np.empty_like(quantiles)
    for number, level in enumerate(LEVELS):
        place = np.interp(abs(2 * level - 1), shares, range(len(shares)))
        left = min(int(place), len(shares) - 2)
        factor = factors[left] * (left + 1 - place) + factors[left + 1] * (place - left)
        found[..., number] = median + factor * (quantiles[..., number] - median)
    return np.sort(found, -1)


# ----------------------------------------------------------------------------------------------------------------- table


class Backtest:
    """Scores forecasts of one part's origins against what came, as rows of metrics.json.

    `past` (N, C, S) and `actual` (N, H, S) are prices; `rolling` (N, H, S, Q) the quantiles of the random walk with rolling
    empirical residuals, whose CRPS is the reference of crps_ratio.
    """

    KEYS = (
        "rmsse",
        "rmsse_se",
        "crps_ratio",
        "coverage_80",
        "coverage_95",
        "p_rmse",
        "p_crps",
    )  # also by series and horizon

    def __init__(
        self,
        past: np.ndarray,
        actual: np.ndarray,
        series: tuple[str, ...],
        rolling: np.ndarray,
        log: bool = True,
    ):
        self.last, self.actual, self.series, self.log = past[:, -1], actual, series, log
        self.truth = change(actual, self.last, log)
        self.naive = self.truth**2
        self.rolling_crps = crps_quantiles(change(rolling, self.last, log), self.truth)
        self.losses: dict[
            tuple[str, str], tuple[np.ndarray, np.ndarray]
        ] = {}  # squared errors and CRPS (N, H, S), mean of the seeds

    def measure(
        self, point: np.ndarray, quantiles: np.ndarray | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Metrics (H, S) of a forecast, and its squared errors and CRPS (N, H, S)."""
        error = change(point, self.last, self.log) - self.truth
        squared, absolute, dollars = error**2, np.abs(error), point - self.actual
        moved = self.truth != 0
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # a constant series has no scale: nan, and no row
            ratio = np.sqrt(squared.mean(0) / self.naive.mean(0))
            named = ((np.sign(error + self.truth) == np.sign(self.truth)) & moved).sum(
                0
            ) / moved.sum(0)
            named = np.where(
                np.any(error + self.truth != 0), named, np.nan
            )  # no change names no sign
        found = {
            "rmse": np.sqrt(squared.mean(0)),
            "mae": absolute.mean(0),
            "rmse_usd": np.sqrt((dollars**2).mean(0)),
            "mae_usd": np.abs(dollars).mean(0),
            "rmsse": ratio,
            "skill": 1 - ratio**2,
            "direction_accuracy": named,
        }
        crps = absolute
        if quantiles is not None:
            moves = change(quantiles, self.last, self.log)
            crps = crps_quantiles(moves, self.truth)
            for share in (80, 95):
                low, high = interval(moves, share / 100)
                found[f"coverage_{share}"] = ((self.truth >= low) & (self.truth <= high)).mean(0)
                found[f"width_{share}"] = (high - low).mean(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found |= {"crps": crps.mean(0), "crps_ratio": crps.mean(0) / self.rolling_crps.mean(0)}
        return found, squared, crps

    def tests(self, squared: np.ndarray, crps: np.ndarray) -> dict[str, np.ndarray]:
        """Standard error of rmsse, and Holm-adjusted Diebold-Mariano p, all (H, S), from losses (N, H, S)."""
        horizons, series = squared.shape[1:]
        p = {"p_rmse": np.ones((horizons, series)), "p_crps": np.ones((horizons, series))}
        spread = np.zeros((horizons, series))
        for h in range(horizons):
            ratio = squared[:, h].mean(0) / np.maximum(self.naive[:, h].mean(0), 1e-300)
            excess = squared[:, h] - ratio * self.naive[:, h]
            variance = long_run_variance(excess, lags_for(len(excess), h + 1))
            spread[h] = np.sqrt(variance) / (
                2 * np.sqrt(np.maximum(ratio, 1e-12)) * np.maximum(self.naive[:, h].mean(0), 1e-300)
            )
            for s in range(series):
                p["p_rmse"][h, s] = diebold_mariano(squared[:, h, s], self.naive[:, h, s], h + 1)[1]
                p["p_crps"][h, s] = diebold_mariano(
                    crps[:, h, s], self.rolling_crps[:, h, s], h + 1
                )[1]
        return {"rmsse_se": spread} | {name: holm(values) for name, values in p.items()}

    @staticmethod
    def _pool(name: str, cells: np.ndarray) -> float:
        """One figure of cells (H, S) or a slice of them."""
        if name in ("rmse", "rmse_usd"):
            return float(np.sqrt(np.mean(cells**2)))
        if name in ("rmsse", "crps_ratio"):
            return float(np.exp(np.mean(np.log(cells))))
        if name == "skill":
            return float(1 - np.exp(np.mean(np.log(1 - cells))))
        return float(np.mean(cells))

    def rows(
        self,
        model: str,
        variant: str,
        forecasts: Iterable[tuple[np.ndarray, np.ndarray | None]],
        *,
        protocol: str = "held-out",
        split: str = "test",
        params: int | None = None,
        seconds: float | None = None,
        peak_mb: float | None = None,
    ) -> list[dict[str, Any]]:
        """Rows for the forecasts (point (N, H, S), quantiles (N, H, S, Q) or None) of one model's seeds: pooled, by series,
        by horizon, and on the test part the KEYS by both. Significance is that of the losses averaged over seeds."""
        tables: list[dict[str, np.ndarray]] = []
        squared: Any = 0.0  # arrays from the first seed on
        crps: Any = 0.0
        for point, quantiles in forecasts:
            table, *of_seed = self.measure(point, quantiles)
            tables.append(table)
            squared, crps = squared + of_seed[0], crps + of_seed[1]
        self.losses[model, variant] = losses = (squared / len(tables), crps / len(tables))
        tested = self.tests(*losses)
        shared = {
            "protocol": protocol,
            "split": split,
            "model": model,
            "variant": variant,
            "n_seeds": len(tables),
            "params": params,
            "seconds": seconds,
            "peak_mb": peak_mb,
        }
        horizons = range(1, self.truth.shape[1] + 1)
        cells: list[Cell] = [(None, None, np.s_[:, :])]
        cells += [(name, None, np.s_[:, [s]]) for s, name in enumerate(self.series)] + [
            (None, h, np.s_[[h - 1], :]) for h in horizons
        ]
        both: list[Cell] = [
            (name, h, np.s_[[h - 1], [s]]) for s, name in enumerate(self.series) for h in horizons
        ]
        found: list[dict[str, Any]] = []
        for metric in (*tables[0], *tested):
            of_test = metric in tested
            for name, h, place in (
                both * (split == "test")
                if of_test
                else cells + both * (metric in self.KEYS and split == "test")
            ):
                values = np.array(
                    [
                        self._pool(metric, table[metric][place])
                        for table in ([tested] if of_test else tables)
                    ]
                )
                if np.isfinite(values).all():
                    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
                    found.append(
                        {
                            **shared,
                            "metric": metric,
                            "value": float(values.mean()),
                            "std": deviation,
                            "series": name,
                            "horizon": h,
                        }
                    )
        return found

    def against(
        self,
        one: tuple[str, str],
        other: tuple[str, str],
        *,
        protocol: str = "held-out",
        split: str = "test",
    ) -> list[dict[str, Any]]:
        """Rows that set one (model, variant) beside another, both already given to `rows`: ratios pooled, by series, by horizon and
        by both; the Diebold-Mariano p by both (Holm) and of the loss pooled over series and steps, each in units of its reference."""
        horizons, series = self.truth.shape[1:]
        shared = {
            "protocol": protocol,
            "split": split,
            "model": one[0],
            "variant": f"{one[1]} against {other[0]}, {other[1]}",
            "n_seeds": 1,
        }
        found: list[dict[str, Any]] = []
        for number, (metric, scale) in enumerate(
            (("rmse_against", self.naive), ("crps_against", self.rolling_crps))
        ):
            mine, its = self.losses[one][number], self.losses[other][number]
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = mine.mean(0) / its.mean(0)  # (H, S)
            ratio = np.sqrt(ratio) if metric == "rmse_against" else ratio
            cells: list[Cell] = [(None, None, ratio)]
            cells += [(name, None, ratio[:, s]) for s, name in enumerate(self.series)]
            cells += [(None, h + 1, ratio[h]) for h in range(horizons)]
            cells += [
                (name, h + 1, ratio[h, s])
                for s, name in enumerate(self.series)
                for h in range(horizons)
            ]
            found += [
                {
                    **shared,
                    "metric": metric,
                    "series": name,
                    "horizon": h,
                    "value": float(np.exp(np.mean(np.log(part)))),
                }
                for name, h, part in cells
            ]
            p = holm(
                np.array(
                    [
                        [
                            diebold_mariano(mine[:, h, s], its[:, h, s], h + 1)[1]
                            for s in range(series)
                        ]
                        for h in range(horizons)
                    ]
                )
            )
            unit = np.where(
                (mean := scale.mean(0)) > 0, mean, np.inf
            )  # a series that never moves says nothing
            whole = diebold_mariano(
                (mine / unit).mean((1, 2)), (its / unit).mean((1, 2)), horizons
            )[1]
            found.append(
                {**shared, "metric": f"p_{metric}", "series": None, "horizon": None, "value": whole}
            )
            found += [
                {
                    **shared,
                    "metric": f"p_{metric}",
                    "series": name,
                    "horizon": h + 1,
                    "value": float(p[h, s]),
                }
                for s, name in enumerate(self.series)
                for h in range(horizons)
            ]
        return [row for row in found if np.isfinite(row["value"])]


def baselines(
    values: np.ndarray,
    contiguous: np.ndarray,
    at: np.ndarray,
    context: int,
    horizon: int,
    ridge: RidgeWindow | None,
    log: bool = True,
    rolling: int = ROLLING,
) -> Iterable[tuple[str, str, np.ndarray, np.ndarray | None]]:
    """The forecasts that stand in every table: (model, variant, point (N, H, S), quantiles (N, H, S, Q) or None), one by one.

    The point of a distribution is no change. `ridge` is a fitted RidgeWindow, or None to leave it out.
    """
    seen = past(values, at, context)
    still = no_change(seen, horizon)
    yield "no change", "last price", still, None
    yield "drift", "first to last of the context", drift(seen, horizon), None
    if context >= 24 >= horizon:
        yield "seasonal naive", "24 steps before", seasonal_naive(seen, horizon), None
    if ridge is not None:
        yield "NLinear", "ridge", ridge.predict(seen), None
    yield (
        "random walk",
        "rolling residuals",
        still,
        rolling_quantiles(values, contiguous, at, horizon, rolling, log=log),
    )
    yield (
        "random walk",
        "EWMA-scaled residuals",
        still,
        rolling_quantiles(values, contiguous, at, horizon, rolling, RISKMETRICS, log),
    )
