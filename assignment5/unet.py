"""The residual U-Net of Keras' DDIM example (Béres 2022), re-implemented as the baseline.

Shape letters: B batch, C channels, S side of an image, W width of a level.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assignment5.dit import FREQUENCIES, ClassEmbedding, noise_embedding


class Residual(nn.Module):
    """Normalisation without scale or shift, then two 3 x 3 convolutions with a swish between them.

    Their output is added to the input.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.match = nn.Conv2d(inputs, width, 1) if inputs != width else nn.Identity()
        self.norm = nn.BatchNorm2d(inputs, eps=1e-3, momentum=0.01, affine=False)  # Keras' defaults
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, S, S) -> (B, W, S, S)."""
        return self.match(x) + self.second(F.silu(self.first(self.norm(x))))


class Level(nn.ModuleList):
    """The residual blocks at one size of the images; `inputs` are the channels that each reads."""

    def __init__(self, inputs: Iterable[int], width: int):
        super().__init__(Residual(channels, width) for channels in inputs)

    def forward(self, x: Tensor, skips: Sequence[Tensor] = ()) -> list[Tensor]:
        """The output (B, W, S, S) of every block; a block reads its skip too, if there are any."""
        outputs: list[Tensor] = []
        for number, block in enumerate(self):
            if skips:
                x = torch.cat([x, skips[number]], dim=1)
            x = block(x)
            outputs.append(x)
        return outputs


class UNet(nn.Module):
    """U-Net denoiser of images (B, 3, S, S) with noise variances (B,).

    Its prediction (B, 3, S, S) is zero before training. The noise embedding stands beside the
    image at every pixel, with that of the class added where there are `classes`; every residual
    block of the way down has its skip on the way up.
    The side must be divisible by 2^(levels - 1) (config.validate).
    """

    def __init__(
        self,
        side: int = 32,
        widths: tuple[int, ...] = (32, 64, 96, 128),
        depth: int = 2,
        channels: int = 3,
        classes: int = 0,
    ):
        super().__init__()
        self.classes = ClassEmbedding(classes, 2 * FREQUENCIES) if classes else None
        self.stem = nn.Conv2d(channels, widths[0], 1)
        inputs = widths[0] + 2 * FREQUENCIES

        # down: `depth` blocks per level, each of which leaves a skip
        self.down = nn.ModuleList()
        for width in widths[:-1]:
            self.down.append(Level([inputs] + [width] * (depth - 1), width))
            inputs = width

        self.middle = Level([inputs] + [widths[-1]] * (depth - 1), widths[-1])
        inputs = widths[-1]

        # up: each block also reads a skip of its level
        self.up = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up.append(Level([inputs + width] + [2 * width] * (depth - 1), width))
            inputs = width

        self.head = nn.Conv2d(inputs, channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor, variance: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predicts from noisy images float (B, 3, S, S) and their noise variances float (B,).

        Labels int64 (B,) are those of classes, -1 for none; without them all are of none.
        """
        embedding = noise_embedding(variance)  # (B, 32)
        if self.classes is not None:
            embedding = embedding + self.classes(labels, images)
        embedding = embedding[:, :, None, None].expand(-1, -1, *images.shape[2:])  # (B, 32, S, S)
        x = torch.cat([self.stem(images), embedding.to(images.dtype)], dim=1)

        left: list[list[Tensor]] = []  # outputs of the levels on the way down
        for level in self.down:
            left.append(level(x))
            x = F.avg_pool2d(left[-1][-1], 2)  # (B, W, S / 2, S / 2)

        x = self.middle(x)[-1]

        for level in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")  # (B, W, 2 S, 2 S)
            x = level(x, skips=left.pop()[::-1])[-1]
        return self.head(x)
