"""Options of the programs that run the solvers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.cli import InputError, PathOrNone, Preset, check_ranges, data_folder
from common.shard import Shard

FlowName = Literal["cylinder", "lock_exchange"]
ENDINGS = (".h5", ".hdf5", ".npz")
USUAL: dict[FlowName, int] = {"cylinder": 96, "lock_exchange": 64}  # trajectories of a data set


@dataclass(frozen=True)
class SimulateConfig:
    """Simulates flows for the final project."""

    flow: FlowName = "cylinder"
    """which flow is simulated"""
    trajectories: int | None = None
    """number of trajectories in the data set (default: 96 of the cylinder, 64 of the lock
    exchange)"""
    workers: int = 2
    """number of processes, each of one thread"""
    preset: Preset = "full"
    """full: the real data; default, smoke: the coarse, short trajectories of the built-in sample"""
    shard: str = "0/1"
    """i/n: simulate only the trajectories i, i + n, i + 2n, ..., left in parts beside --out for
    --merge"""
    merge: bool = False
    """join the parts of all shards and simulate nothing"""
    resume: bool = False
    """keep the trajectories that an earlier, interrupted command finished"""
    out: PathOrNone = None
    """.h5 or .npz file (default: <flow>.h5 in the data folder)"""
    seed: int = 0
    """seed of the parameters; trajectory i depends on (seed, i) alone"""

    def __post_init__(self) -> None:
        check_ranges(self, {"trajectories": (1, math.inf), "workers": (1, math.inf)})
        Shard.of(self.shard)
        if self.file.suffix not in ENDINGS:
            raise InputError(f"--out {self.file}: allowed are {', '.join(ENDINGS)}")

    @property
    def count(self) -> int:
        """Number of trajectories in the data set."""
        return self.trajectories or USUAL[self.flow]

    @property
    def file(self) -> Path:
        """The file of the whole data set."""
        return self.out or data_folder() / f"{self.flow}.h5"

    @property
    def parts(self) -> Path:
        """The folder of finished trajectories."""
        return self.file.with_name(self.file.stem + ".parts")


@dataclass(frozen=True)
class ValidateConfig:
    """Measures the flow solvers against exact solutions and published values."""

    out: PathOrNone = None
    """JSON file (default: final_project/results/solver/metrics.json)"""
