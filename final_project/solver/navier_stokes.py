"""Incompressible Navier-Stokes by Taylor-Hood elements and IMEX time steps, on curved triangles.

du/dt + (u . grad) u - nu laplace u + grad p = f,  div u = 0;  natural boundary: nu du/dn - p n = 0.
Shape letters: P nodes, F fields, M triangles.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import ngsolve as ng
import numpy as np

LIMIT = (
    1e3  # speeds are of order one; a coefficient beyond this is a blow-up on its way to infinity
)
# weight of (div u, div v): zero for the exact solution, it keeps the pressure's error out of the velocity (Olshanskii et al. 2009) and allows
# longer steps; the price is an error of the pressure itself beside a wall: 1.0 adds 4 % to the cylinder's pressure difference, 0.3 adds 1 to 2 %
GRAD_DIV = 0.3
PENALTY = 1e-8  # div u = -PENALTY p: lets the symmetric factorisation do without pivots, and fixes the mean of p in a closed tank


class Diverged(Exception):
    """The solution is not finite or grows without bound; `time` says when it was noticed."""

    def __init__(self, time: float):
        super().__init__(f"diverged at t = {time:.4g}")
        self.time = time


def steps_per_frame(frame: float, step: float) -> int:
    """The number of steps, at least one, that fill a frame's interval with steps no longer than `step`."""
    return max(1, math.ceil(frame / step - 1e-9))


def impose(function: ng.GridFunction, boundary: str, values: ng.CoefficientFunction) -> None:
    """Overwrites the unknowns of a grid function on the boundaries of a regular expression; `Set` there would clear all others."""
    region = function.space.mesh.Boundaries(boundary)
    alone = ng.GridFunction(function.space)
    alone.Set(values, definedon=region)
    there = np.fromiter(function.space.GetDofs(region), bool)
    function.vec.FV().NumPy()[there] = alone.vec.FV().NumPy()[there]


class IMEX:
    """Advances a vector a with mass da/dt + A a + explicit(a) = load: A implicit, the explicit part extrapolated; second order.

    (3 a[n+1] - 4 a[n] + a[n-1]) / 2 step + A a[n+1] = load[n+1] - (3 e[n] - 3 e[n-1] + e[n-2]): unlike the usual extrapolation from two
    steps (SBDF2) stable for pure convection, up to a Courant number of 0.63 (Karniadakis, Israeli & Orszag 1991). The first step is Euler's.

    explicit : writes its value at the first vector into the second. assemble : (weight / step) mass + A, and its inverse, of a weight.
    """

    def __init__(
        self,
        state: ng.BaseVector,
        mass: ng.BaseMatrix,
        step: float,
        explicit: Callable[[ng.BaseVector, ng.BaseVector], None],
        assemble: Callable[[float], tuple[ng.BaseMatrix, ng.BaseMatrix]],
    ):
        self.state, self.mass, self.step, self.explicit, self.assemble = (
            state,
            mass,
            step,
            explicit,
            assemble,
        )
        self.old, self.rhs, self.work, self.change, *self.past = (
            state.CreateVector() for _ in range(7)
        )
        for vector in self.past:
            vector[:] = 0
        self.taken = 0

    @property
    def time(self) -> float:
        """Time of the state, 0 at first."""
        return self.taken * self.step

    def advance(self, load: ng.BaseVector | None = None) -> None:
        """One step; entries that the inverse leaves alone (boundary values) stay as they are. Raises Diverged."""
        state, (newest, middle, oldest) = self.state, self.past
        self.explicit(state, oldest)
        self.past = newest, middle, oldest = [oldest, newest, middle]
        if self.taken < 2:
            self.operator, self.inverse = self.assemble((1.0, 1.5)[self.taken])
        if self.taken == 0:
            self.work.data = 1 / self.step * state
            self.rhs.data = self.mass * self.work - newest
            self.change[:] = 0
        else:
            self.work.data = 2 / self.step * state - 0.5 / self.step * self.old
            self.rhs.data = self.mass * self.work
            self.rhs.data -= (
                2 * newest - middle if self.taken == 1 else 3 * newest - 3 * middle + oldest
            )
            self.change.data = state - self.old
        if load is not None:
            self.rhs.data += load
        self.old.data = state
        state.data += (
            self.change
        )  # extrapolated, so that what is solved for is small, and so is its rounding
        self.change.data = self.inverse * self.residual()
        state.data += self.change
        self.taken += 1

    def residual(self) -> ng.BaseVector:
        """Right-hand side less operator times state; after a step only the constrained entries are not zero: the reaction."""
        self.work.data = self.rhs - self.operator * self.state
        return self.work


class NavierStokes:
    """Velocity of order k, pressure of order k - 1, and the state at one time.

    `fixed` names the boundaries where the velocity keeps the values of `start`, `fixed_x` and `fixed_y` those of one component
    (free slip); names are regular expressions.
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
        self.mesh, self.viscosity, self.step = mesh, viscosity, step
        velocity = ng.VectorH1(
            mesh, order=order, dirichlet=fixed, dirichletx=fixed_x, dirichlety=fixed_y
        )
        self.space = velocity * ng.H1(mesh, order=order - 1)
        self.state = ng.GridFunction(self.space)
        self.velocity, self.pressure = self.state.components
        u, v = velocity.TnT()
        # on 713 triangles of order 3: 1.2 ms, the same term as a LinearForm 1.5 ms, either one compiled no faster
        self.convection = ng.BilinearForm(velocity, nonassemble=True)
        self.convection += ng.InnerProduct(ng.Grad(u) * u, v) * ng.dx

    def start(self, velocity: ng.CoefficientFunction, walls: str = "") -> None:
        """Sets the state at time 0, with zero velocity on the boundaries that `walls` names; the first step makes it divergence-free."""
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
        (u, p), (v, q) = self.space.TnT()
        form = ng.InnerProduct(weight / self.step * u, v) + self.viscosity * ng.InnerProduct(
            ng.Grad(u), ng.Grad(v)
        )
        form += GRAD_DIV * ng.div(u) * ng.div(v) - p * ng.div(v) - q * ng.div(u) - PENALTY * p * q
        operator = ng.BilinearForm(form * ng.dx).Assemble().mat
        # 1.7 ms a solution on 713 triangles of order 3; UMFPACK takes 7.4 ms
        return operator, operator.Inverse(self.space.FreeDofs(), inverse="sparsecholesky")

    @property
    def time(self) -> float:
        """Time since `start`."""
        return self.stepper.time

    def advance(self, load: ng.BaseVector | None = None) -> None:
        """One step; `load` is the body force's vector at the new time. Raises Diverged."""
        self.stepper.advance(load)
        # not the pressure: that of an impulsive start is as large as 1 / step
        if not np.abs(self.velocity.vec.FV().NumPy()).max() < LIMIT:  # also true for NaN
            raise Diverged(self.time)

    def reaction(self, test: ng.GridFunction) -> float:
        """Force (per density and depth) of the fluid on the boundary where the velocity part of `test` is a unit vector, zero elsewhere.

        Residual of the discrete momentum equation: far more accurate than integrating stresses over the boundary (John & Matthies 2001).
        """
        return ng.InnerProduct(self.stepper.residual(), test.vec)


class Lattice:
    """Vertices and edge midpoints of a mesh as it stands, numbered by y, then x, and the four triangles of each element.

    coordinates : float64 (P, 2). triangles : int32 (M, 3), counter-clockwise. points : the six of each element, for functions to be called with.
    """

    def __init__(self, mesh: ng.Mesh):
        six = [
            (1, 0),
            (0, 1),
            (0, 0),
            (0, 0.5),
            (0.5, 0),
            (0.5, 0.5),
        ]  # the last three: midpoints opposite to the first three
        self.points = mesh.MapToAllElements(ng.IntegrationRule(points=six, weights=[0] * 6), ng.VOL)
        places = ng.CF((ng.x, ng.y))(self.points)  # (6 M / 4, 2)
        _, first, node = np.unique(
            np.round(places[:, ::-1], 9), axis=0, return_index=True, return_inverse=True
        )
        self.coordinates, self.node, self.shared = places[first], node, np.bincount(node)
        four = node.reshape(-1, 6)[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2], [3, 4, 5]]].reshape(
            -1, 3
        )  # (M, 3)
        (ax, ay), (bx, by), (cx, cy) = (self.coordinates[four[:, corner]].T for corner in range(3))
        left = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) > 0
        self.triangles = np.where(left[:, None], four, four[:, ::-1]).astype(np.int32)

    def sample(self, *functions: ng.CoefficientFunction) -> np.ndarray:
        """Values float64 (P, F) at the nodes, means over the elements that share one; a vector gives two fields."""
        values = np.concatenate(
            [function(self.points) for function in functions], axis=1
        )  # (6 M / 4, F)
        return np.stack(
            [np.bincount(self.node, column) / self.shared for column in values.T], axis=1
        )
