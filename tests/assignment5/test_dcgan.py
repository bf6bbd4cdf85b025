"""The DCGAN: its shapes, one step by hand, its file."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from assignment5.dcgan import (
    LATENT,
    Game,
    Gan,
    TrainedGan,
    discriminator,
    generator,
    load_dcgan,
    save_dcgan,
    train_dcgan,
)
from assignment5.synthetic import draw_flowers
from common.cli import InputError
from common.run import Run
from common.weights import count_parameters
from tests.assignment5.helpers import CPU, TINY


@pytest.mark.parametrize("side", [8, 16, 32])
def test_both_networks_meet_at_the_images(side):
    drawn = generator(side)(torch.randn(3, LATENT, 1, 1))
    assert drawn.shape == (3, 3, side, side)
    assert drawn.abs().max() <= 1
    assert discriminator(side)(drawn).shape == (3, 1, 1, 1)


def test_the_weights_of_the_published_shapes():
    # 100 -> 256 -> 128 -> 64 -> 3 by 4 x 4 kernels, a scale and a shift for each normalised channel
    kernels = 16 * (100 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
    assert count_parameters(generator(32)) == kernels + 2 * (256 + 128 + 64) + 3
    kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256)
    assert count_parameters(discriminator(32)) == kernels + 2 * (128 + 256) + 64 + 1


def test_the_first_losses_of_a_discriminator_that_does_not_know():
    torch.manual_seed(0)
    game = Game(8, "cpu")
    last = game.discriminator[-1]
    assert isinstance(last, nn.Conv2d)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    game.optimisers[0].param_groups[0]["lr"] = 0.0
    before = [value.clone() for value in game.generator.parameters()]
    verdict, deceived = game.step(torch.zeros(4, 3, 8, 8), torch.randn(4, LATENT, 1, 1))
    # a discriminator that says nothing loses log 2 on either side
    assert verdict == pytest.approx(2 * math.log(2))
    assert deceived == pytest.approx(math.log(2))
    # logits that do not depend on the image teach the generator nothing
    assert all(map(torch.equal, before, game.generator.parameters()))


def test_each_learns_from_the_other():
    torch.manual_seed(0)
    game = Game(8, "cpu")
    real, latent = torch.full((8, 3, 8, 8), 0.7), torch.randn(8, LATENT, 1, 1)
    losses = [game.step(real, latent)[0] for _ in range(6)]
    assert losses[-1] < losses[0]


def test_a_training_takes_its_seconds_and_at_least_a_step(tmp_path):
    pixels, _ = draw_flowers(20, 16, 0)
    with Run(TINY, tmp_path / "run", __file__, "synthetic", {}) as run:
        trained = train_dcgan(0, run, pixels, 0.0, CPU)
    assert (trained.steps, trained.side) == (1, 16)
    gan = Gan(trained, "cpu")
    images = gan.draw(5, 0)
    assert images.shape == (5, 16, 16, 3)
    assert np.array_equal(images, gan.draw(5, 0))
    assert not np.array_equal(images, gan.draw(5, 1))

    # its file, in half precision
    save_dcgan(tmp_path, trained)
    again = load_dcgan(tmp_path, 16, "cpu")
    assert again is not None
    assert np.abs(again.draw(5, 0).astype(int) - images).max() <= 1
    assert again.params == gan.params
    with pytest.raises(InputError, match="DCGAN of images of side 32"):
        load_dcgan(tmp_path, 32, "cpu")
    assert load_dcgan(tmp_path / "run", 16, "cpu") is None


def test_sides_that_are_no_powers_of_two_are_refused():
    with pytest.raises(InputError, match="--dcgan draws a side of 8, 16, 32"):
        dataclasses.replace(TINY, side=24, dcgan=True)
    with pytest.raises(InputError, match="the side is 24"):
        generator(24)


def test_a_file_with_numbers_that_are_none_is_refused(tmp_path):
    weights = generator(8).state_dict()
    weights["0.weight"] = torch.full_like(weights["0.weight"], math.nan)
    save_dcgan(tmp_path, TrainedGan(weights, 8, 1, 1.0))
    with pytest.raises(InputError, match="no DCGAN"):
        load_dcgan(tmp_path, 8, "cpu")
