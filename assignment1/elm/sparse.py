"""Lasso and elastic net by the alternating direction method of multipliers (ADMM).

Shape letters: L hidden units, k outputs (classes), A alphas, C = A k columns solved at once.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

# ADMM, Boyd et al. 2011
RELAXATION = 1.6  # share of the new solution, section 3.4.3 advises 1.5 to 1.8
REMAINDER = 0.6  # RELAXATION - 1, share of the old one that is taken off
CHECK_EVERY = 10  # rounds between two looks at the residuals
BALANCE_FROM = 0.26  # |log| of a change of rho that is worth making
BALANCE_LIMITS = (1 / 3, 3)
TINY = 1e-12


def admm_path(
    spectrum: np.ndarray,
    vectors: np.ndarray,
    target: np.ndarray,
    alphas: np.ndarray,
    l1_ratio: float,
    tolerance: float,
    max_rounds: int,
) -> np.ndarray:
    """Elastic-net solutions (L, C) for every alpha (A,) and output at once.

    `spectrum` (L, 1) and `vectors` (L, L) are those of the Gram matrix over n, `target` is H'Y / n
    (L, k) in their basis. Boyd et al. 2011, section 6.4. In the eigenbasis each round is
    two matrix products, whatever the step size rho of each column; columns leave as they converge.
    Warns (ConvergenceWarning) when a column does not reach the tolerance, the relative change and
    gap, in `max_rounds`.
    """
    columns = _Columns.start(spectrum, target, alphas)
    solution = np.zeros((len(vectors), len(columns.number)), vectors.dtype)  # (L, C)
    for rounds in range(1, max_rounds + 1):
        smooth, before = columns.step(spectrum, vectors, l1_ratio)
        if rounds % CHECK_EVERY:
            continue
        primal, change = columns.residuals(smooth, before)
        converged = (primal < tolerance) & (change < tolerance)
        solution[:, columns.number[converged]] = columns.split[:, converged]
        columns = columns.without(converged)
        columns.balance(primal[~converged], change[~converged])
        if not columns.number.size:
            return solution
    warnings.warn(
        f"{columns.number.size} of {solution.shape[1]} columns did not converge in "
        f"{max_rounds} rounds",
        ConvergenceWarning,
        stacklevel=3,
    )
    solution[:, columns.number] = columns.split
    return solution


@dataclasses.dataclass
class _Columns:
    """The columns that ADMM has not solved yet: one per alpha and output, C at the start."""

    number: np.ndarray  # (C,) place in the solution
    weight: np.ndarray  # (C,) alpha
    rho: np.ndarray  # (C,) step size
    target: np.ndarray  # (L, C) H'Y / n in the eigenbasis
    split: np.ndarray  # (L, C) the sparse copy of beta
    dual: np.ndarray  # (L, C) scaled dual variable

    @classmethod
    def start(cls, spectrum: np.ndarray, target: np.ndarray, alphas: np.ndarray) -> _Columns:
        """All columns at zero, from the spectrum (L, 1), the target (L, k) and the alphas (A,)."""
        units, outputs = target.shape
        count = len(alphas) * outputs
        kind = spectrum.dtype
        rho = max(np.median(spectrum), 1e-6 * spectrum[-1, 0])
        split, dual = np.zeros((2, units, count), kind)
        return cls(
            number=np.arange(count),
            weight=np.repeat(alphas, outputs),
            rho=np.full(count, rho, kind),
            target=np.tile(target, (1, len(alphas))),
            split=split,
            dual=dual,
        )

    def step(
        self, spectrum: np.ndarray, vectors: np.ndarray, l1_ratio: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """One round; returns the smooth copy of beta (L, C) and the sparse one before the round."""
        rotated = vectors.T @ (self.split - self.dual)
        curvature = spectrum + (self.weight * (1 - l1_ratio) + self.rho)
        rotated = (rotated * self.rho + self.target) / curvature
        smooth = vectors @ rotated

        # soft threshold of the over-relaxed step
        before = self.split
        moved = RELAXATION * smooth - REMAINDER * self.split + self.dual
        threshold = self.weight * l1_ratio / self.rho
        self.split = np.maximum(moved - threshold, 0) + np.minimum(moved + threshold, 0)
        self.dual = moved - self.split
        return smooth, before

    def residuals(self, smooth: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Relative gap between the copies and relative change of the sparse one, (C,) each."""
        size = np.linalg.norm(self.split, axis=0)
        gap = np.linalg.norm(smooth - self.split, axis=0) / np.maximum(size, TINY)
        primal = np.where(size > 0, gap, np.abs(smooth).max(0) > 1e-6)
        moved = np.linalg.norm(self.split - before, axis=0)
        change = moved / np.maximum(np.linalg.norm(self.dual, axis=0), TINY)
        return primal, change

    def without(self, converged: np.ndarray) -> _Columns:
        """The columns that are still open."""
        open_ = ~converged
        return _Columns(
            number=self.number[open_],
            weight=self.weight[open_],
            rho=self.rho[open_],
            target=self.target[:, open_],
            split=self.split[:, open_],
            dual=self.dual[:, open_],
        )

    def balance(self, primal: np.ndarray, change: np.ndarray) -> None:
        """Adapts the step sizes to the relative residuals (Boyd et al. 2011, section 3.4.1)."""
        ratio = np.sqrt(np.maximum(primal, 1e-9) / np.maximum(change, 1e-9)).clip(*BALANCE_LIMITS)
        worth_it = np.abs(np.log(ratio)) > BALANCE_FROM
        ratio = np.where(worth_it, ratio, 1).astype(self.rho.dtype)
        self.rho = self.rho * ratio
        self.dual = self.dual / ratio
