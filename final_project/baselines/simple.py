"""Baselines that learn nothing: persistence, and interpolation in the parameter.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, S steps, D = P F.
"""

from __future__ import annotations

import numpy as np
from einops import rearrange

from final_project.baselines.inputs import Flows, checked, checked_start
from final_project.units import Units

RETURNED = 4  # a flow came back where its distance fell to 1 / RETURNED of the largest


class Persistence:
    """Nothing changes."""

    def fit(
        self, fields: np.ndarray, theta: np.ndarray, validation: Flows | None = None
    ) -> Persistence:
        """Notes the shapes. Raises InputError as `checked`."""
        fields, theta = checked(fields, theta)
        self.shape_ = fields.shape[2:]
        self.parameters_ = theta.shape[1]
        return self

    def rollout(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """(N, P, F), (N, K) -> (N, S, P, F). Raises InputError as `checked_start`."""
        first, _ = checked_start(first, theta, steps, self.shape_, self.parameters_)
        return np.repeat(first[:, None], steps, 1)


def closest(frames: np.ndarray, point: np.ndarray) -> tuple[float, float]:
    """(squared distance, position) of the closest point to (D,) on a polyline through (T, D).

    A position of 3.25 lies a quarter of the way from frame 3 to frame 4: the phase is found between
    the frames.
    """
    start = frames[:-1]
    step = np.diff(frames, axis=0)
    offset = point - start
    along = np.clip((offset * step).sum(1) / np.maximum((step**2).sum(1), 1e-30), 0, 1)
    distance = ((offset - along[:, None] * step) ** 2).sum(1)
    best = int(distance.argmin())
    return float(distance[best]), float(best + along[best])


def last_period(frames: np.ndarray) -> float | None:
    """Length in frames of the last full period of a trajectory (T, D), or None without one.

    Walking back from the last frame, the distance to it grows and, in a periodic flow, falls to
    (nearly) nothing again: to below a quarter.
    """
    distance = np.sqrt(((frames - frames[-1]) ** 2).sum(1))[::-1]  # (T,), by lag
    farthest = np.maximum.accumulate(distance)
    last = len(frames) - 1
    for lag in range(2, last):
        is_lowest = distance[lag] <= min(distance[lag - 1], distance[lag + 1])
        if is_lowest and distance[lag] < farthest[lag] / RETURNED:
            start = last - lag - 1
            _, position = closest(frames[start : start + 3], frames[-1])
            return last - start - position
    return None


class ParameterInterpolation:
    """A mixture of the training trajectories nearest below and above in the first parameter.

    Each is followed from the point closest to the given frame. Which ones are nearest is judged
    over all standardised parameters; the mixture is linear in the first. Outside the training
    range, and where that parameter is constant, it is the nearest one alone; with no parameter at
    all, the one that passes closest to the given frame. Past its end a trajectory repeats its last
    full period, or holds its last frame where it has none.
    """

    def fit(
        self, fields: np.ndarray, theta: np.ndarray, validation: Flows | None = None
    ) -> ParameterInterpolation:
        """Keeps the training trajectories. Raises InputError as `checked`."""
        self.fields_, self.theta_ = checked(fields, theta)
        self.units_ = Units.of(self.fields_)
        self.theta_units_ = Units.of(self.theta_)
        return self

    def rollout(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """(N, P, F), (N, K) -> (N, S, P, F). Raises InputError as `checked_start`."""
        shape = self.fields_.shape[2:]
        first, theta = checked_start(first, theta, steps, shape, self.theta_.shape[1])
        mixtures = []
        for frame, query in zip(first, theta, strict=True):
            parts = [
                weight * self._follow(row, frame, steps)
                for row, weight in self._neighbours(frame, query)
            ]
            mixtures.append(sum(parts))  # (S, D)
        flat = np.stack(mixtures)
        return self.units_.physical(flat.reshape(len(first), steps, *shape)).astype(first.dtype)

    def _frames(self, row: int) -> np.ndarray:
        """Normalised frames (T, D) of a training trajectory."""
        return rearrange(self.units_.standardise(self.fields_[row]), "t p f -> t (p f)")

    def _neighbours(self, frame: np.ndarray, query: np.ndarray) -> list[tuple[int, float]]:
        """(row, weight) of the one or two training trajectories to follow."""
        if not len(query):
            point = self.units_.standardise(frame).ravel()
            distances = [closest(self._frames(row), point)[0] for row in range(len(self.fields_))]
            return [(int(np.argmin(distances)), 1.0)]

        # the nearest trajectories on both sides of the first parameter:
        away = self.theta_units_.standardise(self.theta_) - self.theta_units_.standardise(
            query
        )  # (N, K)
        distance = np.linalg.norm(away, axis=1)
        known = self.theta_[:, 0]
        below = np.where(known <= query[0], distance, np.inf)
        above = np.where(known > query[0], distance, np.inf)
        low = int(below.argmin())
        high = int(above.argmin())
        if not (np.isfinite(below[low]) and np.isfinite(above[high])):
            return [(int(distance.argmin()), 1.0)]
        share = (query[0] - known[low]) / (known[high] - known[low])
        return [(low, 1 - share), (high, share)]

    def _follow(self, row: int, frame: np.ndarray, steps: int) -> np.ndarray:
        """Normalised frames (S, D) of a training trajectory after the point closest to `frame`.

        Linear between its frames.
        """
        frames = self._frames(row)
        last = len(frames) - 1
        _, start = closest(frames, self.units_.standardise(frame).ravel())
        position = start + np.arange(1, steps + 1)  # (S,)

        # past its end: whole periods back, or the last frame
        over = np.maximum(position - last, 0)
        period = last_period(frames) if over.any() else None
        if period:
            position -= np.ceil(over / period) * period
        position = np.minimum(position, last)

        before = np.minimum(position.astype(int), last - 1)
        part = (position - before)[:, None]
        return (1 - part) * frames[before] + part * frames[before + 1]
