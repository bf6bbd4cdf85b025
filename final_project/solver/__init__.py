"""Flow solvers on NGSolve: incompressible Navier-Stokes, the cylinder's wake, the lock exchange.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, M triangles.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """One simulated flow: fields float32 (T, P, F), reference coordinates float64 (P, 2), triangles int32 (M, 3), time float64 (T,)."""

    fields: np.ndarray
    coordinates: np.ndarray
    triangles: np.ndarray
    time: np.ndarray


def even_draws(count: int, dimensions: int, seed: int) -> np.ndarray:
    """Numbers float64 (count, dimensions) in [0, 1) that fill the cube evenly; row i depends on (seed, i) alone.

    Kronecker sequence whose steps are powers of 1 / g, g^(dimensions + 1) = g + 1 (Roberts 2018, "R_d"), shifted at random.
    """
    g = max(np.roots([1, *[0] * (dimensions - 1), -1, -1]).real)
    shift = np.random.default_rng(seed).random(dimensions)
    return (shift + np.outer(np.arange(1, count + 1), g ** -np.arange(1.0, dimensions + 1))) % 1
