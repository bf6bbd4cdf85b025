"""What both stages of training share: their data, one network under training, and its draws.

Shape letters: B batch, N trajectories, T frames, P nodes, F fields, G field groups, L latent
numbers per group, K parameters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.files import tensors
from common.muon import Muon
from common.run import Run, progress
from common.world import World
from final_project.baselines.onestep import Check
from final_project.config import CLOCK, GRADIENT_NORM, MODELS, ModelSpec, Recipe
from final_project.data import Flow, Split
from final_project.factory import Groups, Sizes
from final_project.metrics import REST, squared_relative_l2, vrmse
from final_project.temporal_config import TemporalConfig
from final_project.units import Units

FRAMES, WINDOWS, DROPOUT = 61, 62, 63  # streams of random numbers


@dataclass(frozen=True)
class TrainingFlow:
    """What both stages are trained on, and the trajectories that choose their weights."""

    coordinates: np.ndarray  # float64 (P, 2)
    groups: Groups
    fields: np.ndarray  # float32 or float64 (N, T, P, F), as the data have them
    parameters: np.ndarray  # float64 (N, K)
    validation_fields: np.ndarray  # as fields
    validation_parameters: np.ndarray  # float64 (N, K)
    units: Units  # of the training fields
    dimensionless: bool  # whether the published model reads them as they are

    @classmethod
    def of(cls, flow: Flow, groups: Groups, parts: Split, frames: int) -> TrainingFlow:
        """The training and validation parts of a flow, over its first `frames` frames."""
        fields = flow.fields[parts.train, :frames]
        return cls(
            coordinates=flow.coordinates,
            groups=groups,
            fields=fields,
            parameters=flow.parameters[parts.train],
            validation_fields=flow.fields[parts.validation, :frames],
            validation_parameters=flow.parameters[parts.validation],
            units=Units.of(fields),
            dimensionless=flow.dimensionless,
        )

    def validation_error(self, prediction: np.ndarray, every: int = 1) -> ValidationError:
        """The error of the validation fields (N, T, P, F) after their first frame.

        every : the prediction holds the second frame and each so many-th after it.
        """
        truth = self.validation_fields[:, 1::every]
        squared = []
        chosen = []
        for guess, true in zip(prediction, truth, strict=True):  # in float64 one by one
            bounded = self.units.centred(self.units.bounded(guess))[None]
            normal = self.units.centred(true)[None]
            offset = self.units.mean / self.units.scale
            floor = REST * (1 + offset**2)
            squared.append(squared_relative_l2(bounded, normal, offset, floor))
            chosen.append(vrmse(bounded, normal, pooled=True, floor=REST))
        return ValidationError(float(np.mean(squared)), float(np.mean(chosen)))


@dataclass(frozen=True)
class ValidationError:
    """Errors of rollouts, or of codes, of the validation trajectories; finite if they blew up."""

    squared: float  # squared relative L2, the metric of the tables
    vrmse: float  # what chooses the weights: adding a constant to a field does not change it


@dataclass(frozen=True)
class Job:
    """One training of a temporal model."""

    name: str  # in MODELS
    seed: int
    architecture: TemporalConfig
    sizes: Sizes
    named: str = ""  # its label, where it is not the only training of the model with this seed

    @property
    def spec(self) -> ModelSpec:
        """How the model is made and trained."""
        return MODELS[self.name]

    @property
    def label(self) -> str:
        """The name of its checkpoint and of its validation error in metrics.csv."""
        return self.named or f"rollout error, {self.name}, seed {self.seed}"


@dataclass(frozen=True)
class Fitted:
    """The result of a training, as the run stores it."""

    weights: dict[str, np.ndarray]  # those with the least validation error
    seconds: float
    error: float  # VRMSE on validation
    checking: float = 0.0  # of the seconds, those on validation


# --------------------------------------------------------------------------------- optimising


def optimisers_of(network: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks and AdamW for the rest; published: AdamW alone.

    Muon's steps are as large as AdamW's (Jordan et al. 2024; Liu et al. 2025, section 2.2).
    """
    inside = []
    others = []
    for name, weight in network.named_parameters():
        is_matrix = weight.ndim == 2 and name.startswith("blocks.")
        if is_matrix and not recipe.constant:
            inside.append(weight)
        else:
            others.append(weight)

    decay = recipe.weight_decay
    adamw = torch.optim.AdamW(others, lr=recipe.lr, weight_decay=decay, fused=True)
    if not inside:
        return [adamw]
    muon = Muon(inside, lr=recipe.lr, weight_decay=decay)
    return [adamw, muon]


class Fitting:
    """One network under training: optimisers, schedule, best weights, and its checkpoint.

    It continues from the run's checkpoint of that name where there is one.
    """

    def __init__(self, run: Run, name: str, network: nn.Module, recipe: Recipe):
        self.run = run
        self.name = name
        self.network = network
        self.recipe = recipe
        self.optimisers = optimisers_of(network, recipe)
        self.step = 0  # steps taken
        self.best_error = np.inf
        self.best_weights = network.state_dict()
        self._started = time.perf_counter()
        self._stepped = self._started  # when the last step ended
        self._seconds_before = 0.0
        self.checking = 0.0  # seconds on validation
        self._every = max(1, recipe.steps // recipe.checks)
        self._resume()

    def _resume(self) -> None:
        """Takes up the checkpoint, if there is one."""
        state = self.run.load(self.name)
        if not state:
            return
        self.step = state["step"]
        self._seconds_before = state["seconds"]
        self.checking = state["checking"]
        self.best_error = state["best"]
        self.best_weights = tensors(state["kept"])
        self.network.load_state_dict(tensors(state["network"]))
        for optimiser, stored in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(tensors(stored))

    @property
    def seconds(self) -> float:
        """Time of training so far."""
        return self._seconds_before + time.perf_counter() - self._started

    def save(self) -> None:
        """Writes the checkpoint."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "checking": self.checking,
            "best": self.best_error,
            "kept": self.best_weights,
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        self.run.save(self.name, state)

    def remaining(self) -> Iterator[int]:
        """The numbers of the steps to take, under a progress bar."""
        for step in progress(range(self.step, self.recipe.steps), self.name):
            self.network.train()
            self._set_learning_rate(step)
            yield step

    def _set_learning_rate(self, step: int) -> None:
        """Linear warm-up, then a cosine to zero; published: constant."""
        recipe = self.recipe
        rate = recipe.lr
        if not recipe.constant:
            warmup = min(1, (step + 1) / recipe.warmup)
            rate = recipe.lr * warmup * (1 + np.cos(np.pi * step / recipe.steps)) / 2
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate

    def descend(self, loss: Tensor) -> None:
        """One step down the gradient of a loss."""
        loss.backward()
        if not self.recipe.constant:
            nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        self._stepped = time.perf_counter()

    @property
    def is_due(self) -> bool:
        """Whether the network is to be validated now."""
        return self.step % self._every == 0 or self.step == self.recipe.steps

    def validated(self, loss: float, error: ValidationError) -> None:
        """Logs loss and validation errors, keeps the weights with the least VRMSE, and saves."""
        log_validation(self.run, self.name, Check(self.step, self.seconds, loss), error)
        if error.vrmse < self.best_error or not np.isfinite(self.best_error):
            self.best_error = error.vrmse
            weights = self.network.state_dict()
            self.best_weights = {name: value.clone() for name, value in weights.items()}
        self.checking += time.perf_counter() - self._stepped
        self.save()

    def result(self) -> Fitted:
        """The best weights."""
        return Fitted(self.best_weights, self.seconds, self.best_error, self.checking)


def log_validation(run: Run, name: str, check: Check, error: ValidationError) -> None:
    """Logs a check of a training: its loss, errors on validation, and seconds (split CLOCK)."""
    run.log(check.step, 0, "train", **{f"loss, {name}": check.loss})
    run.log(check.step, 0, "validation", **{name: error.squared})
    run.log(check.step, 0, "validation", **{f"VRMSE, {name}": error.vrmse})
    run.log(check.step, 0, CLOCK, **{name: check.seconds})


def distributed(objective: nn.Module, world: World) -> nn.Module:
    """The objective, with gradients averaged over all processes."""
    return nn.parallel.DistributedDataParallel(objective) if world.size > 1 else objective


# -------------------------------------------------------------------------------------- draws


@dataclass(frozen=True)
class Windows:
    """Batches of windows of latent trajectories; each is a function of the seeds and the step."""

    z: Tensor  # (N, T, G, L)
    theta: Tensor  # (N, K)
    recipe: Recipe
    seeds: tuple[int, int]  # of the run and of the training
    noise: float | None  # largest standard deviation, over that of a step's change
    delta_std: Tensor  # (G, L)
    share: slice  # the rows of a batch that this process works on

    def most_ahead(self, step: int) -> int:
        """The largest number of own steps between the data and the inputs of a step.

        Unrolls grow linearly from none.
        """
        recipe = self.recipe
        if not recipe.unroll:
            return (self.length - 1) // recipe.bundle - 1
        growing = recipe.growth * recipe.steps
        share = min(1.0, step / growing) if growing else 1.0
        return round(recipe.unroll * share)

    @property
    def length(self) -> int:
        """Frames of a window: inputs and the target of the last."""
        frames = self.z.shape[1]
        return frames if self.recipe.window is None else min(frames, self.recipe.window + 1)

    def seed_of_dropout(self, step: int) -> int:
        """The seed of a step's dropout: a resumed training drops what an unbroken one does."""
        run_seed, seed = self.seeds
        entropy = (run_seed, DROPOUT, seed, step, self.share.start or 0)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def draw(self, step: int) -> Batch:
        """The batch of a step."""
        size = self.recipe.batch
        run_seed, seed = self.seeds
        rng = np.random.default_rng((run_seed, WINDOWS, seed, step))

        # which windows:
        rows = rng.integers(len(self.z), size=size)
        starts = rng.integers(self.z.shape[1] - self.length + 1, size=size)
        starts[rng.random(size) < self.recipe.first_share] = 0

        # noise of a random size per window:
        deviation = np.zeros((size, 1, 1, 1), np.float32)
        if self.noise is not None:
            deviation = self.noise * rng.random((size, 1, 1, 1), np.float32)
        shape = (size, self.length - 1, *self.z.shape[2:])
        noise = deviation * rng.standard_normal(shape, np.float32)
        ahead = int(rng.integers(self.most_ahead(step) + 1))

        # the rows of this process:
        mine = self._on_device(rows)
        frames = self._on_device(starts)[:, None] + torch.arange(self.length, device=self.z.device)
        return Batch(
            z=self.z[mine[:, None], frames],
            theta=self.theta[mine],
            noise=self._on_device(noise) * self.delta_std,
            ahead=ahead,
        )

    def _on_device(self, values: np.ndarray) -> Tensor:
        """This process's share of a batch."""
        return torch.from_numpy(values[self.share]).to(self.z.device)


@dataclass(frozen=True)
class Batch:
    """Windows of latent trajectories."""

    z: Tensor  # (B, T, G, L)
    theta: Tensor  # (B, K)
    noise: Tensor  # (B, T - 1, G, L), in the units of z
    ahead: int  # own steps between the data and the inputs
