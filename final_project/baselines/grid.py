"""A regular grid over an unstructured mesh, for networks that need one.

Shape letters: P nodes, F fields, R rows and C columns of the grid, M triangles, Q points.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from einops import rearrange
from scipy.spatial import Delaunay, KDTree, QhullError

from common.cli import InputError

SAME_POINT = 1e-9  # points are the same within this share of the mesh's extent
CHUNK = 64  # triangles that are compared with all points at a time
RIDGE = 0.01  # beside the sum of squared weights of a node, which is at most 1


class Grid:
    """R rows (along y, from below) and C columns over the nodes' bounding box.

    Interpolation is linear, both ways; where the nodes are the grid's points, it is the identity. A
    hole is filled linearly from its rim, so that a wall's value holds up to the wall; `mask` bool
    (R, C) is False there and outside the hull. `aspect` is width / height, as `metrics.band_energy`
    takes it, of evenly spaced lines. With a `grading` lines gather where the mesh is fine, see
    `lines`. With `fitted` the grid's values are corrected, see `returning`: where the mesh is finer
    than the grid, interpolation alone loses what lies between its points. Raises InputError for
    fewer than 2 rows or columns, and for nodes that span no area.
    """

    def __init__(
        self,
        coordinates: np.ndarray,
        triangles: np.ndarray,
        rows: int = 32,
        columns: int = 96,
        grading: float = 0.0,
        fitted: bool = False,
    ):
        if min(rows, columns) < 2:
            raise InputError(f"a grid of {rows} x {columns}: at least 2 x 2 points are needed")
        self.rows = rows
        self.columns = columns
        coordinates = np.asarray(coordinates, np.float64)
        across = lines(coordinates[:, 0], columns, grading)
        up = lines(coordinates[:, 1], rows, grading)
        x, y = np.meshgrid(across, up)
        points = np.stack([x.ravel(), y.ravel()], 1)  # (R C, 2)

        self.forward = interpolation(coordinates, points)
        self.backward = interpolation(points, coordinates)
        if fitted:
            self.forward = returning(self.forward, self.backward)
        cells = np.array([columns / (columns - 1), rows / (rows - 1)])
        width, height = np.ptp(coordinates, axis=0) * cells
        self.aspect = float(width / height)
        corners = triangles if len(triangles) else Delaunay(coordinates).simplices
        self.mask = covered(points, coordinates[corners]).reshape(rows, columns)
        self.place = np.stack(np.meshgrid(unit(across), unit(up)))  # (2, R, C)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def static(self) -> np.ndarray:
        """What is known of each point beforehand: x and y from -1 to 1, and the mask (3, R, C)."""
        return np.concatenate([self.place, self.mask[None]])

    def to_grid(self, fields: np.ndarray) -> np.ndarray:
        """(..., P, F) -> (..., F, R, C), same dtype."""
        flat = self._apply(self.forward, fields)  # (..., R C, F)
        return rearrange(flat, "... (r c) f -> ... f r c", r=self.rows)

    def to_nodes(self, grids: np.ndarray) -> np.ndarray:
        """(..., F, R, C) -> (..., P, F), same dtype."""
        return self._apply(self.backward, rearrange(grids, "... f r c -> ... (r c) f"))

    @staticmethod
    def _apply(matrix: scipy.sparse.csr_array, fields: np.ndarray) -> np.ndarray:
        """A matrix (targets, sources) on the last but one axis, same dtype."""
        flat = np.moveaxis(fields, -2, 0)  # (sources, ..., F)
        product = matrix @ flat.reshape(len(flat), -1)
        targets = product.reshape(-1, *flat.shape[1:])
        return np.moveaxis(targets, 0, -2).astype(fields.dtype, copy=False)


def lines(values: np.ndarray, count: int, grading: float) -> np.ndarray:
    """`count` positions from the least to the largest of the nodes' values (P,) along an axis.

    Evenly spaced with grading 0; with 1 there would be as many nodes between any two lines as
    between any other two. In between the shares of the extent and of the nodes are averaged.
    """
    low = values.min()
    high = values.max()
    if not grading:
        return np.linspace(low, high, count)
    known = np.unique(values)
    nodes = np.searchsorted(np.sort(values), known, "right") / len(values)  # share up to each
    nodes = (nodes - nodes[0]) / (nodes[-1] - nodes[0])
    extent = (known - low) / (high - low)
    return np.interp(np.linspace(0, 1, count), grading * nodes + (1 - grading) * extent, known)


def returning(
    forward: scipy.sparse.csr_array, backward: scipy.sparse.csr_array
) -> scipy.sparse.csr_array:
    """A matrix (R C, P) in the place of `forward`, whose grids come back nearly as they were.

    forward (R C, P), backward (P, R C). To the interpolated grid is added the smallest change, in
    squares with the ridge RIDGE, after which `backward` gives the nodes' values: B' (B B' + r I)^-1
    (I - B F). Nodes of one cell that no values of its corners can meet together are met on average.
    """
    nodes = scipy.sparse.eye_array(backward.shape[0])
    missing = (nodes - backward @ forward).tocsc()  # (P, P), of a field that came back
    normal = (backward @ backward.T + RIDGE * nodes).tocsc()
    change = backward.T @ scipy.sparse.linalg.splu(normal).solve(missing.toarray())
    return scipy.sparse.csr_array(forward.toarray() + change)


def unit(positions: np.ndarray) -> np.ndarray:
    """Sorted positions (n,) from -1 to 1."""
    even = np.linspace(-1, 1, len(positions))
    scaled = np.interp(positions, positions[[0, -1]], (-1.0, 1.0))
    return even if np.allclose(scaled, even, atol=SAME_POINT) else scaled


class Nodes:
    """The mesh itself in the place of a grid, for networks that read its P nodes.

    Raises InputError as `Grid` for nodes that span no area.
    """

    def __init__(self, coordinates: np.ndarray, triangles: np.ndarray):
        coordinates = np.asarray(coordinates, np.float64)
        extent = np.ptp(coordinates, axis=0)
        if not extent.all():
            raise InputError(f"{len(coordinates)} nodes that span no area")
        on_rim = np.zeros(len(coordinates))
        on_rim[rim(triangles)] = 1.0
        place = 2 * (coordinates - coordinates.min(0)) / extent - 1  # (P, 2)
        self.shape: tuple[int, ...] = (len(coordinates),)
        self.static = np.concatenate([place.T, on_rim[None]])  # x, y, and 1 on walls (3, P)

    def to_grid(self, fields: np.ndarray) -> np.ndarray:
        """(..., P, F) -> (..., F, P)."""
        return np.swapaxes(fields, -1, -2)

    def to_nodes(self, grids: np.ndarray) -> np.ndarray:
        """(..., F, P) -> (..., P, F)."""
        return np.swapaxes(grids, -1, -2)


def rim(triangles: np.ndarray) -> np.ndarray:
    """Numbers of the nodes on edges that belong to one of the triangles (M, 3) alone."""
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    known, counts = np.unique(edges, axis=0, return_counts=True)
    return np.unique(known[counts == 1])


def interpolation(source: np.ndarray, target: np.ndarray) -> scipy.sparse.csr_array:
    """Matrix (targets, sources) that interpolates linearly on the sources' Delaunay triangles.

    Outside their hull, and on a source, it takes the nearest source. Raises InputError where the
    sources (P, 2) span no area.
    """
    try:
        mesh = Delaunay(source)
    except (QhullError, ValueError):
        raise InputError(
            f"{len(source)} nodes that span no area; interpolation needs at least 3 that are not "
            "on one line"
        ) from None

    # barycentric weights in the triangle around each target:
    triangle = mesh.find_simplex(target)
    affine = mesh.transform[triangle]  # (targets, 3, 2)
    weights = np.einsum("tij,tj->ti", affine[:, :2], target - affine[:, 2])
    weights = np.concatenate([weights, 1 - weights.sum(1, keepdims=True)], 1)  # (targets, 3)
    corners = mesh.simplices[triangle]  # (targets, 3)

    # targets without a triangle, or on a node:
    distance, nearest = KDTree(source).query(target)
    alone = (triangle < 0) | (distance < SAME_POINT * np.ptp(source, axis=0).max())
    corners[alone] = nearest[alone, None]
    weights[alone] = (1.0, 0.0, 0.0)

    rows = np.repeat(np.arange(len(target)), 3)
    shape = (len(target), len(source))
    return scipy.sparse.csr_array((weights.ravel(), (rows, corners.ravel())), shape)


def covered(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Which points (Q, 2) lie in or on a triangle with corners (M, 3, 2): bool (Q,)."""
    inside = np.zeros(len(points), bool)
    slack = SAME_POINT * np.ptp(points, axis=0).max() ** 2
    for part in np.array_split(corners, -(-len(corners) // CHUNK)):  # (m, 3, 2)
        side = np.roll(part, -1, 1) - part  # (m, 3, 2)
        offset = points[:, None, None] - part  # (Q, m, 3, 2)
        turn = side[..., 0] * offset[..., 1] - side[..., 1] * offset[..., 0]  # (Q, m, 3)
        left = (turn >= -slack).all(-1)
        right = (turn <= slack).all(-1)
        inside |= (left | right).any(-1)
    return inside
