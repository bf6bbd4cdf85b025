"""Continuous-time diffusion: schedule, what the network predicts, and the loss.

Symbols: t in [0, 1] time; s(t), n(t) signal and noise rate, s^2 + n^2 = 1; x0 a normalised image,
e its noise, x = s x0 + n e.
Shape letters: B batch, C channels, S side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assignment5.config import Error, Target


@dataclass(frozen=True)
class Schedule:
    """Signal and noise rate as cosine and sine of an angle that is linear in time (Béres 2022)."""

    min_signal: float = 0.02
    max_signal: float = 0.95

    def angle(self, time: Tensor) -> Tensor:
        """Angle (radians) at times in [0, 1], any shape: 0 is a clean image, pi / 2 pure noise."""
        start = math.acos(self.max_signal)
        end = math.acos(self.min_signal)
        return start + time * (end - start)

    def rates(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """(signal rate, noise rate) at times of any shape."""
        angle = self.angle(time)
        return angle.cos(), angle.sin()


def separate(
    target: Target, x: Tensor, output: Tensor, signal: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """(x0, e) from a network's output, given x = signal x0 + noise e; rates broadcast over x.

    noise: output = e. image: output = x0. velocity: output = signal e - noise x0 (Salimans & Ho
    2022, section 4).
    """
    if target == "noise":
        return (x - noise * output) / signal, output
    if target == "image":
        return output, (x - signal * output) / noise
    return signal * x - noise * output, noise * x + signal * output


def aim(target: Target, images: Tensor, noises: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """The output that the network should have: the inverse of `separate`."""
    if target == "noise":
        return noises
    if target == "image":
        return images
    return signal * noises - noise * images


def snr_weight(target: Target, signal: Tensor, noise: Tensor, gamma: float) -> Tensor:
    """Min-SNR weight (Hang et al. 2023, eq. 6) of the squared error of the target.

    It makes the loss min(SNR, gamma) times the squared error of x0.
    """
    snr = (signal / noise) ** 2
    clipped = snr.clamp(max=gamma)
    if target == "noise":
        return clipped / snr
    if target == "image":
        return clipped
    return clipped / (snr + 1)


class Diffusion(nn.Module):
    """A network with its schedule, its target and the mean and deviation of the channels.

    Images are float (B, 3, S, S) in [0, 1]; `mean` and `std` are float (3,), of the training part.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        target: Target,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ):
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.target = target
        self.register_buffer("mean", torch.zeros(3) if mean is None else mean)
        self.register_buffer("std", torch.ones(3) if std is None else std)

    def normalise(self, images: Tensor) -> Tensor:
        """[0, 1] -> zero mean and unit variance per channel."""
        return (images - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse of `normalise`, clipped to [0, 1]."""
        return (x * self.std[:, None, None] + self.mean[:, None, None]).clamp(0, 1)

    def forward(
        self,
        images: Tensor,
        noises: Tensor,
        times: Tensor,
        error: Error = "mse",
        min_snr: float = 0.0,
    ) -> Tensor:
        """Loss (B,) of images and noises (B, 3, S, S) at times (B,).

        The mean error of the target over an image's pixels, weighted where min_snr > 0.
        """
        signal, noise = (rate[:, None, None, None] for rate in self.schedule.rates(times))
        x0 = self.normalise(images)
        output = self.network(signal * x0 + noise * noises, noise.flatten() ** 2).float()
        difference = output - aim(self.target, x0, noises, signal, noise)
        errors = difference.abs() if error == "mae" else difference.square()
        losses = errors.mean((1, 2, 3))  # (B,)
        if not min_snr:
            return losses
        return losses * snr_weight(self.target, signal, noise, min_snr).flatten()

    def denoise(self, x: Tensor, time: float) -> tuple[Tensor, Tensor]:
        """(x0, e) that the network predicts for x (B, C, S, S) at one time."""
        signal, noise = self.schedule.rates(torch.full((len(x), 1, 1, 1), time, device=x.device))
        output = self.network(x, noise.flatten() ** 2).float()
        return separate(self.target, x, output, signal, noise)
