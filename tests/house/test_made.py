"""The table at the end of `make run`."""

from __future__ import annotations

import json

from tools import made


def run(folder, started: str, status: str = "finished", notice: bool = True) -> None:
    folder.mkdir(parents=True)
    data = {"notice": "built-in sample"} if notice else {}
    record = {"started": started, "seconds": 90.0, "status": status, "data": data}
    record |= {"config": {}, "notes": {}, "source": "simulated"}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "metrics.json").touch()
    (folder / "curve.png").touch()
    (folder / "report.pdf").touch()


def test_the_newest_finished_run_on_built_in_data_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "ROOT", tmp_path)
    run(tmp_path / "assignment1/results/synthetic-smoke", "2026-01-01")
    run(tmp_path / "assignment1/results/synthetic-default", "2026-01-02")
    run(tmp_path / "assignment1/results/synthetic-full", "2026-01-03", status="running")
    run(tmp_path / "assignment1/results/csv-full", "2026-01-04", notice=False)
    head, first, second = made.table(["assignment1", "assignment2"]).splitlines()
    assert head.split() == ["system", "minutes", "figures", "made"]
    assert first.split() == [
        "assignment1",
        "1.5",
        "1",
        "assignment1/results/synthetic-default/report.pdf",
    ]
    assert second.endswith("no finished run")
