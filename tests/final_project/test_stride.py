"""The stride of movies: it shows a periodic flow at many phases, not at two."""

from __future__ import annotations

import math

import numpy as np
import pytest

from final_project.stride import DISTINCT, distinct_phases, dominant_period, movie_stride


def test_phases_of_known_strides():
    assert distinct_phases(12, 24.0) == 2
    assert distinct_phases(6, 24.0) == 4
    assert distinct_phases(24, 24.0) == 1
    assert distinct_phases(1, 24.0) >= 12
    assert distinct_phases(1, 1000.0) == 16
    assert distinct_phases(12, 23.97) < DISTINCT  # nearly half a period is not enough
    assert distinct_phases(100, math.inf) == 16


@pytest.mark.parametrize("period", [23.0, 23.97, 24.0, 24.17, 25.0, 36.0, 227.6, math.inf])
@pytest.mark.parametrize(("count", "wanted"), [(300, 25), (300, 50), (400, 25), (400, 50)])
def test_a_movie_of_a_long_run_shows_eight_phases_in_about_as_many_frames_as_wanted(
    period, count, wanted
):
    stride = movie_stride(count, period, wanted)
    assert distinct_phases(stride, period) >= DISTINCT
    assert 0.75 * wanted <= count / stride <= 1.35 * wanted


def test_the_stride_of_a_flow_without_a_period_is_even():
    assert movie_stride(300, math.inf, 25) == 12
    assert movie_stride(10, math.inf, 25) == 1


def test_where_no_stride_shows_enough_phases_the_best_is_taken():
    period = 4.0  # stored frames of a quarter of a period each
    assert distinct_phases(movie_stride(51, period, 25), period) == 4


def test_the_period_of_a_probe():
    time = np.arange(300)
    signal = 3 + np.sin(2 * np.pi * time / 23.97)
    assert dominant_period(signal) == pytest.approx(23.97, rel=5e-3)
    assert math.isinf(dominant_period(np.full(300, 0.3)))
    assert math.isinf(dominant_period(np.arange(4.0)))
