"""Small temporal models and latents that several tests share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from final_project.factory import Sizes, build_temporal
from final_project.temporal import TemporalModel
from final_project.temporal_config import TemporalConfig
from tests.final_project.helpers import shaken

SMALL = TemporalConfig(width=32, heads=2, mlp_ratio=2.0)
EXCHANGES = ("none", "addition", "sequential", "symmetric")
VARIANTS = [
    *({"exchange": exchange} for exchange in EXCHANGES),
    {"exchange": "none", "joint": True},
    {"adaptive": True},
    {"scheme": "Adams-Bashforth"},
    {"phase": 2},
    {"patches": 2},
    {"patches": 2, "scheme": "Adams-Bashforth", "phase": 1},
    {"patches": 4, "exchange": "none", "joint": True, "final_norm": True},
    {
        "width": None,
        "heads": 1,
        "delta": False,
        "final_norm": True,
        "output_projection": True,
        "small_start": False,
        "gated": False,
    },
]


def named(change: dict) -> str:
    """A variant's name in the list of tests."""
    return "-".join(f"{value}" for value in change.values())[:30]


def small(groups: int = 2, latents: int = 6, parameters: int = 2, **changes) -> TemporalModel:
    """A shaken model with scales that are not 1."""
    torch.manual_seed(0)
    sizes = Sizes(groups, latents, parameters)
    model = shaken(build_temporal(replace(SMALL, **changes), sizes), 0.1)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(5, 9, groups, latents, generator=generator).cumsum(1)
    model.fit(z, torch.randn(5, parameters, generator=generator))
    return model


def latents(
    frames: int = 12, groups: int = 2, size: int = 6, parameters: int = 2
) -> tuple[Tensor, Tensor]:
    """Latents (3, frames, groups, size) and parameters (3, parameters)."""
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(3, frames, groups, size, generator=generator)
    return z, torch.randn(3, parameters, generator=generator)
