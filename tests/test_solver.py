"""Flow solvers: exact solutions, published figures, conservation; and simulate.py: seeds, shards, resuming, divergence, bad input."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import ngsolve as ng
import numpy as np
import pytest

from common.cli import InputError, Interrupted
from final_project import simulate as script
from final_project.data import load_flow
from final_project.simulate import NOTICE, Config, built_in, main, part
from final_project.solver import cylinder, even_draws, lock_exchange
from final_project.solver.navier_stokes import Diverged, Lattice, steps_per_frame
from final_project.solver.validate import exchange_budget, front_speed, steady, taylor_green
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


def config(out, **options) -> Config:
    return Config(**{"trajectories": 3, "workers": 1, "preset": "smoke", "out": out} | options)


# --------------------------------------------------------------------------------------------------------- mathematics


def test_taylor_green_decays_at_its_rate():
    assert abs(taylor_green(4, 4, 0.01, 0.5)["energy"] - 1) < 2e-4
    assert abs(taylor_green(4, 4, 0.01, 0.5, viscosity=0.2)["energy"] - 1) < 2e-4


def test_taylor_green_has_order_k_plus_one_in_space():
    coarse, fine = (taylor_green(squares, 3, 5e-3, 0.1) for squares in (8, 16))
    assert 3.5 < math.log2(coarse["velocity"] / fine["velocity"]) < 5
    assert 2.7 < math.log2(coarse["pressure"] / fine["pressure"]) < 4.5


def test_taylor_green_has_order_two_in_time():
    coarse, fine = (
        taylor_green(4, 6, step, 1.0, viscosity=0.5)["velocity"] for step in (0.1, 0.05)
    )
    assert 1.7 < math.log2(coarse / fine) < 2.5


def test_dfg_2d_1_drag_and_lift():
    """References after John & Matthies: 5.57953523384, 0.010618948146, 0.11752016697; tolerances are those of this coarse mesh."""
    found = steady(
        dataclasses.replace(cylinder.PRESETS["full"], maxh=0.12, grading=0.15, step=1.25e-3), 2.0
    )
    assert abs(found["drag"] / 5.57953523384 - 1) < 1e-3
    assert abs(found["lift"] - 0.010618948146) < 5e-4
    assert abs(found["pressure difference"] / 0.11752016697 - 1) < 0.015


def test_lock_exchange_keeps_alpha_in_bounds_and_loses_energy():
    budget = exchange_budget(lock_exchange.PRESETS["default"], 2e6, 6.0)
    assert budget["relative drift of alpha"] < 1e-11
    assert (
        budget["least alpha"] > -1e-4
    )  # the mean of an element can leave [0, 1] as far as the velocity has divergence
    assert budget["largest alpha"] < 1 + 1e-4
    assert budget["largest growth of the energy"] < 0


def test_lock_exchange_starts_moved_stays_symmetric_and_runs_at_its_froude_number():
    settings = dataclasses.replace(lock_exchange.PRESETS["smoke"], frames=24)
    found = lock_exchange.simulate(np.array([1e6, 2.5]), settings)
    fields = found.fields
    assert not fields[0, :, :2].any()
    turned = fields[:, ::-1]  # half a turn about the middle: nodes are numbered row by row
    assert np.allclose(fields[..., :2], -turned[..., :2], atol=1e-4)
    assert np.allclose(fields[..., 2], 1 - turned[..., 2], atol=1e-4)
    assert np.abs(fields[-1, :, :2]).max() > 0.3
    assert 0.42 < front_speed(found, 1.8, 4.2) < 0.5


def test_pressure_of_the_fluid_moved_is_hydrostatic_away_from_the_gate():
    fields, nodes = (
        getattr(lock_exchange.simulate(np.array([1e6, 2.5]), TINY["lock_exchange"]), name)
        for name in ("fields", "coordinates")
    )
    left, right = (fields[0, np.abs(nodes[:, 0] - x) < 1e-9, 3] for x in (0.0, 5.0))
    assert left[-1] - left[0] == pytest.approx(1, abs=0.02)  # dp/dy = alpha
    assert right[-1] - right[0] == pytest.approx(0, abs=0.02)


# -------------------------------------------------------------------------------------------------------- mesh and data


def test_the_tank_is_a_regular_grid():
    tank = lock_exchange.Tank(lock_exchange.Settings(), 1e6, 2.5)
    grid = np.stack(np.meshgrid(np.linspace(0, 5, 101), np.linspace(0, 1, 21)), axis=-1).reshape(
        -1, 2
    )
    assert np.allclose(tank.lattice.coordinates, grid)
    assert len(tank.lattice.triangles) == 4 * 2 * 50 * 10


def area(nodes, triangles):
    (ax, ay), (bx, by), (cx, cy) = (nodes[triangles[:, corner]].T for corner in range(3))
    return ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) / 2


def test_the_channels_lattice_has_its_midpoints_on_the_circle_and_fills_the_domain():
    mesh = cylinder.make_mesh(cylinder.PRESETS["full"])
    lattice = Lattice(mesh)
    assert len(lattice.coordinates) == mesh.nv + mesh.nedge
    assert 1500 < len(lattice.coordinates) < 1800
    distance = np.hypot(*(lattice.coordinates - cylinder.CENTRE).T)
    assert distance.min() > cylinder.RADIUS - 1e-5
    on_circle = np.sum(distance < cylinder.RADIUS + 1e-5)
    assert on_circle >= 2 * 2 * math.pi * cylinder.RADIUS / 0.018 * 0.9  # vertices and midpoints
    areas = area(lattice.coordinates, lattice.triangles)
    assert areas.min() > 0
    sides = on_circle  # the polygon through the nodes
    polygon = sides / 2 * cylinder.RADIUS**2 * math.sin(2 * math.pi / sides)
    assert areas.sum() == pytest.approx(2.2 * 0.41 - polygon, rel=1e-5)


def test_the_deformation_moves_the_cylinder_and_leaves_the_walls():
    mesh = cylinder.make_mesh(cylinder.PRESETS["smoke"])
    lattice = Lattice(mesh)
    cylinder.move_cylinder(mesh, 3, -0.015)
    moved = lattice.sample(
        ng.CF((ng.x, ng.y))
    )  # points remember their mesh, which is deformed by now
    circle = np.hypot(*(lattice.coordinates - cylinder.CENTRE).T) < cylinder.RADIUS + 1e-4
    assert np.allclose(moved[circle] - lattice.coordinates[circle], [0, -0.015], atol=1e-6)
    wall = np.isin(np.round(lattice.coordinates[:, 1], 9), [0, 0.41])
    assert np.allclose(moved[wall], lattice.coordinates[wall], atol=1e-12)
    assert area(moved, lattice.triangles).min() > 0


def test_an_offset_cylinder_stands_still_in_the_skewed_inflow():
    settings = TINY["cylinder"]
    found = cylinder.simulate(np.array([100.0, 0.02, 0.1, 0.0]), settings)
    nodes = found.coordinates
    circle = np.hypot(*(nodes - cylinder.CENTRE).T) < cylinder.RADIUS + 1e-4
    assert np.abs(found.fields[:, circle, :2]).max() < 1e-12
    inlet = np.abs(nodes[:, 0]) < 1e-9
    y = nodes[inlet, 1] / 0.41
    assert np.allclose(
        found.fields[-1, inlet, 0], 6 * y * (1 - y) * (1 + 0.1 * (2 * y - 1)), atol=1e-3
    )
    outlet = np.abs(nodes[:, 0] - 2.2) < 1e-9
    assert abs(np.trapezoid(found.fields[-1, outlet, 2], nodes[outlet, 1])) < 1e-3
    assert np.array_equal(found.time, 0.025 * np.arange(3))


@pytest.mark.parametrize("flow", FLOWS)
def test_draws_of_a_trajectory_do_not_depend_on_how_many_there_are(flow):
    draw = FLOWS[flow].draw_parameters
    assert np.array_equal(draw(5, 3), draw(40, 3)[:5])
    assert not np.array_equal(draw(5, 3), draw(5, 4))
    assert (draw(500, 0) >= FLOWS[flow].LOWEST).all()
    assert (draw(500, 0) <= FLOWS[flow].HIGHEST).all()


def test_draws_fill_each_axis_more_evenly_than_chance():
    drawn = np.sort(even_draws(64, 4, 0), axis=0)
    assert (
        np.abs(drawn - (np.arange(64)[:, None] + 0.5) / 64).max() < 0.08
    )  # chance: 0.17 in the worst of four


def test_steps_fill_a_frame():
    assert steps_per_frame(0.0125, 1e-3) == 13
    assert steps_per_frame(0.05, 5e-3) == 10
    assert steps_per_frame(0.01, 1.0) == 1


# --------------------------------------------------------------------------------------------------------- simulate.py


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
        lambda config, number, folder: made.append(number) or real(config, number, folder),
    )
    main(config(out, resume=True))
    assert made == [1]
    assert part(folder, 0).stat().st_mtime_ns == kept
    assert out.read_bytes() == whole


def test_an_interruption_keeps_what_is_finished(tiny, tmp_path, monkeypatch):
    real = script.work

    def stop_at_two(config, number, folder):
        if number == 2:
            raise KeyboardInterrupt
        return real(config, number, folder)

    monkeypatch.setattr(script, "work", stop_at_two)
    with pytest.raises(Interrupted, match="finished trajectories are kept"):
        main(config(tmp_path / "flow.npz"))
    assert sorted(path.name for path in (tmp_path / "flow.parts").iterdir()) == [
        "00000.npz",
        "00001.npz",
    ]


@pytest.mark.parametrize("flow", FLOWS)
def test_an_absurd_time_step_diverges_and_says_when(flow):
    rough = dataclasses.replace(TINY[flow], step=5.0, frame=5.0, frames=40, order=3)
    with pytest.raises(Diverged, match=r"diverged at t = \d") as caught:
        FLOWS[flow].simulate(FLOWS[flow].draw_parameters(1, 0)[0], rough)
    assert caught.value.time > 0


def test_a_diverged_trajectory_is_reported_and_the_others_are_kept(
    tiny, tmp_path, monkeypatch, capsys
):
    real, bad = cylinder.simulate, cylinder.draw_parameters(2, 0)[1]

    def absurd_once(parameters, settings):
        if np.array_equal(parameters, bad):
            settings = dataclasses.replace(settings, step=5.0, frame=5.0, frames=40, order=3)
        return real(parameters, settings)

    absurd_once.__doc__ = real.__doc__
    monkeypatch.setattr(cylinder, "simulate", absurd_once)
    main(config(tmp_path / "flow.h5"))
    assert re.search(r"trajectory 1 diverged at t = \S+ and is left out", capsys.readouterr().err)
    flow = load_flow(tmp_path / "flow.h5")
    assert np.array_equal(flow.parameters, cylinder.draw_parameters(3, 0)[[0, 2], :3])
    with np.load(part(tmp_path / "flow.parts", 1), allow_pickle=False) as kept:
        assert kept["diverged"] > 0


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


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "3/2"}, "--shard 3/2: allowed is i/n with 0 <= i < n"),
        ({"shard": "0/0"}, "--shard 0/0: allowed"),
        ({"shard": "-1/2"}, "--shard -1/2: allowed"),
        ({"shard": "half"}, "--shard half: allowed"),
        ({"trajectories": 0}, "at least one of each"),
        ({"workers": 0}, "at least one of each"),
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
    assert_refused(SCRIPT, [*words, "--out", tmp_path / "flow.h5"], message, tmp_path)
