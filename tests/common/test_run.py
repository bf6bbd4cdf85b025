"""Command line, run folder, checkpoints and reports."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from common.cli import BaseConfig, InputError, Interrupted, parse
from common.figures import PALETTE, colours
from common.run import (
    Run,
    atomic_path,
    load_state,
    newest_run,
    peak_mb,
    save_state,
    tensors,
    write_json,
)
from common.weights import read_model, save_model


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


def open_run(folder: Path, **changes) -> Run:
    return Run(Config(**changes), folder, __file__, "simulated", {"generator": "none"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_events_are_the_streamed_metrics(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_run(tmp_path / "run", tensorboard=True) as run:
        for step in (1, 2, 3):
            run.log(step, 0, "train", loss=1.0 / step)
        run.finish([], {})
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]
    with open_run(tmp_path / "plain") as run:
        run.finish([], {})
    assert not (tmp_path / "plain" / "tensorboard").exists()


@pytest.mark.parametrize(
    "folder",
    [
        "assignment1",
        "assignment2",
        "assignment3",
        "assignment4",
        "assignment5",
        "final_project",
        "template",
    ],
)
def test_every_train_script_has_tensorboard(folder):
    from tests.test_readme import config_of

    assert issubclass(
        config_of(f"{folder}.train"), BaseConfig
    )  # whose --tensorboard every Run obeys


def test_a_finished_run_is_not_overwritten_and_identity_comes_first(tmp_path):
    with open_run(tmp_path / "a") as run:
        record = json.loads((tmp_path / "a/run.json").read_text())
        assert record["status"] == "running"
        assert record["config"]["rate"] == 0.1
        assert "out" not in record["config"]
        run.finish(
            [{"metric": "m", "value": 1.0}],
            {"m": {"unit": "1", "better": "higher", "reference": "-"}},
        )
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
    info = {"m": {"unit": "1", "better": "higher", "reference": "-"}}
    with open_run(tmp_path / "a", rate=0.3) as run:
        row = run.finish([{"metric": "m", "value": 1.0, "model": "x"}], info)["rows"][0]
        assert set(row) == {
            "protocol",
            "split",
            "model",
            "variant",
            "metric",
            "value",
            "std",
            "n_seeds",
            "series",
            "horizon",
            "params",
            "seconds",
            "peak_mb",
            "command",
        }
        assert row["series"] is None
        assert row["command"] == "python tests/train.py --preset default --rate 0.3"
        with pytest.raises(ValueError, match="unknown"):
            run.finish([{"metric": "m", "colour": 1}], info)
        with pytest.raises(ValueError, match="explained"):
            run.finish([{"metric": "other", "value": 1.0}], info)


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


def test_newest_run_skips_unfinished_ones_and_ablations(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        newest_run(tmp_path)
    for name, status, started in (
        ("a", "finished", "2026-01-01"),
        ("b", "finished", "2026-01-02"),
        ("c", "running", "2026-01-03"),
    ):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "run.json", {"status": status, "started": started})
        write_json(tmp_path / name / "metrics.json", {})
        (tmp_path / name / "report.pdf").touch()
    (tmp_path / "d").mkdir()
    write_json(tmp_path / "d" / "run.json", {"status": "finished", "started": "2026-01-04"})
    write_json(tmp_path / "d" / "metrics.json", {})  # tables alone
    assert newest_run(tmp_path).name == "b"


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
        run.finish([], {})
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
