"""Scores of rollouts of held-out trajectories, as rows of metrics.json.

Shape letters: N trajectories, T frames, S steps, P nodes, F fields, K parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import JsonObject
from common.results import Metric, Row, mean_and_std, print_table
from common.run import Run
from common.weights import count_parameters
from final_project.autoencoder import MeshAutoencoder
from final_project.baselines.grid import Grid, Nodes
from final_project.baselines.networks import FNO, UNet
from final_project.baselines.onestep import Check, OneStep
from final_project.baselines.pod import PODLinear
from final_project.baselines.simple import ParameterInterpolation, Persistence
from final_project.baselines.transolver import Transolver
from final_project.config import CONTROLS, FLOORS, MODELS, BaselineName, Config, StepperName
from final_project.data import Flow, Split
from final_project.fit import TrainingFlow, log_validation
from final_project.mesh import triangulate
from final_project.metrics import Domain, bootstrap, bootstrap_ratio, score, time_to_correlation
from final_project.surrogate import decode, encode
from final_project.units import Units

PARTS = ("interpolation", "gap", "extrapolation")  # of the test trajectories
LONGER = "longer"  # the steps of the interpolation part beyond the trained horizon
OTHER = "other starts"  # the interpolation part from the middle of the trained frames
GIVEN = "given"  # trajectories that evaluate.py is given: a split of its own, no test part
HORIZONS = (1, 10, 50)  # steps that are also scored alone
CORRELATED = 0.8  # a rollout follows the truth while their correlation is as high as this

RESAMPLED = (
    "95 % bootstrap interval over training seeds and trajectories together; over trajectories "
    "alone where n_seeds is 1"
)
METRICS_INFO = {
    "relative_l2_squared": Metric(
        "share",
        "lower",
        "squared error over squared field, summed over nodes, mean over steps of a rollout from "
        "one frame (the official metric); 1: as large as the field, 0.01: 10 % of it; a model's "
        "autoencoder alone is its floor, and as published is no trained ViT-SEA; does not depend "
        "on a field's unit, but on its zero: a pressure of 101,325 with a deviation of 1 has tiny "
        "errors, so compare by VRMSE",
    ),
    "relative_l2_squared_low": Metric("share", "lower", f"lower end of its {RESAMPLED}"),
    "relative_l2_squared_high": Metric("share", "lower", f"upper end of its {RESAMPLED}"),
    "relative_l2": Metric(
        "share", "lower", "norm of the error over that of the field; 1: as large as the field"
    ),
    "vrmse": Metric(
        "sd",
        "lower",
        "RMSE over the field's standard deviation over nodes (pooled over the trajectory); "
        "1: predicting the mean; depends neither on a field's unit nor on its zero",
    ),
    "nrmse": Metric(
        "share",
        "lower",
        "RMSE over the field's RMS over the trajectory, safe near rest; 1: as large as the field",
    ),
    "spectral_low": Metric(
        "share",
        "lower",
        "energy of the error below 4 cycles per height over the field's energy there; "
        "1: the band is lost",
    ),
    "spectral_middle": Metric("share", "lower", "the same, 4 to 12 cycles per height"),
    "spectral_high": Metric("share", "lower", "the same, above 12 cycles per height"),
    "time_to_correlation": Metric(
        "time",
        "higher",
        f"until the correlation with the truth falls below {CORRELATED}; the whole horizon if it "
        "never does",
    ),
    "final_correlation": Metric(
        "correlation",
        "higher",
        "with the truth over nodes, mean over the last tenth of the longer steps; 1: the same "
        "pattern, 0: none in common",
    ),
    "divergence": Metric(
        "ratio",
        "lower",
        "RMS divergence over the RMS velocity gradient of the truth; persistence repeats a true "
        "frame, so its value is what sampling on the nodes leaves of the simulation's",
    ),
    "mass_drift": Metric(
        "share",
        "lower",
        "absolute change of alpha's integral since the given frame; 0: conserved",
    ),
    "bounds_violation": Metric(
        "share", "lower", "how far the worst node's alpha lies outside [0, 1]"
    ),
    "exchange_ratio": Metric(
        "ratio",
        "lower",
        "squared relative L2 of a model with exchange over that of the control that is named, "
        "without it or with another coupling, which has as many parameters; the same trajectories, "
        "mean over seeds of each; 1: the exchange changes nothing",
    ),
    "exchange_ratio_low": Metric("ratio", "lower", f"lower end of its paired {RESAMPLED}"),
    "exchange_ratio_high": Metric("ratio", "lower", f"upper end of its paired {RESAMPLED}"),
}
SCORES = {  # metric: its name in `metrics.score`
    "relative_l2_squared": "squared_relative_l2",
    "relative_l2": "relative_l2",
    "vrmse": "vrmse_pooled",
    "nrmse": "pooled_nrmse",
    "spectral_low": "spectral_low",
    "spectral_middle": "spectral_middle",
    "spectral_high": "spectral_high",
    "divergence": "divergence",
    "mass_drift": "mass_drift",
    "bounds_violation": "bounds_violation",
}

# first frames (N, P, F), parameters (N, K), steps -> fields (N, S, P, F)
Predict = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
Scores = dict[str, dict[str, np.ndarray]]  # {part: {score: (N, S, F), or (N, S) of the whole flow}}


@dataclass(frozen=True)
class Scored:
    """A model's scores, one set per seed."""

    model: str
    seeds: Sequence[Scores]
    params: int | None = None
    seconds: float | None = None

    def stacked(self, part: str, name: str) -> np.ndarray:
        """One score of all seeds: (seeds, N, S, F), or (seeds, N, S) of the whole flow."""
        return np.stack([scores[part][name] for scores in self.seeds])


class Judge:
    """Scores rollouts of one flow; `frames` is the trained horizon.

    units : of the fields that the model was trained on (None: of the whole flow), in which
    predictions are bounded and frames at rest are told.
    """

    def __init__(self, flow: Flow, grid: tuple[int, int], frames: int, units: Units | None = None):
        self.flow = flow
        self.units = units or Units.of(flow.fields)
        self.frames = min(frames, len(flow.time))
        self.triangles = flow.triangles if len(flow.triangles) else triangulate(flow.coordinates)
        self.grid = Grid(flow.coordinates, self.triangles, *grid)

    @property
    def columns(self) -> list[tuple[int, str | None]]:
        """Every field with its number, and None for all fields together."""
        names = self.flow.field_names
        return [*enumerate(names), (len(names), None)]

    def compare(
        self, predicted: np.ndarray, truth: np.ndarray, first: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Every score of fields (N, S, P, F) against the truth after frames (N, P, F), float64.

        One trajectory at a time; a rollout that blew up is bounded first.
        """
        domain = Domain(
            self.flow.field_names,
            self.flow.coordinates,
            self.triangles,
            self.grid.to_grid,
            self.grid.aspect,
            self.units,
        )
        single = []
        for n in range(len(truth)):
            bounded = self.units.bounded(predicted[n : n + 1])
            single.append(score(bounded, truth[n : n + 1], first[n : n + 1], domain))
        return {name: np.concatenate([scores[name] for scores in single]) for name in single[0]}

    def score(self, predict: Predict, parts: Split) -> Scores:
        """Scores of rollouts of every test trajectory over the trained horizon.

        Those of the interpolation part go on to the last frame (`LONGER`), and begin a second time
        in the middle of the trained frames (`OTHER`).
        """
        horizon = self.frames - 1
        last = len(self.flow.time) - 1
        result: Scores = {}
        for part in PARTS:
            rows = getattr(parts, part)
            if not len(rows):
                continue
            steps = last if part == PARTS[0] else horizon
            scores = self._score(predict, rows, 0, steps)
            result[part] = {name: values[:, :horizon] for name, values in scores.items()}
            if part == PARTS[0]:
                if last > horizon:
                    result[LONGER] = {name: values[:, horizon:] for name, values in scores.items()}
                middle = self.frames // 2
                result[OTHER] = self._score(predict, rows, middle, min(horizon, last - middle))
        return result

    def _score(
        self, predict: Predict, rows: np.ndarray, start: int, steps: int
    ) -> dict[str, np.ndarray]:
        """Scores of rollouts of some trajectories from the frame `start`."""
        first = self.flow.fields[rows, start]  # (N, P, F)
        truth = self.flow.fields[rows, start + 1 : start + steps + 1]  # (N, S, P, F)
        predicted = predict(first, self.flow.parameters[rows], steps)
        return self.compare(predicted, truth, first)

    def rows(self, scored: Scored) -> list[Row]:
        """Rows of metrics.json: each part, of each field and of all fields, over seeds."""
        rows = []
        for part in scored.seeds[0]:
            for column, series in self.columns:
                rows += self._rows(scored, part, column, series)
        return rows

    def _rows(self, scored: Scored, part: str, column: int, series: str | None) -> list[Row]:
        """Rows of one part and one field, or of all fields where `series` is None."""
        row = partial(
            Row,
            protocol="held-out",
            split=GIVEN if part == GIVEN else "test",
            model=scored.model,
            variant=part,
            series=series,
            n_seeds=len(scored.seeds),
            params=scored.params,
            seconds=scored.seconds,
        )

        # every score over the whole rollout:
        rows = []
        for metric, name in SCORES.items():
            if name not in scored.seeds[0][part]:
                continue
            values = scored.stacked(part, name)  # (seeds, N, S, F), or (seeds, N, S)
            if values.ndim == 4:
                values = of_column(values, column, series)
            elif series is None:
                values = np.abs(values)
            else:
                continue  # a score of the whole flow
            value, std = over_seeds(values)
            rows.append(row(metric=metric, value=value, std=std))

        # the error at some steps alone, and its interval:
        errors = of_column(scored.stacked(part, "squared_relative_l2"), column, series)
        for horizon in HORIZONS:
            if horizon <= errors.shape[2] and part != LONGER:
                value, std = over_seeds(errors[..., horizon - 1])
                rows.append(
                    row(metric="relative_l2_squared", value=value, std=std, horizon=horizon)
                )
        low, high = bootstrap(errors.mean(2, dtype=np.float64))  # of (seeds, N)
        rows.append(row(metric="relative_l2_squared_low", value=low))
        rows.append(row(metric="relative_l2_squared_high", value=high))

        # how long the truth is followed:
        if part != LONGER:
            dt = self.flow.step
            correlations = [scores[part]["correlation"] for scores in scored.seeds]
            times = np.stack([time_to_correlation(each, CORRELATED, dt) for each in correlations])
            value, std = over_seeds(of_column(times, column, series))  # of (seeds, N)
            rows.append(row(metric="time_to_correlation", value=value, std=std))
        else:
            correlation = of_column(scored.stacked(part, "correlation"), column, series)
            tenth = -(-correlation.shape[2] // 10)
            value, std = over_seeds(correlation[:, :, -tenth:])
            rows.append(row(metric="final_correlation", value=value, std=std))
        return rows

    def exchange_rows(self, ours: Scored, control: Scored) -> list[Row]:
        """The error of a model over that of its control: whether the exchange helps.

        By part and field, paired by trajectory. The interval is over seeds and trajectories, or
        over trajectories alone with one seed of each (`bootstrap_ratio`).
        """
        rows = []
        for part in ours.seeds[0]:
            for column, series in self.columns:
                row = partial(
                    Row,
                    protocol="held-out",
                    split="test",
                    model=f"{ours.model} over {control.model}",
                    variant=part,
                    series=series,
                    n_seeds=len(ours.seeds),
                )
                with_exchange = of_column(mean_errors(ours, part), column, series)
                without = of_column(mean_errors(control, part), column, series)  # (seeds, N)
                if not (without > 0).all():
                    continue  # a field that is the same everywhere: neither has an error
                ratio = float(with_exchange.mean() / without.mean())
                low, high = bootstrap_ratio(with_exchange, without)
                rows.append(row(metric="exchange_ratio", value=ratio))
                rows.append(row(metric="exchange_ratio_low", value=low))
                rows.append(row(metric="exchange_ratio_high", value=high))
        return rows


def of_column(values: np.ndarray, column: int, series: str | None) -> np.ndarray:
    """Values (..., F) of one field, or the mean over fields where `series` is None: (...)."""
    return values.mean(-1) if series is None else values[..., column]


def over_seeds(values: np.ndarray) -> tuple[float, float | None]:
    """Mean and deviation over seeds of values (seeds, ...), which are averaged within each."""
    return mean_and_std(values.reshape(len(values), -1).mean(1, dtype=np.float64))


def mean_errors(scored: Scored, part: str) -> np.ndarray:
    """Squared relative L2 (seeds, N, F), mean over steps."""
    errors = scored.stacked(part, "squared_relative_l2")  # (seeds, N, S, F)
    return errors.mean(2, dtype=np.float64)


# -------------------------------------------------------------------- what models are compared with


@dataclass(frozen=True)
class CodedTruth:
    """The true frames, encoded and decoded: the floor of every rollout on these codes."""

    autoencoder: MeshAutoencoder
    flow: Flow

    @property
    def params(self) -> int:
        """How many trained numbers the autoencoder has."""
        return count_parameters(self.autoencoder)

    def predict(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """Fields (N, S, P, F) that follow frames (N, P, F) of trajectories at parameters (N, K)."""
        truth = true_future(self.flow, first, theta, steps)
        return decode(self.autoencoder, encode(self.autoencoder, truth))


@dataclass(frozen=True)
class GriddedTruth:
    """The true frames, sent to a grid and back: the floor of every model that steps on it."""

    grid: Grid
    flow: Flow

    def predict(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """Fields (N, S, P, F) that follow frames (N, P, F) of trajectories at parameters (N, K)."""
        truth = true_future(self.flow, first, theta, steps)
        return self.grid.to_nodes(self.grid.to_grid(truth))


def true_future(flow: Flow, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
    """What follows frames (N, P, F) in the trajectories of a flow at parameters (N, K)."""
    truth = []
    for frame, parameters in zip(first, theta, strict=True):
        row, start = place_of(flow, frame, parameters)
        truth.append(flow.fields[row, start + 1 : start + steps + 1])
    return np.stack(truth)  # (N, S, P, F)


def place_of(flow: Flow, frame: np.ndarray, parameters: np.ndarray) -> tuple[int, int]:
    """The trajectory and the number of a frame (P, F). Raises ValueError where it is in none."""
    alike = np.flatnonzero((flow.parameters == parameters).all(1))
    for row in alike:
        starts = np.flatnonzero((flow.fields[row] == frame).all((1, 2)))
        if len(starts):
            return int(row), int(starts[0])
    raise ValueError("a frame that is in no trajectory of the flow")


class Fit(NamedTuple):
    """A baseline to fit, and the number of this training of it."""

    name: BaselineName
    seed: int


@dataclass(frozen=True)
class BaselineScores:
    """What the run stores of a baseline."""

    scores: Scores
    seconds: float
    params: int | None


Baseline = Persistence | ParameterInterpolation | PODLinear | OneStep


def score_baseline(
    config: Config,
    run: Run,
    judge: Judge,
    parts: Split,
    data: TrainingFlow,
    device: str,
    fit: Fit,
) -> BaselineScores:
    """Fits a baseline on the training trajectories and scores it on the test trajectories."""
    name = fit.name
    if name == "grid, there and back":
        floor = GriddedTruth(grid_of_baselines(config, judge), judge.flow)
        return BaselineScores(judge.score(floor.predict, parts), 0.0, None)

    start = time.perf_counter()
    model: Baseline
    if name == "persistence":
        model = Persistence()
    elif name == "parameter interpolation":
        model = ParameterInterpolation()
    elif name == "POD + linear":
        model = PODLinear()
    else:
        model = stepper(config, judge, device, name, fit.seed)
        label = f"rollout error, {name}, seed {fit.seed}"
        model.score = partial(checked_error, run, data, label, model)
    validation = (data.validation_fields, data.validation_parameters)
    model.fit(data.fields, data.parameters, validation)
    seconds = time.perf_counter() - start
    params = model.parameters_ if isinstance(model, OneStep) else None
    return BaselineScores(judge.score(model.rollout, parts), seconds, params)


def stepper(config: Config, judge: Judge, device: str, name: StepperName, seed: int = 0) -> OneStep:
    """FNO, U-Net or Transolver, not fitted yet."""
    recipe = config.one_step_recipe(name, seed)
    if name == "Transolver":
        nodes = Nodes(judge.flow.coordinates, judge.triangles)
        return OneStep(Transolver, nodes, recipe, device)
    network = FNO if name == "FNO" else UNet
    return OneStep(network, grid_of_baselines(config, judge), recipe, device)


def grid_of_baselines(config: Config, judge: Judge) -> Grid:
    """The grid that FNO and U-Net step on: that of the spectral scores unless options differ."""
    if config.baseline_grid is None and not (config.grid_grading or config.grid_fitted):
        return judge.grid
    sides = config.baseline_grid or config.grid
    mesh = (judge.flow.coordinates, judge.triangles)
    return Grid(*mesh, *sides, config.grid_grading, config.grid_fitted)


def checked_error(run: Run, data: TrainingFlow, label: str, model: OneStep, check: Check) -> float:
    """The VRMSE of validation rollouts in a one-step training, logged with its loss and seconds."""
    first = data.validation_fields[:, 0]
    steps = data.validation_fields.shape[1] - 1
    error = data.validation_error(model.rollout(first, data.validation_parameters, steps))
    log_validation(run, label, check, error)
    return error.vrmse


# -------------------------------------------------------------------------------------- table


def print_scores(results: Sequence[JsonObject], folder: Path) -> None:
    """Prints the squared relative L2 of whole rollouts, with each model's floor.

    The best model comes first, and a matched control right after the model that it is for.
    """
    rows = [
        row
        for row in results
        if row["metric"] == "relative_l2_squared"
        and row["series"] is None
        and row["horizon"] is None
    ]
    parts = [*PARTS, LONGER, OTHER, GIVEN]
    first = min((row["variant"] for row in rows), key=parts.index)
    errors = {row["model"]: row for row in rows if row["variant"] == first}

    shown: list[JsonObject] = []
    for model in in_order({name: row["value"] for name, row in errors.items()}):
        shown += [row for row in rows if row["model"] == model]
        if model in MODELS:
            floor = errors.get(FLOORS[MODELS[model].autoencoder])
            shown += [{**floor, "model": model, "variant": "floor"}] if floor else []
    columns = {part: part for part in parts} | {"floor": f"floor ({first})"}
    print_table(
        shown,
        columns,
        across="variant",
        index=("model",),
        digits=5,
        title="squared relative L2 of rollouts; floor: the model's autoencoder alone",
    )
    print(f"\nwritten: {folder}")


def in_order(errors: dict[str, float]) -> list[str]:
    """Models by error, each followed by its controls."""
    controls = {ours: named for ours, named in CONTROLS.items() if ours in errors}
    held_back = {control for named in controls.values() for control in named}
    order: list[str] = []
    for model in sorted(errors, key=lambda name: errors[name]):
        if model in held_back:
            continue
        order.append(model)
        order += [control for control in controls.get(model, ()) if control in errors]
    return order
