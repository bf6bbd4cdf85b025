"""Multistep schemes and rotating pairs, on flows whose steps are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from common.cli import InputError
from final_project.config import Config
from final_project.factory import Sizes, architecture, build_temporal
from final_project.rollout import rollout
from final_project.stepping import Phase, adams_bashforth, turn
from tests.final_project.models import SMALL, latents, named, small

RATES = torch.tensor([[-0.2, -1.0], [1.0, -0.1]], dtype=torch.float64)  # of z' = A z


def integrated(step: float, time: float, multistep: bool) -> Tensor:
    """z (2,) at a time, from z' = A z."""
    z = torch.tensor([[[1.0, 0.5]]], dtype=torch.float64)  # (B, T, 2)
    before = None
    for _ in range(round(time / step)):
        change = step * z @ RATES.T
        z = z + (adams_bashforth(change, before) if multistep else change)
        before = change
    return z[0, 0]


@pytest.mark.parametrize(("multistep", "order"), [(True, 2), (False, 1)])
def test_the_order_of_a_scheme_on_a_linear_equation(multistep, order):
    start = torch.tensor([1.0, 0.5], dtype=torch.float64)
    exact = torch.linalg.matrix_exp(2 * RATES) @ start
    errors = [(integrated(h, 2.0, multistep) - exact).norm().item() for h in (0.02, 0.01, 0.005)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert rates == pytest.approx([order, order], abs=0.1)


def test_a_change_that_grows_linearly_is_added_up_exactly():
    time = torch.arange(10, dtype=torch.float64)[None, :, None]
    added = adams_bashforth(time, torch.tensor([[[-1.0]]], dtype=torch.float64))
    assert torch.allclose(added, time + 0.5)  # the integral of t from t to t + 1
    assert adams_bashforth(time + 3, None)[0, 0].item() == 3  # the first step is Euler's


@pytest.mark.parametrize("change", [{}, {"patches": 2}], ids=named)
def test_a_multistep_model_adds_up_the_changes_that_its_twin_predicts(change):
    twin = small(**change)
    model = small(**change, scheme="Adams-Bashforth")
    model.load_state_dict(twin.state_dict())
    z, theta = latents()
    f = twin(z, theta) - z  # (B, T, G, L)
    following = model(z, theta)
    assert torch.allclose(following[:, 0], z[:, 0] + f[:, 0], atol=1e-5)
    by_hand = z[:, 1:] + 1.5 * f[:, 1:] - 0.5 * f[:, :-1]
    assert torch.allclose(following[:, 1:], by_hand, atol=1e-5)


def test_a_turn_keeps_norms_composes_and_turns_back():
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn(5, 6, generator=generator)
    one, other = torch.randn(2, 5, 3, generator=generator)
    turned = turn(pairs, one)
    norms = [x.unflatten(1, (3, 2)).norm(dim=2) for x in (pairs, turned)]
    assert torch.allclose(*norms, atol=1e-6)
    assert torch.allclose(turn(turned, other), turn(pairs, one + other), atol=1e-6)
    assert torch.allclose(turn(turned, -one), pairs, atol=1e-6)
    quarter = turn(torch.tensor([[1.0, 0.0]]), torch.tensor([[torch.pi / 2]]))
    assert torch.allclose(quarter, torch.tensor([[0.0, 1.0]]), atol=1e-6)


def wakes(frames: int, theta: Tensor) -> Tensor:
    """Latents (N, T, 2, 12) whose two pairs per group turn at rates linear in theta (N, 1)."""
    directions = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))[0]
    time = torch.arange(frames)
    slow = (0.2 + 0.05 * theta) * time  # (N, T)
    circles = [4 * slow.cos(), 4 * slow.sin(), (2 * slow).cos(), (2 * slow).sin()]
    group = torch.stack(circles, dim=2) @ directions[:4] + 1.5  # (N, T, 12)
    return torch.stack([group, -0.3 * group], dim=2)


@pytest.mark.parametrize("patches", [0, 4])
def test_an_untrained_model_with_phase_follows_a_wake_whose_rate_is_linear_in_the_parameter(
    patches,
):
    theta = torch.tensor([[-1.0], [0.0], [1.0], [2.0]])
    config = replace(SMALL, phase=2, patches=patches)
    torch.manual_seed(0)
    model = build_temporal(config, Sizes(2, 12, 1)).eval()
    model.fit(wakes(200, theta), theta)
    unseen = torch.tensor([[0.6]])
    truth = wakes(101, unseen)
    found = rollout(model, truth[:, 0], unseen, 100)
    size = (truth - truth.mean(1, keepdim=True)).abs().amax()
    assert (found - truth[:, 1:]).abs().amax() < 0.05 * size

    # without the pairs it stays where it was
    still = build_temporal(replace(config, phase=0), Sizes(2, 12, 1)).eval()
    still.fit(wakes(200, theta), theta)
    assert (rollout(still, truth[:, 0], unseen, 100) - truth[:, 1:]).abs().amax() > size


def test_turning_pairs_do_without_parameters_and_turn_nothing_before_they_are_fitted():
    z, _ = latents()
    phase = Phase(2, 6, 0, 9)  # (more pairs than there are numbers)
    none = torch.zeros(3, 0)
    assert phase.analysis.shape == (2, 6, 6)
    assert torch.equal(phase(z, none), z)
    phase.fit(z, none)
    assert not torch.allclose(phase(z, none), z, atol=1e-2)


def test_the_options_reach_our_models_of_the_change_alone():
    config = Config(scheme="Adams-Bashforth", phase_pairs=3, unroll_steps=4)
    sizes = Sizes(2, 512, 1)
    for name, reached in (("SEA", True), ("patch SEA", True), ("own autoencoder", False)):
        wanted = architecture(config, name, sizes)
        expected = ("Adams-Bashforth", 3) if reached else ("Euler", 0)
        assert (wanted.scheme, wanted.phase) == expected
    published = architecture(config, "as published", sizes)
    assert (published.scheme, published.phase) == ("Euler", 0)
    with pytest.raises(InputError, match="models of the change"):
        replace(SMALL, delta=False, phase=1).check(2, 12)
