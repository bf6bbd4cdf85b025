"""Measures both solvers against exact solutions and published values.

    python -m final_project.solver.validate     # about ten minutes of one core

Prints every value beside its reference and writes final_project/results/solver/metrics.json: rows
{case, quantity, value, reference_low, reference_high, seconds}, seconds of processor time.
"""

from __future__ import annotations

from common.cli import read_options
from final_project.simulate_config import ValidateConfig

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(ValidateConfig)

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import netgen.occ as occ
import ngsolve as ng
import numpy as np
from ngsolve.meshes import MakeStructured2DMesh

from common.cli import entry
from common.files import write_json
from final_project.solver import Trajectory, cylinder, lock_exchange
from final_project.solver.navier_stokes import NavierStokes

OUT = Path(__file__).resolve().parents[1] / "results" / "solver" / "metrics.json"

FULL = cylinder.PRESETS["full"]
FINE = cylinder.Settings(maxh=0.05, cylinder_h=0.010, step=2.5e-4)  # the reference resolution
RESOLUTIONS = {"data resolution": FULL, "reference resolution": FINE}

Range = tuple[float | None, float | None]  # of published values, or of what is allowed
TAYLOR_GREEN: dict[str, Range] = {"energy over the exact one": (0.9999, 1.0001)}
DFG_1: dict[str, Range] = {  # Schaefer & Turek 1996, case 2D-1
    "drag": (5.57, 5.59),
    "lift": (0.0104, 0.0110),
    "pressure difference": (0.1172, 0.1176),
}
DFG_2: dict[str, Range] = {  # case 2D-2
    "Strouhal number": (0.295, 0.305),
    "largest drag": (3.22, 3.24),
    "largest lift": (0.99, 1.01),
    "pressure difference": (2.46, 2.50),
}
STREAM = (60.0, 100.0, 150.0, 200.0)  # Reynolds numbers of the wake in an open stream
FRONT: dict[str, Range] = {"front's Froude number": (0.45, 0.48)}
BUDGET: dict[str, Range] = {
    "relative drift of alpha": (0.0, 1e-10),
    "least alpha": (-1e-4, None),
    "largest alpha": (None, 1 + 1e-4),
    "largest growth of the energy": (None, 0.0),
}
COST: dict[str, Range] = {"processor seconds": (None, 60.0)}


@dataclass(frozen=True)
class Measured:
    """One measured value with the range of its reference; seconds of processor time of its case."""

    case: str
    quantity: str
    value: float
    reference_low: float | None
    reference_high: float | None
    seconds: float


# --------------------------------------------------------------------------------- measurements


def taylor_green(
    squares: int, order: int, step: float, end: float, viscosity: float = 0.05
) -> dict[str, float]:
    """Errors of the Taylor-Green vortex at time `end` on [0, pi]^2 with free slip.

    L2 errors of velocity and pressure, and the kinetic energy over the exact one, of
    u = (sin x cos y, -cos x sin y) exp(-2 nu t), p = (cos 2x + cos 2y) exp(-4 nu t) / 4.
    """
    mesh = MakeStructured2DMesh(
        quads=False, nx=squares, ny=squares, mapping=lambda x, y: (np.pi * x, np.pi * y)
    )
    flow = NavierStokes(mesh, order, viscosity, step, fixed_x="left|right", fixed_y="bottom|top")
    exact = ng.CF((ng.sin(ng.x) * ng.cos(ng.y), -ng.cos(ng.x) * ng.sin(ng.y)))
    flow.start(exact)
    for _ in range(round(end / step)):
        flow.advance()

    decay = np.exp(-2 * viscosity * end)
    pressure = (ng.cos(2 * ng.x) + ng.cos(2 * ng.y)) / 4 * decay**2  # zero mean
    mean = ng.Integrate(flow.pressure, mesh) / np.pi**2
    velocity_error = ng.Integrate((flow.velocity - decay * exact) ** 2, mesh, order=12)
    pressure_error = ng.Integrate((flow.pressure - mean - pressure) ** 2, mesh, order=12)
    energy = ng.Integrate(flow.velocity**2, mesh, order=12)
    return {
        "velocity": float(np.sqrt(velocity_error)),
        "pressure": float(np.sqrt(pressure_error)),
        "energy": float(energy / (np.pi**2 / 2 * decay**2)),
    }


def convergence() -> dict[str, float]:
    """Orders of convergence in space and time, and the energy of the finest Taylor-Green vortex."""
    coarse, fine = (taylor_green(squares, 3, 2e-3, 0.1) for squares in (8, 16))
    values = {}
    for name in ("velocity", "pressure"):
        values[f"order in space, {name}"] = float(np.log2(coarse[name] / fine[name]))

    _, coarse, fine = (taylor_green(6, 6, step, 1.0) for step in (0.1, 0.05, 0.025))
    values["order in time, velocity"] = float(np.log2(coarse["velocity"] / fine["velocity"]))
    values["energy over the exact one"] = fine["energy"]
    return values


def steady(settings: cylinder.Settings, end: float = 3.0) -> dict[str, float]:
    """DFG 2D-1, Re = 20: drag and lift coefficient, pressure difference.

    The latter in the benchmark's units, whose mean velocity is 0.2.
    """
    channel = cylinder.Channel(settings, 20.0, kick=0.0)
    for _ in range(round(end / settings.step)):
        channel.solver.advance()
    drag, lift, difference = channel.coefficients()
    return {"drag": drag, "lift": lift, "pressure difference": difference * 0.2**2}


def shedding(
    settings: cylinder.Settings,
    reynolds: float = 100.0,
    spin_up: float = 3.0,
    record: float = 1.2,
) -> dict[str, float]:
    """Strouhal number, largest drag and lift, pressure difference: DFG 2D-2 at Re = 100.

    The latter half a period after the largest lift.
    """
    channel = cylinder.Channel(settings, reynolds)
    for _ in range(round(spin_up / settings.step)):
        channel.solver.advance()
    samples = []
    for _ in range(round(record / settings.step)):
        channel.solver.advance()
        samples.append((channel.solver.time, *channel.coefficients()))
    times, drag, lift, difference = np.array(samples).T

    crossings, up = rises(times, lift)
    period = float(np.diff(crossings).mean())
    top = up[0] + np.argmax(lift[up[0] : up[1]])
    middle = float(np.interp(times[top] + period / 2, times, difference))
    return {
        "Strouhal number": 2 * cylinder.RADIUS / period,
        "largest drag": float(drag.max()),
        "largest lift": float(lift.max()),
        "pressure difference": middle,
    }


def rises(times: np.ndarray, lift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When a signal (T,) rises through zero, and the numbers of the samples before."""
    up = np.flatnonzero((lift[:-1] < 0) & (lift[1:] >= 0))
    step = times[up + 1] - times[up]
    return times[up] - lift[up] * step / (lift[up + 1] - lift[up]), up


def williamson(reynolds: float) -> float:
    """Strouhal number of parallel shedding in an open stream, 49 < Re < 178 (Williamson 1988)."""
    return -3.3265 / reynolds + 0.1816 + 1.6e-4 * reynolds


def open_stream_mesh(height: float) -> ng.Mesh:
    """Curved triangles about a cylinder of diameter 1 in a stream `height` wide, fine in the wake.

    The edges on the cylinder are as long, over its diameter, as those of the data.
    """
    stream = occ.WorkPlane().MoveTo(-30, -height / 2).Rectangle(58, height).Face()
    stream.edges.name = "side"
    stream.edges.Min(occ.X).name = "inlet"
    stream.edges.Max(occ.X).name = "outlet"
    wake = occ.WorkPlane().MoveTo(-1.5, -2).Rectangle(12, 4).Face()
    wake.faces.maxh = 0.6
    disc = occ.WorkPlane().Circle(0, 0, 0.5).Face()
    disc.edges.name = "cylinder"
    disc.edges.maxh = FULL.cylinder_h / (2 * cylinder.RADIUS)
    shape = occ.Glue([stream - wake, wake - disc])
    mesh = ng.Mesh(occ.OCCGeometry(shape, dim=2).GenerateMesh(maxh=8, grading=0.2))
    mesh.Curve(FULL.order)
    return mesh


def open_stream(
    reynolds: float, spin_up: float = 80.0, record: float = 24.0, height: float = 80.0
) -> dict[str, float]:
    """Strouhal number and largest lift coefficient of a cylinder in a uniform stream.

    With free slip on the sides, `height` diameters apart; times in diameters over stream speed.
    Neither mesh nor step was fitted to these values.
    """
    mesh = open_stream_mesh(height)
    step = 0.015
    flow = NavierStokes(
        mesh, FULL.order, 1 / reynolds, step, fixed="inlet|cylinder", fixed_y="side"
    )
    kick = ng.exp(-((ng.x - 2) ** 2 + ng.y**2))
    flow.start(ng.CF((1, kick)), walls="cylinder")
    across = ng.GridFunction(flow.space)
    across.components[0].Set(ng.CF((0, 1)), definedon=mesh.Boundaries("cylinder"))
    for _ in range(round(spin_up / step)):
        flow.advance()
    samples = []
    for _ in range(round(record / step)):
        flow.advance()
        samples.append((flow.time, 2 * flow.reaction(across)))
    times, lift = np.array(samples).T
    crossings, _ = rises(times, lift)
    return {
        "Strouhal number": 1 / float(np.diff(crossings).mean()),
        "largest lift": float(lift.max()),
    }


def front_speed(trajectory: Trajectory, begin: float, end: float) -> float:
    """Mean speed of both fronts, alpha = 1/2 on the floor and under the lid.

    By a straight line through their positions between the times `begin` and `end`.
    """
    x, y = trajectory.coordinates.T
    chosen = (trajectory.time >= begin) & (trajectory.time <= end)
    speeds = []
    for row in (y == y.min(), y == y.max()):
        alpha = trajectory.fields[chosen][:, row, 2]  # (T, nodes), falls with x
        fronts = [np.interp(0.5, frame[::-1], x[row][::-1]) for frame in alpha]
        slope, _ = np.polyfit(trajectory.time[chosen], fronts, 1)
        speeds.append(abs(slope))
    return float(np.mean(speeds))


def exchange_budget(
    settings: lock_exchange.Settings, grashof: float, end: float
) -> dict[str, float]:
    """Conservation of a lock exchange until time `end`.

    Relative drift of alpha's integral, least and largest alpha at a node, and the largest growth of
    the energy in a time unit.
    """
    tank = lock_exchange.Tank(settings, grashof, 2.5)
    amount = ng.Integrate(tank.alpha, tank.mesh)
    energies = [sum(tank.energy())]
    least = 1.0
    largest = 0.0
    for _ in range(round(end)):
        for _ in range(round(1 / settings.step)):
            tank.advance()
        values = tank.alpha(tank.lattice.points)
        least = min(least, float(values.min()))
        largest = max(largest, float(values.max()))
        energies.append(sum(tank.energy()))
    return {
        "relative drift of alpha": abs(ng.Integrate(tank.alpha, tank.mesh) / amount - 1),
        "least alpha": least,
        "largest alpha": largest,
        "largest growth of the energy": float(np.diff(energies).max()),
    }


def front_number() -> dict[str, float]:
    """The front's Froude number at Gr = 1e6."""
    settings = lock_exchange.PRESETS["full"]
    trajectory = lock_exchange.simulate(np.array([1e6, 2.5]), settings)
    return {"front's Froude number": front_speed(trajectory, 2.0, 4.5)}


def cost(flow: str) -> dict[str, float]:
    """Processor seconds of one trajectory of the real data."""
    started = time.process_time()
    if flow == "cylinder":
        cylinder.simulate(cylinder.draw_parameters(1, 0)[0], cylinder.PRESETS["full"])
    else:
        settings = lock_exchange.PRESETS["full"]
        lock_exchange.simulate(lock_exchange.draw_parameters(1, 0)[0], settings)
    return {"processor seconds": time.process_time() - started}


# ----------------------------------------------------------------------------------------- main


def compared(
    case: str, values: Mapping[str, float], references: Mapping[str, Range], started: float
) -> list[Measured]:
    """The values of a case beside their references, printed; `started` in processor time."""
    seconds = round(time.process_time() - started, 2)
    rows = []
    for quantity, value in values.items():
        low, high = references.get(quantity, (None, None))
        rows.append(Measured(case, quantity, value, low, high, seconds))
        measured = f"{case:42} {quantity:30} {value:12.6g}"
        print(f"{measured}   reference {low} to {high}   {seconds} s", flush=True)
    return rows


def strouhal_numbers() -> list[Measured]:
    """Strouhal numbers in an open stream beside Williamson's law, and in the channel of the data.

    The channel, 4.1 diameters high, has no published values but at Re = 100: between its walls the
    fluid passes the cylinder faster than the mean inflow with which both numbers are made.
    """
    rows = []
    for reynolds in STREAM:
        law = williamson(reynolds)
        allowed = {"Strouhal number": (0.98 * law, 1.02 * law)}
        started = time.process_time()
        rows += compared(f"open stream, Re {reynolds:g}", open_stream(reynolds), allowed, started)
        started = time.process_time()
        confined = shedding(FULL, reynolds)
        found = {"Strouhal number": confined["Strouhal number"]}
        case = f"channel, Re {reynolds:g}, data resolution"
        rows += compared(case, found, DFG_2 if reynolds == 100 else {}, started)
    return rows


def main(config: ValidateConfig) -> list[Measured]:
    """Measures, prints and writes everything."""
    ng.SetNumThreads(1)
    started = time.process_time()
    rows = compared("Taylor-Green, k = 3", convergence(), TAYLOR_GREEN, started)

    for name, settings in RESOLUTIONS.items():
        started = time.process_time()
        rows += compared(f"DFG 2D-1, {name}", steady(settings), DFG_1, started)
        started = time.process_time()
        rows += compared(f"DFG 2D-2, {name}", shedding(settings), DFG_2, started)

    rows += strouhal_numbers()

    started = time.process_time()
    rows += compared("lock exchange, Gr 1e6, data resolution", front_number(), FRONT, started)
    started = time.process_time()
    budget = exchange_budget(lock_exchange.PRESETS["full"], 2e6, 10.0)
    rows += compared("lock exchange, Gr 2e6, data resolution", budget, BUDGET, started)

    for flow in ("cylinder", "lock_exchange"):
        started = time.process_time()
        rows += compared(f"one trajectory, {flow}", cost(flow), COST, started)

    out = config.out or OUT
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, [asdict(row) for row in rows])
    return rows


if __name__ == "__main__":
    entry(main, OPTIONS)
