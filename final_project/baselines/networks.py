"""Two networks from the fields on a grid to their change in a step: FNO and U-Net.

Shape letters: B batch, R rows and C columns of the grid, W width.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Last = TypeVar("Last", nn.Conv2d, nn.Linear)


class SpectralConvolution(nn.Module):
    """Multiplies the lowest modes of the Fourier transform by learned complex matrices.

    Li et al. 2021, section 4. Weights are real pairs.
    """

    def __init__(self, width: int, modes: tuple[int, int]):
        super().__init__()
        self.modes = modes
        # of positive and of negative row frequencies
        self.weight = nn.Parameter(torch.randn(2, width, width, *modes, 2) / width / 2**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, R, C) -> (B, W, R, C)."""
        m, n = self.modes
        spectrum = torch.fft.rfft2(x)
        up, down = torch.view_as_complex(self.weight)
        product = torch.zeros_like(spectrum)
        product[..., :m, :n] = torch.einsum("birc,iorc->borc", spectrum[..., :m, :n], up)
        product[..., -m:, :n] = torch.einsum("birc,iorc->borc", spectrum[..., -m:, :n], down)
        return torch.fft.irfft2(product, s=x.shape[-2:])


class FNO(nn.Module):
    """Fourier neural operator: (B, inputs, R, C) -> (B, outputs, R, C), zero before training.

    1.2 M parameters by default. The domain is not periodic, so it is extended by an eighth of its
    sides while in Fourier layers. A small grid has fewer modes than `modes`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rows: int,
        columns: int,
        width: int = 24,
        layers: int = 4,
        modes: tuple[int, int] = (8, 16),
    ):
        super().__init__()
        self.pad = (0, max(2, columns // 8), 0, max(2, rows // 8))
        most_rows = (rows + self.pad[3]) // 2
        most_columns = (columns + self.pad[1]) // 2 + 1
        modes = (min(modes[0], most_rows), min(modes[1], most_columns))
        self.stem = nn.Conv2d(inputs, width, 1)
        self.spectral = nn.ModuleList(SpectralConvolution(width, modes) for _ in range(layers))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(layers))
        self.head = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1), nn.GELU(), zero(nn.Conv2d(4 * width, outputs, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """As the class."""
        rows, columns = x.shape[-2:]
        x = F.pad(self.stem(x), self.pad)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            x = x + F.gelu(spectral(x) + local(x))
        return self.head(x[..., :rows, :columns])


class Residual(nn.Module):
    """Two convolutions, each after group normalisation and SiLU, and the input added."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.match = nn.Conv2d(inputs, width, 1) if inputs != width else nn.Identity()
        self.body = nn.Sequential(
            nn.GroupNorm(8, inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, R, C) -> (B, W, R, C)."""
        return self.match(x) + self.body(x)


class UNet(nn.Module):
    """U-Net: (B, inputs, R, C) -> (B, outputs, R, C), zero before training.

    1.0 M parameters by default. Widths are multiples of 8 (the groups of a normalisation); sides
    are extended to a multiple of what the levels halve.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rows: int,
        columns: int,
        widths: tuple[int, ...] = (32, 64, 96, 128),
    ):
        super().__init__()
        factor = 2 ** (len(widths) - 1)
        self.pad = (0, -columns % factor, 0, -rows % factor)
        self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Residual(a, b) for a, b in zip((widths[0], *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            Residual(a + b, a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Sequential(nn.SiLU(), zero(nn.Conv2d(widths[0], outputs, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """As the class."""
        rows, columns = x.shape[-2:]
        x = self.stem(F.pad(x, self.pad, mode="replicate"))

        # down, halving the sides between levels:
        levels: list[Tensor] = []
        for block in self.down:
            x = block(F.avg_pool2d(x, 2) if levels else x)
            levels.append(x)
        levels.pop()

        # up, with the output of the same level on the way down:
        for block in self.up:
            larger = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([larger, levels.pop()], 1))
        return self.head(x)[..., :rows, :columns]


def zero(layer: Last) -> Last:
    """The layer with weights and bias 0: a network that ends in it starts as persistence."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
