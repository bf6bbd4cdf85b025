"""One-step models on a grid or on the mesh's nodes: their training and their rollouts.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, S steps, B batch; X stands
for the points that a network reads, the rows and columns (R, C) of a grid or the nodes (P); k
frames that a step predicts at once (a bundle, Brandstetter et al. 2022, section 3.2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from common.cli import InputError
from common.weights import count_parameters
from final_project.baselines.grid import Grid, Nodes
from final_project.baselines.inputs import Flows, checked, checked_start
from final_project.config import OneStepRecipe
from final_project.units import Units, coarse


class Stepper(nn.Module):
    """State (B, F, X) -> the next k: state + jump * network([state, static, theta]).

    `static` (3, X) are x, y and the mask of a grid, or the rim of a mesh; `jump` (F,) is the RMS
    change over k frames, so that a network's outputs are of order 1.
    """

    static: Tensor
    jump: Tensor

    def __init__(self, network: nn.Module, static: Tensor, jump: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("static", static)
        self.register_buffer("jump", jump.reshape(-1, *(1 for _ in static.shape[1:])))

    def forward(self, state: Tensor, theta: Tensor) -> Tensor:
        """The states (B, k, F, X) after one, given theta (B, K) at every point."""
        size = (len(state), -1, *state.shape[2:])
        flat = theta.reshape(*theta.shape, *(1 for _ in state.shape[2:]))
        everywhere = flat.expand(size)  # (B, K, X)
        inputs = torch.cat([state, self.static.expand(size), everywhere], 1)
        change = self.network(inputs).unflatten(1, (-1, state.shape[1]))  # (B, k, F, X)
        return state[:, None] + self.jump * change

    @torch.no_grad()
    def rollout(self, state: Tensor, theta: Tensor, steps: int) -> Iterator[Tensor]:
        """Yields the S states (B, F, X) after the given one."""
        while steps > 0:
            following = self(state, theta)[:, :steps]
            yield from following.unbind(1)
            state = following[:, -1]
            steps -= following.shape[1]


@dataclass(frozen=True)
class Check:
    """Where a training is when its weights are judged."""

    step: int
    seconds: float
    loss: float


Score = Callable[[Check], float]


@dataclass(frozen=True)
class Training:
    """What a training reports."""

    seconds: float
    loss: float  # of the last step
    validation: float | None  # of the weights that are kept; None where every rollout blew up
    checking: float = 0.0  # of the seconds, those on validation


@dataclass(frozen=True)
class Draws:
    """The random numbers of a training."""

    rng: np.random.Generator
    generator: torch.Generator

    def transitions(
        self, states: Tensor, recipe: OneStepRecipe
    ) -> tuple[Tensor, Tensor, np.ndarray, int]:
        """Noisy states (B, F, X) of (N, T, F, X), the states (B, k, F, X) after `ahead` steps more,
        their trajectories (B,), and `ahead`: how many own steps lie between."""
        k = recipe.bundle
        frames = states.shape[1]
        ahead = min(int(self.rng.integers(recipe.pushforward + 1)), (frames - 1) // k - 1)
        rows = self.rng.integers(len(states), size=recipe.batch)
        starts = self.rng.integers(frames - (ahead + 1) * k, size=recipe.batch)
        start = states[rows, starts]
        noise = torch.randn(start.shape, generator=self.generator)
        following = starts[:, None] + ahead * k + 1 + np.arange(k)  # (B, k)
        return start + recipe.noise * noise, states[rows[:, None], following], rows, ahead


def train(
    stepper: Stepper,
    states: Tensor,
    theta: Tensor,
    recipe: OneStepRecipe,
    score: Score | None = None,
) -> Training:
    """Trains in place on normalised states (N, T, F, X) and theta (N, K).

    The loss is the mean squared error in units of `jump`. `score` tells an error of the present
    weights; the best ones are kept (the last ones without it, or where no error is finite). Same
    recipe, same weights. Raises FloatingPointError for a loss that is not finite.
    """
    device = stepper.static.device
    draws = Draws(np.random.default_rng(recipe.seed), torch.Generator().manual_seed(recipe.seed))
    optimiser = torch.optim.AdamW(stepper.parameters(), weight_decay=recipe.weight_decay)
    marks = list(np.linspace(0, 1, recipe.checks + 1)[1:]) if score else []
    best = np.inf
    best_weights = None
    checking = 0.0
    started = time.perf_counter()
    for step in range(recipe.steps):
        # a batch of transitions, some of them after a step of the model's own:
        start, target, rows, ahead = draws.transitions(states, recipe)
        state = start.to(device)  # (B, F, X)
        parameters = theta[rows].to(device)  # (B, K)
        for following in stepper.rollout(state, parameters, ahead * recipe.bundle):
            state = following

        # error of the next states:
        error = (stepper(state, parameters) - target.to(device)) / stepper.jump
        loss = error.square().mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"{type(stepper.network).__name__}: the loss is {loss.item()} at step {step}; "
                "a smaller lr helps"
            )
        descend(optimiser, loss, learning_rate(recipe, step / recipe.steps))

        # validation:
        progress = (step + 1) / recipe.steps
        if score and marks and progress >= marks[0]:
            marks = [mark for mark in marks if mark > progress]
            asked = time.perf_counter()
            found = score(Check(step + 1, asked - started, loss.item()))
            checking += time.perf_counter() - asked
            if found < best:
                best = found
                weights = stepper.state_dict()
                best_weights = {name: value.clone() for name, value in weights.items()}
    if best_weights:
        stepper.load_state_dict(best_weights)
    seconds = time.perf_counter() - started
    return Training(seconds, loss.item(), best if best_weights else None, checking)


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, lr: float) -> None:
    """One step down the gradient of a loss ()."""
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def learning_rate(recipe: OneStepRecipe, progress: float) -> float:
    """Linear warm-up, then a cosine to zero, at a share `progress` of the training."""
    warmup = min(1, (progress + 0.01) / (recipe.warmup + 0.01))
    return recipe.lr * warmup * (1 + np.cos(np.pi * progress)) / 2


class OneStep:
    """A one-step model on a grid or on nodes; `network(inputs, outputs, *shape)` builds it.

    Fields and parameters are normalised by the training part. A rollout stays on the grid over all
    its steps. `score`, if it is set, chooses the weights in place of the error on the grid.
    """

    def __init__(
        self,
        network: Callable[..., nn.Module],
        grid: Grid | Nodes,
        recipe: OneStepRecipe | None = None,
        device: str = "cpu",
    ):
        self.network = network
        self.grid = grid
        self.recipe = recipe or OneStepRecipe()
        self.device = device
        self.score: Score | None = None

    def fit(
        self, fields: np.ndarray, theta: np.ndarray, validation: Flows | None = None
    ) -> OneStep:
        """Trains; `trained_` is what `train` reports. Raises as `checked` and `train`."""
        fields, theta = checked(fields, theta)
        self.shape_ = fields.shape[2:]
        self.units_ = Units.of(fields)
        self.theta_units_ = Units.of(theta)
        states = self._states(fields)  # (N, T, F, X)
        static = torch.tensor(self.grid.static, dtype=torch.float32)  # (3, X)
        points = tuple(range(3, states.ndim))
        bundle = self.recipe.bundle
        if bundle >= states.shape[1]:
            raise InputError(f"bundles of {bundle} frames: there are {states.shape[1]} frames")
        change = states[:, bundle:] - states[:, :-bundle]
        jump = change.square().mean((0, 1, *points)).sqrt()  # (F,)

        outputs = bundle * fields.shape[-1]
        inputs = fields.shape[-1] + len(static) + theta.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            network = self.network(inputs, outputs, *self.grid.shape)
        self.parameters_ = count_parameters(network)
        self.stepper_ = Stepper(network, static, torch.where(jump > 0, jump, 1.0)).to(self.device)

        score = self.score
        if score is None and validation is not None:
            known_fields, known_theta = checked(*validation)
            score = partial(self._error, self._states(known_fields), self._theta(known_theta))
        self.trained_ = train(self.stepper_, states, self._theta(theta), self.recipe, score)
        return self

    def rollout(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """(N, P, F), (N, K) -> (N, S, P, F). Raises InputError as `checked_start`."""
        parameters = len(self.theta_units_.mean)
        first, theta = checked_start(first, theta, steps, self.shape_, parameters)
        fields = np.empty((len(first), steps, *self.shape_), first.dtype)
        for rows in np.array_split(np.arange(len(first)), -(-len(first) // self.recipe.batch)):
            state = self._states(first[rows]).to(self.device)  # (B, F, X)
            known = self._theta(theta[rows]).to(self.device)  # (B, K)
            for step, following in enumerate(self.stepper_.rollout(state, known, steps)):
                grids = following.cpu().numpy()
                fields[rows, step] = self.units_.physical(self.grid.to_nodes(grids))
        return fields

    def _states(self, fields: np.ndarray) -> Tensor:
        """(N, ..., P, F) -> normalised float32 (N, ..., F, X).

        One trajectory at a time: float64 copies of all would be large.
        """
        parts = (coarse(self.units_.standardise(part)) for part in fields)
        grids = [self.grid.to_grid(part) for part in parts]
        return torch.stack([torch.tensor(each, dtype=torch.float32) for each in grids])

    def _theta(self, theta: np.ndarray) -> Tensor:
        """Normalised parameters, float32 (N, K)."""
        return torch.tensor(self.theta_units_.standardise(theta), dtype=torch.float32)

    def _error(self, states: Tensor, theta: Tensor, _: Check) -> float:
        """Mean squared error of whole rollouts of (N, T, F, X), in normalised fields."""
        total = 0.0
        path = states.to(self.device)
        steps = states.shape[1] - 1
        rollout = self.stepper_.rollout(path[:, 0], theta.to(self.device), steps)
        for step, state in enumerate(rollout, 1):
            total += (state - path[:, step]).square().mean().item()
        return total / steps
