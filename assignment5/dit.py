"""A Vision Transformer that denoises: patches -> blocks of attention -> patches (Peebles & Xie 2023, "DiT").

Shape letters: B batch, C channels, S side of an image, P side of a patch, T = (S / P)^2 tokens, D width, H heads.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from common.cli import InputError

FREQUENCIES = 16  # the example's sinusoid has 32 numbers: a sine and a cosine of each
MAX_FREQUENCY = 1000.0


def noise_embedding(variance: Tensor) -> Tensor:
    """Sines and cosines of the noise variance float (B,) at 16 frequencies from 1 to 1000 -> (B, 32), as in Keras' DDIM example."""
    frequencies = torch.logspace(
        0, torch.log10(torch.tensor(MAX_FREQUENCY)), FREQUENCIES, device=variance.device
    )
    angles = 2 * torch.pi * variance.float()[:, None] * frequencies  # (B, 16)
    return torch.cat([angles.sin(), angles.cos()], dim=1)  # (B, 32)


def positions(grid: int, width: int) -> Tensor:
    """Fixed sine-cosine codes of the rows and columns of a grid -> (grid * grid, width)."""
    quarter = -(-width // 4)
    rates = 10000.0 ** (-torch.arange(quarter) / quarter)
    angles = torch.arange(grid)[:, None] * rates  # (grid, quarter)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, 2 quarter)
    rows, columns = line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)[:, :width]  # (T, D)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v over (B, H, T, d): torch's fused kernel where it is the fastest.

    On a CPU the fused kernel's backward pass in bfloat16 takes ten times as long as two batched products on few tokens, and twice
    as long as itself in float32 on many (torch 2.13, d = 16).
    """
    if q.device.type == "cuda" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v)
    if q.shape[2] > 128:
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)
    weights = torch.softmax(q * q.shape[3] ** -0.5 @ k.transpose(2, 3), dim=3)  # (B, H, T, T)
    return weights @ v


class Block(nn.Module):
    """Pre-norm attention and feed-forward; with adaLN-Zero the condition sets shift, scale and gate of both branches."""

    def __init__(self, width: int, heads: int, adaptive: bool, skip: bool):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=not adaptive)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=not adaptive)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width) if adaptive else None
        self.merge = nn.Linear(2 * width, width) if skip else None
        if self.modulation is not None:  # every block begins as the identity
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention over tokens (B, T, D)."""
        q, k, v = rearrange(
            self.qkv(x), "b t (three h d) -> three b h t d", three=3, h=self.heads
        )  # (B, H, T, D / H)
        mixed = attention(q, k, v)
        return self.projection(rearrange(mixed, "b h t d -> b t (h d)"))

    def feed(self, x: Tensor) -> Tensor:
        """Two affine maps with a GELU between them (exact: its tanh form is three times as slow in bfloat16 on a CPU)."""
        return self.down(F.gelu(self.up(x)))

    def forward(self, x: Tensor, condition: Tensor | None, skipped: Tensor | None) -> Tensor:
        """Tokens (B, T, D), the activated condition (B, D) of adaLN or None, the tokens of a long skip or None -> (B, T, D)."""
        if self.merge is not None and skipped is not None:
            x = self.merge(torch.cat([x, skipped], dim=2))
        if self.modulation is None:
            x = x + self.attend(self.norm1(x))
            return x + self.feed(self.norm2(x))
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(
            6, dim=2
        )  # each (B, 1, D)
        x = torch.addcmul(x, gate1, self.attend(torch.addcmul(shift1, self.norm1(x), 1 + scale1)))
        return torch.addcmul(x, gate2, self.feed(torch.addcmul(shift2, self.norm2(x), 1 + scale2)))


class DiT(nn.Module):
    """Transformer denoiser: noisy images (B, 3, S, S) and noise variances (B,) -> a prediction (B, 3, S, S), zero before training.

    conditioning : "adaln" (adaLN-Zero) | "token" (the noise variance is one more token, as in U-ViT).
    skips : long skips from the first half of the blocks to the second (Bao et al. 2023, U-ViT).
    ends : "linear" patches as in DiT, or "convolution": 3 x 3 convolutions before and after, joined by a skip at full size.

    Raises InputError where heads do not divide the width or patches the side.
    """

    positions: Tensor

    def __init__(
        self,
        side: int = 32,
        patch: int = 4,
        width: int = 192,
        depth: int = 8,
        heads: int = 12,
        conditioning: Literal["adaln", "token"] = "adaln",
        skips: bool = False,
        ends: Literal["linear", "convolution"] = "linear",
        channels: int = 3,
        stem: int = 32,
    ):
        super().__init__()
        if width % heads:
            raise InputError(
                f"--width {width} is not divisible by the {heads} heads; take a multiple of {heads}"
            )
        if side % patch:
            raise InputError(
                f"--side {side} is not divisible by --patch {patch}; allowed are the divisors of the side"
            )
        self.patch, self.adaptive = patch, conditioning == "adaln"
        convolution = ends == "convolution"
        inner = stem if convolution else channels
        self.stem = nn.Conv2d(channels, stem, 3, padding=1) if convolution else None
        self.embed = nn.Linear(inner * patch**2, width)
        self.register_buffer("positions", positions(side // patch, width), persistent=False)
        self.noise = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(
            Block(width, heads, self.adaptive, skips and number >= (depth + 1) // 2)
            for number in range(depth)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=not self.adaptive)
        self.modulation = nn.Linear(width, 2 * width) if self.adaptive else None
        self.head = nn.Linear(width, inner * patch**2)
        self.tail = (
            nn.Sequential(
                nn.Conv2d(2 * stem, stem, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(stem, channels, 3, padding=1),
            )
            if convolution
            else None
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if module.weight.any():  # not the zeros of adaLN
                    nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
        last: Any = self.head if self.tail is None else self.tail[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, images: Tensor, variance: Tensor) -> Tensor:
        """Predicts from noisy images float (B, 3, S, S) and the share of noise in their variance, float (B,)."""
        grid = images.shape[-1] // self.patch
        full = images if self.stem is None else self.stem(images)
        patches = rearrange(
            full, "b c (r p) (s q) -> b (r s) (p q c)", p=self.patch, q=self.patch
        )  # (B, T, P P C)
        x = self.embed(patches) + self.positions  # (B, T, D)
        condition = self.noise(noise_embedding(variance))  # (B, D)
        if not self.adaptive:
            x = torch.cat([condition[:, None].to(x.dtype), x], dim=1)  # (B, 1 + T, D)
        condition = F.silu(condition)
        kept: list[Tensor] = []
        for block in self.blocks:
            x = block(x, condition, kept.pop() if block.merge is not None else None)
            if len(kept) < len(self.blocks) // 2 and block.merge is None:
                kept.append(x)
        x = self.norm(x)
        if self.modulation is not None:
            shift, scale = self.modulation(condition)[:, None].chunk(2, dim=2)
            x = torch.addcmul(shift, x, 1 + scale)
        else:
            x = x[:, 1:]  # (B, T, D)
        out = rearrange(
            self.head(x), "b (r s) (p q c) -> b c (r p) (s q)", r=grid, p=self.patch, q=self.patch
        )  # (B, C, S, S)
        return out if self.tail is None else self.tail(torch.cat([out, full], dim=1))
