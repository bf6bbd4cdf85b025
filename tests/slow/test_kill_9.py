"""Every training, killed at random moments and resumed, equals the unbroken one."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from final_project.data import write_flow
from tests.conftest import ROOT, assert_readable, call, results, streamed
from tests.final_project.waves import waves

pytestmark = pytest.mark.slow

SYSTEMS = ("assignment1", "assignment2", "assignment3", "assignment4", "assignment5")
KILLS, SEED = 20, 0


def options_of(system: str, folder: Path) -> list[str]:
    """The options of a small training of a system."""
    if system == "final_project":
        write_flow(folder / "waves.h5", waves())
        return ["--source", "auto", "--data", str(folder / "waves.h5")]
    if system == "assignment4":
        base = folder / "base"
        train("assignment3", "--source", "simulated", "--out", base)
        return ["--source", "simulated", "--base", str(base)]
    source = "synthetic" if system in ("assignment1", "assignment5") else "simulated"
    return ["--source", source]


def train(system: str, *words: object) -> None:
    """A smoke run from beginning to end."""
    result = call(f"{system}/train.py", "--preset", "smoke", *words)
    assert result.returncode == 0, result.stderr


def kill_after(system: str, words: list[str], record: Path, seconds: float) -> None:
    """Starts a training and kills it; the clock runs from when the run has its folder."""
    start = time.time()
    command = [sys.executable, str(ROOT / system / "train.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and time.time() < start + 120:
            if record.exists() and record.stat().st_mtime >= start:
                break
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("system", [*SYSTEMS, "final_project"])
def test_kill_9_at_random_moments_and_resume(system, tmp_path):
    options = options_of(system, tmp_path)
    unbroken = tmp_path / "unbroken"
    train(system, *options, "--out", unbroken)
    whole = json.loads((unbroken / "run.json").read_text())["seconds"]

    # moments spread over about one training
    folder = tmp_path / "run"
    record = folder / "run.json"
    words = ["--preset", "smoke", *options, "--out", str(folder), "--resume"]
    rng = np.random.default_rng((SEED, *system.encode()))
    for moment in rng.uniform(0, 2 * whole / (KILLS + 1), KILLS):
        kill_after(system, words, record, moment)
        assert_readable(folder)
    if not record.exists() or json.loads(record.read_text())["status"] != "finished":
        train(system, *words[2:])
    assert_readable(folder)
    assert results(folder) == results(unbroken)
    assert streamed(folder) == streamed(unbroken)
    assert not list((folder / "checkpoints").glob("*.tmp"))
