"""Makes a data set of flows, in parallel and resumable, or the built-in sample.

python final_project/simulate.py --flow cylinder --trajectories 48 --workers 2
python final_project/simulate.py --flow lock_exchange --shard 3/8       # rows 3, 11, 19, ... on one machine of eight ...
python final_project/simulate.py --flow lock_exchange --merge           # ... and the file from all of them
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import multiprocessing
import re
import shutil
import signal
import sys
from collections.abc import Generator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from common.cli import InputError, Interrupted, PathOrNone, Preset, data_folder, entry, parse
from common.run import progress, write_arrays
from final_project.data import Flow, load_flow, write_flow

NOTICE = "built-in sample: a few short coarse trajectories; make the real set with simulate.py"
BUILT_IN = {"smoke": 6, "default": 16}  # trajectories


@dataclasses.dataclass(frozen=True)
class Config:
    """Simulates flows for the final project."""

    flow: Literal["cylinder", "lock_exchange"] = "cylinder"
    trajectories: int = 48
    workers: int = 2
    """processes, each of one thread"""
    preset: Preset = "full"
    """full: the real data; default, smoke: the coarse and short ones of the built-in sample"""
    shard: str = "0/1"
    """i/n: only the trajectories i, i + n, i + 2n, ..., left in the folder of parts beside --out for --merge"""
    merge: bool = False
    """simulate nothing, join the parts"""
    resume: bool = False
    """keep the trajectories that are finished"""
    out: PathOrNone = None
    """.h5 or .npz (default: <flow>.h5 in the data folder)"""
    seed: int = 0
    """of the parameters; trajectory i depends on (seed, i) alone"""


def solver(flow: str) -> ModuleType:
    """The flow's module, loaded late: NGSolve takes a second that a cached sample need not wait for. Raises InputError."""
    if flow not in ("cylinder", "lock_exchange"):
        raise InputError(f"flow {flow}: allowed are cylinder, lock_exchange")
    return importlib.import_module(f"final_project.solver.{flow}")


def identity(config: Config) -> str:
    """What the bytes of trajectory i depend on, besides i, as JSON."""
    settings = dataclasses.asdict(solver(config.flow).PRESETS[config.preset])
    return json.dumps(
        {
            "flow": config.flow,
            "seed": config.seed,
            "settings": settings,
            "NGSolve": importlib.metadata.version("ngsolve"),
        }
    )


def part(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npz"


def work(config: Config, number: int, folder: Path) -> float | None:
    """Simulates one trajectory and writes its part; returns the time at which it diverged, if it did."""
    import ngsolve

    from final_project.solver.navier_stokes import Diverged

    ngsolve.SetNumThreads(1)
    module = solver(config.flow)
    parameters = module.draw_parameters(number + 1, config.seed)[number]
    arrays: dict[str, Any] = {"identity": np.array(identity(config)), "parameters": parameters}
    try:
        arrays |= dataclasses.asdict(module.simulate(parameters, module.PRESETS[config.preset]))
    except Diverged as error:
        arrays["diverged"] = error.time
    write_arrays(part(folder, number), **arrays)
    return arrays.get("diverged")


def read_part(folder: Path, number: int, wanted: str) -> dict[str, np.ndarray]:
    """Arrays of a finished trajectory. Raises InputError where the part is broken or of other settings."""
    path = part(folder, number)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        found = json.loads(str(arrays["identity"]))
    except Exception:  # (zipfile's and numpy's many ways to fail)
        raise InputError(f"{path} is not a readable part; remove it and use --resume") from None
    different = [key for key, value in json.loads(wanted).items() if found.get(key) != value]
    if different:
        raise InputError(
            f"{path} was made with another {', '.join(different)}; use the same options, another --out, or remove {folder}"
        )
    return arrays


def outcomes(
    config: Config, numbers: list[int], folder: Path
) -> Generator[tuple[int, float | None], None, None]:
    """(trajectory, time of divergence or None) as they finish."""
    workers = min(config.workers, len(numbers))
    if workers <= 1:
        yield from ((number, work(config, number, folder)) for number in numbers)
        return
    # a worker dies silently of the Ctrl-C that reaches the whole process group
    with ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        signal.signal,
        (signal.SIGINT, signal.SIG_DFL),
    ) as pool:
        futures = {pool.submit(work, config, number, folder): number for number in numbers}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenExecutor:
            raise InputError(
                "a worker was killed (out of memory?); what is finished is kept: --resume, with fewer --workers"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def merge(config: Config, out: Path, folder: Path, notice: str | None = None) -> Flow:
    """Joins the parts of all trajectories and writes the file. Raises InputError that names what is missing."""
    missing = [number for number in range(config.trajectories) if not part(folder, number).exists()]
    if missing:
        named = ", ".join(map(str, missing[:12])) + (", ..." if len(missing) > 12 else "")
        raise InputError(
            f"{folder} lacks {len(missing)} of {config.trajectories} trajectories ({named}); simulate them with --resume"
        )
    module, wanted = solver(config.flow), identity(config)
    parts = [read_part(folder, number, wanted) for number in range(config.trajectories)]
    good = [arrays for arrays in parts if "diverged" not in arrays]
    if not good:
        raise InputError(f"all {config.trajectories} trajectories diverged; nothing is written")
    parameters, known = (
        np.stack([arrays["parameters"] for arrays in good]),
        len(module.PARAMETER_NAMES),
    )
    provenance = json.loads(wanted) | {
        "generator": "final_project/simulate.py",
        "preset": config.preset,
        "about": module.simulate.__doc__,
        "diverged": {
            str(number): float(arrays["diverged"])
            for number, arrays in enumerate(parts)
            if "diverged" in arrays
        },
        "hidden_parameters": parameters[:, known:].tolist(),
        **({"notice": notice} if notice else {}),
    }
    flow = Flow(
        np.stack([arrays["fields"] for arrays in good]),
        parameters=parameters[:, :known],
        field_names=module.FIELD_NAMES,
        parameter_names=module.PARAMETER_NAMES,
        provenance=provenance,
        **{name: good[0][name] for name in ("coordinates", "triangles", "time")},
    )
    write_flow(out, flow)
    return flow


def main(config: Config, notice: str | None = None) -> Path | None:
    """Runs what the options ask for; returns the file, or None for a shard."""
    if config.trajectories < 1 or config.workers < 1:
        raise InputError(
            f"--trajectories {config.trajectories} --workers {config.workers}: at least one of each is needed"
        )
    match = re.fullmatch(r"(\d+)/(\d+)", config.shard)
    if not match or not int(match[1]) < int(match[2]):
        raise InputError(f"--shard {config.shard}: allowed is i/n with 0 <= i < n")
    out = config.out or data_folder() / f"{config.flow}.h5"
    if out.suffix not in (".h5", ".hdf5", ".npz"):
        raise InputError(f"--out {out}: allowed are .h5, .hdf5, .npz")
    folder = out.with_name(out.stem + ".parts")
    numbers = list(range(int(match[1]), config.trajectories, int(match[2])))
    left = [number for number in numbers if not part(folder, number).exists()]
    if not config.merge:
        if left != numbers and not config.resume:
            raise InputError(
                f"{folder} holds {len(numbers) - len(left)} of these trajectories; use --resume, or another --out"
            )
        for number in sorted(set(numbers) - set(left)):
            read_part(folder, number, identity(config))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--out {out} cannot be written ({error.strerror}); give a writable place"
            ) from None
        try:
            with contextlib.closing(outcomes(config, left, folder)) as results:
                for number, diverged in progress(results, f"simulating {config.flow}", len(left)):
                    if diverged is not None:
                        print(
                            f"trajectory {number} diverged at t = {diverged:.4g} and is left out",
                            file=sys.stderr,
                        )
        except KeyboardInterrupt:
            raise Interrupted(
                f"finished trajectories are kept in {folder}; the same command with --resume goes on"
            ) from None
        if int(match[2]) > 1:
            print(
                f"{len(numbers)} of {config.trajectories} trajectories in {folder}; join all shards with --merge"
            )
            return None
    flow = merge(config, out, folder, notice)
    print(
        f"{len(flow.fields)} trajectories of {flow.fields.shape[1]} frames on {flow.fields.shape[2]} nodes: {out}"
    )
    return out


def built_in(flow: Literal["cylinder", "lock_exchange"], preset: Preset, workers: int) -> Flow:
    """The sample of a preset (smoke: 6 trajectories, default: 16), simulated once and kept in the data folder. Raises InputError."""
    solver(flow)  # refuses an unknown flow
    if preset not in BUILT_IN:
        raise InputError(
            f"the built-in sample has no preset {preset}; allowed are {', '.join(BUILT_IN)}"
        )
    out = data_folder() / "built-in" / f"{flow}-{preset}.h5"
    if not out.exists():
        main(
            Config(
                flow=flow,
                trajectories=BUILT_IN[preset],
                workers=workers,
                preset=preset,
                out=out,
                resume=True,
            ),
            NOTICE,
        )
        shutil.rmtree(out.with_name(out.stem + ".parts"))
    return load_flow(out)


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
