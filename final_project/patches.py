"""An unstructured mesh as a fixed set of patches: the nodes in each box of a grid over the bounding box.

Shape letters: P nodes, Q patches, n nodes of the fullest patch.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from common.cli import InputError


def patch_table(
    coordinates: np.ndarray, columns: int = 8, rows: int = 8, keep_empty: bool = False
) -> np.ndarray:
    """Node numbers int64 (Q, n) of every box, row by row from the lowest y, in mesh order and padded with -1.

    coordinates: float (P, 2). The bounding box is cut into rows x columns equal boxes, columns along x; a node on an inner edge belongs to
    the box above or to the right. Boxes without a node are dropped unless `keep_empty` (the published binning keeps all 64).
    Raises InputError for coordinates that are not finite (P, 2), for nodes on one line along an axis, and for fewer than one box.
    """
    coordinates = np.asarray(coordinates, dtype=np.float64)
    if (
        coordinates.ndim != 2
        or coordinates.shape[1] != 2
        or not len(coordinates)
        or not np.isfinite(coordinates).all()
    ):
        raise InputError(
            f"coordinates: shape {coordinates.shape}; allowed are finite numbers of shape (nodes, 2)"
        )
    if columns < 1 or rows < 1:
        raise InputError(f"{columns} x {rows} patches: at least one column and one row are needed")
    low, extent = coordinates.min(0), np.ptp(coordinates, axis=0)
    if not extent.all():
        raise InputError("coordinates: all nodes lie on one line; a mesh in the plane is needed")
    boxes = np.array([columns, rows])
    place = np.minimum(((coordinates - low) / extent * boxes).astype(np.int64), boxes - 1)  # (P, 2)
    patch = place[:, 1] * columns + place[:, 0]  # (P,)
    counts = np.bincount(patch, minlength=columns * rows)
    order = np.argsort(patch, kind="stable")
    slot = np.arange(len(order)) - np.repeat(counts.cumsum() - counts, counts)
    table = np.full((columns * rows, counts.max()), -1, dtype=np.int64)
    table[patch[order], slot] = order
    return table if keep_empty else table[counts > 0]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where patches lie, and their codes in functions that all patches have in common; float64.

    places: (Q, 2), column and row. For each field group, with c coefficients of polynomials in a patch: analysis (Q, E, c) takes a code to the
    coefficients of the field that it stands for, synthesis (Q, c, E) takes coefficients to a code.
    """

    places: Tensor
    analysis: list[Tensor]
    synthesis: list[Tensor]


def polynomials(x: np.ndarray, degree: int) -> np.ndarray:
    """Products of Legendre polynomials up to a total degree at points (n, 2) in [-1, 1]: float64 (n, terms)."""
    one, two = (
        np.polynomial.legendre.legvander(x[:, axis], degree) for axis in (0, 1)
    )  # (n, degree + 1) each
    return np.stack(
        [one[:, i] * two[:, j] for i in range(degree + 1) for j in range(degree + 1 - i)], axis=1
    )


def places_of(coordinates: np.ndarray, table: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Column and row float64 (Q, 2) of each patch (Q, n) of `patch_table`."""
    low, size = coordinates.min(0), np.ptp(coordinates, axis=0) / (columns, rows)
    centres = np.stack([coordinates[row[row >= 0]].mean(0) for row in table])
    return np.minimum((centres - low) // size, (columns - 1, rows - 1))


def geometry_of(
    coordinates: np.ndarray,
    table: np.ndarray,
    columns: int,
    rows: int,
    bases: list[tuple[Tensor, Tensor]],
    degree: int = 3,
) -> Geometry:
    """Geometry of the patches `table` (Q, n) of `patch_table`, whose codes have linear parts `bases`.

    bases: for each group of f fields (analysis, synthesis), each (Q, n f, E), node-major and 0 on padding: code = analysis' values,
    values = synthesis code. A patch with fewer nodes than terms gets the smallest coefficients that agree (a small ridge).
    """
    low, size = coordinates.min(0), np.ptp(coordinates, axis=0) / (columns, rows)
    places = places_of(coordinates, table, columns, rows)
    found = Geometry(torch.from_numpy(places), [], [])
    for read, write in bases:
        fields = read.shape[1] // table.shape[1]
        analysis, synthesis = [], []
        for patch, nodes in enumerate(table):
            nodes = nodes[nodes >= 0]
            terms = torch.from_numpy(
                polynomials(2 * ((coordinates[nodes] - low) / size - places[patch]) - 1, degree)
            )  # (n, terms)
            into, out = (
                basis[patch].double().unflatten(0, (-1, fields))[: len(nodes)]
                for basis in (read, write)
            )  # (n, f, E)
            normal = terms.T @ terms + 1e-3 * len(nodes) * torch.eye(
                terms.shape[1], dtype=torch.float64
            )
            fitted = torch.linalg.solve(normal, torch.einsum("nt,nfe->tfe", terms, out).flatten(1))
            analysis.append(fitted.reshape(-1, read.shape[2]).T)
            synthesis.append(torch.einsum("nt,nfe->tfe", terms, into).flatten(0, 1))
        found.analysis.append(torch.stack(analysis))
        found.synthesis.append(torch.stack(synthesis))
    return found
