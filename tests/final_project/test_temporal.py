"""The temporal model of frames: causality, the cache, its start, its scales."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.cli import InputError
from final_project.rollout import teacher_forcing
from final_project.temporal import Temporal
from final_project.temporal_config import TemporalConfig
from tests.final_project.models import SMALL, VARIANTS, latents, named, small


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("change", VARIANTS, ids=named)
def test_no_output_depends_on_a_later_frame(change, window):
    model = small(latents=8, window=window, **change)
    z, theta = latents(size=8)
    poisoned = z.clone()
    poisoned[:, 7:] = 1e6
    with torch.no_grad():
        clean, other = model(z, theta), model(poisoned, theta)
    assert torch.equal(clean[:, :7], other[:, :7])
    assert not torch.allclose(clean[:, 7], other[:, 7])


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("change", VARIANTS, ids=named)
def test_cached_steps_equal_the_full_forward(change, window):
    model = small(latents=8, window=window, **change)
    z, theta = latents(size=8)
    with torch.no_grad():
        whole, cache = model(z, theta), None
        for time in range(z.shape[1]):
            following, cache = model.step(z[:, time], theta, cache)
            assert torch.allclose(following, whole[:, time], atol=1e-5)
        chunks, cache = [], None
        for chunk in z.split(5, dim=1):
            following, cache = model.advance(chunk, theta, cache)
            chunks.append(following)
        assert torch.allclose(torch.cat(chunks, 1), whole, atol=1e-5)
    assert cache.time == 12
    assert all(
        keys.shape[2] == (12 if window is None else window - 1) for keys, _ in cache.past.values()
    )


def test_a_step_leaves_the_cache_it_was_given_as_it_was():
    model = small()
    z, theta = latents()
    with torch.no_grad():
        _, cache = model.step(z[:, 0], theta)
        first, second = (model.step(z[:, 1], theta, cache)[0] for _ in range(2))
    assert cache.time == 1
    assert torch.equal(first, second)


def test_a_window_hides_what_lies_before_it():
    model = small(window=3, blocks=1)
    z, theta = latents()
    moved = z.clone()
    moved[:, 0] += 1.0
    with torch.no_grad():
        same = (
            torch.isclose(model(z, theta), model(moved, theta), atol=0.0, rtol=0.0)
            .all(3)
            .all(2)
            .all(0)
        )
    # one block reads twice: own past, then the other's states which have read theirs
    assert same.tolist() == [False] * 5 + [True] * 7


def test_ours_begins_as_persistence():
    model = Temporal(SMALL, 2, 6, 2)
    z, theta = latents()
    model.fit(z, theta)
    assert torch.equal(model(z, theta), z)
    assert teacher_forcing(model, z, theta).item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("joint", [False, True])
def test_the_principal_start_embeds_whitened_coefficients_and_spans_the_changes(joint):
    config = replace(SMALL, joint=joint, exchange="none" if joint else "symmetric")
    z, theta = latents(40)
    # changes are not as large as states, nor one group as the other
    z = z.cumsum(1) * torch.tensor([1.0, 5.0])[:, None]
    model = Temporal(config, 2, 6, 2)
    model.fit(z, theta)

    # embedding: no correlation, variance lambda / (sqrt(lambda) + floor)^2
    states = model.embedding((z - model.scales.mean) / model.scales.std)
    numbers = 12 if joint else 6
    for state in states:
        code = state[..., :numbers].flatten(0, 1)  # (N T, numbers)
        covariance = code.T @ code / len(code)
        assert torch.allclose(covariance, torch.diag(covariance.diag()), atol=1e-4)
        assert covariance.diag()[0].item() == pytest.approx(1 / 1.01**2, rel=1e-3)
        assert (covariance.diag().diff() < 1e-6).all()

    # head: coefficients of unit variance come back with the energy of the changes
    change = (z[:, 1:] - z[:, :-1]) * model.weights.sqrt()  # in the loss's units
    scale = (model.scales.delta_std * model.weights.sqrt()).reshape(len(states), -1)
    for number, spread in enumerate(model.head.spread):
        back = spread.weight * scale[number][:, None]
        moved = change.flatten(2) if joint else change[:, :, number]
        moved = moved.flatten(0, 1)  # (N T, numbers)
        assert torch.allclose(back @ back.T, moved.T @ moved / len(moved), rtol=1e-3, atol=1e-4)


def test_every_parameter_of_ours_learns_within_three_steps():
    model = Temporal(SMALL, 2, 6, 2)
    z, theta = latents()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        optimiser.zero_grad()
        teacher_forcing(model, z, theta).backward()
        optimiser.step()
    assert [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ] == []


def test_no_parameters_and_raw_scales():
    for config in (
        replace(SMALL, adaptive=True),
        replace(TemporalConfig.published(), heads=1),
    ):
        model = Temporal(config, 2, 8, 0)
        z, _ = latents(size=8)
        model.fit(z, torch.zeros(3, 0))
        assert model(z, torch.zeros(3, 0)).shape == z.shape
    assert torch.equal(model.scales.std, torch.ones(2, 8))


def test_a_constant_latent_and_a_constant_parameter_keep_their_scale():
    model = Temporal(SMALL, 2, 6, 2)
    z, theta = latents()
    z[:, :, 0] = 3.0
    theta[:, 1] = 7.0
    model.fit(z, theta)
    assert torch.equal(model.scales.std[0], torch.ones(6))
    assert model.scales.theta_std[1] == 1.0
    assert torch.isfinite(model(z, theta)).all()


def test_a_temporal_model_survives_its_file(tmp_path):
    model = small(adaptive=True)
    save_file(model.state_dict(), tmp_path / "temporal.safetensors")
    again = Temporal(model.config, 2, 6, 2).eval()
    again.load_state_dict(load_file(tmp_path / "temporal.safetensors"))
    z, theta = latents()
    with torch.no_grad():
        assert torch.equal(again(z, theta), model(z, theta))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 36, "heads": 4}, "take a multiple of 16"),
        ({"joint": True}, "one stream has nobody to exchange with"),
        ({"blocks": 0}, "must be at least 1"),
        ({"window": 0}, "must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Temporal(replace(SMALL, **changes), 2, 6, 2)


def test_latents_of_another_model_are_refused():
    z, theta = latents(size=5)
    with pytest.raises(
        InputError, match=r"latents of shape \(2, 5\), the model was made for \(2, 6\)"
    ):
        small()(z, theta)
