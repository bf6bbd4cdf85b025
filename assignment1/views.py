"""What the models see of a face, all of it made from its code map alone.

Shape letters: N faces, P = 12 x 12 = 144 places of a code map, H W = 48 x 48 pixels, V warped
copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from assignment1.data import Split
from assignment1.vqvae import VQVAE
from assignment1.warps import warped


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
    pictures_and_copies: Columns | None = None

    @property
    def copies(self) -> int:
        """How many warped copies of each picture there are."""
        if self.pictures is None or self.pictures_and_copies is None:
            return 0
        pixels = self.pictures.last - self.pictures.first
        return (self.pictures_and_copies.last - self.pictures.last) // pixels


@dataclass(frozen=True)
class Views:
    """The codes uint8 (N, P), and, where there is a VQ-VAE, three more views of each face.

    mirror uint8 (N, P): the codes of the mirror image (decoded, flipped left to right, encoded
    again); pictures uint8 (N, H W): the decoded picture; copies uint8 (N, V H W): that picture
    turned, scaled and shifted. All are there, or none.
    """

    codes: np.ndarray
    mirror: np.ndarray | None = None
    pictures: np.ndarray | None = None
    copies: np.ndarray | None = None

    @property
    def layout(self) -> Layout:
        """Where each view is in `matrix`."""
        places = self.codes.shape[1]
        codes = Columns(0, places)
        if self.pictures is None or self.copies is None:
            return Layout(codes, None, None)
        end = 2 * places + self.pictures.shape[1]
        return Layout(
            codes,
            Columns(0, 2 * places),
            Columns(2 * places, end),
            Columns(2 * places, end + self.copies.shape[1]),
        )

    @cached_property
    def matrix(self) -> np.ndarray:
        """All views side by side, as the estimators take them: uint8 (N, columns)."""
        views = (self.codes, self.mirror, self.pictures, self.copies)
        return np.concatenate([view for view in views if view is not None], axis=1)


def code_views(codemaps: np.ndarray, vqvae: VQVAE | None) -> Views:
    """The views of faces from their code maps uint8 (N, h, w); only the codes without a VQ-VAE."""
    codes = codemaps.reshape(len(codemaps), -1)  # (N, P)
    if vqvae is None:
        return Views(codes)
    pictures = np.round(255 * vqvae.decode(codemaps)).astype(np.uint8)  # (N, H, W)
    mirror = vqvae.encode(pictures[:, :, ::-1])  # (N, h, w)
    copies = warped(pictures, codes)  # (N, V, H, W)
    flat = (view.reshape(len(codes), -1) for view in (mirror, pictures, copies))
    return Views(codes, *flat)


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
