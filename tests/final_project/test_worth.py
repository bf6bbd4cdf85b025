"""The solver on other meshes from a given frame, and its comparison with a surrogate."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import ngsolve as ng
import numpy as np
import pytest
import torch

from common.cli import InputError
from final_project import worth
from final_project.checkpoint import save_mesh, save_networks
from final_project.config import WorthConfig
from final_project.data import Flow, split, write_flow
from final_project.seen import save_seen
from final_project.solver import cylinder, lock_exchange
from final_project.solver.coarse import Case, Interpolated, Origin, Rung, coarse_solver, solve
from final_project.solver.navier_stokes import Places
from final_project.worth import Point, at_equal_cost, seconds_at_equal_error
from tests.conftest import assert_refused, run_main
from tests.final_project.test_units import GROUPS, small_surrogate

WAKE = dataclasses.replace(cylinder.PRESETS["smoke"], frames=4, spin_up=0.3)
TANK = dataclasses.replace(lock_exchange.PRESETS["smoke"], frames=4)
SAME = Rung(1, 3, 1)


def error(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Squared relative L2 (F,) of fields (S, P, F) over all steps."""
    return ((found - truth) ** 2).sum((0, 1)) / (truth**2).sum((0, 1))


# -------------------------------------------------------------------------------------- the solver


def test_a_linear_velocity_is_projected_as_it_is_and_boundary_values_stay():
    mesh = cylinder.make_mesh(WAKE)
    nodes = np.random.default_rng(0).uniform((0, 0), (2.2, 0.41), (300, 2))
    corners = np.array([[0, 0], [2.2, 0], [0, 0.41], [2.2, 0.41]])
    nodes = np.concatenate([nodes, corners])
    field = np.stack([1 + 2 * nodes[:, 1], nodes[:, 0] - nodes[:, 1]], 1)
    space = ng.VectorH1(mesh, order=3, dirichlet="inlet")
    velocity = ng.GridFunction(space)
    velocity.Set(ng.CF((1 + 2 * ng.y, ng.x - ng.y)), definedon=mesh.Boundaries("inlet"))
    Interpolated(mesh, nodes, field, 6).project(velocity)
    exact = ng.CF((1 + 2 * ng.y, ng.x - ng.y))
    assert ng.Integrate((velocity - exact) ** 2, mesh) < 1e-12


def test_places_on_the_circle_are_found_in_a_coarse_mesh_and_move_with_it():
    mesh = cylinder.make_mesh(WAKE)
    angle = np.linspace(0, 2 * np.pi, 40)
    circle = cylinder.CENTRE + cylinder.RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1)
    places = Places(mesh, circle, cylinder.CENTRE)
    assert np.abs(places.sample(ng.CF((ng.x, ng.y))) - circle).max() < 1e-3
    cylinder.move_cylinder(mesh, 3, 0.02)
    moved = places.sample(ng.CF((ng.x, ng.y)))
    assert np.abs(moved - circle - [0, 0.02]).max() < 1e-3
    with pytest.raises(ValueError, match="1 places lie outside the mesh"):
        Places(mesh, np.array([[3.0, 0.2], [1.0, 0.2]]))


@pytest.mark.parametrize("offset", [0.0, 0.02])
def test_the_wake_is_continued_from_a_frame_and_a_coarser_mesh_is_less_accurate(offset):
    parameters = np.array([150.0, offset, 0.05, 0.1])
    made = cylinder.simulate(parameters, WAKE)
    origin = Origin("cylinder", dataclasses.asdict(WAKE))
    case = Case(parameters[:3], made.fields[0], 3, WAKE.frame)
    errors = []
    for rung in (SAME, Rung(1.6, 2, 1)):
        solution = solve(origin, rung, made.coordinates, case)
        assert solution is not None
        assert solution.fields.shape == made.fields[1:].shape
        assert solution.seconds > 0
        errors.append(error(solution.fields, made.fields[1:]))
    assert (errors[0][:2] < [1e-3, 2e-2]).all()  # u, v: the nodes hold less than the solver knows
    assert (errors[1] > 2 * errors[0]).all()


def test_the_tank_is_solved_from_rest_with_the_data_s_own_frames_at_its_own_resolution():
    made = lock_exchange.simulate(np.array([2e5, 2.0]), TANK)
    origin = Origin("lock_exchange", dataclasses.asdict(TANK))
    case = Case(np.array([2e5, 2.0]), made.fields[0], 3, TANK.frame)
    solution = solve(origin, SAME, made.coordinates, case)
    assert solution is not None
    u, v, alpha, p = error(solution.fields, made.fields[1:])
    assert max(u, v) < 1e-12
    assert max(alpha, p) < 1e-3  # alpha is another on each side of an edge, whose nodes are means
    half = solve(origin, Rung(1.5, 3, 1.5), made.coordinates, case)
    assert half is not None
    assert (error(half.fields, made.fields[1:])[:2] > 1e-6).all()


def test_a_step_that_diverges_is_halved_and_given_up_at_last():
    made = cylinder.simulate(np.array([100.0, 0, 0, 0]), WAKE)
    case = Case(np.array([100.0, 0, 0]), made.fields[0], 3, WAKE.frame)
    origin = Origin("cylinder", dataclasses.asdict(WAKE))
    longer = Rung(1, 3, 4)  # 5 steps a frame diverge, 20 do not
    first = coarse_solver(origin, longer, made.coordinates)
    assert first.settings.step == pytest.approx(4 * WAKE.step)
    assert solve(origin, longer, made.coordinates, case) is not None
    slow = dataclasses.replace(case, frame=5.0)
    fast = Origin("cylinder", {**dataclasses.asdict(WAKE), "step": 5.0})
    assert solve(fast, SAME, made.coordinates, slow) is None


# ---------------------------------------------------------------------------------- the comparison


def test_equal_cost_and_equal_error_by_hand():
    surrogate = Point("SEA", 0.5, 0.01)
    solvers = [Point("a", 0.4, 0.4), Point("b", 4, 0.04), Point("c", 40, 0.0004)]
    table = at_equal_cost(surrogate, solvers)
    assert [row["solver"] for row in table] == ["a", "b", "c"]
    assert [row["seconds"] for row in table] == [0.5, 5, 50]
    assert table[1]["solver_error"] == 0.04
    assert table[1]["surrogate_error"] == 0.01
    # log10 of the error falls by 2 from b to c; 0.6 of it, a share of 0.301, reaches 0.01
    share = np.log10(4) / 2
    assert seconds_at_equal_error(surrogate, solvers) == pytest.approx(4 * 10**share)

    # a solver that is more accurate and cheaper, none that is cheap enough, none that is accurate
    assert at_equal_cost(surrogate, [Point("a", 9, 1), Point("b", 3, 2)])[0]["solver"] is None
    assert at_equal_cost(surrogate, [Point("a", 4, 1), Point("b", 3, 2)])[1]["solver"] == "a"
    assert seconds_at_equal_error(surrogate, solvers[:2]) is None
    assert seconds_at_equal_error(surrogate, solvers[2:]) is None


@pytest.fixture(scope="module")
def wake_run(tmp_path_factory) -> Path:
    """An untrained run on five short trajectories of the cylinder; its data are beside it."""
    made = [cylinder.simulate(row, WAKE) for row in cylinder.draw_parameters(5, 0)]
    flow = Flow(
        fields=np.stack([each.fields for each in made]),
        coordinates=made[0].coordinates,
        parameters=cylinder.draw_parameters(5, 0)[:, :3],
        time=made[0].time,
        field_names=cylinder.FIELD_NAMES,
        parameter_names=cylinder.PARAMETER_NAMES,
        triangles=made[0].triangles,
        provenance={
            "generator": "final_project/simulate.py",
            "flow": "cylinder",
            "settings": dataclasses.asdict(WAKE),
        },
    )
    folder = tmp_path_factory.mktemp("worth") / "run"
    folder.mkdir()
    torch.manual_seed(0)
    config, surrogate = small_surrogate(flow)
    save_networks(folder, flow, GROUPS, config, "SEA", surrogate)
    save_mesh(folder, flow.coordinates, flow.triangles)
    save_seen(folder, flow, split(flow.parameters, 0))
    write_flow(folder.parent / "flow.h5", flow)
    record = {
        "config": {
            "seed": 0,
            "grid": [12, 24],
            "frames": 4,
            "data": str(folder.parent / "flow.h5"),
        },
        "data": {"path": "flow.h5"},
        "notes": {},
        "source": "flow",
        "preset": "smoke",
        "started": "",
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "metrics.json").write_text('{"rows": []}')
    return folder


def test_worth_scores_the_surrogate_and_the_solver_on_the_same_test_trajectories(
    wake_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path))
    words = ["--run", wake_run, "--preset", "smoke", "--cases", 1]
    run_main(worth.main, WorthConfig, *words)
    found = json.loads((wake_run / "worth.json").read_text())
    assert (wake_run / "worth.png").stat().st_size > 0
    assert found["run"]["trajectories"] == {"interpolation": 1}
    assert found["run"]["steps"] == 3
    rows = [row for row in found["rows"] if row["metric"] == "relative_l2_squared"]
    assert rows[0]["model"] == "SEA"
    assert len({row["model"] for row in rows}) + len(found["run"]["diverged"]) == 3
    assert all(row["seconds"] > 0 for row in rows)
    cost = found["run"]["comparison"]["interpolation"]["at_equal_cost"]
    assert [row["times"] for row in cost] == [1, 10, 100]
    assert cost[0]["surrogate_error"] == rows[0]["value"]

    # other trajectories, of which those that the run has seen are left out
    out = tmp_path / "given.json"
    run_main(worth.main, WorthConfig, *words, "--data", wake_run.parent / "flow.h5", "--out", out)
    assert json.loads(out.read_text())["run"]["trajectories"] == {"given": 1}
    assert out.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cuda"], "--device cuda: the solver has no GPU"),
        (["--cases", "0"], "--cases 0: allowed are 1 and more"),
        (["--steps", "4"], "has 4 frames, so at most 3"),
    ],
)
def test_a_users_mistake_is_refused(wake_run, tmp_path, monkeypatch, words, message):
    monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path))
    words = ["--run", wake_run, *words]
    assert_refused(worth.main, WorthConfig, words, message, tmp_path)


def test_a_flow_of_another_program_has_no_known_solver(wake_run, tmp_path):
    flow = worth.load_flow(wake_run.parent / "flow.h5")
    with pytest.raises(InputError, match=r"was not made by simulate\.py"):
        worth.origin_of(dataclasses.replace(flow, provenance={"path": "x"}), Path("x"))
