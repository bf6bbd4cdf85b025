"""Compiles each system's report.pdf from its newest finished run on real data: `make reports`."""

from __future__ import annotations

from common.machine import ROOT
from common.report import compile_report
from common.run import finished_runs


def main() -> None:
    """Writes <system>/report.pdf for every system with a report.typ and a run on real data."""
    for source in sorted(ROOT.glob("*/report.typ")):
        if source.parent.name == "common":
            continue  # the template of all reports
        real = [run for run in finished_runs(source.parent / "results") if "notice" not in run.data]
        if real:
            compile_report(real[-1].folder, source, source.parent / "report.pdf")
            print(f"{source.parent.name}/report.pdf from {real[-1].folder.name}")


if __name__ == "__main__":
    main()
