"""Times the final project: a training step at the published sizes against the published block written plainly, rollouts with and without the
cache of keys and values, their growth with length, and one simulated trajectory at the data's resolution."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from common.run import git_state, peak_mb, versions, write_json
from common.weights import parameters
from final_project.attention import rotary, rotate
from final_project.rollout import rollout, teacher_forcing
from final_project.temporal import Temporal
from final_project.temporal_config import TemporalConfig

RESULT = Path(__file__).resolve().parent / "results" / "sea.json"
WIDTH, HEADS, FRAMES, BATCH = 1024, 8, 399, 2


class PlainNorm(nn.Module):
    """AdaLN whose conditioner is run at every time step, as the published code does with its tiled parameters."""

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.conditioner = nn.Sequential(
            nn.Linear(1, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width)
        )

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """x (B, T, D), theta (B, T, 1)."""
        scale, shift = self.conditioner(theta).chunk(2, dim=2)
        return F.layer_norm(x, x.shape[-1:]) * (self.weight + 1 + scale) + self.bias + shift


class PlainAttention(nn.Module):
    """Causal attention with rotary positions and a mask of its own."""

    def __init__(self, width: int):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(B, T, D) of x reading `source`."""
        q, k, v = (
            rearrange(each, "b t (h d) -> b h t d", h=HEADS)
            for each in (self.q(x), self.k(source), self.v(source))
        )
        turn = rotary(torch.arange(x.shape[1]), q.shape[3])
        scores = rotate(q, turn) @ rotate(k, turn).transpose(2, 3) / q.shape[3] ** 0.5
        scores = scores.masked_fill(
            torch.ones(scores.shape[2:], dtype=torch.bool).triu(1), -torch.inf
        )
        return self.out(rearrange(scores.softmax(3) @ v, "b h t d -> b t (h d)"))


class PlainSEA(nn.Module):
    """The published cylinder block from its description: two streams, exchange one after the other, TIPI, MLP of ratio 8, projection, norm."""

    def __init__(self) -> None:
        super().__init__()

        def two(make: Callable[[], nn.Module]) -> nn.ModuleList:
            return nn.ModuleList(make() for _ in range(2))

        def mlp() -> nn.Module:
            return nn.Sequential(
                nn.Linear(WIDTH, 8 * WIDTH),
                nn.LayerNorm(8 * WIDTH),
                nn.GELU(),
                nn.Linear(8 * WIDTH, WIDTH),
                nn.Dropout(0.1),
            )

        low = WIDTH // 2
        self.norm1, self.norm2, self.last = (two(lambda: PlainNorm(WIDTH)) for _ in range(3))
        self.attention, self.cross, self.norm_low = (
            two(lambda: PlainAttention(WIDTH)),
            two(lambda: PlainAttention(low)),
            two(lambda: PlainNorm(low)),
        )
        self.down, self.up = two(lambda: nn.Linear(WIDTH, low)), two(lambda: nn.Linear(low, WIDTH))
        self.mlp, self.projection = two(mlp), two(lambda: nn.Linear(WIDTH, WIDTH))
        self.tipi = nn.Sequential(nn.Linear(1, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, WIDTH))

    def forward(self, z: Tensor, theta: Tensor) -> Tensor:
        """z (B, T, 2, D), theta (B, T, 1) -> the next z."""
        h = list(z.unbind(2))
        for i in range(2):
            normed = self.norm1[i](h[i], theta)
            h[i] = h[i] + self.attention[i](normed, normed)
        for i in range(2):
            mine, other = (self.norm_low[j](self.down[j](h[j]), theta) for j in (i, 1 - i))
            h[i] = h[i] + self.up[i](F.gelu(self.cross[i](mine, other)))
        told = self.tipi(theta)
        for i in range(2):
            h[i] = h[i] + told
            h[i] = self.projection[i](h[i] + self.mlp[i](self.norm2[i](h[i], theta)))
        return torch.stack([self.last[i](h[i], theta) for i in range(2)], 2)


def best(*calls: Callable[[], Any], rounds: int = 3) -> list[float]:
    """Least seconds of each call, in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for number, call in enumerate(calls):
            start = time.perf_counter()
            call()
            times[number].append(time.perf_counter() - start)
    return [min(found) for found in times]


def stepping(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One training step."""
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.0)

    def step() -> None:
        loss().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def rows_of(
    width: int = WIDTH, frames: int = FRAMES, simulated: bool = True
) -> list[dict[str, Any]]:
    """Every row of the table."""
    torch.manual_seed(0)
    z, theta = torch.randn(BATCH, frames + 1, 2, width), torch.rand(BATCH, 1)
    published, plain = Temporal(TemporalConfig.published(), 2, width, 1), PlainSEA()
    tiled = theta[:, None].expand(-1, frames, -1)
    ours, other = best(
        stepping(published, lambda: teacher_forcing(published, z, theta)),
        stepping(plain, lambda: F.mse_loss(plain(z[:, :-1], tiled), z[:, 1:])),
    )
    case = f"training step, published sizes, {BATCH} x {frames} frames ({parameters(published):,} weights; plain: {parameters(plain):,})"
    rows = [
        {
            "case": case,
            "ours_seconds": ours,
            "other": "the published block, written plainly",
            "other_seconds": other,
        }
    ]
    small = Temporal(TemporalConfig(width=128, window=64), 2, 512, 3)
    start, three = torch.randn(1, 2, 512), torch.rand(1, 3)
    cases = (
        ("published sizes", published, z[:1, 0], theta[:1]),
        ("ours", small, start, three),
        ("ours, 8 trajectories", small, start.repeat(8, 1, 1), three.repeat(8, 1)),
    )
    for name, model, first, told in cases:
        cached, whole = best(
            lambda m=model, f=first, t=told: rollout(m, f, t, 400),
            lambda m=model, f=first, t=told: rollout(m, f, t, 400, cached=False),
            rounds=1,
        )
        rows.append(
            {
                "case": f"rollout of 400 steps, {name}",
                "ours_seconds": cached,
                "other": "the prefix computed again at every step",
                "other_seconds": whole,
            }
        )
    lengths = best(
        *(lambda steps=steps: rollout(small, start, three, steps) for steps in (200, 400, 800))
    )
    rows.append(
        {
            "case": "rollout of 800 steps, ours",
            "ours_seconds": lengths[2],
            "other": "four rollouts of 200 (1.0: linear in length)",
            "other_seconds": 4 * lengths[0],
        }
    )
    if simulated:
        from final_project.solver import cylinder

        settings = cylinder.Settings()
        began = time.perf_counter()
        cylinder.simulate(np.array([100.0, 0.0, 0.05, 0.0]), settings)
        spent = time.perf_counter() - began
        rows.append(
            {
                "case": f"one cylinder trajectory at data resolution, {settings.frames} frames",
                "ours_seconds": spent,
                "other": "60 s allowed",
                "other_seconds": 60.0,
            }
        )
    return rows


def main() -> None:
    rows = rows_of()
    for row in rows:
        row |= {"ratio": round(row["ours_seconds"] / row["other_seconds"], 4), "peak_mb": peak_mb()}
        row |= {key: round(row[key], 4) for key in ("ours_seconds", "other_seconds")}
        print(" | ".join(f"{key} {value}" for key, value in row.items()))
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        **versions(),
    }
    write_json(RESULT, {"machine": machine, "commit": git_state()["commit"], "rows": rows})


if __name__ == "__main__":
    main()
