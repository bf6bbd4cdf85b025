"""The type checker is part of the tests, so that continuous integration runs it."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT
from tests.house.test_layout import SYSTEMS


def test_mypy_finds_nothing():
    packages = ["common", "tools", *SYSTEMS]
    command = [sys.executable, "-m", "mypy", *packages]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_finds_nothing():
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, str(ROOT)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
