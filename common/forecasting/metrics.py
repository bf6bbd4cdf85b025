"""Scores of forecasts, their significance and the recalibration of quantiles.

Scores are of the change from the last known price: its logarithm (log return), or the plain
difference where a price may be negative.

Shape letters: N origins, H horizon, S series, Q quantile levels, M samples.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from common.forecasting.config import LEAST_OUTCOMES, RECALIBRATED_SHARES, ROLLING_HOURS
from common.results import Metric

LEVELS = np.arange(1, 100) / 100
SMALLEST_RATIO = 1e-6  # of a forecast to the last price: an additive forecast may be below zero
BLOCK = 256  # origins at a time: blocks that stay in the processor's cache
AT_ONCE_BYTES = 16e6  # of the quantiles computed at a time: larger arrays are slow to allocate
KEPT_LEVEL = 0.05  # of the test that a point forecast must pass to leave no change
ALIGNED = 512  # origins: blocks are multiples of those that the networks compute at once

NO_PRICE_WRONG = "0: every price right"
POOLED = "pooled over series and steps: geometric mean"
DEAREST = f"{NO_PRICE_WRONG}; pooled over series the dearest one dominates"
NARROWER = "of two forecasts with the right coverage the one with the narrower interval is better"
TWO_SIDED = "two-sided, with Holm's correction over series x steps"
METRICS = {
    "rmse": Metric(
        "log return",
        "lower",
        f"root of the mean squared error over origins; {NO_PRICE_WRONG}; compare with no change",
    ),
    "mae": Metric(
        "log return",
        "lower",
        f"mean absolute error over origins; {NO_PRICE_WRONG}; compare with no change",
    ),
    "rmse_usd": Metric("price unit (USD)", "lower", f"root of the mean squared error; {DEAREST}"),
    "mae_usd": Metric("price unit (USD)", "lower", f"mean absolute error; {DEAREST}"),
    "rmsse": Metric(
        "ratio",
        "lower",
        "RMSE divided by the RMSE of no change (the last price) at the same origins, not Hyndman's "
        f"scaled error; 1.0: no better than the last price; {POOLED}",
    ),
    "rmsse_se": Metric(
        "ratio",
        "lower",
        "standard error of rmsse over the forecast origins (delta method, Newey-West), that is "
        "over time and not over training seeds; 0: known exactly",
    ),
    "skill": Metric(
        "share",
        "higher",
        "1 - rmsse squared: share of no change's squared error that the forecast explains; 0: none",
    ),
    "direction_accuracy": Metric(
        "share",
        "higher",
        "share of changes whose sign was forecast, changes of 0 left out, and so are series and "
        "steps whose forecast is always no change; 0.5: a coin toss",
    ),
    "crps": Metric(
        "log return",
        "lower",
        "continuous ranked probability score, for a point forecast the absolute error; "
        "0: certain and right",
    ),
    "crps_ratio": Metric(
        "ratio",
        "lower",
        "CRPS divided by the CRPS of the random walk with rolling empirical residuals at the same "
        f"origins; 1.0: as good; {POOLED}",
    ),
    "crps_ratio_se": Metric(
        "ratio",
        "lower",
        "standard error of the pooled crps_ratio over time, by a bootstrap of calendar weeks; not "
        "over training seeds; 0: known exactly",
    ),
    "crps_against_se": Metric(
        "ratio",
        "lower",
        "standard error of the pooled crps_against over time, by a bootstrap of calendar weeks; "
        "0: known exactly",
    ),
    "coverage_80": Metric("share", "higher", "share of outcomes in the 80 % interval; ideal: 0.80"),
    "coverage_95": Metric("share", "higher", "share of outcomes in the 95 % interval; ideal: 0.95"),
    "width_80": Metric("log return", "lower", f"mean width of the 80 % interval; {NARROWER}"),
    "width_95": Metric("log return", "lower", f"mean width of the 95 % interval; {NARROWER}"),
    "p_rmse": Metric(
        "probability",
        "lower",
        f"p of the Diebold-Mariano test against no change on squared errors, {TWO_SIDED}",
    ),
    "p_crps": Metric(
        "probability",
        "lower",
        f"p of the Diebold-Mariano test against the rolling random walk on CRPS, {TWO_SIDED}",
    ),
    "rmse_against": Metric(
        "ratio",
        "lower",
        f"RMSE divided by that of the other forecast at the same origins; 1.0: equal; {POOLED}",
    ),
    "crps_against": Metric(
        "ratio",
        "lower",
        f"CRPS divided by that of the other forecast at the same origins; 1.0: equal; {POOLED}",
    ),
    "p_rmse_against": Metric(
        "probability",
        "lower",
        "p of the Diebold-Mariano test between the two forecasts on squared errors, "
        f"{TWO_SIDED}; pooled: of the mean loss in units of no change's",
    ),
    "p_crps_against": Metric(
        "probability",
        "lower",
        "p of the Diebold-Mariano test between the two forecasts on CRPS, "
        f"{TWO_SIDED}; pooled: of the mean loss in units of the rolling random walk's",
    ),
    "mse": Metric(
        "squared price unit (USD squared)",
        "lower",
        "mean squared error over all series and steps, as the course computed it: the dearest "
        f"series dominates; {NO_PRICE_WRONG}",
    ),
}


def metrics_info(log: bool = True) -> dict[str, Metric]:
    """What each metric means, for metrics.json; without the logarithm changes are in prices."""
    if log:
        return dict(METRICS)
    return {
        name: metric._replace(unit=metric.unit.replace("log return", "price unit (USD)"))
        for name, metric in METRICS.items()
    }


def at_once(horizon: int, series: int) -> int:
    """How many origins are forecast at a time, so that their quantiles stay below AT_ONCE_BYTES."""
    count = int(AT_ONCE_BYTES / (4 * horizon * series * len(LEVELS)))
    return max(count // ALIGNED * ALIGNED or count, 1)


# ------------------------------------------------------------------------------------- scores


def change(prices: np.ndarray, last: np.ndarray, log: bool = True) -> np.ndarray:
    """Changes of prices (N, H, S) or (N, H, S, Q) from the last ones (N, S).

    In log return, or in price units; a price that is forecast below zero counts as a loss of all
    but a millionth.
    """
    last = last[:, None, :, None] if prices.ndim == 4 else last[:, None]
    if not log:
        return prices - last
    ratio = prices / last
    np.maximum(ratio, SMALLEST_RATIO, out=ratio)
    return np.log(ratio, out=ratio)


def crps_quantiles(
    quantiles: np.ndarray, actual: np.ndarray, levels: np.ndarray = LEVELS
) -> np.ndarray:
    """CRPS (N, H, S) of quantiles (N, H, S, Q): twice the mean pinball loss over the levels.

    Gneiting & Ranjan 2011; with 99 levels about 1 % above the integral over all levels.
    """
    tau = levels.astype(np.float32)
    crps = np.empty(actual.shape)
    for start in range(0, len(actual), BLOCK):
        block = slice(start, start + BLOCK)
        error = (actual[block, ..., None] - quantiles[block]).astype(np.float32)  # (B, H, S, Q)
        negative = np.minimum(error, 0).sum(-1)  # (B, H, S)
        crps[block] = 2 * (error @ tau - negative) / len(tau)
    return crps


def interval(
    quantiles: np.ndarray, share: float, levels: np.ndarray = LEVELS
) -> tuple[np.ndarray, np.ndarray]:
    """Ends (...) of the central interval of quantiles (..., Q), linear between levels."""
    low = _quantile_at(quantiles, (1 - share) / 2, levels)
    high = _quantile_at(quantiles, (1 + share) / 2, levels)
    return low, high


def _quantile_at(quantiles: np.ndarray, level: float, levels: np.ndarray) -> np.ndarray:
    """The quantile (...) at a level, linear between the levels of (..., Q)."""
    right = int(np.clip(np.searchsorted(levels, level - 1e-12), 1, len(levels) - 1))
    part = (level - levels[right - 1]) / (levels[right] - levels[right - 1])
    return quantiles[..., right - 1] * (1 - part) + quantiles[..., right] * part


# ------------------------------------------------------------------------------- significance


def long_run_variance(series: np.ndarray, lags: int) -> np.ndarray:
    """Newey-West variance of the mean of (N, ...) along the first axis, Bartlett weights."""
    count = len(series)
    centred = series - series.mean(0)
    total = (centred**2).sum(0)
    for lag in range(1, min(lags, count - 1) + 1):
        weight = 1 - lag / (lags + 1)
        total = total + 2 * weight * (centred[lag:] * centred[:-lag]).sum(0)
    return np.maximum(total, 0) / count**2


def lags_for(count: int, horizon: int) -> int:
    """Newey-West lags: at least horizon - 1, and the rule 4 (N / 100)^(2/9)."""
    return max(horizon - 1, int(4 * (count / 100) ** (2 / 9)))


def diebold_mariano(loss: np.ndarray, reference: np.ndarray, horizon: int) -> tuple[float, float]:
    """Statistic (negative: the first loss is smaller) and two-sided p of equal losses (N,).

    With the correction of Harvey, Leybourne & Newbold (1997) and Student's t with N - 1 degrees of
    freedom; (0, 1) where the losses are identical.
    """
    difference = loss - reference
    count = len(difference)
    variance = float(long_run_variance(difference, lags_for(count, horizon)))
    if variance == 0:
        return 0.0, 1.0
    correction = np.sqrt((count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count)
    statistic = float(difference.mean() / np.sqrt(variance) * correction)
    return statistic, float(2 * stats.t.sf(abs(statistic), count - 1))


def kept_shares(location: np.ndarray, truth: np.ndarray, level: float = KEPT_LEVEL) -> np.ndarray:
    """Shares (H, S), 0 to 1, of locations (N, H, S) that are the best point forecast of (N, H, S).

    By least squares, one for all series of a step; 0 in a cell where a Diebold-Mariano test, with
    Holm's correction for all cells, does not find the squared errors smaller than no change's.
    """
    product = (location * truth).sum((0, 2))  # (H,)
    energy = (location**2).sum((0, 2))
    shares = np.clip(product / np.maximum(energy, 1e-12), 0, 1)
    loss = (shares[:, None] * location - truth) ** 2  # (N, H, S)
    unchanged = truth**2
    p = np.ones(truth.shape[1:])
    for h, s in np.ndindex(p.shape):
        statistic, of_cell = diebold_mariano(loss[:, h, s], unchanged[:, h, s], h + 1)
        p[h, s] = of_cell if statistic < 0 else 1
    return np.where(holm(p) <= level, shares[:, None], 0.0)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) adjusted p of a family of any shape."""
    flat = p.ravel()
    order = np.argsort(flat)
    stepped = flat[order] * np.arange(len(flat), 0, -1)
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted.reshape(p.shape)


# ------------------------------------------------------------------------------ recalibration


def recalibrate(
    quantiles: np.ndarray,
    actual: np.ndarray,
    window: int = ROLLING_HOURS,
    least: int = LEAST_OUTCOMES,
) -> np.ndarray:
    """Quantiles (N, H, S, Q) of changes, widened or narrowed about their median by past outcomes.

    The central 50, 80 and 95 % intervals get the width that would have held their share of the
    outcomes (N, H, S) of the `window` origins before; the levels between them are interpolated.
    Origins ascend: a forecast h steps ahead is corrected by outcomes of origins at least h steps
    before it, and stays as it is with fewer than `least` of them.
    """
    return widened(quantiles, width_factors(outcome_sizes(quantiles, actual), window, least))


def outcome_sizes(quantiles: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Distances (K, N, H, S) of outcomes (N, H, S) from the median, for the K intervals above.

    In units of half the interval's width, above or below the median: 1 is the interval's end.
    """
    median = quantiles[..., quantiles.shape[-1] // 2]
    sizes = []
    for share in RECALIBRATED_SHARES:
        low, high = interval(quantiles, share)
        half_width = np.where(actual >= median, high - median, median - low)
        sizes.append(np.abs(actual - median) / np.maximum(half_width, 1e-12))
    return np.stack(sizes)


def width_factors(sizes: np.ndarray, window: int, least: int = LEAST_OUTCOMES) -> np.ndarray:
    """Factors (K, N, H, S) by which each interval's width should have been multiplied.

    They are quantiles of the sizes (K, N, H, S) of the `window` outcomes known at each origin.
    """
    factors = np.ones_like(sizes)
    for share, of_share, factor in zip(RECALIBRATED_SHARES, sizes, factors, strict=True):
        for h in range(sizes.shape[2]):
            rolling = pd.DataFrame(of_share[:, h]).rolling(window, min_periods=least)
            factor[:, h] = rolling.quantile(share).shift(h + 1).fillna(1.0)
    return factors


def widened(quantiles: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Quantiles (N, H, S, Q) whose distances from the median are multiplied by the factors.

    `factors` (K, N, H, S) are those of the central intervals; a level between two of them has a
    factor between theirs, and a level beyond the last one has its factor.
    """
    shares = np.abs(2 * LEVELS - 1)  # (Q,): of the central interval that ends at each level
    position = np.interp(shares, RECALIBRATED_SHARES, range(len(factors)))
    left = np.minimum(position.astype(int), len(factors) - 2)
    right_weight = (position - left).astype(factors.dtype)
    left_weight = (left + 1 - position).astype(factors.dtype)

    middle = quantiles.shape[-1] // 2
    corrected = np.empty_like(quantiles)
    for start in range(0, len(quantiles), BLOCK):
        block = slice(start, start + BLOCK)
        by_share = np.moveaxis(factors[:, block], 0, -1)  # (B, H, S, K)
        factor = by_share[..., left] * left_weight + by_share[..., left + 1] * right_weight
        median = quantiles[block, ..., middle, None]
        corrected[block] = median + factor * (quantiles[block] - median)
        corrected[block].sort(-1)
    return corrected
