"""Reports: what of a large run they are given, and that their compilation can be ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.report import compile_document, index_of, of_first_series
from common.results import SHOWN_SERIES

ENDLESS = "#{ let n = 0; while true { n += 1; n = calc.rem(n, 7) } }"


def row(series: str | None, metric: str = "rmse", model: str = "A") -> dict[str, object]:
    return {"series": series, "metric": metric, "model": model}


def test_a_report_gets_the_rows_of_the_first_series_and_all_that_are_pooled():
    names = [f"S{s}" for s in range(SHOWN_SERIES + 5)]
    metrics = {"run": {"a": 1}, "rows": [row(None), *(row(name) for name in names), row(None)]}
    shown = of_first_series(metrics)
    assert shown["series_left_out"] == 5
    assert [one["series"] for one in shown["rows"]] == [None, *names[:SHOWN_SERIES], None]
    assert shown["run"] == {"a": 1}
    few = {"rows": [row(None), row("S0")]}
    assert of_first_series(few) == {**few, "series_left_out": 0}


def test_the_index_names_the_rows_of_each_metric_and_model():
    rows = [row(None), row("S0", "mae"), row("S0"), row("S0", "rmse", "B")]
    assert index_of(rows) == {"rmse": {"A": [0, 2], "B": [3]}, "mae": {"A": [1]}}


def test_a_document_that_typst_refuses_is_named_with_the_reason(tmp_path):
    source = tmp_path / "report.typ"
    source.write_text("#unknown-name")
    with pytest.raises(RuntimeError, match=r"report.typ does not compile: .*unknown"):
        compile_document(source, tmp_path / "report.pdf", {})


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_compilation_at_once(tmp_path, number):
    source = tmp_path / "report.typ"
    source.write_text(ENDLESS)
    code = (
        "import os, sys; from pathlib import Path; from common.cli import entry\n"
        "from common.report import compile_document\n"
        "source = Path(sys.argv[1]); print('ready', flush=True)\n"
        "entry(lambda _: compile_document(source, source.with_suffix('.pdf'), {}), None)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    child = child_of(process.pid)
    started = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=10)
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert error.startswith("interrupted: ")
    assert not runs(child)
    assert not source.with_suffix(".pdf").exists()
    assert os.listdir(tmp_path) == ["report.typ"]


def runs(process: int) -> bool:
    """Whether a process still runs within the next second; one that has ended may be listed."""
    status = Path(f"/proc/{process}/stat")
    for _ in range(100):
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.01)
    return True


def child_of(parent: int) -> int:
    """The first child of a process, once it has one."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    for _ in range(500):
        if children.read_text().split():
            return int(children.read_text().split()[0])
        time.sleep(0.01)
    raise AssertionError("no child began")
