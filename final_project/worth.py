"""What a run's surrogate is worth: its error and time beside its own solver on coarser meshes.

    python final_project/worth.py
    python final_project/worth.py --run RUN --preset full --cases 5

Both start from a trajectory's first frame and its parameters, and are timed on one thread by the
seconds of the processor. A fast surrogate is worth something where no coarse solver is as accurate
in as many seconds (McGreivy & Hakim 2024). Writes worth.json and worth.png into the run folder;
some minutes of one core for the default preset.
"""

from __future__ import annotations

from common.cli import entry, read_options
from final_project.config import WorthConfig

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(WorthConfig)

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch  # (before NGSolve, whose MKL torch's eigenvalues do not survive)

from common.cli import InputError, check_writable
from common.files import JsonObject
from common.results import Results, Row, write_results
from common.run import SavedRun, announce, progress
from final_project.checkpoint import load_networks
from final_project.config import EvaluateConfig, Preset
from final_project.data import Flow, load_flow, split
from final_project.evaluate import NEEDED, Recorded, own_data, rows_to_score
from final_project.evaluation import GIVEN, METRICS_INFO, PARTS, Judge, Scored, print_scores
from final_project.figures import draw_worth
from final_project.solver.coarse import FINER, LADDERS, Case, Origin, Rung, on_one_thread, solve
from final_project.surrogate import Surrogate

HERE = Path(__file__).resolve().parent
TIMES = (1, 10, 100)  # of the surrogate's seconds, at which the solver is compared
SHOWN = ("relative_l2_squared", "vrmse")  # metrics of worth.json


@dataclass(frozen=True)
class Task:
    """Test trajectories by part, and how many steps of them are predicted."""

    flow: Flow
    parts: dict[str, np.ndarray]
    steps: int

    def cases(self) -> Iterator[tuple[str, int]]:
        """Every part and row."""
        for part, rows in self.parts.items():
            for row in rows:
                yield part, int(row)


@dataclass(frozen=True)
class Entrant:
    """What was predicted: fields (N, S, P, F) of each part, and mean processor seconds of one."""

    name: str
    fields: dict[str, np.ndarray]
    seconds: float


# --------------------------------------------------------------------------------------- entrants


def of_surrogate(name: str, surrogate: Surrogate, task: Task) -> Entrant:
    """Rollouts of the surrogate, one by one."""
    flow = task.flow
    fields: dict[str, list[np.ndarray]] = {part: [] for part in task.parts}
    seconds = []
    for number, (part, row) in enumerate([next(task.cases()), *task.cases()]):
        started = time.process_time()
        predicted = surrogate.predict(flow.fields[[row], 0], flow.parameters[[row]], task.steps)
        if number:  # (the very first rollout warms up)
            seconds.append(time.process_time() - started)
            fields[part].append(predicted[0])
    stacked = {part: np.stack(each) for part, each in fields.items()}
    return Entrant(name, stacked, float(np.mean(seconds)))


def of_solver(rung: Rung, origin: Origin, task: Task) -> Entrant | None:
    """Solutions on a coarser mesh; None where one of them diverges at every step that is tried."""
    flow = task.flow
    fields: dict[str, list[np.ndarray]] = {part: [] for part in task.parts}
    seconds = []
    for part, row in task.cases():
        case = Case(flow.parameters[row], flow.fields[row, 0], task.steps, flow.step)
        solution = solve(origin, rung, flow.coordinates, case)
        if solution is None:
            return None
        fields[part].append(solution.fields)
        seconds.append(solution.seconds)
    stacked = {part: np.stack(each) for part, each in fields.items()}
    return Entrant(rung.name, stacked, float(np.mean(seconds)))


# ------------------------------------------------------------------------------------ comparison


def origin_of(flow: Flow, path: Path) -> Origin:
    """The solver that made a flow, with its settings. Raises InputError for any other flow."""
    made = flow.provenance
    if flow.dimensionless and made.get("flow") in LADDERS and isinstance(made["settings"], dict):
        return Origin(made["flow"], made["settings"])
    raise InputError(
        f"{path} was not made by simulate.py, so its solver is not known; allowed are flows of "
        f"simulate.py: {', '.join(LADDERS)}"
    )


def task_of(config: WorthConfig, run: SavedRun, seed: int, flow: Flow, path: Path) -> Task:
    """The first trajectories of each part. Raises InputError where the flow is too short."""
    rows, _ = rows_to_score(EvaluateConfig(data=config.data), run, seed, flow, path)
    parts = {GIVEN: rows}
    if config.data is None:
        whole = split(flow.parameters, seed)
        parts = {part: getattr(whole, part) for part in PARTS}
    parts = {part: each[: config.cases] for part, each in parts.items() if len(each)}
    last = len(flow.time) - 1
    trained = run.config.get("frames")
    if type(trained) is not int or trained < 2:
        raise InputError(f"{run.folder / 'run.json'} is damaged: frames; copy the folder again")
    steps = config.steps or min(trained - 1, last)
    if steps > last:
        raise InputError(f"--steps {steps}: {path} has {last + 1} frames, so at most {last}")
    return Task(flow, parts, steps)


def scored_by(judge: Judge, task: Task, entrant: Entrant, params: int | None) -> Scored:
    """The scores of what was predicted."""
    scores = {}
    for part, rows in task.parts.items():
        fields = task.flow.fields[rows]
        truth = fields[:, 1 : task.steps + 1]
        scores[part] = judge.compare(entrant.fields[part], truth, fields[:, 0])
    return Scored(entrant.name, [scores], params, entrant.seconds)


@dataclass(frozen=True)
class Point:
    """Processor seconds and error of one entrant."""

    name: str
    seconds: float
    error: float


def at_equal_cost(surrogate: Point, solvers: Sequence[Point]) -> list[JsonObject]:
    """The best solver that takes at most 1, 10 and 100 times the surrogate's seconds."""
    table = []
    for times in TIMES:
        affordable = [each for each in solvers if each.seconds <= times * surrogate.seconds]
        best = min(affordable, key=lambda each: each.error, default=None)
        table.append(
            {
                "times": times,
                "seconds": times * surrogate.seconds,
                "surrogate_error": surrogate.error,
                "solver": best and best.name,
                "solver_seconds": best and best.seconds,
                "solver_error": best and best.error,
            }
        )
    return table


def seconds_at_equal_error(surrogate: Point, solvers: Sequence[Point]) -> float | None:
    """Seconds in which a solver is as accurate as the surrogate; None where no two enclose it.

    Between the slowest solver that is less accurate and the cheapest that is at least as accurate,
    on a line in the logarithms of seconds and error.
    """
    good = min(
        (each for each in solvers if each.error <= surrogate.error),
        key=lambda each: each.seconds,
        default=None,
    )
    worse = [
        each
        for each in solvers
        if each.error > surrogate.error and good is not None and each.seconds < good.seconds
    ]
    if good is None or not worse:
        return None
    bad = max(worse, key=lambda each: each.seconds)
    share = np.log(bad.error / surrogate.error) / np.log(bad.error / good.error)
    return float(bad.seconds * (good.seconds / bad.seconds) ** share)


# ------------------------------------------------------------------------------------------- main


def ladder_of(preset: Preset, origin: Origin) -> tuple[Rung, ...]:
    """The resolutions that a preset tries."""
    ladder = LADDERS[origin.flow]
    if preset == "smoke":
        return ladder[:2]
    return (*ladder, FINER) if preset == "full" else ladder


def summary(scored: Sequence[Scored], rows: Sequence[Row]) -> JsonObject:
    """The comparison at equal cost and at equal error, by part; the first entrant is the model."""
    found: JsonObject = {}
    for part in scored[0].seeds[0]:
        errors = {
            row.model: row.value
            for row in rows
            if row.variant == part and row.metric == "relative_l2_squared"
        }
        points = [Point(each.model, each.seconds or 0.0, errors[each.model]) for each in scored]
        found[part] = {
            "at_equal_cost": at_equal_cost(points[0], points[1:]),
            "solver_seconds_at_equal_error": seconds_at_equal_error(points[0], points[1:]),
        }
    return found


def in_words(found: JsonObject) -> Iterator[str]:
    """A line for each part and multiple of the surrogate's seconds."""
    for part, comparison in found.items():
        for line in comparison["at_equal_cost"]:
            solver = "no rung of the ladder is as cheap"
            if line["solver"]:
                cost = f"{line['solver_seconds']:.2g} s"
                solver = f"{line['solver']} {line['solver_error']:.4g} in {cost}"
            yield f"{part}, up to {line['times']} x its seconds: {solver}"


def main(config: WorthConfig) -> Results:
    """Times, scores and records; returns what the written file holds."""
    # Run and data:
    run = SavedRun.open(config.run, HERE / "results", NEEDED)
    recorded = Recorded.of(run)
    path = config.data or own_data(run)
    flow = load_flow(path, reading=recorded.reading)
    announce(flow.provenance)
    origin = origin_of(flow, path)
    saved = load_networks(run.folder, flow, "cpu")
    task = task_of(config, run, recorded.seed, flow, path)
    out = config.out or run.folder / "worth.json"
    check_writable("--out" if config.out else "--run", out.parent)

    # The surrogate, then the solver from coarse to fine, on one thread:
    torch.set_num_threads(1)
    on_one_thread()
    judge = Judge(flow, recorded.grid, task.steps + 1, saved.surrogate.autoencoder.units)
    entrant = of_surrogate(saved.name, saved.surrogate, task)
    scored = [scored_by(judge, task, entrant, saved.surrogate.params)]
    diverged = []
    ladder = ladder_of(config.preset, origin)
    for rung in progress(ladder, "solver", len(ladder)):
        solved = of_solver(rung, origin, task)
        if solved is None:
            diverged.append(rung.name)
        else:
            scored.append(scored_by(judge, task, solved, None))

    # Record:
    rows = [
        row
        for each in scored
        for row in judge.rows(each)
        if row.metric in SHOWN and row.series is None and row.horizon is None
    ]
    comparison = summary(scored, rows)
    facts: JsonObject = {
        "folder": run.folder.name,
        "data": flow.provenance,
        "model": saved.name,
        "trajectories": {part: len(each) for part, each in task.parts.items()},
        "steps": task.steps,
        "diverged": diverged,
        "comparison": comparison,
    }
    results = write_results(out, facts, METRICS_INFO, rows)
    draw_worth(out.with_suffix(".png"), run.record, results["run"], results["rows"])
    print_scores(results["rows"], out)
    print("\n".join(in_words(comparison)))
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
