"""Samplers on denoisers with a closed form: exactness, order of convergence, noise put back."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from assignment5.config import Sampling, Wish
from assignment5.denoiser import build
from assignment5.diffusion import Diffusion, Schedule
from assignment5.samplers import painting, path
from assignment5.sampling import Request, noise_set, sample, sphere
from common.cli import InputError
from tests.assignment5.helpers import TINY

DEVIATION = 0.5  # of the Gaussian data below


def rates_at(time):
    """Signal and noise rate as floats."""
    return tuple(float(rate) for rate in Schedule().rates(torch.tensor(time, dtype=torch.float64)))


def exact(x, time):
    """(x0, e) that the best denoiser of data N(0, DEVIATION^2) predicts."""
    signal, noise = rates_at(time)
    variance = signal**2 * DEVIATION**2 + noise**2
    return signal * DEVIATION**2 / variance * x, noise / variance * x


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm++"])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("power", [1, 0.6])
def test_with_the_true_noise_every_sampler_gives_the_image_back(sampler, steps, power):
    schedule = Schedule()
    x0, e = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    calls = []

    def oracle(x, time):
        signal, noise = schedule.rates(torch.tensor(time, dtype=torch.float64))
        calls.append(time)
        assert torch.allclose(x, signal * x0 + noise * e)  # never off the straight way
        return x0, e

    signal, noise = schedule.rates(torch.tensor(1.0, dtype=torch.float64))
    sampling = Sampling(sampler, steps, power)
    *_, prediction = path(oracle, schedule, signal * x0 + noise * e, sampling)
    assert torch.allclose(prediction, x0)
    # the last step is the longer the smaller the power
    assert math.isclose(min(calls), (1 / steps) ** power)
    assert len(calls) == sampling.evaluations


def gaussian_error(sampler, steps, power):
    """Error of the last predicted x0 of Gaussian data: the flow then has a closed form."""

    def spread(time):
        signal, noise = rates_at(time)
        return math.sqrt(signal**2 * DEVIATION**2 + noise**2)

    start = torch.tensor([1.0], dtype=torch.float64)
    *_, prediction = path(exact, Schedule(), start, Sampling(sampler, steps, power))
    last = (1 / steps) ** power
    signal, _ = rates_at(last)
    truth = signal * DEVIATION**2 / spread(last) / spread(1.0)
    return abs(float(prediction) - truth)


@pytest.mark.parametrize("power", [1, 0.8])
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2), ("dpm++", 2)])
def test_samplers_have_their_order_on_gaussian_data(sampler, order, power):
    # (with uneven times Heun's order comes late)
    steps = 320 if sampler == "heun" and power != 1 else 80
    few = gaussian_error(sampler, steps, power)
    rate = math.log2(few / gaussian_error(sampler, 2 * steps, power))
    assert rate > order - 0.25
    # (with uneven times DPM-Solver++'s error happens to cross zero near here)
    assert power != 1 or rate < order + 0.6


@pytest.mark.parametrize(
    ("sampler", "least", "largest"),
    [("ddim", 0.85, 0.95), ("dpm++", 0.92, 1), ("heun", 0.96, 1)],
)
def test_few_evaluations_keep_the_spread_of_data_of_unit_variance(sampler, least, largest):
    """With equal slopes in sigma = n / s Heun's would be 2.7: its first step is from 50 to 2."""

    def unit(x, time):
        signal, noise = rates_at(time)
        return signal * x, noise * x

    sampling = Sampling.of_evaluations(sampler, 5)
    start = torch.tensor([1.0], dtype=torch.float64)
    *_, prediction = path(unit, Schedule(), start, sampling)
    signal, _ = rates_at(1 / sampling.steps)
    assert least < float(prediction) / signal < largest


def test_eta_keeps_the_spread_of_gaussian_data_and_zero_is_deterministic():
    x = torch.randn(20000, 1, 1, 1, generator=torch.Generator().manual_seed(0))

    def draw(eta, seed):
        generator = torch.Generator().manual_seed(seed)
        *_, last = path(exact, Schedule(), x, Sampling("ddim", 200, eta=eta), generator)
        return last

    plain, noisy = draw(0.0, 1), draw(1.0, 1)
    assert torch.equal(plain, draw(0.0, 2))
    assert torch.equal(noisy, draw(1.0, 1))
    assert not torch.equal(noisy, draw(1.0, 2))
    signal, noise = rates_at(1 / 200)
    total = math.sqrt(signal**2 * DEVIATION**2 + noise**2)
    posterior = signal * DEVIATION**2 / total  # spread of the posterior mean
    for draws in (plain, noisy):
        assert abs(float(draws.std()) / posterior - 1) < 0.03


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "--steps 0"),
        ({"power": 0.0}, "--power 0"),
        ({"power": math.nan}, "--power nan"),
        ({"eta": 1.5}, "--eta 1.5"),
        ({"eta": 1.0, "sampler": "dpm++"}, "deterministic"),
    ],
)
def test_samplings_that_cannot_be_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        Sampling(**options)


def test_heun_gets_as_many_steps_as_its_evaluations_allow():
    steps = [Sampling.of_evaluations("heun", count).steps for count in (1, 3, 5, 10, 20)]
    assert steps == [1, 2, 3, 5, 10]
    assert Sampling("heun", 5).evaluations == 9
    assert Sampling.of_evaluations("ddim", 10) == Sampling("ddim", 10)


def test_interpolation_stays_on_the_sphere():
    a, b = noise_set(0, 2, 8)
    way = sphere(a, b, 5)
    assert torch.allclose(way[0], a, atol=1e-5)
    assert torch.allclose(way[-1], b, atol=1e-5)
    norms = way.flatten(1).norm(dim=1)
    assert norms.max() / norms.min() < 1.1  # a straight line would fall to 0.71


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm++"])
def test_painting_keeps_the_known_part_and_looks_at_it(sampler):
    """The rest is as before where the denoiser looks at each pixel alone, and other where not."""
    torch.manual_seed(0)
    schedule = Schedule()
    known, x = torch.randn(1, 3, 4, 4), torch.randn(2, 3, 4, 4)
    kept = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    kept[..., :2] = True

    def alone(x, time):
        signal, noise = (float(rate) for rate in schedule.rates(torch.tensor(time)))
        return signal * x, noise * x  # the best for data N(0, 1)

    def together(x, time):
        return alone(x.mean((2, 3), keepdim=True).expand_as(x), time)

    sampling = Sampling(sampler, 4)
    for denoise, same in ((alone, True), (together, False)):
        *_, plain = path(denoise, schedule, x, sampling)
        *_, painted = path(painting(denoise, schedule, known, kept), schedule, x, sampling)
        assert torch.allclose(painted[..., :2], known[..., :2].expand(2, -1, -1, -1))
        assert torch.allclose(painted[..., 2:], plain[..., 2:], atol=1e-5) == same


def test_a_network_with_classes_draws_what_it_is_asked_for():
    config = dataclasses.replace(TINY, classes=True).denoiser("U-Net", ("rose", "lily", "iris"))
    model = build(config)
    assert (build(TINY.denoiser("U-Net", ("rose", "lily"))).chances).shape == (0,)
    model.chances.copy_(torch.tensor([0.0, 0.7, 0.3]))
    drawn = Request().labels(model, 2000, 0)
    assert 0.67 < float((drawn == 1).float().mean()) < 0.73
    assert not (drawn == 0).any()
    assert Request(Wish(2)).labels(model, 3, 0).tolist() == [2, 2, 2]
    torch.nn.init.normal_(model.network.classes.table.weight)
    torch.nn.init.normal_(model.network.head.weight, std=0.1)
    noises = noise_set(0, 4, 16)

    def images(*wish):
        return sample(model, noises, Sampling("ddim", 3), request=Request(Wish(*wish))).astype(int)

    assert np.abs(images(0) - images(2)).max() > 1
    assert np.array_equal(images(-1), images(2, 0.0))  # without the class
    assert np.abs(images(2) - images(2, 3.0)).max() > 1
    mixed = images()
    labels = Request().labels(model, 4, 0)
    for row, label in enumerate(labels.tolist()):
        assert np.abs(mixed[row] - images(label)[row]).max() <= 1


def test_samples_are_a_function_of_the_noise_whatever_the_batch():
    model = build(TINY.denoiser("Transformer"))
    torch.nn.init.normal_(model.network.head.weight, std=0.02)
    noises = noise_set(3, 6, 16)
    whole = sample(model, noises, Sampling("ddim", 3)).astype(int)
    parts = sample(model, noises, Sampling("ddim", 3), batch=4)
    assert np.abs(whole - parts).max() <= 1


def test_sampling_takes_smaller_parts_where_the_memory_is_too_small(monkeypatch):
    model = build(TINY.denoiser("U-Net"))
    noises = noise_set(0, 6, 16)
    one_step = Sampling("ddim", 1)
    whole = sample(model, noises, one_step).astype(int)
    denoise = Diffusion.denoise
    sizes = []
    limit = 2

    def small(self, x, time):
        sizes.append(len(x))
        if len(x) > limit:
            raise torch.OutOfMemoryError("full")
        return denoise(self, x, time)

    monkeypatch.setattr(Diffusion, "denoise", small)
    assert np.abs(sample(model, noises, one_step) - whole).max() <= 1
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    limit = 0
    with pytest.raises(InputError, match="not enough memory to sample even one image"):
        sample(model, noises, one_step)
