"""Scores a finished run's first model on trajectories that it has not seen.

From any start frame and of any length. Trajectories of --data that the run was trained on or chosen
by are told by their frames and left out. Scores of the run's own test part draw its figures again.

    python final_project/evaluate.py
    python final_project/evaluate.py --run RUN --data more.h5 --start 50 --steps 300

A minute; on the run's own test trajectories expect the scores of its metrics.json within 1 %: the
model file holds float16.
"""

from __future__ import annotations

from common.cli import entry, read_options
from final_project.config import EvaluateConfig

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(EvaluateConfig)

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.cli import InputError, check_writable, data_folder
from common.files import JsonObject
from common.machine import choose_device
from common.report import compile_report
from common.results import Results, write_results
from common.run import SavedRun, announce, progress
from final_project.baselines.simple import Persistence
from final_project.checkpoint import About, load_networks, read_about
from final_project.config import MOST_POINTS
from final_project.data import Flow, load_flow, split
from final_project.evaluation import (
    GIVEN,
    METRICS_INFO,
    PARTS,
    Judge,
    Predict,
    Scored,
    print_scores,
)
from final_project.figures import draw_figures
from final_project.raw import Reading, readable
from final_project.seen import SEEN, seen_rows
from final_project.units import Units

HERE = Path(__file__).resolve().parent
NEEDED = ("metrics.json", "model.safetensors", "mesh.npz")
FAR = 30.0  # deviations from the training's mean, beyond which fields are of another kind
NARROW = 0.01  # of the training's deviation: so small a variation is remarked on
SAME_STEP = 0.01  # time steps are the same, or multiples, within this share


@dataclass(frozen=True)
class Recorded:
    """What of a run's options its evaluation needs."""

    seed: int
    grid: tuple[int, int]
    reading: Reading

    @classmethod
    def of(cls, run: SavedRun) -> Recorded:
        """From run.json. Raises InputError for values that no training has written."""
        config = run.config
        grid = config.get("grid")
        whole = {name: config.get(name, 1) for name in ("thin", "every")}
        if not isinstance(grid, list) or len(grid) != 2:
            grid = []
        if grid and all(type(side) is int and 2 <= side <= MOST_POINTS for side in grid):
            numbers = (config.get("seed"), *whole.values())
            if all(type(number) is int and number >= 0 for number in numbers):
                return cls(config["seed"], (grid[0], grid[1]), Reading(**whole))
        raise InputError(
            f"{run.folder / 'run.json'} is damaged: seed, grid, thin or every hold what no run "
            "writes; copy the folder again"
        )


# ----------------------------------------------------------------------------------- the flow


def own_data(run: SavedRun) -> Path:
    """The file of a run's own data, where it is found. Raises InputError."""
    name = run.data.get("path")
    if not isinstance(name, str):
        raise InputError(f"{run.folder / 'run.json'} names no data; give them with --data")
    places = [data_folder() / name, data_folder() / "built-in" / name]
    given = run.config.get("data")
    if isinstance(given, str):
        places.append(Path(given))
    for place in places:
        if place.exists():
            return place
    raise InputError(f"{places[0]} does not exist; give the run's data, or others, with --data")


def at_the_runs_step(flow: Flow, step: float, start: int, path: Path) -> tuple[Flow, int]:
    """The frames that are one time step of the run apart, and the start's number among them.

    Raises InputError where the run's step is no multiple of the data's.
    """
    ratio = step / flow.step
    every = round(ratio)
    if every < 1 or abs(ratio - every) > SAME_STEP * every:
        raise InputError(
            f"{path}: the run's time step is {step:g}, the data's {flow.step:g}; needed is the "
            "same or a whole part of it"
        )
    if every == 1:
        return flow, start
    print(
        f"the run's time step is {step:g}, the data's {flow.step:g}: one of {every} frames is taken"
    )
    frames = slice(start % every, None, every)
    thinned = dataclasses.replace(flow, fields=flow.fields[:, frames], time=flow.time[frames])
    if len(thinned.time) < 2:
        raise InputError(f"{path} holds no whole time step of the run ({step:g})")
    return thinned, start // every


def with_parameters(flow: Flow, given: tuple[float, ...], about: About) -> Flow:
    """The flow with the parameters of the command line, in place of its own.

    Raises InputError for another number than the run's.
    """
    if not given:
        return flow
    if len(given) != len(about.parameters):
        named = ", ".join(about.parameters) or "none"
        raise InputError(
            f"--parameters {' '.join(f'{number:g}' for number in given)}: "
            f"{len(about.parameters)} are needed: {named}"
        )
    if not np.isfinite(given).all():
        raise InputError("--parameters holds what is no finite number")
    parameters = np.tile(np.array(given, np.float64), (len(flow.fields), 1))
    return dataclasses.replace(flow, parameters=parameters, parameter_names=about.parameters)


def check_units(fields: np.ndarray, names: tuple[str, ...], units: Units, path: Path) -> None:
    """Refuses fields (..., P, F) far from those of the training, and remarks on much smaller ones.

    They are in another unit, or of another flow. Raises InputError.
    """
    normal = units.centred(fields).reshape(-1, *fields.shape[-2:])  # (B, P, F)
    away = np.sqrt((normal**2).mean((0, 1)))
    spread = normal.std(1).max(0)
    for name, distance, width in zip(names, away, spread, strict=True):
        if distance > FAR:
            raise InputError(
                f"{path}: {name} lies {distance:.2g} standard deviations from the mean of the "
                f"fields that the run was trained on (allowed are {FAR:g}); is it in another unit?"
            )
        if 0 < width < NARROW:
            print(
                f"notice: {path}: {name} varies by {width:.2g} of what it did in the training; "
                "is it in another unit?",
                file=sys.stderr,
            )


def rows_to_score(
    config: EvaluateConfig, run: SavedRun, seed: int, flow: Flow, path: Path
) -> tuple[np.ndarray, JsonObject]:
    """Row numbers of the trajectories that the run has not seen, and how many it has.

    Raises InputError where it has seen all, and for the own data of a run that does not say which
    it has seen: it was split in another way than today's runs.
    """
    seen = seen_rows(run.folder, flow)
    if config.data is None:
        if seen is None:
            raise InputError(
                f"{run.folder} does not say which trajectories it was trained on, as runs do today "
                f"in {SEEN}; train again, or give other trajectories with --data"
            )
        return split(flow.parameters, seed).interpolation, {}
    if seen is None:
        print("notice: the run does not say which trajectories it was trained on")
        return np.arange(len(flow.fields)), {"seen": None}
    if seen.all():
        raise InputError(
            f"{path}: the run was trained on or chosen by all of its {len(seen)} trajectories; "
            "give others"
        )
    if seen.any():
        print(
            f"{seen.sum()} of {len(seen)} trajectories are those that the run was trained on or "
            "chosen by; they are left out"
        )
    return np.flatnonzero(~seen), {"seen": int(seen.sum())}


def rollout_steps(config: EvaluateConfig, flow: Flow, start: int, path: Path) -> int:
    """The length of the rollouts. Raises InputError where the flow is too short for it."""
    last = len(flow.time) - 1
    steps = last - start if config.steps is None else config.steps
    if steps < 1 or start + steps > last:
        raise InputError(
            f"--start {config.start} --steps {steps}: {path} has {last + 1} frames, so the start "
            f"and at least one step must lie within 0 to {last}"
        )
    return steps


# -------------------------------------------------------------------------------------- main


def rolled_out(predict: Predict, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
    """Rollouts (N, S, P, F) from frames (N, P, F), one by one under a progress bar."""
    rows = progress(range(len(first)), "rollouts", len(first))
    return np.concatenate([predict(first[[row]], theta[[row]], steps) for row in rows])


def result_file(config: EvaluateConfig, run: SavedRun, flow: Flow) -> Path:
    """Where the scores go; a second file of the same name replaces no scores of the first.

    Raises InputError where nothing can be written.
    """
    if config.out is not None:
        return config.out
    check_writable("--run", run.folder)
    if config.data is None:
        return run.folder / "evaluation-test.json"
    stem = config.data.absolute().stem
    file = run.folder / f"evaluation-{stem}.json"
    digest = flow.provenance["sha256"]
    if stem == "test" or (file.exists() and digest not in file.read_text(errors="replace")):
        return run.folder / f"evaluation-{stem}-{digest[:8]}.json"
    return file


def main(config: EvaluateConfig) -> Results:
    """Scores and prints; returns what the written file holds."""
    # Run and data:
    run = SavedRun.open(config.run, HERE / "results", NEEDED)
    recorded = Recorded.of(run)
    about = read_about(run.folder)
    path = config.data or own_data(run)
    flow = load_flow(path, reading=recorded.reading)
    announce(flow.provenance)
    flow = with_parameters(flow, config.parameters, about)
    flow, start = at_the_runs_step(flow, about.step, config.start, path)
    device = choose_device(config.device).name
    saved = load_networks(run.folder, flow, device)
    steps = rollout_steps(config, flow, start, path)
    rows, seen = rows_to_score(config, run, recorded.seed, flow, path)
    part = GIVEN if config.data else PARTS[0]
    out = result_file(config, run, flow)
    print(f"scored: {len(rows)} trajectories, {steps} steps from frame {config.start}", flush=True)

    # Rollouts of the model and of persistence:
    first = flow.fields[rows, start]  # (N, P, F)
    check_units(first, flow.field_names, saved.surrogate.autoencoder.units, path)
    truth = flow.fields[rows, start + 1 : start + steps + 1]  # (N, S, P, F)
    theta = flow.parameters[rows]  # (N, K)
    judge = Judge(flow, recorded.grid, steps + 1, saved.surrogate.autoencoder.units)
    persistence = Persistence().fit(flow.fields[rows], theta)
    predicted = rolled_out(saved.surrogate.predict, first, theta, steps)
    model_scores = {part: judge.compare(predicted, truth, first)}
    still_scores = {part: judge.compare(persistence.rollout(first, theta, steps), truth, first)}
    scored = [
        Scored(saved.name, [model_scores], saved.surrogate.params),
        Scored("persistence", [still_scores]),
    ]

    # Record: scores; of the run's own data figures and report too
    facts = {
        "folder": run.folder.name,
        "data": flow.provenance,
        "trajectories": len(rows),
        **seen,
        "start": config.start,
        "steps": steps,
    }
    table = [row for each in scored for row in judge.rows(each)]
    results = write_results(out, facts, METRICS_INFO, table)
    if config.data is None and config.out is None:
        with readable(run.folder, "; its figures cannot be drawn again"):
            draw_figures(run.folder)
            compile_report(run.folder, HERE / "report.typ", run.folder / "report.pdf")
    print_scores(results["rows"], out)
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
