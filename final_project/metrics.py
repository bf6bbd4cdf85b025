"""Scores of a rollout against the truth, numpy in float64: of each trajectory, time and field; nothing is averaged before the caller asks.

Time index i of an array is horizon i + 1 of a rollout: the given frame itself is not scored.
Shape letters: N trajectories, T frames, P nodes, F fields, M triangles, R rows and C columns of a regular grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse

from common.cli import InputError

EPS = 1e-8  # the official code's, in physical units
BANDS = (
    4.0,
    12.0,
)  # cycles per height where the low band ends and the high one begins; PDEBench's wavenumbers


def _pair(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64. Raises InputError unless both are (N, T, P, F)."""
    prediction, truth = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if prediction.shape != truth.shape or truth.ndim != 4:
        raise InputError(
            f"prediction {prediction.shape} and truth {truth.shape}: one shape (trajectory, time, node, field) is needed"
        )
    return prediction, truth


# ------------------------------------------------------------------------------------------------------ error of fields


def squared_relative_l2(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Squared error over squared truth, both summed over nodes: (N, T, P, F) twice -> (N, T, F).

    The metric of SEA's code (Esmati et al. 2024): 1e-2 is a relative L2 error of 10 %. Raises InputError for unequal shapes, as all here do.
    """
    prediction, truth = _pair(prediction, truth)
    return ((prediction - truth) ** 2).sum(2) / ((truth**2).sum(2) + EPS)


def relative_l2(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The root of `squared_relative_l2`: (N, T, P, F) twice -> (N, T, F)."""
    return np.sqrt(squared_relative_l2(prediction, truth))


def vrmse(prediction: np.ndarray, truth: np.ndarray, pooled: bool = False) -> np.ndarray:
    """RMSE over the truth's standard deviation, both over nodes: (N, T, P, F) twice -> (N, T, F); predicting the mean scores 1.

    The Well (Ohana et al. 2024). `pooled` takes the variance's mean over the trajectory's times, which is safe where a flow starts from rest.
    """
    prediction, truth = _pair(prediction, truth)
    variance = truth.var(2)
    if pooled:
        variance = variance.mean(1, keepdims=True)
    return np.sqrt(((prediction - truth) ** 2).mean(2) / (variance + EPS))


def pooled_nrmse(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """RMSE over nodes, over the truth's RMS over all nodes and times of the trajectory: (N, T, P, F) twice -> (N, T, F)."""
    prediction, truth = _pair(prediction, truth)
    return np.sqrt(((prediction - truth) ** 2).mean(2) / ((truth**2).mean((1, 2))[:, None] + EPS))


def correlation(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson's correlation over nodes: (N, T, P, F) twice -> (N, T, F).

    Where the truth or the prediction is the same at every node: 1 if both are, else 0.
    """
    deviations, norms, flat = [], [], []
    for field in _pair(prediction, truth):
        deviations.append(field - field.mean(2, keepdims=True))
        norms.append(np.sqrt((deviations[-1] ** 2).sum(2)))
        flat.append(norms[-1] <= 1e-12 * np.sqrt((field**2).sum(2)))  # below lies rounding
    either = flat[0] | flat[1]
    return np.where(
        either,
        flat[0] & flat[1],
        (deviations[0] * deviations[1]).sum(2) / np.where(either, 1, norms[0] * norms[1]),
    )


def time_to_correlation(
    correlations: np.ndarray, threshold: float = 0.8, dt: float = 1.0
) -> np.ndarray:
    """How long a rollout keeps a correlation of at least `threshold`: (N, T, F) -> (N, F) in the unit of dt; T dt where it never falls below.

    A correlation that is not a number has fallen below.
    """
    lost = ~(np.asarray(correlations) >= threshold)
    return dt * np.where(lost.any(1), lost.argmax(1), lost.shape[1])


# ------------------------------------------------------------------------------------------------------------- spectra


def band_energy(grids: np.ndarray, aspect: float, edges: Sequence[float] = BANDS) -> np.ndarray:
    """Energy of fields (..., R, C) in bands of wavenumber: (..., len(edges) + 1); its sum is the field's squared norm (Parseval).

    Cosine transform (orthonormal DCT-II: no periodicity needed). Mode (i, j) has i / 2 cycles per height along y, j / (2 aspect) along x,
    with aspect = width / height of the grid; a band holds edges[b - 1] <= |k| < edges[b].
    """
    energy = scipy.fft.dctn(np.asarray(grids, np.float64), axes=(-2, -1), norm="ortho") ** 2
    rows, columns = energy.shape[-2:]
    band = np.digitize(
        np.hypot(np.arange(rows)[:, None] / 2, np.arange(columns) / (2 * aspect)), edges
    )  # (R, C)
    return np.stack([energy[..., band == b].sum(-1) for b in range(len(edges) + 1)], -1)


def spectral_bands(
    prediction: np.ndarray,
    truth: np.ndarray,
    to_grid: Callable[[np.ndarray], np.ndarray],
    aspect: float,
    edges: Sequence[float] = BANDS,
) -> np.ndarray:
    """Energy of the error over that of the truth in the low, middle and high band: (N, T, P, F) twice -> (N, T, F, 3); 1 is a band lost.

    `to_grid` takes (..., P, F) to (..., F, R, C), as `baselines.Grid.to_grid` does. The truth's energy is its mean over the trajectory's times.
    """
    prediction, truth = _pair(prediction, truth)
    found = []
    for guess, true in zip(
        prediction, truth, strict=True
    ):  # one trajectory at a time: grids are large
        error, energy = (
            band_energy(to_grid(field), aspect, edges) for field in (guess - true, true)
        )  # (T, F, 3)
        found.append(error / (energy.mean(0) + EPS))
    return np.stack(found)


def probe_spectrum(signal: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (T // 2 + 1,) in 1 / dt's unit and power density (..., T // 2 + 1) of a signal (..., T): mean removed, Hann window."""
    return scipy.signal.periodogram(
        np.asarray(signal, np.float64), 1 / dt, "hann", detrend="constant"
    )


def dominant_frequency(signal: np.ndarray, dt: float) -> np.ndarray:
    """Frequency of a signal's (..., T) strongest oscillation, (...): the peak of the parabola through the three highest log powers.

    0 for a signal that is constant to rounding. Raises InputError below 8 samples.
    """
    signal = np.asarray(signal, np.float64)
    if signal.shape[-1] < 8:
        raise InputError(
            f"a probe with {signal.shape[-1]} samples: at least 8 are needed for a spectrum"
        )
    frequencies, power = probe_spectrum(signal, dt)
    log = np.log(power + np.finfo(float).tiny)
    peak = power[..., 1:-1].argmax(-1, keepdims=True) + 1
    low, middle, high = (
        np.take_along_axis(log, peak + offset, -1)[..., 0] for offset in (-1, 0, 1)
    )
    curvature = low - 2 * middle + high
    shift = np.clip((low - high) / (2 * np.where(curvature < 0, curvature, -np.inf)), -0.5, 0.5)
    constant = signal.std(-1) <= 1e-12 * np.abs(signal).max(-1)
    return np.where(constant, 0.0, (peak[..., 0] + shift) * frequencies[1])


# ------------------------------------------------------------------------------------------------------------- physics


def gradients(
    coordinates: np.ndarray, triangles: np.ndarray
) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array, np.ndarray]:
    """d/dx and d/dy of the piecewise linear (P1) function as matrices (M, P), and the triangles' areas (M,).

    Raises InputError where there is no triangle or one has no area.
    """
    corners = np.asarray(coordinates, np.float64)[triangles]  # (M, 3, 2)
    edges = np.roll(corners, -2, 1) - np.roll(corners, -1, 1)  # the edge opposite each corner
    double = (
        edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    )  # twice the signed area
    if not len(double) or np.any(np.abs(double) < 1e-14 * np.ptp(coordinates, 0).prod()):
        raise InputError(
            f"{len(double)} triangles: at least one is needed, and each must have an area"
        )
    rows, shape = np.repeat(np.arange(len(triangles)), 3), (len(triangles), len(coordinates))
    x, y = (
        scipy.sparse.csr_array(
            ((sign * edges[..., axis] / double[:, None]).ravel(), (rows, triangles.ravel())), shape
        )
        for axis, sign in ((1, -1), (0, 1))
    )
    return x, y, np.abs(double) / 2


def node_weights(coordinates: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area of the mesh that belongs to each node, (P,): a third of every triangle around it (lumped mass); sums to the mesh's area."""
    areas = gradients(coordinates, triangles)[2]
    return np.bincount(np.asarray(triangles).ravel(), np.repeat(areas / 3, 3), len(coordinates))


def velocity_gradient(
    velocity: np.ndarray, coordinates: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(RMS of du/dx + dv/dy, RMS of the whole velocity gradient), weighted by area: (..., P, 2) -> (...) each, in 1 / time."""
    velocity = np.asarray(velocity, np.float64)
    x, y, areas = gradients(coordinates, triangles)
    flat = np.moveaxis(velocity, -2, 0).reshape(len(coordinates), -1)  # (P, ... 2)
    dx, dy = (
        (matrix @ flat).reshape(len(areas), *velocity.shape[:-2], 2) for matrix in (x, y)
    )  # (M, ..., 2)
    share = areas / areas.sum()
    parts = (dx[..., 0] + dy[..., 1]) ** 2, (dx**2 + dy**2).sum(-1)
    divergent, whole = (np.sqrt(np.tensordot(share, part, 1)) for part in parts)
    return divergent, whole


def divergence(
    prediction: np.ndarray, truth: np.ndarray, coordinates: np.ndarray, triangles: np.ndarray
) -> np.ndarray:
    """RMS divergence of predicted velocities over the RMS velocity gradient of the true ones: (N, T, P, 2) twice -> (N, T).

    P1 gradients, exact for linear fields; the truth's gradient is pooled over the trajectory's times. `divergence(truth, truth, ...)` is
    the floor that sampling on the nodes sets.
    """
    prediction, truth = _pair(prediction, truth)
    scale = np.sqrt(
        (velocity_gradient(truth, coordinates, triangles)[1] ** 2).mean(1, keepdims=True)
    )  # (N, 1)
    return velocity_gradient(prediction, coordinates, triangles)[0] / (scale + EPS)


def mass_drift(alpha: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Change of a volume fraction's integral since time 0 over the integral at time 0: (N, T, P) and node weights (P,) -> (N, T), signed."""
    mass = np.asarray(alpha, np.float64) @ np.asarray(weights, np.float64)  # (N, T)
    return (mass - mass[:, :1]) / (mass[:, :1] + EPS)


def bounds_violation(alpha: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """How far the worst node lies outside [low, high]: (N, T, P) -> (N, T), 0 where none does."""
    alpha = np.asarray(alpha, np.float64)
    return np.maximum(np.maximum(low - alpha.min(-1), alpha.max(-1) - high), 0.0)


# ------------------------------------------------------------------------------------------------------------- collect


@np.errstate(
    over="ignore", invalid="ignore"
)  # a rollout that blew up scores inf or nan, and says so there
def score(
    prediction: np.ndarray,
    truth: np.ndarray,
    first: np.ndarray,
    field_names: Sequence[str],
    coordinates: np.ndarray,
    triangles: np.ndarray,
    to_grid: Callable[[np.ndarray], np.ndarray],
    aspect: float,
) -> dict[str, np.ndarray]:
    """All scores of rollouts (N, T, P, F) from the given frames `first` (N, P, F): {metric: (N, T, F)}, or (N, T) for one of the whole flow.

    divergence where fields u and v are there, mass_drift and bounds_violation where alpha is. Grid arguments as in `spectral_bands`.
    """
    prediction, truth = _pair(prediction, truth)
    bands = spectral_bands(prediction, truth, to_grid, aspect)
    found = {
        "squared_relative_l2": squared_relative_l2(prediction, truth),
        "relative_l2": relative_l2(prediction, truth),
        "vrmse": vrmse(prediction, truth),
        "vrmse_pooled": vrmse(prediction, truth, pooled=True),
        "pooled_nrmse": pooled_nrmse(prediction, truth),
        "correlation": correlation(prediction, truth),
        **{f"spectral_{name}": bands[..., b] for b, name in enumerate(("low", "middle", "high"))},
    }
    if {"u", "v"} <= set(field_names):
        velocity = [list(field_names).index(name) for name in "uv"]
        found["divergence"] = divergence(
            prediction[..., velocity], truth[..., velocity], coordinates, triangles
        )
    if "alpha" in field_names:
        alpha = list(field_names).index("alpha")
        whole = np.concatenate(
            [np.asarray(first)[:, None, :, alpha], prediction[..., alpha]], 1
        )  # (N, T + 1, P)
        found["mass_drift"] = mass_drift(whole, node_weights(coordinates, triangles))[:, 1:]
        found["bounds_violation"] = bounds_violation(prediction[..., alpha])
    return found


# ------------------------------------------------------------------------------------------------------------ intervals


def _means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means over resampled rows: (N, ...) -> (draws, ...)."""
    if not len(values):
        raise InputError("a bootstrap over 0 trajectories: at least one value is needed")
    rows = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    return values[rows].mean(1)


def _interval(statistic: np.ndarray) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points, each one of the draws: an infinite score stays infinite."""
    low, high = np.quantile(statistic, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def bootstrap(values: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of one value a trajectory (N,). Raises InputError for none (Efron 1979)."""
    return _interval(_means(np.asarray(values, np.float64), draws, seed))


def bootstrap_ratio(
    a: np.ndarray, b: np.ndarray, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of mean(a) / mean(b), trajectories (N,) resampled jointly: what both find hard cancels. Raises InputError for unequal lengths."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(
            f"a paired bootstrap of {a.shape} and {b.shape} values: one value a trajectory of each is needed"
        )
    means = _means(np.stack([a, b], 1), draws, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval(means[:, 0] / means[:, 1])
