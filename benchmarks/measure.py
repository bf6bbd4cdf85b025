"""What all benchmarks share: timing in turns, and the file that a benchmark writes."""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common.files import write_json
from common.machine import git_state, peak_mb, versions

RESULTS = Path(__file__).resolve().parent / "results"
Work = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One line of a benchmark: our seconds (or only memory) beside those of something else."""

    case: str
    ours_seconds: float | None = None
    other: str | None = None
    other_seconds: float | None = None
    ratio: float | None = None
    peak_mb: float | None = None

    @classmethod
    def of(cls, case: str, ours: float, other: str, other_seconds: float) -> Comparison:
        """Seconds of ours and of the other, with their ratio and this process's peak memory."""
        return cls(
            case=case,
            ours_seconds=round(ours, 4),
            other=other,
            other_seconds=round(other_seconds, 4),
            ratio=round(ours / other_seconds, 4),
            peak_mb=peak_mb(),
        )


def seconds_in_turns(
    *works: Work,
    rounds: int,
    each: int = 1,
    warm_up: int = 0,
    pick: Callable[[Sequence[float]], float] = statistics.median,
) -> list[float]:
    """Seconds of each work; the works take turns, so that a drifting machine is fair to all.

    In each of the `rounds` every work runs `each` times; `pick` chooses one time of them all.
    """
    for work in works:
        for _ in range(warm_up):
            work()
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, taken in zip(works, times, strict=True):
            for _ in range(each):
                start = time.perf_counter()
                work()
                taken.append(time.perf_counter() - start)
    return [float(pick(taken)) for taken in times]


def machine() -> dict[str, object]:
    """Cores, threads of torch and library versions."""
    description: dict[str, object] = {
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        **versions(),
    }
    if "torch" in sys.modules:
        description["threads"] = sys.modules["torch"].get_num_threads()
    return description


def write(path: Path, rows: Sequence[Comparison]) -> None:
    """Prints the rows and writes them with the machine and the commit."""
    for row in rows:
        values = {key: value for key, value in dataclasses.asdict(row).items() if value is not None}
        print(" | ".join(f"{key} {value}" for key, value in values.items()))
    record = {
        "machine": machine(),
        "commit": git_state()["commit"],
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    write_json(path, record)
