"""Scores a finished run's first model on trajectories that it has not seen.

From any start frame and of any length; draws the run's figures again.

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

from pathlib import Path

import numpy as np

from common.cli import InputError, data_folder
from common.machine import choose_device
from common.report import compile_report
from common.results import Results, write_evaluation
from common.run import SavedRun
from final_project.baselines.simple import Persistence
from final_project.checkpoint import load_networks
from final_project.data import Flow, load_flow, split
from final_project.evaluation import (
    GIVEN,
    METRICS_INFO,
    PARTS,
    Judge,
    Scored,
    print_scores,
)
from final_project.figures import draw_figures

HERE = Path(__file__).resolve().parent


def rollout_steps(config: EvaluateConfig, flow: Flow, path: Path) -> int:
    """The length of the rollouts. Raises InputError where the flow is too short for it."""
    last = len(flow.time) - 1
    steps = last - config.start if config.steps is None else config.steps
    if steps < 1 or config.start + steps > last:
        raise InputError(
            f"--start {config.start} --steps {steps}: {path} has {last + 1} frames, so the start "
            f"and at least one step must lie within 0 to {last}"
        )
    return steps


def main(config: EvaluateConfig) -> Results:
    """Scores, draws and prints; returns what the written file holds."""
    # Run and data:
    run = SavedRun.open(config.run, HERE / "results", ("metrics.json", "model.safetensors"))
    path = config.data or data_folder() / run.data["path"]
    flow = load_flow(path)
    device = choose_device(config.device).name
    saved = load_networks(run.folder, flow, device)
    steps = rollout_steps(config, flow, path)
    if config.data:
        part = GIVEN
        rows = np.arange(len(flow.fields))
    else:
        part = PARTS[0]
        rows = split(flow.parameters, run.config["seed"]).interpolation
    first = flow.fields[rows, config.start]  # (N, P, F)
    truth = flow.fields[rows, config.start + 1 : config.start + steps + 1]  # (N, S, P, F)
    theta = flow.parameters[rows]  # (N, K)

    # Rollouts of the model and of persistence:
    judge = Judge(flow, tuple(run.config["grid"]), steps + 1)
    persistence = Persistence().fit(flow.fields[rows], theta)
    model_scores = {part: judge.compare(saved.surrogate.predict(first, theta, steps), truth, first)}
    still_scores = {part: judge.compare(persistence.rollout(first, theta, steps), truth, first)}
    scored = [
        Scored(saved.name, [model_scores], saved.surrogate.params),
        Scored("persistence", [still_scores]),
    ]

    # Record: scores, figures and report
    about = {
        "folder": run.folder.name,
        "data": flow.provenance,
        "trajectories": len(rows),
        "start": config.start,
        "steps": steps,
    }
    name = config.data.stem if config.data else "test"
    out = config.out or run.folder / f"evaluation-{name}.json"
    table = [row for each in scored for row in judge.rows(each)]
    results = write_evaluation(out, about, METRICS_INFO, table)
    draw_figures(run.folder)
    compile_report(run.folder, HERE / "report.typ", run.folder / "report.pdf")
    print_scores(results["rows"], out)
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
