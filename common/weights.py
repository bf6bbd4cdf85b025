"""Model files of torch networks: safetensors with what is needed to build the network again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from common.cli import InputError
from common.files import JsonObject, StateDict, atomic_path

if TYPE_CHECKING:
    import torch


def save_model(
    path: Path, weights: Mapping[str, object], about: JsonObject, half: bool = False
) -> None:
    """Saves weights and JSON metadata `about` them as one safetensors file, atomically.

    With `half`, tensors that are finite in float16 are stored as float16.
    """
    import torch
    from safetensors.torch import save

    stored = {name: torch.as_tensor(value).cpu().contiguous() for name, value in weights.items()}
    if half:  # (a scale may lie beyond 65,504: Grashof numbers do)
        for name, value in stored.items():
            if value.is_floating_point() and value.half().isfinite().all():
                stored[name] = value.half()
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(stored, metadata={"about": json.dumps(about)}))


def read_model(path: Path) -> tuple[StateDict, JsonObject]:
    """The weights as tensors and the metadata. Raises InputError for a missing or damaged file."""
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return weights, json.loads(file.metadata()["about"])
    except FileNotFoundError:
        advice = "train.py writes it, or name another run with --run"
        raise InputError(f"{path} does not exist; {advice}") from None
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        advice = "train again or copy it again"
        raise InputError(f"{path} is not a whole model file ({error}); {advice}") from None


def count_parameters(model: torch.nn.Module) -> int:
    """How many trained numbers a torch network has."""
    return sum(parameter.numel() for parameter in model.parameters())
