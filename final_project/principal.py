"""Principal components, and what they are divided by.

Shape letters: N samples, n numbers each.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-2  # of the largest deviation: added to the others before they are divided by
NEGLIGIBLE = 1e-6  # of the largest deviation: less is rounding of float32


def principal(x: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Deviations (kept,) and directions (n, kept) of x (N, n), the largest first.

    Directions in which x holds nothing but rounding are arbitrary, and are 0.
    """
    variance, directions = torch.linalg.eigh(x.T @ x / len(x))
    deviations = variance.flip(0)[:kept].clamp(min=0).sqrt()
    is_signal = deviations > NEGLIGIBLE * deviations[0]
    return deviations, directions.flip(1)[:, :kept] * is_signal


def whitening(deviations: Tensor, directions: Tensor) -> Tensor:
    """Directions (n, kept) over their deviations (kept,), which a floor keeps from zero.

    Zeros where nothing varies.
    """
    divisor = deviations + FLOOR * deviations[0]
    return directions / torch.where(divisor > 0, divisor, torch.inf)
