"""Extreme learning machines (Huang et al. 2006) whose output layer is solved from one Gram matrix.

Hidden layer H = g(s X W + b) with random, untrained W and b; only the output weights beta are learned, by least squares
with no penalty, ridge, lasso or elastic net. All four need nothing but H'H and H'Y, so the rows are read once, in blocks,
and a whole path of penalties costs little more than one fit.

Shape letters: n rows, p inputs, L hidden units, k outputs (classes), A alphas.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.linalg.blas import ssyrk
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from common.cli import InputError
from common.run import atomic_path

Penalty = Literal["ridge", "lasso", "elasticnet"] | None
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": lambda z: np.tanh(z, out=z),
    "relu": lambda z: np.maximum(z, 0, out=z),
    "sigmoid": lambda z: expit(z, out=z),
    "sign": lambda z: np.sign(z, out=z),
}


# ----------------------------------------------------------------------------------------------------------- the moments


@dataclasses.dataclass
class Moments:
    """Centred second moments of hidden activations H (n, L) and targets Y (n, k): all that the output layer needs.

    gram = sum (h - mean)(h - mean)' (L, L) and cross = sum (h - mean)(y - mean)' (L, k), float32 (or float64);
    means zero when there is no intercept.
    """

    n: int
    gram: np.ndarray
    cross: np.ndarray
    hidden_mean: np.ndarray
    target_mean: np.ndarray

    @classmethod
    def accumulate(cls, blocks: Iterable[tuple[np.ndarray, np.ndarray]], intercept: bool = True) -> Moments:
        """Adds up row blocks (H_block (b, L), Y_block (b, k)); memory does not grow with the number of rows.

        Rows are shifted by the first block's mean before they are multiplied, so that float32 does not cancel.
        H_block may be overwritten.
        """
        n, gram = 0, None
        for hidden, target in blocks:
            if gram is None:
                units, kind = hidden.shape[1], hidden.dtype
                gram = np.zeros((units, units), kind, order="F")
                cross = np.zeros((units, target.shape[1]))
                hidden_sum, target_sum = np.zeros(units), np.zeros(target.shape[1])
                shift = hidden.mean(0) if intercept else np.zeros(units, kind)
            if intercept:
                hidden -= shift
            if kind == np.float32:
                gram = ssyrk(1.0, hidden.T, beta=1.0, c=gram, lower=1, overwrite_c=1)  # only the lower triangle: half the work
            else:
                gram += hidden.T @ hidden
            cross += hidden.T @ target.astype(kind, copy=False)
            if intercept:
                hidden_sum += hidden.sum(0, dtype=np.float64)
                target_sum += target.sum(0, dtype=np.float64)
            n += len(hidden)
        if intercept:
            gram -= np.outer(hidden_sum / np.sqrt(n), hidden_sum / np.sqrt(n)).astype(kind)
            cross -= np.outer(hidden_sum, target_sum / n)
        for start in range(0, units, 512):  # mirror the lower triangle in place
            stop = start + 512
            gram[start:stop, stop:] = gram[stop:, start:stop].T
            square = gram[start:stop, start:stop]
            square[...] = np.tril(square) + np.tril(square, -1).T
        return cls(n, gram, cross.astype(kind), (shift + hidden_sum / n).astype(kind), (target_sum / n).astype(kind))

    def ridge(self, alpha: float) -> np.ndarray:
        """argmin |H beta - Y|^2 + alpha |beta|^2 (L, k), by Cholesky with one step of iterative refinement.

        The residual of the normal equations is checked; where float32 does not reach 1e-4 the matrix is solved in float64.
        """
        beta = np.zeros_like(self.cross)
        try:
            matrix = self.gram.copy(order="F")
            matrix[np.diag_indices_from(matrix)] += alpha
            factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
            for _ in range(2):
                residual = self.cross - self._times(beta, alpha)
                beta += cho_solve(factor, residual, check_finite=False)
            error = np.linalg.norm(self.cross - self._times(beta, alpha))
            if error <= 1e-4 * np.linalg.norm(self.cross):
                return beta
        except np.linalg.LinAlgError:
            pass
        return self.ridge_path([alpha])[0]

    def _times(self, beta: np.ndarray, alpha: float) -> np.ndarray:
        return self.gram @ beta + self.gram.dtype.type(alpha) * beta

    def eigen(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (L,) ascending and vectors (L, L) of the Gram matrix, float64."""
        return eigh(self.gram.astype(np.float64), overwrite_a=True, check_finite=False)

    def ridge_path(self, alphas: Sequence[float], eigen: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
        """Ridge solutions (A, L, k) for many alphas from one eigendecomposition; alpha = 0 is the minimum-norm solution."""
        values, vectors = eigen or self.eigen()
        rotated = vectors.T @ self.cross  # (L, k)
        # rounding of the accumulated sums: what lies below it is not signal and must not be divided by
        noise = values[-1] * len(values) * np.finfo(self.gram.dtype).eps
        path = np.empty((len(alphas), *self.cross.shape), self.gram.dtype)
        for row, alpha in enumerate(alphas):
            keep = values > (noise if alpha == 0 else -alpha)
            inverse = np.where(keep, 1 / np.where(keep, np.maximum(values, 0 if alpha else noise) + alpha, 1), 0)
            path[row] = vectors @ (inverse[:, None] * rotated)
        return path

    def minimum_norm(self) -> np.ndarray:
        """The least-squares solution of minimum norm (L, k), pinv(H) Y."""
        return self.ridge_path([0.0])[0]
