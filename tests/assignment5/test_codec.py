"""The autoencoder of the codes: their scale, their noise, and a Transformer that draws in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from assignment5.codec import (
    Codec,
    TrainedCodec,
    reconstruction_error,
    standardised,
    there_and_back,
    train_codec,
)
from assignment5.config import Config, Job, Sampling, training_jobs
from assignment5.conversion import to_float
from assignment5.denoiser import Denoiser, build, load_denoiser, save_denoiser
from assignment5.sampling import Request, Sketch, noise_set, sample
from assignment5.synthetic import draw_flowers
from assignment5.train import optimisers_of, train
from common.cli import InputError
from common.files import tensors
from common.run import Run
from tests.assignment5.helpers import CPU, TINY, tiny_parts

CODES = dataclasses.replace(TINY, latent=4, codec_epochs=60)


@pytest.fixture(scope="module")
def flowers() -> np.ndarray:
    """Drawn flowers uint8 (96, 16, 16, 3)."""
    return draw_flowers(96, TINY.side, 0)[0]


@pytest.fixture(scope="module")
def trained(flowers: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> TrainedCodec:
    """A codec of four channels, trained on drawn flowers."""
    folder: Path = tmp_path_factory.mktemp("codec")
    with Run(CODES, folder / "run", __file__, "synthetic", {}) as run:
        return train_codec(CODES, run, flowers, CPU)


def filled_codec(trained: TrainedCodec) -> Codec:
    """A codec with trained weights."""
    codec = Codec(CODES.latent)
    codec.load_state_dict(tensors(trained.weights))
    return codec.eval()


def test_codes_of_the_training_part_have_zero_mean_and_unit_deviation(trained, flowers):
    codec = filled_codec(trained)
    with torch.inference_mode():
        codes = codec.encode(to_float(torch.from_numpy(flowers)))
    assert codes.shape == (96, 4, 4, 4)
    std, mean = torch.std_mean(codes, (0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(4), atol=5e-3, rtol=0)
    torch.testing.assert_close(std, torch.ones(4), atol=5e-3, rtol=0)


def test_a_trained_codec_gives_back_more_than_the_mean_colours_of_its_cells(trained, flowers):
    back = there_and_back(filled_codec(trained), flowers).astype(float)
    cells = flowers.reshape(96, 4, 4, 4, 4, 3).mean((2, 4), keepdims=True)
    means = np.broadcast_to(cells, (96, 4, 4, 4, 4, 3)).reshape(flowers.shape)
    assert np.square(back - flowers).mean() < 0.8 * np.square(means - flowers).mean()


def test_the_error_counts_differences_of_neighbours():
    images = torch.zeros(1, 1, 2, 2)
    images[0, 0, 0, 0] = 1.0
    flat = torch.zeros(1, 1, 2, 2)
    # mean absolute error 1/4; one of two differences along each axis is wrong by 1
    assert reconstruction_error(images, flat).item() == pytest.approx(1 / 4 + 1 / 4 + 1 / 4)
    assert reconstruction_error(images, images).item() == 0


def test_standardised_codes_do_not_know_their_scale():
    codes = torch.randn(8, 3, 4, 4)
    scaled = standardised(100 * codes + 7)
    torch.testing.assert_close(scaled, standardised(codes), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)


def test_noises_of_codes_are_those_of_pixels_rearranged():
    noises = noise_set(0, 2, 16)
    codes = Codec(4).noises(noises)
    assert codes.shape == (2, 4, 4, 4)
    # cell (1, 2), channel 3: the last pixel of the first row of its square, first colour
    assert codes[0, 3, 1, 2] == noises[0, 0, 4, 11]


def test_a_cell_is_kept_where_all_its_pixels_are():
    kept = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    kept[0, 0, 3, 4] = False  # the upper right cell
    assert Codec(4).cells(kept)[0, 0].tolist() == [[True, False], [True, True]]


def test_a_transformer_draws_in_codes_and_its_file_holds_the_codec(trained, tmp_path):
    job = Job("x", "Transformer", "tuned", CODES)
    with Run(CODES, tmp_path / "run", __file__, "synthetic", {}) as run:
        result = train(job, run, tiny_parts(), CPU, trained)
    assert result.seconds > trained.seconds
    denoiser = Denoiser.of(job, result, CPU)
    for name, value in tensors(trained.weights).items():  # training leaves the codec alone
        torch.testing.assert_close(denoiser.model.state_dict()[f"codec.{name}"], value)
    save_denoiser(tmp_path / "model.safetensors", denoiser)
    loaded = load_denoiser(tmp_path / "model.safetensors", CPU)
    drawn = [sample(each.model, noise_set(0, 3, 16), Sampling()) for each in (denoiser, loaded)]
    assert drawn[0].shape == (3, 16, 16, 3)
    assert (drawn[0] == drawn[1]).all()

    # a picture that is kept whole comes back as the codec gives it
    picture = torch.rand(1, 3, 16, 16)
    request = Request(sketch=Sketch(picture, torch.ones(1, 1, 16, 16, dtype=torch.bool)))
    painted = sample(denoiser.model, noise_set(0, 1, 16), Sampling(), request=request)
    assert denoiser.model.codec is not None
    with torch.inference_mode():
        coded = denoiser.model.codec.decode(denoiser.model.codec.encode(picture)).clamp(0, 1)
    np.testing.assert_allclose(painted[0] / 255, coded[0].permute(1, 2, 0), atol=0.51 / 255)


def test_only_the_tuned_transformer_has_codes_and_they_are_not_trained_with_it():
    config = dataclasses.replace(CODES, recipes=("tuned", "as assigned"))
    assert config.denoiser("U-Net").latent == 0
    model = build(config.denoiser("Transformer"))
    assert model.codec is not None
    assert not any(weight.requires_grad for weight in model.codec.parameters())
    chosen = {
        id(w) for o in optimisers_of(model, config) for g in o.param_groups for w in g["params"]
    }
    assert chosen == {id(weight) for weight in model.network.parameters()}


def test_trainings_by_name_begin_with_the_transformer():
    only = ("U-Net, tuned", "Transformer, as assigned")
    jobs = training_jobs(Config(recipes=("tuned", "as assigned"), only=only))
    assert [job.name for job in jobs] == ["Transformer, as assigned", "U-Net, tuned"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent": 4, "latent_patch": 3}, "codes need a multiple of 4 x --latent-patch 3"),
        ({"latent": 49}, "--latent 49"),
        ({"latent": 4, "scoreaug": True}, "--scoreaug moves pixels"),
        ({"only": ("MLP, tuned",)}, "--only MLP, tuned: allowed are Transformer, tuned; U-Net"),
        ({"only": ("U-Net, tuned",)}, "--only U-Net, tuned: a training of each network is needed"),
    ],
)
def test_sizes_that_do_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        Config(**changes)
