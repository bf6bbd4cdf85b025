"""Samplers: from noise to an image along the path that a denoiser predicts, one function each.

Symbols: x = s x0 + n e with signal rate s and noise rate n of a level; x0 image, e noise.
Shape letters: B batch, C channels, S side, K sampling steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from assignment5.config import Sampling
from assignment5.diffusion import Schedule

Denoise: TypeAlias = Callable[[Tensor, float], tuple[Tensor, Tensor]]  # (x, time) -> (x0, e)


class Level(NamedTuple):
    """A time in [0, 1] with its signal and noise rate."""

    time: float
    signal: float
    noise: float

    @property
    def log_snr(self) -> float:
        """Half the logarithm of the signal-to-noise ratio, log(s / n)."""
        return math.log(self.signal / self.noise)


def levels(schedule: Schedule, steps: int, power: float = 1.0) -> list[Level]:
    """The K levels at the times (1 - k / K)^power, from t = 1 down."""
    times = [(1 - step / steps) ** power for step in range(steps)]
    rates = [schedule.rates(torch.tensor(time, dtype=torch.float64)) for time in times]
    return [
        Level(time, float(signal), float(noise))
        for time, (signal, noise) in zip(times, rates, strict=True)
    ]


def path(
    denoise: Denoise,
    schedule: Schedule,
    x: Tensor,
    sampling: Sampling,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yields the predicted x0 (B, C, S, S) at each of K levels; the last one is the sample."""
    way = levels(schedule, sampling.steps, sampling.power)
    if sampling.sampler == "ddim":
        return ddim(denoise, way, x, sampling.eta, generator)
    if sampling.sampler == "heun":
        return heun(denoise, way, x)
    return dpm_solver(denoise, way, x)


def ddim(
    denoise: Denoise,
    way: Sequence[Level],
    x: Tensor,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """DDIM: Song et al. 2021, eq. 12 and 16; eta 0 is deterministic, eta 1 as noisy as DDPM."""
    for here, there in itertools.pairwise(way):
        x0, e = denoise(x, here.time)
        yield x0
        ratio = here.signal / there.signal
        sigma = eta * there.noise / here.noise * math.sqrt(max(1 - ratio**2, 0.0))
        x = there.signal * x0 + math.sqrt(there.noise**2 - sigma**2) * e
        if sigma:
            x = x + sigma * torch.randn(x.shape, generator=generator, device=x.device)
    yield denoise(x, way[-1].time)[0]


def heun(denoise: Denoise, way: Sequence[Level], x: Tensor) -> Iterator[Tensor]:
    """Heun's method for d(x / n) / d(s / n) = x0; the last step is Euler's.

    Karras et al. 2022, algorithm 1, averages slopes in sigma = n / s, of which the first step takes
    nearly all where steps are few: from 50 to 2 with three of them. In s / n steps are alike.
    """
    for here, there in itertools.pairwise(way):
        x0, e = denoise(x, here.time)
        yield x0
        euler = there.signal * x0 + there.noise * e  # Euler's step in s / n, as in sigma, is DDIM's
        x0_there, _ = denoise(euler, there.time)
        step = there.signal / there.noise - here.signal / here.noise
        x = there.noise * (x / here.noise + step * (x0 + x0_there) / 2)
    yield denoise(x, way[-1].time)[0]


def painting(denoise: Denoise, schedule: Schedule, known: Tensor, kept: Tensor) -> Denoise:
    """A denoiser that paints only where `kept` (1, 1, S, S) is 0; the rest is known (1, C, S, S).

    At every level the kept part of x is replaced by the known image with noise, as in RePaint
    (Lugmayr et al. 2022, eq. 8), here with one noise for all levels and without going back. The
    prediction is the known image there, so that every sampler keeps it.
    """
    noise: list[Tensor] = []

    def denoise_rest(x: Tensor, time: float) -> tuple[Tensor, Tensor]:
        signal, rate = (float(each) for each in schedule.rates(torch.tensor(time)))
        if not noise:  # x is nothing but noise at first
            noise.append(x)
        image = known.expand_as(x)
        mixed = torch.where(kept > 0, signal * image + rate * noise[0], x)
        x0, e = denoise(mixed, time)
        return torch.where(kept > 0, image, x0), torch.where(kept > 0, noise[0], e)

    return denoise_rest


def dpm_solver(denoise: Denoise, way: Sequence[Level], x: Tensor) -> Iterator[Tensor]:
    """DPM-Solver++(2M): Lu et al. 2022, algorithm 2; the first and the last step are DDIM's."""
    previous: tuple[Tensor, float] | None = None  # x0 and the log-SNR of the step before
    for here, there in itertools.pairwise(way):
        x0, _ = denoise(x, here.time)
        yield x0
        h = there.log_snr - here.log_snr
        extrapolated = x0
        if previous is not None:
            x0_before, log_snr_before = previous
            r = (here.log_snr - log_snr_before) / h
            extrapolated = x0 + (x0 - x0_before) / (2 * r)
        x = there.noise / here.noise * x - there.signal * math.expm1(-h) * extrapolated
        previous = (x0, here.log_snr)
    yield denoise(x, way[-1].time)[0]
