"""Flow around a cylinder in a channel: the DFG benchmark's geometry (Schaefer & Turek 1996), with three parameters varied.

Channel 2.2 x 0.41, cylinder of radius 0.05 at (0.2, 0.2), mean inflow velocity 1, viscosity 0.1 / Re, so that Re is the cylinder's.
Shape letters: N trajectories, T frames, P nodes, F fields, K parameters.
"""

from __future__ import annotations

import dataclasses
import math

import netgen.occ as occ
import ngsolve as ng
import numpy as np

from final_project.solver import Trajectory, even_draws
from final_project.solver.navier_stokes import Lattice, NavierStokes, impose, steps_per_frame

LENGTH, HEIGHT = 2.2, 0.41
CENTRE, RADIUS = (0.2, 0.2), 0.05
REACH = 0.17  # the deformation that moves the cylinder ends at this distance from its centre, before the walls
SHEDDING = 0.33  # a period at Re = 100: the random part of the spin-up
FIELD_NAMES = ("u", "v", "p")
PARAMETER_NAMES = ("Re", "offset", "perturbation")
LOWEST, HIGHEST = (60.0, -0.02, 0.0, 0.0), (400.0, 0.02, 0.1, SHEDDING)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Resolution and recording; the defaults make the real data. Times are in seconds of a channel in metres, mean inflow 1 m/s."""

    maxh: float = 0.065
    """largest edge of a triangle"""
    cylinder_h: float = 0.018
    """edge on the cylinder"""
    grading: float = 0.08
    """how fast edges grow away from the cylinder"""
    squeeze: float = 0.7
    """the layer on the cylinder is thinner by this share: there the flow goes along the wall, so the time step need not be shorter"""
    order: int = 3
    """of the velocity"""
    step: float = 8.4e-4
    """largest time step"""
    frame: float = 0.0125
    """time between frames: 1 / 26 of a shedding period at Re = 100"""
    frames: int = 300
    """two thirds for training and the main scores, the rest for the longer horizon"""
    spin_up: float = 3.5
    """time before the first frame, to which a random part of up to one shedding period comes"""


PRESETS = {
    "smoke": Settings(
        maxh=0.2,
        cylinder_h=0.06,
        grading=0.3,
        squeeze=0.5,
        step=1.25e-3,
        frame=0.025,
        frames=24,
        spin_up=2.0,
    ),
    "default": Settings(
        maxh=0.1, cylinder_h=0.026, grading=0.15, step=1.25e-3, frames=100, spin_up=3.0
    ),
    "full": Settings(),
}


def draw_parameters(count: int, seed: int) -> np.ndarray:
    """Re, offset, perturbation and the spin-up's random part, float64 (N, 4); row i depends on (seed, i) alone."""
    lowest, highest = np.array(LOWEST), np.array(HIGHEST)
    return lowest + even_draws(count, 4, seed) * (highest - lowest)


def make_mesh(settings: Settings) -> ng.Mesh:
    """Curved triangles, fine at the cylinder; boundaries inlet, outlet, wall, cylinder."""
    channel = occ.Rectangle(LENGTH, HEIGHT).Face()
    channel.edges.name = "wall"
    channel.edges.Min(occ.X).name = "inlet"
    channel.edges.Max(occ.X).name = "outlet"
    disc = occ.WorkPlane().Circle(*CENTRE, RADIUS).Face()
    disc.edges.name = "cylinder"
    disc.edges.maxh = settings.cylinder_h
    geometry = occ.OCCGeometry(channel - disc, dim=2)
    raw = geometry.GenerateMesh(maxh=settings.maxh, grading=settings.grading)
    for point in raw.Points():
        x, y = point[0] - CENTRE[0], point[1] - CENTRE[1]
        radius = math.hypot(x, y)
        way = (radius - RADIUS) / (REACH - RADIUS)
        if 0 < way < 1:
            closer = (
                RADIUS + (REACH - RADIUS) * way * (1 - settings.squeeze * (1 - way) ** 2)
            ) / radius
            point[0], point[1] = CENTRE[0] + closer * x, CENTRE[1] + closer * y
    mesh = ng.Mesh(raw)
    mesh.Curve(settings.order)
    return mesh


def move_cylinder(mesh: ng.Mesh, order: int, offset: float) -> None:
    """Deforms the mesh so that the cylinder stands `offset` higher (lower where negative), every wall where it was, all numbering as before."""
    way = (ng.sqrt((ng.x - CENTRE[0]) ** 2 + (ng.y - CENTRE[1]) ** 2) - RADIUS) / (REACH - RADIUS)
    way = ng.IfPos(way, ng.IfPos(1 - way, way, 1), 0)
    deformation = ng.GridFunction(ng.VectorH1(mesh, order=order))
    deformation.Set(
        ng.CF((0, offset * (1 - way) ** 2 * (1 + 2 * way)))
    )  # offset on the circle, 0 from REACH on, smooth at both
    impose(deformation, "cylinder", ng.CF((0, offset)))
    impose(deformation, "wall|inlet|outlet", ng.CF((0, 0)))
    mesh.SetDeformation(deformation)


class Channel:
    """The solver set up for one (Re, offset, perturbation), at the start of its spin-up.

    perturbation a skews the inflow: u = 6 y (H - y) / H^2 (1 + a (2 y / H - 1)), whose flow rate is that of a = 0.
    kick : speed of the lateral disturbance behind the cylinder that brings shedding on at once.
    """

    def __init__(
        self,
        settings: Settings,
        reynolds: float,
        offset: float = 0.0,
        perturbation: float = 0.0,
        kick: float = 1.0,
    ):
        self.mesh = make_mesh(settings)
        self.lattice = Lattice(self.mesh)  # before the deformation
        if offset:
            move_cylinder(self.mesh, settings.order, offset)
        self.solver = NavierStokes(
            self.mesh,
            settings.order,
            2 * RADIUS / reynolds,
            settings.step,
            fixed="inlet|wall|cylinder",
        )
        profile = 6 * ng.y * (HEIGHT - ng.y) / HEIGHT**2
        inflow = profile * (1 + perturbation * (2 * ng.y / HEIGHT - 1))
        lateral = kick * profile * ng.exp(-(((ng.x - 0.4) / 0.1) ** 2))
        self.solver.start(ng.CF((inflow, lateral)), walls="wall|cylinder")
        self.tests = [ng.GridFunction(self.solver.space) for _ in range(2)]
        for test, direction in zip(self.tests, ((1, 0), (0, 1)), strict=True):
            test.components[0].Set(ng.CF(direction), definedon=self.mesh.Boundaries("cylinder"))

    def coefficients(self) -> tuple[float, float, float]:
        """Drag coefficient, lift coefficient and the pressure difference between the cylinder's front and back (Schaefer & Turek 1996)."""
        drag, lift = (
            self.solver.reaction(test) / RADIUS for test in self.tests
        )  # 2 F / (density U^2 D)
        front, back = (
            self.solver.pressure(self.mesh(CENTRE[0] + side * (RADIUS + 1e-4), CENTRE[1]))
            for side in (-1, 1)
        )
        return drag, lift, front - back

    def frame(self) -> np.ndarray:
        """u, v and p at the nodes, float32 (P, F); p has zero mean at the outlet."""
        solver = self.solver
        fields = self.lattice.sample(solver.velocity, solver.pressure)
        fields[:, 2] -= (
            ng.Integrate(solver.pressure, self.mesh, definedon=self.mesh.Boundaries("outlet"))
            / HEIGHT
        )
        return fields.astype(np.float32)


def simulate(parameters: np.ndarray, settings: Settings) -> Trajectory:
    """One trajectory with fields u, v, p for a row of `draw_parameters`; a function of its arguments alone.

    Coordinates are those of the mesh whose cylinder is at y = 0.2; with an offset the node is moved with the mesh (`move_cylinder`).
    Raises Diverged.
    """
    reynolds, offset, perturbation, phase = (float(value) for value in parameters)
    every = steps_per_frame(settings.frame, settings.step)
    settings = dataclasses.replace(settings, step=settings.frame / every)
    channel = Channel(settings, reynolds, offset, perturbation)
    for _ in range(round((settings.spin_up + phase) / settings.step)):
        channel.solver.advance()
    frames = [channel.frame()]
    while len(frames) < settings.frames:
        for _ in range(every):
            channel.solver.advance()
        frames.append(channel.frame())
    time = settings.frame * np.arange(settings.frames)
    return Trajectory(
        np.stack(frames), channel.lattice.coordinates, channel.lattice.triangles, time
    )
