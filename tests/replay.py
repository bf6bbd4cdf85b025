"""Trains the beginning of every committed run again, scores its saved models again, and compares: `python -m tests.replay` (`make replay`).

A run of hours is not repeated for every change of the code. What says that it still belongs to the code is that the code makes
the same first losses from the same command, and the same scores from the saved models; `replayed.json` keeps how far they agreed,
beside a digest of the code that did it, and tests/test_results.py compares that digest with today's.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from common.run import write_json

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "tests" / "replayed.json"
RUNS: dict[str, list[str]] = {  # each with the words for evaluate.py
    "assignment1/results/fer2013-full": [],
    "assignment2/results/csv-full": [],
    "assignment3/results/csv-full": [],
    "assignment4/results/csv-full": [],
    "assignment5/results/flowers-long": ["--samples", "256", "--steps", "5", "--sampler", "ddim"],
    "final_project/results/cylinder-core": ["--steps", "199"],
    "final_project/results/lock_exchange-core": ["--steps", "199"],
}
KEY = (
    "protocol",
    "split",
    "model",
    "variant",
    "metric",
    "series",
    "horizon",
)  # what tells one row from another
# over the size of a whole trajectory, of which evaluate.py is given the trained horizon
OF_THE_WHOLE = ("vrmse", "nrmse", "spectral_", "divergence")
DRAWS = {"figures", "report", "readme", "made", "compare"}  # what only draws and prints
LINES, LONGER = (
    20,
    90.0,
)  # of metrics.csv that are compared; seconds after the first of them in which the others may come


def imported(path: Path) -> set[Path]:
    """The project's files that a file imports, itself included, through all of them; those that only draw are left out."""
    found, open_ends = set[Path](), [path]
    while open_ends:
        file = open_ends.pop()
        if file in found or file.stem in DRAWS or not file.exists():
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            open_ends += [ROOT / (name.replace(".", "/") + ".py") for name in names]
    return found


def digest(system: str) -> str:
    """sha256 of all code that a system's train.py runs, less comments, docstrings and layout."""
    told = hashlib.sha256()
    for file in sorted(imported(ROOT / system / "train.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            for name in ("body", "orelse", "finalbody"):
                block = getattr(node, name, None)
                if isinstance(
                    block, list
                ):  # a statement that is a text alone tells a reader something, and the machine nothing
                    block[:] = [
                        line
                        for line in block
                        if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
                    ]
        told.update(f"{file.relative_to(ROOT).as_posix()}\0{ast.dump(tree)}\n".encode())
    return told.hexdigest()


def curves(folder: Path) -> dict[tuple, float]:
    """metrics.csv as (split, name, step) -> value."""
    try:
        table = pd.read_csv(folder / "metrics.csv")
    except (OSError, pd.errors.EmptyDataError):
        return {}
    return {
        (row.split, row.name_, row.step): row.value
        for row in table.rename(columns={"name": "name_"}).itertuples()
    }


def difference(once: float, now: float, allowed: float = 0) -> float:
    """Relative difference of two values beyond what is allowed, against 1e-6 where the first is nearly zero."""
    return max(abs(once - now) - allowed, 0) / max(abs(once), 1e-6)


def train_again(folder: Path, place: Path, wait: float) -> dict[str, Any]:
    """The recorded command until its first lines are there: how many were compared, and how far they differ."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    words = shlex.split(record["command"])
    if "precision" in record["notes"]:  # what auto was on the processor of that run
        words += ["--precision", record["notes"]["precision"]]
    once, now = curves(folder), dict[tuple, float]()
    begun, until = time.time(), time.time() + wait
    process = subprocess.Popen(
        [sys.executable, str(ROOT / words[1]), *words[2:], "--out", str(place)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while time.time() < until and process.poll() is None and len(once.keys() & now.keys()) < LINES:
        time.sleep(0.5)
        now = curves(place)
        if once.keys() & now.keys():
            until = min(until, time.time() + LONGER)
    told = process.stderr.read().decode().splitlines() if process.poll() else []
    process.send_signal(signal.SIGTERM)
    process.wait()
    common = sorted(once.keys() & now.keys(), key=str)
    if not common:
        raise SystemExit(
            f"{folder}: no line of its metrics.csv came again within {wait:.0f} s; {' '.join(told[-1:])}"
        )
    return {
        "lines": len(common),
        "largest": max(difference(once[key], now[key]) for key in common),
        "seconds": round(time.time() - begun),
    }


def scores(file: Path, best: dict[str, str]) -> dict[tuple, dict[str, Any]]:
    """Rows of metrics.json, or of what evaluate.py wrote, by KEY; `best` names the variant of a model where evaluate.py names none."""
    found = {}
    for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
        if row["variant"] == "all faces":
            row["variant"] = best[row["model"]]
        if row["value"] is not None:
            found[tuple(row.get(name) for name in KEY)] = row
    return found


def apart(once: dict[str, Any], now: dict[str, Any]) -> float:
    """Relative difference of two values, less how far one of several seeds can lie from their mean (n - 1 over the root of n deviations)."""
    n = once["n_seeds"] or 1
    spread = (once["std"] or 0) * (n - 1) / n**0.5 if now.get("n_seeds") != n else 0
    return difference(once["value"], now["value"], spread)


def score_again(folder: Path, place: Path, words: list[str]) -> dict[str, Any]:
    """evaluate.py on a copy of the run: how many of its rows the run has too, and how far they differ."""
    shutil.copytree(folder, place)
    script, begun = folder.parents[1] / "evaluate.py", time.time()
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    given = shlex.split(record["command"])
    data = (
        {"ADL_DATA_DIR": str((ROOT / given[given.index("--data") + 1]).parent)}
        if "--data" in given
        else {}
    )  # where evaluate.py looks
    done = subprocess.run(
        [
            sys.executable,
            str(script),
            "--run",
            str(place),
            "--out",
            str(place / "again.json"),
            *words,
        ],
        cwd=ROOT,
        env=os.environ | data,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{folder}: {done.stderr.decode().strip().splitlines()[-1]}")
    best = {
        model: chosen["variant"]
        for model, chosen in record["notes"].get("best_on_validation", {}).items()
    }
    once, now = (scores(place / name, best) for name in ("metrics.json", "again.json"))
    common = [key for key in once.keys() & now.keys() if not key[4].startswith(OF_THE_WHOLE)]
    # ends of intervals are of all seeds together, and evaluate.py has one of them
    common = [
        key
        for key in common
        if not key[4].endswith(("_low", "_high")) or once[key]["n_seeds"] == now[key].get("n_seeds")
    ]
    if not common:
        raise SystemExit(f"{folder}: evaluate.py has no row that the run has")
    worst = max(common, key=lambda key: apart(once[key], now[key]))
    return {
        "rows": len(common),
        "largest": apart(once[worst], now[worst]),
        "where": " | ".join(map(str, worst)),
        "seconds": round(time.time() - begun),
    }


def main() -> None:
    words = argparse.ArgumentParser(
        description="train the beginning of committed runs again, score their models again, and compare"
    )
    words.add_argument("runs", nargs="*", default=list(RUNS), help="run folders (default: all)")
    words.add_argument(
        "--wait", type=float, default=900, help="seconds for the first lines of a training"
    )
    given = words.parse_args()
    if unknown := [name for name in given.runs if name not in RUNS]:
        words.error(f"{unknown[0]}: allowed are {', '.join(RUNS)}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    for name in given.runs:
        folder, system = ROOT / name, name.split("/")[0]
        with tempfile.TemporaryDirectory() as place:
            found: dict[str, Any] = {
                "code": digest(system),
                "training": train_again(folder, Path(place) / "run", given.wait),
            }
            found["scores"] = score_again(folder, Path(place) / "copy", RUNS[name])
        record[name] = found
        write_json(RECORD, dict(sorted(record.items())))
        print(name, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
