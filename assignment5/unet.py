"""The residual U-Net of Keras' DDIM example (Béres 2022), re-implemented as the baseline.

Shape letters: B batch, C channels, S side of an image, W width of a level.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assignment5.dit import FREQUENCIES, noise_embedding
from common.cli import InputError


class Residual(nn.Module):
    """Normalisation without scale or shift, two 3 x 3 convolutions with a swish between them, and the input added."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.match = nn.Conv2d(inputs, width, 1) if inputs != width else nn.Identity()
        self.norm = nn.BatchNorm2d(inputs, eps=1e-3, momentum=0.01, affine=False)  # Keras' defaults
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, S, S) -> (B, W, S, S)."""
        return self.match(x) + self.second(F.silu(self.first(self.norm(x))))


class UNet(nn.Module):
    """U-Net denoiser: noisy images (B, 3, S, S) and noise variances (B,) -> a prediction (B, 3, S, S), zero before training.

    The noise embedding stands beside the image at every pixel; every residual block of the way down has its skip on the way up.
    Raises InputError where the side cannot be halved as often as there are levels below the first.
    """

    def __init__(
        self,
        side: int = 32,
        widths: tuple[int, ...] = (32, 64, 96, 128),
        depth: int = 2,
        channels: int = 3,
    ):
        super().__init__()
        if side % 2 ** (len(widths) - 1):
            raise InputError(
                f"--side {side}: the U-Net halves it {len(widths) - 1} times; take a multiple of {2 ** (len(widths) - 1)}"
            )
        self.stem = nn.Conv2d(channels, widths[0], 1)
        now = widths[0] + 2 * FREQUENCIES
        skips: list[int] = []

        def level(width: int, joined: bool) -> nn.ModuleList:
            nonlocal now
            blocks = nn.ModuleList()
            for _ in range(depth):
                blocks.append(Residual(now + (skips.pop() if joined else 0), width))
                now = width
            return blocks

        self.down: Any = nn.ModuleList()  # of ModuleLists, which torch's stubs cannot say
        for width in widths[:-1]:
            self.down.append(level(width, False))
            skips += [width] * depth
        self.middle = level(widths[-1], False)
        self.up: Any = nn.ModuleList(level(width, True) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(now, channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor, variance: Tensor) -> Tensor:
        """Predicts from noisy images float (B, 3, S, S) and the share of noise in their variance, float (B,)."""
        embedding = noise_embedding(variance)[:, :, None, None].expand(
            -1, -1, *images.shape[2:]
        )  # (B, 32, S, S)
        x = torch.cat([self.stem(images), embedding.to(images.dtype)], dim=1)
        kept: list[Tensor] = []
        for blocks in self.down:
            for block in blocks:
                x = block(x)
                kept.append(x)
            x = F.avg_pool2d(x, 2)
        for block in self.middle:
            x = block(x)
        for blocks in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            for block in blocks:
                x = block(torch.cat([x, kept.pop()], dim=1))
        return self.head(x)
