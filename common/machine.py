"""What a run needs to know of the machine: device, library versions, commit, memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common.cli import InputError

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = "numpy scipy pandas scikit-learn arch yfinance torch tensorflow-cpu tensorflow keras"


@dataclass(frozen=True)
class Device:
    """A torch device and whether bfloat16 is the faster arithmetic on it."""

    name: str
    bfloat16: bool


def choose_device(wanted: str) -> Device:
    """The torch device for --device auto | cpu | cuda. Raises InputError for cuda without a GPU."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU on this machine; use cpu or auto")
    if wanted != "cpu" and torch.cuda.is_available():
        return Device("cuda", torch.cuda.is_bf16_supported())
    # without instructions of its own a processor's bfloat16 products are slower than float32
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return Device("cpu", fast)


def git_state() -> dict[str, str | bool | None]:
    """The repository's commit and whether tracked files other than results differ from it.

    Both are None outside a checkout.
    """

    def git(words: str) -> str:
        command = ["git", "-C", str(ROOT), *words.split()]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changes = git("status --porcelain --untracked-files=no -- . :!*/results/*")
        return {"commit": git("rev-parse HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def versions() -> dict[str, str]:
    """Python's version and those of the installed libraries that can change a result."""
    installed = {"python": platform.python_version()}
    for name in LIBRARIES.split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MiB."""
    # Linux: unlike ru_maxrss, VmHWM is not inherited from the process that started this one
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
