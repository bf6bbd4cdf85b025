"""Several processes on one training: `torchrun --nproc_per_node=N assignmentN/train.py`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from common.cli import InputError


@dataclass(frozen=True)
class World:
    """This process's rank among `size` processes, and its number on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def join(cls, device: str) -> World:
        """Joins the processes that torchrun started (NCCL on GPUs, Gloo on CPUs), if any."""
        if "WORLD_SIZE" not in os.environ:
            return ALONE
        import torch

        rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        world = cls(rank, size, local)
        if device == "cuda":
            torch.cuda.set_device(world.local)
        backend = "nccl" if device == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, rank=world.rank, world_size=world.size)
        return world

    def share(self, batch: int, accumulate: int) -> list[slice]:
        """The rows of a batch that this process works on, one slice per accumulated part.

        Raises InputError where the shares would be unequal.
        """
        parts = self.size * accumulate
        if batch % parts:
            problem = f"among {self.size} processes x {accumulate} accumulated parts"
            raise InputError(f"--batch {batch} cannot be divided {problem}; take a multiple")
        rows = batch // parts
        starts = range(self.rank * accumulate * rows, (self.rank + 1) * accumulate * rows, rows)
        return [slice(start, start + rows) for start in starts]

    def wait(self) -> None:
        """Waits until every process is here."""
        if self.size > 1:
            import torch

            torch.distributed.barrier()

    def leave(self) -> None:
        """Waits for the others and leaves them."""
        self.wait()
        if self.size > 1:
            import torch

            torch.distributed.destroy_process_group()


ALONE = World()
