"""Writes requirements.lock: every package that the programs and the tests need, with hashes.

python -m tools.lock      or `make lock`

uv resolves requirements-dev.txt for all platforms at once and lists the sha256 of every file of
each version; it is installed for that into a folder that is removed again. Versions in the present
lock stay as they are where the requirements allow it, so the same requirements give the same lock:
remove the file first to take the newest of everything that the requirements leave open.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common.cli import InputError, entry
from common.files import write_text
from common.machine import ROOT

LOCK = ROOT / "requirements.lock"
RESOLVER = "uv==0.13.9"
PROJECT = "advanced-deep-learning"  # a folder has no hash, so it is installed afterwards
HEADER = """\
# Written by `make lock`: all that `make run` and `make test` need, with the sha256 of every file.
# For Python 3.11 on Linux (x86_64) and on macOS 14 or later (Apple silicon).
#
#     pip install --require-hashes --only-binary :all: -r requirements.lock
#     pip install --no-deps --no-build-isolation -e .
#
# On Linux torch is the build with CUDA, as from `pip install torch`, with NVIDIA's libraries.

"""


def run(*words: str | Path) -> None:
    """Runs a command in the repository's root. Raises InputError with its last line if it fails."""
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise InputError(f"{Path(command[0]).name} {command[1]} failed: {reason.strip()}")


def resolved(lock: str) -> str:
    """The requirements that uv resolves, as text; versions of the given lock are kept."""
    with tempfile.TemporaryDirectory() as temporary:
        programs = Path(temporary) / "venv" / "bin"
        out = Path(temporary) / "requirements.lock"
        out.write_text(lock, encoding="utf-8")
        run(sys.executable, "-m", "venv", programs.parent)
        run(programs / "python", "-m", "pip", "install", "--quiet", RESOLVER)
        run(
            *(programs / "uv", "pip", "compile", "requirements-dev.txt", "--output-file", out),
            *("--universal", "--python", sys.executable, "--python-version", "3.11"),
            *("--generate-hashes", "--no-emit-package", PROJECT),
            *("--no-header", "--annotation-style", "line"),
        )
        return out.read_text(encoding="utf-8")


def main() -> None:
    """Resolves anew and writes the lock."""
    text = resolved(LOCK.read_text(encoding="utf-8") if LOCK.exists() else "")
    write_text(LOCK, HEADER + text)
    print(f"{LOCK.name}: {len(re.findall(r'^[a-z]', text, re.MULTILINE))} packages")


if __name__ == "__main__":
    entry(lambda _: main(), None)
