"""GARCH(1,1) with Student's t (Bollerslev 1987), fitted by `arch`: what a referee asks for first.

The variance of the next step is v' = omega + alpha r^2 + beta v; that of later steps is expected by
the same rule, and that of the change over h steps is their sum. Its quantiles are the scale times
those of the training part's changes over theirs (filtered historical simulation, Barone-Adesi et
al. 1999), made symmetric.

Shape letters: T times, N origins, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
from scipy.signal import lfilter

from common.forecasting.metrics import LEVELS
from common.forecasting.volatility import STILL, ScaledShape, symmetric
from common.forecasting.windows import Windows

LEAST_CHANGES = 100  # fewer do not fit three numbers
USUAL = (0.05, 0.94)  # alpha and beta, nearly RiskMetrics'
EXACTLY = {"ftol": 1e-12, "maxiter": 1000}  # so that a run repeats to the digits that are shown


@dataclasses.dataclass(frozen=True)
class Garch:
    """A fitted GARCH(1,1)-t of each series.

    `unit` (S,) is the deviation of a step's change in the training part; `omega`, `alpha` and
    `beta` (S,) are in units of its square; `shape` (H, S, Q) as LogHar has it.
    """

    unit: np.ndarray
    omega: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    shape: np.ndarray
    log: bool

    def scale(self, values: np.ndarray, horizon: int) -> np.ndarray:
        """Scale (T, H, S) of the changes after each row of prices (T, S)."""
        path = np.log(values) if self.log else values
        squares = (np.diff(path, axis=0) / self.unit) ** 2  # (T - 1, S)
        ahead = np.empty((len(values), *self.unit.shape))  # (T, S): variance of the next step
        ahead[0] = 1
        for s in range(len(self.unit)):
            inputs = self.omega[s] + self.alpha[s] * squares[:, s]
            ahead[1:, s], _ = lfilter([1], [1, -self.beta[s]], inputs, zi=[self.beta[s]])
        variances = [ahead]
        for _ in range(horizon - 1):
            variances.append(self.omega + (self.alpha + self.beta) * variances[-1])
        return np.sqrt(np.cumsum(np.stack(variances, 1), 1)) * self.unit

    def at(self, windows: Windows, origins: np.ndarray) -> ScaledShape:
        """What it forecasts at the origins (N,) of a history."""
        return ScaledShape(self.scale(windows.prices.values, windows.horizon)[origins], self.shape)


def fit_garch(windows: Windows) -> Garch:
    """The GARCH(1,1)-t of every series on the training rows, by maximum likelihood."""
    known = windows.prices.values[: windows.parts.train_end]
    path = np.log(known) if windows.log else known
    changes = np.diff(path, axis=0)  # (R - 1, S)
    unit = np.where(changes.std(0) > 0, changes.std(0), STILL)
    parameters = np.array([fit_series(series) for series in (changes / unit).T])  # (S, 3)
    omega, alpha, beta = parameters.T
    unscaled = np.zeros((windows.horizon, len(unit), len(LEVELS)))
    model = Garch(unit, omega, alpha, beta, unscaled, windows.log)

    train = windows.parts.train
    scale = model.scale(known, windows.horizon)[train]  # (N, H, S)
    shape = np.quantile(windows.changes(train) / scale, LEVELS, axis=0)
    return dataclasses.replace(model, shape=symmetric(np.moveaxis(shape, 0, -1)))


def fit_series(changes: np.ndarray) -> tuple[float, float, float]:
    """omega, alpha and beta of changes (R,) whose variance is 1; the usual ones of too few."""
    alpha, beta = USUAL
    usual = (1 - alpha - beta, alpha, beta)
    if len(changes) < LEAST_CHANGES or not changes.any():
        return usual
    from arch import arch_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: the best numbers found are used
        model = arch_model(changes, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
        found = model.fit(disp="off", show_warning=False, options=EXACTLY)
    omega, alpha, beta = (float(value) for value in found.params.iloc[:3])
    if not 0 <= beta < 1 or not np.isfinite([omega, alpha]).all():
        return usual
    return omega, alpha, beta
