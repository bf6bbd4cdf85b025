"""The arrays that a run leaves for its figures: sampled pictures and distances.

Shape letters: N images, S side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from assignment5.config import PICTURED, Sampling, samples_key, training_name
from assignment5.data import Parts
from assignment5.denoiser import Denoiser
from assignment5.feature_net import FeatureSpace
from assignment5.quality import nearest, nearest_distance
from assignment5.sampling import noise_set, sample, sphere, trajectory
from common.run import progress

SHOWN = 48  # samples in a grid
STEP_COUNTS = (1, 2, 3, 5, 10, 20, 50)
FRAMES = 25  # of the trajectory
PAIRS = 4  # of noises to interpolate between
CLOSEST = 24  # samples that are shown beside a training image
STATIONS = 9  # images of an interpolation


def pictures(denoisers: Sequence[Denoiser]) -> dict[str, np.ndarray]:
    """Arrays uint8: samples of every network, and of the first: steps, trajectory, interpolation.

    samples | <network> | <recipe> (48, S, S, 3); step_counts (7,); steps (7, 6, S, S, 3);
    trajectory (25, 10, S, S, 3); interpolation (4, 9, S, S, 3).
    """
    first = denoisers[0]
    side = first.config.side
    noises = noise_set(0, SHOWN, side)
    arrays: dict[str, np.ndarray] = {}
    for denoiser in progress(denoisers, "figures"):
        key = samples_key(denoiser.config.network, denoiser.recipe)
        arrays[key] = sample(denoiser.model, noises, PICTURED, denoiser.bfloat16)

    def drawn(noises: torch.Tensor, steps: int) -> np.ndarray:
        return sample(first.model, noises, Sampling("ddim", steps), first.bfloat16)

    arrays["step_counts"] = np.array(STEP_COUNTS)
    arrays["steps"] = np.stack([drawn(noises[:6], steps) for steps in STEP_COUNTS])
    arrays["trajectory"] = trajectory(first.model, noises[:10], FRAMES, first.bfloat16)
    ways = [sphere(noises[2 * pair], noises[2 * pair + 1], STATIONS) for pair in range(PAIRS)]
    between = drawn(torch.cat(ways), PICTURED.steps)  # (36, S, S, 3)
    arrays["interpolation"] = between.reshape(PAIRS, STATIONS, side, side, 3)
    return arrays


def distances(
    denoisers: Sequence[Denoiser], space: FeatureSpace, parts: Parts
) -> dict[str, np.ndarray]:
    """float32 (N,) distances to the nearest training image, in features.

    Of the held-out images, and of as many samples of each network.
    """
    train = space.describe(parts.train)

    def distance(images: np.ndarray) -> np.ndarray:
        return nearest_distance(space.describe(images), train).astype(np.float32)

    arrays = {"held-out images": distance(parts.test)}
    noises = noise_set(0, len(parts.test), parts.side)
    for denoiser in denoisers:
        name = training_name(denoiser.config.network, denoiser.recipe)
        arrays[name] = distance(sample(denoiser.model, noises, PICTURED, denoiser.bfloat16))
    return arrays


def closest_pairs(
    denoiser: Denoiser, space: FeatureSpace, train: np.ndarray, count: int
) -> np.ndarray:
    """uint8 (24, 2, S, S, 3): samples nearest to a training image, each beside that image.

    Of `count` samples, the closest first, in features. The training images `train` (N, S, S, 3)
    are other people's: the pairs are for a picture that is not published.
    """
    noises = noise_set(0, count, denoiser.config.side)
    samples = sample(denoiser.model, noises, PICTURED, denoiser.bfloat16)
    distance, found = nearest(space.describe(samples), space.describe(train))
    closest = np.argsort(distance, kind="stable")[:CLOSEST]
    return np.stack([samples[closest], train[found[closest]]], axis=1)
