"""A Vision Transformer that denoises (Peebles & Xie 2023, "DiT").

Patches -> blocks of attention -> patches.
Shape letters: B batch, C channels, S side of an image, P side of a patch, T = (S / P)^2 tokens,
D width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from assignment5.config import Conditioning, Ends

FREQUENCIES = 16  # the example's sinusoid has 32 numbers: a sine and a cosine of each
MAX_FREQUENCY = 1000.0


def noise_embedding(variance: Tensor) -> Tensor:
    """Sines and cosines (B, 32) of the noise variance float (B,), as in Keras' DDIM example.

    Its 16 frequencies run from 1 to 1000.
    """
    last = torch.log10(torch.tensor(MAX_FREQUENCY))
    frequencies = torch.logspace(0, last, FREQUENCIES, device=variance.device)
    angles = 2 * torch.pi * variance.float()[:, None] * frequencies  # (B, 16)
    return torch.cat([angles.sin(), angles.cos()], dim=1)  # (B, 32)


def positions(grid: int, width: int) -> Tensor:
    """Fixed sine-cosine codes (T, D) of the rows and columns of a grid of T = grid^2 tokens."""
    quarter = -(-width // 4)
    rates = 10000.0 ** (-torch.arange(quarter) / quarter)
    angles = torch.arange(grid)[:, None] * rates  # (grid, quarter)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, 2 quarter)
    rows = line[:, None].expand(-1, grid, -1)
    columns = line[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)[:, :width]  # (T, D)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v over (B, H, T, d): torch's fused kernel where it is the fastest.

    On a CPU the fused kernel's backward pass in bfloat16 takes ten times as long as two batched
    products on few tokens, and twice as long as itself in float32 on many (torch 2.13, d = 16).
    """
    if q.device.type == "cuda" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v)
    if q.shape[2] > 128:
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)
    weights = torch.softmax(q * q.shape[3] ** -0.5 @ k.transpose(2, 3), dim=3)  # (B, H, T, T)
    return weights @ v


class Block(nn.Module):
    """Pre-norm attention and feed-forward, joined to their input by residual connections.

    adaptive : adaLN-Zero, where the condition sets shift, scale and gate of both branches.
    skip : the block also takes the tokens of a long skip.
    """

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
        qkv = rearrange(self.qkv(x), "b t (three h d) -> three b h t d", three=3, h=self.heads)
        mixed = attention(*qkv)  # (B, H, T, D / H)
        return self.projection(rearrange(mixed, "b h t d -> b t (h d)"))

    def feed(self, x: Tensor) -> Tensor:
        """Two affine maps with a GELU between them.

        The GELU is exact: its tanh form is three times as slow in bfloat16 on a CPU.
        """
        return self.down(F.gelu(self.up(x)))

    def forward(self, x: Tensor, condition: Tensor | None, skipped: Tensor | None) -> Tensor:
        """Tokens (B, T, D), condition (B, D) of adaLN, tokens of a long skip -> (B, T, D)."""
        if self.merge is not None and skipped is not None:
            x = self.merge(torch.cat([x, skipped], dim=2))
        if self.modulation is None:
            x = x + self.attend(self.norm1(x))
            return x + self.feed(self.norm2(x))
        parts = self.modulation(condition)[:, None].chunk(6, dim=2)  # each (B, 1, D)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        seen = torch.addcmul(shift1, self.norm1(x), 1 + scale1)
        x = torch.addcmul(x, gate1, self.attend(seen))
        seen = torch.addcmul(shift2, self.norm2(x), 1 + scale2)
        return torch.addcmul(x, gate2, self.feed(seen))


class DiT(nn.Module):
    """Transformer denoiser of images (B, 3, S, S) with noise variances (B,).

    Its prediction (B, 3, S, S) is zero before training.

    conditioning : "adaln" (adaLN-Zero) | "token" (the noise variance is one more token, as in
        U-ViT).
    skips : long skips from the first half of the blocks to the second (Bao et al. 2023, U-ViT).
    ends : "linear" patches as in DiT, or "convolution": 3 x 3 convolutions before and after,
        joined by a skip at full size.

    The heads must divide the width, and the patches the side (config.validate).
    """

    positions: Tensor

    def __init__(
        self,
        side: int = 32,
        patch: int = 4,
        width: int = 192,
        depth: int = 8,
        heads: int = 12,
        conditioning: Conditioning = "adaln",
        skips: bool = False,
        ends: Ends = "linear",
        channels: int = 3,
        stem: int = 32,
    ):
        super().__init__()
        self.patch = patch
        self.adaptive = conditioning == "adaln"
        convolution = ends == "convolution"
        inner = stem if convolution else channels

        # patches and noise level -> tokens and condition
        self.stem = nn.Conv2d(channels, stem, 3, padding=1) if convolution else None
        self.embed = nn.Linear(inner * patch**2, width)
        self.register_buffer("positions", positions(side // patch, width), persistent=False)
        self.noise = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, width),
            nn.SiLU(),
            nn.Linear(width, width),
        )

        # blocks, of which the second half may take long skips
        first_joined = (depth + 1) // 2
        self.blocks = nn.ModuleList(
            Block(width, heads, self.adaptive, skips and number >= first_joined)
            for number in range(depth)
        )

        # tokens -> patches
        self.norm = nn.LayerNorm(width, elementwise_affine=not self.adaptive)
        self.modulation = nn.Linear(width, 2 * width) if self.adaptive else None
        self.head = nn.Linear(width, inner * patch**2)
        last: nn.Linear | nn.Conv2d = self.head
        self.tail: nn.Sequential | None = None
        if convolution:
            first = nn.Conv2d(2 * stem, stem, 3, padding=1)
            last = nn.Conv2d(stem, channels, 3, padding=1)
            self.tail = nn.Sequential(first, nn.SiLU(), last)
        self._initialise(last)

    def _initialise(self, last: nn.Linear | nn.Conv2d) -> None:
        """Xavier's weights, no biases, and zero where adaLN-Zero and the output begin at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if module.weight.any():  # not the zeros of adaLN
                    nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)

    def forward(self, images: Tensor, variance: Tensor) -> Tensor:
        """Predicts from noisy images float (B, 3, S, S) and their noise variances float (B,)."""
        # images -> tokens
        full = images if self.stem is None else self.stem(images)  # (B, C, S, S)
        patches = rearrange(
            full, "b c (r p) (s q) -> b (r s) (p q c)", p=self.patch, q=self.patch
        )  # (B, T, P P C)
        x = self.embed(patches) + self.positions  # (B, T, D)

        # noise level -> condition, or one more token
        condition = self.noise(noise_embedding(variance))  # (B, D)
        if not self.adaptive:
            x = torch.cat([condition[:, None].to(x.dtype), x], dim=1)  # (B, 1 + T, D)
        condition = F.silu(condition)

        # blocks: the first half leaves its tokens for the second to take, last in first out
        left: list[Tensor] = []
        for block in self.blocks:
            x = block(x, condition, left.pop() if block.merge is not None else None)
            if block.merge is None and len(left) < len(self.blocks) // 2:
                left.append(x)

        # tokens -> images
        x = self.norm(x)
        if self.modulation is None:
            x = x[:, 1:]  # (B, T, D)
        else:
            shift, scale = self.modulation(condition)[:, None].chunk(2, dim=2)
            x = torch.addcmul(shift, x, 1 + scale)
        grid = images.shape[-1] // self.patch
        out = rearrange(
            self.head(x), "b (r s) (p q c) -> b c (r p) (s q)", r=grid, p=self.patch, q=self.patch
        )  # (B, C, S, S)
        if self.tail is None:
            return out
        return self.tail(torch.cat([out, full], dim=1))
