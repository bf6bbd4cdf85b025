"""Fields in units of their own: the mean and the deviation that each of them has in training.

Networks, clipping and scores work in these units, so that neither a constant factor nor a constant
offset of a field changes what they find: a pressure may be given in Pa or bar, a temperature in K.

Shape letters: F fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BLOWN_UP = 1e6  # predictions are clipped to so many deviations from the mean before scoring
ROUNDING = 2.0  # a deviation below so many units in the last place of a field is rounding
GRAIN = 2.0**-16  # of a deviation: networks read fields rounded to it
CHUNK = 1 << 16  # rows that are taken to float64 at a time
Normal = TypeVar("Normal", "np.ndarray", "Tensor")


@dataclass(frozen=True)
class Units:
    """The mean and the standard deviation float64 (F,) of each field.

    A field that is the same everywhere has deviation 0: in units of its own it is 0, and whatever
    a model says of it is its mean.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Units:
        """From training values (..., F), in float64 whatever their type."""
        fields = values.shape[-1]
        flat = values.reshape(math.prod(values.shape[:-1]), fields)
        low = flat.min(0).astype(np.float64)
        high = flat.max(0).astype(np.float64)

        # sums of differences from a value of the field keep the digits of a small deviation
        total = sum((part - low).sum(0) for part in chunks(flat))
        mean = low + total / len(flat)
        squares = sum(((part - mean) ** 2).sum(0) for part in chunks(flat))
        std = np.sqrt(squares / len(flat))

        precise = flat.dtype if flat.dtype.kind == "f" else np.float64
        rounding = ROUNDING * np.finfo(precise).eps * np.maximum(np.abs(low), np.abs(high))
        constant = (low == high) | (std <= rounding)
        return cls(np.where(low == high, low, mean), np.where(constant, 0.0, std))

    @property
    def scale(self) -> np.ndarray:
        """What differences of a field are measured in, float64 (F,), never 0.

        The deviation; of a constant field its size, or 1 where it is 0.
        """
        size = np.where(self.mean != 0, np.abs(self.mean), 1.0)
        return np.where(self.std > 0, self.std, size)

    def standardise(self, values: np.ndarray) -> np.ndarray:
        """Fields (..., F) in units of their own, float64; 0 for a constant field."""
        return (values - self.mean) / np.where(self.std > 0, self.std, np.inf)

    def physical(self, normal: np.ndarray) -> np.ndarray:
        """The inverse of `standardise`, float64."""
        return normal * self.std + self.mean

    def centred(self, values: np.ndarray) -> np.ndarray:
        """Differences of fields (..., F) from the mean over `scale`, float64; keeps what varies."""
        return (values - self.mean) / self.scale

    def bounded(self, values: np.ndarray) -> np.ndarray:
        """Fields (..., F) of a rollout that may have blown up, finite: float64."""
        limit = BLOWN_UP * self.scale
        known = np.where(np.isnan(values), self.mean + limit, values)
        return np.clip(known, self.mean - limit, self.mean + limit)


def chunks(flat: np.ndarray) -> Iterator[np.ndarray]:
    """Successive rows of an array as float64."""
    for start in range(0, len(flat), CHUNK):
        yield flat[start : start + CHUNK].astype(np.float64)


def coarse(normal: Normal) -> Normal:
    """Fields in units of their own, rounded to GRAIN.

    An offset takes the last digits of a field. Where these reach a network, a whole training comes
    out differently, for it magnifies every difference.
    """
    return (normal / GRAIN).round() * GRAIN
