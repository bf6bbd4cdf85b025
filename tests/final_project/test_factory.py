"""Parameter counts of the published models, and controls with as many parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.cli import InputError
from common.weights import count_parameters
from final_project.autoencoder import PublishedAutoencoder
from final_project.config import MODELS, Config
from final_project.factory import Sizes, architecture, count, matched
from final_project.temporal import Temporal
from final_project.temporal_config import TemporalConfig
from tests.final_project.helpers import GROUPS
from tests.final_project.models import SMALL

OURS = TemporalConfig()
PATCHES = TemporalConfig(width=64, patches=64, final_norm=True, principal=False)
SIZES = Sizes(groups=2, latents=512, parameters=3)


def unused_parameters(config: TemporalConfig, sizes: Sizes) -> int:
    """Parameters that the official code builds for a published configuration and never calls.

    In every block: a further norm of each stream, one more norm in the exchange, the
    cross-attention of each stream with itself, and the residual projection (K -> D) inside TIPI's
    MLP.
    """
    width = sizes.latents
    low = width // config.down_ratio

    def norm(size: int) -> int:
        if not (config.adaptive and sizes.parameters):
            return size
        hidden = 2 * size
        return 2 * size + hidden * (sizes.parameters + 1) + 2 * size * (hidden + 1)

    crossing = config.exchange in ("sequential", "symmetric")
    diagonal = sizes.groups * (4 * low**2 + 3 * low) if crossing else 0
    injection = width * (sizes.parameters + 1)
    return config.blocks * (sizes.groups * norm(width) + norm(low) + diagonal + injection)


@pytest.mark.parametrize(
    ("adaptive", "exchange", "width", "total", "unused"),
    [
        (True, "sequential", 1024, 87_189_536, 11_559_936),
        (True, "none", 1024, 78_783_520, 9_459_712),
        (True, "addition", 1024, 82_989_088, 9_459_712),
        (False, "sequential", 2048, 201_505_824, 8_403_968),
        (False, "none", 2048, 176_319_520, 9_216),
        (False, "addition", 2048, 184_716_320, 9_216),
    ],
)
def test_used_and_unused_parameters_are_the_published_totals(
    adaptive, exchange, width, total, unused
):
    config = TemporalConfig.published(adaptive, exchange)
    sizes = Sizes(2, width, 1)
    assert unused_parameters(config, sizes) == unused
    assert count(config, sizes) + unused == total


@pytest.mark.parametrize(
    ("adaptive", "parameters", "nodes", "latent", "hidden", "total"),
    [
        (True, 6, 115, 16, 480, 87_850_025),  # the public re-run gave the cylinder six inputs
        (False, 1, 156, 32, 624, 202_774_068),
    ],
)
def test_both_stages_together_are_the_published_totals(
    adaptive, parameters, nodes, latent, hidden, total
):
    table = np.arange(64 * nodes).reshape(64, nodes)
    autoencoder = PublishedAutoencoder(table, GROUPS, latent, hidden)
    config = TemporalConfig.published(adaptive)
    sizes = Sizes(2, 64 * latent, parameters)
    temporal = count(config, sizes) + unused_parameters(config, sizes)
    assert temporal + count_parameters(autoencoder) == total


def test_counting_without_memory_counts_what_is_built():
    assert count(SMALL, Sizes(2, 6, 2)) == count_parameters(Temporal(SMALL, 2, 6, 2))


def test_ours_is_below_five_million_parameters():
    assert count(OURS, SIZES) == 4_383_232


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (OURS, {"exchange": "none"}),
        (OURS, {"exchange": "none", "joint": True}),
        (OURS, {"exchange": "addition"}),
        (OURS, {"exchange": "none", "tipi": False}),
        (PATCHES, {"exchange": "none"}),
        (PATCHES, {"exchange": "none", "joint": True}),
        (TemporalConfig.published(), {"exchange": "none"}),
        (TemporalConfig.published(), {"exchange": "addition"}),
    ],
)
def test_controls_match_the_parameters_within_one_percent(config, change):
    control = matched(replace(config, **change), config, SIZES)
    assert count(control, SIZES) == pytest.approx(count(config, SIZES), rel=0.01)


def test_a_control_that_cannot_match_is_refused():
    with pytest.raises(InputError, match="no MLP width brings"):
        matched(replace(SMALL, width=256), SMALL, Sizes(2, 6, 2))


def test_the_controls_without_exchange_have_as_many_parameters():
    def params(name: str, sizes: Sizes) -> int:
        return count(architecture(Config(), name, sizes), sizes)

    with_exchange = params("SEA", SIZES)
    assert params("no exchange, matched", SIZES) == pytest.approx(with_exchange, rel=0.01)
    assert params("no exchange", SIZES) < 0.95 * with_exchange
    assert with_exchange < 5e6  # the aim

    three = Sizes(groups=3, latents=512, parameters=2)
    patches = params("patch SEA", three)
    assert patches < 2e6
    assert params("patches, no exchange, matched", three) == pytest.approx(patches, rel=0.01)
    for name in MODELS:
        assert params(name, three) > 0


def test_with_one_group_there_is_nobody_to_exchange_with():
    alone = Sizes(groups=1, latents=512, parameters=2)
    for name in ("SEA", "no exchange, matched", "addition", "patch SEA"):
        assert architecture(Config(), name, alone).exchange == "none"


def test_unknown_models_are_refused_by_name():
    with pytest.raises(InputError, match="--models SAE: allowed are as published"):
        Config(models=("SAE",))
