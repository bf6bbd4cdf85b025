"""Transolver: attention among learned slices of a mesh's nodes.

Wu, Luo, Wang, Wang and Long (ICML 2024, arXiv 2402.02366). A node belongs to every slice by a
weight; slices are averages of nodes and attend to each other, and nodes read them back by the same
weights. The cost is linear in the number of nodes, whose order does not matter.

Shape letters: B batch, P nodes, W width, H heads, d = W / H, G slices per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from final_project.baselines.networks import zero

TEMPERATURE = 0.5  # of the slice weights before training
LEAST_MASS = 1e-6  # of a slice that no node belongs to


class PhysicsAttention(nn.Module):
    """Attention among the slices of nodes (B, P, W), read back by the nodes (equations 1 to 4)."""

    def __init__(self, width: int, heads: int, slices: int):
        super().__init__()
        size = width // heads
        self.heads = heads
        self.place = nn.Linear(width, width)  # what a node's weights are a function of
        self.state = nn.Linear(width, width)  # what slices are averages of
        self.slice = nn.Linear(size, slices)
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), TEMPERATURE))
        self.qkv = nn.Linear(size, 3 * size, bias=False)
        self.out = nn.Linear(width, width)
        nn.init.orthogonal_(self.slice.weight)

    def by_head(self, x: Tensor) -> Tensor:
        """(B, P, W) -> (B, H, P, d)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def weights(self, x: Tensor) -> Tensor:
        """Shares (B, H, P, G) of each node of x (B, P, W) in the slices; over G they sum to 1."""
        scores = self.slice(self.by_head(self.place(x)))
        return (scores / self.temperature).softmax(3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, W) -> (B, P, W)."""
        weights = self.weights(x)  # (B, H, P, G)
        mass = weights.sum(2)[..., None].clamp(min=LEAST_MASS)  # (B, H, G, 1)
        slices = weights.transpose(2, 3) @ self.by_head(self.state(x)) / mass  # (B, H, G, d)

        q, k, v = self.qkv(slices).chunk(3, dim=3)
        read = weights @ F.scaled_dot_product_attention(q, k, v)  # (B, H, P, d)
        return self.out(read.transpose(1, 2).flatten(2))


class SliceBlock(nn.Module):
    """Physics attention and an MLP, each behind a norm and around a residual (equation 5)."""

    def __init__(self, width: int, heads: int, slices: int, ratio: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = PhysicsAttention(width, heads, slices)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, W) -> (B, P, W)."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transolver(nn.Module):
    """Transolver: (B, inputs, P) -> (B, outputs, P), zero before training.

    0.16 M parameters by default; `nodes`, which the others of its kind need, sets no size.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        nodes: int,
        width: int = 64,
        layers: int = 5,
        heads: int = 4,
        slices: int = 32,
        ratio: int = 2,
    ):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.blocks = nn.ModuleList(SliceBlock(width, heads, slices, ratio) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(width), zero(nn.Linear(width, outputs)))

    def forward(self, x: Tensor) -> Tensor:
        """As the class."""
        h = self.stem(x.transpose(1, 2))  # (B, P, W)
        for block in self.blocks:
            h = block(h)
        return self.head(h).transpose(1, 2)  # (B, outputs, P)
