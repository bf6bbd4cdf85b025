"""The frames of movies: a periodic flow can be followed, at its beginning and at its end."""

from __future__ import annotations

import math

import numpy as np
import pytest

from final_project.stride import PER_PERIOD, dominant_period, movie_frames


@pytest.mark.parametrize("period", [12.0, 20.3, 23.97, 24.0, 28.6, 36.0])
@pytest.mark.parametrize(("count", "wanted"), [(300, 24), (300, 50), (500, 50), (501, 51)])
def test_a_movie_of_a_long_run_shows_its_first_and_its_last_periods_closely(period, count, wanted):
    frames = movie_frames(count, period, wanted)
    assert frames[0] == 0
    assert frames[-1] == count - 1
    assert len(frames) == wanted // 2 * 2
    gaps = np.diff(frames)
    beginning, end = np.split(gaps, [gaps.argmax()])
    for part in (beginning, end[1:]):
        assert (part == part[0]).all()
        assert period / part[0] >= PER_PERIOD


def test_by_hand():
    assert movie_frames(100, 24.0, 10).tolist() == [0, 2, 4, 6, 8, 91, 93, 95, 97, 99]
    assert movie_frames(100, 4.0, 6).tolist() == [0, 1, 2, 97, 98, 99]  # 12 in a period: too many


def test_a_slow_flow_is_shown_as_a_whole():
    assert movie_frames(300, math.inf, 25).tolist() == list(range(0, 300, 12))
    assert movie_frames(300, 227.6, 25).tolist() == list(range(0, 300, 12))
    assert movie_frames(10, math.inf, 25).tolist() == list(range(10))


def test_few_frames_are_all_shown():
    assert movie_frames(40, 5.0, 50).tolist() == list(range(40))


def test_the_period_of_a_probe():
    time = np.arange(300)
    signal = 3 + np.sin(2 * np.pi * time / 23.97)
    assert dominant_period(signal) == pytest.approx(23.97, rel=5e-3)
    assert math.isinf(dominant_period(np.full(300, 0.3)))
    assert math.isinf(dominant_period(np.arange(4.0)))
