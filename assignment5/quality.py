"""How close two sets of images are, in a space of features.

KID with its error, precision and recall, density and coverage, nearest neighbours.
Shape letters: N real images, M samples, F features; all float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist

from assignment5.config import NEIGHBOURS

DRAWS = 500  # of weights, in a bootstrap: the error of a standard error is then 3 %


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


def resampled_kids(
    real: np.ndarray, sets: Sequence[np.ndarray], draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """KID (D,) of reweighted real images (N, F) and reweighted sets of samples, each (M, F).

    Both are drawn anew, so that the deviation over the draws is the standard error over real
    images and noises together: every draw gives each image a weight of its own, and a pair the
    product of two (Owen & Eckles 2012, with the weights of the Bayesian bootstrap, Rubin 1981). An
    image never makes a pair with itself, as it would where images are drawn twice. The same seed
    gives the same weights in every space of features.
    """
    generator = np.random.default_rng(seed)
    weights = normalised_weights(generator, draws, len(real))
    within = weighted_pairs(weights, real)  # (D,)
    between = np.zeros(draws)
    for samples in sets:
        drawn = normalised_weights(generator, draws, len(samples))
        crossed = ((weights @ kernel(real, samples)) * drawn).sum(1)  # (D,)
        between += (weighted_pairs(drawn, samples) - 2 * crossed) / len(sets)
    return within + between


def normalised_weights(generator: np.random.Generator, draws: int, count: int) -> np.ndarray:
    """Positive weights (D, count), uniform among those that sum to 1."""
    weights = generator.standard_exponential((draws, count))
    return weights / weights.sum(1, keepdims=True)


def weighted_pairs(weights: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Weighted mean kernel (D,) of the pairs of different rows of (N, F), weights (D, N)."""
    values = kernel(a, a)  # (N, N)
    np.fill_diagonal(values, 0)
    pairs = 1 - (weights**2).sum(1)  # the weight of all pairs of different rows
    return ((weights @ values) * weights).sum(1) / pairs


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
    return nearest(of, among)[0]


def nearest(of: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (M,) of each of `of` (M, F) to the nearest of `among` (N, F), and its number."""
    distances = cdist(of, among)  # (M, N)
    return distances.min(1), distances.argmin(1)
