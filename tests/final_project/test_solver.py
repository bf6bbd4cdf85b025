"""Flow solvers: exact solutions, published values, conservation, meshes and draws."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import ngsolve as ng
import numpy as np
import pytest
import scipy.stats

from final_project.solver import BEYOND, LEVELS, SKIPPED, cylinder, even_draws, lock_exchange
from final_project.solver.navier_stokes import Diverged, Lattice, steps_per_frame
from final_project.solver.validate import (
    exchange_budget,
    front_speed,
    open_stream_mesh,
    rises,
    steady,
    taylor_green,
    williamson,
)

FLOWS = {"cylinder": cylinder, "lock_exchange": lock_exchange}
TINY = {
    "cylinder": dataclasses.replace(cylinder.PRESETS["smoke"], frames=3, spin_up=0.05),
    "lock_exchange": dataclasses.replace(lock_exchange.PRESETS["smoke"], frames=3),
}


# -------------------------------------------------------------------------------------- mathematics


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
    """Against the references of John & Matthies, with the tolerances of this coarse mesh."""
    found = steady(
        dataclasses.replace(cylinder.PRESETS["full"], maxh=0.12, grading=0.15, step=1.25e-3), 2.0
    )
    assert abs(found["drag"] / 5.57953523384 - 1) < 1e-3
    assert abs(found["lift"] - 0.010618948146) < 5e-4
    assert abs(found["pressure difference"] / 0.11752016697 - 1) < 0.015


def test_the_open_stream_s_mesh_is_the_stream_without_the_disc_and_williamson_s_law_by_hand():
    mesh = open_stream_mesh(80.0)
    assert ng.Integrate(1, mesh) == pytest.approx(58 * 80 - math.pi / 4, rel=1e-7)
    assert ng.Integrate(1, mesh.Boundaries("cylinder"), ng.BND) == pytest.approx(math.pi, rel=1e-3)
    assert {"side", "inlet", "outlet", "cylinder"} <= set(mesh.GetBoundaries())
    values = [williamson(reynolds) for reynolds in (60, 80, 100, 120, 150)]
    assert values == pytest.approx([0.1358, 0.1528, 0.1643, 0.1731, 0.1834], abs=6e-5)


def test_a_period_is_measured_between_the_rises_of_a_signal():
    times = 0.01 * np.arange(1000)
    crossings, before = rises(times, np.sin(2 * np.pi * (times - 0.2034) / 0.731))
    assert crossings[0] == pytest.approx(0.2034, abs=1e-4)
    assert np.diff(crossings) == pytest.approx(0.731, abs=1e-4)
    assert (times[before] <= crossings).all()


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


# ------------------------------------------------------------------------------------ mesh and data


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


def levels(drawn: np.ndarray) -> np.ndarray:
    """The numbers of the levels, 0 to LEVELS - 1, of draws (N, axes)."""
    steps = drawn * (LEVELS - 1)
    steps[:, 0] = drawn[:, 0] * (LEVELS + SKIPPED - 1)
    steps[:, 0] -= SKIPPED * (steps[:, 0] > LEVELS - BEYOND)
    assert np.abs(steps - steps.round()).max() < 1e-9
    return steps.round().astype(int)


@pytest.mark.parametrize("count", [1, 8, 36, 37, 64, 96, 111])
def test_every_level_of_every_axis_is_drawn_equally_often(count):
    drawn = levels(even_draws(count, 4, 0))
    for axis in drawn.T:
        often = np.bincount(axis, minlength=LEVELS)
        assert len(often) == LEVELS
        assert often.max() <= -(-count // LEVELS)
        assert often.min() >= count // LEVELS


def pairs_of_axes(count: int, dimensions: int, seeds: int = 8) -> Iterator[np.ndarray]:
    """The levels (N, 2) of every two axes, of several seeds."""
    for seed in range(seeds):
        drawn = levels(even_draws(count, dimensions, seed))
        for first, second in itertools.combinations(range(dimensions), 2):
            yield drawn[:, [first, second]]


@pytest.mark.parametrize(("count", "dimensions"), [(64, 2), (96, 4)])
def test_draws_fill_every_pair_of_axes(count, dimensions):
    """Against what the same number of independent draws has in the mean.

    Their squared L2 star discrepancy is (2^-2 - 3^-2) / N (the variance of the share of draws in a
    box from the origin, x y (1 - x y) / N, integrated over the box's corner).
    """
    chance = (1 / 4 - 1 / 9) / count
    places = np.stack(np.meshgrid(np.arange(LEVELS), np.arange(LEVELS)), -1).reshape(-1, 2)
    for drawn in pairs_of_axes(count, dimensions):
        discrepancy = scipy.stats.qmc.discrepancy((drawn + 0.5) / LEVELS, method="L2-star")
        assert discrepancy**2 < chance / 4

        # no square of 11 x 11 levels is empty; on average 5.7 and 8.5 draws lie in one
        hole = np.abs(places[:, None] - drawn[None]).max(2).min(1).max()
        assert hole <= 5


def test_the_seed_alone_decides_and_draws_differ():
    drawn = even_draws(96, 4, 3)
    for count in (1, 8, 37, 38, 95):
        assert np.array_equal(even_draws(count, 4, 3), drawn[:count])
    assert not np.array_equal(even_draws(96, 4, 4), drawn)
    assert len(np.unique(drawn, axis=0)) == 96
    assert len(np.unique(even_draws(64, 2, 0), axis=0)) == 64


def test_the_first_parameter_leaves_out_what_divides_training_from_extrapolation():
    reynolds = np.unique(cylinder.draw_parameters(74, 0)[:, 0])
    assert len(reynolds) == 37
    assert (reynolds[0], reynolds[-1]) == (60, 400)
    steps = np.diff(reynolds) / (340 / 39)
    assert steps.round(6).tolist() == [1] * 32 + [4] + [1] * 3
    grashof = np.unique(lock_exchange.draw_parameters(74, 0)[:, 0])
    assert np.log(grashof[33] / grashof[32]) == pytest.approx(4 * np.log(20) / 39)
    offsets = np.unique(cylinder.draw_parameters(74, 0)[:, 1])
    assert np.allclose(np.diff(offsets), 0.04 / 36)


def test_steps_fill_a_frame():
    assert steps_per_frame(0.0125, 1e-3) == 13
    assert steps_per_frame(0.05, 5e-3) == 10
    assert steps_per_frame(0.01, 1.0) == 1


@pytest.mark.parametrize("flow", FLOWS)
def test_an_absurd_time_step_diverges_and_says_when(flow):
    rough = dataclasses.replace(TINY[flow], step=5.0, frame=5.0, frames=40, order=3)
    with pytest.raises(Diverged, match=r"diverged at t = \d") as caught:
        FLOWS[flow].simulate(FLOWS[flow].draw_parameters(1, 0)[0], rough)
    assert caught.value.time > 0
