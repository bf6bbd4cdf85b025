"""One unbroken smoke run of each system, shared by every test that reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def results(folder: Path) -> dict:
    """metrics.json less what is measured with a clock or a memory gauge."""
    found = json.loads((folder / "metrics.json").read_text())
    for row in found["rows"]:
        row.pop("seconds")
        row.pop("peak_mb")
    return found


@pytest.fixture(scope="session")
def smoke1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of assignment 1's smoke preset, made from another working folder."""
    place = tmp_path_factory.mktemp("smoke")
    done = call("assignment1/train.py", "--preset", "smoke", "--source", "synthetic", "--out", place / "run", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "run"


@pytest.fixture(scope="session")
def smoke2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of assignment 2's smoke preset, made from another working folder."""
    place = tmp_path_factory.mktemp("smoke")
    done = call("assignment2/train.py", "--preset", "smoke", "--source", "simulated", "--out", place / "run", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "run"
