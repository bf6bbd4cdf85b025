"""How close two sets of images are, in a space of features: KID, precision and recall, density and coverage, nearest neighbours.

Shape letters: N real images, M samples, F features; all float64.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist


def kid(real: np.ndarray, samples: np.ndarray) -> float:
    """Kernel inception distance: the unbiased squared MMD of features (N, F) and (M, F) under k(x, y) = (x'y / F + 1)^3.

    Binkowski et al. 2018, section 4 and eq. 4. 0: the same distribution (it can come out below 0, being unbiased).
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    return float(within(real) + within(samples) - 2 * kernel(real, samples).mean())


def neighbour_scores(real: np.ndarray, samples: np.ndarray, k: int = 5) -> dict[str, float]:
    """precision, recall (Kynkäänniemi et al. 2019), density, coverage (Naeem et al. 2020) of features (N, F) and (M, F).

    1.0: samples are as close to real images as these are to each other.
    """
    radius_real = np.sort(cdist(real, real), axis=1)[:, k]  # column 0 is the image itself
    radius_samples = np.sort(cdist(samples, samples), axis=1)[:, k]
    between = cdist(real, samples)  # (N, M)
    inside = between < radius_real[:, None]
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((between < radius_samples).any(1).mean()),
        "density": float(inside.sum(0).mean() / k),
        "coverage": float((between.min(1) < radius_real).mean()),
    }


def nearest(of: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row of the nearest in `among` (N, F), its distance) for each of `of` (M, F)."""
    distance = cdist(of, among)
    rows = distance.argmin(1)
    return rows, distance[np.arange(len(of)), rows]
