"""Causal attention over time with rotary positions and a cache of keys and values.

Shape letters: B batch, T new frames, S frames seen, D width, H heads, d numbers per head.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROTARY_BASE = 10000.0

Rotation = tuple[Tensor, Tensor]  # cosines and signed sines (T, d)


@dataclass
class Cache:
    """Rotated keys and values (B, H, S, d) of every attention, by its name, after `time` frames.

    `change` (B, 1, G, L) is what the model predicted last, where a later step needs it, `waiting`
    the frames (B, 1, G, L) that it has predicted beyond the next one.
    """

    time: int = 0
    past: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    change: Tensor | None = None
    waiting: list[Tensor] = field(default_factory=list)


@dataclass
class Context:
    """What all attentions share in one pass over T new frames."""

    rotations: dict[int, Rotation] = field(default_factory=dict)  # by head size d
    mask: Tensor | None = None  # bool (T, S); None where `causal` says it all
    causal: bool = False
    window: int | None = None  # frames that a query sees; None: all
    cache: Cache | None = None
    maps: dict[str, Tensor] | None = None  # filled with attention weights (B, H, T, S)


def rotary(positions: Tensor, size: int) -> Rotation:
    """Cosines and signed sines (T, d) of integer positions (T,) for heads of d = `size` numbers.

    Rotary position embedding (Su et al. 2021, arXiv 2104.09864, equation 34).
    """
    pairs = torch.arange(0, size, 2, device=positions.device, dtype=torch.float64)
    rates = ROTARY_BASE ** (-pairs / size)
    angles = positions.double()[:, None] * rates  # (T, d / 2)
    cos = angles.cos().float()
    sin = angles.sin().float()
    return torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)


@functools.lru_cache(maxsize=16)
def rotary_table(length: int, size: int, device: torch.device) -> Rotation:
    """`rotary` of the positions 0 to length - 1: a rollout asks for one position per step."""
    with torch.inference_mode(False):
        return rotary(torch.arange(length, device=device), size)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotates the pairs (i, i + d / 2) of x (B, H, T, d) by their position.

    Products of two rotated vectors then depend on the difference of their positions alone.
    """
    cos, sin = rotation
    return torch.addcmul(x * cos, x.roll(x.shape[3] // 2, 3), sin).to(x.dtype)


def visible(time: int, new: int, seen: int, window: int | None, device: torch.device) -> Tensor:
    """bool (T, S): which of the last S frames each of T new ones may read, `time` being past."""
    query = torch.arange(time, time + new, device=device)[:, None]
    key = torch.arange(time + new - seen, time + new, device=device)
    mask = key <= query
    return mask if window is None else mask & (key > query - window)


class MultiHead(nn.Module):
    """Projections of multi-head attention; what is read by whom is up to its kinds."""

    name: str  # in the model: under it, keys and values are cached and maps are stored

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width, bias=False)

    @property
    def head_size(self) -> int:
        """Numbers per head, d."""
        return self.q.out_features // self.heads

    def project(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of x, keys and values of `source`, both (B, T, D): (B, H, T, d) each."""
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, T, d)
        kv = self.kv(source).unflatten(2, (2, self.heads, -1))  # (B, T, 2, H, d)
        k, v = kv.permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
        return q, k, v


class Attention(MultiHead):
    """Causal multi-head attention: queries from one sequence, keys and values from any sequence.

    dropout : of the attention weights, in training alone.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__(width, heads)
        self.dropout = dropout

    def forward(self, x: Tensor, source: Tensor, context: Context) -> Tensor:
        """What T new frames of x (B, T, D) read in new and cached frames of `source` (B, T, D)."""
        q, k, v = self.project(x, source)
        rotation = context.rotations[self.head_size]
        q = rotate(q, rotation)
        k = rotate(k, rotation)
        if context.cache is not None:
            k, v = self._with_past(k, v, context.cache, context.window)  # (B, H, S, d) each
        if context.maps is not None:
            context.maps[self.name] = self._weights(q, k, context.window)

        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=context.mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=context.causal,
        )
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, D)

    def _with_past(
        self, k: Tensor, v: Tensor, cache: Cache, window: int | None
    ) -> tuple[Tensor, Tensor]:
        """Cached and new keys and values; the cache then holds those that a later frame can see."""
        if self.name in cache.past:
            past_k, past_v = cache.past[self.name]
            k = torch.cat([past_k, k], dim=2)  # (B, H, S, d)
            v = torch.cat([past_v, v], dim=2)  # (B, H, S, d)
        first = 0 if window is None else max(0, k.shape[2] - window + 1)
        cache.past[self.name] = k[:, :, first:], v[:, :, first:]
        return k, v

    def _weights(self, q: Tensor, k: Tensor, window: int | None) -> Tensor:
        """Attention weights (B, H, T, S) of a pass without a cache."""
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        hidden = ~visible(0, q.shape[2], k.shape[2], window, q.device)
        return scores.masked_fill(hidden, -torch.inf).softmax(3)
