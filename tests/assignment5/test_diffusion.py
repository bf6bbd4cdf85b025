"""Identities of the schedule, the targets and the loss weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assignment5.diffusion import Diffusion, Schedule, aim, loss_scale, separate, snr_weight

TARGETS = ("noise", "image", "velocity")


def rates(count):
    """Signal and noise rates (count, 1, 1, 1) at random times."""
    times = torch.rand(count, dtype=torch.float64)
    return [rate[:, None, None, None] for rate in Schedule().rates(times)]


@given(st.floats(0, 1))
def test_signal_and_noise_rates_are_on_the_unit_circle(time):
    signal, noise = Schedule().rates(torch.tensor(time, dtype=torch.float64))
    assert abs(float(signal**2 + noise**2) - 1) < 1e-12


def test_the_schedule_runs_from_095_to_002_signal():
    signal, _ = Schedule().rates(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.allclose(signal, torch.tensor([0.95, 0.02], dtype=torch.float64))


@pytest.mark.parametrize("target", TARGETS)
def test_a_prediction_separates_into_image_and_noise(target):
    x0, e = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    signal, noise = rates(4)
    output = aim(target, x0, e, signal, noise)
    image, noises = separate(target, signal * x0 + noise * e, output, signal, noise)
    assert torch.allclose(image, x0)
    assert torch.allclose(noises, e)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("loss", TARGETS)
def test_the_error_of_a_loss_is_that_of_what_follows_from_the_prediction(target, loss):
    x0, e, wrong = torch.randn(3, 5, 3, 4, 4, dtype=torch.float64)
    signal, noise = rates(5)
    guess = separate(target, signal * x0 + noise * e, wrong, signal, noise)
    truth = aim(loss, x0, e, signal, noise)
    followed = (aim(loss, *guess, signal, noise) - truth).abs()
    scale = loss_scale(target, loss, signal, noise)
    assert torch.allclose(scale * (wrong - aim(target, x0, e, signal, noise)).abs(), followed)


def test_velocity_is_the_preconditioning_of_edm_for_data_of_unit_variance():
    """Karras et al. 2022, table 1, with sigma_data = 1, sigma = noise / signal, and x / signal."""
    x, output = torch.randn(2, 6, 3, 4, 4, dtype=torch.float64)
    signal, noise = rates(6)
    sigma = noise / signal
    c_skip = 1 / (sigma**2 + 1)
    c_out = sigma / (sigma**2 + 1).sqrt()
    c_in = 1 / (sigma**2 + 1).sqrt()
    assert torch.allclose(c_in * x / signal, x)
    denoised = c_skip * x / signal + c_out * output
    assert torch.allclose(separate("velocity", x, -output, signal, noise)[0], denoised)


def test_the_target_has_unit_variance_at_every_time_for_data_of_unit_variance():
    x0, e = torch.randn(2, 1, 200_000, dtype=torch.float64)
    for time in (0.0, 0.5, 1.0):
        signal, noise = Schedule().rates(torch.tensor(time, dtype=torch.float64))
        for target in TARGETS:
            assert abs(float(aim(target, x0, e, signal, noise).var()) - 1) < 0.02


@pytest.mark.parametrize("target", TARGETS)
def test_min_snr_weighs_every_target_as_the_clipped_error_of_the_image(target):
    x0, e, wrong = torch.randn(3, 5, 3, 4, 4, dtype=torch.float64)
    signal, noise = rates(5)
    guess, _ = separate(target, signal * x0 + noise * e, wrong, signal, noise)
    error = (wrong - aim(target, x0, e, signal, noise)) ** 2
    weighted = snr_weight(target, signal, noise, 5.0) * error
    clipped = ((signal / noise) ** 2).clamp(max=5)
    assert torch.allclose(weighted, clipped * (guess - x0) ** 2)


@pytest.mark.parametrize("error", ["mae", "mse"])
def test_the_loss_is_the_mean_error_of_the_target_in_each_image(error):
    class Constant(torch.nn.Module):
        def forward(self, x, variance):
            return torch.full_like(x, 0.25)

    model = Diffusion(Constant(), Schedule(), "noise")
    images, noises = torch.rand(3, 3, 4, 4), torch.randn(3, 3, 4, 4)
    losses = model(images, noises, torch.rand(3), error)
    difference = 0.25 - noises
    each = difference.abs() if error == "mae" else difference**2
    assert torch.allclose(losses, each.mean((1, 2, 3)))


def test_the_loss_of_an_image_predictor_may_be_of_the_velocity():
    class Zero(torch.nn.Module):
        def forward(self, x, variance):
            return torch.zeros_like(x)

    model = Diffusion(Zero(), Schedule(), "image")
    images, noises, times = torch.rand(3, 3, 4, 4), torch.randn(3, 3, 4, 4), torch.rand(3)
    _, noise = model.schedule.rates(times)
    truth = (images / noise[:, None, None, None]).square().mean((1, 2, 3))
    assert torch.allclose(model(images, noises, times, "mse", 0.0, "velocity"), truth, rtol=1e-5)


def test_guidance_goes_on_beyond_the_prediction_with_the_class():
    class Knows(torch.nn.Module):
        def forward(self, x, variance, labels=None):
            return torch.zeros_like(x) + (0.0 if labels is None else labels[:, None, None, None])

    model = Diffusion(Knows(), Schedule(), "noise")
    x, labels = torch.randn(2, 3, 4, 4), torch.tensor([1, 2])
    for guidance in (0.0, 1.0, 2.5):
        _, e = model.denoise(x, 0.5, labels, guidance)
        assert torch.allclose(e, guidance * labels[:, None, None, None] * torch.ones_like(x))


def test_normalising_is_undone():
    mean, std = torch.tensor([0.3, 0.4, 0.5]), torch.tensor([0.2, 0.3, 0.1])
    model = Diffusion(torch.nn.Identity(), Schedule(), "noise", mean, std)
    images = torch.rand(2, 3, 4, 4)
    assert torch.allclose(model.denormalise(model.normalise(images)), images, atol=1e-6)
