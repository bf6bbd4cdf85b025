"""Lock exchange: two fluids behind a gate in a closed tank, in the Boussinesq limit.

    du/dt + (u . grad) u = -grad p + nu laplace u + alpha e_y,    div u = 0,
    d alpha/dt + div(u alpha) = nu laplace alpha    (Schmidt number 1).

The tank is 5 long and 1 high. alpha = 1 is the light fluid, at first left of the gate. Lengths are
in tank heights H, speeds in sqrt(g' H), times in sqrt(H / g'). The Grashof number is that of the
full height, Gr = (sqrt(g' H) H / nu)^2, so that nu = Gr^(-1/2); Haertel, Meiburg & Necker (2000)
take half the height, 1/8 of this. All walls slip freely and let no alpha through.
Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, E elements.
"""

from __future__ import annotations

import dataclasses

import ngsolve as ng
import numpy as np
from ngsolve.meshes import MakeStructured2DMesh

from final_project.solver import Trajectory, even_draws
from final_project.solver.navier_stokes import IMEX, Lattice, NavierStokes, Places, steps_per_frame

LENGTH = 5.0
FIELD_NAMES = ("u", "v", "alpha", "p")
PARAMETER_NAMES = ("Gr", "gate")
LOWEST = (1e5, 1.5)
HIGHEST = (2e6, 3.5)

# Stands in every file's provenance, word for word: the same options make a file of the same bytes.
ABOUT = (
    "One trajectory with fields u, v, alpha, p for a row of `draw_parameters`; "
    "a function of its arguments alone.\n\n"
    "    Nodes form a regular grid, row by row from the floor. "
    "The pressure of the first frame, at rest, is that after one step. Raises Diverged.\n    "
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Resolution and recording; the defaults make the real data."""

    rows: int = 10
    """squares, each cut into two triangles, over the height; five times as many over the length"""
    order: int = 3
    """polynomial order of the velocity; pressure and alpha have one less"""
    step: float = 5e-3
    """largest time step"""
    frame: float = 0.05
    """time between frames"""
    frames: int = 300
    """frames of a trajectory: two thirds to train on and score, the rest for the longer horizon"""
    gate_width: float = 0.1
    """at first alpha = (1 - tanh((x - gate) / gate_width)) / 2"""


PRESETS = {
    "smoke": Settings(rows=3, step=0.02, frame=0.2, frames=24),
    "default": Settings(rows=6, step=8e-3, frame=0.1, frames=100),
    "full": Settings(),
}


def draw_parameters(count: int, seed: int) -> np.ndarray:
    """Gr (its logarithm evenly) and the gate's position, float64 (N, 2).

    Row i depends on (seed, i) alone. Gr is 1e5 to 1.2e6 and, to be kept for extrapolation, 1.6e6 to
    2e6.
    """
    lowest = np.array([np.log(LOWEST[0]), LOWEST[1]])
    highest = np.array([np.log(HIGHEST[0]), HIGHEST[1]])
    drawn = lowest + even_draws(count, 2, seed) * (highest - lowest)
    drawn[:, 0] = np.exp(drawn[:, 0])
    return drawn


class Tank:
    """The solver set up for one (Gr, gate), at rest.

    alpha is discontinuous, of the pressure's order. Its upwind flux is conservative, and the
    limiter of Zhang & Shu (2010) draws an element's polynomial towards its mean where it leaves
    [0, 1] at a node. Diffusion is implicit, by a symmetric interior penalty (Arnold 1982).
    """

    def __init__(self, settings: Settings, grashof: float, gate: float):
        self.mesh = MakeStructured2DMesh(
            quads=False,
            nx=5 * settings.rows,
            ny=settings.rows,
            mapping=lambda x, y: (LENGTH * x, y),
        )
        self.lattice = Lattice(self.mesh)
        self.viscosity = grashof**-0.5
        self.step = settings.step
        self.solver = NavierStokes(
            self.mesh,
            settings.order,
            self.viscosity,
            settings.step,
            fixed_x="left|right",
            fixed_y="bottom|top",
        )
        self.solver.start(ng.CF((0, 0)))

        # the light fluid left of the gate:
        space = ng.L2(self.mesh, order=settings.order - 1, dgjumps=True)
        self.alpha = ng.GridFunction(space)
        self.alpha.Set(1 / (1 + ng.exp(2 * (ng.x - gate) / settings.gate_width)))
        self._limit()

        self.advection = self._advection()
        a, b = space.TnT()
        mass = ng.BilinearForm(a * b * ng.dx).Assemble().mat
        self.stepper = IMEX(
            self.alpha.vec, mass, settings.step, self.advection.Apply, self._assemble
        )

        # alpha e_y, the force on the flow:
        self.buoyancy = ng.BilinearForm(trialspace=space, testspace=self.solver.space)
        self.buoyancy += a * self.solver.space.TestFunction()[0][1] * ng.dx
        self.buoyancy.Assemble()
        self.load = self.solver.state.vec.CreateVector()

    def _advection(self) -> ng.BilinearForm:
        """The upwind form of div(u (alpha - 1/2)).

        The velocity's divergence is zero only on average; advecting alpha - 1/2 makes the error of
        that the same for both fluids.
        """
        space = self.alpha.space
        a, b = space.TnT()
        velocity = self.solver.velocity
        out = ng.InnerProduct(velocity, ng.specialcf.normal(2))
        excess = a - 0.5
        outer = a.Other() - 0.5
        upwind = ng.IfPos(out, excess, outer)

        form = ng.BilinearForm(space, nonassemble=True)
        form += -excess * ng.InnerProduct(velocity, ng.grad(b)) * ng.dx(bonus_intorder=2)
        form += out * upwind * (b - b.Other()) * ng.dx(skeleton=True)
        return form

    def _assemble(self, weight: float) -> tuple[ng.BaseMatrix, ng.BaseMatrix]:
        """The operator of a step of alpha, mass and diffusion, and its inverse."""
        space = self.alpha.space
        a, b = space.TnT()
        normal = ng.specialcf.normal(2)
        jump_a = a - a.Other()
        jump_b = b - b.Other()
        slope_a = 0.5 * ng.InnerProduct(ng.grad(a) + ng.grad(a.Other()), normal)
        slope_b = 0.5 * ng.InnerProduct(ng.grad(b) + ng.grad(b.Other()), normal)
        penalty = 3 * (space.globalorder + 1) ** 2 / ng.specialcf.mesh_size

        form = ng.BilinearForm(space)
        form += (weight / self.step * a * b + self.viscosity * ng.grad(a) * ng.grad(b)) * ng.dx
        edges = penalty * jump_a * jump_b - slope_a * jump_b - slope_b * jump_a
        form += self.viscosity * edges * ng.dx(skeleton=True)
        operator = form.Assemble().mat
        return operator, operator.Inverse(inverse="sparsecholesky")

    def _limit(self) -> None:
        """Scales each element's polynomial about its mean until its six nodes lie in [0, 1].

        The mean never changes.
        """
        values = self.alpha(self.lattice.points).reshape(-1, 6)  # (E, 6)
        # the first of an orthogonal basis is the mean
        modes = self.alpha.vec.FV().NumPy().reshape(len(values), -1)
        mean = modes[:, 0]
        room = np.stack([1 - mean, mean]).clip(0)  # (2, E), to 1 and to 0
        need = np.stack([values.max(1) - mean, mean - values.min(1)])
        factors = np.where(need > room, room / need.clip(1e-300), 1).min(0)  # (E,)
        modes[:, 1:] *= factors[:, None]

    def advance(self) -> None:
        """One step of alpha, then of the flow that it drives. Raises Diverged."""
        self.stepper.advance()
        self._limit()
        self.load.data = self.buoyancy.mat * self.alpha.vec
        self.solver.advance(self.load)

    def energy(self) -> tuple[float, float]:
        """Kinetic and potential energy, in density (difference) times g' H^3 per unit of width."""
        speed = ng.InnerProduct(self.solver.velocity, self.solver.velocity)
        kinetic = ng.Integrate(0.5 * speed, self.mesh)
        return kinetic, -ng.Integrate(self.alpha * ng.y, self.mesh)

    def frame(self, places: Places | None = None) -> np.ndarray:
        """u, v, alpha and p at the nodes, or at other places, float32 (P, F); p has zero mean."""
        solver = self.solver
        sampled = places or self.lattice
        fields = sampled.sample(solver.velocity, self.alpha, solver.pressure)  # (P, 4)
        fields[:, 3] -= ng.Integrate(solver.pressure, self.mesh) / LENGTH
        return fields.astype(np.float32)


def simulate(parameters: np.ndarray, settings: Settings) -> Trajectory:
    """One trajectory with fields u, v, alpha, p for a row (2,) of `draw_parameters`.

    A function of its arguments alone. Nodes form a regular grid, row by row from the floor. The
    pressure of the first frame, at rest, is that after one step. Raises Diverged.
    """
    grashof, gate = (float(value) for value in parameters)
    every = steps_per_frame(settings.frame, settings.step)
    settings = dataclasses.replace(settings, step=settings.frame / every)
    tank = Tank(settings, grashof, gate)
    frames = [tank.frame()]
    for taken in range(1, every * (settings.frames - 1) + 1):
        tank.advance()
        if taken == 1:
            frames[0][:, 3] = tank.frame()[:, 3]
        if taken % every == 0:
            frames.append(tank.frame())
    time = settings.frame * np.arange(settings.frames)
    lattice = tank.lattice
    return Trajectory(np.stack(frames), lattice.coordinates, lattice.triangles, time)
