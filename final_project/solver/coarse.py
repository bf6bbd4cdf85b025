"""The solvers on coarser meshes and at longer steps, sampled at the nodes of a data set.

A surrogate has to be held against a solver at the surrogate's own cost or error, not against the
one that made its data (McGreivy & Hakim 2024, Nature Machine Intelligence 6, 1256).
Shape letters: S steps, P nodes of the data, F fields, K parameters.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Protocol

import ngsolve as ng
import numpy as np
from ngsolve.comp import IntegrationRuleSpace
from scipy.interpolate import CloughTocher2DInterpolator

from common.files import JsonObject
from final_project.simulate_config import FlowName
from final_project.solver import cylinder, lock_exchange
from final_project.solver.navier_stokes import (
    Diverged,
    Places,
    steps_per_frame,
    with_shorter_steps,
)

ATTEMPTS = 3  # of a solution, each with half the time step of the one before that diverged


@dataclasses.dataclass(frozen=True)
class Rung:
    """A resolution, relative to that of a data set."""

    coarser: float
    """how much longer the edges are"""
    order: int
    """polynomial order of the velocity"""
    longer: float
    """how much longer the time steps are, at first"""

    @property
    def name(self) -> str:
        """As it stands in a table."""
        return f"solver, edges x {self.coarser:g}, order {self.order}"


# From the cheapest to the data's own resolution. On the cylinder coarser meshes hardly allow longer
# steps (the triangles on it stay small), and order 2 is cheaper than any mesh of order 3.
LADDERS: dict[FlowName, tuple[Rung, ...]] = {
    "cylinder": (
        Rung(2, 2, 2.5),
        Rung(1, 2, 2.5),
        Rung(3, 3, 1.5),
        Rung(2, 3, 1),
        Rung(1.5, 3, 1),
        Rung(1, 3, 1),
    ),
    "lock_exchange": tuple(Rung(coarser, 3, coarser) for coarser in (5, 10 / 3, 2, 1.5, 1)),
}
FINER = Rung(0.75, 3, 0.75)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The solver that made a data set: its flow, and its settings by name."""

    flow: FlowName
    settings: JsonObject


@dataclasses.dataclass(frozen=True)
class Case:
    """A trajectory that is to be solved again.

    parameters : float64 (K,), as a model is given them. first : its first frame (P, F).
    steps : how many frames follow. frame : the time between them.
    """

    parameters: np.ndarray
    first: np.ndarray
    steps: int
    frame: float


@dataclasses.dataclass(frozen=True)
class Solution:
    """fields : float32 (S, P, F).

    seconds : of processor time for meshing, set-up and steps.

    Neither the projection of the first frame nor the sampling at the nodes is counted.
    """

    fields: np.ndarray
    seconds: float


class Coarse(Protocol):
    """A solver at one resolution."""

    def solve(self, case: Case) -> Solution:
        """The frames after the first one. Raises Diverged."""
        ...


def on_one_thread() -> None:
    """Has NGSolve compute on one thread, so that processor time is what a user waits for."""
    ng.SetNumThreads(1)


def coarse_solver(origin: Origin, rung: Rung, nodes: np.ndarray) -> Coarse:
    """The solver of a flow at another resolution than its own.

    nodes : float64 (P, 2), where its frames are sampled. Raises TypeError for unknown settings.
    """
    if origin.flow == "cylinder":
        wake = cylinder.Settings(**origin.settings)
        wake = dataclasses.replace(
            wake,
            maxh=rung.coarser * wake.maxh,
            cylinder_h=rung.coarser * wake.cylinder_h,
            order=rung.order,
            step=rung.longer * wake.step,
        )
        return CoarseCylinder(wake, nodes)
    tank = lock_exchange.Settings(**origin.settings)
    rows = max(1, round(tank.rows / rung.coarser))
    step = rung.longer * tank.step
    tank = dataclasses.replace(tank, rows=rows, order=rung.order, step=step)
    return CoarseLockExchange(tank, nodes)


def solve(origin: Origin, rung: Rung, nodes: np.ndarray, case: Case) -> Solution | None:
    """The frames after the first one of a case, by the longest step at which they do not diverge.

    None where they diverge at every step that is tried.
    """

    def by(longer: float) -> Solution:
        shorter = dataclasses.replace(rung, longer=longer)
        return coarse_solver(origin, shorter, nodes).solve(case)

    try:
        solution, _ = with_shorter_steps(by, rung.longer, ATTEMPTS)
    except Diverged:
        return None
    return solution


@dataclasses.dataclass(frozen=True)
class CoarseCylinder:
    """The cylinder's wake, from any frame."""

    settings: cylinder.Settings
    nodes: np.ndarray

    def solve(self, case: Case) -> Solution:
        """The frames after the first one. Raises Diverged.

        The flow inside begins with the given frame, projected on the coarse velocities; inflow and
        walls are known, and the pressure follows in the first step.
        """
        every = steps_per_frame(case.frame, self.settings.step)
        settings = dataclasses.replace(self.settings, step=case.frame / every)
        started = time.process_time()
        reynolds, offset, perturbation = map(float, case.parameters)
        channel = cylinder.Channel(settings, reynolds, offset, perturbation, kick=0.0)
        seconds = time.process_time() - started

        # nodes are those of the mesh whose cylinder is not moved
        mesh = channel.mesh
        moved = mesh.deformation
        mesh.UnsetDeformation()
        places = Places(mesh, self.nodes, cylinder.CENTRE)
        given = Interpolated(mesh, self.nodes, case.first[:, :2], 2 * settings.order)
        if moved is not None:
            mesh.SetDeformation(moved)
        given.project(channel.solver.velocity)

        frames, of_steps = recorded(
            case.steps, every, channel.solver.advance, lambda: channel.frame(places)
        )
        return Solution(frames, seconds + of_steps)


@dataclasses.dataclass(frozen=True)
class CoarseLockExchange:
    """The lock exchange, from rest: the gate's position is a parameter."""

    settings: lock_exchange.Settings
    nodes: np.ndarray

    def solve(self, case: Case) -> Solution:
        """The frames after the first one. Raises Diverged."""
        every = steps_per_frame(case.frame, self.settings.step)
        settings = dataclasses.replace(self.settings, step=case.frame / every)
        started = time.process_time()
        grashof, gate = map(float, case.parameters)
        tank = lock_exchange.Tank(settings, grashof, gate)
        seconds = time.process_time() - started

        places = Places(tank.mesh, self.nodes)
        frames, of_steps = recorded(case.steps, every, tank.advance, lambda: tank.frame(places))
        return Solution(frames, seconds + of_steps)


def recorded(
    steps: int, every: int, advance: Callable[[], None], frame: Callable[[], np.ndarray]
) -> tuple[np.ndarray, float]:
    """Frames (S, P, F), `every` steps of the solver apart, and the seconds of these steps."""
    seconds = 0.0
    frames = []
    for _ in range(steps):
        started = time.process_time()
        for _ in range(every):
            advance()
        seconds += time.process_time() - started
        frames.append(frame())
    return np.stack(frames), seconds


class Interpolated:
    """A velocity given at nodes (P, 2), smoothly interpolated to a mesh's integration points.

    By piecewise cubics on the nodes' triangulation (Clough & Tocher 1965), which are exact for
    quadratic fields up to their estimated slopes. order : polynomials that are integrated exactly.
    """

    def __init__(self, mesh: ng.Mesh, nodes: np.ndarray, velocity: np.ndarray, order: int):
        space = IntegrationRuleSpace(mesh, order=order)
        self.rules = space.GetIntegrationRules()
        places = []
        for coordinate in (ng.x, ng.y):
            at_points = ng.GridFunction(space)
            at_points.Interpolate(coordinate)
            places.append(at_points.vec.FV().NumPy().copy())
        points = np.stack(places, 1)

        # a point beyond the outermost nodes takes the value of the nearest one inside
        low = nodes.min(0)
        high = nodes.max(0)
        values = CloughTocher2DInterpolator(nodes, velocity)(points.clip(low, high))
        self.components = []
        for column in values.T:
            component = ng.GridFunction(space)
            component.vec.FV().NumPy()[:] = column
            self.components.append(component)

    def project(self, velocity: ng.GridFunction) -> None:
        """Sets the free unknowns of a velocity to the L2 projection; boundary values stay."""
        space = velocity.space
        u, v = space.TnT()
        mass = ng.BilinearForm(ng.InnerProduct(u, v) * ng.dx).Assemble().mat
        load = ng.LinearForm(space)
        for number, component in enumerate(self.components):
            load += component * v[number] * ng.dx(intrules=self.rules)
        load.Assemble()
        inverse = mass.Inverse(space.FreeDofs(), inverse="sparsecholesky")
        missing = load.vec.CreateVector()
        missing.data = load.vec - mass * velocity.vec
        velocity.vec.data += inverse * missing
