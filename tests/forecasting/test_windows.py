"""Parts of a history share nothing, windows straddle no gap, and the leak test finds leaks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.cli import InputError
from common.forecasting.metrics import LEVELS
from common.forecasting.windows import (
    MinMax,
    ewma_matrices,
    future,
    origins,
    past,
    split,
    steps_ahead,
)
from tests.forecasting.helpers import leaks, walk, windows_of


def test_windows_never_straddle_a_gap():
    contiguous = np.array([True, True, True, False, True, True, True, True])  # rows 0-3 and 4-8
    assert origins(contiguous, 2, 1).tolist() == [1, 2, 5, 6, 7]
    assert origins(contiguous, 3, 2).tolist() == [6]
    assert origins(contiguous, 5, 1).tolist() == []


@settings(max_examples=60, deadline=None)
@given(
    st.integers(80, 400),
    st.integers(2, 12),
    st.integers(1, 6),
    st.lists(st.integers(0, 78), max_size=5),
)
def test_parts_share_no_row_and_every_test_origin_is_scored(steps, context, horizon, gaps):
    contiguous = np.ones(steps - 1, bool)
    contiguous[gaps] = False
    try:
        parts = split(contiguous, context, horizon, 40, 30)
    except InputError:
        return
    train, validation, test = (
        set((part[:, None] + np.arange(-context + 1, horizon + 1)).ravel())
        for part in (parts.train, parts.validation, parts.test)
    )
    assert not train & validation
    assert not validation & test
    assert max(train) < parts.train_end
    test_start = steps - min(40, steps // 4)
    every = origins(contiguous, context, horizon)
    assert parts.test.tolist() == every[every + 1 >= test_start].tolist()
    # a gap of one context between the targets of two parts
    assert parts.validation.min() + 1 - (parts.train.max() + horizon) > context
    assert parts.test.min() + 1 - (parts.validation.max() + horizon) > context


def test_past_and_future_meet_at_the_origin():
    values = np.arange(20.0)[:, None]
    assert past(values, np.array([4, 9]), 3)[..., 0].tolist() == [[2, 3, 4], [7, 8, 9]]
    assert future(values, np.array([4, 9]), 2)[..., 0].tolist() == [[5, 6], [10, 11]]


def test_a_history_that_is_too_short_is_refused():
    with pytest.raises(InputError, match="30 rows give no"):
        split(np.ones(29, bool), 20, 5, 10, 10)


def test_minmax_inverts_and_keeps_a_constant_series():
    values = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]])
    scaler = MinMax.fit(values)
    assert scaler.transform(values).tolist() == [[0, 0], [1, 0], [0.5, 0]]
    np.testing.assert_array_equal(scaler.inverse(scaler.transform(values)), values)


def test_ewma_matrices_are_the_recursion_from_the_mean():
    squares = np.random.default_rng(0).random(6)
    for decay, matrix in zip((0.5, 0.9), ewma_matrices(6, (0.5, 0.9)), strict=True):
        mean = squares.mean()
        for step, square in enumerate(squares):
            mean = decay * mean + (1 - decay) * square
            assert matrix[step] @ squares == pytest.approx(mean, rel=1e-6)


def test_the_steps_after_a_window_of_business_days_leave_out_the_weekend():
    friday = np.array([["2024-05-30", "2024-05-31"]], "datetime64[ns]")
    ahead = steps_ahead(friday, 2).astype("datetime64[D]")
    assert ahead.astype(str).tolist() == [["2024-06-03", "2024-06-04"]]
    saturday = np.array([["2024-05-31", "2024-06-01"]], "datetime64[ns]")
    ahead = steps_ahead(saturday, 2).astype("datetime64[D]")
    assert ahead.astype(str).tolist() == [["2024-06-02", "2024-06-03"]]


def test_origins_come_with_those_whose_outcomes_correct_them():
    windows = windows_of(walk(1900), context=30, horizon=3)
    before = windows.before(np.array([1800, 1801]))
    assert before[-2:].tolist() == [1800, 1801]
    assert before[0] == 1800 - windows.rolling - windows.horizon
    assert (np.diff(before) == 1).all()


class Still:
    """Forecasts that the last price stays, with the same width for every series."""

    settings: ClassVar[dict[str, object]] = {}
    params = 0

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        last = np.repeat(past[:, -1:], 3, axis=1)  # (N, H, S)
        widths = np.exp(np.linspace(-0.01, 0.01, len(LEVELS)))
        return last, last[..., None] * widths


def test_a_price_that_never_moves_does_not_count_where_training_stops():
    moving = walk(200, series=1)
    origins = np.arange(50, 150)
    alone = windows_of(moving, context=30, horizon=3)
    both = windows_of(np.hstack([moving, np.ones_like(moving)]), context=30, horizon=3)
    size = np.full((3, 1), 0.02)
    expected = alone.crps(Still(), size, origins)
    sizes = np.hstack([size, np.zeros_like(size)])
    assert both.crps(Still(), sizes, origins) == pytest.approx(expected, rel=1e-6)
    still = windows_of(np.ones_like(moving), context=30, horizon=3)
    assert np.isfinite(still.crps(Still(), np.zeros_like(size), origins))


def test_the_leak_test_finds_a_leak():
    values = walk(60)
    assert not leaks(lambda v, at: past(v, at, 5), values, np.array([10, 40]))
    assert leaks(lambda v, at: past(v, at + 1, 5), values, np.array([10, 40]))
