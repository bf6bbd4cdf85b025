"""A classification problem of Gaussian clouds."""

from __future__ import annotations

import numpy as np


def clouds(
    n: int = 400, p: int = 6, k: int = 3, dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """k classes that are shifted along one axis each: X (n, p), y (n,)."""
    rng = np.random.default_rng(1)
    y = rng.integers(k, size=n)
    X = rng.standard_normal((n, p)) + 1.5 * np.eye(k, p)[y]
    return X.astype(dtype), y
