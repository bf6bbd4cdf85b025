"""An unstructured mesh as a fixed set of patches: the nodes in each box of a grid over the bounding box.

Shape letters: P nodes, Q patches, n nodes of the fullest patch.
"""

from __future__ import annotations

import numpy as np

from common.cli import InputError


def patch_table(coordinates: np.ndarray, columns: int = 8, rows: int = 8, keep_empty: bool = False) -> np.ndarray:
    """Node numbers int64 (Q, n) of every box, row by row from the lowest y, in mesh order and padded with -1.

    coordinates: float (P, 2). The bounding box is cut into rows x columns equal boxes, columns along x; a node on an inner edge belongs to
    the box above or to the right. Boxes without a node are dropped unless `keep_empty` (the published binning keeps all 64).
    Raises InputError for coordinates that are not finite (P, 2), for nodes on one line along an axis, and for fewer than one box.
    """
    coordinates = np.asarray(coordinates, dtype=np.float64)
    if coordinates.ndim != 2 or coordinates.shape[1] != 2 or not len(coordinates) or not np.isfinite(coordinates).all():
        raise InputError(f"coordinates: shape {coordinates.shape}; allowed are finite numbers of shape (nodes, 2)")
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
