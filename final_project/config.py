"""Every number that affects a result of the final project, with its default, and the models that it compares by name."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from common.cli import BaseConfig, InputError
from final_project.sea import matched
from final_project.streams import TemporalConfig


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    """Final project: State-Exchange Attention (ViT-SEA) on simulated flows."""

    source: Literal["auto", "file", "simulated"] = "auto"
    """auto: --data, else <flow>.h5 in the data folder (simulate.py makes it), else the built-in sample"""
    flow: Literal["cylinder", "lock_exchange"] = "cylinder"
    """which flow is looked for, or simulated"""
    groups: str | None = None
    """field groups, each a stream, such as "u,v;p" (default: u and v together, every other field alone)"""
    stage: Literal["all", "autoencoder", "temporal"] = "all"
    """autoencoder: stop after the first stage; temporal: the second on the first stage that this run folder holds"""
    seed: int = 0
    """of the split, the weights and every draw"""
    seeds: int = 3
    """how often each temporal model is trained"""
    frames: int = 200
    """training and the main scores use so many frames of a trajectory; the rest is the longer horizon"""
    models: tuple[str, ...] = ("SEA", "patch SEA", "no exchange, matched", "as published")
    """which temporal models are trained, by name (config.py lists them)"""
    baselines: tuple[
        Literal["persistence", "parameter interpolation", "POD + linear", "FNO", "U-Net"], ...
    ] = ("persistence", "parameter interpolation", "POD + linear", "FNO", "U-Net")
    """which controls are fitted"""

    boxes: tuple[int, int] = (8, 8)
    """columns and rows of the boxes whose nodes are a patch"""
    latents: int = 8
    """latent numbers of a patch and group"""
    autoencoder_layers: int = 2
    """attention blocks of its encoder, and of its decoder"""
    autoencoder_width: int = 64
    autoencoder_steps: int = 2000
    autoencoder_batch: int = 32
    """frames in a step"""
    autoencoder_lr: float = 1e-3

    width: int = 128
    """of a stream"""
    blocks: int = 2
    heads: int = 8
    steps: int = 3000
    """training steps of a temporal model"""
    batch: int = 4
    """windows in a step"""
    window: int = 64
    """frames of a training window, and how far back attention reaches"""
    first_share: float = 0.25
    """share of the training windows that begin with a trajectory's first frame, as the scored rollouts do; the others begin anywhere"""
    lr: float = 5e-3
    """peak learning rate (Muon and AdamW); as published: AdamW, 1e-4, constant"""
    weight_decay: float = 1e-2
    warmup: int = 200
    """steps of linear warm-up before a cosine to zero"""
    patch_width: int = 64
    """of a stream whose tokens are patches"""
    patch_steps: int = 1500
    """training steps of models of patches"""
    patch_batch: int = 16
    """frames in a step of theirs"""
    patch_ahead: int = 1
    """their inputs are up to so many of their own steps away from the data, without gradient"""
    patch_first_share: float = 0.1
    """as first_share, of theirs"""
    noise: float = 0.2
    """largest standard deviation of the noise on input latents, in that of their change in a step"""
    rollout_steps: int = 8
    """length of the rollouts that the last part of training goes through"""
    rollout_share: float = 0.25
    """share of the steps, the last ones, that train on rollouts too (of models trained so)"""
    published_autoencoder_steps: int = 1500
    """as published: 128 frames a step"""
    published_steps: int = 600
    """as published: two whole trajectories a step"""
    baseline_steps: int = 1500
    """training steps of FNO and U-Net"""
    grid: tuple[int, int] = (32, 96)
    """rows and columns of the regular grid that FNO and U-Net see"""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        return {
            "smoke": {
                "seeds": 1,
                "frames": 20,
                "boxes": (4, 4),
                "latents": 4,
                "autoencoder_layers": 1,
                "autoencoder_width": 16,
                "autoencoder_steps": 20,
                "width": 32,
                "blocks": 1,
                "heads": 4,
                "steps": 20,
                "batch": 2,
                "window": 12,
                "warmup": 5,
                "rollout_steps": 3,
                "baseline_steps": 6,
                "published_autoencoder_steps": 4,
                "published_steps": 4,
                "patch_width": 32,
                "patch_steps": 8,
                "grid": (12, 24),
            },
            "default": {
                "seeds": 2,
                "frames": 80,
                "steps": 400,
                "patch_steps": 300,
                "autoencoder_steps": 300,
                "baseline_steps": 100,
                "published_autoencoder_steps": 100,
                "published_steps": 60,
            },
            "full": {"models": tuple(MODELS)},
        }


# What each temporal model is: what it changes in ours, and which of "noise", "pushforward" and "rollout" it is trained with (default: TRICKS).
# "as published" to "SEA" are a ladder: each adds one thing to the one before. The rest are ours and its controls.
MODELS: dict[str, dict[str, Any]] = {
    "as published": {"tricks": ()},
    "own autoencoder": {
        "exchange": "sequential",
        "gated": False,
        "delta": False,
        "final_norm": True,
        "principal": False,
        "tricks": (),
    },
    "+ delta": {"exchange": "sequential", "gated": False, "principal": False, "tricks": ()},
    "+ principal start": {"exchange": "sequential", "gated": False, "tricks": ()},
    "+ noise": {"exchange": "sequential", "gated": False, "tricks": ("noise",)},
    "+ pushforward": {"exchange": "sequential", "gated": False},
    "SEA": {},
    "SEA + rollouts": {"tricks": ("noise", "pushforward", "rollout")},
    "no exchange": {"exchange": "none"},
    "no exchange, matched": {"exchange": "none"},
    "addition": {"exchange": "addition"},
    "joint tokens": {"exchange": "none", "joint": True},
    "SEA without TIPI": {"tipi": False},
    "patch SEA": {"patches": True},  # PatchTemporal: tokens are patches
    "patches, no exchange, matched": {"patches": True, "exchange": "none"},
    "patches, addition": {"patches": True, "exchange": "addition"},
    "patches, joint": {"patches": True, "exchange": "none", "joint": True},
}
TRICKS = ("noise", "pushforward")


def tricks_of(name: str) -> tuple[str, ...]:
    """What a model is trained with beyond teacher forcing."""
    return MODELS[name].get("tricks", TRICKS)


def temporal_config(
    config: Config, name: str, groups: int, latents: int, parameters: int
) -> TemporalConfig:
    """The architecture of a model of MODELS. Raises InputError for a name that is not there."""
    if name not in MODELS:
        raise InputError(f"--models {name}: allowed are {'; '.join(MODELS)}")
    if name == "as published":
        return TemporalConfig.published(
            adaptive=groups < 3
        )  # of the two published configurations the multiphase one has no AdaLN
    ours = TemporalConfig(
        width=config.width, blocks=config.blocks, heads=config.heads, window=config.window
    )
    if MODELS[name].get("patches"):
        ours = dataclasses.replace(
            ours,
            width=config.patch_width,
            patches=latents // config.latents,
            down_ratio=1,
            gated=False,
            final_norm=True,
            principal=False,
        )
    wanted = dataclasses.replace(
        ours,
        **{key: value for key, value in MODELS[name].items() if key not in ("tricks", "patches")},
    )
    if groups == 1:  # nobody to exchange with
        return dataclasses.replace(wanted, exchange="none")
    return (
        matched(wanted, ours, groups, latents, parameters) if name.endswith("matched") else wanted
    )
