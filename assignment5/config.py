"""Every number that affects a result of assignment 5, with its default; the defaults are the tuned recipe, ASSIGNED is Keras' example."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from assignment5.diffusion import Target
from common.cli import BaseConfig, InputError

ALLOWED: dict[
    str, tuple[float, float]
] = {  # least and most, of train.py, evaluate.py and predict.py
    **dict.fromkeys(
        (
            "seeds",
            "synthetic_images",
            "patch",
            "width",
            "depth",
            "heads",
            "unet_widths",
            "batch",
            "accumulate",
            "epochs",
            "repeats",
            "steps",
            "sweep",
            "feature_width",
            "feature_epochs",
            "n",
        ),
        (1, math.inf),
    ),
    **dict.fromkeys(("min_snr", "lr", "weight_decay", "warmup"), (0, math.inf)),
    "seed": (0, 2**32),
    "side": (8, math.inf),
    "samples": (6, math.inf),  # six: five neighbours and the image itself
    "powers": (0.05, 20),
    "power": (0.05, 20),
    "min_signal": (0.001, 0.999),
    "max_signal": (0.001, 0.999),
    "ema": (0, 1),
}


def check(config: Any) -> None:
    """Raises InputError for a number outside ALLOWED, a list without entries, and signal rates in the wrong order."""
    for name, (least, most) in ALLOWED.items():
        given, option = getattr(config, name, ()), "--" + name.replace("_", "-")
        for value in given if isinstance(given, tuple) else (given,):
            if not least <= value <= most:  # (so that NaN is refused too)
                raise InputError(
                    f"{option} {value}: allowed are "
                    + (f"{least} and more" if most == math.inf else f"{least} to {most}")
                )
    for name in ("recipes", "steps", "sweep", "powers", "unet_widths", "sampler"):
        if getattr(config, name, None) == ():
            raise InputError(f"--{name.replace('_', '-')}: at least one is needed")
    if getattr(config, "min_signal", 0) >= getattr(config, "max_signal", 1):
        raise InputError(
            f"--min-signal {config.min_signal}: allowed is less than --max-signal {config.max_signal}"
        )


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    """Assignment 5: DDIM with a Transformer; the defaults are the tuned recipe."""

    source: Literal["auto", "flowers", "folder", "synthetic"] = "auto"
    """where the images come from; auto: --data, else flowers in the data folder, else the built-in drawn sample"""
    seed: int = 0
    """of the split, the weights and every draw in training"""
    seeds: int = 5
    """how many sets of noise are sampled for every score"""
    synthetic_images: int = 4000
    """how many flowers the built-in sample has"""
    side: int = 32
    """pixels on a side"""
    recipes: tuple[Literal["tuned", "as assigned"], ...] = ("tuned",)
    """which recipes are trained, each with both networks"""

    patch: int = 4
    """pixels on a side of a patch"""
    width: int = 192
    """width of the Transformer, a multiple of the heads"""
    depth: int = 8
    """its blocks"""
    heads: int = 12
    """its attention heads"""
    conditioning: Literal["adaln", "token"] = "adaln"
    """how it learns the noise level: adaLN-Zero, or one more token"""
    skips: bool = True
    """long skips from its first half to its second (U-ViT)"""
    ends: Literal["linear", "convolution"] = "linear"
    """its first and last layers: patches by one affine map, or 3 x 3 convolutions around them"""
    unet_widths: tuple[int, ...] = (32, 64, 96, 128)
    """widths of the U-Net's levels"""

    target: Target = "noise"
    """what the network predicts"""
    error: Literal["mae", "mse"] = "mae"
    """of that prediction"""
    min_snr: float = 0.0
    """gamma of Min-SNR weighting; 0: none"""
    min_signal: float = 0.02
    """signal rate at t = 1"""
    max_signal: float = 0.95
    """signal rate at t = 0"""

    batch: int = 64
    """images in a step, over all processes"""
    accumulate: int = 1
    """parts that a step is computed in, for small memories"""
    epochs: int = 1
    """an epoch is --repeats passes over the training part"""
    repeats: int = 5
    """passes in an epoch"""
    lr: float = 1e-3
    """peak learning rate (AdamW)"""
    weight_decay: float = 1e-4
    """AdamW's weight decay"""
    warmup: int = 250
    """steps of linear warm-up"""
    decay: bool = True
    """the learning rate falls to zero on a cosine"""
    flips: bool = True
    """mirror half of the images"""
    ema: float = 0.999
    """decay of the averaged weights that sample, min(ema, (1 + step) / (10 + step))"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """arithmetic of training; auto: bfloat16 where it is the faster"""

    samples: int = 512
    """images sampled for a score, a set of noise"""
    steps: tuple[int, ...] = (5, 20)
    """DDIM steps that every network is scored at on the test part"""
    powers: tuple[float, ...] = (1.0, 0.8, 0.6)
    """exponents of a sampler's times (1: even; below: the last step is a long one), among which validation chooses for every network and number of steps"""
    sweep: tuple[int, ...] = (5, 10)
    """network evaluations that every sampler is scored at on the validation part"""
    feature_width: int = 32
    """first width of the own feature network"""
    feature_epochs: int = 6
    """its passes over the training part"""
    inception: bool = False
    """score in Inception's features too (pip install torch-fidelity; fetches its weights)"""

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        return {
            "smoke": {
                "synthetic_images": 160,
                "side": 16,
                "width": 48,
                "unet_widths": (8, 16),
                "batch": 16,
                "epochs": 1,
                "repeats": 2,
                "warmup": 5,
                "seeds": 2,
                "samples": 24,
                "feature_width": 8,
                "sweep": (3,),
                "steps": (2, 3),
                "powers": (1.0, 0.6),
                "feature_epochs": 1,
                "recipes": ("tuned", "as assigned"),
            },
            "default": {"repeats": 3, "samples": 128, "powers": (1.0,)},
            "full": {
                "side": 64,
                "width": 384,
                "epochs": 50,
                "samples": 1024,
                "sweep": (3, 5, 7, 10, 15, 20, 50),
                "feature_epochs": 30,
                "recipes": ("tuned", "as assigned"),
            },
        }


# Keras' example as it stands: noise, MAE, AdamW 1e-3, no augmentation; the Transformer that takes its U-Net's place is a plain ViT
ASSIGNED: dict[str, Any] = {
    "conditioning": "token",
    "skips": False,
    "ends": "linear",
    "target": "noise",
    "error": "mae",
    "min_snr": 0.0,
    "min_signal": 0.02,
    "max_signal": 0.95,
    "batch": 64,
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "warmup": 0,
    "decay": False,
    "flips": False,
    "ema": 0.999,
}


def variant(config: Config, recipe: str) -> Config:
    """The train.py config that a recipe trains with."""
    return dataclasses.replace(config, **ASSIGNED) if recipe == "as assigned" else config
