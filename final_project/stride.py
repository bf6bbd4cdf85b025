"""Which frames of a flow a movie shows, so that the eye can follow a periodic motion.

Frames half a period apart show two phases only, however long the movie is.
"""

from __future__ import annotations

import math

import numpy as np

from final_project.metrics import LEAST_SAMPLES, dominant_frequency

PER_PERIOD = 12  # frames of a movie in a period, at least


def dominant_period(signal: np.ndarray) -> float:
    """Period of a signal's (T,) strongest oscillation in samples; infinite where there is none."""
    if len(signal) < LEAST_SAMPLES or not np.isfinite(signal).all():
        return math.inf
    frequency = float(dominant_frequency(signal, 1.0))
    return 1 / frequency if frequency > 0 else math.inf


def movie_frames(count: int, period: float, wanted: int) -> np.ndarray:
    """The numbers (about `wanted`) of the frames that a movie shows of `count`, ascending.

    They are evenly spread over all if PER_PERIOD of them lie in a period (in frames, or infinite).
    Otherwise they lie so close together, and show the beginning and the end.
    """
    even = max(1, round(count / wanted))
    close = max(1, math.floor(period / PER_PERIOD)) if math.isfinite(period) else even
    if close >= even:
        return np.arange(0, count, even)
    steps = close * np.arange(wanted // 2)
    return np.union1d(steps, count - 1 - steps)
