"""How close two sets of images are, in a space of features.

KID, precision and recall, density and coverage, nearest neighbours.
Shape letters: N real images, M samples, F features; all float64.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from assignment5.config import NEIGHBOURS


def kid(real: np.ndarray, samples: np.ndarray) -> float:
    """Kernel inception distance of features (N, F) and (M, F); 0: the same distribution.

    The unbiased squared MMD under k(x, y) = (x'y / F + 1)^3 (Binkowski et al. 2018, section 4 and
    eq. 4); being unbiased it can come out below 0.
    """
    between = kernel(real, samples).mean()
    return float(mean_within(real) + mean_within(samples) - 2 * between)


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cubic kernel (N, M) of features (N, F) and (M, F)."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def mean_within(a: np.ndarray) -> float:
    """Mean kernel of the pairs of different rows of (N, F)."""
    values = kernel(a, a)  # (N, N)
    return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))


def neighbour_scores(
    real: np.ndarray, samples: np.ndarray, k: int = NEIGHBOURS
) -> dict[str, float]:
    """Scores of samples (M, F) among the k-nearest-neighbour balls of real images (N, F).

    precision, recall (Kynkäänniemi et al. 2019); density, coverage (Naeem et al. 2020).
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


def nearest_distance(of: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Distance (M,) of each of `of` (M, F) to the nearest of `among` (N, F)."""
    return cdist(of, among).min(1)
