"""What `make run` keeps, continues and begins anew, and the table that it ends with."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from common import run
from common.cli import InputError, Interrupted, parse
from tests.conftest import ROOT
from tools import readme, run_all
from tools.run_all import Config, plan_of
from tools.samples import SYSTEMS

NOW = {"commit": "aaa", "dirty": False}
# values of our row and of the baseline's, and both as the table shows them
VALUES = {
    2: (0.91234, 0.95555, "Seq2Seq 0.9123", "linear model 0.9556"),
    3: (0.9, 0.95, "Transformer 0.9000", "linear model 0.9500"),
    6: (0.01, 2.5e7, "one wide stream 0.0100", "FNO 2.5e+07"),
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository whose code is NOW."""
    for module in (run_all, readme):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(run_all, "git_state", lambda: NOW)
    return tmp_path


def make(place: Path, key: int, preset: str = "default", **changes: object) -> Path:
    """A run folder as train.py leaves it, but for what is changed in run.json."""
    system = SYSTEMS[key]
    folder = place / system.folder(preset)
    folder.mkdir(parents=True)
    options = {"seeds": 5, "rank": 8, "steps": [5, 20]}
    record = {"command": system.command(preset), "status": "finished", "seconds": 90.0, **NOW}
    record |= {"started": "2026-01-02T00:00:00Z", "resumed_from_commits": [], "config": options}
    record |= {"source": "simulated", "preset": preset, "data": {}, "notes": {}} | changes
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    rows = [
        {
            **dict.fromkeys(("series", "horizon")),
            "protocol": "held-out",
            "split": split,
            "metric": system.row["metric"],
            "model": scored.model,
            "variant": scored.variant.format(**options),
            "value": value,
        }
        for scored, value in zip((system.ours, system.baseline), VALUES[key][:2], strict=True)
        for split in ("validation", "test")
    ]
    # another number of seeds, and a part of the score, are other rows
    rows += [rows[1] | {"variant": "mean of 2 seeds"}, rows[1] | {"horizon": 1}]
    info = {system.row["metric"]: {"better": "lower"}}
    metrics = json.dumps({"metrics_info": info, "rows": rows})
    (folder / "metrics.json").write_text(metrics, encoding="utf-8")
    (folder / "report.pdf").touch()
    return folder


@pytest.fixture
def trained(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Trainings that take no time, those of assignment 3 without success, in their order."""
    calls: list[tuple[str, str]] = []

    def train(system, preset, option):
        calls.append((system.name, option))
        if system.name == "assignment3":
            raise InputError("its training ended with exit code 2")
        make(place, next(key for key in SYSTEMS if SYSTEMS[key] is system), preset)

    monkeypatch.setattr(run_all, "train", train)
    return calls


# -------------------------------------------------------------------------------- the decisions


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({}, None),
        *(({"status": status}, "--resume") for status in ("running", "interrupted", "failed")),
        ({"commit": "bbb"}, "--overwrite"),
        ({"commit": "bbb", "status": "interrupted"}, "--overwrite"),
        ({"resumed_from_commits": ["aaa"]}, None),
        ({"resumed_from_commits": ["bbb", "aaa"]}, "--overwrite"),
        ({"dirty": True}, "--overwrite"),
    ],
)
def test_a_run_is_kept_continued_or_begun_anew(place, changes, option):
    make(place, 2, **changes)
    assert plan_of(SYSTEMS[2], "default").option == option
    assert plan_of(SYSTEMS[2], "default", again=True).option == "--overwrite"
    assert plan_of(SYSTEMS[2], "smoke").option == "--overwrite"  # (there is none)


def test_uncommitted_changes_begin_anew_and_outside_a_checkout_a_run_goes_on(place, monkeypatch):
    make(place, 2)
    make(place, 6, commit=None, dirty=None)
    monkeypatch.setattr(run_all, "git_state", lambda: NOW | {"dirty": True})
    assert "uncommitted" in plan_of(SYSTEMS[2], "default").why
    monkeypatch.setattr(run_all, "git_state", lambda: {"commit": None, "dirty": None})
    assert plan_of(SYSTEMS[6], "default").option is None


def test_a_run_without_its_report_is_continued(place):
    (make(place, 2) / "report.pdf").unlink()
    assert plan_of(SYSTEMS[2], "default").option == "--resume"


def test_a_run_of_another_command_is_not_replaced_unless_asked_for(place):
    other = SYSTEMS[2].command("default") + " --seeds 9"
    make(place, 2, command=other)
    with pytest.raises(InputError, match="--seeds 9"):
        plan_of(SYSTEMS[2], "default")
    assert plan_of(SYSTEMS[2], "default", again=True).option == "--overwrite"


@pytest.mark.parametrize(
    ("started", "option"), [("2026-01-01", None), ("2026-01-03", "--overwrite")]
)
def test_assignment_4_begins_anew_on_a_newer_run_of_assignment_3(
    place, monkeypatch, started, option
):
    monkeypatch.setitem(VALUES, 4, VALUES[2])
    make(place, 4)
    make(place, 3, started=started)
    assert plan_of(SYSTEMS[4], "default").option == option


# ------------------------------------------------------------------------------ the whole command


def test_systems_come_in_order_and_a_failing_one_does_not_stop_the_others(trained, capsys):
    with pytest.raises(SystemExit) as end:
        run_all.main(Config((6, 2, 3, 2), preset="smoke"))
    assert end.value.code == 1
    assert [name for name, _ in trained] == ["assignment2", "assignment3", "final_project"]
    told = capsys.readouterr()
    assert (
        "[1/3] assignment2: Seq2Seq with attention, simulated prices (about a minute)" in told.out
    )
    assert told.err == "[2/3] assignment3 failed: its training ended with exit code 2\n"
    lines = told.out.splitlines()
    report = "assignment2/results/simulated-smoke/report.pdf"
    assert (
        f"assignment2: CRPS ratio ↓ {VALUES[2][2]}, {VALUES[2][3]}; 1.5 minutes; {report}" in lines
    )
    head, *table = lines[-4:]
    assert [head.split()[0], *(line.split()[0] for line in table)] == [
        *("system", "assignment2", "assignment3", "final_project")
    ]
    assert table[1].split() == ["assignment3", "-", "-", "-", "-", "failed"]
    for line, key in ((table[0], 2), (table[2], 6)):
        assert VALUES[key][2] in line
        assert VALUES[key][3] in line
        assert line.endswith("report.pdf")


def test_a_repeated_command_trains_only_what_is_not_finished(place, trained, capsys):
    make(place, 2)
    run_all.main(Config((2, 6)))
    assert trained == [("final_project", "--overwrite")]
    assert "kept" in capsys.readouterr().out


def test_minutes_of_a_continued_run_are_marked(place, trained, capsys):
    make(place, 2, resumed_from_commits=["aaa"])
    run_all.main(Config((2,)))
    *_, line, note = capsys.readouterr().out.splitlines()
    assert " 1.5+ " in line
    assert note.startswith("+:")


@pytest.mark.parametrize("change", ["missing", "twice"])
def test_a_row_that_is_not_there_once_is_told(place, trained, capsys, change):
    file = make(place, 2) / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8"))
    ours = [row for row in metrics["rows"] if row["variant"] == "mean of 5 seeds"]
    metrics["rows"] = ours + ours if change == "twice" else metrics["rows"][2:4]
    file.write_text(json.dumps(metrics), encoding="utf-8")
    with pytest.raises(SystemExit):
        run_all.main(Config((2,)))
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "model Seq2Seq, variant mean of 5 seeds" in error


def test_a_number_without_a_system_is_refused():
    assert parse(Config, ["3", "1"]).systems == (3, 1)
    assert parse(Config, []).systems == tuple(SYSTEMS)
    with pytest.raises(InputError, match="system 7: allowed are 1 to 6"):
        parse(Config, ["7"])


@pytest.mark.parametrize("key", SYSTEMS)
def test_a_training_records_the_command_that_it_is_called_with(key):
    system = SYSTEMS[key]
    config = importlib.import_module(f"{system.name}.config").Config
    for preset in ("smoke", "default", "full"):
        _, _, *words = system.command(preset).split()
        assert run.command_of(parse(config, words), system.name) == system.command(preset)
    assert system.flow in ("", f"-{getattr(config(), 'flow', '')}")


def test_our_models_and_baselines_have_rows_in_the_committed_runs(monkeypatch):
    monkeypatch.setattr(readme, "ROOT", ROOT)
    names = ("fer2013-full", "csv-full", "csv-full", "csv-full", "flowers-long", "cylinder-core")
    for system, name in zip(SYSTEMS.values(), names, strict=True):
        folder = Path(system.name, "results", name)
        options = run.read_record(ROOT / folder)["config"]
        for scored in (system.ours, system.baseline):
            assert run_all.number(system, scored, folder, options).startswith(scored.label)


# -------------------------------------------------------------------------------------- processes

CHILD = """
import os, signal, sys, time
print(*sys.argv[1:], flush=True)
saved = []
signal.signal(signal.SIGTERM, lambda *_: saved.append(1))
if {number}:
    os.kill(os.getppid(), {number})
    time.sleep(1)  # longer than subprocess.run waits before it kills
    open("saved", "w").write(str(len(saved)))
sys.exit({code})
"""


def child(place: Path, number: int, code: int) -> None:
    (place / "assignment2").mkdir()
    script = CHILD.format(number=number, code=code)
    (place / "assignment2" / "train.py").write_text(script, encoding="utf-8")


@pytest.mark.parametrize(("number", "passed_on"), [(2, "0"), (15, "1")])
def test_a_training_that_is_stopped_has_time_to_save(place, number, passed_on):
    child(place, number, code=130)
    with pytest.raises(Interrupted, match="the same command goes on"):
        run_all.train(SYSTEMS[2], "smoke", "--resume")
    assert (place / "saved").read_text() == passed_on


def test_a_training_gets_its_command_and_its_failure_is_told(place, capfd):
    child(place, 0, code=2)
    with pytest.raises(InputError, match="exit code 2"):
        run_all.train(SYSTEMS[2], "smoke", "--resume")
    assert capfd.readouterr().out == "--preset smoke --source simulated --resume\n"
