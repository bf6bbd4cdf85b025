"""Flow solvers on NGSolve: incompressible Navier-Stokes, the cylinder's wake, the lock exchange.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, M triangles.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """One simulated flow.

    fields : float32 (T, P, F). coordinates : float64 (P, 2), of the undeformed mesh.
    triangles : int32 (M, 3). time : float64 (T,).
    """

    fields: np.ndarray
    coordinates: np.ndarray
    triangles: np.ndarray
    time: np.ndarray


def even_draws(count: int, dimensions: int, seed: int) -> np.ndarray:
    """Numbers float64 (count, dimensions) in [0, 1) that fill the cube evenly.

    Row i depends on (seed, i) alone. A Kronecker sequence with steps 1 / g, 1 / g^2, ..., where
    g^(dimensions + 1) = g + 1 (Roberts 2018, "R_d"), shifted at random.

    A single axis is even only for long sequences: in four dimensions the first step is 0.857,
    nearly 6 / 7, so that the first 48 values of that axis (the cylinder's Reynolds numbers) are
    seven clusters of six or seven values each.
    """
    polynomial = [1, *[0] * (dimensions - 1), -1, -1]
    g = max(np.roots(polynomial).real)
    steps = g ** -np.arange(1.0, dimensions + 1)  # (dimensions,)
    shift = np.random.default_rng(seed).random(dimensions)
    return (shift + np.outer(np.arange(1, count + 1), steps)) % 1
