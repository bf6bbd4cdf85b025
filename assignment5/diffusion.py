"""Continuous-time diffusion: schedule, what the network predicts, loss, and samplers.

Symbols: t in [0, 1] time; s(t), n(t) signal and noise rate, s^2 + n^2 = 1; x0 a normalised image, e its noise, x = s x0 + n e.
Shape letters: B batch, C channels, S side, K sampling steps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from common.cli import InputError

Target = Literal["noise", "image", "velocity"]
Sampler = Literal["ddim", "heun", "dpm++"]
SAMPLERS: dict[Sampler, str] = {"ddim": "DDIM", "heun": "Heun", "dpm++": "DPM-Solver++(2M)"}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Signal and noise rate as cosine and sine of an angle that is linear in time (Béres 2022)."""

    min_signal: float = 0.02
    max_signal: float = 0.95

    def angle(self, time: Tensor) -> Tensor:
        """Angle (radians) at times in [0, 1], any shape: 0 would be a clean image, pi / 2 pure noise."""
        start, end = math.acos(self.max_signal), math.acos(self.min_signal)
        return start + time * (end - start)

    def rates(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """(signal rate, noise rate) at times of any shape."""
        angle = self.angle(time)
        return angle.cos(), angle.sin()


def separate(
    target: Target, x: Tensor, output: Tensor, signal: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """(x0, e) that a network's output says, given x = signal x0 + noise e; rates broadcast over x.

    noise: output = e. image: output = x0. velocity: output = signal e - noise x0 (Salimans & Ho 2022, section 4).
    """
    if target == "noise":
        return (x - noise * output) / signal, output
    if target == "image":
        return output, (x - signal * output) / noise
    return signal * x - noise * output, noise * x + signal * output


def aim(target: Target, images: Tensor, noises: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """What the network should put out: the inverse of `separate`."""
    return {"noise": noises, "image": images, "velocity": signal * noises - noise * images}[target]


def snr_weight(target: Target, signal: Tensor, noise: Tensor, gamma: float) -> Tensor:
    """Min-SNR weight (Hang et al. 2023, eq. 6): min(SNR, gamma) on the squared error of x0, as a weight on the target's own error."""
    snr = (signal / noise) ** 2
    clipped = snr.clamp(max=gamma)
    return {"noise": clipped / snr, "image": clipped, "velocity": clipped / (snr + 1)}[target]


class Diffusion(nn.Module):
    """A network with its schedule, target and the channels' mean and standard deviation: everything that sampling needs.

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
        self.network, self.schedule, self.target = network, schedule, target
        self.register_buffer("mean", torch.zeros(3) if mean is None else mean)
        self.register_buffer("std", torch.ones(3) if std is None else std)

    def normalise(self, images: Tensor) -> Tensor:
        """[0, 1] -> zero mean and unit variance a channel."""
        return (images - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse of `normalise`, clipped to [0, 1]."""
        return (x * self.std[:, None, None] + self.mean[:, None, None]).clamp(0, 1)

    def forward(
        self,
        images: Tensor,
        noises: Tensor,
        times: Tensor,
        error: Literal["mae", "mse"] = "mse",
        min_snr: float = 0.0,
    ) -> Tensor:
        """Loss of each image (B,) at times (B,) with the given noises (B, 3, S, S): mean error of the target, weighted where min_snr > 0."""
        signal, noise = (rate[:, None, None, None] for rate in self.schedule.rates(times))
        x0 = self.normalise(images)
        output = self.network(signal * x0 + noise * noises, noise.flatten() ** 2).float()
        difference = output - aim(self.target, x0, noises, signal, noise)
        each = (difference.abs() if error == "mae" else difference.square()).mean((1, 2, 3))
        return each * snr_weight(self.target, signal, noise, min_snr).flatten() if min_snr else each

    def denoise(self, x: Tensor, time: float) -> tuple[Tensor, Tensor]:
        """(x0, e) as the network sees them in x (B, 3, S, S) at one time."""
        signal, noise = self.schedule.rates(torch.full((len(x), 1, 1, 1), time, device=x.device))
        return separate(
            self.target, x, self.network(x, noise.flatten() ** 2).float(), signal, noise
        )

    @torch.inference_mode()
    def sample(
        self,
        noises: Tensor,
        steps: int = 20,
        sampler: Sampler = "ddim",
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        power: float = 1.0,
    ) -> Tensor:
        """Images float (B, 3, S, S) in [0, 1] from noises (B, 3, S, S) that are standard normal. Raises InputError as `path`."""
        *_, x0 = path(self.denoise, self.schedule, noises, steps, sampler, eta, generator, power)
        return self.denormalise(x0)


def evaluations(sampler: Sampler, steps: int) -> int:
    """How often the network is called."""
    return 2 * steps - 1 if sampler == "heun" else steps


def path(
    denoise: Callable[[Tensor, float], tuple[Tensor, Tensor]],
    schedule: Schedule,
    x: Tensor,
    steps: int,
    sampler: Sampler = "ddim",
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    power: float = 1.0,
) -> Iterator[Tensor]:
    """Yields the predicted x0 (B, C, S, S) at each of K times from t = 1 down to (1 / K)^power; the last one is the sample.

    The times are (1 - k / K)^power: power 1 steps evenly, below 1 the steps are short where there is much noise and the last one is long.

    ddim: Song et al. 2021, eq. 12 and 16 (eta = 0 deterministic, eta = 1 as noisy as DDPM). heun: Karras et al. 2022, algorithm 1 in
    sigma = n / s, whose last step is Euler's. dpm++: Lu et al. 2022, DPM-Solver++(2M), whose first and last steps are DDIM's.
    Raises InputError for steps below 1, eta outside [0, 1], eta with another sampler than ddim, a power that is not above 0.
    """
    if steps < 1:
        raise InputError(f"--steps {steps}: at least one step is needed")
    if not 0 < power < math.inf:
        raise InputError(f"--power {power}: allowed is a number above 0; 1 steps evenly")
    if not 0 <= eta <= 1:
        raise InputError(f"--eta {eta}: allowed are 0 (deterministic) to 1 (as noisy as DDPM)")
    if eta and sampler != "ddim":
        raise InputError(
            f"--eta {eta}: {SAMPLERS[sampler]} is deterministic; eta belongs to --sampler ddim"
        )
    last = None  # x0 and log(s / n) of the step before
    for k in range(steps):
        time, following = ((1 - step / steps) ** power for step in (k, k + 1))
        s, n = (float(rate) for rate in schedule.rates(torch.tensor(time, dtype=torch.float64)))
        s1, n1 = (
            float(rate) for rate in schedule.rates(torch.tensor(following, dtype=torch.float64))
        )
        x0, e = denoise(x, time)
        yield x0
        if k == steps - 1:
            return
        if sampler == "ddim":
            fresh = eta * n1 / n * math.sqrt(max(1 - (s / s1) ** 2, 0.0))
            x = s1 * x0 + math.sqrt(n1**2 - fresh**2) * e
            if fresh:
                x = x + fresh * torch.randn(x.shape, generator=generator, device=x.device)
        elif sampler == "heun":
            guess = s1 * x0 + n1 * e  # Euler's step in sigma is DDIM's
            again = denoise(guess, following)[1]
            x = s1 * (x / s + (n1 / s1 - n / s) * (e + again) / 2)
        else:
            now, then = math.log(s / n), math.log(s1 / n1)
            h, ahead = then - now, x0
            if last is not None and k < steps - 1:
                before, r = last[0], (now - last[1]) / h
                ahead = x0 + (x0 - before) / (2 * r)
            x = n1 / n * x - s1 * math.expm1(-h) * ahead
            last = (x0, now)
