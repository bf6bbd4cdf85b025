"""Leave-one-out predictions of ridge for a whole grid of alphas (PRESS, Allen 1974).

A row's leverage and the prediction without it follow from the fit to all rows, so that n fits per
alpha become one eigendecomposition of the Gram matrix and a second pass over the rows.

Shape letters: n rows, b rows of a block, L hidden units, k outputs (classes), A alphas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from .moments import Alphas, Block, Eigen, Moments, damped_inverse


@dataclasses.dataclass
class LeaveOneOut:
    """What a row's prediction without itself is made of, for alphas (A,), all above 0."""

    moments: Moments
    vectors: np.ndarray  # (L, L) eigenvectors of the Gram matrix
    inverse: np.ndarray  # (L, A) 1 / (eigenvalue + alpha)
    rotated: np.ndarray  # (L, A k) the solutions in the eigenbasis
    intercept: bool

    @classmethod
    def of(
        cls, moments: Moments, alphas: Alphas, intercept: bool = True, eigen: Eigen | None = None
    ) -> LeaveOneOut:
        """Prepares the grid from the moments of all rows."""
        values, vectors = eigen or moments.eigen()
        inverse = np.stack([damped_inverse(values, alpha) for alpha in alphas], axis=1)  # (L, A)
        cross = vectors.T @ moments.cross  # (L, k)
        rotated = inverse[:, :, None] * cross[:, None, :]  # (L, A, k)
        kind = moments.gram.dtype
        return cls(
            moments,
            vectors.astype(kind),
            inverse.astype(kind),
            rotated.reshape(len(values), -1).astype(kind),
            intercept,
        )

    def predictions(
        self, hidden: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
    ) -> np.ndarray:
        """Predictions (A, b, k) for rows (b, L), (b, k) of the fit, each without the row itself.

        The fit without row i is that to all rows with i's weight set to zero: the intercept is
        not penalised and alpha stays what it is. `hidden` is overwritten.
        """
        fitted, leverage = self._fitted(hidden, weight)

        # the residual without the row is the residual over 1 - leverage
        left = np.maximum(1 - leverage, np.finfo(leverage.dtype).eps)[:, :, None]  # (b, A, 1)
        predicted = target[:, None] - (target[:, None] - fitted) / left  # (b, A, k)
        return predicted.transpose(1, 0, 2)

    def _fitted(
        self, hidden: np.ndarray, weight: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predictions (b, A, k) of the fit to all rows, and leverages (b, A) of these rows."""
        hidden -= self.moments.hidden_mean
        axes = hidden @ self.vectors  # (b, L)
        fitted = (axes @ self.rotated).reshape(len(axes), self.inverse.shape[1], -1)
        fitted += self.moments.target_mean
        leverage = np.square(axes, out=axes) @ self.inverse  # (b, A)
        if self.intercept:
            leverage += leverage.dtype.type(1 / self.moments.n)
        if weight is not None:
            leverage *= weight[:, None].astype(leverage.dtype)
        return fitted, leverage

    def right(self, blocks: Iterable[Block]) -> np.ndarray:
        """Weight (A,) of the rows whose largest prediction is their class, over all blocks.

        The blocks (H, Y one-hot) or (H, Y, weights) are those of Moments.accumulate.
        """
        total = np.zeros(self.inverse.shape[1])
        for hidden, target, *weights in blocks:
            weight = weights[0] if weights else None
            fitted, leverage = self._fitted(hidden, weight)

            # over 1 - leverage, which leaves the order as it is, the row's own class loses its
            # leverage and the other classes lose nothing
            label = target.argmax(1)
            rows = np.arange(len(label))
            fitted[rows, :, label] -= leverage
            hits = (fitted.argmax(2) == label[:, None]).T  # (A, b)
            total += hits.sum(1) if weight is None else hits @ weight
        return total


def best_alpha(alphas: np.ndarray, accuracy: np.ndarray) -> float:
    """The alpha (A,) of the highest accuracy (A,), the largest one of equals.

    Accuracies that differ by rounding alone count as equal.
    """
    return float(np.max(alphas[accuracy >= accuracy.max() - 1e-12]))
