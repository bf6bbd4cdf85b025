"""Times the final project at the published sizes and at ours.

    python benchmarks/sea.py                   writes benchmarks/results/sea.json
    python benchmarks/sea.py --official SEA    also against the authors' code, a clone of
                                               github.com/ParsaEsmati/SEA in the folder SEA

A training step is compared with the published block written plainly and with the authors' own
class, a rollout with one that computes the whole prefix at every step, and a long rollout with
short ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from benchmarks.measure import RESULTS, Comparison, Work, seconds_in_turns, write
from common.weights import count_parameters
from final_project.attention import rotary, rotate
from final_project.rollout import rollout, teacher_forcing
from final_project.temporal import Temporal
from final_project.temporal_config import TemporalConfig

WIDTH, HEADS, FRAMES, BATCH, STREAMS = 1024, 8, 399, 2, 2
MLP_RATIO, TIPI_WIDTH, DROPOUT = 8, 8, 0.1
ALLOWED_SECONDS = 60.0  # for one simulated trajectory
LONGEST = 2024  # frames that the authors' model has masks and rotations for (their block_size)


# --------------------------------------------------------------- the published block, plainly


class PlainNorm(nn.Module):
    """AdaLN whose conditioner runs at every step, as in the published code."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.conditioner = nn.Sequential(
            nn.Linear(1, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width)
        )

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """x (B, T, D) at parameters theta (B, T, 1)."""
        scale, shift = self.conditioner(theta).chunk(2, dim=2)  # (B, T, D) each
        return F.layer_norm(x, x.shape[-1:]) * (self.weight + 1 + scale) + self.bias + shift


class PlainAttention(nn.Module):
    """Causal attention with rotary positions and a mask of its own."""

    def __init__(self, width: int):
        super().__init__()
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t (h d) -> b h t d", h=HEADS)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(B, T, D) of x reading `source` (B, T, D)."""
        q, k, v = self.heads(self.q(x)), self.heads(self.k(source)), self.heads(self.v(source))
        turn = rotary(torch.arange(x.shape[1]), q.shape[3])
        scores = rotate(q, turn) @ rotate(k, turn).transpose(2, 3) / q.shape[3] ** 0.5
        future = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)  # (T, T)
        scores = scores.masked_fill(future, -torch.inf)  # (B, H, T, T)
        return self.out(rearrange(scores.softmax(3) @ v, "b h t d -> b t (h d)"))


def two(make: Callable[[], nn.Module]) -> nn.ModuleList:
    """One module per stream."""
    return nn.ModuleList(make() for _ in range(STREAMS))


def plain_mlp() -> nn.Module:
    """The MLP of ratio 8."""
    wide = MLP_RATIO * WIDTH
    return nn.Sequential(
        nn.Linear(WIDTH, wide),
        nn.LayerNorm(wide),
        nn.GELU(),
        nn.Linear(wide, WIDTH),
        nn.Dropout(DROPOUT),
    )


class PlainSEA(nn.Module):
    """The published cylinder block from its description.

    Two streams, exchange one after the other, TIPI, MLP of ratio 8, projection, norm.
    """

    def __init__(self) -> None:
        super().__init__()
        low = WIDTH // 2
        self.norm1 = two(partial(PlainNorm, WIDTH))
        self.norm2 = two(partial(PlainNorm, WIDTH))
        self.last = two(partial(PlainNorm, WIDTH))
        self.attention = two(partial(PlainAttention, WIDTH))
        self.cross = two(partial(PlainAttention, low))
        self.norm_low = two(partial(PlainNorm, low))
        self.down = two(partial(nn.Linear, WIDTH, low))
        self.up = two(partial(nn.Linear, low, WIDTH))
        self.mlp = two(plain_mlp)
        self.projection = two(partial(nn.Linear, WIDTH, WIDTH))
        self.tipi = nn.Sequential(
            nn.Linear(1, TIPI_WIDTH),
            nn.LayerNorm(TIPI_WIDTH),
            nn.GELU(),
            nn.Linear(TIPI_WIDTH, WIDTH),
        )

    def low(self, i: int, h: list[Tensor], theta: Tensor) -> Tensor:
        """Stream i at half width, normalised."""
        return self.norm_low[i](self.down[i](h[i]), theta)

    def forward(self, z: Tensor, theta: Tensor) -> Tensor:
        """z (B, T, 2, D) at theta (B, T, 1) -> the next z."""
        h = list(z.unbind(2))  # 2 x (B, T, D)
        for i in range(STREAMS):
            normed = self.norm1[i](h[i], theta)
            h[i] = h[i] + self.attention[i](normed, normed)
        for i in range(STREAMS):
            mine, other = self.low(i, h, theta), self.low(1 - i, h, theta)
            h[i] = h[i] + self.up[i](F.gelu(self.cross[i](mine, other)))
        injected = self.tipi(theta)  # (B, T, D)
        for i in range(STREAMS):
            h[i] = h[i] + injected
            h[i] = self.projection[i](h[i] + self.mlp[i](self.norm2[i](h[i], theta)))
        return torch.stack([self.last[i](h[i], theta) for i in range(STREAMS)], 2)


# -------------------------------------------------------------------------------- comparisons


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Work:
    """One step of AdamW down a loss."""
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.0)

    def step() -> None:
        loss().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


@dataclasses.dataclass(frozen=True)
class Start:
    """A model and what its rollouts start from: latents (N, G, L) and parameters (N, K)."""

    name: str
    model: Temporal
    z: Tensor
    theta: Tensor

    def rollout(self, steps: int, cached: bool = True) -> Tensor:
        return rollout(self.model, self.z, self.theta, steps, cached=cached)


@dataclasses.dataclass(frozen=True)
class Batch:
    """What a training step reads: latents (B, T + 1, G, L) and parameters (B, 1)."""

    z: Tensor
    theta: Tensor

    @classmethod
    def draw(cls, width: int, frames: int) -> Batch:
        """Random numbers in the published shape."""
        return cls(torch.randn(BATCH, frames + 1, STREAMS, width), torch.rand(BATCH, 1))

    def compare(self, ours: Temporal, theirs: nn.Module, what: str, other: str) -> Comparison:
        """A training step of the published model, ours beside that of another class."""
        z = self.z
        frames = z.shape[1] - 1
        tiled = self.theta[:, None].expand(-1, frames, -1)  # (B, T, 1)
        seconds, other_seconds = seconds_in_turns(
            training_step(ours, lambda: teacher_forcing(ours, z, self.theta)),
            training_step(theirs, lambda: F.mse_loss(theirs(z[:, :-1], tiled), z[:, 1:])),
            rounds=3,
            pick=min,
        )
        weights = f"{count_parameters(ours):,} weights; other: {count_parameters(theirs):,}"
        case = f"training step, {what}, {len(z)} x {frames} frames ({weights})"
        return Comparison.of(case, seconds, other, other_seconds)


def compare_training(width: int, frames: int) -> tuple[Comparison, Start]:
    """A training step at the published sizes, and that model's start for rollouts."""
    batch = Batch.draw(width, frames)
    published = Temporal(TemporalConfig.published(), STREAMS, width, 1)
    other = "the published block, written plainly"
    row = batch.compare(published, PlainSEA(), "published sizes", other)
    return row, Start("published sizes", published, batch.z[:1, 0], batch.theta[:1])


def official_model(folder: Path, width: int) -> nn.Module:
    """The authors' temporal model with the options of their configs/cylinder_flow.py."""
    sys.path.insert(0, str(folder))
    official = importlib.import_module("models.temporal")
    return official.TemporalModel(
        num_layers=1,
        embed_dim=width,
        n_heads=HEADS,
        max_len=LONGEST,
        scale_ratio=MLP_RATIO,
        src_len=0,
        num_variables=STREAMS,
        dropout=DROPOUT,
        ib_scale_mode="mlp",
        ib_num=1,
    )


def compare_official(folder: Path, width: int, frames: int) -> Comparison:
    """A training step of the published model: ours beside the authors' own class."""
    ours = Temporal(TemporalConfig.published(all_dropouts=True), STREAMS, width, 1)
    theirs = official_model(folder, width)
    return Batch.draw(width, frames).compare(ours, theirs, "all dropouts", "the authors' code")


def compare_rollout(start: Start, steps: int = 400) -> Comparison:
    """A rollout with the cache of keys and values, and without."""
    cached, whole = seconds_in_turns(
        partial(start.rollout, steps), partial(start.rollout, steps, cached=False), rounds=1
    )
    other = "the prefix computed again at every step"
    return Comparison.of(f"rollout of {steps} steps, {start.name}", cached, other, whole)


def compare_lengths(start: Start) -> Comparison:
    """A long rollout with four short ones: 1.0 is linear in length."""
    short, _, long = seconds_in_turns(
        *(partial(start.rollout, steps) for steps in (200, 400, 800)), rounds=3, pick=min
    )
    other = "four rollouts of 200 (1.0: linear in length)"
    return Comparison.of(f"rollout of 800 steps, {start.name}", long, other, 4 * short)


def simulated_trajectory() -> Comparison:
    """One cylinder trajectory at the resolution of the data."""
    from final_project.solver import cylinder

    settings = cylinder.Settings()
    parameters = np.array([100.0, 0.0, 0.05, 0.0])
    (seconds,) = seconds_in_turns(lambda: cylinder.simulate(parameters, settings), rounds=1)
    case = f"one cylinder trajectory at data resolution, {settings.frames} frames"
    other = f"{ALLOWED_SECONDS:.0f} s allowed"
    return Comparison.of(case, seconds, other, ALLOWED_SECONDS)


def rows_of(
    width: int = WIDTH,
    frames: int = FRAMES,
    simulated: bool = True,
    official: Path | None = None,
) -> list[Comparison]:
    """Every row of the table; with `official`, a clone of the authors' code, one more."""
    torch.manual_seed(0)
    training, published = compare_training(width, frames)
    small = Temporal(TemporalConfig(width=128, window=64), STREAMS, 512, 3)
    ours = Start("ours", small, torch.randn(1, STREAMS, 512), torch.rand(1, 3))
    eight = Start("ours, 8 trajectories", small, ours.z.repeat(8, 1, 1), ours.theta.repeat(8, 1))
    rows = [training, *(compare_rollout(start) for start in (published, ours, eight))]
    rows.append(compare_lengths(ours))
    if official is not None:
        rows.insert(1, compare_official(official, width, frames))
    if simulated:
        rows.append(simulated_trajectory())
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, help="folder with a clone of the authors' code")
    official = parser.parse_args().official
    if official is not None and not (official / "models" / "temporal.py").is_file():
        parser.error(f"--official {official} holds no models/temporal.py; give a clone")
    write(RESULTS / "sea.json", rows_of(official=official))
