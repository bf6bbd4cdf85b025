"""Incompressible Navier-Stokes by Taylor-Hood elements and IMEX time steps, on curved triangles.

    du/dt + (u . grad) u - nu laplace u + grad p = f,    div u = 0,

with the natural boundary condition nu du/dn - p n = 0.
Shape letters: P nodes, F fields, M triangles, E elements.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import TypeVar

import ngsolve as ng
import numpy as np

# Speeds are of order one: a coefficient beyond this belongs to a solution that blows up.
LIMIT = 1e3
# Weight of (div u, div v), which is zero for the exact solution. It keeps the pressure's error out
# of the velocity (Olshanskii et al. 2009) and allows longer steps, at the price of an error of the
# pressure at walls: 1.0 adds 4 % to the cylinder's pressure difference, 0.3 adds 1 to 2 %.
GRAD_DIV = 0.3
# div u = -PENALTY p: the symmetric factorisation then needs no pivots, and p of a closed tank has a
# unique mean.
PENALTY = 1e-8

Explicit = Callable[[ng.BaseVector, ng.BaseVector], None]
Assemble = Callable[[float], tuple[ng.BaseMatrix, ng.BaseMatrix]]

T = TypeVar("T")


class Diverged(Exception):
    """The solution is not finite or grows without bound; `time` is when that was noticed."""

    def __init__(self, time: float):
        super().__init__(f"diverged at t = {time:.4g}")
        self.time = time


def with_shorter_steps(solve: Callable[[float], T], step: float, attempts: int) -> tuple[T, float]:
    """What solve(step) returns, and the step: the given one, or half of it as often as it diverges.

    Raises Diverged of the last of the attempts.
    """
    for _ in range(attempts - 1):
        with contextlib.suppress(Diverged):
            return solve(step), step
        step /= 2
    return solve(step), step


def steps_per_frame(frame: float, step: float) -> int:
    """The number of steps, at least one and none longer than `step`, that fill a frame's time."""
    return max(1, math.ceil(frame / step - 1e-9))


def impose(function: ng.GridFunction, boundary: str, values: ng.CoefficientFunction) -> None:
    """Overwrites the unknowns of a grid function on boundaries, given by a regular expression.

    `Set` with a region would clear all other unknowns.
    """
    region = function.space.mesh.Boundaries(boundary)
    alone = ng.GridFunction(function.space)
    alone.Set(values, definedon=region)
    on_boundary = np.fromiter(function.space.GetDofs(region), bool)
    unknowns = function.vec.FV().NumPy()
    unknowns[on_boundary] = alone.vec.FV().NumPy()[on_boundary]


class IMEX:
    """Second-order time steps of mass da/dt + A a + e(a) = load, A implicit and e extrapolated.

        mass (3 a[n+1] - 4 a[n] + a[n-1]) / (2 step) + A a[n+1]
            = load[n+1] - (3 e[n] - 3 e[n-1] + e[n-2])

    Unlike the usual extrapolation from two steps (SBDF2), this is stable for pure convection, up to
    a Courant number of 0.63 (Karniadakis, Israeli & Orszag 1991). The first step is Euler's.

    explicit : writes e of the first vector into the second.
    assemble : the operator (weight / step) mass + A of a weight, and its inverse.
    """

    def __init__(
        self,
        state: ng.BaseVector,
        mass: ng.BaseMatrix,
        step: float,
        explicit: Explicit,
        assemble: Assemble,
    ):
        self.state = state
        self.mass = mass
        self.step = step
        self.explicit = explicit
        self.assemble = assemble
        self.taken = 0

        self.old = state.CreateVector()  # a[n-1]
        self.rhs = state.CreateVector()
        self.work = state.CreateVector()
        self.change = state.CreateVector()
        self.newest = state.CreateVector()  # e[n]
        self.middle = state.CreateVector()  # e[n-1]
        self.oldest = state.CreateVector()  # e[n-2]
        for vector in (self.newest, self.middle, self.oldest):
            vector[:] = 0

    @property
    def time(self) -> float:
        """Time of the state, 0 at first."""
        return self.taken * self.step

    def advance(self, load: ng.BaseVector | None = None) -> None:
        """One step; entries that the inverse leaves alone (boundary values) do not change."""
        state = self.state
        spare = self.oldest
        self.explicit(state, spare)
        self.oldest = self.middle
        self.middle = self.newest
        self.newest = spare

        if self.taken == 0:
            self.operator, self.inverse = self.assemble(1.0)
        elif self.taken == 1:
            self.operator, self.inverse = self.assemble(1.5)
        self._right_hand_side()
        if load is not None:
            self.rhs.data += load

        # The state is extrapolated first: then the solution of the linear system is small, and so
        # is its rounding.
        self.old.data = state
        state.data += self.change
        self.change.data = self.inverse * self.residual()
        state.data += self.change
        self.taken += 1

    def _right_hand_side(self) -> None:
        """mass times the past states, less the extrapolated explicit part; and the extrapolation.

        Writes `rhs` and `change`, the expected change of the state.
        """
        if self.taken == 0:
            self.work.data = 1 / self.step * self.state
            self.rhs.data = self.mass * self.work - self.newest
            self.change[:] = 0
            return
        self.work.data = 2 / self.step * self.state - 0.5 / self.step * self.old
        self.rhs.data = self.mass * self.work
        if self.taken == 1:
            self.rhs.data -= 2 * self.newest - self.middle
        else:
            self.rhs.data -= 3 * self.newest - 3 * self.middle + self.oldest
        self.change.data = self.state - self.old

    def residual(self) -> ng.BaseVector:
        """Right-hand side less operator times state.

        After a step only its constrained entries are not zero: they are the boundary's reaction.
        """
        self.work.data = self.rhs - self.operator * self.state
        return self.work


class NavierStokes:
    """Velocity of order k, pressure of order k - 1, and the state at one time.

    fixed : boundaries where the velocity keeps the values of `start`.
    fixed_x, fixed_y : those of one component only (free slip). All are regular expressions.
    """

    def __init__(
        self,
        mesh: ng.Mesh,
        order: int,
        viscosity: float,
        step: float,
        fixed: str = "",
        fixed_x: str = "",
        fixed_y: str = "",
    ):
        self.mesh = mesh
        self.viscosity = viscosity
        self.step = step
        velocity = ng.VectorH1(
            mesh, order=order, dirichlet=fixed, dirichletx=fixed_x, dirichlety=fixed_y
        )
        self.space = velocity * ng.H1(mesh, order=order - 1)
        self.state = ng.GridFunction(self.space)
        self.velocity, self.pressure = self.state.components

        # ((u . grad) u, v): 1.2 ms on 713 triangles of order 3. The same term as a LinearForm takes
        # 1.5 ms; compiling either of them makes it no faster.
        u, v = velocity.TnT()
        self.convection = ng.BilinearForm(velocity, nonassemble=True)
        self.convection += ng.InnerProduct(ng.Grad(u) * u, v) * ng.dx

    def start(self, velocity: ng.CoefficientFunction, walls: str = "") -> None:
        """Sets the state at time 0, with zero velocity on the boundaries `walls`.

        The first step makes it divergence-free.
        """
        self.velocity.Set(velocity)
        if walls:
            impose(self.velocity, walls, ng.CF((0, 0)))
        self.pressure.vec[:] = 0
        (u, _), (v, _) = self.space.TnT()
        mass = ng.BilinearForm(ng.InnerProduct(u, v) * ng.dx).Assemble().mat
        self.stepper = IMEX(self.state.vec, mass, self.step, self._convect, self._assemble)

    def _convect(self, state: ng.BaseVector, out: ng.BaseVector) -> None:
        unknowns = slice(0, self.space.components[0].ndof)
        self.convection.Apply(state[unknowns], out[unknowns])

    def _assemble(self, weight: float) -> tuple[ng.BaseMatrix, ng.BaseMatrix]:
        """The Stokes operator of a step: mass, viscosity, pressure, the two stabilising terms."""
        (u, p), (v, q) = self.space.TnT()
        mass = ng.InnerProduct(weight / self.step * u, v)
        diffusion = self.viscosity * ng.InnerProduct(ng.Grad(u), ng.Grad(v))
        form = mass + diffusion
        form += GRAD_DIV * ng.div(u) * ng.div(v) - p * ng.div(v) - q * ng.div(u) - PENALTY * p * q
        operator = ng.BilinearForm(form * ng.dx).Assemble().mat
        # 1.7 ms per solution on 713 triangles of order 3; UMFPACK takes 7.4 ms
        return operator, operator.Inverse(self.space.FreeDofs(), inverse="sparsecholesky")

    @property
    def time(self) -> float:
        """Time since `start`."""
        return self.stepper.time

    def advance(self, load: ng.BaseVector | None = None) -> None:
        """One step; `load` is the body force's vector at the new time. Raises Diverged."""
        self.stepper.advance(load)
        # not the pressure: that of an impulsive start is as large as 1 / step
        fastest = np.abs(self.velocity.vec.FV().NumPy()).max()
        if not fastest < LIMIT:  # also true for NaN
            raise Diverged(self.time)

    def reaction(self, test: ng.GridFunction) -> float:
        """Force of the fluid on a boundary, per density and depth, in one direction.

        `test` has a velocity that is the direction's unit vector on that boundary and zero on every
        other. The residual of the discrete momentum equation is far more accurate than an integral
        of the stresses over the boundary (John & Matthies 2001).
        """
        return ng.InnerProduct(self.stepper.residual(), test.vec)


# Shares of its distance by which a place is moved outwards until an element holds it.
OUTWARD = (1e-5, 1e-4, 1e-3, 1e-2)

# Reference triangle: its corners, and the midpoints opposite to them.
SIX_POINTS = [(1, 0), (0, 1), (0, 0), (0, 0.5), (0.5, 0), (0.5, 0.5)]
FOUR_TRIANGLES = [[0, 5, 4], [5, 1, 3], [4, 3, 2], [3, 4, 5]]


class Lattice:
    """Vertices and edge midpoints of a mesh as it stands, numbered by y, then x.

    coordinates : float64 (P, 2). triangles : int32 (M, 3), four per element, counter-clockwise.
    points : the six of each element, at which functions can be evaluated.
    """

    def __init__(self, mesh: ng.Mesh):
        rule = ng.IntegrationRule(points=SIX_POINTS, weights=[0] * 6)
        self.points = mesh.MapToAllElements(rule, ng.VOL)
        positions = ng.CF((ng.x, ng.y))(self.points)  # (6 E, 2)

        # points of neighbouring elements that coincide are one node:
        by_y = np.round(positions[:, ::-1], 9)
        _, first, node = np.unique(by_y, axis=0, return_index=True, return_inverse=True)
        self.coordinates = positions[first]
        self.node = node  # (6 E,)
        self.shared = np.bincount(node)  # (P,), elements that share a node

        triangles = node.reshape(-1, 6)[:, FOUR_TRIANGLES].reshape(-1, 3)  # (M, 3)
        (ax, ay), (bx, by), (cx, cy) = (self.coordinates[triangles[:, i]].T for i in range(3))
        left = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) > 0
        ordered = np.where(left[:, None], triangles, triangles[:, ::-1])
        self.triangles = ordered.astype(np.int32)

    def sample(self, *functions: ng.CoefficientFunction) -> np.ndarray:
        """Values float64 (P, F) at the nodes, means over the elements that share one.

        A vector gives two fields.
        """
        values = np.concatenate([function(self.points) for function in functions], axis=1)
        columns = [np.bincount(self.node, column) / self.shared for column in values.T]
        return np.stack(columns, axis=1)


class Places:
    """Given places (P, 2) of a mesh as it stands; they move with it when it is deformed.

    A place that no element holds, because it lies on a curved wall that a coarse mesh cuts off, is
    moved from `centre` outwards, by up to a hundredth of its distance. Raises ValueError for places
    that are further away from the mesh.
    """

    def __init__(
        self, mesh: ng.Mesh, coordinates: np.ndarray, centre: tuple[float, float] = (0, 0)
    ):
        away = coordinates - centre
        points = mesh(*coordinates.T)
        for share in OUTWARD:
            lost = points["nr"] < 0
            points[lost] = mesh(*(centre + (1 + share) * away[lost]).T)
        if (points["nr"] < 0).any():
            raise ValueError(f"{(points['nr'] < 0).sum()} places lie outside the mesh")
        self.points = points

    def sample(self, *functions: ng.CoefficientFunction) -> np.ndarray:
        """Values float64 (P, F); a vector gives two fields."""
        return np.concatenate([function(self.points) for function in functions], axis=1)
