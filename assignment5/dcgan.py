"""A DCGAN (Radford et al. 2016, arXiv 1511.06434), trained for as long as a denoiser: a yardstick.

Shape letters: B batch, M images, S side, Z length of the latent vector.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assignment5.config import fits_dcgan
from assignment5.conversion import to_bytes, to_float
from assignment5.memory import matching_shapes
from common.cli import InputError
from common.files import StateDict, tensors
from common.machine import Device
from common.run import Run
from common.weights import count_parameters, read_model, save_model

LATENT = 100
WIDTH = 64  # channels next to the image
BATCH = 128
RATE = 2e-4  # of Adam, with the first moment's decay:
MOMENTUM = 0.5
SLOPE = 0.2  # of the discriminator's activations below zero
SPREAD = 0.02  # of the first weights
FILE = "model.DCGAN.safetensors"


# ---------------------------------------------------------------------------------- the networks


def widths(side: int) -> list[int]:
    """Channels at sides 4, 8, ..., S / 2, halving. Raises InputError for a side that is not 2^k."""
    if not fits_dcgan(side):
        raise InputError(f"a DCGAN draws a side of 8, 16, 32, 64, ...; the side is {side}")
    levels = side.bit_length() - 3
    return [WIDTH * 2**level for level in reversed(range(levels))]


def generator(side: int) -> nn.Sequential:
    """Latent vectors (B, Z, 1, 1) -> images (B, 3, S, S) in [-1, 1]."""
    channels = widths(side)
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, channels[0], 4, 1, 0, bias=False)]
    for given, made in itertools.pairwise(channels):
        layers += [nn.BatchNorm2d(given), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(given, made, 4, 2, 1, bias=False))
    layers += [nn.BatchNorm2d(channels[-1]), nn.ReLU()]
    layers += [nn.ConvTranspose2d(channels[-1], 3, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*layers)


def discriminator(side: int) -> nn.Sequential:
    """Images (B, 3, S, S) in [-1, 1] -> logits (B, 1, 1, 1) that they are real."""
    channels = widths(side)[::-1]
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, 2, 1), nn.LeakyReLU(SLOPE)]
    for given, made in itertools.pairwise(channels):
        layers.append(nn.Conv2d(given, made, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(made), nn.LeakyReLU(SLOPE)]
    layers.append(nn.Conv2d(channels[-1], 1, 4))
    return nn.Sequential(*layers)


def start(module: nn.Module) -> None:
    """Draws the first weights as published: deviation 0.02, around 1 in normalisations."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, SPREAD)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, SPREAD)


# -------------------------------------------------------------------------------------- training


class Game:
    """A generator and a discriminator that learn from each other, with their optimisers."""

    def __init__(self, side: int, device: str):
        self.generator = generator(side).apply(start).to(device)
        self.discriminator = discriminator(side).apply(start).to(device)
        self.optimisers = [
            torch.optim.Adam(network.parameters(), lr=RATE, betas=(MOMENTUM, 0.999))
            for network in (self.discriminator, self.generator)
        ]

    def step(self, real: Tensor, latent: Tensor) -> tuple[float, float]:
        """One step of both with images (B, 3, S, S) in [-1, 1] and latent vectors (B, Z, 1, 1).

        Returns the losses of the discriminator and of the generator.
        """
        to_judge, to_draw = self.optimisers
        drawn = self.generator(latent)
        verdict = -F.logsigmoid(self.discriminator(real)).mean()
        verdict = verdict - F.logsigmoid(-self.discriminator(drawn.detach())).mean()
        to_judge.zero_grad()
        verdict.backward()
        to_judge.step()

        # the generator's loss that does not saturate (Goodfellow et al. 2014, section 3)
        deceived = -F.logsigmoid(self.discriminator(drawn)).mean()
        to_draw.zero_grad()
        deceived.backward()
        to_draw.step()
        return verdict.item(), deceived.item()


@dataclass(frozen=True)
class TrainedGan:
    """A trained generator, and how many steps and seconds it was given."""

    weights: StateDict
    side: int
    steps: int
    seconds: float


def train_dcgan(
    seed: int, run: Run, pixels: np.ndarray, seconds: float, device: Device
) -> TrainedGan:
    """Trains a DCGAN on images uint8 (N, S, S, 3) for some seconds, at least one step.

    The clock ends the training, so that two runs alike differ in this network (alone).
    """
    torch.manual_seed(seed)
    side = pixels.shape[1]
    game = Game(side, device.name)
    batch = min(BATCH, len(pixels))
    began = time.perf_counter()
    steps = 0
    while not steps or time.perf_counter() - began < seconds:
        rng = np.random.default_rng((seed, steps, 11))
        rows = rng.choice(len(pixels), batch, replace=False)
        real = 2 * to_float(torch.from_numpy(pixels[rows]).to(device.name)) - 1
        losses = game.step(real, torch.randn((batch, LATENT, 1, 1)).to(device.name))
        steps += 1
        if not np.isfinite(losses).all():
            raise FloatingPointError(f"DCGAN, step {steps}: the losses are {losses}")
        if steps % 100 == 0:
            epoch = steps * batch // len(pixels)
            run.log(steps, epoch, "train", dcgan_verdict=losses[0], dcgan_deceived=losses[1])
    passed = time.perf_counter() - began
    return TrainedGan(game.generator.state_dict(), side, steps, passed)


# --------------------------------------------------------------------------------------- drawing


class Gan:
    """A trained generator on its device."""

    def __init__(self, trained: TrainedGan, device: str):
        self.network = generator(trained.side)
        self.network.load_state_dict(tensors(trained.weights))
        self.network = self.network.to(device).eval()
        self.device = device
        self.training_seconds = round(trained.seconds, 1)

    @property
    def params(self) -> int:
        """Number of trained weights of the generator."""
        return count_parameters(self.network)

    @torch.inference_mode()
    def draw(self, count: int, seed: int, batch: int = 256) -> np.ndarray:
        """Images uint8 (M, S, S, 3), a function of the arguments alone."""
        source = torch.Generator().manual_seed(2_000_003 + seed)
        latent = torch.randn((count, LATENT, 1, 1), generator=source)
        drawn = [self.network(part.to(self.device)) for part in latent.split(batch)]
        return to_bytes((torch.cat(drawn) + 1) / 2)


def save_dcgan(folder: Path, trained: TrainedGan) -> None:
    """Writes the generator as float16 into a run folder."""
    about = {"side": trained.side, "steps": trained.steps, "seconds": trained.seconds}
    save_model(folder / FILE, trained.weights, about, half=True)


def load_dcgan(folder: Path, side: int, device: str) -> Gan | None:
    """The generator of a run, None where it has none. Raises InputError for a damaged file."""
    path = folder / FILE
    if not path.exists():
        return None
    weights, about = read_model(path)
    try:
        trained = TrainedGan(weights=weights, **about)
        fits = trained.side == side and trained.seconds >= 0
    except TypeError:
        fits = False
    if not fits or not all(value.isfinite().all() for value in weights.values()):
        raise InputError(f"{path} is no DCGAN of images of side {side}; copy or train it again")
    with matching_shapes(path):
        return Gan(trained, device)
