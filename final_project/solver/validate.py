"""Measures both solvers against published figures: python -m final_project.solver.validate (about six minutes of one core)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import ngsolve as ng
import numpy as np
from ngsolve.meshes import MakeStructured2DMesh

from common.run import write_json
from final_project.solver import Trajectory, cylinder, lock_exchange
from final_project.solver.navier_stokes import NavierStokes

OUT = Path(__file__).resolve().parents[1] / "results" / "solver" / "metrics.json"
FINE = cylinder.Settings(maxh=0.05, cylinder_h=0.010, step=2.5e-4)  # the reference resolution
Row = dict[str, str | float | None]


def taylor_green(
    squares: int, order: int, step: float, end: float, viscosity: float = 0.05
) -> dict[str, float]:
    """L2 errors of velocity and pressure at time `end`, and kinetic energy over the exact one, on [0, pi]^2 with free slip."""
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
    return {
        "velocity": float(
            np.sqrt(ng.Integrate((flow.velocity - decay * exact) ** 2, mesh, order=12))
        ),
        "pressure": float(
            np.sqrt(ng.Integrate((flow.pressure - mean - pressure) ** 2, mesh, order=12))
        ),
        "energy": float(ng.Integrate(flow.velocity**2, mesh, order=12) / (np.pi**2 / 2 * decay**2)),
    }


def steady(settings: cylinder.Settings, end: float = 3.0) -> dict[str, float]:
    """DFG 2D-1, Re = 20: drag and lift coefficient, and pressure difference in the benchmark's units (mean velocity 0.2)."""
    channel = cylinder.Channel(settings, 20.0, kick=0.0)
    for _ in range(round(end / settings.step)):
        channel.solver.advance()
    drag, lift, difference = channel.coefficients()
    return {"drag": drag, "lift": lift, "pressure difference": difference * 0.2**2}


def shedding(
    settings: cylinder.Settings, spin_up: float = 3.0, record: float = 1.2
) -> dict[str, float]:
    """DFG 2D-2, Re = 100: Strouhal number, largest drag and lift coefficient, pressure difference half a period after the largest lift."""
    channel = cylinder.Channel(settings, 100.0)
    for _ in range(round(spin_up / settings.step)):
        channel.solver.advance()
    rows = []
    for _ in range(round(record / settings.step)):
        channel.solver.advance()
        rows.append((channel.solver.time, *channel.coefficients()))
    times, drag, lift, difference = np.array(rows).T
    up = np.flatnonzero((lift[:-1] < 0) & (lift[1:] >= 0))
    crossings = times[up] - lift[up] * settings.step / (lift[up + 1] - lift[up])
    period = float(np.diff(crossings).mean())
    top = up[0] + np.argmax(lift[up[0] : up[1]])
    middle = float(np.interp(times[top] + period / 2, times, difference))
    return {
        "Strouhal number": 2 * cylinder.RADIUS / period,
        "largest drag": float(drag.max()),
        "largest lift": float(lift.max()),
        "pressure difference": middle,
    }


def front_speed(trajectory: Trajectory, begin: float, end: float) -> float:
    """Mean speed of both fronts, alpha = 1/2 on the floor and under the lid, by a straight line through their positions."""
    x, y = trajectory.coordinates.T
    chosen = (trajectory.time >= begin) & (trajectory.time <= end)
    speeds = []
    for row in (y == y.min(), y == y.max()):  # alpha falls with x in both
        places = [
            np.interp(0.5, frame[::-1], x[row][::-1])
            for frame in trajectory.fields[chosen][:, row, 2]
        ]
        speeds.append(abs(np.polyfit(trajectory.time[chosen], places, 1)[0]))
    return float(np.mean(speeds))


def exchange_budget(
    settings: lock_exchange.Settings, grashof: float, end: float
) -> dict[str, float]:
    """Drift of alpha's integral relative to it, the least and largest alpha at a node, the largest growth of the energy in a time unit."""
    tank = lock_exchange.Tank(settings, grashof, 2.5)
    amount = ng.Integrate(tank.alpha, tank.mesh)
    energies, least, largest = [sum(tank.energy())], 1.0, 0.0
    for _ in range(round(end)):
        for _ in range(round(1 / settings.step)):
            tank.advance()
        values = tank.alpha(tank.lattice.points)
        least, largest = min(least, float(values.min())), max(largest, float(values.max()))
        energies.append(sum(tank.energy()))
    return {
        "relative drift of alpha": abs(ng.Integrate(tank.alpha, tank.mesh) / amount - 1),
        "least alpha": least,
        "largest alpha": largest,
        "largest growth of the energy": float(np.diff(energies).max()),
    }


def main() -> list[Row]:
    """Prints and writes rows {case, quantity, value, reference_low, reference_high, seconds}; seconds are of processor time."""
    ng.SetNumThreads(1)
    rows: list[Row] = []

    def add(
        case: str,
        values: dict[str, float],
        references: Mapping[str, tuple[float | None, float | None]],
        started: float,
    ) -> None:
        seconds = round(time.process_time() - started, 2)
        for quantity, value in values.items():
            low, high = references.get(quantity, (None, None))
            rows.append(
                {
                    "case": case,
                    "quantity": quantity,
                    "value": value,
                    "reference_low": low,
                    "reference_high": high,
                    "seconds": seconds,
                }
            )
            print(
                f"{case:42} {quantity:30} {value:12.6g}   reference {low} to {high}   {seconds} s",
                flush=True,
            )

    started = time.process_time()
    errors = [taylor_green(squares, 3, 2e-3, 0.1) for squares in (8, 16)]
    orders = {
        f"order in space, {name}": float(np.log2(errors[0][name] / errors[1][name]))
        for name in ("velocity", "pressure")
    }
    errors = [taylor_green(6, 6, step, 1.0) for step in (0.1, 0.05, 0.025)]
    orders["order in time, velocity"] = float(
        np.log2(errors[1]["velocity"] / errors[2]["velocity"])
    )
    orders["energy over the exact one"] = errors[-1]["energy"]
    add("Taylor-Green, k = 3", orders, {"energy over the exact one": (0.9999, 1.0001)}, started)

    data, dfg1, dfg2 = cylinder.PRESETS["full"], (5.57, 5.59), (3.22, 3.24)
    for name, settings in (("data resolution", data), ("reference resolution", FINE)):
        started = time.process_time()
        add(
            f"DFG 2D-1, {name}",
            steady(settings),
            {"drag": dfg1, "lift": (0.0104, 0.0110), "pressure difference": (0.1172, 0.1176)},
            started,
        )
        started = time.process_time()
        references = {
            "Strouhal number": (0.295, 0.305),
            "largest drag": dfg2,
            "largest lift": (0.99, 1.01),
            "pressure difference": (2.46, 2.50),
        }
        add(f"DFG 2D-2, {name}", shedding(settings), references, started)

    started = time.process_time()
    trajectory = lock_exchange.simulate(np.array([1e6, 2.5]), lock_exchange.PRESETS["full"])
    add(
        "lock exchange, Gr 1e6, data resolution",
        {"front's Froude number": front_speed(trajectory, 2.0, 4.5)},
        {"front's Froude number": (0.45, 0.48)},
        started,
    )
    started = time.process_time()
    limits = {
        "relative drift of alpha": (0.0, 1e-10),
        "least alpha": (-1e-4, None),
        "largest alpha": (None, 1 + 1e-4),
        "largest growth of the energy": (None, 0.0),
    }
    add(
        "lock exchange, Gr 2e6, data resolution",
        exchange_budget(lock_exchange.PRESETS["full"], 2e6, 10.0),
        limits,
        started,
    )

    for module in (cylinder, lock_exchange):
        started = time.process_time()
        module.simulate(module.draw_parameters(1, 0)[0], module.PRESETS["full"])
        add(
            f"one trajectory, {module.__name__.split('.')[-1]}",
            {"processor seconds": time.process_time() - started},
            {"processor seconds": (None, 60.0)},
            started,
        )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT, rows)
    return rows


if __name__ == "__main__":
    main()
