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

from assignment5.codec import Codec
from assignment5.config import Error, Loss, Target


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


def loss_scale(target: Target, loss: Target, signal: Tensor, noise: Tensor) -> Tensor:
    """How large an error of `loss` is that an error of one in the target makes.

    Given x, the errors of image, noise and velocity stand as noise rate : signal rate : 1. The
    target "velocity" is the preconditioning of Karras et al. 2022 (table 1) for data of unit
    variance but for its sign: c_in = 1, c_skip = signal, c_out = noise rate.
    """
    sizes = {"noise": signal, "image": noise, "velocity": torch.ones_like(signal)}
    return sizes[loss] / sizes[target]


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

    `chances` float (K,) are the shares of the classes in the training part, where the network
    knows classes. Images are float (B, 3, S, S) in [0, 1]; `mean` and `std` are float (3,), of the
    training part. With a codec, which is not trained here, it is the codes that are denoised.
    """

    mean: Tensor
    std: Tensor
    chances: Tensor

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        target: Target,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        classes: int = 0,
        codec: Codec | None = None,
    ):
        super().__init__()
        self.network = network
        self.codec = None if codec is None else codec.requires_grad_(False)
        self.schedule = schedule
        self.target = target
        self.register_buffer("mean", torch.zeros(3) if mean is None else mean)
        self.register_buffer("std", torch.ones(3) if std is None else std)
        # (a file of a network without classes has no chances)
        self.register_buffer("chances", torch.zeros(classes), persistent=classes > 0)

    def normalise(self, images: Tensor) -> Tensor:
        """[0, 1] -> zero mean and unit variance per channel: pixels, or codes (B, C, s, s)."""
        if self.codec is not None:
            return self.codec.encode(images)
        return (images - self.mean[:, None, None]) / self.std[:, None, None]

    def noise_like(self, noises: Tensor) -> Tensor:
        """Noises of what is denoised, out of those of pixels (B, 3, S, S)."""
        return noises if self.codec is None else self.codec.noises(noises)

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse of `normalise`, clipped to [0, 1]."""
        if self.codec is not None:
            return self.codec.decode(x).clamp(0, 1)
        return (x * self.std[:, None, None] + self.mean[:, None, None]).clamp(0, 1)

    def forward(
        self,
        images: Tensor,
        noises: Tensor,
        times: Tensor,
        error: Error = "mse",
        min_snr: float = 0.0,
        loss: Loss = "target",
        labels: Tensor | None = None,
    ) -> Tensor:
        """Loss (B,) of images and noises (B, 3, S, S) at times (B,), with labels (B,) of classes.

        The mean error over an image's pixels, of the target or of what `loss` names (predicting
        the image with an error of the velocity is JiT: Li & He 2025), weighted where min_snr > 0.
        """
        signal, noise = (rate[:, None, None, None] for rate in self.schedule.rates(times))
        x0 = self.normalise(images)
        noises = self.noise_like(noises)
        output = self.call(signal * x0 + noise * noises, noise, labels)
        difference = output - aim(self.target, x0, noises, signal, noise)
        scored = self.target if loss == "target" else loss
        if scored != self.target:
            difference = difference * loss_scale(self.target, scored, signal, noise)
        errors = difference.abs() if error == "mae" else difference.square()
        losses = errors.mean((1, 2, 3))  # (B,)
        if not min_snr:
            return losses
        return losses * snr_weight(scored, signal, noise, min_snr).flatten()

    def call(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's output, float, for x (B, C, S, S) at noise rates (B, 1, 1, 1)."""
        variance = noise.flatten() ** 2
        if labels is None:
            return self.network(x, variance).float()
        return self.network(x, variance, labels).float()

    def denoise(
        self, x: Tensor, time: float, labels: Tensor | None = None, guidance: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """(x0, e) that the network predicts for x (B, C, S, S) at one time.

        With labels (B,) of classes, `guidance` is the weight w of the prediction with the class
        against that without, (1 - w) without + w with (Ho & Salimans 2022, eq. 6, where w - 1 is
        called w).
        """
        signal, noise = self.schedule.rates(torch.full((len(x), 1, 1, 1), time, device=x.device))
        output = self.call(x, noise, labels)
        if labels is not None and guidance != 1:
            output = torch.lerp(self.call(x, noise), output, guidance)
        return separate(self.target, x, output, signal, noise)
