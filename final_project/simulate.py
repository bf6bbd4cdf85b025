"""Makes a data set of flows, in parallel and resumable, or the built-in sample.

    python final_project/simulate.py --flow cylinder --workers 2
    python final_project/simulate.py --flow lock_exchange --shard 3/8   # rows 3, 11, 19, ... here,
    python final_project/simulate.py --flow lock_exchange --merge       # and the file from all

A trajectory of the real data takes under a minute of one core. Finished ones are parts in a folder
beside the file; --resume continues from them.
"""

from __future__ import annotations

from common.cli import read_options
from final_project.simulate_config import FlowName, SimulateConfig

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(SimulateConfig)

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, cast, get_args

import numpy as np

from common.cli import InputError, Interrupted, Preset, data_folder, entry
from common.files import JsonObject, write_arrays
from common.run import progress
from common.shard import Shard
from final_project.data import Flow, load_flow, write_flow
from final_project.solver import DRAWS, Trajectory

if TYPE_CHECKING:
    from final_project.solver import cylinder, lock_exchange

Settings: TypeAlias = "cylinder.Settings | lock_exchange.Settings"
NOTICE = "built-in sample: a few short coarse trajectories; make the real set with simulate.py"
ATTEMPTS = 4  # of a trajectory, each with half the time step of the one before that diverged
BUILT_IN = {"smoke": 6, "default": 16}  # trajectories per preset


class Simulate(Protocol):
    """A flow's function from a row of parameters and its settings to a trajectory."""

    def __call__(self, parameters: np.ndarray, settings: Settings) -> Trajectory: ...


class Solver(Protocol):
    """What a flow's module defines."""

    ABOUT: str
    FIELD_NAMES: tuple[str, ...]
    PARAMETER_NAMES: tuple[str, ...]
    PRESETS: dict[str, Settings]
    simulate: Simulate

    def draw_parameters(self, count: int, seed: int) -> np.ndarray: ...


def solver(flow: str) -> Solver:
    """The flow's module, imported late: NGSolve takes a second that a cached sample does not need.

    Raises InputError for an unknown flow.
    """
    if flow not in get_args(FlowName):
        raise InputError(f"flow {flow}: allowed are {', '.join(get_args(FlowName))}")
    return cast(Solver, importlib.import_module(f"final_project.solver.{flow}"))


# ---------------------------------------------------------------------------- one trajectory


def identity(config: SimulateConfig) -> JsonObject:
    """What the bytes of trajectory i depend on, besides i."""
    settings = solver(config.flow).PRESETS[config.preset]
    return {
        "flow": config.flow,
        "seed": config.seed,
        "draws": DRAWS,
        "settings": dataclasses.asdict(settings),
        "NGSolve": importlib.metadata.version("ngsolve"),
    }


def part(folder: Path, number: int) -> Path:
    """The file of a finished trajectory."""
    return folder / f"{number:05d}.npz"


def work(config: SimulateConfig, number: int) -> float | None:
    """Simulates one trajectory and writes its part; returns the time at which it diverged, if any.

    One that diverges is simulated again at shorter time steps. Runs in a process of its own.
    """
    import ngsolve

    from final_project.solver.navier_stokes import Diverged, with_shorter_steps

    ngsolve.SetNumThreads(1)
    module = solver(config.flow)
    parameters = module.draw_parameters(number + 1, config.seed)[number]
    arrays: dict[str, np.ndarray] = {
        "identity": np.array(json.dumps(identity(config))),
        "parameters": parameters,
    }
    settings = module.PRESETS[config.preset]

    def by(step: float) -> Trajectory:
        return module.simulate(parameters, dataclasses.replace(settings, step=step))

    time = None
    try:
        trajectory, step = with_shorter_steps(by, settings.step, ATTEMPTS)
    except Diverged as error:
        time = error.time
        arrays["diverged"] = np.array(time)
    else:
        arrays |= dataclasses.asdict(trajectory) | {"step": np.array(step)}
    write_arrays(part(config.parts, number), **arrays)
    return time


def read_part(config: SimulateConfig, number: int) -> dict[str, np.ndarray]:
    """Arrays of a finished trajectory.

    Raises InputError where the part cannot be read or belongs to other options.
    """
    path = part(config.parts, number)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        origin = json.loads(str(arrays["identity"]))
    except Exception:  # zipfile and numpy fail in many ways
        raise InputError(f"{path} is not a readable part; remove it and use --resume") from None
    different = [key for key, value in identity(config).items() if origin.get(key) != value]
    if different:
        raise InputError(
            f"{path} was made with another {', '.join(different)}; "
            f"use the same options, another --out, or remove {config.parts}"
        )
    return arrays


# --------------------------------------------------------------------------- all trajectories


class Outcome(NamedTuple):
    """A trajectory that is finished, and when it diverged, if it did."""

    number: int
    diverged: float | None


def outcomes(config: SimulateConfig, numbers: Sequence[int]) -> Generator[Outcome, None, None]:
    """Simulates trajectories, and yields them as they finish. Raises InputError."""
    workers = min(config.workers, len(numbers))
    if workers <= 1:
        for number in numbers:
            yield Outcome(number, work(config, number))
        return

    # a worker dies silently of the Ctrl-C that reaches the whole process group
    pool = ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_DFL),
    )
    with pool:
        futures = {pool.submit(work, config, number): number for number in numbers}
        try:
            for future in as_completed(futures):
                yield Outcome(futures[future], future.result())
        except BrokenExecutor:
            raise InputError(
                "a worker was killed (out of memory?); finished trajectories are stored: "
                "use --resume with fewer --workers"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def simulate_parts(config: SimulateConfig) -> int:
    """Simulates the missing trajectories of this shard; returns how many the shard has.

    Raises InputError where parts exist without --resume, and Interrupted.
    """
    numbers = Shard.of(config.shard).share(range(config.count))
    missing = [number for number in numbers if not part(config.parts, number).exists()]
    finished = sorted(set(numbers) - set(missing))
    if finished and not config.resume:
        raise InputError(
            f"{config.parts} holds {len(finished)} of these trajectories; "
            "use --resume, or another --out"
        )
    for number in finished:
        read_part(config, number)

    try:
        config.parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {config.file} cannot be written ({error.strerror}); "
            "give a file in a writable folder"
        ) from None
    try:
        with contextlib.closing(outcomes(config, missing)) as results:
            for outcome in progress(results, f"simulating {config.flow}", len(missing)):
                report(outcome)
    except KeyboardInterrupt:
        raise Interrupted(
            f"finished trajectories are stored in {config.parts}; "
            "the same command with --resume continues"
        ) from None
    return len(numbers)


def report(outcome: Outcome) -> None:
    """Says on stderr that a trajectory diverged."""
    if outcome.diverged is not None:
        print(
            f"trajectory {outcome.number} diverged at t = {outcome.diverged:.4g} and is left out",
            file=sys.stderr,
        )


def merge(config: SimulateConfig, notice: str | None = None) -> Flow:
    """Joins the parts of all trajectories and writes the file.

    `notice` marks a built-in sample. Raises InputError that names what is missing.
    """
    everything = range(config.count)
    missing = [number for number in everything if not part(config.parts, number).exists()]
    if missing:
        named = ", ".join(map(str, missing[:12]))
        if len(missing) > 12:
            named += ", ..."
        raise InputError(
            f"{config.parts} lacks {len(missing)} of {config.count} trajectories "
            f"({named}); simulate them with --resume"
        )

    longest = solver(config.flow).PRESETS[config.preset].step
    good = []
    diverged = {}
    halved = []
    for number in everything:
        arrays = read_part(config, number)
        if "diverged" in arrays:
            diverged[str(number)] = float(arrays["diverged"])
            continue
        good.append(arrays)
        if arrays.get("step", longest) < longest:
            halved.append(number)
    if not good:
        raise InputError(f"all {config.count} trajectories diverged; nothing is written")

    # the last parameters, such as a random phase, are no inputs of a model:
    module = solver(config.flow)
    parameters = np.stack([arrays["parameters"] for arrays in good])
    known = len(module.PARAMETER_NAMES)
    provenance = identity(config) | {
        "generator": "final_project/simulate.py",
        "preset": config.preset,
        "about": module.ABOUT,
        "diverged": diverged,
        "half_step": halved,
        "hidden_parameters": parameters[:, known:].tolist(),
    }
    if notice:
        provenance["notice"] = notice
    flow = Flow(
        fields=np.stack([arrays["fields"] for arrays in good]),
        coordinates=good[0]["coordinates"],
        parameters=parameters[:, :known],
        time=good[0]["time"],
        field_names=module.FIELD_NAMES,
        parameter_names=module.PARAMETER_NAMES,
        triangles=good[0]["triangles"],
        provenance=provenance,
    )
    write_flow(config.file, flow)
    return flow


def main(config: SimulateConfig, notice: str | None = None) -> Path | None:
    """Runs what the options ask for; returns the file, or None for a shard."""
    if not config.merge:
        count = simulate_parts(config)
        if not Shard.of(config.shard).is_whole:
            print(
                f"{count} of {config.count} trajectories in {config.parts}; "
                "join all shards with --merge"
            )
            return None
    flow = merge(config, notice)
    trajectories, frames, nodes, _ = flow.fields.shape
    print(f"{trajectories} trajectories of {frames} frames on {nodes} nodes: {config.file}")
    return config.file


def built_in(flow: FlowName, preset: Preset, workers: int) -> Flow:
    """The sample of a preset, simulated once and stored in the data folder. Raises InputError."""
    solver(flow)  # refuses an unknown flow
    if preset not in BUILT_IN:
        allowed = ", ".join(BUILT_IN)
        raise InputError(f"the built-in sample has no preset {preset}; allowed are {allowed}")
    config = SimulateConfig(
        flow=flow,
        trajectories=BUILT_IN[preset],
        workers=workers,
        preset=preset,
        out=data_folder() / "built-in" / f"{flow}-{preset}.h5",
        resume=True,
    )
    if not config.file.exists():
        main(config, NOTICE)
        shutil.rmtree(config.parts)
    return load_flow(config.file)


if __name__ == "__main__":
    entry(main, OPTIONS)
