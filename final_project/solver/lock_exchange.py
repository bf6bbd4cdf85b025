"""Lock exchange: two fluids behind a gate in a closed tank 5 long and 1 high, in the Boussinesq limit.

du/dt + (u . grad) u = -grad p + nu laplace u + alpha e_y,  d alpha/dt + div(u alpha) = nu laplace alpha (Schmidt number 1).
alpha = 1 is the light fluid, left of the gate at first. Lengths are in tank heights H, speeds in sqrt(g' H), times in sqrt(H / g'); the Grashof
number is that of the full height, Gr = (sqrt(g' H) H / nu)^2, so nu = Gr^(-1/2) (Haertel, Meiburg & Necker 2000 take half the height, 1/8 of this).
All walls slip freely and let no alpha through.
Shape letters: N trajectories, T frames, P nodes, F fields, K parameters.
"""

from __future__ import annotations

import dataclasses

import ngsolve as ng
import numpy as np
from ngsolve.meshes import MakeStructured2DMesh

from final_project.solver import Trajectory, even_draws
from final_project.solver.navier_stokes import IMEX, Lattice, NavierStokes, steps_per_frame

LENGTH = 5.0
FIELD_NAMES = ("u", "v", "alpha", "p")
PARAMETER_NAMES = ("Gr", "gate")
LOWEST, HIGHEST = (1e5, 1.5), (2e6, 3.5)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Resolution and recording; the defaults make the real data."""

    rows: int = 10
    """squares, each cut into two triangles, over the height; five times as many over the length"""
    order: int = 3
    """of the velocity; pressure and alpha have one less"""
    step: float = 5e-3
    """largest time step"""
    frame: float = 0.05
    """time between frames"""
    frames: int = 300
    """two thirds for training and the main scores, the rest for the longer horizon"""
    gate_width: float = 0.1
    """alpha = (1 - tanh((x - gate) / gate_width)) / 2 at first"""


PRESETS = {
    "smoke": Settings(rows=3, step=0.02, frame=0.2, frames=24),
    "default": Settings(rows=6, step=8e-3, frame=0.1, frames=100),
    "full": Settings(),
}


def draw_parameters(count: int, seed: int) -> np.ndarray:
    """Gr (its logarithm evenly) and the gate's position, float64 (N, 2); row i depends on (seed, i) alone."""
    lowest, highest = (np.array([np.log(gr), gate]) for gr, gate in (LOWEST, HIGHEST))
    drawn = lowest + even_draws(count, 2, seed) * (highest - lowest)
    drawn[:, 0] = np.exp(drawn[:, 0])
    return drawn


class Tank:
    """The solver set up for one (Gr, gate), at rest.

    alpha is discontinuous, of the pressure's order: its upwind flux is conservative, and the limiter of Zhang & Shu (2010) draws an element's
    polynomial towards its mean where it leaves [0, 1] at a node. Diffusion is implicit (symmetric interior penalty, Arnold 1982).
    """

    def __init__(self, settings: Settings, grashof: float, gate: float):
        self.mesh = MakeStructured2DMesh(
            quads=False,
            nx=5 * settings.rows,
            ny=settings.rows,
            mapping=lambda x, y: (LENGTH * x, y),
        )
        self.lattice, self.viscosity, self.step = Lattice(self.mesh), grashof**-0.5, settings.step
        self.solver = NavierStokes(
            self.mesh,
            settings.order,
            self.viscosity,
            settings.step,
            fixed_x="left|right",
            fixed_y="bottom|top",
        )
        self.solver.start(ng.CF((0, 0)))
        space = ng.L2(self.mesh, order=settings.order - 1, dgjumps=True)
        self.alpha, (a, b) = ng.GridFunction(space), space.TnT()
        self.alpha.Set(1 / (1 + ng.exp(2 * (ng.x - gate) / settings.gate_width)))
        self._limit()
        # the velocity's divergence is zero only on average: advecting alpha - 1/2 makes its error the same for both fluids
        out, excess, outer = (
            ng.InnerProduct(self.solver.velocity, ng.specialcf.normal(2)),
            a - 0.5,
            a.Other() - 0.5,
        )
        self.advection = ng.BilinearForm(space, nonassemble=True)
        self.advection += (
            -excess * ng.InnerProduct(self.solver.velocity, ng.grad(b)) * ng.dx(bonus_intorder=2)
        )
        self.advection += (
            out * ng.IfPos(out, excess, outer) * (b - b.Other()) * ng.dx(skeleton=True)
        )
        mass = ng.BilinearForm(a * b * ng.dx).Assemble().mat
        self.stepper = IMEX(
            self.alpha.vec, mass, settings.step, self.advection.Apply, self._assemble
        )
        self.buoyancy = ng.BilinearForm(trialspace=space, testspace=self.solver.space)
        self.buoyancy += a * self.solver.space.TestFunction()[0][1] * ng.dx
        self.buoyancy.Assemble()
        self.load = self.solver.state.vec.CreateVector()

    def _assemble(self, weight: float) -> tuple[ng.BaseMatrix, ng.BaseMatrix]:
        space = self.alpha.space
        (a, b), normal = space.TnT(), ng.specialcf.normal(2)
        jumps = [f - f.Other() for f in (a, b)]
        slopes = [0.5 * ng.InnerProduct(ng.grad(f) + ng.grad(f.Other()), normal) for f in (a, b)]
        penalty = 3 * (space.globalorder + 1) ** 2 / ng.specialcf.mesh_size
        form = ng.BilinearForm(space)
        form += (weight / self.step * a * b + self.viscosity * ng.grad(a) * ng.grad(b)) * ng.dx
        form += (
            self.viscosity
            * (penalty * jumps[0] * jumps[1] - slopes[0] * jumps[1] - slopes[1] * jumps[0])
            * ng.dx(skeleton=True)
        )
        operator = form.Assemble().mat
        return operator, operator.Inverse(inverse="sparsecholesky")

    def _limit(self) -> None:
        """Scales each element's polynomial about its mean so that its six nodes lie in [0, 1]; the mean is never changed."""
        values = self.alpha(self.lattice.points).reshape(-1, 6)
        modes = (
            self.alpha.vec.FV().NumPy().reshape(len(values), -1)
        )  # the first of an orthogonal basis is the mean
        room = np.stack([1 - modes[:, 0], modes[:, 0]]).clip(0)
        need = np.stack([values.max(1) - modes[:, 0], modes[:, 0] - values.min(1)])
        modes[:, 1:] *= np.where(need > room, room / need.clip(1e-300), 1).min(0)[:, None]

    def advance(self) -> None:
        """One step of alpha, then of the flow that it drives. Raises Diverged."""
        self.stepper.advance()
        self._limit()
        self.load.data = self.buoyancy.mat * self.alpha.vec
        self.solver.advance(self.load)

    def energy(self) -> tuple[float, float]:
        """Kinetic and potential energy, in density (difference) times g' H^3 per unit of breadth."""
        kinetic = 0.5 * ng.InnerProduct(self.solver.velocity, self.solver.velocity)
        return ng.Integrate(kinetic, self.mesh), -ng.Integrate(self.alpha * ng.y, self.mesh)

    def frame(self) -> np.ndarray:
        """u, v, alpha and p at the nodes, float32 (P, F); p has zero mean."""
        solver = self.solver
        fields = self.lattice.sample(solver.velocity, self.alpha, solver.pressure)
        fields[:, 3] -= ng.Integrate(solver.pressure, self.mesh) / LENGTH
        return fields.astype(np.float32)


def simulate(parameters: np.ndarray, settings: Settings) -> Trajectory:
    """One trajectory with fields u, v, alpha, p for a row of `draw_parameters`; a function of its arguments alone.

    Nodes form a regular grid, row by row from the floor. The pressure of the first frame, at rest, is that after one step. Raises Diverged.
    """
    every = steps_per_frame(settings.frame, settings.step)
    tank = Tank(dataclasses.replace(settings, step=settings.frame / every), *map(float, parameters))
    frames = [tank.frame()]
    for taken in range(1, every * (settings.frames - 1) + 1):
        tank.advance()
        if taken == 1:
            frames[0][:, 3] = tank.frame()[:, 3]
        if taken % every == 0:
            frames.append(tank.frame())
    return Trajectory(
        np.stack(frames),
        tank.lattice.coordinates,
        tank.lattice.triangles,
        settings.frame * np.arange(settings.frames),
    )
