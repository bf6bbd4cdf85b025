"""Flow solvers on NGSolve: incompressible Navier-Stokes, the cylinder's wake, the lock exchange.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, M triangles.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.stats

DRAWS = "scrambled Sobol points on 37 levels"  # of `even_draws`; stands in a file's provenance
LEVELS = 37  # of a parameter in the draws
BEYOND = 4  # of these the highest ones of the first parameter, a tenth of the range ...
SKIPPED = 3  # ... and so many steps above the others


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
    """Numbers float64 (count, dimensions) in [0, 1] that fill the cube evenly, on LEVELS levels.

    Row i depends on (seed, i) alone. Scrambled Sobol points (Sobol 1967, Owen 1998), of which each
    LEVELS successive ones are replaced, axis by axis, by their ranks: so a level is drawn once in
    every LEVELS rows, and after any number of rows no level of an axis has been drawn twice more
    often than another. The levels of the first axis leave out SKIPPED between the lower ones and
    the BEYOND highest, which a split can keep for extrapolation; on the other axes they are equally
    far apart.
    """
    blocks = -(-count // LEVELS)
    power = max(1, math.ceil(math.log2(blocks * LEVELS)))
    sobol = scipy.stats.qmc.Sobol(dimensions, rng=np.random.default_rng(seed))
    points = sobol.random_base2(power)[: blocks * LEVELS]
    points = points.reshape(blocks, LEVELS, dimensions)
    levels = points.argsort(1).argsort(1).reshape(-1, dimensions)[:count]  # (count, dimensions)

    drawn = levels / (LEVELS - 1)
    first = levels[:, 0]
    beyond = first >= LEVELS - BEYOND
    drawn[:, 0] = (first + SKIPPED * beyond) / (LEVELS + SKIPPED - 1)
    return drawn
