"""NLinear (Zeng et al. 2023) in closed form.

Shape letters: N origins, C context, H horizon, S series.
"""

from __future__ import annotations

import numpy as np

from common.forecasting.metrics import change


class RidgeWindow:
    """Changes from the last price, linear in the context's changes from it.

    One weight matrix (C - 1, H) per series; the ridge strength is chosen on validation among
    `alphas`, which are relative to the mean eigenvalue of the Gram matrix.
    """

    alphas = np.logspace(-4, 3, 15)

    def __init__(self, log: bool = True):
        self.log = log
        self.weights: list[np.ndarray] = []
        self.alpha: list[float] = []

    def fit(
        self,
        past: np.ndarray,
        future: np.ndarray,
        past_validation: np.ndarray,
        future_validation: np.ndarray,
    ) -> RidgeWindow:
        """Fits on prices (N, C, S), (N, H, S) of the training part; chooses on validation's."""
        x = self._inputs(past)  # (N, C - 1, S)
        y = change(future, past[:, -1], self.log)  # (N, H, S)
        x_validation = self._inputs(past_validation)
        y_validation = change(future_validation, past_validation[:, -1], self.log)
        self.weights = []
        self.alpha = []
        for s in range(x.shape[2]):
            candidates = self._solutions(x[..., s], y[..., s])
            errors = []
            for weights in candidates:
                error = x_validation[..., s] @ weights - y_validation[..., s]
                errors.append((error**2).mean())
            best = int(np.argmin(errors))
            self.weights.append(candidates[best])
            self.alpha.append(float(self.alphas[best]))
        return self

    def of_series(self, part: slice) -> RidgeWindow:
        """The same for some of the series."""
        ridge = RidgeWindow(self.log)
        ridge.weights = self.weights[part]
        ridge.alpha = self.alpha[part]
        return ridge

    def predict(self, past: np.ndarray) -> np.ndarray:
        """Prices (N, H, S) of prices (N, C, S)."""
        inputs = self._inputs(past)
        changes = np.stack(
            [inputs[..., s] @ weights for s, weights in enumerate(self.weights)], -1
        )  # (N, H, S)
        return np.exp(changes) * past[:, -1:] if self.log else changes + past[:, -1:]

    def _inputs(self, past: np.ndarray) -> np.ndarray:
        return change(past[:, :-1], past[:, -1], self.log)  # (N, C - 1, S)

    def _solutions(self, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        """Weights (C - 1, H) for every alpha, from one eigendecomposition of the Gram matrix."""
        variance, axes = np.linalg.eigh(x.T @ x)
        right = axes.T @ (x.T @ y)
        strengths = self.alphas * (variance.mean() or 1.0)  # 0: the price never moved
        return [axes @ (right / (variance + strength)[:, None]) for strength in strengths]
