"""Fresh networks for a mesh and its field groups, from options and names.

Shape letters: P nodes, G field groups, L latent numbers per group, K parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from common.cli import InputError
from common.weights import count_parameters
from final_project.autoencoder import Autoencoder, MeshAutoencoder, PublishedAutoencoder
from final_project.config import (
    AUTOENCODER_COMPONENTS,
    AUTOENCODER_HEADS,
    MODELS,
    PUBLISHED_HEADS,
    PUBLISHED_HIDDEN,
    AutoencoderName,
    Config,
    ModelSpec,
)
from final_project.patch_temporal import PatchTemporal
from final_project.patches import Geometry, geometry_of, patch_table
from final_project.temporal import Temporal, TemporalModel
from final_project.temporal_config import TemporalConfig

Groups = tuple[tuple[int, ...], ...]  # the field numbers of each group
MATCH = 0.01  # a matched control has as many parameters within this share


@dataclass(frozen=True)
class Sizes:
    """What the data and the autoencoder say of a temporal model: G, L and K."""

    groups: int
    latents: int
    parameters: int


# ------------------------------------------------------------------------------- autoencoders


def build_autoencoder(
    config: Config, name: AutoencoderName, coordinates: np.ndarray, groups: Groups
) -> MeshAutoencoder:
    """A fresh autoencoder for a mesh with nodes (P, 2), the paper's or ours.

    Raises InputError for sizes that do not fit.
    """
    published = name == "as published"
    table = patch_table(coordinates, *config.boxes, keep_empty=published)
    if published:
        return PublishedAutoencoder(
            table,
            groups,
            config.latents,
            hidden=PUBLISHED_HIDDEN * config.latents,
            heads=math.gcd(PUBLISHED_HEADS, config.latents * len(groups)),
            official_start=config.published_training == "official",
        )
    return Autoencoder(
        table,
        groups,
        config.latents,
        components=max(AUTOENCODER_COMPONENTS, config.latents),
        width=config.autoencoder_width,
        layers=config.autoencoder_layers,
        heads=AUTOENCODER_HEADS,
    )


def geometry(
    config: Config, autoencoder: MeshAutoencoder, coordinates: np.ndarray
) -> Geometry | None:
    """Where the patches of nodes (P, 2) lie and what their codes have in common.

    None for the paper's autoencoder, whose codes have no linear part.
    """
    if not isinstance(autoencoder, Autoencoder):
        return None
    table = patch_table(coordinates, *config.boxes)
    return geometry_of(coordinates, table, *config.boxes, autoencoder.bases())


# ---------------------------------------------------------------------------- temporal models


def sizes_of(
    config: Config, spec: ModelSpec, coordinates: np.ndarray, groups: Groups, parameters: int
) -> Sizes:
    """Sizes of a model on a mesh with nodes (P, 2). Raises InputError for one without patches."""
    published_codes = spec.autoencoder == "as published"
    table = patch_table(coordinates, *config.boxes, keep_empty=published_codes)
    return Sizes(len(groups), len(table) * config.latents, parameters)


def architecture(config: Config, name: str, sizes: Sizes) -> TemporalConfig:
    """The architecture of a model of `MODELS`, checked for these sizes by arithmetic alone.

    Raises InputError for sizes that do not fit, and where a control cannot have as many parameters
    as the model that it is compared with.
    """
    spec = MODELS[name]
    if spec.published:
        wanted = _published(config, spec, sizes)
    else:
        wanted = _with_options(spec.architecture, config, spec, sizes)
    if sizes.groups == 1 and not spec.published:  # nobody to exchange with
        wanted = replace(wanted, exchange="none")
    elif spec.matched:
        wanted = matched(wanted, _with_options(spec.base, config, spec, sizes), sizes)
    wanted.check(sizes.groups, sizes.latents)
    return wanted


def _published(config: Config, spec: ModelSpec, sizes: Sizes) -> TemporalConfig:
    """The published architecture: of its two configurations the multiphase one has no AdaLN.

    Its codes have size 1, for they come out of a norm: others are brought to it, and get as many of
    its heads as divide them.
    """
    wanted = TemporalConfig.published(
        adaptive=sizes.groups < 3, all_dropouts=config.published_training == "official"
    )
    wanted = replace(wanted, scaled_parameters=config.published_scaled)
    if spec.autoencoder == "as published":
        return wanted
    heads = math.gcd(PUBLISHED_HEADS, max(1, sizes.latents // (2 * wanted.down_ratio)))
    return replace(wanted, scaled_latents=True, heads=heads)


def _with_options(
    base: TemporalConfig, config: Config, spec: ModelSpec, sizes: Sizes
) -> TemporalConfig:
    """An architecture with the sizes that the options set."""
    width = config.patch_width if spec.patches else config.width
    return replace(
        base,
        width=2 * width if spec.wide else width,
        blocks=config.blocks,
        heads=config.heads,
        window=config.window,
        scheme=config.scheme if base.delta else "Euler",
        phase=config.phase_pairs if base.delta else 0,
        patches=sizes.latents // config.latents if spec.patches else 0,
        bundle=config.patch_bundle if spec.patches else 1,
    )


def build_temporal(config: TemporalConfig, sizes: Sizes) -> TemporalModel:
    """A fresh model. Raises InputError as `TemporalConfig.check`."""
    kind = PatchTemporal if config.patches else Temporal
    return kind(config, sizes.groups, sizes.latents, sizes.parameters)


def count(config: TemporalConfig, sizes: Sizes) -> int:
    """How many trained numbers a model has, without giving it memory.

    Raises InputError as `TemporalConfig.check`.
    """
    with torch.device("meta"):
        model = build_temporal(config, sizes)
    return count_parameters(model)


def matched(config: TemporalConfig, like: TemporalConfig, sizes: Sizes) -> TemporalConfig:
    """`config` with the MLP width that brings its number of parameters closest to that of `like`.

    Raises InputError where it stays more than 1 % away.
    """
    target = count(like, sizes)
    width = config.stream_width(sizes.groups, sizes.latents)

    # the number of parameters is linear in the hidden width
    narrowest = count(replace(config, mlp_ratio=1 / width), sizes)
    per_unit = count(replace(config, mlp_ratio=2 / width), sizes) - narrowest
    hidden = max(1, 1 + round((target - narrowest) / per_unit))

    result = replace(config, mlp_ratio=hidden / width)
    total = count(result, sizes)
    if abs(total - target) > MATCH * target:
        raise InputError(
            f"no MLP width brings {total} parameters within 1 % of {target}; take another width"
        )
    return result
