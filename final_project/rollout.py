"""Rollouts of the temporal model, and the losses that make long ones hold.

Shape letters: B trajectories, T frames, G field groups, L latent numbers per group, K parameters.
Every loss takes latents z (B, T, G, L) of true frames and parameters theta (B, K), and returns a
scalar; `temporal.weights` (G, L) weighs the squared errors.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from common.cli import InputError
from final_project.attention import Cache
from final_project.temporal import TemporalModel


@torch.no_grad()
def rollout(
    temporal: TemporalModel, z0: Tensor, theta: Tensor, steps: int, cached: bool = True
) -> Tensor:
    """The `steps` latents (B, steps, G, L) that follow z0 (B, G, L), without gradient and dropout.

    cached=False feeds the whole prefix again at every step, as the official code does. Raises
    InputError for steps below 1.
    """
    if steps < 1:
        raise InputError(f"{steps} steps: a rollout needs at least one")
    training = temporal.training
    temporal.eval()
    frames = [z0]
    cache: Cache | None = None
    for _ in range(steps):
        if cached:
            following, cache = temporal.step(frames[-1], theta, cache)  # (B, G, L)
        else:
            following = temporal(torch.stack(frames, dim=1), theta)[:, -1]  # (B, G, L)
        frames.append(following)
    temporal.train(training)
    return torch.stack(frames[1:], dim=1)


def weighted_error(temporal: TemporalModel, predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean of the weighted squared error of latents (B, T, G, L)."""
    return (temporal.weights * (predicted - truth).square()).mean()


def teacher_forcing(
    temporal: TemporalModel, z: Tensor, theta: Tensor, noise: Tensor | float = 0.0
) -> Tensor:
    """Error of the next latent when all frames before it are true (published), or noisy.

    `noise` (B, T - 1, G, L) is in the units of z. The target stays the clean next latent, so the
    change to be predicted is z_(t+1) - (z_t + noise): it takes the noise back out (Pfaff et al.
    2021, section A.2.2 with gamma = 1).
    """
    return weighted_error(temporal, temporal(z[:, :-1] + noise, theta), z[:, 1:])


def pushforward(temporal: TemporalModel, z: Tensor, theta: Tensor, passes: int = 1) -> Tensor:
    """Error when the model reads its own predictions, in one more parallel pass: no loop over time.

    The predictions of a pass, without gradient and shifted by a frame, are the input of the next
    pass; frame 0 stays true and the target is the clean next latent (Brandstetter et al. 2022,
    section 3.1, for a whole sequence at once).
    """
    inputs = z[:, :-1]
    with torch.no_grad():
        for _ in range(passes):
            inputs = torch.cat([z[:, :1], temporal(inputs, theta)[:, :-1]], dim=1)
    return weighted_error(temporal, temporal(inputs, theta), z[:, 1:])


def after_own_steps(
    temporal: TemporalModel, z: Tensor, theta: Tensor, noise: Tensor, ahead: int
) -> Tensor:
    """Error of the next k latents after `ahead` steps of the model's own from noisy true frames.

    For models that read one frame and predict k at a time. z (B, T, G, L) has T > (ahead + 1) k
    frames: of the first T - (ahead + 1) k every k-th, plus its noise (B, T - 1, G, L), is stepped
    without gradient; the targets are clean latents (Brandstetter et al. 2022, sections 3.1, 3.2).
    """
    k = temporal.bundle
    starts = torch.arange(0, z.shape[1] - (ahead + 1) * k, k, device=z.device)  # (S,)
    states = z[:, starts] + noise[:, starts]
    with torch.no_grad():
        for _ in range(ahead):
            states = temporal.bundled(states, theta)[:, :, -1]
    following = starts[:, None] + torch.arange(k, device=z.device) + ahead * k + 1  # (S, k)
    return weighted_error(temporal, temporal.bundled(states, theta), z[:, following])


def after_unroll(
    temporal: TemporalModel, z: Tensor, theta: Tensor, noise: Tensor, ahead: int, graded: int = 1
) -> Tensor:
    """Error of the last `graded` latents of an unroll, whose first `ahead` steps give no gradient.

    z (B, T, G, L): the first T - ahead - graded frames are true, plus as many of noise
    (B, T - 1, G, L); from them the model steps on, with its past as in a rollout. Memory does not
    grow with `ahead` (List et al. 2024, arXiv 2402.12971, unrolling without gradients). Raises
    InputError where no true frame is left or no step has a gradient.
    """
    context = z.shape[1] - ahead - graded
    if context < 1 or graded < 1 or ahead < 0:
        raise InputError(
            f"{ahead} steps without and {graded} with gradient need at least one of these and a "
            f"true frame before them; there are {z.shape[1]} frames"
        )
    states = z[:, :context] + noise[:, :context]
    cache: Cache | None = None
    predicted = []
    for number in range(ahead + graded):
        with torch.no_grad() if number < ahead else contextlib.nullcontext():
            following, cache = temporal.advance(states, theta, cache)
        states = following[:, -1:]  # (B, 1, G, L)
        if number >= ahead:
            predicted.append(states)
    return weighted_error(temporal, torch.cat(predicted, dim=1), z[:, context + ahead :])


def unrolled(
    temporal: TemporalModel,
    z: Tensor,
    theta: Tensor,
    steps: int,
    context: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Error of `steps` latents rolled out with gradient through all steps.

    A rollout begins with `context` true frames at a random time of each trajectory. Raises
    InputError where the trajectories are shorter than context + steps or either is below 1.
    """
    spare = z.shape[1] - context - steps
    if spare < 0 or steps < 1 or context < 1:
        raise InputError(
            f"{context} true frames and {steps} steps need as many frames and at least one of "
            f"each; there are {z.shape[1]}"
        )

    # a window of each trajectory:
    start = torch.randint(spare + 1, (len(z), 1), generator=generator, device=z.device)
    rows = torch.arange(len(z), device=z.device)[:, None]
    window = z[rows, start + torch.arange(context + steps, device=z.device)]
    # (B, context + steps, G, L)

    # its rollout:
    out, cache = temporal.advance(window[:, :context], theta)
    predicted = [out[:, -1]]
    while len(predicted) < steps:
        following, cache = temporal.step(predicted[-1], theta, cache)
        predicted.append(following)
    return weighted_error(temporal, torch.stack(predicted, dim=1), window[:, context:])
