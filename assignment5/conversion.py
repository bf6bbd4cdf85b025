"""Pixels to numbers and back, and weights in the precision in which they are saved."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from common.files import StateDict


def to_float(pixels: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) -> float (B, 3, S, S) in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def to_bytes(images: Tensor) -> np.ndarray:
    """float (N, 3, S, S) in [0, 1] -> uint8 (N, S, S, 3), rounded to 8 bits as a PNG file is."""
    return (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def half_precision(model: nn.Module) -> StateDict:
    """The weights rounded to float16, in which they are saved, as float32."""
    return {
        name: value.half().float() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
