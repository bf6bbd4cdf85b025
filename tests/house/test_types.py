"""The type checker is part of the tests, so that continuous integration runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKED = (
    "common",
    "assignment1",
    "assignment2",
    "assignment3",
    "assignment4",
    "assignment5",
    "final_project",
)


def test_mypy_finds_nothing(tmp_path):
    words = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), *CHECKED]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
