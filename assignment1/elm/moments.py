"""Least squares, ridge, lasso and elastic net from the second moments of the hidden layer.

All four penalties need nothing but H'H and H'Y, so the rows are read once, in blocks, and a whole
path of penalties costs little more than one fit.

Shape letters: n rows, b rows of a block, L hidden units, k outputs (classes), A alphas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from .sparse import admm_path

Penalty: TypeAlias = Literal["ridge", "lasso", "elasticnet"] | None
Alphas: TypeAlias = Sequence[float] | np.ndarray
Block: TypeAlias = tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, np.ndarray | None]
Eigen: TypeAlias = tuple[np.ndarray, np.ndarray]  # values (L,) ascending, vectors (L, L)

REFINEMENTS = 2  # solutions by the Cholesky factor: the first, and one refinement
RESIDUAL = 1e-4  # relative residual of the normal equations that float32 must reach
BLOCK = 1024  # rows of the Gram matrix that are centred at once, to save memory

FLOAT64_UP_TO = 512  # units up to which ADMM runs in the precision of the moments


@dataclasses.dataclass
class Moments:
    """Centred second moments of hidden activations H (n, L) and targets Y (n, k).

    gram = sum (h - mean)(h - mean)' (L, L) and cross = sum (h - mean)(y - mean)' (L, k), float32
    or float64; hidden_mean (L,) and target_mean (k,) are zero when there is no intercept. Of
    weighted rows all of these are weighted, and n is the sum of the weights.
    """

    n: float
    gram: np.ndarray
    cross: np.ndarray
    hidden_mean: np.ndarray
    target_mean: np.ndarray

    @classmethod
    def accumulate(cls, blocks: Iterable[Block], intercept: bool = True) -> Moments:
        """Sums over row blocks (H (b, L), Y (b, k)) or (H, Y, weights (b,)).

        A weight of 2 counts as the row twice. Memory does not grow with the number of rows.

        Where a unit's mean is large beside its deviation, rows are shifted by the first block's
        mean before they are multiplied, so that float32 does not cancel. H may be overwritten.
        """
        sums: _Sums | None = None
        for hidden, target, *weight in blocks:
            if sums is None:
                sums = _Sums.start(hidden, target, intercept)
            sums.add(hidden, target, *weight)
        if sums is None:
            raise ValueError("no rows to accumulate")
        return sums.centred(intercept)

    # -- rows of another batch, process or class

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of rows (Chan, Golub & LeVeque 1983)."""
        return self._merged(other, 1)

    def __sub__(self, other: Moments) -> Moments:
        """The moments without the rows of `other`. Raises ValueError where none would be left."""
        if other.n >= self.n:
            raise ValueError(f"{other.n:g} rows cannot be taken from {self.n:g}")
        return self._merged(other, -1)

    def _merged(self, other: Moments, sign: int) -> Moments:
        n = self.n + sign * other.n
        share = sign * other.n / n

        # between the means; all means are zero where there is no intercept
        hidden = other.hidden_mean.astype(np.float64) - self.hidden_mean  # (L,)
        target = other.target_mean.astype(np.float64) - self.target_mean  # (k,)
        between = share * self.n
        kind = self.gram.dtype
        gram = self.gram + sign * other.gram
        for start in range(0, len(hidden), BLOCK):
            rows = slice(start, start + BLOCK)
            gram[rows] += (between * np.outer(hidden[rows], hidden)).astype(kind)
        cross = self.cross + sign * other.cross + between * np.outer(hidden, target)
        hidden_mean = self.hidden_mean + share * hidden
        target_mean = self.target_mean + share * target
        return Moments(
            n, gram, cross.astype(kind), hidden_mean.astype(kind), target_mean.astype(kind)
        )

    def over(self, total: Callable[[np.ndarray], np.ndarray]) -> Moments:
        """The moments of the rows of all processes, each of which calls this with its own.

        `total` adds an array up over the processes, as the all-reduce of MPI or torch does.
        """
        kind = self.gram.dtype
        n = float(total(np.array([self.n]))[0])
        hidden_mean = total(self.n * self.hidden_mean.astype(np.float64)) / n
        target_mean = total(self.n * self.target_mean.astype(np.float64)) / n

        # about the common mean, where moments simply add
        hidden = np.sqrt(self.n) * (self.hidden_mean - hidden_mean)
        target = np.sqrt(self.n) * (self.target_mean - target_mean)
        gram = total(self.gram + np.outer(hidden, hidden).astype(kind))
        cross = total(self.cross + np.outer(hidden, target))
        return Moments(
            n, gram, cross.astype(kind), hidden_mean.astype(kind), target_mean.astype(kind)
        )

    def with_outputs(self, places: np.ndarray, outputs: int) -> Moments:
        """The moments of `outputs` outputs, of which those here are at `places` (k,).

        The new outputs are zero in every row.
        """
        cross = np.zeros((len(self.cross), outputs), self.cross.dtype)
        cross[:, places] = self.cross
        target_mean = np.zeros(outputs, self.target_mean.dtype)
        target_mean[places] = self.target_mean
        return dataclasses.replace(self, cross=cross, target_mean=target_mean)

    # -- ridge

    def ridge(self, alpha: float) -> np.ndarray:
        """argmin |H beta - Y|^2 + alpha |beta|^2 (L, k), by Cholesky with iterative refinement.

        The residual of the normal equations is checked; where float32 does not reach RESIDUAL the
        matrix is solved in float64.
        """
        beta = np.zeros_like(self.cross)
        try:
            # Fortran order, as LAPACK wants it; the matrix is symmetric
            matrix = self.gram.copy().T
            matrix[np.diag_indices_from(matrix)] += alpha
            factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            return self.ridge_path([alpha])[0]

        for _ in range(REFINEMENTS):
            beta += cho_solve(factor, self._residual(beta, alpha), check_finite=False)
        if np.linalg.norm(self._residual(beta, alpha)) <= RESIDUAL * np.linalg.norm(self.cross):
            return beta
        return self.ridge_path([alpha])[0]

    def _residual(self, beta: np.ndarray, alpha: float) -> np.ndarray:
        """H'Y - (H'H + alpha I) beta (L, k)."""
        return self.cross - (self.gram @ beta + self.gram.dtype.type(alpha) * beta)

    def eigen(self) -> Eigen:
        """Eigenvalues (L,) ascending and vectors (L, L) of the Gram matrix, float64."""
        return eigh(self.gram.astype(np.float64), overwrite_a=True, check_finite=False)

    def ridge_path(self, alphas: Alphas, eigen: Eigen | None = None) -> np.ndarray:
        """Ridge solutions (A, L, k) for many alphas from one eigendecomposition.

        alpha = 0 is the least-squares solution of minimum norm.
        """
        values, vectors = eigen or self.eigen()
        rotated = vectors.T @ self.cross  # (L, k)

        # rounding of the accumulated sums: what lies below it is no signal to divide by
        noise = values[-1] * len(values) * np.finfo(self.gram.dtype).eps

        path = np.empty((len(alphas), *self.cross.shape), self.gram.dtype)  # (A, L, k)
        for row, alpha in enumerate(alphas):
            path[row] = vectors @ (damped_inverse(values, alpha, noise)[:, None] * rotated)
        return path

    def minimum_norm(self) -> np.ndarray:
        """The least-squares solution of minimum norm (L, k), pinv(H) Y."""
        return self.ridge_path([0.0])[0]

    # -- lasso and elastic net

    def elastic_net_path(
        self,
        alphas: Alphas,
        l1_ratio: float,
        eigen: Eigen | None = None,
        tolerance: float = 1e-3,
        max_rounds: int = 3000,
    ) -> np.ndarray:
        """Elastic-net solutions (A, L, k) for many alphas, in the scaling of scikit-learn.

        argmin |H beta - Y|^2 / 2n + alpha (l1_ratio |beta|_1 + (1 - l1_ratio) |beta|^2 / 2). Warns
        (ConvergenceWarning) when a column does not reach the tolerance in `max_rounds`.
        """
        values, vectors = eigen or self.eigen()
        # the tolerance is far above float32's rounding
        kind = self.gram.dtype if len(values) <= FLOAT64_UP_TO else np.dtype(np.float32)
        spectrum = (np.maximum(values, 0) / self.n).astype(kind)[:, None]  # (L, 1)
        vectors = vectors.astype(kind)
        target = vectors.T @ (self.cross / self.n).astype(kind)  # (L, k)
        solution = admm_path(
            spectrum, vectors, target, np.asarray(alphas, kind), l1_ratio, tolerance, max_rounds
        )
        shape = (len(values), len(alphas), self.cross.shape[1])
        return solution.reshape(shape).transpose(1, 0, 2)  # (A, L, k)

    # -- any penalty

    def path(
        self,
        penalty: Penalty,
        alphas: Alphas,
        l1_ratio: float = 0.5,
        eigen: Eigen | None = None,
    ) -> np.ndarray:
        """Output weights (A, L, k) of one penalty along `alphas`.

        Without a penalty the path has one entry, whatever the alphas are.
        """
        if penalty is None:
            return self.ridge_path([0.0], eigen)
        if penalty == "ridge":
            return self.ridge_path(alphas, eigen)
        return self.elastic_net_path(alphas, 1.0 if penalty == "lasso" else l1_ratio, eigen)

    def largest_alpha(self, l1_ratio: float = 1.0) -> float:
        """The smallest alpha at which every weight is zero: max |H'Y| / (n l1_ratio)."""
        return float(np.abs(self.cross).max() / self.n / l1_ratio)


def damped_inverse(values: np.ndarray, alpha: float, noise: float = 0) -> np.ndarray:
    """1 / (values + alpha) (L,) of eigenvalues (L,), with 0 for those that are only rounding.

    Without a penalty, alpha = 0, those are the eigenvalues up to `noise`.
    """
    lowest = noise if alpha == 0 else -alpha
    floor = noise if alpha == 0 else 0
    used = values > lowest
    damped = np.where(used, np.maximum(values, floor) + alpha, 1)
    return np.where(used, 1 / damped, 0)


@dataclasses.dataclass
class _Sums:
    """Running sums of one pass over the rows, each row less `shift`."""

    n: float
    gram: np.ndarray  # (L, L)
    cross: np.ndarray  # (L, k + 1), float64: H'Y, and H'1 in the last column
    target_sum: np.ndarray  # (k,)
    shift: np.ndarray  # (L,)
    product: np.ndarray  # (L, L), room for the products

    @classmethod
    def start(cls, hidden: np.ndarray, target: np.ndarray, intercept: bool) -> _Sums:
        """Empty sums of the first block's width and dtype."""
        units = hidden.shape[1]
        outputs = target.shape[1]
        kind = hidden.dtype
        gram = np.zeros((units, units), kind)
        product = np.empty((units, units), kind)
        shift = np.zeros(units, kind)
        if intercept and (np.abs(hidden.mean(0)) > 3 * hidden.std(0)).any():
            shift = hidden.mean(0)
        cross = np.zeros((units, outputs + 1))
        return cls(0, gram, cross, np.zeros(outputs), shift, product)

    def add(self, hidden: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> None:
        """Adds a block of rows (b, L) and (b, k), weighted by (b,); they may be overwritten."""
        if self.shift.any():
            hidden -= self.shift
        ones = np.ones(len(target))
        if weight is not None:  # all sums below are of products of two rows
            root = np.sqrt(weight)
            hidden *= root[:, None].astype(hidden.dtype)
            target = target * root[:, None]
            ones = root
        # one BLAS for every product, because numpy's and scipy's threads wait for each other's;
        # H'H is computed as half a product
        self.gram += np.matmul(hidden.T, hidden, out=self.product)
        self.cross += hidden.T @ np.column_stack([target, ones]).astype(hidden.dtype)
        self.target_sum += ones @ target
        self.n += float(ones @ ones)

    def centred(self, intercept: bool) -> Moments:
        """The moments about the means, or about zero where there is no intercept."""
        del self.product  # the centring needs memory
        kind = self.gram.dtype
        cross = self.cross[:, :-1]
        hidden_sum = self.cross[:, -1]
        target_sum = self.target_sum
        if not intercept:
            hidden_sum = 0 * hidden_sum
            target_sum = 0 * target_sum
        else:
            cross = cross - np.outer(hidden_sum, target_sum / self.n)
            for start in range(0, len(hidden_sum), BLOCK):
                rows = slice(start, start + BLOCK)
                self.gram[rows] -= np.outer(hidden_sum[rows], hidden_sum / self.n).astype(kind)
        hidden_mean = (self.shift + hidden_sum / self.n).astype(kind)
        target_mean = (target_sum / self.n).astype(kind)
        return Moments(self.n, self.gram, cross.astype(kind), hidden_mean, target_mean)
