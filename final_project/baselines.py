"""What a rollout model must beat: persistence, interpolation in the parameter, POD with a linear map, and FNO and U-Net one-step models.

Every control has `fit(fields, theta, validation)` and `rollout(first, theta, steps)`, in physical units; choices look at validation only.
Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, S steps; B batch, R rows and C columns of a grid, W width, D = P * F.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
import torch.nn.functional as F
from einops import rearrange
from scipy.spatial import Delaunay, KDTree, QhullError
from torch import Tensor, nn

from common.cli import InputError

Set = tuple[np.ndarray, np.ndarray]  # fields float (N, T, P, F) and parameters float (N, K)
RIDGES = (1.0, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10)  # strongest first: it wins where all rollouts blow up
MOST_MODES, MOST_SNAPSHOTS = 128, 2000


def _checked(fields: np.ndarray, theta: np.ndarray) -> Set:
    """Fields and parameters (float64) to fit on. Raises InputError for shapes that do not match, one frame, or values that are not finite."""
    fields, theta = np.asarray(fields), np.asarray(theta, np.float64)
    if fields.ndim != 4 or theta.ndim != 2 or len(theta) != len(fields) or not len(fields):
        raise InputError(
            f"fields {fields.shape} and parameters {theta.shape}: (trajectory, time, node, field) and (trajectory, parameter) are needed"
        )
    if fields.shape[1] < 2:
        raise InputError("trajectories of one frame: at least 2 are needed to fit a step")
    if not (np.isfinite(fields).all() and np.isfinite(theta).all()):
        raise InputError("fields or parameters to fit on hold NaN or inf")
    return fields, theta


def _asked(
    first: np.ndarray, theta: np.ndarray, steps: int, nodes: tuple[int, int], parameters: int
) -> Set:
    """Start frames and parameters (float64) of a rollout. Raises InputError where they do not match what was fitted, or steps < 1."""
    first, theta = np.asarray(first), np.asarray(theta, np.float64)
    if steps < 1:
        raise InputError(f"a rollout of {steps} steps: at least one is needed")
    if first.shape[1:] != nodes or theta.shape != (len(first), parameters):
        raise InputError(
            f"start frames {first.shape} and parameters {theta.shape}: fitted on (N, {nodes[0]}, {nodes[1]}) and (N, {parameters})"
        )
    return first, theta


@dataclasses.dataclass(frozen=True)
class Scaler:
    """Mean 0 and standard deviation 1 over all axes but the last; what is constant keeps its scale."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> Scaler:
        """Learns from training values (..., F)."""
        axes = tuple(range(values.ndim - 1))
        mean, std = values.mean(axes, dtype=np.float64), values.std(axes, dtype=np.float64)
        return cls(mean, np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-12), std, 1.0))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """(..., F) -> float64 (..., F)."""
        return (values - self.mean) / self.std

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """(..., F) -> float64 (..., F)."""
        return values * self.std + self.mean


# --------------------------------------------------------------------------------------------------------- no learning


class Persistence:
    """Nothing changes."""

    def fit(
        self, fields: np.ndarray, theta: np.ndarray, validation: Set | None = None
    ) -> Persistence:
        """Notes the shapes. Raises InputError as `_checked`."""
        fields, theta = _checked(fields, theta)
        self.shape_ = fields.shape[2:], theta.shape[1]
        return self

    def rollout(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """(N, P, F), (N, K) -> float32 (N, S, P, F). Raises InputError as `_asked`."""
        first, _ = _asked(first, theta, steps, *self.shape_)
        return np.repeat(first[:, None].astype(np.float32), steps, 1)


def closest(frames: np.ndarray, point: np.ndarray) -> tuple[float, float]:
    """(squared distance, position) of the point on the polyline through frames (T, D) that is closest to `point` (D,).

    A position of 3.25 lies a quarter of the way from frame 3 to frame 4: the phase is found between the frames.
    """
    start, step = frames[:-1], np.diff(frames, axis=0)
    offset = point - start
    along = np.clip((offset * step).sum(1) / np.maximum((step**2).sum(1), 1e-30), 0, 1)
    apart = ((offset - along[:, None] * step) ** 2).sum(1)
    best = int(apart.argmin())
    return float(apart[best]), float(best + along[best])


def last_period(frames: np.ndarray) -> float | None:
    """Length in frames of the last full period of a trajectory (T, D), or None where its end never came by before.

    Walking back from the last frame, the distance to it grows and, in a periodic flow, falls to (nearly) nothing again: to below a quarter.
    """
    apart = np.sqrt(((frames - frames[-1]) ** 2).sum(1))[::-1]  # (T,), by lag
    farthest, last = np.maximum.accumulate(apart), len(frames) - 1
    for lag in range(2, last):
        if apart[lag] <= min(apart[lag - 1], apart[lag + 1]) and apart[lag] < farthest[lag] / 4:
            start = last - lag - 1
            return last - start - closest(frames[start : start + 3], frames[-1])[1]
    return None


class ParameterInterpolation:
    """Training trajectories nearest below and above in the first parameter, each followed from the point closest to the given frame, and mixed.

    Which ones are nearest is judged over all standardised parameters; the mixture is linear in the first parameter. Outside the training
    range, and where that parameter is constant, the nearest one alone; with no parameter at all, the one that passes closest to the given frame.
    Past its end a trajectory repeats its last full period, or holds its last frame where it has none.
    """

    def fit(
        self, fields: np.ndarray, theta: np.ndarray, validation: Set | None = None
    ) -> ParameterInterpolation:
        """Keeps the training trajectories. Raises InputError as `_checked`."""
        self.fields_, self.theta_ = _checked(fields, theta)
        self.scale_, self.parameters_ = Scaler.fit(self.fields_), Scaler.fit(self.theta_)
        return self

    def rollout(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """(N, P, F), (N, K) -> float32 (N, S, P, F). Raises InputError as `_asked`."""
        first, theta = _asked(first, theta, steps, self.fields_.shape[2:], self.theta_.shape[1])
        mixed = [
            sum(
                weight * self._follow(row, frame, steps)
                for row, weight in self._neighbours(frame, query)
            )
            for frame, query in zip(first, theta, strict=True)
        ]
        return self.scale_.inverse(
            np.stack(mixed).reshape(len(first), steps, *first.shape[1:])
        ).astype(np.float32)

    def _frames(self, row: int) -> np.ndarray:
        return rearrange(self.scale_(self.fields_[row]), "t p f -> t (p f)")

    def _neighbours(self, frame: np.ndarray, query: np.ndarray) -> list[tuple[int, float]]:
        """(row, weight) of the one or two training trajectories to follow."""
        if not len(query):
            point = self.scale_(frame).ravel()
            return [
                (
                    min(
                        range(len(self.fields_)),
                        key=lambda row: closest(self._frames(row), point)[0],
                    ),
                    1.0,
                )
            ]
        distance = np.linalg.norm(self.parameters_(self.theta_) - self.parameters_(query), axis=1)
        known, wanted = self.theta_[:, 0], query[0]
        below, above = (
            np.where(side, distance, np.inf) for side in (known <= wanted, known > wanted)
        )
        low, high = int(below.argmin()), int(above.argmin())
        if not (np.isfinite(below[low]) and np.isfinite(above[high])):
            return [(int(distance.argmin()), 1.0)]
        share = (wanted - known[low]) / (known[high] - known[low])
        return [(low, 1 - share), (high, share)]

    def _follow(self, row: int, frame: np.ndarray, steps: int) -> np.ndarray:
        """Normalised frames (S, D) of a training trajectory after the point closest to `frame`, linear between its frames."""
        frames = self._frames(row)
        last = len(frames) - 1
        position = closest(frames, self.scale_(frame).ravel())[1] + np.arange(1, steps + 1)  # (S,)
        over = np.maximum(position - last, 0)
        if over.any() and (period := last_period(frames)):
            position -= np.ceil(over / period) * period
        position = np.minimum(position, last)
        before = np.minimum(position.astype(int), last - 1)
        part = (position - before)[:, None]
        return (1 - part) * frames[before] + part * frames[before + 1]


# ------------------------------------------------------------------------------------------------------- POD and a map


class PODLinear:
    """Proper orthogonal decomposition and a linear map of its coefficients that depends on the parameters (DMD with control).

    z' = z + W [1, theta, z, theta x z], by ridge regression on whitened coefficients; the ridge is the one whose rollouts of the
    validation trajectories (else of the training ones) are best. Modes: as many as `modes`, or as hold `energy` of the variance, at most 128,
    from at most 2,000 evenly spread snapshots. Nothing is clipped: a rollout that blows up comes out as such.
    """

    def __init__(
        self, modes: int | None = None, energy: float = 0.9999, ridges: tuple[float, ...] = RIDGES
    ):
        self.modes, self.energy, self.ridges = modes, energy, ridges

    def fit(
        self, fields: np.ndarray, theta: np.ndarray, validation: Set | None = None
    ) -> PODLinear:
        """Learns modes and map. Raises InputError as `_checked`, and for modes < 1 or an energy outside (0, 1]."""
        fields, theta = _checked(fields, theta)
        if (self.modes is not None and self.modes < 1) or not 0 < self.energy <= 1:
            raise InputError(
                f"POD with modes {self.modes} and energy {self.energy}: allowed are at least 1 mode, energy in (0, 1]"
            )
        self.shape_, self.scale_, self.parameters_ = (
            fields.shape[2:],
            Scaler.fit(fields),
            Scaler.fit(theta),
        )
        every = -(-fields.shape[0] * fields.shape[1] // MOST_SNAPSHOTS)
        snapshots = self._normal(rearrange(fields, "n t p f -> (n t) p f")[::every])  # (M, D)
        self.mean_ = snapshots.mean(0)
        self.basis_ = self._modes(snapshots - self.mean_)  # (D, r)
        z = self._encode(fields)  # (N, T, r)
        self.spread_ = np.maximum(z.std((0, 1)), 1e-12)
        z, theta = z / self.spread_, self.parameters_(theta)
        inputs = rearrange(self._features(z[:, :-1], theta[:, None]), "n t f -> (n t) f")
        outputs = rearrange(np.diff(z, axis=1), "n t r -> (n t) r")
        eigenvalues, vectors = scipy.linalg.eigh(inputs.T @ inputs / len(inputs))
        product = vectors.T @ (inputs.T @ outputs) / len(inputs)
        maps = [
            vectors @ (product / (np.maximum(eigenvalues, 0) + ridge)[:, None])
            for ridge in self.ridges
        ]
        judges = (
            (z, theta)
            if validation is None
            else (
                self._encode(_checked(*validation)[0]) / self.spread_,
                self.parameters_(validation[1]),
            )
        )
        best = int(np.argmin([self._error(map_, *judges) for map_ in maps]))
        self.map_, self.ridge_ = maps[best], self.ridges[best]
        return self

    def rollout(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """(N, P, F), (N, K) -> float32 (N, S, P, F). Raises InputError as `_asked`."""
        first, theta = _asked(first, theta, steps, self.shape_, len(self.parameters_.mean))
        with np.errstate(over="ignore", invalid="ignore"):
            z = self._advance(
                self.map_, self._encode(first) / self.spread_, self.parameters_(theta), steps
            )  # (N, S, r)
            flat = (z * self.spread_) @ self.basis_.T + self.mean_
            return self.scale_.inverse(flat.reshape(len(first), steps, *self.shape_)).astype(
                np.float32
            )

    def _normal(self, fields: np.ndarray) -> np.ndarray:
        return rearrange(self.scale_(fields), "... p f -> ... (p f)")

    def _encode(self, fields: np.ndarray) -> np.ndarray:
        return np.stack([(self._normal(part) - self.mean_) @ self.basis_ for part in fields])

    def _modes(self, x: np.ndarray) -> np.ndarray:
        """Orthonormal modes (D, r) of centred snapshots (M, D), by the eigenvectors of their Gram matrix (Sirovich 1987)."""
        energy, vectors = scipy.linalg.eigh(x @ x.T)
        energy, vectors = energy[::-1], vectors[:, ::-1]
        rank = max(1, int((energy > 1e-12 * energy[0]).sum()))  # below lies rounding
        enough = (
            1 + int(np.searchsorted(np.cumsum(energy[:rank]) / energy[:rank].sum(), self.energy))
            if energy[0] > 0
            else 1
        )
        count = min(self.modes or min(enough, MOST_MODES), rank)
        return x.T @ vectors[:, :count] / np.sqrt(np.maximum(energy[:count], 1e-300))

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
        found = []
        for _ in range(steps):
            z = z + self._features(z, theta) @ map_
            found.append(z)
        return np.stack(found, 1)

    def _error(self, map_: np.ndarray, z: np.ndarray, theta: np.ndarray) -> float:
        """Mean squared error of whole rollouts, in normalised fields; infinite where they blow up."""
        with np.errstate(over="ignore", invalid="ignore"):
            wrong = (self._advance(map_, z[:, 0], theta, z.shape[1] - 1) - z[:, 1:]) * self.spread_
            error = float((wrong**2).sum(-1).mean())
        return error if np.isfinite(error) else np.inf


# ---------------------------------------------------------------------------------------------------------------- grid


def interpolation(source: np.ndarray, target: np.ndarray) -> scipy.sparse.csr_array:
    """Matrix (targets, sources) that interpolates linearly on the sources' Delaunay triangles; the nearest source outside their hull, and on a source.

    Raises InputError where the sources (P, 2) span no area.
    """
    try:
        mesh = Delaunay(source)
    except (QhullError, ValueError):
        raise InputError(
            f"{len(source)} nodes that span no area; interpolation needs at least 3 that are not on one line"
        ) from None
    found = mesh.find_simplex(target)
    distance, nearest = KDTree(source).query(target)
    alone = (found < 0) | (distance < 1e-9 * np.ptp(source, axis=0).max())
    affine = mesh.transform[found]  # (targets, 3, 2)
    weights = np.einsum("tij,tj->ti", affine[:, :2], target - affine[:, 2])
    weights = np.concatenate([weights, 1 - weights.sum(1, keepdims=True)], 1)
    corners = mesh.simplices[found]
    corners[alone], weights[alone] = nearest[alone, None], (1.0, 0.0, 0.0)
    rows = np.repeat(np.arange(len(target)), 3)
    return scipy.sparse.csr_array(
        (weights.ravel(), (rows, corners.ravel())), (len(target), len(source))
    )


class Grid:
    """A regular grid of R rows (along y, from below) and C columns over the nodes' bounding box, and linear interpolation both ways.

    Where the nodes are the grid's points, both ways are the identity. A hole is filled linearly from its rim, so that a wall's value holds up
    to the wall; `mask` bool (R, C) is False there and outside the hull. `aspect` is width / height, as `metrics.band_energy` takes it.
    Raises InputError for fewer than 2 rows or columns, and for nodes that span no area.
    """

    def __init__(
        self, coordinates: np.ndarray, triangles: np.ndarray, rows: int = 32, columns: int = 96
    ):
        if min(rows, columns) < 2:
            raise InputError(f"a grid of {rows} x {columns}: at least 2 x 2 points are needed")
        coordinates = np.asarray(coordinates, np.float64)
        low, high = coordinates.min(0), coordinates.max(0)
        x, y = np.meshgrid(
            np.linspace(low[0], high[0], columns), np.linspace(low[1], high[1], rows)
        )
        points = np.stack([x.ravel(), y.ravel()], 1)  # (R * C, 2)
        self.rows, self.columns = rows, columns
        self.forward, self.backward = (
            interpolation(coordinates, points),
            interpolation(points, coordinates),
        )
        width, height = np.ptp(coordinates, axis=0) * np.array(
            [columns / (columns - 1), rows / (rows - 1)]
        )
        self.aspect = float(width / height)
        self.mask = covered(
            points, coordinates[triangles if len(triangles) else Delaunay(coordinates).simplices]
        ).reshape(rows, columns)

    def to_grid(self, fields: np.ndarray) -> np.ndarray:
        """(..., P, F) -> (..., F, R, C), same dtype."""
        return rearrange(self._apply(self.forward, fields), "... (r c) f -> ... f r c", r=self.rows)

    def to_nodes(self, grids: np.ndarray) -> np.ndarray:
        """(..., F, R, C) -> (..., P, F), same dtype."""
        return self._apply(self.backward, rearrange(grids, "... f r c -> ... (r c) f"))

    @staticmethod
    def _apply(matrix: scipy.sparse.csr_array, fields: np.ndarray) -> np.ndarray:
        flat = np.moveaxis(fields, -2, 0)  # (P, ..., F)
        found = (matrix @ flat.reshape(len(flat), -1)).reshape(-1, *flat.shape[1:])
        return np.moveaxis(found, 0, -2).astype(fields.dtype, copy=False)


def covered(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Which points (Q, 2) lie in or on one of the triangles with corners (M, 3, 2): bool (Q,)."""
    found = np.zeros(len(points), bool)
    slack = 1e-9 * np.ptp(points, axis=0).max() ** 2
    for part in np.array_split(corners, -(-len(corners) // 64)):  # (m, 3, 2)
        side, offset = np.roll(part, -1, 1) - part, points[:, None, None] - part  # (Q, m, 3, 2)
        turn = side[..., 0] * offset[..., 1] - side[..., 1] * offset[..., 0]  # (Q, m, 3)
        found |= ((turn >= -slack).all(-1) | (turn <= slack).all(-1)).any(-1)
    return found


# ------------------------------------------------------------------------------------------------------------ networks


class SpectralConvolution(nn.Module):
    """Multiplies the lowest modes of the Fourier transform by learned complex matrices (Li et al. 2021, section 4); weights are real pairs."""

    def __init__(self, width: int, modes: tuple[int, int]):
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(
            torch.randn(2, width, width, *modes, 2) / width / 2**0.5
        )  # of positive and of negative row frequencies

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, R, C) -> (B, W, R, C)."""
        m, n = self.modes
        spectrum, (up, down) = torch.fft.rfft2(x), torch.view_as_complex(self.weight)
        product = torch.zeros_like(spectrum)
        product[..., :m, :n] = torch.einsum("birc,iorc->borc", spectrum[..., :m, :n], up)
        product[..., -m:, :n] = torch.einsum("birc,iorc->borc", spectrum[..., -m:, :n], down)
        return torch.fft.irfft2(product, s=x.shape[-2:])


class FNO(nn.Module):
    """Fourier neural operator: fields (B, inputs, R, C) -> (B, outputs, R, C), zero before training; 1.2 M parameters as it stands.

    The domain is not periodic, so it is extended by an eighth of its sides while in Fourier layers. A small grid carries fewer modes than asked.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rows: int,
        columns: int,
        width: int = 24,
        layers: int = 4,
        modes: tuple[int, int] = (8, 16),
    ):
        super().__init__()
        self.pad = (0, max(2, columns // 8), 0, max(2, rows // 8))
        modes = (
            min(modes[0], (rows + self.pad[3]) // 2),
            min(modes[1], (columns + self.pad[1]) // 2 + 1),
        )
        self.stem = nn.Conv2d(inputs, width, 1)
        self.spectral = nn.ModuleList(SpectralConvolution(width, modes) for _ in range(layers))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(layers))
        self.head = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1), nn.GELU(), zero(nn.Conv2d(4 * width, outputs, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        x = F.pad(self.stem(x), self.pad)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            x = x + F.gelu(spectral(x) + local(x))
        return self.head(x[..., :rows, :columns])


class Residual(nn.Module):
    """Two convolutions, each after group normalisation and SiLU, and the input added."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.match = nn.Conv2d(inputs, width, 1) if inputs != width else nn.Identity()
        self.body = nn.Sequential(
            nn.GroupNorm(8, inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, R, C) -> (B, W, R, C)."""
        return self.match(x) + self.body(x)


class UNet(nn.Module):
    """U-Net: fields (B, inputs, R, C) -> (B, outputs, R, C), zero before training; 1.0 M parameters as it stands.

    Widths are multiples of 8 (the groups of a normalisation); sides are extended to a multiple of what the levels halve.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rows: int,
        columns: int,
        widths: tuple[int, ...] = (32, 64, 96, 128),
    ):
        super().__init__()
        factor = 2 ** (len(widths) - 1)
        self.pad = (0, -columns % factor, 0, -rows % factor)
        self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Residual(a, b) for a, b in zip((widths[0], *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            Residual(a + b, a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Sequential(nn.SiLU(), zero(nn.Conv2d(widths[0], outputs, 1)))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        x = self.stem(F.pad(x, self.pad, mode="replicate"))
        kept: list[Tensor] = []
        for block in self.down:
            x = block(F.avg_pool2d(x, 2) if kept else x)
            kept.append(x)
        kept.pop()
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), kept.pop()], 1))
        return self.head(x)[..., :rows, :columns]


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights and bias 0: a network that ends in it starts as persistence."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


# ---------------------------------------------------------------------------------------------------- one-step training


@dataclasses.dataclass(frozen=True)
class Training:
    """How both networks are trained; whichever of `steps` and `budget_seconds` (wall clock) is reached first ends it."""

    steps: int | None = 1500
    budget_seconds: float | None = None
    batch: int = 16
    lr: float = 1e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05
    """share of the training with a rising learning rate, before a cosine to zero"""
    noise: float = 0.02
    """standard deviation of the noise on inputs, in the fields' own; the target takes it back (Sanchez-Gonzalez et al. 2020)"""
    pushforward: int = 1
    """inputs are up to so many of the model's own steps away from the data, without gradient (Brandstetter et al. 2022)"""
    checks: int = 4
    """how often the validation rollouts are scored; the best weights are kept"""
    seed: int = 0


class Stepper(nn.Module):
    """State (B, F, R, C) -> the next one: state + jump * network([state, static, theta]).

    `static` (3, R, C) are x, y and the mask; `jump` (F,) is the RMS change in a step, so that a network's outputs are of order 1.
    """

    static: Tensor
    jump: Tensor

    def __init__(self, network: nn.Module, static: Tensor, jump: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("static", static)
        self.register_buffer("jump", jump[:, None, None])

    def forward(self, state: Tensor, theta: Tensor) -> Tensor:
        """theta (B, K) stands at every point."""
        size = (len(state), -1, *state.shape[2:])
        inputs = torch.cat(
            [state, self.static.expand(size), theta[:, :, None, None].expand(size)], 1
        )
        return state + self.jump * self.network(inputs)

    @torch.no_grad()
    def rollout(self, state: Tensor, theta: Tensor, steps: int) -> Iterator[Tensor]:
        """Yields the S states (B, F, R, C) after the given one."""
        for _ in range(steps):
            state = self(state, theta)
            yield state


def train(
    stepper: Stepper,
    states: Tensor,
    theta: Tensor,
    training: Training,
    judge: Callable[[], float] | None = None,
) -> dict[str, float | None]:
    """Trains in place on normalised states (N, T, F, R, C) and theta (N, K), and returns steps, seconds, last loss and validation error.

    The loss is the mean squared error in units of `jump`. `judge` scores the present weights, lower is better; the best ones are
    kept (the last ones without a judge, or where each of its rollouts blew up: validation is then None).
    Same steps and seed: same weights. Raises InputError with neither steps nor seconds, FloatingPointError for a loss that is not finite.
    """
    if not (training.steps or training.budget_seconds):
        raise InputError("a baseline's training needs steps or budget_seconds")
    device = stepper.static.device
    rng, generator = (
        np.random.default_rng(training.seed),
        torch.Generator().manual_seed(training.seed),
    )
    optimiser = torch.optim.AdamW(stepper.parameters(), weight_decay=training.weight_decay)
    marks = list(np.linspace(0, 1, training.checks + 1)[1:]) if judge else []
    started, step, done, best, kept = time.perf_counter(), 0, 0.0, np.inf, None
    while done < 1:
        ahead = min(int(rng.integers(training.pushforward + 1)), states.shape[1] - 2)
        rows = rng.integers(len(states), size=training.batch)
        frames = rng.integers(states.shape[1] - 1 - ahead, size=training.batch)
        state, target, parameters = (
            part.to(device)
            for part in (states[rows, frames], states[rows, frames + ahead + 1], theta[rows])
        )
        state = state + training.noise * torch.randn(state.shape, generator=generator).to(device)
        *_, state = [state, *stepper.rollout(state, parameters, ahead)]
        loss = ((stepper(state, parameters) - target) / stepper.jump).square().mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"{type(stepper.network).__name__}: the loss is {loss.item()} at step {step}; a smaller lr helps"
            )
        for group in optimiser.param_groups:
            group["lr"] = (
                training.lr
                * min(1, (done + 0.01) / (training.warmup + 0.01))
                * (1 + np.cos(np.pi * done))
                / 2
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step, seconds = step + 1, time.perf_counter() - started
        done = max(
            step / training.steps if training.steps else 0,
            seconds / training.budget_seconds if training.budget_seconds else 0,
        )
        if judge and marks and done >= marks[0]:
            marks = [mark for mark in marks if mark > done]
            if (error := judge()) < best:
                best, kept = (
                    error,
                    {name: value.clone() for name, value in stepper.state_dict().items()},
                )
    if kept:
        stepper.load_state_dict(kept)
    return {
        "steps": step,
        "seconds": time.perf_counter() - started,
        "loss": loss.item(),
        "validation": best if kept else None,
    }


class OneStep:
    """A one-step model on a grid, rolled out: `network(inputs, outputs, rows, columns)` is FNO or UNet, as they are or through `partial`.

    Fields and parameters are normalised by the training part. It stays on the grid over a whole rollout; `floor` tells what the grid costs.
    """

    def __init__(
        self,
        network: Callable[[int, int, int, int], nn.Module],
        grid: Grid,
        training: Training | None = None,
        device: str = "cpu",
    ):
        self.network, self.grid, self.training, self.device = (
            network,
            grid,
            training or Training(),
            device,
        )

    def fit(self, fields: np.ndarray, theta: np.ndarray, validation: Set | None = None) -> OneStep:
        """Trains; `trained_` is what `train` returns and `parameters_` a count. Raises as `_checked` and `train`."""
        fields, theta = _checked(fields, theta)
        self.shape_, self.scale_, self.theta_ = (
            fields.shape[2:],
            Scaler.fit(fields),
            Scaler.fit(theta),
        )
        states, grid = self._states(fields), self.grid
        place = np.stack(
            np.meshgrid(np.linspace(-1, 1, grid.columns), np.linspace(-1, 1, grid.rows))
        )
        static = torch.tensor(np.concatenate([place, grid.mask[None]]), dtype=torch.float32)
        jump = states.diff(dim=1).square().mean((0, 1, 3, 4)).sqrt()  # (F,)
        outputs = fields.shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.training.seed)
            network = self.network(
                outputs + len(static) + theta.shape[1], outputs, grid.rows, grid.columns
            )
        self.stepper_ = Stepper(network, static, torch.where(jump > 0, jump, 1.0)).to(self.device)
        self.parameters_ = sum(parameter.numel() for parameter in network.parameters())
        judge = None
        if validation is not None:
            known = _checked(*validation)
            judge = partial(self._error, self._states(known[0]), self._theta(known[1]))
        self.trained_ = train(self.stepper_, states, self._theta(theta), self.training, judge)
        return self

    def rollout(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """(N, P, F), (N, K) -> float32 (N, S, P, F). Raises InputError as `_asked`."""
        first, theta = _asked(first, theta, steps, self.shape_, len(self.theta_.mean))
        found = np.empty((len(first), steps, *self.shape_), np.float32)
        for rows in np.array_split(np.arange(len(first)), -(-len(first) // self.training.batch)):
            start, parameters = (
                self._states(first[rows]).to(self.device),
                self._theta(theta[rows]).to(self.device),
            )
            for step, state in enumerate(self.stepper_.rollout(start, parameters, steps)):
                found[rows, step] = self.scale_.inverse(self.grid.to_nodes(state.cpu().numpy()))
        return found

    def floor(self, fields: np.ndarray) -> np.ndarray:
        """Fields (..., P, F) taken to the grid and back: the best that this model could do."""
        return self.grid.to_nodes(self.grid.to_grid(fields))

    def _states(self, fields: np.ndarray) -> Tensor:
        """(N, ..., P, F) -> normalised float32 (N, ..., F, R, C), one trajectory at a time: float64 copies of all would be large."""
        return torch.stack(
            [
                torch.tensor(self.grid.to_grid(self.scale_(part)), dtype=torch.float32)
                for part in fields
            ]
        )

    def _theta(self, theta: np.ndarray) -> Tensor:
        return torch.tensor(self.theta_(theta), dtype=torch.float32)

    def _error(self, states: Tensor, theta: Tensor) -> float:
        """Mean squared error of whole rollouts of the given trajectories, in normalised fields."""
        total, path = 0.0, states.to(self.device)
        for step, state in enumerate(
            self.stepper_.rollout(path[:, 0], theta.to(self.device), states.shape[1] - 1), 1
        ):
            total += (state - path[:, step]).square().mean().item()
        return total / (states.shape[1] - 1)
