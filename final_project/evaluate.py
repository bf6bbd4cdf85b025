"""Scores a finished run's first model on trajectories that it has not seen, from any start frame and of any length; draws everything again.

python final_project/evaluate.py
python final_project/evaluate.py --run final_project/results/cylinder-full --data more.h5 --start 50 --steps 300
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.cli import InputError, PathOrNone, data_folder, entry, parse
from common.report import compile_report
from common.run import choose_device, newest_run, write_json
from common.weights import parameters
from final_project.data import load_flow, split
from final_project.figures import draw_figures
from final_project.models import load_networks, predict
from final_project.protocols import METRICS_INFO, Judge, Predict, Scores, print_table

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Scores a saved model on a flow and draws a run's figures again."""

    run: PathOrNone = None
    """run folder (default: the newest finished one)"""
    data: PathOrNone = None
    """a flow on the same mesh that the model has not seen (default: the run's own data, of which the test trajectories are scored)"""
    out: PathOrNone = None
    """json file (default: evaluation-<data>.json in the run folder)"""
    start: int = 0
    """the frame that is given"""
    steps: int | None = None
    """length of the rollouts (default: to the last frame)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(config: Config) -> dict[str, Any]:
    folder = config.run or newest_run(HERE / "results")
    if not (folder / "run.json").exists():
        raise InputError(
            f"--run {folder} holds no run.json; give the folder of a finished run of the final project"
        )
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    path = config.data or data_folder() / record["data"]["path"]
    flow = load_flow(path)
    device, _ = choose_device(config.device)
    autoencoder, temporal, about = load_networks(folder, flow, device)
    last = len(flow.time) - 1
    steps = last - config.start if config.steps is None else config.steps
    if config.start < 0 or steps < 1 or config.start + steps > last:
        raise InputError(
            f"--start {config.start} --steps {steps}: {path} has {last + 1} frames, so the start and at least one step must lie within 0 to {last}"
        )
    rows = (
        np.arange(len(flow.fields))
        if config.data
        else split(flow.parameters, record["config"]["seed"]).interpolation
    )
    judge = Judge(flow, tuple(record["config"]["grid"]), steps + 1)
    table: list[dict[str, Any]] = []
    first, theta = flow.fields[rows, config.start], flow.parameters[rows]
    truth = flow.fields[rows, config.start + 1 : config.start + steps + 1]
    guesses: dict[str, Predict] = {
        about["name"]: partial(predict, autoencoder, temporal),
        "persistence": lambda first, theta, steps: np.repeat(first[:, None], steps, 1),
    }
    for name, guess in guesses.items():
        scores: Scores = {
            "interpolation" if config.data is None else "given": judge.compare(
                guess(first, theta, steps), truth, first
            )
        }
        table += judge.rows(
            name,
            [scores],
            params=parameters(autoencoder) + parameters(temporal)
            if name == about["name"]
            else None,
        )
    result = {
        "run": {
            "folder": folder.name,
            "data": flow.provenance,
            "trajectories": len(rows),
            "start": config.start,
            "steps": steps,
        },
        "metrics_info": METRICS_INFO,
        "rows": table,
    }
    out = config.out or folder / f"evaluation-{config.data.stem if config.data else 'test'}.json"
    write_json(out, result)
    draw_figures(folder)
    compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(table, out, ("given", "interpolation"))
    return result


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
