"""Several processes on one training (`torchrun --nproc_per_node=N assignmentN/train.py`): who am I, and what the others do with a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.run import load_state


@dataclasses.dataclass(frozen=True)
class World:
    """This process's rank among `size` processes, and its place on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def join(cls, device: str) -> World:
        """Joins the processes that torchrun started (NCCL on GPUs, Gloo on CPUs); alone where there are none."""
        if "WORLD_SIZE" not in os.environ:
            return cls()
        import torch

        world = cls(
            int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
        )
        if device == "cuda":
            torch.cuda.set_device(world.local)
        torch.distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo", rank=world.rank, world_size=world.size
        )
        return world

    def share(self, batch: int, accumulate: int) -> list[slice]:
        """The rows of a batch that this process works on, a slice for each accumulated part. Raises InputError where they would be unequal."""
        if batch % (self.size * accumulate):
            raise InputError(
                f"--batch {batch} cannot be divided among {self.size} processes x {accumulate} accumulated parts; take a multiple"
            )
        step = batch // (self.size * accumulate)
        first = self.rank * accumulate
        return [
            slice((first + part) * step, (first + part + 1) * step) for part in range(accumulate)
        ]

    def wait(self) -> None:
        """Waits until every process is here: the first with its run folder open, so that none reads what --overwrite removes."""
        if self.size > 1:
            import torch

            torch.distributed.barrier()

    def leave(self) -> None:
        """Waits for the others and parts from them."""
        self.wait()
        if self.size > 1:
            import torch

            torch.distributed.destroy_process_group()


class Follower:
    """What a process that is not the first has in place of a Run: it reads checkpoints and writes nothing."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def log(self, *_: Any, **__: Any) -> None:
        """Nothing: the first process logs."""

    note = save = log

    def load(self, name: str) -> Any | None:
        """The last checkpoint of a part, or None."""
        path = self.folder / "checkpoints" / f"{name}.safetensors"
        return load_state(path)["state"] if path.exists() else None

    def memo(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of `work`, which is collective, or what an earlier process kept of it."""
        kept = self.load(f"done-{name}")
        return work() if kept is None else kept

    @contextlib.contextmanager
    def stoppable(self, _: Callable[[], None]) -> Iterator[Callable[[int, float], None]]:
        """A check that does nothing: the first process saves and stops, and torchrun ends the rest."""
        yield lambda step, loss: None
