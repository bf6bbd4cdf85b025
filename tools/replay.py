"""Replays the beginning of every committed run and compares numbers: `make replay`.

A run of hours is not repeated for every change of the code. What shows that it still belongs to
the code is that today's code computes the same first losses from the recorded command, and the
same scores from the saved models. `replayed.json` stores how far they differ.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from common.cli import InputError
from common.files import JsonObject, read_json, write_json
from common.machine import ROOT

RECORD = Path(__file__).with_name("replayed.json")
RUNS: dict[str, list[str]] = {  # each with the options for evaluate.py
    "assignment1/results/fer2013-full": [],
    "assignment2/results/csv-full": [],
    "assignment2/results/candles-full": [],
    "assignment3/results/csv-full": [],
    "assignment4/results/csv-full": [],
    "assignment5/results/flowers-long": [
        "--samples",
        "256",
        "--steps",
        "5",
        "--sampler",
        "ddim",
    ],
    "final_project/results/cylinder-core": ["--steps", "199"],
    "final_project/results/lock_exchange-core": ["--steps", "199"],
}
LINES = 20  # lines of metrics.csv that are compared
PATIENCE = 90.0  # seconds after the first line in which the others may come
KEY = ("protocol", "split", "model", "variant", "metric", "series", "horizon")
# relative to the size of a whole trajectory, of which evaluate.py is given the trained horizon
OF_WHOLE_TRAJECTORIES = ("vrmse", "nrmse", "spectral_", "divergence")
RowKey = tuple[object, ...]


@dataclass(frozen=True)
class TrainingReplay:
    """The first lines of metrics.csv: how many were compared and their largest difference."""

    lines: int
    largest: float
    seconds: int


@dataclass(frozen=True)
class ScoreReplay:
    """Scores of the saved models: how many were compared, their largest difference and where."""

    rows: int
    largest: float
    where: str
    seconds: int


def relative_difference(recorded: float, replayed: float, allowed: float = 0) -> float:
    """Difference beyond what is allowed, relative to the recorded value (at least 1e-6)."""
    return max(abs(recorded - replayed) - allowed, 0) / max(abs(recorded), 1e-6)


# ------------------------------------------------------------------------------------ training


def streamed(folder: Path) -> dict[RowKey, float]:
    """metrics.csv as (split, name, step) -> value, less seconds; empty where there is none yet."""
    try:
        table = pd.read_csv(folder / "metrics.csv")
    except (OSError, pd.errors.EmptyDataError):
        return {}
    table = table[table["split"] != "clock"]
    keys = zip(table["split"], table["name"], table["step"], strict=True)
    return dict(zip(keys, table["value"], strict=True))


def replay_training(folder: Path, out: Path, wait: float) -> TrainingReplay:
    """Runs the recorded command until its first lines are there, and compares them."""
    record = read_json(folder / "run.json")
    words = shlex.split(record["command"])
    if "precision" in record["notes"]:  # what "auto" was on the processor of that run
        words += ["--precision", record["notes"]["precision"]]
    recorded = streamed(folder)
    replayed: dict[RowKey, float] = {}
    start = time.time()
    deadline = start + wait
    process = subprocess.Popen(
        [sys.executable, str(ROOT / words[1]), *words[2:], "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

    # wait for the lines; once the first is there the others come soon or not at all
    while time.time() < deadline and process.poll() is None:
        time.sleep(0.5)
        replayed = streamed(out)
        shared = len(recorded.keys() & replayed.keys())
        if shared >= LINES:
            break
        if shared:
            deadline = min(deadline, time.time() + PATIENCE)
    failed = process.poll()
    message = process.stderr.read().decode().splitlines() if failed and process.stderr else []
    process.send_signal(signal.SIGTERM)
    process.wait()

    common = recorded.keys() & replayed.keys()
    if not common:
        raise SystemExit(
            f"{folder}: no line of its metrics.csv came again within {wait:.0f} s; "
            f"{' '.join(message[-1:])}"
        )
    largest = max(relative_difference(recorded[key], replayed[key]) for key in common)
    return TrainingReplay(len(common), largest, round(time.time() - start))


# -------------------------------------------------------------------------------------- scores


def score_rows(file: Path, chosen_variants: dict[str, str]) -> dict[RowKey, JsonObject]:
    """Rows of metrics.json, or of what evaluate.py wrote, by KEY.

    Where evaluate.py names no variant, it is the one that validation chose for the model.
    """
    rows = {}
    for row in read_json(file)["rows"]:
        if row["variant"] == "all faces":
            row["variant"] = chosen_variants[row["model"]]
        if row["value"] is not None:
            rows[tuple(row.get(name) for name in KEY)] = row
    return rows


def score_difference(recorded: JsonObject, replayed: JsonObject) -> float:
    """Relative difference of two scores.

    Where fewer seeds are scored again, less how far one of n values can lie from their mean:
    (n - 1) / sqrt(n) deviations.
    """
    n = recorded["n_seeds"] or 1
    allowed = 0.0
    if replayed.get("n_seeds") != n:
        allowed = (recorded["std"] or 0) * (n - 1) / n**0.5
    return relative_difference(recorded["value"], replayed["value"], allowed)


def comparable(key: RowKey, recorded: JsonObject, replayed: JsonObject) -> bool:
    """Whether a recorded score and one of evaluate.py measure the same thing."""
    metric = str(key[KEY.index("metric")])
    if metric.startswith(OF_WHOLE_TRAJECTORIES):
        return False
    # ends of intervals are of all seeds together, and evaluate.py may have one of them
    is_interval = metric.endswith(("_low", "_high"))
    return not is_interval or recorded["n_seeds"] == replayed.get("n_seeds")


def replay_scores(folder: Path, copy: Path, options: list[str]) -> ScoreReplay:
    """Runs evaluate.py on a copy of the run and compares the rows that both have."""
    start = time.time()
    shutil.copytree(folder, copy)
    record = read_json(folder / "run.json")
    words = shlex.split(record["command"])
    environment = dict(os.environ)
    if "--data" in words:  # evaluate.py looks for the file in the data folder
        data = ROOT / words[words.index("--data") + 1]
        environment["ADL_DATA_DIR"] = str(data.parent)
    script = folder.parents[1] / "evaluate.py"
    out = copy / "replayed.json"
    result = subprocess.run(
        [sys.executable, str(script), "--run", str(copy), "--out", str(out), *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if result.returncode:
        raise SystemExit(f"{folder}: {result.stderr.decode().strip().splitlines()[-1]}")

    chosen = record["notes"].get("best_on_validation", {})
    variants = {model: choice["variant"] for model, choice in chosen.items()}
    recorded = score_rows(copy / "metrics.json", variants)
    replayed = score_rows(out, variants)
    differences = {
        key: score_difference(recorded[key], replayed[key])
        for key in recorded.keys() & replayed.keys()
        if comparable(key, recorded[key], replayed[key])
    }
    if not differences:
        raise SystemExit(f"{folder}: evaluate.py has no row that the run has")
    worst = max(differences, key=differences.__getitem__)
    where = " | ".join(map(str, worst))
    return ScoreReplay(len(differences), differences[worst], where, round(time.time() - start))


def main() -> None:
    """Replays the named runs, or all, and stores how far the numbers differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="*", default=list(RUNS), help="run folders (default: all)")
    parser.add_argument(
        "--wait", type=float, default=900, help="seconds for the first lines of a training"
    )
    options = parser.parse_args()
    unknown = [name for name in options.runs if name not in RUNS]
    if unknown:
        parser.error(f"{unknown[0]}: allowed are {', '.join(RUNS)}")

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        results = read_json(RECORD)
    except InputError:
        results = {}
    for name in options.runs:
        folder = ROOT / name
        with tempfile.TemporaryDirectory() as temporary:
            training = replay_training(folder, Path(temporary) / "run", options.wait)
            scores = replay_scores(folder, Path(temporary) / "copy", RUNS[name])
        results[name] = {"training": asdict(training), "scores": asdict(scores)}
        write_json(RECORD, dict(sorted(results.items())))
        print(name, results[name], flush=True)


if __name__ == "__main__":
    main()
