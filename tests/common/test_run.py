"""Command line, run folder, checkpoints and reports."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from common.cli import (
    BaseConfig,
    InputError,
    Interrupted,
    SavedRunConfig,
    check_ranges,
    parse,
)
from common.figures import PALETTE, colours
from common.files import atomic_path, load_state, save_state, tensors, write_json
from common.machine import peak_mb
from common.results import Metric, Row, print_table
from common.run import Run, SavedRun
from common.weights import read_model, save_model
from common.world import World


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    """A small config."""

    source: Literal["auto", "csv"] = "auto"
    seed: int = 0
    rate: float = 0.1
    widths: tuple[int, ...] = (8, 4)

    @classmethod
    def presets(cls):
        return {"smoke": {"rate": 0.5, "widths": (2,)}}


def test_preset_changes_defaults_and_options_win():
    assert parse(Config, ["--preset", "smoke"]) == Config(preset="smoke", rate=0.5, widths=(2,))
    assert parse(Config, ["--preset=smoke", "--rate", "0.25"]).rate == 0.25
    assert parse(Config, ["--widths", "1", "2", "3"]).widths == (1, 2, 3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--bogus", "3"], "--bogus"),
        (["--rate", "fast"], "--rate"),
        (["--source", "excel"], "excel"),
        (["--preset", "huge"], "huge"),
        (["--rate"], "--rate"),
    ],
)
def test_bad_command_lines_are_one_line(words, expected):
    with pytest.raises(InputError) as caught:
        parse(Config, words)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "╭" not in str(caught.value)


INFO = {"m": Metric("1", "higher", "-")}
ROW = Row(protocol="held-out", split="test", model="x", variant="-", metric="m", value=1.0)


def open_run(folder: Path, **changes) -> Run:
    return Run(Config(**changes), folder, __file__, "simulated", {"generator": "none"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_events_are_the_streamed_metrics(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_run(tmp_path / "run", tensorboard=True) as run:
        for step in (1, 2, 3):
            run.log(step, 0, "train", loss=1.0 / step)
        run.finish([], INFO)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]
    with open_run(tmp_path / "plain") as run:
        run.finish([], INFO)
    assert not (tmp_path / "plain" / "tensorboard").exists()


def test_a_finished_run_is_not_overwritten_and_identity_comes_first(tmp_path):
    with open_run(tmp_path / "a") as run:
        record = json.loads((tmp_path / "a/run.json").read_text())
        assert record["status"] == "running"
        assert record["config"]["rate"] == 0.1
        assert "out" not in record["config"]
        run.finish([ROW], INFO)
    before = {path: path.read_bytes() for path in (tmp_path / "a").glob("*.*")}
    with pytest.raises(InputError, match="finished run"):
        open_run(tmp_path / "a")
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(InputError, match="--rate"):
        open_run(tmp_path / "a", resume=True, rate=0.2)
    with open_run(tmp_path / "a", overwrite=True):
        assert not (tmp_path / "a/metrics.json").exists()
    assert json.loads((tmp_path / "a/run.json").read_text())["status"] == "finished"


def test_metrics_rows_have_every_key_and_nothing_unexplained(tmp_path):
    with open_run(tmp_path / "a", rate=0.3) as run:
        row = run.finish([ROW], INFO)["rows"][0]
        assert list(row) == [field.name for field in dataclasses.fields(Row)]
        assert row["series"] is None
        assert row["command"] == "python common/train.py --preset default --rate 0.3"
        with pytest.raises(ValueError, match="explained"):
            run.finish([dataclasses.replace(ROW, metric="other")], INFO)
    assert json.loads((tmp_path / "a/metrics.json").read_text())["rows"] == [row]


def test_two_runs_cannot_share_a_folder(tmp_path):
    with open_run(tmp_path / "a"), pytest.raises(InputError, match="in use"):
        open_run(tmp_path / "a", resume=True)


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        open_run(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "not a folder"


def test_memo_keeps_finished_parts_and_takes_back_what_a_killed_part_logged(tmp_path):
    calls = []

    def part(run: Run, name: str, fail: bool = False):
        calls.append(name)
        run.log(1, 1, "train", loss=0.5)
        if fail:
            raise KeyboardInterrupt
        return {"name": name, "array": np.arange(3)}

    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "a") as run:
        run.memo("one", lambda: part(run, "one"))
        run.memo("two", lambda: part(run, "two", fail=True))
    assert json.loads((tmp_path / "a/run.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "a/metrics.csv").read_text().count("loss") == 2
    with open_run(tmp_path / "a", resume=True) as run:
        assert run.memo("one", lambda: part(run, "one"))["name"] == "one"
        np.testing.assert_array_equal(run.memo("two", lambda: part(run, "two"))["array"], [0, 1, 2])
    assert calls == ["one", "two", "two"]
    assert (tmp_path / "a/metrics.csv").read_text().splitlines() == [
        "step,epoch,split,name,value",
        "1,1,train,loss,0.5",
        "1,1,train,loss,0.5",
    ]


def test_a_part_that_loads_its_checkpoint_goes_on_with_what_it_had_logged(tmp_path):
    def part(run: Run, stop: bool):
        step = (run.load("long") or {"step": 0})["step"]
        for now in range(step, 4):
            run.log(now, 0, "train", loss=now)
            if now == 1:
                run.save("long", {"step": 2})
            if now == 2 and stop:
                raise KeyboardInterrupt
        return now

    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "a") as run:
        run.memo("first", lambda: run.log(9, 0, "train", loss=9))
        run.memo("long", lambda: part(run, True))
    with open_run(tmp_path / "a", resume=True) as run:
        run.memo("first", lambda: None)
        assert run.memo("long", lambda: part(run, False)) == 3
    assert [
        line.split(",")[0] for line in (tmp_path / "a/metrics.csv").read_text().splitlines()[1:]
    ] == ["9", "0", "1", "2", "3"]


def test_a_part_whose_checkpoint_has_another_name_is_a_mistake_of_the_code(tmp_path):
    with (
        open_run(tmp_path / "a") as run,
        pytest.raises(ValueError, match='the part "long" asks for the checkpoint "short"'),
    ):
        run.memo("long", lambda: run.load("short"))


def test_stoppable_saves_at_the_next_check_and_stops_on_nan(tmp_path):
    import signal

    saved = []
    with open_run(tmp_path / "a") as run:
        with (
            pytest.raises(Interrupted, match="--resume"),
            run.stoppable(lambda: saved.append(1)) as check,
        ):
            check(0, 1.0)
            os.kill(os.getpid(), signal.SIGTERM)
            check(1, 1.0)
        assert saved == [1]
        with (
            pytest.raises(FloatingPointError, match=r"step 7.*2\.5"),
            run.stoppable(lambda: None) as check,
        ):
            check(6, 2.5)
            check(7, float("nan"))


def test_a_signal_after_the_last_check_stops_the_run_at_the_end_of_the_block(tmp_path):
    import signal

    saved = []
    with (
        pytest.raises(Interrupted, match="--resume"),
        open_run(tmp_path / "a") as run,
        run.stoppable(lambda: saved.append(1)) as check,
    ):
        check(0, 1.0)
        os.kill(os.getpid(), signal.SIGTERM)  # in a last pass over validation, which checks nothing
    assert saved == [1]
    assert json.loads((tmp_path / "a" / "run.json").read_text())["status"] == "interrupted"


def test_state_round_trip_is_exact_and_holds_no_pickle(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    state = {
        "optimiser": optimiser.state_dict(),
        "step": 3,
        "none": None,
        "list": [1, 2.5, "x"],
        "scalar": np.float64(0.1),
        "empty": np.zeros((0, 2)),
    }
    save_state(tmp_path / "s", state)
    back = load_state(tmp_path / "s")
    again = torch.optim.AdamW(layer.parameters())
    again.load_state_dict(tensors(back["optimiser"]))
    for key, value in optimiser.state_dict()["state"][0].items():
        assert torch.equal(value, again.state_dict()["state"][0][key])
    assert (back["step"], back["none"], back["list"], back["scalar"]) == (
        3,
        None,
        [1, 2.5, "x"],
        0.1,
    )
    assert back["empty"].shape == (0, 2)
    assert b"pickle" not in (tmp_path / "s").read_bytes()
    whole = (tmp_path / "s").read_bytes()
    for harmed in (b"", whole[:40], whole[:-8], b"{" + whole[1:]):
        (tmp_path / "s").write_bytes(harmed)
        with pytest.raises(InputError, match="is damaged; --overwrite begins the run anew"):
            load_state(tmp_path / "s")


def test_atomic_path_leaves_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(ValueError, match="JSON"):
        write_json(target, float("nan"))
    assert target.read_text() == "old"


def finished(folder: Path, started: str, status: str = "finished") -> None:
    """A folder that looks like a run."""
    folder.mkdir()
    parts = {"config": {}, "data": {}, "notes": {}, "source": "simulated", "preset": "full"}
    write_json(folder / "run.json", {"status": status, "started": started, **parts})
    write_json(folder / "metrics.json", {})


def test_the_newest_finished_run_with_a_report_is_opened(tmp_path):
    results = tmp_path / "assignment9" / "results"
    results.mkdir(parents=True)
    with pytest.raises(InputError, match="no finished run"):
        SavedRun.open(None, results)
    finished(results / "a", "2026-01-01")
    finished(results / "b", "2026-01-02")
    finished(results / "c", "2026-01-03", status="running")
    finished(results / "d", "2026-01-04")  # an ablation: tables and no report
    for name in "abc":
        (results / name / "report.pdf").touch()
    assert SavedRun.open(None, results).folder.name == "b"
    assert SavedRun.open(results / "d", results).folder.name == "d"
    finished(results / "simulated-full", "2025-01-01")  # older, but where train.py writes by itself
    (results / "simulated-full" / "report.pdf").touch()
    assert SavedRun.open(None, results).folder.name == "simulated-full"
    with pytest.raises(InputError, match=r"holds no model\.npz.*assignment9"):
        SavedRun.open(None, results, needs=("model.npz",))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{",
        '{"config": [], "data": {}, "notes": {}}',
        '{"config": {}, "data": {}, "notes": {}, "source": 1, "started": null}',
    ],
)
def test_a_damaged_run_json_is_one_line(tmp_path, text):
    finished(tmp_path / "a", "2026-01-01")
    (tmp_path / "a" / "report.pdf").touch()
    (tmp_path / "a" / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json"):
        SavedRun.open(tmp_path / "a", tmp_path)
    with pytest.raises(InputError, match="no finished run"):
        SavedRun.open(None, tmp_path)
    with pytest.raises(InputError, match=r"run\.json"):
        Run(BaseConfig(resume=True), tmp_path / "a", "assignment2/train.py", "simulated", {})


@dataclasses.dataclass(frozen=True)
class Fit:
    """What a part of a run returns."""

    weight: np.ndarray
    seconds: float
    name: str | None = None


def fit(scale: float) -> Fit:
    return Fit(scale * np.arange(3.0), 1.5)


def test_memo_rebuilds_the_data_class_that_a_part_returns(tmp_path):
    with open_run(tmp_path / "a") as run:
        first = run.memo("fit", fit, 2.0)
    with open_run(tmp_path / "a", resume=True) as run:
        second = run.memo("fit", fit, 3.0)  # finished before: not called again
    for result in (first, second):
        assert isinstance(result, Fit)
        np.testing.assert_array_equal(result.weight, [0, 2, 4])
        assert (result.seconds, result.name) == (1.5, None)


def test_a_process_of_another_rank_reads_and_writes_nothing(tmp_path):
    with open_run(tmp_path / "a") as run:
        run.memo("fit", fit, 2.0)
        run.save("long", {"step": 3})
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    world = World(rank=1, size=1)  # of size 1, so that it waits for nobody
    arguments = (Config(), tmp_path / "a", __file__, "simulated", {"notice": "made"})
    with Run(*arguments, world=world) as run:
        run.log(1, 1, "train", loss=1.0)
        run.note(device="cpu")
        run.save("other", {"step": 1})
        assert run.load("long") == {"step": 3}
        assert run.memo("fit", fit, 9.0).weight[1] == 2
        assert run.memo("new", fit, 9.0).weight[1] == 9
        with run.stoppable(lambda: None) as check:
            check(0, 1.0)
    after = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert after == before


def test_a_run_on_simulated_data_says_so_once(tmp_path, capsys):
    with Run(Config(), tmp_path / "a", __file__, "simulated", {"notice": "not real"}):
        pass
    assert capsys.readouterr().err == "notice: not real\n"
    with open_run(tmp_path / "b"):
        pass
    assert capsys.readouterr().err == ""


def test_the_resume_command_names_the_folder(tmp_path):
    with open_run(tmp_path / "a folder", rate=0.2) as run:
        words = shlex.split(run.resume_command)
    assert words[:2] == ["python", "common/train.py"]
    config = parse(Config, words[2:])
    assert (config.rate, config.out, config.resume) == (0.2, tmp_path / "a folder", True)


def test_paths_are_checked_with_the_options(tmp_path):
    with pytest.raises(InputError, match=r"--data .*nowhere\.csv does not exist"):
        parse(Config, ["--data", str(tmp_path / "nowhere.csv")])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--out .*cannot be written"):
        parse(Config, ["--out", str(tmp_path / "file" / "run")])
    with pytest.raises(InputError, match=r"--run .*does not exist"):
        parse(SavedRunConfig, ["--run", str(tmp_path / "nowhere")])
    with pytest.raises(InputError, match=r"the folder .*nowhere does not exist"):
        parse(SavedRunConfig, ["--out", str(tmp_path / "nowhere" / "a.json")])
    assert parse(Config, ["--out", str(tmp_path / "new" / "run")]).out == tmp_path / "new" / "run"


def test_numbers_outside_their_range_are_named():
    ranges = {"rate": (0, 1), "widths": (1, math.inf), "absent": (0, 1)}
    check_ranges(Config(), ranges)
    with pytest.raises(InputError, match="--rate nan: allowed are 0 to 1"):
        check_ranges(Config(rate=math.nan), ranges)
    with pytest.raises(InputError, match="--widths 0: allowed are 1 and more"):
        check_ranges(Config(widths=(3, 0)), ranges)


def test_a_table_has_a_line_per_model_and_a_column_per_metric(capsys):
    rows = [dataclasses.asdict(ROW), dataclasses.asdict(ROW) | {"metric": "n", "std": 0.25}]
    other = dataclasses.asdict(ROW) | {"model": "y", "value": 2e7}
    print_table([*rows, other], {"m": "first", "n": "second"}, digits=2, title="scores")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert lines == [
        ["scores"],
        ["model", "variant", "first", "second"],
        ["x", "-", "1.00", "1.00", "±", "0.25"],
        ["y", "-", "2.0e+07", "-"],
    ]


def test_small_helpers():
    assert colours(["a", "b"]) == {"a": PALETTE[0], "b": PALETTE[1]}
    assert 10 < peak_mb() < 100_000


def test_a_metrics_csv_that_was_shortened_by_hand_does_not_grow_zero_bytes(tmp_path):
    def part(run, name):
        run.log(1, 0, "train", loss=0.5)
        return {"name": name}

    with pytest.raises(RuntimeError), open_run(tmp_path / "run") as run:
        run.memo("a", lambda: part(run, "a"))
        raise RuntimeError
    file = tmp_path / "run" / "metrics.csv"
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])
    with open_run(tmp_path / "run", resume=True) as run:
        run.memo("a", lambda: part(run, "a"))
        run.memo("b", lambda: part(run, "b"))
        run.finish([], INFO)
    assert file.read_bytes().decode().splitlines() == [
        "step,epoch,split,name,value",
        "1,0,train,loss,0.5",
    ]


def test_a_model_file_keeps_what_float16_cannot_hold(tmp_path):
    weights = {
        "scale": torch.tensor([2e6, 1.0]),
        "weight": torch.tensor([0.5, -2.0]),
        "count": torch.arange(3),
    }
    save_model(tmp_path / "model.safetensors", weights, {"width": 3}, half=True)
    back, about = read_model(tmp_path / "model.safetensors")
    assert about == {"width": 3}
    assert {name: value.dtype for name, value in back.items()} == {
        "scale": torch.float32,
        "weight": torch.float16,
        "count": torch.int64,
    }
    assert all(torch.equal(back[name].to(value.dtype), value) for name, value in weights.items())
