"""What the models see of a face, all of it made from its code map alone.

Shape letters: N faces, P = 12 x 12 = 144 places of a code map, H W = 48 x 48 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from assignment1.data import Split
from assignment1.vqvae import VQVAE


class Columns(NamedTuple):
    """Columns of the matrix that the estimators take: from `first` up to, without, `last`."""

    first: int
    last: int


@dataclass(frozen=True)
class Layout:
    """Where each view is in that matrix; None for a view that there is not."""

    codes: Columns
    codes_and_mirror: Columns | None
    pictures: Columns | None


@dataclass(frozen=True)
class Views:
    """The codes uint8 (N, P), and, where there is a VQ-VAE, two more views of each face.

    mirror uint8 (N, P): the codes of the mirror image (decoded, flipped left to right, encoded
    again); pictures uint8 (N, H W): the decoded picture. Both are there, or neither.
    """

    codes: np.ndarray
    mirror: np.ndarray | None = None
    pictures: np.ndarray | None = None

    @property
    def layout(self) -> Layout:
        """Where each view is in `matrix`."""
        places = self.codes.shape[1]
        codes = Columns(0, places)
        if self.pictures is None:
            return Layout(codes, None, None)
        end = 2 * places + self.pictures.shape[1]
        return Layout(codes, Columns(0, 2 * places), Columns(2 * places, end))

    @cached_property
    def matrix(self) -> np.ndarray:
        """All views side by side, as the estimators take them: uint8 (N, 2 P + H W) or (N, P)."""
        views = (self.codes, self.mirror, self.pictures)
        return np.concatenate([view for view in views if view is not None], axis=1)


def code_views(codemaps: np.ndarray, vqvae: VQVAE | None) -> Views:
    """The views of faces from their code maps uint8 (N, h, w); only the codes without a VQ-VAE."""
    codes = codemaps.reshape(len(codemaps), -1)  # (N, P)
    if vqvae is None:
        return Views(codes)
    pictures = np.round(255 * vqvae.decode(codemaps)).astype(np.uint8)  # (N, H, W)
    mirror = vqvae.encode(pictures[:, :, ::-1])  # (N, h, w)
    return Views(codes, mirror.reshape(codes.shape), pictures.reshape(len(codes), -1))


@dataclass(frozen=True)
class Dataset:
    """What the classifiers are trained, chosen and scored on."""

    views: Views
    labels: np.ndarray  # int64 (N,)
    split: Split
    codebook: np.ndarray | None  # float32 (m, d)

    def rows(self, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """X uint8 (n, columns) and y int64 (n,) of a part of the split."""
        return self.views.matrix[part], self.labels[part]
