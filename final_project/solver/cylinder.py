"""Flow around a cylinder in a channel: the DFG benchmark's geometry, with three parameters varied.

Channel 2.2 x 0.41, cylinder of radius 0.05 at (0.2, 0.2) (Schaefer & Turek 1996). The mean inflow
velocity is 1 and the viscosity 0.1 / Re, so that Re is the cylinder's Reynolds number.
Shape letters: N trajectories, T frames, P nodes, F fields, K parameters.
"""

from __future__ import annotations

import dataclasses
import math

import netgen.occ as occ
import ngsolve as ng
import numpy as np
from netgen.meshing import Mesh as RawMesh

from final_project.solver import Trajectory, even_draws
from final_project.solver.navier_stokes import (
    Lattice,
    NavierStokes,
    Places,
    impose,
    steps_per_frame,
)

LENGTH = 2.2
HEIGHT = 0.41
CENTRE = (0.2, 0.2)
RADIUS = 0.05
# The deformation that moves the cylinder ends at this distance from its centre, before the walls.
REACH = 0.17
SHEDDING = 0.33  # a shedding period at Re = 100: the random part of the spin-up

FIELD_NAMES = ("u", "v", "p")
PARAMETER_NAMES = ("Re", "offset", "perturbation")
LOWEST = (60.0, -0.02, 0.0, 0.0)  # of PARAMETER_NAMES, and of the spin-up's random part
HIGHEST = (400.0, 0.02, 0.1, SHEDDING)

# Stands in every file's provenance, word for word: the same options make a file of the same bytes.
ABOUT = (
    "One trajectory with fields u, v, p for a row of `draw_parameters`; "
    "a function of its arguments alone.\n\n"
    "    Coordinates are those of the mesh whose cylinder is at y = 0.2; "
    "with an offset the node is moved with the mesh (`move_cylinder`).\n"
    "    Raises Diverged.\n    "
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Resolution and recording; the defaults make the real data.

    Times are in seconds of a channel in metres with a mean inflow of 1 m/s.
    """

    maxh: float = 0.065
    """largest edge of a triangle"""
    cylinder_h: float = 0.018
    """edge on the cylinder"""
    grading: float = 0.08
    """how fast edges grow away from the cylinder"""
    squeeze: float = 0.7
    """share by which the layer on the cylinder is thinner than it is wide; the flow there follows
    the wall, so that the time step need not be shorter"""
    order: int = 3
    """polynomial order of the velocity"""
    step: float = 8.4e-4
    """largest time step"""
    frame: float = 0.0125
    """time between frames: 1 / 26 of a shedding period at Re = 100"""
    frames: int = 500
    """frames of a trajectory: two fifths to train on and score, then ten shedding periods (of 29
    frames at Re = 60, 20 at Re = 400) for the longer horizon"""
    spin_up: float = 3.5
    """time before the first frame; a random part of up to one shedding period is added"""


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
    """Re, offset, perturbation and the spin-up's random part, float64 (N, 4).

    Row i depends on (seed, i) alone. Re is 60 to 339 and, to be kept for extrapolation, 374 to 400.
    """
    lowest = np.array(LOWEST)
    highest = np.array(HIGHEST)
    return lowest + even_draws(count, 4, seed) * (highest - lowest)


# ----------------------------------------------------------------------------------------- mesh


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
    squeeze_layer(raw, settings.squeeze)
    mesh = ng.Mesh(raw)
    mesh.Curve(settings.order)
    return mesh


def squeeze_layer(raw: RawMesh, share: float) -> None:
    """Moves the points between the cylinder and REACH towards it.

    With w from 0 on the circle to 1 at REACH, a point moves to w (1 - share (1 - w)^2).
    """
    for point in raw.Points():
        x = point[0] - CENTRE[0]
        y = point[1] - CENTRE[1]
        radius = math.hypot(x, y)
        way = (radius - RADIUS) / (REACH - RADIUS)
        if 0 < way < 1:
            squeezed = RADIUS + (REACH - RADIUS) * way * (1 - share * (1 - way) ** 2)
            factor = squeezed / radius
            point[0] = CENTRE[0] + factor * x
            point[1] = CENTRE[1] + factor * y


def move_cylinder(mesh: ng.Mesh, order: int, offset: float) -> None:
    """Deforms the mesh so that the cylinder is `offset` higher; walls and numbering do not change.

    With w from 0 on the circle to 1 at REACH, a point moves by offset (1 - w)^2 (1 + 2 w), which is
    smooth at both ends.
    """
    radius = ng.sqrt((ng.x - CENTRE[0]) ** 2 + (ng.y - CENTRE[1]) ** 2)
    way = (radius - RADIUS) / (REACH - RADIUS)
    way = ng.IfPos(way, ng.IfPos(1 - way, way, 1), 0)
    deformation = ng.GridFunction(ng.VectorH1(mesh, order=order))
    deformation.Set(ng.CF((0, offset * (1 - way) ** 2 * (1 + 2 * way))))
    impose(deformation, "cylinder", ng.CF((0, offset)))
    impose(deformation, "wall|inlet|outlet", ng.CF((0, 0)))
    mesh.SetDeformation(deformation)


# ----------------------------------------------------------------------------------------- flow


class Channel:
    """The solver set up for one (Re, offset, perturbation), at the start of its spin-up.

    perturbation : a skews the inflow, u = 6 y (H - y) / H^2 (1 + a (2 y / H - 1)), and leaves its
        flow rate as it is.
    kick : speed of the lateral disturbance behind the cylinder that starts the shedding at once.
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
        viscosity = 2 * RADIUS / reynolds
        self.solver = NavierStokes(
            self.mesh, settings.order, viscosity, settings.step, fixed="inlet|wall|cylinder"
        )

        profile = 6 * ng.y * (HEIGHT - ng.y) / HEIGHT**2
        inflow = profile * (1 + perturbation * (2 * ng.y / HEIGHT - 1))
        lateral = kick * profile * ng.exp(-(((ng.x - 0.4) / 0.1) ** 2))
        self.solver.start(ng.CF((inflow, lateral)), walls="wall|cylinder")

        # unit velocities on the cylinder along x and y, for drag and lift:
        self.tests = []
        for direction in ((1, 0), (0, 1)):
            test = ng.GridFunction(self.solver.space)
            on_cylinder = self.mesh.Boundaries("cylinder")
            test.components[0].Set(ng.CF(direction), definedon=on_cylinder)
            self.tests.append(test)

    def coefficients(self) -> tuple[float, float, float]:
        """Drag coefficient, lift coefficient, and pressure difference between front and back.

        Coefficients are 2 F / (density U^2 D) (Schaefer & Turek 1996).
        """
        drag, lift = (self.solver.reaction(test) / RADIUS for test in self.tests)
        distance = RADIUS + 1e-4
        front = self.solver.pressure(self.mesh(CENTRE[0] - distance, CENTRE[1]))
        back = self.solver.pressure(self.mesh(CENTRE[0] + distance, CENTRE[1]))
        return drag, lift, front - back

    def frame(self, places: Places | None = None) -> np.ndarray:
        """u, v and p at the nodes, or at other places, float32 (P, F).

        p has zero mean at the outlet.
        """
        solver = self.solver
        sampled = places or self.lattice
        fields = sampled.sample(solver.velocity, solver.pressure)  # (P, 3)
        outlet = self.mesh.Boundaries("outlet")
        fields[:, 2] -= ng.Integrate(solver.pressure, self.mesh, definedon=outlet) / HEIGHT
        return fields.astype(np.float32)


def simulate(parameters: np.ndarray, settings: Settings) -> Trajectory:
    """One trajectory with fields u, v, p for a row (4,) of `draw_parameters`.

    A function of its arguments alone. Coordinates are those of the mesh whose cylinder is at
    y = 0.2; with an offset the nodes move with the mesh (`move_cylinder`). Raises Diverged.
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
    lattice = channel.lattice
    return Trajectory(np.stack(frames), lattice.coordinates, lattice.triangles, time)
