"""simulate.py: seeds, shards, resuming, divergence, the built-in sample, bad options."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from common.cli import InputError, Interrupted
from final_project import simulate as script
from final_project.data import load_flow
from final_project.simulate import NOTICE, built_in, main, part
from final_project.simulate_config import SimulateConfig
from final_project.solver import cylinder, lock_exchange
from final_project.solver.navier_stokes import Diverged
from tests.conftest import assert_refused, call

SCRIPT = "final_project/simulate.py"
FLOWS = {"cylinder": cylinder, "lock_exchange": lock_exchange}
TINY = {
    "cylinder": dataclasses.replace(cylinder.PRESETS["smoke"], frames=3, spin_up=0.05),
    "lock_exchange": dataclasses.replace(lock_exchange.PRESETS["smoke"], frames=3),
}


@pytest.fixture
def tiny(monkeypatch):
    """The smoke presets with three frames, in this process."""
    for name, module in FLOWS.items():
        monkeypatch.setitem(module.PRESETS, "smoke", TINY[name])


def config(out, **options) -> SimulateConfig:
    return SimulateConfig(
        **{"trajectories": 3, "workers": 1, "preset": "smoke", "out": out} | options
    )


@pytest.mark.parametrize("flow", FLOWS)
def test_same_seed_same_bytes_and_shards_make_the_same_file(flow, tiny, tmp_path):
    main(config(tmp_path / "one.npz", flow=flow, seed=5))
    for shard in ("1/2", "0/2"):
        assert main(config(tmp_path / "two.npz", flow=flow, seed=5, shard=shard)) is None
    assert not (tmp_path / "two.npz").exists()
    main(config(tmp_path / "two.npz", flow=flow, seed=5, merge=True))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    main(config(tmp_path / "other.npz", flow=flow, seed=6))
    assert not np.array_equal(
        load_flow(tmp_path / "one.npz").fields, load_flow(tmp_path / "other.npz").fields
    )


def test_processes_make_the_same_file_as_one(tmp_path):
    words = [
        "--flow",
        "lock_exchange",
        "--preset",
        "smoke",
        "--trajectories",
        2,
        "--workers",
        2,
        "--out",
        tmp_path / "two.npz",
    ]
    done = call(SCRIPT, *words)
    assert done.returncode == 0, done.stderr
    assert "2 trajectories of 24 frames on 217 nodes" in done.stdout
    main(config(tmp_path / "one.npz", flow="lock_exchange", trajectories=2))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_resuming_makes_only_what_is_missing(tiny, tmp_path, monkeypatch):
    out, folder = tmp_path / "flow.npz", tmp_path / "flow.parts"
    main(config(out))
    whole = out.read_bytes()
    part(folder, 1).unlink()
    kept = part(folder, 0).stat().st_mtime_ns
    made = []
    real = script.work
    monkeypatch.setattr(
        script,
        "work",
        lambda config, number: made.append(number) or real(config, number),
    )
    main(config(out, resume=True))
    assert made == [1]
    assert part(folder, 0).stat().st_mtime_ns == kept
    assert out.read_bytes() == whole


def test_an_interruption_keeps_what_is_finished(tiny, tmp_path, monkeypatch):
    real = script.work

    def stop_at_two(config, number):
        if number == 2:
            raise KeyboardInterrupt
        return real(config, number)

    monkeypatch.setattr(script, "work", stop_at_two)
    with pytest.raises(Interrupted, match="finished trajectories are stored"):
        main(config(tmp_path / "flow.npz"))
    assert sorted(path.name for path in (tmp_path / "flow.parts").iterdir()) == [
        "00000.npz",
        "00001.npz",
    ]


def test_a_diverged_trajectory_is_reported_and_the_others_are_kept(
    tiny, tmp_path, monkeypatch, capsys
):
    real, bad = cylinder.simulate, cylinder.draw_parameters(2, 0)[1]

    def absurd_once(parameters, settings):
        if np.array_equal(parameters, bad):
            settings = dataclasses.replace(settings, step=5.0, frame=5.0, frames=40, order=3)
        return real(parameters, settings)

    monkeypatch.setattr(cylinder, "simulate", absurd_once)
    main(config(tmp_path / "flow.h5"))
    assert re.search(r"trajectory 1 diverged at t = \S+ and is left out", capsys.readouterr().err)
    flow = load_flow(tmp_path / "flow.h5")
    assert np.array_equal(flow.parameters, cylinder.draw_parameters(3, 0)[[0, 2], :3])
    with np.load(part(tmp_path / "flow.parts", 1), allow_pickle=False) as kept:
        assert kept["diverged"] > 0


def test_a_trajectory_that_diverges_is_made_again_at_half_the_step(tiny, tmp_path, monkeypatch):
    real = cylinder.simulate
    bad = cylinder.draw_parameters(2, 0)[1]
    step = cylinder.PRESETS["smoke"].step
    tried = []

    def needs_short_steps(parameters, settings):
        if np.array_equal(parameters, bad):
            tried.append(settings.step)
            if settings.step == step:
                raise Diverged(1.0)
        return real(parameters, settings)

    monkeypatch.setattr(cylinder, "simulate", needs_short_steps)
    main(config(tmp_path / "flow.h5"))
    assert tried == [step, step / 2]
    flow = load_flow(tmp_path / "flow.h5")
    assert len(flow.fields) == 3
    assert flow.provenance["half_step"] == [1]
    assert flow.provenance["diverged"] == {}


def test_all_diverged_writes_nothing(tiny, tmp_path, monkeypatch):
    def never(parameters, settings):
        raise Diverged(1.0)

    monkeypatch.setattr(cylinder, "simulate", never)
    with pytest.raises(InputError, match="all 3 trajectories diverged"):
        main(config(tmp_path / "flow.h5"))
    assert not (tmp_path / "flow.h5").exists()


@pytest.mark.parametrize("flow", FLOWS)
def test_the_built_in_sample_is_made_once_and_says_what_it_is(flow, tmp_path, monkeypatch):
    monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path))
    first = built_in(flow, "smoke", 1)
    assert first.fields.shape[:2] == (6, 24)
    assert 150 <= first.fields.shape[2] <= 300
    assert first.field_names == FLOWS[flow].FIELD_NAMES
    assert first.parameters.shape == (6, len(FLOWS[flow].PARAMETER_NAMES))
    assert NOTICE in json.dumps(first.provenance)
    assert [path.name for path in (tmp_path / "built-in").iterdir()] == [f"{flow}-smoke.h5"]
    monkeypatch.setattr(script, "work", None)  # a second call simulates nothing
    assert np.array_equal(built_in(flow, "smoke", 1).fields, first.fields)


def test_the_built_in_sample_has_two_presets():
    with pytest.raises(InputError, match="no preset full"):
        built_in("cylinder", "full", 1)
    with pytest.raises(InputError, match="allowed are cylinder, lock_exchange"):
        built_in("dam_break", "smoke", 1)


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "3/2"}, "--shard 3/2: allowed is i/n with 0 <= i < n"),
        ({"shard": "0/0"}, "--shard 0/0: allowed"),
        ({"shard": "-1/2"}, "--shard -1/2: allowed"),
        ({"shard": "half"}, "--shard half: allowed"),
        ({"trajectories": 0}, "--trajectories 0: allowed are 1 and more"),
        ({"workers": 0}, "--workers 0: allowed are 1 and more"),
        ({"merge": True}, "lacks 3 of 3 trajectories (0, 1, 2)"),
    ],
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)):
        main(config(tmp_path / "flow.h5", **options))
    assert not list(tmp_path.iterdir())


def test_out_must_be_writable_and_of_a_known_kind(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        main(config(tmp_path / "file" / "flow.h5"))
    with pytest.raises(InputError, match=r"allowed are \.h5, \.hdf5, \.npz"):
        main(config(tmp_path / "flow.txt"))


def test_parts_are_not_overwritten_mixed_or_trusted_blindly(tiny, tmp_path):
    out, folder = tmp_path / "flow.npz", tmp_path / "flow.parts"
    main(config(out))
    with pytest.raises(InputError, match="holds 3 of these trajectories; use --resume"):
        main(config(out))
    with pytest.raises(InputError, match="made with another seed"):
        main(config(out, resume=True, seed=1))
    with pytest.raises(InputError, match="made with another settings"):
        main(config(out, merge=True, preset="default"))
    part(folder, 1).unlink()
    with pytest.raises(InputError, match=re.escape("lacks 1 of 3 trajectories (1)")):
        main(config(out, merge=True))
    part(folder, 1).write_bytes(b"half a file")
    with pytest.raises(InputError, match="not a readable part"):
        main(config(out, resume=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--flow", "dam_break"], "dam_break"),
        (["--shard", "3/2"], "--shard 3/2"),
        (["--trajectories", "0"], "--trajectories 0"),
    ],
)
def test_the_command_line_refuses_in_one_line(words, message, tmp_path):
    assert_refused(main, SimulateConfig, [*words, "--out", tmp_path / "flow.h5"], message, tmp_path)
