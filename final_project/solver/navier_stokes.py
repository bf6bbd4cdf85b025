"""Incompressible Navier-Stokes by Taylor-Hood elements and IMEX time steps, on curved triangles.

du/dt + (u . grad) u - nu laplace u + grad p = f,  div u = 0;  natural boundary: nu du/dn - p n = 0.
"""

from __future__ import annotations

import math

import ngsolve as ng
import numpy as np

LIMIT = 1e3  # speeds are of order one; a coefficient beyond this is a blow-up on its way to infinity
GRAD_DIV = (
    0.3  # weight of (div u, div v): zero for the exact solution, it keeps the pressure's error out of the velocity (Olshanskii et al. 2009)
)
PENALTY = 1e-8  # div u = -PENALTY p: lets the symmetric factorisation do without pivots, and fixes the mean of p in a closed tank


class Diverged(Exception):
    """The solution is not finite or grows without bound; `time` says when it was noticed."""

    def __init__(self, time: float):
        super().__init__(f"diverged at t = {time:.4g}")
        self.time = time


def check_finite(vector: ng.BaseVector, time: float) -> None:
    """Raises Diverged where a coefficient is not finite or exceeds LIMIT."""
    if not np.abs(vector.FV().NumPy()).max() < LIMIT:  # also true for NaN
        raise Diverged(time)


class NavierStokes:
    """Velocity of order k, pressure of order k - 1, and the state at one time.

    Time: second-order backward differences; convection is extrapolated from three steps, which unlike the usual two (SBDF2) is stable
    for pure convection, up to a Courant number of 0.63 (Karniadakis, Israeli & Orszag 1991); the first step is Euler's.
    `fixed` names the boundaries where the velocity keeps the values of `start`, `fixed_x` and `fixed_y` those of one component
    (free slip); names are regular expressions. `load` adds the vector of a body force to every step.
    """

    def __init__(self, mesh: ng.Mesh, order: int, viscosity: float, step: float, fixed: str = "", fixed_x: str = "", fixed_y: str = ""):
        self.viscosity, self.step, self.taken = viscosity, step, 0
        velocity = ng.VectorH1(mesh, order=order, dirichlet=fixed, dirichletx=fixed_x, dirichlety=fixed_y)
        self.space = velocity * ng.H1(mesh, order=order - 1)
        self.state = ng.GridFunction(self.space)
        self.velocity, self.pressure = self.state.components
        (u, p), (v, _) = self.space.TnT()
        self.mass = ng.BilinearForm(ng.InnerProduct(u, v) * ng.dx).Assemble().mat
        u, v = velocity.TnT()
        # on 713 triangles of order 3: 1.2 ms, the same term as a LinearForm 1.5 ms, either one compiled no faster
        self.convection = ng.BilinearForm(velocity, nonassemble=True)
        self.convection += ng.InnerProduct(ng.Grad(u) * u, v) * ng.dx
        vector = self.state.vec.CreateVector
        self.old, self.rhs, self.change, self.work = vector(), vector(), vector(), vector()
        self.forces = vector(), vector(), vector()

    @property
    def time(self) -> float:
        """Time of the state."""
        return self.taken * self.step

    def _factorise(self, weight: float) -> None:
        """Operator with weight / step before the mass, and its inverse on free unknowns."""
        (u, p), (v, q) = self.space.TnT()
        form = ng.InnerProduct(weight / self.step * u, v) + self.viscosity * ng.InnerProduct(ng.Grad(u), ng.Grad(v))
        form += GRAD_DIV * ng.div(u) * ng.div(v) - p * ng.div(v) - q * ng.div(u) - PENALTY * p * q
        self.operator = ng.BilinearForm(form * ng.dx).Assemble().mat
        # 1.7 ms a solution on 713 triangles of order 3; UMFPACK takes 7.4 ms
        self.inverse = self.operator.Inverse(self.space.FreeDofs(), inverse="sparsecholesky")

    def start(self, velocity: ng.CoefficientFunction, walls: str = "") -> None:
        """Sets the state at time 0, with zero velocity on the boundaries that `walls` names; the first step makes it divergence-free."""
        self.velocity.Set(velocity)
        if walls:
            mesh = self.space.mesh
            self.velocity.Set(mesh.BoundaryCF({walls: (0, 0)}, default=velocity), definedon=mesh.Boundaries(".*"))
        self.pressure.vec[:] = 0
        self.taken = 0

    def advance(self, load: ng.BaseVector | None = None) -> None:
        """One step; `load` is the body force's vector at the new time. Raises Diverged."""
        state, (newest, middle, oldest) = self.state.vec, self.forces
        oldest[:] = 0
        self.convection.Apply(self.velocity.vec, oldest.Range(0, len(self.velocity.vec)))
        self.forces = newest, middle, oldest = oldest, newest, middle
        if self.taken == 0:
            self._factorise(1.0)
            self.work.data = 1 / self.step * state
            self.rhs.data = self.mass * self.work - newest
            self.change[:] = 0
        else:
            if self.taken == 1:
                self._factorise(1.5)
            self.work.data = 2 / self.step * state - 0.5 / self.step * self.old
            self.rhs.data = self.mass * self.work
            self.rhs.data -= 2 * newest - middle if self.taken == 1 else 3 * newest - 3 * middle + oldest
            self.change.data = state - self.old
        if load is not None:
            self.rhs.data += load
        self.old.data = state
        state.data += self.change  # extrapolated, so that what is solved for is small, and so is its rounding
        self.work.data = self.rhs - self.operator * state
        self.change.data = self.inverse * self.work
        state.data += self.change
        self.taken += 1
        check_finite(self.velocity.vec, self.time)  # not the pressure: that of an impulsive start is as large as 1 / step

    def reaction(self, test: ng.GridFunction) -> float:
        """Force (per density and depth) of the fluid on the boundary where the velocity part of `test` is a unit vector.

        Residual of the discrete momentum equation: more accurate than integrating stresses over the boundary (John & Matthies 2001).
        """
        self.work.data = self.rhs - self.operator * self.state.vec
        return ng.InnerProduct(self.work, test.vec)


class Lattice:
    """Vertices and edge midpoints of a mesh in its reference position, numbered by y, then x, and the four triangles of each element.

    coordinates : float64 (P, 2). triangles : int32 (M, 3), counter-clockwise.
    """

    def __init__(self, mesh: ng.Mesh):
        corners = [(0, 0), (1, 0), (0, 1), (0.5, 0.5), (0, 0.5), (0.5, 0)]  # the last three: midpoints opposite to the first three
        rule = ng.IntegrationRule(points=corners, weights=[0] * 6)
        self.points = mesh.MapToAllElements(rule, ng.VOL)
        places = ng.CF((ng.x, ng.y))(self.points)  # (6 M / 4, 2)
        _, first, node = np.unique(np.round(places[:, ::-1], 9), axis=0, return_index=True, return_inverse=True)
        self.first, self.coordinates = first, places[first]
        six = node.reshape(-1, 6)
        four = six[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2], [3, 4, 5]]].reshape(-1, 3)  # (M, 3)
        a, b, c = (self.coordinates[four[:, k]] for k in range(3))
        area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
        self.triangles = np.where(area[:, None] > 0, four, four[:, ::-1]).astype(np.int32)

    def sample(self, *functions: ng.CoefficientFunction) -> np.ndarray:
        """Values float64 (P, F) of functions at the nodes; a vector gives two fields."""
        return np.concatenate([function(self.points)[self.first] for function in functions], axis=1)


def steps_per_frame(frame: float, step: float) -> int:
    """The number of steps, at least one, that fill a frame's interval with steps no longer than `step`."""
    return max(1, math.ceil(frame / step - 1e-9))
