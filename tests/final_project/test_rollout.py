"""Rollouts and the losses that make long ones hold, on a rule that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from common.cli import InputError
from final_project.rollout import (
    after_own_steps,
    after_unroll,
    pushforward,
    rollout,
    teacher_forcing,
    unrolled,
)
from final_project.temporal import Temporal
from tests.final_project.models import SMALL, latents, named, small


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"window": 3},
        {"exchange": "sequential"},
        {"exchange": "none", "joint": True},
        {"scheme": "Adams-Bashforth"},
        {"phase": 2},
        {"patches": 2, "scheme": "Adams-Bashforth", "phase": 1},
    ],
    ids=named,
)
def test_a_cached_rollout_is_the_recomputed_one(change):
    model = small(**change).train()
    z, theta = latents()
    fast, slow = (rollout(model, z[:, 0], theta, 9, cached=cached) for cached in (True, False))
    assert fast.shape == (3, 9, 2, 6)
    assert torch.allclose(fast, slow, atol=1e-5)
    assert model.training
    assert not fast.requires_grad


class Exact(nn.Module):
    """Knows the rule z_(t+1) = z_t + theta, as a cached model."""

    bundle = 1

    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.ones(2, 6))
        self.bend = nn.Parameter(torch.zeros(()))

    def forward(self, z, theta):
        return z + theta[:, None, None, :1] + self.bend

    def bundled(self, z, theta):
        return self(z, theta)[:, :, None]

    def advance(self, z, theta, cache=None):
        return self(z, theta), cache

    def step(self, z, theta, cache=None):
        return z + theta[:, None, :1] + self.bend, cache


def straight() -> tuple[torch.Tensor, torch.Tensor]:
    z, theta = latents()
    return z[:, :1] + torch.arange(12.0)[:, None, None] * theta[:, None, None, :1], theta


def test_a_perfect_model_costs_nothing():
    z, theta = straight()
    model = Exact()
    for loss in (
        teacher_forcing(model, z, theta),
        pushforward(model, z, theta),
        pushforward(model, z, theta, 3),
        unrolled(model, z, theta, 4, 2),
        *(
            after_own_steps(model, z, theta, torch.zeros_like(z[:, :-1]), ahead)
            for ahead in (0, 1, 3)
        ),
        after_unroll(model, z, theta, torch.zeros_like(z[:, :-1]), 4, 3),
    ):
        assert loss.item() == pytest.approx(0.0, abs=1e-10)


def test_errors_add_up_over_passes_and_steps():
    z, theta = straight()
    model = Exact()
    model.bend.data.fill_(0.1)  # every step is 0.1 too high
    assert teacher_forcing(model, z, theta).item() == pytest.approx(0.01, rel=1e-3)
    # frame 0 is true: the first of 11 predictions is off by 0.1, the others by 0.2
    loss = pushforward(model, z, theta)
    assert loss.item() == pytest.approx((0.01 + 10 * 0.04) / 11, rel=1e-3)
    loss.backward()
    assert model.bend.grad.item() == pytest.approx(
        2 * (0.1 + 10 * 0.2) / 11, rel=1e-3
    )  # the last pass only
    model.bend.grad = None
    loss = unrolled(model, z, theta, 3)
    assert loss.item() == pytest.approx((0.01 + 0.04 + 0.09) / 3, rel=1e-3)
    loss.backward()
    assert model.bend.grad.item() == pytest.approx(
        2 * (0.1 + 2 * 0.2 + 3 * 0.3) / 3, rel=1e-3
    )  # through all steps
    model.bend.grad = None
    loss = after_own_steps(model, z, theta, torch.zeros_like(z[:, :-1]), 2)
    assert loss.item() == pytest.approx(0.09, rel=1e-3)  # two own steps and the one that learns
    loss.backward()
    assert model.bend.grad.item() == pytest.approx(2 * 0.3, rel=1e-3)


class Bundles(Exact):
    """Predicts three frames at once, each 0.1 too high for every step that leads to it."""

    bundle = 3

    def __init__(self):
        super().__init__()
        self.bend.data.fill_(0.1)

    def bundled(self, z, theta):
        frames = []
        for _ in range(3):
            frames.append(self((frames or [z])[-1], theta))
        return torch.stack(frames, dim=2)


def test_own_steps_of_a_bundle_start_at_every_third_frame_and_aim_at_the_next_three():
    z, theta = straight()  # 12 frames
    model = Bundles()
    none = torch.zeros_like(z[:, :-1])
    errors = [0.1, 0.2, 0.3]
    squares = np.square(errors).mean()
    assert after_own_steps(model, z, theta, none, 0).item() == pytest.approx(squares, rel=1e-3)
    later = np.square(np.array(errors) + 0.3).mean()  # after a bundle that ended 0.3 too high
    loss = after_own_steps(model, z, theta, none, 1)
    assert loss.item() == pytest.approx(later, rel=1e-3)
    assert after_own_steps(model, z[:, :7], theta, none, 1).item() == pytest.approx(later, rel=1e-3)


def test_an_unroll_gives_a_gradient_through_its_last_steps_alone():
    z, theta = straight()
    model = Exact()
    model.bend.data.fill_(0.1)
    none = torch.zeros_like(z[:, :-1])

    # the last of three steps: off by 0.3, of which its own 0.1 has a gradient
    loss = after_unroll(model, z, theta, none, ahead=2)
    assert loss.item() == pytest.approx(0.09, rel=1e-3)
    loss.backward()
    assert model.bend.grad.item() == pytest.approx(2 * 0.3, rel=1e-3)
    model.bend.grad = None

    # the last two of three: off by 0.2 and 0.3, with one and two steps of gradient
    loss = after_unroll(model, z, theta, none, ahead=1, graded=2)
    assert loss.item() == pytest.approx((0.04 + 0.09) / 2, rel=1e-3)
    loss.backward()
    assert model.bend.grad.item() == pytest.approx(2 * (0.2 + 2 * 0.3) / 2, rel=1e-3)


@pytest.mark.parametrize("change", [{}, {"scheme": "Adams-Bashforth"}, {"patches": 2}], ids=named)
def test_an_unroll_is_a_rollout_whose_first_steps_are_constants(change):
    model = small(**change)
    z, theta = latents()
    none = torch.zeros_like(z[:, :-1])
    for noise in (0.0, 0.5):
        found = rollout(model, z[:, 0] + noise, theta, 6)
        error = (found - z[:, 1:7]).square() * model.weights
        loss = after_unroll(model, z[:, :7], theta, noise + none, ahead=4, graded=2)
        assert loss.item() == pytest.approx(error[:, 4:].mean().item(), rel=1e-4)
    whole = after_unroll(model, z, theta, none, ahead=0, graded=11)
    assert whole.item() == pytest.approx(unrolled(model, z, theta, 11).item(), rel=1e-5)
    with pytest.raises(InputError, match="there are 12"):
        after_unroll(model, z, theta, none, ahead=9, graded=3)


def test_noise_on_the_input_is_taken_back_out_by_the_target():
    z, theta = latents()
    model = Temporal(SMALL, 2, 6, 2)
    model.fit(z, theta)
    noise = torch.rand(2, 6) * torch.randn(3, 11, 2, 6, generator=torch.Generator().manual_seed(3))
    # the head is zero: the change it should have predicted is z_(t+1) - (z_t + noise)
    by_hand = (model.weights * (z[:, 1:] - (z[:, :-1] + noise)) ** 2).mean()
    assert teacher_forcing(model, z, theta, noise).item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert after_own_steps(model, z, theta, noise, 0).item() == pytest.approx(
        by_hand.item(), rel=1e-5
    )


def test_unrolled_with_the_whole_trajectory_is_a_rollout():
    model = small()
    z, theta = latents()
    by_hand = (model.weights * (rollout(model, z[:, 0], theta, 11) - z[:, 1:]) ** 2).mean()
    assert unrolled(model, z, theta, 11).item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_rollouts_that_do_not_fit_are_refused():
    model = small()
    z, theta = latents()
    with pytest.raises(InputError, match="at least one"):
        rollout(model, z[:, 0], theta, 0)
    with pytest.raises(InputError, match="there are 12"):
        unrolled(model, z, theta, 12)
