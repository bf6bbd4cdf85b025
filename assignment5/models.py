"""The denoisers by name, and their files: safetensors that carry what is needed to build them again."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from assignment5.diffusion import Diffusion, Schedule
from assignment5.dit import DiT
from assignment5.features import FeatureNet, load_features
from assignment5.unet import UNet
from common.cli import InputError
from common.run import atomic_path

NETWORKS = ("Transformer", "U-Net")


def build(config: Any, network: str) -> Diffusion:
    """A fresh "Transformer" or "U-Net" in its diffusion. Raises InputError for sizes that do not fit."""
    if network == "U-Net":
        inner: nn.Module = UNet(config.side, config.unet_widths)
    else:
        inner = DiT(config.side, config.patch, config.width, config.depth, config.heads, config.conditioning, config.skips, config.ends)
    return Diffusion(inner, Schedule(config.min_signal, config.max_signal), config.target)


def filled(config: Any, network: str, weights: dict[str, Any], device: str) -> Diffusion:
    """A denoiser with trained weights on its device."""
    model = build(config, network)
    model.load_state_dict(weights)
    return model.to(device, memory_format=torch.channels_last).eval()


def parameters(model: nn.Module) -> int:
    """How many trained numbers a network has."""
    return sum(parameter.numel() for parameter in model.parameters())


def save_model(path: Path, weights: dict[str, Any], about: dict[str, Any], half: bool = False) -> None:
    """Writes weights (float16 where `half`) and the JSON values `about` them as one safetensors file, atomically."""
    kept = {name: torch.as_tensor(value) for name, value in weights.items()}
    kept = {name: (value.half() if half and value.is_floating_point() else value).cpu().contiguous() for name, value in kept.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(kept, metadata={"about": json.dumps(about)}))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; train.py writes it, or name another run with --run") from None
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not a whole model file of assignment 5 ({error}); train again or copy it again") from None


@contextlib.contextmanager
def _as_said(path: Path) -> Iterator[None]:
    """Turns torch's refusal of weights of another shape into one line that names the file."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(f"{path} holds weights of another shape than it says ({str(error).splitlines()[-1].strip()})") from None


def load_denoiser(path: Path, device: str) -> tuple[Diffusion, dict[str, Any]]:
    """A denoiser that `save_model` wrote, and what its file says about it. Raises InputError for a file that is not whole."""
    weights, about = _read(path)
    with _as_said(path):
        return filled(SimpleNamespace(**about["config"]), about["network"], weights, device), about


def load_feature_net(path: Path, device: str) -> FeatureNet:
    """The feature network of a run. Raises InputError for a file that is not whole."""
    weights, about = _read(path)
    with _as_said(path):
        return load_features(about | {"weights": weights}, device)


def largest_part(attempt: Any, batch: int) -> int:
    """The largest half, quarter, ... of a batch that `attempt(size)` has the memory for; 0 where none."""
    for size in itertools.takewhile(bool, (batch >> halving for halving in range(1, batch.bit_length()))):
        try:
            attempt(size)
            return size
        except torch.OutOfMemoryError:
            continue
    return 0


def too_large(batch: int, part: int, fits: int, processes: int) -> InputError:
    """The one line for a device without the memory for `part` images of a batch, where `fits` at once would do."""
    advice = f"parts of {fits} would fit: --accumulate {batch // fits // processes}" if fits else "not even one image fits"
    return InputError(f"--batch {batch}: the device has not enough memory for {part} images at once; {advice}")
