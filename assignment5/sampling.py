"""Images from noises: the noise sets that every network and sampler shares, and sampling in parts.

Shape letters: N images, C channels, S side.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from assignment5.config import Sampling, Wish
from assignment5.conversion import to_bytes
from assignment5.diffusion import Diffusion
from assignment5.samplers import Denoise, painting, path
from common.cli import InputError


@dataclass(frozen=True)
class NoiseSets:
    """Sets of standard normal noise, the same for every network, sampler and machine."""

    sets: int
    count: int
    side: int

    def __iter__(self) -> Iterator[Tensor]:
        """Each set (count, 3, side, side) in turn."""
        for seed in range(self.sets):
            yield noise_set(seed, self.count, self.side)


def noise_set(seed: int, count: int, side: int) -> Tensor:
    """Standard normal (count, 3, side, side), a function of the arguments alone."""
    generator = torch.Generator().manual_seed(1_000_003 + seed)
    return torch.randn((count, 3, side, side), generator=generator)


ANY = Wish()


@dataclass(frozen=True)
class Sketch:
    """A picture float (1, 3, S, S) in [0, 1], and where it is kept, bool (1, 1, S, S)."""

    picture: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Request:
    """What samples should be of: a class, and a picture whose kept part they share."""

    wish: Wish = ANY
    sketch: Sketch | None = None

    def labels(self, model: Diffusion, count: int, seed: int) -> Tensor | None:
        """Labels int64 (count,) of the samples; None for a network without classes."""
        if not len(model.chances):
            return None
        if self.wish.label is not None:
            return torch.full((count,), self.wish.label)
        generator = torch.Generator().manual_seed(seed)
        chances = model.chances.cpu().float()
        return torch.multinomial(chances, count, replacement=True, generator=generator)

    def denoiser(self, model: Diffusion, labels: Tensor | None) -> Denoise:
        """What the samplers call for samples of these labels (N,)."""
        denoise: Denoise = model.denoise
        if labels is not None:
            device = model.mean.device
            guidance = self.wish.guidance
            denoise = functools.partial(model.denoise, labels=labels.to(device), guidance=guidance)
        if self.sketch is None:
            return denoise
        known = model.normalise(self.sketch.picture.to(model.mean.device))
        kept = self.sketch.kept.to(known.device)
        if model.codec is not None:
            kept = model.codec.cells(kept)
        return painting(denoise, model.schedule, known, kept)


ANYTHING = Request()


def sample(
    model: Diffusion,
    noises: Tensor,
    sampling: Sampling,
    bfloat16: bool = False,
    seed: int = 0,
    batch: int = 256,
    request: Request = ANYTHING,
) -> np.ndarray:
    """Images uint8 (N, S, S, 3) from noises (N, 3, S, S), at most `batch` at once.

    Half as many at once, a quarter, ... where the memory is too small.
    Raises InputError where there is not even memory for one image.
    """
    model.eval()
    batch = min(batch, len(noises))
    labels = request.labels(model, len(noises), seed)
    while batch:
        try:
            parts = noises.split(batch)
            told = [None] * len(parts) if labels is None else labels.split(batch)
            denoisers = [request.denoiser(model, each) for each in told]
            return sample_in_batches(
                model, list(zip(parts, denoisers, strict=True)), sampling, bfloat16, seed
            )
        except torch.OutOfMemoryError:
            batch //= 2
    raise InputError("the device has not enough memory to sample even one image; take --device cpu")


@torch.inference_mode()
def sample_in_batches(
    model: Diffusion,
    batches: Sequence[tuple[Tensor, Denoise]],
    sampling: Sampling,
    bfloat16: bool,
    seed: int,
) -> np.ndarray:
    """Images uint8 (N, S, S, 3) from noises in batches, each with what denoises it."""
    device = model.mean.device
    generator = torch.Generator(device).manual_seed(seed)
    images = []
    for noises, denoise in batches:
        x = model.noise_like(noises.to(device, memory_format=torch.channels_last))
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            *_, x0 = path(denoise, model.schedule, x, sampling, generator)
            images.append(to_bytes(model.denormalise(x0)))
    return np.concatenate(images)


@torch.inference_mode()
def trajectory(model: Diffusion, noises: Tensor, steps: int, bfloat16: bool) -> np.ndarray:
    """The images uint8 (steps, N, S, S, 3) that DDIM predicts at each step."""
    device = model.mean.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        denoise = ANYTHING.denoiser(model, ANYTHING.labels(model, len(noises), 0))
        x = model.noise_like(noises.to(device))
        way = path(denoise, model.schedule, x, Sampling("ddim", steps))
        return np.stack([to_bytes(model.denormalise(x0)) for x0 in way])


def sphere(start: Tensor, end: Tensor, count: int) -> Tensor:
    """Spherical interpolation (count, C, S, S) between two noises (C, S, S) (Shoemake 1985).

    Its variance stays that of noise.
    """
    a = start.flatten()
    b = end.flatten()
    angle = torch.arccos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    share = torch.linspace(0, 1, count)[:, None, None, None]
    weighted = torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end
    return weighted / torch.sin(angle)
