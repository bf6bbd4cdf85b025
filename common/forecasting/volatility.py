"""log-HAR-t: the linear model of volatility, with the clock, that every network is measured by.

Corsi 2009 (HAR), here on logarithms and with Student's t, as in Bitcoin's realised volatility
(arXiv 2508.15922). The scale of the change h steps ahead is linear, in logarithms, in exponentially
weighted means of the window's absolute changes at several speeds, times a profile of the clock:

    log scale = bias + weights . log means + log sqrt(mean of profile^2 over the h steps)

Where the prices have candles, the means of Garman & Klass' volatility of the steps stand beside
those of absolute changes: a range tells more about a step than its change alone.

Its quantiles are the scale times those of the training part's changes over theirs, made symmetric:
a training part with a trend would put it into every forecast.

Shape letters: N windows, C context, T = C - 1 changes in it, H horizon, S series, D speeds,
F features, K bins of the clock, Q quantile levels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import optimize, special
from scipy.signal import lfilter

from common.forecasting.candles import range_volatility
from common.forecasting.metrics import LEVELS, at_once
from common.forecasting.sessions import DAY, WEEK
from common.forecasting.windows import Windows, ewma_weights

HALF_LIVES = (1.0, 2.5, 6.0, 15.0, 36.0, 90.0)  # steps; those longer than the window are left out
SLOW = 168  # half-life of the volatility that the profile of the clock is relative to
SHRINKAGE = 50  # changes in a bin that each series is mixed with all, and all with no clock
LARGEST = 30.0  # a change counts up to this many usual ones
SMALLEST = 1e-4  # of the usual change: the logarithm of a window that rests
RESTING = 1e-2  # of the usual change: what a step without any counts as in the likelihood
PENALTY = 300.0  # of the squared distance of weights from the expected ones, in windows
STILL = 1e-6  # change of a price that never moves
HOURS = 48  # bins of the clock: hours of weekdays, hours of weekends
WEEKDAYS = 7
WEEK_HOURS = 168  # bins of a clock that any other can be told in


def clock_bins(step: np.timedelta64) -> int:
    """How many bins the clock of a history has: K."""
    if step >= WEEK:
        return 1
    return WEEKDAYS if step >= DAY else HOURS


def clock(times: np.ndarray, bins: int) -> np.ndarray:
    """The bin of the clock that each time falls into, int64 of the shape of times."""
    hours = times.astype("datetime64[h]").astype(np.int64)
    weekday = (hours // 24 + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    if bins == WEEK_HOURS:
        return hours % 24 + 24 * weekday
    if bins == HOURS:
        return hours % 24 + 24 * (weekday >= 5)
    return weekday if bins == WEEKDAYS else np.zeros_like(hours)


def bins_of_a_week(bins: int) -> np.ndarray:
    """The bin of a clock that each hour of a week is in, from Monday on: int64 (WEEK_HOURS,)."""
    monday = np.datetime64("1970-01-05T00", "h")
    return clock(monday + np.arange(WEEK_HOURS), bins)


@dataclasses.dataclass(frozen=True)
class LogHar:
    """A fitted log-HAR-t of S series for windows of C + H rows; all arrays are float.

    `profile` (K, S) has the mean 1; `usual` (S,) is the usual change over it; `mean` and
    `deviation` (S, F) standardise the features; `weights` (H, S, F) and `bias` (H, S) make the
    logarithm of the scale; `shape` (H, S, Q) are the quantiles of a change over its scale.
    `candles` says that it reads the ranges of the steps too.
    """

    profile: np.ndarray
    usual: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    shape: np.ndarray
    log: bool = True
    candles: bool = False

    @classmethod
    def blank(
        cls,
        series: int,
        context: int,
        horizon: int,
        bins: int,
        log: bool = True,
        candles: bool = False,
    ) -> LogHar:
        """One of the right shapes that knows nothing: every scale is 1."""
        speeds = len(half_lives(context - 1)) * (2 if candles else 1)
        features = speeds * (2 if series > 1 else 1)
        return cls(
            profile=np.ones((bins, series)),
            usual=np.ones(series),
            mean=np.zeros((series, features)),
            deviation=np.ones((series, features)),
            weights=np.zeros((horizon, series, features)),
            bias=np.zeros((horizon, series)),
            shape=np.zeros((horizon, series, len(LEVELS))),
            log=log,
            candles=candles,
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that is fitted, by name."""
        return {name: getattr(self, name) for name in FITTED}

    def by_hour_of_week(self) -> LogHar:
        """The same model with a profile of WEEK_HOURS bins, a shape that all steps share."""
        bin_of = bins_of_a_week(len(self.profile))
        return dataclasses.replace(self, profile=self.profile[bin_of])

    # -- scales

    def features(
        self, past: np.ndarray, times: np.ndarray, candles: np.ndarray | None = None
    ) -> np.ndarray:
        """What the scale is linear in: (N, S, F) of prices (N, C, S) at times (N, C).

        The own series' mean changes at each speed, then its mean ranges where it reads candles
        (N, C, 3, S), and behind them the means of both over all series.
        """
        path = np.log(past) if self.log else past
        bins = clock(times[:, 1:], len(self.profile))  # (N, T)
        profile = self.profile[bins]  # (N, T, S)
        own = self.log_means(np.abs(np.diff(path, axis=1)) / profile)  # (N, S, D)
        if self.candles:
            if candles is None:
                raise ValueError("a log-HAR-t with candles was given closes alone")
            ranges = range_volatility(past, candles, self.log) / profile
            own = np.concatenate([own, self.log_means(ranges)], -1)  # (N, S, 2 D)
        if own.shape[1] == 1:
            return own
        market = np.broadcast_to(own.mean(1, keepdims=True), own.shape)
        return np.concatenate([own, market], -1)

    def log_means(self, sizes: np.ndarray) -> np.ndarray:
        """Logarithms (N, S, D) of the means of sizes (N, T, S) at each speed."""
        sizes = np.minimum(sizes, LARGEST * self.usual)
        means = np.einsum("dt,nts->nsd", speed_weights(sizes.shape[1]), sizes, optimize=True)
        return np.log(means + SMALLEST * self.usual[:, None])

    def clock_ahead(self, times: np.ndarray) -> np.ndarray:
        """Logarithm (N, H, S) of the profile's root mean square over the steps ahead (N, H)."""
        squares = self.profile[clock(times, len(self.profile))] ** 2  # (N, H, S)
        steps = np.arange(1, times.shape[1] + 1)[:, None]
        return 0.5 * np.log(np.cumsum(squares, 1) / steps)

    def scale(
        self, past: np.ndarray, times: np.ndarray, candles: np.ndarray | None = None
    ) -> np.ndarray:
        """Scale (N, H, S) of the changes after prices (N, C, S), at times (N, C + H).

        Candles (N, C, 3, S) are needed where it reads them.
        """
        context = past.shape[1]
        features = self.features(past, times[:, :context], candles)
        features = (features - self.mean) / self.deviation
        linear = np.einsum("nsf,hsf->nhs", features, self.weights, optimize=True)
        return np.exp(linear + self.bias + self.clock_ahead(times[:, context:]))


OPTIONS = ("log", "candles")
FITTED = tuple(field.name for field in dataclasses.fields(LogHar) if field.name not in OPTIONS)


def half_lives(steps: int) -> tuple[float, ...]:
    """The speeds that windows of so many changes have."""
    return tuple(life for life in HALF_LIVES if life <= max(steps, 1))


def speed_weights(steps: int) -> np.ndarray:
    """Weights (D, T) of the means of T changes at the last of them, one row for each speed."""
    last = np.array([steps - 1])
    decays = [0.5 ** (1 / life) for life in half_lives(steps)]
    return np.concatenate([ewma_weights(steps, decay, last) for decay in decays])


# ---------------------------------------------------------------------------------------- fit


@dataclasses.dataclass(frozen=True)
class Prior:
    """What a log-HAR-t of another market says of a new one: means over its series.

    `weights` (H, F) are of features as they are, not standardised; `profile` (K,) is the clock's.
    """

    weights: np.ndarray
    profile: np.ndarray

    @classmethod
    def of(cls, har: LogHar, bins: int) -> Prior:
        """The prior for a market whose clock has K bins; that of `har` has those of a week."""
        bin_of = bins_of_a_week(bins)
        hours = har.profile.mean(1)  # (WEEK_HOURS,)
        profile = np.array([hours[bin_of == number].mean() for number in range(bins)])
        return cls((har.weights / har.deviation).mean(1), profile / hours.mean())


def fit_log_har(
    windows: Windows, origins: np.ndarray | None = None, prior: Prior | None = None
) -> LogHar:
    """The log-HAR-t of the training part, by maximum likelihood, one step and series at a time.

    `origins` are the last of the training part's, where not all of it is known. A few windows leave
    the weights near those of the `prior`; without one, near the mean of the own speeds.
    """
    train = windows.parts.train if origins is None else origins
    prices = windows.prices
    changes = windows.changes(train)  # (N, H, S)
    horizon, series = changes.shape[1:]
    bins = clock_bins(prices.step)
    candles = prices.candles is not None
    model = LogHar.blank(series, windows.context, horizon, bins, windows.log, candles)
    first = 0 if origins is None else int(train[0]) - windows.context + 1
    known = slice(first, windows.parts.train_end)
    profile, usual = clock_profile(
        prices.values[known],
        prices.times[known],
        np.ones(bins) if prior is None else prior.profile,
        windows.log,
    )
    model = dataclasses.replace(model, profile=profile, usual=usual)

    features, offset = read_features(model, windows, train)
    mean = features.mean(0)
    deviation = np.where(features.std(0) > 0, features.std(0), 1)
    features = (features - mean) / deviation

    # One likelihood for each step and series; without a prior the own speeds' mean is expected:
    speeds = len(half_lives(windows.context - 1)) * (2 if candles else 1)
    if prior is None:
        own = np.where(np.arange(features.shape[2]) < speeds, deviation / speeds, 0)  # (S, F)
        expected = np.broadcast_to(own, model.weights.shape)
    else:
        expected = prior.weights[:, None] * deviation  # (H, S, F)
    weights = np.zeros_like(model.weights)
    bias = np.zeros_like(model.bias)
    for h in range(horizon):
        for s in range(series):
            weights[h, s], bias[h, s] = student_t_scale(
                features[:, s], offset[:, h, s], changes[:, h, s], expected[h, s]
            )

    linear = np.einsum("nsf,hsf->nhs", features, weights, optimize=True)
    scale = np.exp(linear + bias + offset)
    shape = np.moveaxis(np.quantile(changes / scale, LEVELS, axis=0), 0, -1)  # (H, S, Q)
    return LogHar(
        profile=profile,
        usual=usual,
        mean=mean,
        deviation=deviation,
        weights=weights,
        bias=bias,
        shape=symmetric(shape),
        log=windows.log,
        candles=candles,
    )


def read_features(
    har: LogHar, windows: Windows, origins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, S, F) and the clock ahead (N, H, S) at the origins, some of them at a time."""
    together = at_once(windows.horizon, len(windows.prices.series))
    features = []
    offsets = []
    for start in range(0, len(origins), together):
        past, times, *candles = windows.inputs(origins[start : start + together])
        known, ahead = np.split(times, [windows.context], axis=1)
        features.append(har.features(past, known, *candles))
        offsets.append(har.clock_ahead(ahead))
    return np.concatenate(features), np.concatenate(offsets)


def clock_profile(
    values: np.ndarray, times: np.ndarray, expected: np.ndarray, log: bool
) -> tuple[np.ndarray, np.ndarray]:
    """How large the changes of each bin of the clock are (K, S), mean 1, and the usual one (S,).

    Changes of prices (R, S) at times (R,) are taken over the slow volatility of their time, so that
    a wild month counts no more than a calm one. Few changes leave a bin near that of all series,
    and that near the `expected` profile (K,).
    """
    bins = len(expected)
    path = np.log(values) if log else values
    sizes = np.abs(np.diff(path, axis=0))  # (R - 1, S)
    usual = np.where(sizes.mean(0) > 0, sizes.mean(0), STILL)
    first = sizes[:SLOW].mean(0, keepdims=True)
    slow = ewma_means(sizes, 0.5 ** (1 / SLOW), first) + SMALLEST * usual
    relative = np.minimum(sizes / slow, LARGEST)
    relative = relative / np.maximum(relative.mean(0), SMALLEST)
    bin_of = clock(times[1:], bins)
    present = np.unique(bin_of)
    profile = np.ones((bins, sizes.shape[1]))
    for number in present:
        of_bin = relative[bin_of == number]
        count = len(of_bin)
        pooled = (count * of_bin.mean() + SHRINKAGE * expected[number]) / (count + SHRINKAGE)
        profile[number] = (of_bin.sum(0) + SHRINKAGE * pooled) / (count + SHRINKAGE)
    profile[present] /= profile[bin_of].mean(0)
    usual = np.maximum((sizes / profile[bin_of]).mean(0), STILL)
    return profile, usual


def ewma_means(values: np.ndarray, decay: float, start: np.ndarray) -> np.ndarray:
    """Exponentially weighted means (R, S) of values (R, S) up to and including each row.

    `start` (1, S) is the mean of all that came before.
    """
    return lfilter([1 - decay], [1, -decay], values, axis=0, zi=decay * start)[0]


def student_t_scale(
    features: np.ndarray, offset: np.ndarray, changes: np.ndarray, expected: np.ndarray
) -> tuple[np.ndarray, float]:
    """Weights (F,) and bias of the log scale of Student's t that changes (N,) are most likely of.

    The log scale is offset (N,) + bias + features (N, F) . weights; the degrees of freedom, above
    2, are fitted with them. A few windows leave the weights near those that are `expected` (F,).
    """
    usual = float(np.abs(changes).mean())
    count = features.shape[1]
    if usual == 0:
        return np.zeros(count), float(np.log(STILL))
    # a step without a change would make the likelihood of a scale of nothing infinite
    squares = (changes / usual) ** 2 + RESTING**2
    penalty = PENALTY / len(changes)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights = parameters[:count]
        distance = weights - expected
        excess = np.exp(np.clip(parameters[-1], -8, 8))
        freedom = 2 + excess
        log_scale = offset + parameters[count] + features @ weights  # (N,)
        z = squares * np.exp(-2 * log_scale)
        constant = (
            special.gammaln(freedom / 2)
            - special.gammaln((freedom + 1) / 2)
            + 0.5 * np.log(freedom)
        )
        grown = np.log1p(z / freedom)
        value = log_scale.mean() + (freedom + 1) / 2 * grown.mean() + constant
        share = z / (freedom + z)
        slope = (1 - (freedom + 1) * share) / len(z)  # (N,): of the log scale
        of_freedom = (
            0.5 * grown.mean()
            - (freedom + 1) / (2 * freedom) * share.mean()
            + 0.5 * (special.digamma(freedom / 2) - special.digamma((freedom + 1) / 2))
            + 0.5 / freedom
        )
        gradient = np.concatenate(
            [features.T @ slope + 2 * penalty * distance, [slope.sum(), of_freedom * excess]]
        )
        return value + penalty * distance @ distance, gradient

    start = np.concatenate([expected, [-0.5, np.log(2.0)]])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B")
    return found.x[:count], float(found.x[count] + np.log(usual))


def symmetric(quantiles: np.ndarray) -> np.ndarray:
    """Quantiles (..., Q) at LEVELS with the lower half the mirror image of the upper."""
    return (quantiles - quantiles[..., ::-1]) / 2


# ---------------------------------------------------------------------------------- forecasts


@dataclasses.dataclass(frozen=True)
class ScaledShape:
    """A distribution of changes at N origins: scale (N, H, S) times shape (H, S, Q)."""

    scale: np.ndarray
    shape: np.ndarray

    def of_series(self, part: slice) -> ScaledShape:
        """The same for some of the series."""
        return ScaledShape(self.scale[..., part], self.shape[:, part])

    def quantiles(self, last: np.ndarray, log: bool) -> np.ndarray:
        """Quantiles float32 (N, H, S, Q) of prices after the last ones (N, S)."""
        changes = self.scale.astype(np.float32)[..., None] * self.shape.astype(np.float32)
        base = last.astype(np.float32)[:, None, :, None]
        return base * np.exp(changes) if log else base + changes
