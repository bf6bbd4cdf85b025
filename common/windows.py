"""Chronological parts of a price history and the windows inside them; nothing here looks past a window's origin.

Shape letters: T times, S series, N windows, C context, H horizon. An origin is the row of the last known price.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from common.cli import InputError


@dataclasses.dataclass(frozen=True)
class Parts:
    """Origins (row numbers, ascending) of each part; `train_end` rows at the front may be fitted on."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    train_end: int

    def dates(self, times: np.ndarray) -> dict[str, dict[str, object]]:
        """First and last origin and their number, for run.json."""
        return {
            name: {
                "origins": len(part),
                "first": str(times[part[0]])[:16],
                "last": str(times[part[-1]])[:16],
            }
            for name, part in (
                ("train", self.train),
                ("validation", self.validation),
                ("test", self.test),
            )
        }


def origins(contiguous: np.ndarray, context: int, horizon: int) -> np.ndarray:
    """Every row i such that rows i - context + 1 .. i + horizon exist and hold no gap; `contiguous` bool (T - 1,)."""
    gaps = np.concatenate([[0], np.cumsum(~contiguous)])  # gaps before each row
    rows = np.arange(context - 1, len(gaps) - horizon)
    return rows[gaps[rows + horizon] == gaps[rows - context + 1]]


def split(
    contiguous: np.ndarray, context: int, horizon: int, test_steps: int, validation_steps: int
) -> Parts:
    """Train, validation and test by time, with a gap of one context between their targets: no two parts share a row.

    The test part is the last `test_steps` rows and the validation part `validation_steps` rows before it, each at most
    a quarter of the history. Raises InputError when a part would have no window.
    """
    steps = len(contiguous) + 1
    test_start = steps - min(test_steps, steps // 4)
    validation_start = test_start - context - min(validation_steps, steps // 4)
    train_end = validation_start - context
    every = origins(contiguous, context, horizon)
    first, last = every + 1, every + horizon  # rows of the first and last target
    parts = Parts(
        train=every[last < train_end],
        validation=every[(first >= validation_start) & (last < test_start - context)],
        test=every[first >= test_start],
        train_end=train_end,
    )
    for name in ("train", "validation", "test"):
        if not len(getattr(parts, name)):
            raise InputError(
                f"{steps} rows give no {name} window of {context} + {horizon} rows without a gap; give a longer history or a shorter --context"
            )
    return parts


def past(values: np.ndarray, at: np.ndarray, context: int) -> np.ndarray:
    """The context of each origin: (N, C, S)."""
    return np.lib.stride_tricks.sliding_window_view(values, context, axis=0)[
        at - context + 1
    ].transpose(0, 2, 1)


def future(values: np.ndarray, at: np.ndarray, horizon: int) -> np.ndarray:
    """What came after each origin: (N, H, S)."""
    return np.lib.stride_tricks.sliding_window_view(values, horizon, axis=0)[at + 1].transpose(
        0, 2, 1
    )


def steps_ahead(times: np.ndarray, horizon: int) -> np.ndarray:
    """The times (N, H) that follow windows of times datetime64 (N, C): by their last step, or by days, without Saturday and
    Sunday where the window has none."""
    steps, day = np.arange(1, horizon + 1), np.timedelta64(1, "D")
    last = times[:, -1:]
    if len(times) and (last[:, 0] - times[:, -2]).min() < day:
        return last + steps * (last - times[:, -2:-1])
    days = times.astype("datetime64[D]")
    return (
        np.busday_offset(days[:, -1:], steps, "backward")
        if np.is_busday(days).all()
        else days[:, -1:] + steps
    ).astype(times.dtype)


def calendar(times: np.ndarray) -> np.ndarray:
    """Hour of the day and day of the week of datetime64 (...), as two harmonics and one: float32 (..., 6)."""
    hours = times.astype("datetime64[h]").astype(np.int64)
    day, week = 2 * np.pi * (hours % 24) / 24, 2 * np.pi * ((hours - 4 * 24) % 168) / 168
    return np.stack(
        [np.sin(day), np.cos(day), np.sin(2 * day), np.cos(2 * day), np.sin(week), np.cos(week)], -1
    ).astype(np.float32)


def ewma_matrices(steps: int, decays: Sequence[float]) -> np.ndarray:
    """Matrices float32 (D, T, T) that turn T squares into their exponentially weighted means, started from the mean of all T."""
    age = np.arange(steps)[:, None] - np.arange(steps)  # of square c at step t
    found = [
        np.where(age >= 0, (1 - d) * d ** np.maximum(age, 0), 0)
        + d ** (np.arange(steps)[:, None] + 1.0) / steps
        for d in decays
    ]
    return np.stack(found).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class MinMax:
    """Prices to 0..1 by the least and the largest price of each series; `low`, `high` broadcast against (..., S)."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, axis: int = 0) -> MinMax:
        """Fitted along the time axis: (T, S), or (N, C, S) with axis=1 for windows that each have their own."""
        return cls(values.min(axis, keepdims=True), values.max(axis, keepdims=True))

    @property
    def span(self) -> np.ndarray:
        """Largest less least price; 1 where the price never moved."""
        return np.where(self.high > self.low, self.high - self.low, 1)

    def transform(self, values: np.ndarray) -> np.ndarray:
        return (values - self.low) / self.span

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        return scaled * self.span + self.low


def leaks(
    forecast: Callable[[np.ndarray, np.ndarray], np.ndarray], values: np.ndarray, at: np.ndarray
) -> bool:
    """Whether `forecast(values (T, S), origins) -> (N, ...)` changes in any bit when everything after an origin is
    shuffled or poisoned; each origin is asked alone, with its own future spoilt."""
    rng = np.random.default_rng(0)
    for origin in at:
        one = np.array([origin])
        clean = forecast(values, one)
        for spoil in (
            lambda tail: rng.permutation(tail, axis=0) * 3,
            lambda tail: np.full_like(tail, 1e9),
        ):
            spoilt = values.copy()
            spoilt[origin + 1 :] = spoil(values[origin + 1 :])
            if not np.array_equal(clean, forecast(spoilt, one)):
                return True
    return False
