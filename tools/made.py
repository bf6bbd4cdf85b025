"""Lists what `make run` made: the newest finished run of each system on built-in data.

python -m tools.made assignment1 final_project
"""

from __future__ import annotations

import sys
from pathlib import Path

from common.machine import ROOT
from common.run import SavedRun, finished_runs


def newest_sample(system: str) -> SavedRun | None:
    """The newest finished run of a system on built-in data, whose provenance has a notice."""
    runs = [run for run in finished_runs(ROOT / system / "results") if "notice" in run.data]
    return runs[-1] if runs else None


def line(system: str) -> str:
    """One line of the table: minutes, number of figures, and where the report is."""
    run = newest_sample(system)
    if run is None:
        return f"{system:15}{'-':>8}  {'-':>7}  no finished run"
    figures = len([*run.folder.glob("*.png"), *run.folder.glob("*.gif")])
    report = Path(run.folder).relative_to(ROOT) / "report.pdf"
    return f"{system:15}{run.record['seconds'] / 60:8.1f}  {figures:7}  {report}"


def table(systems: list[str]) -> str:
    """The table, one line per system."""
    title = f"{'system':15}{'minutes':>8}  {'figures':>7}  made"
    return "\n".join([title, *(line(system) for system in systems)])


if __name__ == "__main__":
    print(table(sys.argv[1:]))
