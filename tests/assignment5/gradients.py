"""Writes the gradients of the first step of TINY: torchrun gradients.py FILE, or in one process."""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from assignment5 import data
from assignment5.conversion import to_float
from assignment5.data import Draws
from assignment5.denoiser import build
from assignment5.memory import backward_in_parts
from common.files import StateDict
from common.world import World
from tests.assignment5.helpers import TINY, tiny_parts


def gradients(world: World) -> StateDict:
    """Gradients of every weight, computed by this process and its peers in two parts each."""
    torch.manual_seed(0)
    model = build(TINY.denoiser("Transformer"))
    learner: nn.Module = model
    if world.size > 1:
        learner = nn.parallel.DistributedDataParallel(model)
    pixels = torch.from_numpy(tiny_parts().train)

    def objective(draws: Draws) -> Tensor:
        images = to_float(pixels[draws.rows])
        return learner(images, draws.noises, draws.times, "mse").mean() / 2

    draws = data.draw(TINY, 0, len(pixels), "cpu")
    backward_in_parts(learner, objective, draws, world.share(TINY.batch, 2))
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


if __name__ == "__main__":
    this = World.join("cpu")
    result = gradients(this)
    if this.rank == 0:
        save_file(result, sys.argv[1])
    this.leave()
