"""Proper orthogonal decomposition with a linear map of its coefficients.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, S steps, D = P F, M
snapshots, r modes.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from einops import rearrange

from common.cli import InputError
from final_project.baselines.inputs import Flows, checked, checked_start
from final_project.units import Units

RIDGES = (1.0, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10)  # strongest first: it wins where all blow up
MOST_MODES = 128
MOST_SNAPSHOTS = 2000
ROUNDING = 1e-12  # modes with less of the largest energy are rounding


class PODLinear:
    """POD and a linear map of its coefficients that depends on the parameters (DMD with control).

    z' = z + W [1, theta, z, theta x z], by ridge regression on whitened coefficients; the ridge is
    the one whose rollouts of the validation trajectories (else of the training ones) are best.
    Modes: as many as `modes`, or as hold `energy` of the variance, at most 128, from at most 2,000
    evenly spread snapshots. Nothing is clipped: a rollout that blows up comes out as such.
    """

    def __init__(
        self,
        modes: int | None = None,
        energy: float = 0.9999,
        ridges: tuple[float, ...] = RIDGES,
    ):
        self.modes = modes
        self.energy = energy
        self.ridges = ridges

    def fit(
        self, fields: np.ndarray, theta: np.ndarray, validation: Flows | None = None
    ) -> PODLinear:
        """Learns modes and map.

        Raises InputError as `checked`, and for modes < 1 or an energy outside (0, 1].
        """
        fields, theta = checked(fields, theta)
        if (self.modes is not None and self.modes < 1) or not 0 < self.energy <= 1:
            raise InputError(
                f"POD with modes {self.modes} and energy {self.energy}: "
                "allowed are at least 1 mode, energy in (0, 1]"
            )
        self.shape_ = fields.shape[2:]
        self.units_ = Units.of(fields)
        self.theta_units_ = Units.of(theta)

        # modes:
        every = -(-fields.shape[0] * fields.shape[1] // MOST_SNAPSHOTS)
        snapshots = self._flat(rearrange(fields, "n t p f -> (n t) p f")[::every])  # (M, D)
        self.mean_ = snapshots.mean(0)
        self.basis_ = self._modes(snapshots - self.mean_)  # (D, r)
        z = self._encode(fields)  # (N, T, r)
        self.spread_ = np.maximum(z.std((0, 1)), 1e-12)
        z = z / self.spread_
        theta = self.theta_units_.standardise(theta)

        # a map for each ridge, of which validation chooses one:
        maps = self._maps(z, theta)
        if validation is not None:
            known_fields, _ = checked(*validation)
            z = self._encode(known_fields) / self.spread_
            theta = self.theta_units_.standardise(validation[1])
        best = int(np.argmin([self._error(each, z, theta) for each in maps]))
        self.map_ = maps[best]
        self.ridge_ = self.ridges[best]
        return self

    def rollout(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """(N, P, F), (N, K) -> (N, S, P, F). Raises InputError as `checked_start`."""
        parameters = len(self.theta_units_.mean)
        first, theta = checked_start(first, theta, steps, self.shape_, parameters)
        with np.errstate(over="ignore", invalid="ignore"):
            z = self._encode(first) / self.spread_
            z = self._advance(
                self.map_, z, self.theta_units_.standardise(theta), steps
            )  # (N, S, r)
            flat = (z * self.spread_) @ self.basis_.T + self.mean_  # (N, S, D)
            fields = self.units_.physical(flat.reshape(len(first), steps, *self.shape_))
            return fields.astype(first.dtype)

    def _flat(self, fields: np.ndarray) -> np.ndarray:
        """Fields (..., P, F) -> standardised (..., D)."""
        return rearrange(self.units_.standardise(fields), "... p f -> ... (p f)")

    def _encode(self, fields: np.ndarray) -> np.ndarray:
        """Coefficients (N, ..., r) of fields (N, ..., P, F)."""
        return np.stack([(self._flat(part) - self.mean_) @ self.basis_ for part in fields])

    def _modes(self, x: np.ndarray) -> np.ndarray:
        """Orthonormal modes (D, r) of centred snapshots (M, D).

        By the eigenvectors of their Gram matrix (Sirovich 1987).
        """
        energy, vectors = scipy.linalg.eigh(x @ x.T)
        energy = energy[::-1]
        vectors = vectors[:, ::-1]
        rank = max(1, int((energy > ROUNDING * energy[0]).sum()))
        enough = 1
        if energy[0] > 0:
            share = np.cumsum(energy[:rank]) / energy[:rank].sum()
            enough = 1 + int(np.searchsorted(share, self.energy))
        count = min(self.modes or min(enough, MOST_MODES), rank)
        return x.T @ vectors[:, :count] / np.sqrt(np.maximum(energy[:count], 1e-300))

    def _maps(self, z: np.ndarray, theta: np.ndarray) -> list[np.ndarray]:
        """The map of each ridge, from whitened coefficients (N, T, r) and parameters (N, K)."""
        inputs = rearrange(self._features(z[:, :-1], theta[:, None]), "n t f -> (n t) f")
        outputs = rearrange(np.diff(z, axis=1), "n t r -> (n t) r")
        eigenvalues, vectors = scipy.linalg.eigh(inputs.T @ inputs / len(inputs))
        product = vectors.T @ (inputs.T @ outputs) / len(inputs)
        spectrum = np.maximum(eigenvalues, 0)
        return [vectors @ (product / (spectrum + ridge)[:, None]) for ridge in self.ridges]

    @staticmethod
    def _features(z: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """[1, theta, z, theta x z] of z (..., r) and theta (..., K)."""
        theta = np.broadcast_to(theta, (*z.shape[:-1], theta.shape[-1]))
        crossed = rearrange(theta[..., :, None] * z[..., None, :], "... k r -> ... (k r)")
        return np.concatenate([np.ones((*z.shape[:-1], 1)), theta, z, crossed], -1)

    def _advance(
        self, map_: np.ndarray, z: np.ndarray, theta: np.ndarray, steps: int
    ) -> np.ndarray:
        """Whitened coefficients (N, r) -> (N, S, r)."""
        path = []
        for _ in range(steps):
            z = z + self._features(z, theta) @ map_
            path.append(z)
        return np.stack(path, 1)

    def _error(self, map_: np.ndarray, z: np.ndarray, theta: np.ndarray) -> float:
        """Mean squared error of whole rollouts in normalised fields; infinite if they blow up."""
        with np.errstate(over="ignore", invalid="ignore"):
            rollout = self._advance(map_, z[:, 0], theta, z.shape[1] - 1)
            difference = (rollout - z[:, 1:]) * self.spread_
            error = float((difference**2).sum(-1).mean())
        return error if np.isfinite(error) else np.inf
