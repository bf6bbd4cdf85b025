"""How both stages are trained: their objectives, the loop that they share, and what each stage draws.

Shape letters: B batch, N trajectories, T frames, P nodes, F fields, G field groups, L latent numbers a group, K parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.parallel import Follower, World
from common.run import Run, progress, tensors
from final_project.autoencoder import Autoencoder, MeshAutoencoder
from final_project.config import Config, tricks_of
from final_project.data import Flow
from final_project.metrics import squared_relative_l2
from final_project.models import (
    build_autoencoder,
    build_temporal,
    decode,
    encode,
    geometry,
    predict,
)
from final_project.rollout import after_own_steps, pushforward, teacher_forcing, unrolled
from final_project.sea import Temporal

ALONE = World()


class CodeError(nn.Module):
    """Stage one's objective: the error of the frames (B, P, F) that come back."""

    def __init__(self, autoencoder: MeshAutoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, frames: Tensor) -> Tensor:
        return self.autoencoder.reconstruction_loss(frames)


class StepError(nn.Module):
    """Stage two's objective on true latents z (B, T, G, L): the next latent from noisy ones, from the model's own, and whole rollouts."""

    def __init__(self, temporal: Temporal, tricks: tuple[str, ...], rollout_steps: int):
        super().__init__()
        self.temporal, self.tricks, self.rollout_steps = temporal, tricks, rollout_steps

    def forward(self, z: Tensor, theta: Tensor, noise: Tensor, rolling: bool) -> Tensor:
        loss = teacher_forcing(self.temporal, z, theta, noise)
        if "pushforward" in self.tricks:
            loss = loss + pushforward(self.temporal, z, theta)
        if rolling:
            # errors grow along a rollout: divided by its length they are about as large as the others, so that Adam's scales hold
            loss = (
                loss
                + unrolled(self.temporal, z[:, : self.rollout_steps + 1], theta, self.rollout_steps)
                / self.rollout_steps
            )
        return loss


class OwnStepError(nn.Module):
    """Stage two's objective of models that read one frame: the next latent, `ahead` own steps after noisy true ones."""

    def __init__(self, temporal: Temporal):
        super().__init__()
        self.temporal = temporal

    def forward(self, z: Tensor, theta: Tensor, noise: Tensor, ahead: int) -> Tensor:
        return after_own_steps(self.temporal, z, theta, noise, ahead)


def optimisers_of(
    network: nn.Module, lr: float, weight_decay: float, muon: bool
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, with steps as large as AdamW's (Jordan et al. 2024; Liu et al. 2025, section 2.2), AdamW for the rest."""
    inside = [
        weight
        for name, weight in network.named_parameters()
        if muon and weight.ndim == 2 and name.startswith("blocks.")
    ]
    others = [
        weight for weight in network.parameters() if not any(weight is each for each in inside)
    ]
    adamw = torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay, fused=True)
    return (
        [
            adamw,
            torch.optim.Muon(
                inside, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
        ]
        if inside
        else [adamw]
    )


def optimise(
    config: Config,
    run: Run | Follower,
    name: str,
    network: nn.Module,
    objective: nn.Module,
    total: int,
    lr: float,
    constant: bool,
    draw: Callable[[int], tuple],
    judge: Callable[[], float],
    world: World,
) -> dict[str, Any]:
    """The loop of both stages on objective(*draw(step)), and the weights with the least `judge()` -> {"weights", "seconds", "error"}."""
    start, before, done, best, kept = time.perf_counter(), 0.0, 0, np.inf, network.state_dict()
    optimisers = optimisers_of(
        network, lr, 0.0 if constant else config.weight_decay, muon=not constant
    )
    if state := run.load(name):
        done, before, best, kept = (
            state["step"],
            state["seconds"],
            state["best"],
            tensors(state["kept"]),
        )
        network.load_state_dict(tensors(state["network"]))
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(tensors(saved))
    learner = nn.parallel.DistributedDataParallel(objective) if world.size > 1 else objective

    def save() -> None:
        run.save(
            name,
            {
                "step": done,
                "seconds": before + time.perf_counter() - start,
                "best": best,
                "kept": kept,
                "network": network.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
            },
        )

    every = max(1, total // 8)
    with run.stoppable(save) as stop_here:
        for now in progress(range(done, total), name):
            network.train()
            for group in [group for optimiser in optimisers for group in optimiser.param_groups]:
                group["lr"] = (
                    lr
                    if constant
                    else lr
                    * min(1, (now + 1) / config.warmup)
                    * (1 + np.cos(np.pi * now / total))
                    / 2
                )
            loss = learner(*draw(now))
            loss.backward()
            if not constant:
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
            done = now + 1
            stop_here(done, loss.item())
            if done % every == 0 or done == total:
                error = judge()
                run.log(done, 0, "train", **{f"loss, {name}": loss.item()})
                run.log(done, 0, "validation", **{name: error})
                if error < best or not np.isfinite(best):
                    best, kept = (
                        error,
                        {key: value.clone() for key, value in network.state_dict().items()},
                    )
                save()
    return {"weights": kept, "seconds": before + time.perf_counter() - start, "error": best}


def train_autoencoder(
    config: Config,
    run: Run | Follower,
    published: bool,
    flow: Flow,
    groups: tuple[tuple[int, ...], ...],
    fields: np.ndarray,
    judged: np.ndarray,
    device: str,
    world: World = ALONE,
) -> dict[str, Any]:
    """Stage one on training trajectories (N, T, P, F) only; `judged` are the validation trajectories."""
    torch.manual_seed(config.seed)
    model = build_autoencoder(config, published, flow.coordinates, groups)
    frames = torch.from_numpy(fields.reshape(-1, *fields.shape[2:]))
    if isinstance(model, Autoencoder):
        model.fit_linear(frames)
    model.to(device)
    frames, batch = frames.to(device), 128 if published else config.autoencoder_batch
    (part,) = world.share(batch, 1)

    def draw(step: int) -> tuple[Tensor]:
        rows = np.random.default_rng((config.seed, 61, step)).integers(len(frames), size=batch)[
            part
        ]
        return (frames[torch.from_numpy(rows).to(device)],)

    def judge() -> float:
        moved = judged[:, 1:]  # a flow that starts from rest has no relative error there
        return float(squared_relative_l2(decode(model, encode(model, moved)), moved).mean())

    steps, lr = (
        (config.published_autoencoder_steps, 1e-4)
        if published
        else (config.autoencoder_steps, config.autoencoder_lr)
    )
    name = f"autoencoder error, {'as published' if published else 'own'}"
    return optimise(
        config, run, name, model, CodeError(model), steps, lr, published, draw, judge, world
    )


def train_temporal(
    config: Config,
    run: Run | Follower,
    name: str,
    seed: int,
    autoencoder: MeshAutoencoder,
    coordinates: np.ndarray,
    fields: np.ndarray,
    theta: np.ndarray,
    judged: np.ndarray,
    judged_theta: np.ndarray,
    device: str,
    world: World = ALONE,
) -> dict[str, Any]:
    """Stage two on the frozen codes of training trajectories (N, T, P, F) with parameters (N, K) on nodes (P, 2)."""
    published, tricks = name == "as published", tricks_of(name)
    z, told = (
        encode(autoencoder, fields),
        torch.from_numpy(theta).float().to(device),
    )  # (N, T, G, L), (N, K)
    torch.manual_seed(1000 * config.seed + seed)
    groups, latents = z.shape[2:]
    model = build_temporal(config, name, groups, latents, theta.shape[1]).to(device)
    model.fit(z, told, geometry(config, autoencoder, coordinates))
    steps, lr, batch, window, first_share = (
        config.steps,
        config.lr,
        config.batch,
        config.window,
        config.first_share,
    )
    if published:
        steps, lr, batch, window = config.published_steps, 1e-4, min(2, len(z)), z.shape[1]
    elif model.config.patches:
        steps, batch, window, first_share = (
            config.patch_steps,
            config.patch_batch,
            1 + config.patch_ahead,
            config.patch_first_share,
        )
    length = min(z.shape[1], window + 1)
    rollout_steps = min(config.rollout_steps, length - 1)
    (part,) = world.share(batch, 1)

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor, bool | int]:
        rng = np.random.default_rng((config.seed, 62, seed, step))
        chosen, begins = (
            rng.integers(len(z), size=batch),
            rng.integers(z.shape[1] - length + 1, size=batch),
        )
        begins[rng.random(batch) < first_share] = 0
        size = (
            config.noise * rng.random((batch, 1, 1, 1), np.float32)
            if "noise" in tricks
            else np.zeros((batch, 1, 1, 1), np.float32)
        )
        drawn = size * rng.standard_normal((batch, length - 1, *z.shape[2:]), np.float32)
        rows, starts, noise = (
            torch.from_numpy(value[part]).to(device) for value in (chosen, begins, drawn)
        )
        window = z[
            rows[:, None], starts[:, None] + torch.arange(length, device=device)
        ]  # (B, T, G, L)
        told_here, noise = told[rows], noise * model.delta_std
        if model.config.patches:
            ahead = int(rng.integers(length - 1))
            return window[:, : ahead + 2], told_here, noise, ahead
        return (
            window,
            told_here,
            noise,
            "rollout" in tricks and step >= (1 - config.rollout_share) * steps,
        )

    def judge() -> float:
        guess = predict(autoencoder, model, judged[:, 0], judged_theta, judged.shape[1] - 1)
        return float(
            squared_relative_l2(
                np.nan_to_num(np.clip(guess, -1e6, 1e6), nan=1e6), judged[:, 1:]
            ).mean()
        )

    return optimise(
        config,
        run,
        f"rollout error, {name}, seed {seed}",
        model,
        OwnStepError(model) if model.config.patches else StepError(model, tricks, rollout_steps),
        steps,
        lr,
        published,
        draw,
        judge,
        world,
    )
