"""An autoencoder whose codes a Transformer denoises in place of pixels (Rombach et al. 2022).

Shape letters: B batch, S side of an image, C channels of a code, s = S / 4 side of a code.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assignment5.config import CODEC, SHRINK, Config
from assignment5.conversion import half_precision, to_bytes, to_float
from assignment5.data import rows_of_step
from assignment5.memory import to_device
from common.files import StateDict
from common.machine import Device
from common.run import Run, progress


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity; at first it is the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, H, H) -> the same shape."""
        return x + self.second(F.silu(self.first(F.silu(x))))


def encoder(channels: int, widths: Sequence[int]) -> nn.Sequential:
    """Images (B, 3, S, S) in [-1, 1] -> codes (B, C, s, s), not yet standardised."""
    middle, large = widths[1:]
    return nn.Sequential(
        nn.Conv2d(3, middle, 4, 2, 1),
        Residual(middle),
        nn.SiLU(),
        nn.Conv2d(middle, large, 4, 2, 1),
        Residual(large),
        Residual(large),
        nn.SiLU(),
        nn.Conv2d(large, channels, 3, padding=1),
    )


def decoder(channels: int, widths: Sequence[int]) -> nn.Sequential:
    """Standardised codes (B, C, s, s) -> images (B, 3, S, S), about in [-1, 1]."""
    small, middle, large = widths
    return nn.Sequential(
        nn.Conv2d(channels, large, 3, padding=1),
        Residual(large),
        Residual(large),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(large, middle, 3, padding=1),
        Residual(middle),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(middle, small, 3, padding=1),
        Residual(small),
        nn.SiLU(),
        nn.Conv2d(small, 3, 3, padding=1),
    )


class Codec(nn.Module):
    """Images in [0, 1] to codes of zero mean and unit deviation per channel, and back.

    `mean` and `std` float (C,) are those of the encoder's output on the training part.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.encoder = encoder(channels, CODEC.widths)
        self.decoder = decoder(channels, CODEC.widths)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] -> codes (B, C, s, s)."""
        raw = self.encoder(2 * images - 1).float()
        return (raw - self.mean[:, None, None]) / self.std[:, None, None]

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, C, s, s) -> images (B, 3, S, S), about in [0, 1]."""
        return (self.decoder(codes).float() + 1) / 2

    def noises(self, noises: Tensor) -> Tensor:
        """Standard normal noises (B, C, s, s) of codes out of those of pixels (B, 3, S, S).

        The 4 x 4 pixels of a cell become its channels, of which the first C are kept: whoever
        shares a noise set shares it in codes too.
        """
        return F.pixel_unshuffle(noises, SHRINK)[:, : self.channels]

    def cells(self, kept: Tensor) -> Tensor:
        """The cells bool (1, 1, s, s) all of whose pixels (1, 1, S, S) are kept."""
        return F.max_pool2d(1 - kept.float(), SHRINK) == 0


@dataclass(frozen=True)
class TrainedCodec:
    """Weights of a codec, and the seconds of its training."""

    weights: StateDict
    seconds: float


def reconstruction_error(images: Tensor, back: Tensor) -> Tensor:
    """Mean absolute error of images (B, 3, S, S) and, as much again, of their differences.

    The differences between neighbouring pixels make edges count.
    """
    error = (images - back).abs().mean()
    for axis in (2, 3):
        error = error + (images.diff(dim=axis) - back.diff(dim=axis)).abs().mean() / 2
    return error


def standardised(raw: Tensor) -> Tensor:
    """Codes (B, C, s, s) with zero mean and unit deviation per channel, within the batch."""
    std, mean = torch.std_mean(raw, (0, 2, 3), keepdim=True)
    return (raw - mean) / (std + 1e-6)


def train_codec(config: Config, run: Run, train: np.ndarray, device: Device) -> TrainedCodec:
    """Trains a codec on images uint8 (N, S, S, 3) of the training part.

    It decodes codes with noise, so that it forgives the denoiser small errors.
    """
    began = time.perf_counter()
    torch.manual_seed(config.seed)
    codec = to_device(Codec(config.latent), device.name)
    images = torch.from_numpy(train).to(device.name)
    batch = min(CODEC.batch, len(images))
    steps = max(config.codec_epochs * len(images) // batch, 1)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=CODEC.lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, CODEC.lr, max(steps, 2))
    for step in progress(range(steps), "codec"):
        # One step on images, every second time mirrored:
        rows = torch.from_numpy(rows_of_step(config.seed, step, batch, len(images)))
        seen = to_float(images[rows.to(device.name)])  # (B, 3, S, S)
        seen = seen.flip(3) if step % 2 else seen
        generator = torch.Generator(device.name).manual_seed(config.seed * 10_000_019 + step)
        with torch.autocast(device.name, torch.bfloat16, enabled=device.bfloat16):
            codes = standardised(codec.encoder(2 * seen - 1).float())
            noise = torch.randn(codes.shape, generator=generator, device=device.name)
            loss = reconstruction_error(seen, codec.decode(codes + CODEC.noise * noise))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()

        # Log:
        if (step + 1) % 100 == 0 or step + 1 == steps:
            run.log(step + 1, step * batch // len(images), "train", codec_loss=loss.item())
    settle(codec, images)
    return TrainedCodec(half_precision(codec), time.perf_counter() - began)


@torch.inference_mode()
def settle(codec: Codec, images: Tensor) -> None:
    """Sets the mean and deviation of the code's channels to those on images uint8 (N, S, S, 3)."""
    codec.eval()
    parts = [codec.encoder(2 * to_float(part) - 1).float() for part in images.split(256)]
    std, mean = torch.std_mean(torch.cat(parts), (0, 2, 3))
    codec.mean.copy_(mean)
    codec.std.copy_(std)


@torch.inference_mode()
def there_and_back(codec: Codec, pixels: np.ndarray) -> np.ndarray:
    """Images uint8 (N, S, S, 3) that are coded and decoded: the best that codes can draw."""
    parts = torch.from_numpy(pixels).to(codec.mean.device).split(256)
    back = [codec.decode(codec.encode(to_float(part))).clamp(0, 1) for part in parts]
    return to_bytes(torch.cat(back))
