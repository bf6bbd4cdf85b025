"""The denoisers by name, and their files: safetensors that carry what is needed to build them again."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from assignment5.diffusion import Diffusion, Schedule
from assignment5.dit import DiT
from assignment5.features import FeatureNet, load_features
from assignment5.unet import UNet
from common.cli import InputError
from common.weights import as_said, read_model

NETWORKS = ("Transformer", "U-Net")


def build(config: Any, network: str) -> Diffusion:
    """A fresh "Transformer" or "U-Net" in its diffusion. Raises InputError for sizes that do not fit."""
    if network == "U-Net":
        inner: nn.Module = UNet(config.side, config.unet_widths)
    else:
        inner = DiT(
            config.side,
            config.patch,
            config.width,
            config.depth,
            config.heads,
            config.conditioning,
            config.skips,
            config.ends,
        )
    return Diffusion(inner, Schedule(config.min_signal, config.max_signal), config.target)


def filled(config: Any, network: str, weights: dict[str, Any], device: str) -> Diffusion:
    """A denoiser with trained weights on its device."""
    model = build(config, network)
    model.load_state_dict(weights)
    return model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # torch's stub lacks it


def load_denoiser(path: Path, device: str) -> tuple[Diffusion, dict[str, Any]]:
    """A denoiser that `save_model` wrote, and what its file says about it. Raises InputError for a file that is not whole."""
    weights, about = read_model(path)
    with as_said(path):
        return filled(SimpleNamespace(**about["config"]), about["network"], weights, device), about


def load_feature_net(path: Path, device: str) -> FeatureNet:
    """The feature network of a run. Raises InputError for a file that is not whole."""
    weights, about = read_model(path)
    with as_said(path):
        return load_features(about | {"weights": weights}, device)


def largest_part(attempt: Any, batch: int) -> int:
    """The largest half, quarter, ... of a batch that `attempt(size)` has the memory for; 0 where none."""
    for size in itertools.takewhile(
        bool, (batch >> halving for halving in range(1, batch.bit_length()))
    ):
        try:
            attempt(size)
            return size
        except torch.OutOfMemoryError:
            continue
    return 0


def too_large(batch: int, part: int, fits: int, processes: int) -> InputError:
    """The one line for a device without the memory for `part` images of a batch, where `fits` at once would do."""
    advice = (
        f"parts of {fits} would fit: --accumulate {batch // fits // processes}"
        if fits
        else "not even one image fits"
    )
    return InputError(
        f"--batch {batch}: the device has not enough memory for {part} images at once; {advice}"
    )
