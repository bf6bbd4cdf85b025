"""Model files of torch networks: safetensors that carry what is needed to build the network again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from common.cli import InputError
from common.run import atomic_path


def save_model(
    path: Path, weights: dict[str, Any], about: dict[str, Any], half: bool = False
) -> None:
    """Writes weights (float16 where `half` and within its range) and the JSON values `about` them as one safetensors file, atomically."""
    import torch
    from safetensors.torch import save

    kept = {name: torch.as_tensor(value).cpu().contiguous() for name, value in weights.items()}
    if half:  # (a scale may lie beyond 65,504: Grashof numbers do)
        halved = {name: value.half() for name, value in kept.items() if value.is_floating_point()}
        kept |= {name: value for name, value in halved.items() if value.isfinite().all()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(kept, metadata={"about": json.dumps(about)}))


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(weights as tensors, what the file says about them). Raises InputError for a file that is missing or not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(
                file.metadata()["about"]
            )
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; train.py writes it, or name another run with --run"
        ) from None
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} is not a whole model file ({error}); train again or copy it again"
        ) from None


@contextlib.contextmanager
def as_said(path: Path) -> Iterator[None]:
    """Turns torch's refusal of weights of another shape into one line that names the file."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            f"{path} holds weights of another shape than it says ({str(error).splitlines()[-1].strip()})"
        ) from None


def parameters(model: Any) -> int:
    """How many trained numbers a torch network has."""
    return sum(parameter.numel() for parameter in model.parameters())
