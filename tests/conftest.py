"""One unbroken smoke run of each system, shared by every test that reads it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # networks this small wait for a second thread longer than it helps them

ROOT = Path(__file__).resolve().parents[1]


def call(script: str, *words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs a script as a user does; never on the user's real data unless the words say so."""
    environment = {name: value for name, value in os.environ.items() if name != "ADL_DATA_DIR"}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def assert_refused(script: str, words: list[object], message: str, place: Path) -> None:
    """A user's mistake in `place`: exit code 2, one line that begins with error: and holds the message, no file more or less."""
    before = sorted(path.name for path in place.iterdir())
    done = call(script, *words, cwd=place)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert sorted(path.name for path in place.iterdir()) == before


def results(folder: Path) -> dict:
    """metrics.json less what is measured with a clock or a memory gauge."""
    found = json.loads((folder / "metrics.json").read_text())
    for row in found["rows"]:
        row.pop("seconds")
        row.pop("peak_mb")
    return found


def smoke(assignment: str, source: str, place: Path, *words: str) -> Path:
    """Run folder of an assignment's smoke preset, made from another working folder."""
    done = call(
        f"{assignment}/train.py",
        "--preset",
        "smoke",
        "--source",
        source,
        "--out",
        place / "run",
        *words,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    return place / "run"


def assert_same_after_kill_9(
    unbroken: Path, assignment: str, source: str, place: Path, checkpoint: str, *more: str
) -> None:
    """A smoke run in `place`, killed as soon as a checkpoint has been written and resumed, tells what the unbroken one does."""
    words = ["--preset", "smoke", "--source", source, "--out", str(place / "run"), *more]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / assignment / "train.py"), *words],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.time() + 120
    while (
        not (place / "run" / "checkpoints" / checkpoint).exists()
        and time.time() < until
        and process.poll() is None
    ):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads((place / "run" / "run.json").read_text())["status"] == "running"
    refused = call(f"{assignment}/train.py", *words)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    smoke(assignment, source, place, "--resume", *more)
    assert results(place / "run") == results(unbroken)
    assert (place / "run" / "metrics.csv").read_bytes() == (unbroken / "metrics.csv").read_bytes()


@pytest.fixture(scope="session")
def smoke1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One unbroken run of assignment 1."""
    return smoke("assignment1", "synthetic", tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="session")
def smoke2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One unbroken run of assignment 2."""
    return smoke("assignment2", "simulated", tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="session")
def smoke3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One unbroken run of assignment 3."""
    return smoke("assignment3", "simulated", tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="session")
def smoke5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One unbroken run of assignment 5."""
    return smoke("assignment5", "synthetic", tmp_path_factory.mktemp("smoke"))
