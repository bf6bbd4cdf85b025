"""Chronological parts of a price history and the windows in them; no window sees past its origin.

Shape letters: T times, N windows, C context, H horizon, S series, Q quantile levels, D decays.
An origin is the row of the last known price.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from common.cli import InputError
from common.files import JsonObject
from common.forecasting.candles import range_volatility
from common.forecasting.config import LEAST_OUTCOMES, ROLLING_DAYS, ROLLING_HOURS
from common.forecasting.history import Prices
from common.forecasting.metrics import at_once, change, crps_quantiles, recalibrate
from common.forecasting.sessions import DAY, HOUR, WEEK

MOST_RESIDUALS = 6000  # of prices by the minute


# -------------------------------------------------------------------------------------- parts


@dataclasses.dataclass(frozen=True)
class Parts:
    """Origins (ascending row numbers) of each part; the first `train_end` rows may be fitted on."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    train_end: int

    def named(self) -> dict[str, np.ndarray]:
        """The origins of each part by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def dates(self, times: np.ndarray) -> dict[str, dict[str, object]]:
        """First and last origin and their number, for run.json."""
        return {
            name: {
                "origins": len(part),
                "first": str(times[part[0]])[:16],
                "last": str(times[part[-1]])[:16],
            }
            for name, part in self.named().items()
        }


def origins(contiguous: np.ndarray, context: int, horizon: int) -> np.ndarray:
    """Every row i such that the rows i - context + 1 .. i + horizon exist and hold no gap.

    `contiguous` is bool (T - 1,), as Prices.contiguous returns it.
    """
    gaps = np.concatenate([[0], np.cumsum(~contiguous)])  # (T,): gaps before each row
    rows = np.arange(context - 1, len(gaps) - horizon)
    return rows[gaps[rows + horizon] == gaps[rows - context + 1]]


def split(
    contiguous: np.ndarray,
    context: int,
    horizon: int,
    test_steps: int,
    validation_steps: int,
    context_is_given: bool = False,
) -> Parts:
    """Train, validation and test by time; no two parts share a row.

    The test part is the last `test_steps` rows and the validation part `validation_steps` rows
    before it, each at most a quarter of the history, with a gap of one context between the
    targets of two parts. Raises InputError when a part would have no window; the advice in it has
    no shorter context where that is given by a pretrained network.
    """
    parts = parts_of(contiguous, context, horizon, test_steps, validation_steps)
    for name, part in parts.named().items():
        if not len(part):
            advice = "; the pretrained network reads that many: give a longer history"
            if not context_is_given:
                advice = advice_on(contiguous, context, horizon, test_steps, validation_steps)
            raise InputError(
                f"{len(contiguous) + 1} rows give no {name} window of {context} + {horizon} rows "
                f"without a gap{advice}"
            )
    return parts


def parts_of(
    contiguous: np.ndarray, context: int, horizon: int, test_steps: int, validation_steps: int
) -> Parts:
    """The parts that `split` checks; some may be empty."""
    steps = len(contiguous) + 1
    test_start = steps - min(test_steps, steps // 4)
    validation_start = test_start - context - min(validation_steps, steps // 4)
    train_end = validation_start - context

    every = origins(contiguous, context, horizon)
    first_target = every + 1
    last_target = every + horizon
    in_validation = (first_target >= validation_start) & (last_target < test_start - context)
    return Parts(
        train=every[last_target < train_end],
        validation=every[in_validation],
        test=every[first_target >= test_start],
        train_end=train_end,
    )


def advice_on(
    contiguous: np.ndarray, context: int, horizon: int, test_steps: int, validation_steps: int
) -> str:
    """What to do about windows that do not fit: the longest context that does, if there is one."""
    edges = np.flatnonzero(np.concatenate([[True], ~contiguous, [True]]))
    longest = int(np.diff(edges).max())  # rows
    stretch = ""
    if longest < context + horizon and not contiguous.all():
        stretch = f"; the longest stretch between two gaps has {longest} rows"
        if longest - horizon < 2:
            return f"{stretch}, too few for {horizon} steps ahead: give prices without such gaps"

    # Longer contexts never fit where a shorter one does not:
    fits, does_not = 1, context
    while does_not - fits > 1:
        middle = (fits + does_not) // 2
        parts = parts_of(contiguous, middle, horizon, test_steps, validation_steps)
        if all(len(part) for part in parts.named().values()):
            fits = middle
        else:
            does_not = middle
    if fits < 2:
        return f"{stretch}; give a longer history"
    return f"{stretch}; --context {fits} is the longest that fits, or give a longer history"


# ---------------------------------------------------------------------------- arrays of windows


def past(values: np.ndarray, origins: np.ndarray, context: int) -> np.ndarray:
    """The context (N, C, S) of each origin in values (T, S)."""
    windows = np.lib.stride_tricks.sliding_window_view(values, context, axis=0)
    return windows[origins - context + 1].transpose(0, 2, 1)  # (N, C, S)


def future(values: np.ndarray, origins: np.ndarray, horizon: int) -> np.ndarray:
    """What came after each origin (N, H, S) in values (T, S)."""
    windows = np.lib.stride_tricks.sliding_window_view(values, horizon, axis=0)
    return windows[origins + 1].transpose(0, 2, 1)  # (N, H, S)


def steps_ahead(times: np.ndarray, horizon: int) -> np.ndarray:
    """The times (N, H) that follow windows of times datetime64 (N, C).

    By the window's last step, or by weeks or days, without Saturday and Sunday where the window has
    none.
    """
    steps = np.arange(1, horizon + 1)
    last = times[:, -1:]
    if len(times) and np.diff(times).min() >= WEEK:
        return last + steps * WEEK
    if len(times) and (last[:, 0] - times[:, -2]).min() < DAY:
        return last + steps * (last - times[:, -2:-1])
    days = times.astype("datetime64[D]")
    if np.is_busday(days).all():
        return np.busday_offset(days[:, -1:], steps, "backward").astype(times.dtype)
    return (days[:, -1:] + steps).astype(times.dtype)


def known_and_ahead(times: np.ndarray, context: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """The times of a context (N, C) and of the steps ahead (N, H).

    `times` are (N, C + H) as Windows.inputs gives them, or (N, C), from which the later ones follow
    by the step.
    """
    known = times[:, :context]
    ahead = times[:, context:]
    return known, ahead if ahead.shape[1] else steps_ahead(known, horizon)


def calendar(times: np.ndarray) -> np.ndarray:
    """Hour of the day (two harmonics) and of the week of datetime64 (...): float32 (..., 6)."""
    hours = times.astype("datetime64[m]").astype(np.int64) / 60
    day = 2 * np.pi * (hours % 24) / 24
    week = 2 * np.pi * ((hours - 4 * 24) % 168) / 168  # 1970-01-05 was a Monday
    waves = [np.sin(day), np.cos(day), np.sin(2 * day), np.cos(2 * day), np.sin(week), np.cos(week)]
    return np.stack(waves, -1).astype(np.float32)


def ewma_weights(steps: int, decay: float, at: np.ndarray) -> np.ndarray:
    """Weights (A, T) of T values in their exponentially weighted means at the steps (A,).

    The means start from the mean of all T values.
    """
    age = at[:, None] - np.arange(steps)  # (A, T): of each value at each step
    weights = np.where(age >= 0, (1 - decay) * decay ** np.maximum(age, 0), 0)
    start = decay ** (at[:, None] + 1.0) / steps  # (A, 1)
    return weights + start


def ewma_matrices(steps: int, decays: Sequence[float]) -> np.ndarray:
    """Matrices float32 (D, T, T) that turn T squares into their exponentially weighted means."""
    every = np.arange(steps)
    return np.stack([ewma_weights(steps, decay, every) for decay in decays]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class MinMax:
    """Prices to 0..1 by the least and the largest price of each series.

    `low` and `high` broadcast against (..., S).
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, axis: int = 0) -> MinMax:
        """Fitted along the time axis of (T, S); axis=1 of (N, C, S) fits each window alone."""
        return cls(values.min(axis, keepdims=True), values.max(axis, keepdims=True))

    @property
    def span(self) -> np.ndarray:
        """Largest less least price; 1 where the price never moved."""
        return np.where(self.high > self.low, self.high - self.low, 1)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Prices (..., S) to 0..1."""
        return (values - self.low) / self.span

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """Prices (..., S) from 0..1."""
        return scaled * self.span + self.low


# ------------------------------------------------------------------------- windows of a history


class Forecaster(Protocol):
    """What windows and a backtest need of a model.

    One that reads candles is given them (N, C, 3, S) behind prices and times.
    """

    @property
    def settings(self) -> JsonObject:
        """The model's settings, "context" and "horizon" among them."""

    @property
    def params(self) -> int:
        """How many weights were trained."""

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Point (N, H, S) and quantiles (N, H, S, Q) in prices.

        From prices (N, C, S) and times datetime64 (N, C + H), those of the steps ahead included.
        """


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of C + H rows around given origins of a price history.

    Changes are log returns, or price differences where `log` is false. `known` is None for new
    prices, which have no training, validation and test part.
    """

    prices: Prices
    known: Parts | None
    context: int
    horizon: int
    log: bool = True

    @property
    def parts(self) -> Parts:
        """The parts of the history. Raises InputError for new prices, which have none."""
        if self.known is None:
            raise InputError("these prices have no training, validation and test part")
        return self.known

    @property
    def rolling(self) -> int:
        """Steps that residuals and recalibration look back, enough for a recalibration."""
        if self.prices.step == DAY:
            return ROLLING_DAYS
        steps = int(ROLLING_HOURS * HOUR // self.prices.step)
        return min(max(steps, LEAST_OUTCOMES), MOST_RESIDUALS)

    def sizes(self) -> str:
        """The windows of each part in words, and the share of rows that none starts from."""
        parts = "; ".join(
            f"{len(part):,} to {name} ({self.prices.moment(part[0])} to "
            f"{self.prices.moment(part[-1])})"
            for name, part in zip(
                ("train", "validate", "test"), self.parts.named().values(), strict=True
            )
        )
        rows = len(self.prices.times)
        possible = rows - self.context - self.horizon + 1
        share = len(self.origins()) / max(possible, 1)
        lost = "" if share == 1 else f"; gaps leave {share:.1%} of all windows"
        return f"windows of {self.context} + {self.horizon} rows: {parts}{lost}"

    def origins(self) -> np.ndarray:
        """Every origin (N,) with a whole context and horizon."""
        return origins(self.prices.contiguous(), self.context, self.horizon)

    def past(self, origins: np.ndarray) -> np.ndarray:
        """Prices (N, C, S) up to and including the origins."""
        return past(self.prices.values, origins, self.context)

    def inputs(self, origins: np.ndarray) -> tuple[np.ndarray, ...]:
        """All that a forecaster sees: prices (N, C, S), times (N, C + H), candles (N, C, 3, S).

        The times of the steps ahead are scheduled, by what is known at each origin; candles come
        only where the prices have them.
        """
        times = past(self.prices.times[:, None], origins, self.context)[..., 0]  # (N, C)
        ahead = steps_ahead(times, self.horizon)  # (N, H)
        if self.prices.sessions is not None:
            scheduled, known = self.prices.sessions.ahead(times[:, -1], self.horizon)
            ahead[known] = scheduled[known]
        prices = self.past(origins), np.concatenate([times, ahead], axis=1)
        return prices if self.prices.candles is None else (*prices, self.candles(origins))

    def candles(self, origins: np.ndarray) -> np.ndarray:
        """Candles (N, C, 3, S) up to and including the origins.

        Raises ValueError for prices that have none.
        """
        if self.prices.candles is None:
            raise ValueError("these prices have no candles")
        flat = self.prices.candles.reshape(len(self.prices.times), -1)  # (T, 3 S)
        windows = past(flat, origins, self.context)  # (N, C, 3 S)
        return windows.reshape(*windows.shape[:2], 3, -1)

    def future(self, origins: np.ndarray) -> np.ndarray:
        """Prices (N, H, S) after the origins."""
        return future(self.prices.values, origins, self.horizon)

    def ranges_ahead(self, origins: np.ndarray) -> np.ndarray:
        """Volatility (N, H, S) of the changes after the origins, by the ranges of their steps.

        The root of the sum of squared Garman-Klass volatilities up to each step. Raises ValueError
        for prices without candles.
        """
        ahead = dataclasses.replace(self, context=self.horizon + 1)
        rows = origins + self.horizon
        steps = range_volatility(ahead.past(rows), ahead.candles(rows), self.log)
        return np.sqrt(np.cumsum(steps**2, 1))

    def changes(self, origins: np.ndarray) -> np.ndarray:
        """Changes (N, H, S) from the last known price."""
        return change(self.future(origins), self.prices.values[origins], self.log)

    def before(self, origins: np.ndarray) -> np.ndarray:
        """The origins, and in front of them those whose outcomes recalibrate their forecasts."""
        every = self.origins()
        earlier = every[every < origins[0]][-self.rolling - self.horizon :]
        return np.concatenate([earlier, origins])

    def recalibrated(self, quantiles: np.ndarray, origins: np.ndarray) -> np.ndarray:
        """Quantiles (N, H, S, Q) of prices, each corrected by the outcomes known at its origin.

        The origins ascend; the last one may be the last price, whose outcomes are not known.
        """
        values = self.prices.values
        unknown = np.full((self.horizon, values.shape[1]), np.nan)
        truth = future(np.concatenate([values, unknown]), origins, self.horizon)
        last = values[origins].astype(np.float32)  # (N, S)
        changes = recalibrate(
            change(quantiles, last, self.log),
            change(truth, values[origins], self.log).astype(np.float32),
            self.rolling,
        )  # (N, H, S, Q)
        base = last[:, None, :, None]
        return base * np.exp(changes) if self.log else base + changes

    def crps(self, forecaster: Forecaster, size: np.ndarray, origins: np.ndarray) -> float:
        """Mean CRPS of a forecaster, in units of the usual size (H, S) of a change.

        Training is stopped by this score. Series that never moved have no usual size and do not
        count; where none has one, the CRPS has the unit of a change.
        """
        moving = np.isfinite(size) & (size > 0)
        if not moving.any():
            moving = np.ones_like(moving)
        size = np.where(moving, np.where(size > 0, size, 1.0), 1.0).astype(size.dtype)
        scores = []
        together = at_once(self.horizon, len(self.prices.series))
        for start in range(0, len(origins), together):
            rows = origins[start : start + together]
            _, quantiles = forecaster.predict(*self.inputs(rows))
            changes = change(quantiles, self.prices.values[rows], self.log)
            scores.append(crps_quantiles(changes, self.changes(rows)) / size)
        return float(np.concatenate(scores)[:, moving].mean())
