"""The state of a training that is under way, as its run stores it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from assignment5.diffusion import Diffusion
from common.files import tensors
from common.run import Run

NAMES = ("optimiser", "muon")  # of the optimisers' states: AdamW's, and Muon's where it is used


class Checkpoint:
    """Network, averaged network and optimisers of a training, with its steps and seconds so far."""

    def __init__(
        self,
        run: Run,
        name: str,
        model: Diffusion,
        average: Diffusion,
        optimisers: Sequence[torch.optim.Optimizer],
    ):
        self.run = run
        self.name = name
        self.model = model
        self.average = average
        self.optimisers = dict(zip(NAMES, optimisers, strict=False))
        self.step = 0  # steps done
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training, over all processes that have worked on it."""
        return time.perf_counter() - self._started

    def load(self) -> None:
        """Takes up the state that the run has stored, if there is one."""
        stored = self.run.load(self.name)
        if stored is None:
            return
        self.step = stored["step"]
        self._started -= stored["seconds"]
        self.model.load_state_dict(tensors(stored["model"]))
        self.average.load_state_dict(tensors(stored["averaged"]))
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(tensors(stored[name]))

    def save(self) -> None:
        """Stores the state in the run."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "averaged": self.average.state_dict(),
            **{name: each.state_dict() for name, each in self.optimisers.items()},
        }
        self.run.save(self.name, state)
