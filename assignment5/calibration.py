"""Images whose order of quality is known before any measure sees them, to judge measures by.

Shape letters: N images, M images made of them, S side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MEANS = 8  # colour means along a side
PATCHES = 4  # along a side
BLOBS = 6  # in an image
NARROWEST, WIDEST = 1 / 12, 1 / 4  # deviation of a blob, as a share of the side


class Kind(NamedTuple):
    """A kind of images, by the model and the variant of its rows."""

    model: str
    variant: str


HELD_OUT = Kind("held-out images", "another part")
COLOUR_MEANS = Kind("colour means", f"{MEANS} x {MEANS}, enlarged")
SHUFFLED = Kind("shuffled patches", f"{PATCHES} x {PATCHES} of an image")
COVARIANCE = Kind("Gaussian", "mean and covariance")
COLOUR_BLOBS = Kind("Gaussian blobs", "colours of an image")
PIXELS = Kind("Gaussian", "every pixel for itself")

# From the best to the worst; kinds of one level are not compared. Real images are the best; next
# come those that keep the layout or the textures of real ones; then those that keep no more than
# colours and the covariance of pixels; last come independent pixels.
ORDER: tuple[tuple[Kind, ...], ...] = (
    (HELD_OUT,),
    (COLOUR_MEANS, SHUFFLED),
    (COVARIANCE, COLOUR_BLOBS),
    (PIXELS,),
)


def agreement(distances: Mapping[Kind, float]) -> float | None:
    """How rightly distances order the kinds of images: from 1 (all pairs) to -1 (none).

    Pairs in the order of ORDER less pairs against it, over all pairs of different levels (Goodman
    & Kruskal 1954); equal distances count for neither. None where there is no pair.
    """
    levels = [[distances[kind] for kind in level if kind in distances] for level in ORDER]
    signs = [
        np.sign(worse - better)
        for better_level, worse_level in itertools.combinations(levels, 2)
        for better in better_level
        for worse in worse_level
    ]
    return float(np.mean(signs)) if signs else None


def calibration_sets(
    train: np.ndarray, other: np.ndarray, sets: int, count: int
) -> Iterator[tuple[Kind, list[np.ndarray]]]:
    """Every kind of ORDER but COVARIANCE, with its sets of images uint8 (M, S, S, 3).

    train : uint8 (N, S, S, 3), which all but the first kind are made of; other : a held-out part,
    which is the one set of real images; sets, count : how many of the others, and their size.
    """
    yield HELD_OUT, [other]
    rngs = [np.random.default_rng((seed, 10)) for seed in range(sets)]
    chosen = [train[rng.choice(len(train), min(count, len(train)), replace=False)] for rng in rngs]
    yield COLOUR_MEANS, [colour_means(images) for images in chosen]
    yield (
        SHUFFLED,
        [shuffled_patches(images, rng) for images, rng in zip(chosen, rngs, strict=True)],
    )
    yield COLOUR_BLOBS, [blobs(images, rng) for images, rng in zip(chosen, rngs, strict=True)]
    gaussian = Gaussian(train)
    yield PIXELS, [gaussian.draw_independent(count, rng) for rng in rngs]


class Gaussian:
    """Normal images with the mean and the sample covariance of images uint8 (N, S, S, 3)."""

    def __init__(self, images: np.ndarray):
        self.shape = images.shape[1:]
        flat = images.reshape(len(images), -1).astype(np.float32)  # (N, 3 S S)
        self.mean = flat.mean(0)
        self.deviations = flat - self.mean

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Images uint8 (count, S, S, 3)."""
        n = len(self.deviations)
        # standard normal weights w of the deviations: (x - mean)' w has their covariance
        weights = rng.standard_normal((count, n), np.float32) / np.sqrt(n - 1)
        return self.images(weights @ self.deviations)  # (count, 3 S S)

    def draw_independent(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Images uint8 (count, S, S, 3) with the variances alone: every pixel for itself."""
        spread = self.deviations.std(0, ddof=1)  # (3 S S,)
        return self.images(rng.standard_normal((count, len(spread)), np.float32) * spread)

    def images(self, deviations: np.ndarray) -> np.ndarray:
        """Images uint8 (count, S, S, 3) of deviations (count, 3 S S) from the mean."""
        flat = np.clip(deviations + self.mean, 0, 255)
        return flat.round().astype(np.uint8).reshape(-1, *self.shape)


def colour_means(images: np.ndarray) -> np.ndarray:
    """Images uint8 (M, S, S, 3) of 8 x 8 mean colours of others, enlarged without edges."""
    means = F.adaptive_avg_pool2d(planes(images), MEANS)  # (M, 3, 8, 8)
    large = F.interpolate(means, images.shape[1:3], mode="bilinear", align_corners=False)
    return large.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def planes(images: np.ndarray) -> Tensor:
    """uint8 (M, S, S, 3) -> float (M, 3, S, S), 0 to 255."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def shuffled_patches(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images uint8 (M, S, S, 3) with their 4 x 4 patches in another order, drawn for each.

    What a side has over a multiple of four stays as it is.
    """
    patch = images.shape[1] // PATCHES
    inner = patch * PATCHES
    shuffled = images.copy()
    for image in shuffled:
        cut = image[:inner, :inner].reshape(PATCHES, patch, PATCHES, patch, 3).swapaxes(1, 2)
        mixed = rng.permutation(cut.reshape(PATCHES**2, patch, patch, 3))
        mixed = mixed.reshape(PATCHES, PATCHES, patch, patch, 3).swapaxes(1, 2)
        image[:inner, :inner] = mixed.reshape(inner, inner, 3)
    return shuffled


def blobs(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images uint8 (M, S, S, 3) of six round blobs, in colours of pixels of the image itself."""
    count, side = images.shape[:2]
    flat = images.reshape(count, -1, 3).astype(float)
    picked = rng.integers(flat.shape[1], size=(count, BLOBS + 1))
    colours = flat[np.arange(count)[:, None], picked]  # (M, 7, 3)
    rows, columns = np.mgrid[:side, :side]  # (S, S) each
    drawn = np.broadcast_to(colours[:, 0, None, None], images.shape).copy()  # (M, S, S, 3)
    for number in range(1, BLOBS + 1):
        y, x = rng.uniform(0, side, (2, count, 1, 1))
        width = side * rng.uniform(NARROWEST, WIDEST, (count, 1, 1))
        cover = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))  # (M, S, S)
        drawn += cover[..., None] * (colours[:, number, None, None] - drawn)
    return drawn.round().astype(np.uint8)
