"""How many frames to skip in a movie of a periodic flow, so that its motion can be seen.

Frames half a period apart show two phases only, however long the movie is.
"""

from __future__ import annotations

import math

import numpy as np

from final_project.metrics import LEAST_SAMPLES, dominant_frequency

SECTORS = 16  # a period is cut into so many parts ...
DISTINCT = 8  # ... of which a movie shows at least so many


def dominant_period(signal: np.ndarray) -> float:
    """Period of a signal's (T,) strongest oscillation in samples; infinite where there is none."""
    if len(signal) < LEAST_SAMPLES or not np.isfinite(signal).all():
        return math.inf
    frequency = float(dominant_frequency(signal, 1.0))
    return 1 / frequency if frequency > 0 else math.inf


def distinct_phases(stride: int, period: float) -> int:
    """In how many of the SECTORS of a period frames lie that are `stride` apart.

    Of SECTORS successive frames, or of as many as a whole period has if those are more.
    """
    if math.isinf(period):
        return SECTORS
    count = max(SECTORS, math.ceil(period / stride))
    phases = stride * np.arange(count) / period % 1
    sectors = np.floor(SECTORS * phases + 1e-6).astype(int) % SECTORS
    return len(np.unique(sectors))


def movie_stride(count: int, period: float, wanted: int) -> int:
    """The stride that shows about `wanted` of `count` frames of a flow of that period, in frames.

    The one nearest to count / wanted that shows DISTINCT phases, of two equally near the larger;
    where none does, the one with the most phases.
    """
    even = max(1, round(count / wanted))
    nearest = sorted(range(1, 2 * even + 1), key=lambda stride: (abs(stride - even), -stride))
    for stride in nearest:
        if distinct_phases(stride, period) >= DISTINCT:
            return stride
    return max(nearest, key=lambda stride: distinct_phases(stride, period))
