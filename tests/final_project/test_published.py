"""The published model in training: its first weights, its seven dropouts, its codes and ours."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from final_project import predict, train
from final_project.autoencoder import PublishedAutoencoder
from final_project.checkpoint import load_networks
from final_project.config import MODELS, Config, PredictConfig
from final_project.data import write_flow
from final_project.factory import Sizes, architecture, sizes_of
from final_project.rollout import rollout, teacher_forcing
from final_project.temporal import Temporal
from final_project.temporal_config import TemporalConfig
from tests.conftest import assert_same_after_interruption, run_main, scores_alone
from tests.final_project.helpers import GROUPS, cloud
from tests.final_project.models import latents
from tests.final_project.waves import waves

SIZE = 64  # latent numbers per group
CALM = replace(TemporalConfig.published(), dropout=0.0)


def autoencoder(official: bool) -> PublishedAutoencoder:
    torch.manual_seed(0)
    table = np.arange(16 * 9).reshape(16, 9)
    return PublishedAutoencoder(table, GROUPS, 16, 48, layers=3, official_start=official)


def model(seed: int = 0, **changes: float) -> Temporal:
    """The published model at a small size, in training mode, dropping what is asked for."""
    torch.manual_seed(seed)
    made = Temporal(replace(CALM, **changes), 2, SIZE, 2).train()
    for parameter in made.parameters():  # (from N(0, 0.02) branches would hardly be seen)
        parameter.data.mul_(5)
    return made


def inputs() -> tuple[Tensor, Tensor]:
    return latents(frames=7, size=SIZE)


# ------------------------------------------------------------------------------ first weights


def test_the_official_start_of_the_autoencoder_is_normal_in_its_transformer_alone():
    made = autoencoder(official=True)
    matrices = [m.weight.flatten() for m in made.layers.modules() if isinstance(m, nn.Linear)]
    biases = [
        m.bias for m in made.layers.modules() if isinstance(m, nn.Linear) and m.bias is not None
    ]
    weights = torch.cat(matrices)
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    assert weights.abs().max() > 0.06  # (torch's own are bounded)
    assert len(biases) == 3 * 3
    assert not any(bias.any() for bias in biases)

    # the MLPs of the patches are torch's: uniform, up to one over the root of their inputs
    for perceptron in [*made.embed, *made.decoders]:
        for layer in (perceptron[0], perceptron[2]):
            limit = layer.in_features**-0.5
            assert 0.9 * limit < layer.weight.abs().max() <= limit
    early = autoencoder(official=False)
    assert torch.equal(made.embed[0][0].weight, early.embed[0][0].weight)
    assert early.layers[0].qkv.weight.std() > 0.05
    assert early.layers[0].qkv.bias.any()


# ---------------------------------------------------------------------------------- dropouts


def test_the_official_cylinder_configuration_drops_out_in_seven_places():
    official = TemporalConfig.published(all_dropouts=True)
    made = Temporal(official, 2, SIZE, 1)
    attentions = [m.dropout for m in made.modules() if hasattr(m, "head_size")]
    mlps = [m.p for m in made.modules() if isinstance(m, nn.Dropout)]
    tipi = [block.tipi_dropout for block in made.blocks]
    assert (attentions, mlps, tipi) == ([0.1] * 4, [0.1] * 2, [0.1])
    multiphase = TemporalConfig.published(adaptive=False, all_dropouts=True)
    assert {multiphase.dropout, multiphase.attention_dropout, multiphase.tipi_dropout} == {0.0}


def test_attention_that_drops_everything_reads_nothing():
    z, theta = inputs()
    dropped = model(attention_dropout=1.0)
    silent = model()
    with torch.no_grad():
        for module in silent.modules():
            if hasattr(module, "head_size"):
                module.out.weight.zero_()
    assert torch.allclose(dropped(z, theta), silent(z, theta), atol=1e-6)
    assert not torch.allclose(dropped(z, theta), model()(z, theta), atol=1e-2)


def test_tipi_that_drops_everything_adds_nothing_and_draws_for_every_frame():
    z, theta = inputs()
    dropped = model(tipi_dropout=1.0)
    silent = model()
    with torch.no_grad():
        for parameter in silent.blocks[0].tipi[-1].parameters():
            parameter.zero_()
    assert torch.allclose(dropped(z, theta), silent(z, theta), atol=1e-6)

    block = model(tipi_dropout=0.5).blocks[0]
    injected = torch.ones(1, 1, 1000)
    drawn = block._dropped(injected, torch.zeros(1, 40, 1000))
    assert set(drawn.unique().tolist()) == {0.0, 2.0}
    assert drawn.mean().item() == pytest.approx(1, abs=0.05)
    assert not torch.equal(drawn[0, 0], drawn[0, 1])


@pytest.mark.parametrize("place", ["dropout", "attention_dropout", "tipi_dropout"])
def test_dropout_acts_in_training_and_in_no_rollout(place):
    z, theta = inputs()
    made = model(**{place: 0.3})
    losses = {teacher_forcing(made, z, theta).item() for _ in range(3)}
    assert len(losses) == 3
    first, again = (rollout(made, z[:, 0], theta, 5) for _ in range(2))
    assert torch.equal(first, again)
    assert made.training
    calm = copy.deepcopy(model()).eval()
    assert torch.equal(made.eval()(z, theta), calm(z, theta))


# -------------------------------------------------------------------------------- two by two


def test_each_stage_meets_each_stage_of_the_other():
    pairs = {
        (MODELS[name].published, MODELS[name].autoencoder)
        for name in ("as published", "published, own codes", "SEA, published codes", "SEA")
    }
    assert pairs == {(a, b) for a in (True, False) for b in ("own", "as published")}
    assert Config(models=("SEA", "published, own codes")).autoencoders == ["own"]
    assert Config(models=("SEA, published codes",)).autoencoders == ["own", "as published"]

    # a ring leaves empty boxes, which the published patches keep
    nodes = cloud()
    own, published = (
        sizes_of(Config(boxes=(5, 4), latents=8), MODELS[name], nodes, GROUPS, 1).latents
        for name in ("SEA", "SEA, published codes")
    )
    assert own < published == 5 * 4 * 8


@pytest.mark.parametrize("numbers", [504, 512, 36])
def test_the_published_model_gets_as_many_heads_as_divide_our_codes(numbers):
    config = architecture(Config(), "published, own codes", Sizes(2, numbers, 1))
    assert config.heads == {504: 2, 512: 8, 36: 1}[numbers]
    assert architecture(Config(), "as published", Sizes(2, 512, 1)).heads == 8


def test_our_codes_come_to_the_published_model_at_size_one():
    z, theta = inputs()
    z = z * torch.tensor([30.0, 0.2])[:, None]
    theta = theta * torch.tensor([1e6, 1.0])
    config = replace(CALM, scaled_latents=True, scaled_parameters=True)
    made = Temporal(config, 2, SIZE, 2)
    seen = []
    made.embedding.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    made.fit(z, theta)
    made(z, theta)
    assert seen[0].square().mean((0, 1, 3)).tolist() == pytest.approx([1, 1], rel=1e-5)
    largest = made.scales.standardise_parameters(theta, z).abs().amax(0)
    assert largest.tolist() == pytest.approx([1, 1])
    by_hand = ((made(z[:, :-1], theta) - z[:, 1:]) / made.scales.std).square().mean()
    assert teacher_forcing(made, z, theta).item() == pytest.approx(by_hand.item(), rel=1e-5)

    raw = Temporal(CALM, 2, SIZE, 2)  # as the paper's code has it
    raw.fit(z, theta)
    assert torch.equal(raw.scales.standardise_parameters(theta, z), theta)
    assert not (raw.scales.std - 1).any()


@pytest.fixture
def wave_file(tmp_path):
    write_flow(tmp_path / "waves.h5", waves(trajectories=10, frames=24))
    return tmp_path / "waves.h5"


def test_an_interrupted_official_training_drops_what_an_unbroken_one_does(wave_file, tmp_path):
    words = ["--preset", "smoke", "--data", wave_file, "--baselines", "persistence"]
    words += ["--published-training", "official", "--autoencoder-steps", "4", "--checks", "2"]
    words += ["--models", "as published", "published, own codes", "SEA, published codes"]
    unbroken = tmp_path / "unbroken"
    with scores_alone():
        run_main(train.main, Config, *words, "--out", unbroken)
    label = "rollout error, as published, seed 0"
    assert_same_after_interruption(unbroken, train.main, Config, words, label, tmp_path / label)

    # the model file holds the published model with its own autoencoder
    words = ["--run", unbroken, "--data", wave_file, "--steps", 3, "--out", tmp_path / "rollout"]
    rollout_of_file = run_main(predict.main, PredictConfig, *words).fields[0, 1:]
    saved = load_networks(unbroken, waves(trajectories=10, frames=24), "cpu")
    assert saved.name == "as published"
    assert isinstance(saved.surrogate.autoencoder, PublishedAutoencoder)
    assert np.isfinite(rollout_of_file).all()
