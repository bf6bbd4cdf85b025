"""Muon: steps along the nearest semi-orthogonal matrix of the momentum.

torch.optim.Muon computes in bfloat16, which most processors emulate: a step on 128 x 512 matrices
took 25 times as long there. Here matrices of one shape are orthogonalised together, in float32 on a
processor. Shape letters: K matrices of one shape, m rows, n columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration (Jordan et al. 2024)
ITERATIONS = 5
MOMENTUM = 0.95
SIZE = 0.2  # root mean square of AdamW's steps, which those of Muon share (Liu et al. 2025)
FLOOR = 1e-7  # of a matrix's norm


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for matrices (m, n) alone.

    Its steps are as large as AdamW's (Liu et al. 2025, section 2.2). Raises ValueError for
    parameters of other dimensions.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim != 2:
                    raise ValueError(f"a parameter of shape {tuple(weight.shape)} is no matrix")

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for weights in alike.values():
                self._descend(weights, group["lr"], group["weight_decay"])
        return loss

    def _descend(self, weights: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        """One step of weights (m, n) of one shape."""
        directions = []
        for weight in weights:
            assert weight.grad is not None
            state = self.state[weight]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            average = state["momentum_buffer"].lerp_(weight.grad, 1 - MOMENTUM)
            directions.append(weight.grad.lerp(average, MOMENTUM))
        turned = orthogonalised(torch.stack(directions))  # (K, m, n)

        # a semi-orthogonal matrix has a root mean square of 1 / sqrt(max(m, n))
        size = SIZE * max(weights[0].shape) ** 0.5
        for weight, direction in zip(weights, turned, strict=True):
            weight.mul_(1 - lr * weight_decay)
            weight.add_(direction.to(weight.dtype), alpha=-lr * size)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (K, m, n) with their singular vectors, and singular values between 0.7 and 1.2.

    By five Newton-Schulz iterations; values far below the largest come out smaller. float32, on a
    GPU bfloat16.
    """
    first, second, third = COEFFICIENTS
    working = torch.bfloat16 if matrices.is_cuda else torch.float32
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(working)  # (K, m, n), m <= n
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=FLOOR)
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (K, m, m)
        polynomial = torch.baddbmm(gram, gram, gram, beta=second, alpha=third)
        x = torch.baddbmm(x, polynomial, x, beta=first)
    return x.mT if tall else x
