"""An unstructured mesh as a fixed set of patches: the nodes in each box of a grid.

The grid divides the mesh's bounding box into columns along x and rows along y.
Shape letters: P nodes, Q patches, n nodes of the fullest patch, f fields of a group, E latent
values per patch and group, t terms of a polynomial, c = t f coefficients of a patch's fields.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from common.cli import InputError

MOST_BOXES = 1_000_000  # beyond it a mesh would be cut into pieces smaller than its nodes
RIDGE = 1e-3  # per node: a patch with fewer nodes than terms gets the smallest coefficients


def patch_table(
    coordinates: np.ndarray, columns: int = 8, rows: int = 8, keep_empty: bool = False
) -> np.ndarray:
    """Node numbers int64 (Q, n) of every box, row by row from the lowest y, padded with -1.

    coordinates : float (P, 2). A node on an inner edge belongs to the box above or to the right;
    nodes of a box stand in mesh order. Boxes without a node are dropped unless `keep_empty` (the
    published binning keeps all 64).

    Raises InputError for coordinates that are not finite (P, 2), for nodes on one line along an
    axis, and for fewer than one box.
    """
    coordinates = np.asarray(coordinates, dtype=np.float64)
    planar = coordinates.ndim == 2 and coordinates.shape[1] == 2 and len(coordinates) > 0
    if not planar or not np.isfinite(coordinates).all():
        raise InputError(
            f"coordinates: shape {coordinates.shape}; "
            "allowed are finite numbers of shape (nodes, 2)"
        )
    if columns < 1 or rows < 1:
        raise InputError(f"{columns} x {rows} patches: at least one column and one row are needed")
    if columns * rows > MOST_BOXES:
        raise InputError(f"{columns} x {rows} patches: at most {MOST_BOXES:,} boxes are allowed")
    extent = np.ptp(coordinates, axis=0)
    if not extent.all():
        raise InputError("coordinates: all nodes lie on one line; a mesh in the plane is needed")

    # the box of each node:
    boxes = np.array([columns, rows])
    position = (coordinates - coordinates.min(0)) / extent * boxes  # (P, 2), in boxes
    column, row = np.minimum(position.astype(np.int64), boxes - 1).T
    patch = row * columns + column  # (P,)

    # nodes sorted by box, each with its number within the box:
    counts = np.bincount(patch, minlength=columns * rows)
    order = np.argsort(patch, kind="stable")
    begins = counts.cumsum() - counts
    slot = np.arange(len(order)) - np.repeat(begins, counts)
    if not keep_empty:  # (a table of empty boxes may be huge)
        patch = (np.cumsum(counts > 0) - 1)[patch]
    boxes_kept = columns * rows if keep_empty else np.count_nonzero(counts)
    table = np.full((boxes_kept, counts.max()), -1, dtype=np.int64)
    table[patch[order], slot] = order
    return table


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Positions of patches, and their codes in functions that all patches share; float64.

    places : (Q, 2), column and row of each patch.
    analysis : for each field group (Q, E, c); takes a code to the coefficients of its field.
    synthesis : for each field group (Q, c, E); takes coefficients to a code.
    """

    places: Tensor
    analysis: list[Tensor]
    synthesis: list[Tensor]


def polynomials(x: np.ndarray, degree: int) -> np.ndarray:
    """Products of Legendre polynomials up to a total degree at points (n, 2): float64 (n, t).

    Points lie in [-1, 1].
    """
    one = np.polynomial.legendre.legvander(x[:, 0], degree)  # (n, degree + 1)
    two = np.polynomial.legendre.legvander(x[:, 1], degree)
    terms = [one[:, i] * two[:, j] for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.stack(terms, axis=1)


def places_of(coordinates: np.ndarray, table: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Column and row float64 (Q, 2) of each patch (Q, n) of `patch_table`."""
    size = np.ptp(coordinates, axis=0) / (columns, rows)
    centres = np.stack([coordinates[row[row >= 0]].mean(0) for row in table])
    return np.minimum((centres - coordinates.min(0)) // size, (columns - 1, rows - 1))


def geometry_of(
    coordinates: np.ndarray,
    table: np.ndarray,
    columns: int,
    rows: int,
    bases: list[tuple[Tensor, Tensor]],
    degree: int = 3,
) -> Geometry:
    """Geometry of the patches `table` (Q, n) of `patch_table`, whose codes have linear parts.

    bases : for each group (analysis, synthesis), each (Q, n f, E), node-major and 0 on padding:
    code = analysis' values, values = synthesis code.
    """
    places = places_of(coordinates, table, columns, rows)
    size = np.ptp(coordinates, axis=0) / (columns, rows)
    corner = coordinates.min(0)

    # the polynomials at the nodes of each patch:
    terms = []
    for row, place in zip(table, places, strict=True):
        local = (coordinates[row[row >= 0]] - corner) / size - place  # (nodes, 2), in [0, 1]
        terms.append(torch.from_numpy(polynomials(2 * local - 1, degree)))  # (nodes, t)

    geometry = Geometry(torch.from_numpy(places), [], [])
    for analysis, synthesis in bases:
        fields = analysis.shape[1] // table.shape[1]
        into = analysis.double().unflatten(1, (-1, fields))  # (Q, n, f, E)
        out = synthesis.double().unflatten(1, (-1, fields))
        fitted = [coefficients_of(t, codes[: len(t)]) for t, codes in zip(terms, out, strict=True)]
        written = [codes_of(t, codes[: len(t)]) for t, codes in zip(terms, into, strict=True)]
        geometry.analysis.append(torch.stack(fitted))
        geometry.synthesis.append(torch.stack(written))
    return geometry


def coefficients_of(terms: Tensor, fields: Tensor) -> Tensor:
    """Coefficients (E, c) of the fields (nodes, f, E) in the terms (nodes, t), by least squares."""
    nodes, count = terms.shape
    ridge = RIDGE * nodes * torch.eye(count, dtype=torch.float64)
    moments = torch.einsum("nt,nfe->tfe", terms, fields)
    fitted = torch.linalg.solve(terms.T @ terms + ridge, moments.flatten(1))  # (t, f E)
    return fitted.reshape(-1, fields.shape[2]).T


def codes_of(terms: Tensor, fields: Tensor) -> Tensor:
    """Codes (c, E) of the terms (nodes, t), which `fields` (nodes, f, E) read."""
    return torch.einsum("nt,nfe->tfe", terms, fields).flatten(0, 1)
