"""Scores of a rollout against the truth, in float64: one per trajectory, time and field.

Nothing is averaged here. Time index i of an array is horizon i + 1 of a rollout: the given frame
itself is not scored. Every function of a prediction and a truth raises InputError where their
shapes differ.

No score changes when a field is multiplied by a constant: quotients have no epsilon with a unit,
but a floor in units of the field. What is 0 over 0 is 0. VRMSE, correlation, the two upper spectral
bands and divergence do not change either when a constant is added to a field; the relative L2
errors, NRMSE and the lowest band are relative to the field's own size and therefore do.

Shape letters: N trajectories, T frames, P nodes, F fields, M triangles, B bands of wavenumbers,
R rows and C columns of a regular grid, D bootstrap draws, S trainings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse

from common.cli import InputError
from final_project.units import Units

# A frame is at rest below this share of a field's variance (or mean square) in training: its error
# is then relative to that share. (The official code adds 1e-8 in the units of the data.)
REST = 1e-8
ROUNDING = 1e-20  # a band with a smaller share of a field's energy holds rounding alone
# Cycles per height where the low band ends and the high one begins: PDEBench's wavenumbers.
BANDS = (4.0, 12.0)
BAND_NAMES = ("low", "middle", "high")
CORRELATED = 0.8  # a rollout counts as correlated with the truth from here on
DRAWS = 2000  # of a bootstrap
LEAST_SAMPLES = 8  # of a signal whose frequency is estimated

ToGrid = Callable[[np.ndarray], np.ndarray]  # (..., P, F) -> (..., F, R, C)


@dataclasses.dataclass(frozen=True)
class Domain:
    """Where fields live: nodes (P, 2), triangles (M, 3), and the regular grid for spectra.

    to_grid : (..., P, F) -> (..., F, R, C), as `baselines.grid.Grid.to_grid`.
    aspect : width / height of that grid.
    units : of the fields in training; None: of the truth that is scored.
    """

    field_names: Sequence[str]
    coordinates: np.ndarray
    triangles: np.ndarray
    to_grid: ToGrid
    aspect: float
    units: Units | None = None


def _pair(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64. Raises InputError unless both are (N, T, P, F)."""
    prediction = np.asarray(prediction, np.float64)
    truth = np.asarray(truth, np.float64)
    if prediction.shape != truth.shape or truth.ndim != 4:
        raise InputError(
            f"prediction {prediction.shape} and truth {truth.shape}: "
            "one shape (trajectory, time, node, field) is needed"
        )
    return prediction, truth


def share(error: np.ndarray, reference: np.ndarray, floor: np.ndarray | float = 0.0) -> np.ndarray:
    """error / reference, over `floor` where the reference is below it; 0 / 0 is 0."""
    error, divisor = np.broadcast_arrays(error, np.maximum(reference, floor))
    quotient = np.where(error == 0, 0.0, np.inf)
    return np.divide(error, divisor, out=quotient, where=divisor > 0)


# ----------------------------------------------------------------------------- error of fields


def squared_relative_l2(
    prediction: np.ndarray,
    truth: np.ndarray,
    offset: np.ndarray | float = 0.0,
    floor: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Squared error over squared truth, both summed over nodes: (N, T, P, F) twice -> (N, T, F).

    The metric of SEA's code (Esmati et al. 2024): 1e-2 is a relative L2 error of 10 %.
    offset (F,) : what was taken off both. floor (F,) : the least mean square to divide by.
    """
    prediction, truth = _pair(prediction, truth)
    error = ((prediction - truth) ** 2).mean(2)  # (N, T, F)
    return share(error, ((truth + offset) ** 2).mean(2), floor)


def relative_l2(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The root of `squared_relative_l2`: (N, T, P, F) twice -> (N, T, F)."""
    return np.sqrt(squared_relative_l2(prediction, truth))


def vrmse(
    prediction: np.ndarray,
    truth: np.ndarray,
    pooled: bool = False,
    floor: np.ndarray | float = 0.0,
) -> np.ndarray:
    """RMSE over the truth's standard deviation, both over nodes: (N, T, P, F) twice -> (N, T, F).

    Predicting the mean scores 1 (The Well, Ohana et al. 2024). `pooled` takes the variance's mean
    over the trajectory's times, which is safe where a flow starts from rest. floor (F,) : the least
    variance to divide by.
    """
    prediction, truth = _pair(prediction, truth)
    variance = truth.var(2)  # (N, T, F)
    if pooled:
        variance = variance.mean(1, keepdims=True)  # (N, 1, F)
    error = ((prediction - truth) ** 2).mean(2)
    return np.sqrt(share(error, variance, floor))


def pooled_nrmse(
    prediction: np.ndarray,
    truth: np.ndarray,
    offset: np.ndarray | float = 0.0,
    floor: np.ndarray | float = 0.0,
) -> np.ndarray:
    """RMSE over nodes, over the truth's RMS over nodes and times; arguments as for L2.

    (N, T, P, F) twice -> (N, T, F).
    """
    prediction, truth = _pair(prediction, truth)
    error = ((prediction - truth) ** 2).mean(2)  # (N, T, F)
    power = ((truth + offset) ** 2).mean((1, 2))[:, None]  # (N, 1, F)
    return np.sqrt(share(error, power, floor))


def correlation(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson's correlation over nodes: (N, T, P, F) twice -> (N, T, F).

    Where the truth or the prediction is the same at every node: 1 if both are, else 0.
    """
    prediction, truth = _pair(prediction, truth)
    one, norm_of_one, one_is_flat = _deviation(prediction)
    other, norm_of_other, other_is_flat = _deviation(truth)
    either = one_is_flat | other_is_flat
    both = one_is_flat & other_is_flat
    divisor = np.where(either, 1, norm_of_one * norm_of_other)
    return np.where(either, both, (one * other).sum(2) / divisor)


def _deviation(field: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deviations (N, T, P, F) from the mean over nodes, their norms (N, T, F), and which are 0."""
    deviation = field - field.mean(2, keepdims=True)
    norm = np.sqrt((deviation**2).sum(2))
    rounding = 1e-12 * np.sqrt((field**2).sum(2))
    return deviation, norm, norm <= rounding


def time_to_correlation(
    correlations: np.ndarray, threshold: float = CORRELATED, dt: float = 1.0
) -> np.ndarray:
    """How long a rollout stays above a correlation: (N, T, F) -> (N, F), in the unit of dt.

    T dt where it never falls below `threshold`; a correlation that is not a number has fallen.
    """
    lost = ~(np.asarray(correlations) >= threshold)  # (N, T, F)
    return dt * np.where(lost.any(1), lost.argmax(1), lost.shape[1])


# -------------------------------------------------------------------------------------- spectra


def band_energy(grids: np.ndarray, aspect: float, edges: Sequence[float] = BANDS) -> np.ndarray:
    """Energy of fields (..., R, C) in bands of wavenumber: (..., B) with B = len(edges) + 1.

    The sum over bands is the field's squared norm (Parseval). By the orthonormal cosine transform
    DCT-II, which needs no periodicity: mode (i, j) has i / 2 cycles per height along y and
    j / (2 aspect) along x, with aspect = width / height. Band b holds edges[b-1] <= |k| < edges[b].
    """
    energy = scipy.fft.dctn(np.asarray(grids, np.float64), axes=(-2, -1), norm="ortho") ** 2
    rows, columns = energy.shape[-2:]
    along_y = np.arange(rows)[:, None] / 2
    along_x = np.arange(columns) / (2 * aspect)
    band = np.digitize(np.hypot(along_y, along_x), edges)  # (R, C)
    return np.stack([energy[..., band == b].sum(-1) for b in range(len(edges) + 1)], -1)


def spectral_bands(
    prediction: np.ndarray,
    truth: np.ndarray,
    to_grid: ToGrid,
    aspect: float,
    edges: Sequence[float] = BANDS,
    offset: np.ndarray | float = 0.0,
    floor: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Energy of the error over that of the truth per band: (N, T, P, F) twice -> (N, T, F, B).

    1 is a band lost. The truth's energy is its mean over the trajectory's times. Grid arguments as
    in `Domain`, the others as in `squared_relative_l2`; the floor is of a band's energy per point.
    """
    prediction, truth = _pair(prediction, truth)
    ratios = []
    for guess, true in zip(prediction, truth, strict=True):  # one at a time: grids are large
        grids = to_grid(true + offset)  # (T, F, R, C)
        error = band_energy(to_grid(guess - true), aspect, edges)  # (T, F, B)
        energy = band_energy(grids, aspect, edges).mean(0)  # (F, B)
        varying = grids.var((-2, -1)).mean(0)  # (F,)
        least = np.maximum(floor, ROUNDING * varying)[:, None] * grids[0, 0].size
        ratios.append(share(error, energy, least))
    return np.stack(ratios)


def probe_spectrum(signal: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (T // 2 + 1,) in 1 / dt's unit and power density of a signal (..., T).

    The mean is removed; Hann window.
    """
    signal = np.asarray(signal, np.float64)
    return scipy.signal.periodogram(signal, 1 / dt, "hann", detrend="constant")


def dominant_frequency(signal: np.ndarray, dt: float) -> np.ndarray:
    """Frequency (...) of the strongest oscillation of a signal (..., T), 0 where it is constant.

    The peak of the parabola through the three highest log powers. Raises InputError below
    LEAST_SAMPLES samples.
    """
    signal = np.asarray(signal, np.float64)
    if signal.shape[-1] < LEAST_SAMPLES:
        raise InputError(
            f"a probe with {signal.shape[-1]} samples: "
            f"at least {LEAST_SAMPLES} are needed for a spectrum"
        )
    frequencies, power = probe_spectrum(signal, dt)
    log = np.log(power + np.finfo(float).tiny)
    peak = power[..., 1:-1].argmax(-1, keepdims=True) + 1  # (..., 1)
    low = np.take_along_axis(log, peak - 1, -1)[..., 0]
    middle = np.take_along_axis(log, peak, -1)[..., 0]
    high = np.take_along_axis(log, peak + 1, -1)[..., 0]

    curvature = low - 2 * middle + high
    downward = np.where(curvature < 0, curvature, -np.inf)  # else no shift
    shift = np.clip((low - high) / (2 * downward), -0.5, 0.5)
    constant = signal.std(-1) <= 1e-12 * np.abs(signal).max(-1)
    return np.where(constant, 0.0, (peak[..., 0] + shift) * frequencies[1])


# -------------------------------------------------------------------------------------- physics


def gradients(
    coordinates: np.ndarray, triangles: np.ndarray
) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array, np.ndarray]:
    """d/dx and d/dy of the piecewise linear (P1) function as matrices (M, P), and areas (M,).

    Raises InputError where there is no triangle or one has no area.
    """
    corners = np.asarray(coordinates, np.float64)[triangles]  # (M, 3, 2)
    edges = np.roll(corners, -2, 1) - np.roll(corners, -1, 1)  # opposite each corner
    first = edges[:, 0]
    second = edges[:, 1]
    double = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]  # twice the signed area
    smallest = 1e-14 * np.ptp(coordinates, 0).prod()
    if not len(double) or np.any(np.abs(double) < smallest):
        raise InputError(
            f"{len(double)} triangles: at least one is needed, and each must have an area"
        )

    rows = np.repeat(np.arange(len(triangles)), 3)
    entries = (rows, np.ravel(triangles))
    shape = (len(triangles), len(coordinates))
    x_slopes = -edges[..., 1] / double[:, None]  # (M, 3), of each corner's hat function
    y_slopes = edges[..., 0] / double[:, None]
    x = scipy.sparse.csr_array((x_slopes.ravel(), entries), shape)
    y = scipy.sparse.csr_array((y_slopes.ravel(), entries), shape)
    return x, y, np.abs(double) / 2


def node_weights(coordinates: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area of the mesh that belongs to each node, (P,): a third of every triangle around it.

    The lumped mass; sums to the mesh's area.
    """
    _, _, areas = gradients(coordinates, triangles)
    thirds = np.repeat(areas / 3, 3)
    return np.bincount(np.asarray(triangles).ravel(), thirds, len(coordinates))


def velocity_gradient(
    velocity: np.ndarray, coordinates: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """RMS of du/dx + dv/dy and RMS of the whole velocity gradient: (..., P, 2) -> (...) each.

    Weighted by area, in 1 / time.
    """
    velocity = np.asarray(velocity, np.float64)
    x, y, areas = gradients(coordinates, triangles)
    flat = np.moveaxis(velocity, -2, 0).reshape(len(coordinates), -1)  # (P, ... 2)
    shape = (len(areas), *velocity.shape[:-2], 2)
    dx = (x @ flat).reshape(shape)  # (M, ..., 2)
    dy = (y @ flat).reshape(shape)
    share = areas / areas.sum()
    divergent = (dx[..., 0] + dy[..., 1]) ** 2  # (M, ...)
    whole = (dx**2 + dy**2).sum(-1)
    return np.sqrt(np.tensordot(share, divergent, 1)), np.sqrt(np.tensordot(share, whole, 1))


def divergence(
    prediction: np.ndarray,
    truth: np.ndarray,
    coordinates: np.ndarray,
    triangles: np.ndarray,
    floor: float = 0.0,
) -> np.ndarray:
    """RMS divergence of predicted velocities over the RMS velocity gradient of the true ones.

    (N, T, P, 2) twice -> (N, T). P1 gradients, exact for linear fields; the truth's gradient is
    pooled over the trajectory's times. `divergence(truth, truth, ...)` is the lower bound that
    sampling on the nodes sets. floor : the least gradient to divide by.
    """
    prediction, truth = _pair(prediction, truth)
    _, true_gradient = velocity_gradient(truth, coordinates, triangles)  # (N, T)
    scale = np.sqrt((true_gradient**2).mean(1, keepdims=True))  # (N, 1)
    divergent, _ = velocity_gradient(prediction, coordinates, triangles)
    return share(divergent, scale, floor)


def mass_drift(alpha: np.ndarray, weights: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Signed change of a volume fraction's integral since time 0, relative to that at time 0.

    (N, T, P) and node weights (P,) -> (N, T). floor : the least integral to divide by.
    """
    mass = np.asarray(alpha, np.float64) @ np.asarray(weights, np.float64)  # (N, T)
    change = mass - mass[:, :1]
    return np.sign(change) * share(np.abs(change), mass[:, :1], floor)


def bounds_violation(alpha: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """How far the worst node lies outside [low, high]: (N, T, P) -> (N, T), 0 where none does."""
    alpha = np.asarray(alpha, np.float64)
    below = low - alpha.min(-1)
    above = alpha.max(-1) - high
    return np.maximum(np.maximum(below, above), 0.0)


# ----------------------------------------------------------------------------------- all scores


@np.errstate(over="ignore", invalid="ignore")  # a rollout that blew up scores inf or nan
def score(
    prediction: np.ndarray, truth: np.ndarray, first: np.ndarray, domain: Domain
) -> dict[str, np.ndarray]:
    """All scores of rollouts (N, T, P, F) from the given frames `first` (N, P, F), by metric.

    (N, T, F) each, or (N, T) for the metrics of the whole flow: divergence where the fields u and v
    exist, mass_drift and bounds_violation where alpha does.
    """
    prediction, truth = _pair(prediction, truth)
    units = domain.units or Units.of(truth)

    # in units of their own, so that no score depends on those of the data:
    guess = units.centred(prediction)
    true = units.centred(truth)
    offset = units.mean / units.scale  # (F,): the mean in these units
    size = {"offset": offset, "floor": REST * (1 + offset**2)}
    squared = squared_relative_l2(guess, true, **size)
    scores = {
        "squared_relative_l2": squared,
        "relative_l2": np.sqrt(squared),
        "vrmse": vrmse(guess, true, floor=REST),
        "vrmse_pooled": vrmse(guess, true, pooled=True, floor=REST),
        "pooled_nrmse": pooled_nrmse(guess, true, **size),
        "correlation": correlation(guess, true),
    }
    grid = (domain.to_grid, domain.aspect, BANDS)
    bands = spectral_bands(guess, true, *grid, offset=offset, floor=REST**2)  # (N, T, F, 3)
    for number, name in enumerate(BAND_NAMES):
        scores[f"spectral_{name}"] = bands[..., number]

    names = list(domain.field_names)
    if {"u", "v"} <= set(names):
        velocity = [names.index("u"), names.index("v")]
        scores["divergence"] = velocity_scores(guess, true, velocity, domain, units.scale)
    if "alpha" in names:
        number = names.index("alpha")
        given = np.asarray(first, np.float64)[:, None]  # (N, 1, P, F)
        alpha = np.concatenate([given, prediction], 1)[..., number]  # (N, T + 1, P)
        weights = node_weights(domain.coordinates, domain.triangles)
        least = REST * weights.sum() * np.hypot(units.mean, units.std)[number]
        scores["mass_drift"] = mass_drift(alpha, weights, least)[:, 1:]
        scores["bounds_violation"] = bounds_violation(alpha[:, 1:])
    return scores


def velocity_scores(
    guess: np.ndarray, true: np.ndarray, velocity: list[int], domain: Domain, scale: np.ndarray
) -> np.ndarray:
    """Divergence (N, T) of the two fields `velocity`; fields (N, T, P, F) are over `scale` (F,)."""
    common = scale[velocity] / scale[velocity].max()  # u and v in one unit
    extent = np.ptp(domain.coordinates, axis=0).max()
    return divergence(
        guess[..., velocity] * common,
        true[..., velocity] * common,
        domain.coordinates,
        domain.triangles,
        floor=np.sqrt(REST) / extent,
    )


# ------------------------------------------------------------------------------------ intervals


def bootstrap(values: np.ndarray, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval (Efron 1979) of the mean of values (S, N), or (N,) of one training.

    Trainings S and trajectories N are resampled together, as in `resampled_means`. Raises
    InputError where there is no trajectory.
    """
    values = _by_training(values)
    rows, generator = _trajectories(values.shape[1], draws, seed)
    return _interval(resampled_means(values, rows, generator))


def bootstrap_ratio(
    a: np.ndarray, b: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of mean(a) / mean(b), values (S, N) of two models, or (N,) of one training.

    The same trajectories N are resampled for both, so that what is hard for both cancels; the
    trainings S of each, which may differ in number, independently. With one training of each the
    interval is over trajectories alone. Raises InputError for unequal numbers of trajectories.
    """
    a = _by_training(a)
    b = _by_training(b)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"a paired bootstrap of {a.shape[1]} and {b.shape[1]} values: "
            "one value per trajectory of each is needed"
        )
    rows, generator = _trajectories(a.shape[1], draws, seed)
    over = resampled_means(a, rows, generator)
    under = resampled_means(b, rows, generator)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval(over / under)


def resampled_means(
    values: np.ndarray, rows: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Means (D,) over resampled trainings and the resampled trajectories `rows` (D, N).

    values : (S, N). Every draw takes rows and columns of the table independently (the pigeonhole
    bootstrap, Owen 2007), and only S - 1 of S trainings: the variance over trainings is then
    unbiased (Rao & Wu 1988), where S of S would make it (S - 1) / S of what it is. One training is
    kept as it is.
    """
    trainings = len(values)
    if trainings == 1:
        return values[0][rows].mean(1)
    chosen = generator.integers(trainings, size=(len(rows), trainings - 1))  # (D, S - 1)
    return values[chosen[:, :, None], rows[:, None, :]].mean((1, 2))


def _by_training(values: np.ndarray) -> np.ndarray:
    """Values as float64 (S, N). Raises InputError for more axes."""
    table = np.atleast_2d(np.asarray(values, np.float64))
    if table.ndim != 2:
        raise InputError(f"a bootstrap of values {table.shape}: needed are (training, trajectory)")
    return table


def _trajectories(count: int, draws: int, seed: int) -> tuple[np.ndarray, np.random.Generator]:
    """Row numbers (D, N) of resampled trajectories, and the generator for what else is drawn."""
    if not count:
        raise InputError("a bootstrap over 0 trajectories: at least one value is needed")
    generator = np.random.default_rng(seed)
    return generator.integers(count, size=(draws, count)), generator


def _interval(statistic: np.ndarray) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points, each one of the draws: an infinite score stays infinite."""
    low, high = np.quantile(statistic, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)
