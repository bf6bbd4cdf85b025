"""Meshes of nodes and triangles in the plane: their checks, areas, and triangles of a cloud.

Shape letters: P nodes, M triangles.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial import Delaunay, QhullError, cKDTree

from common.cli import InputError

# The largest circumradius of a triangle, as a multiple of the distance to a corner's 6th neighbour;
# the triangles of regular meshes have 0.3 to 0.8.
REACH = 2.0


def signed_areas(coordinates: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Areas (M,) of triangles, positive where the corners run counter-clockwise."""
    origin = coordinates[triangles[:, 0]]  # (M, 2)
    ax, ay = (coordinates[triangles[:, 1]] - origin).T
    bx, by = (coordinates[triangles[:, 2]] - origin).T
    return (ax * by - ay * bx) / 2


def counter_clockwise(coordinates: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """The triangles (M, 3), those that run clockwise reversed."""
    clockwise = signed_areas(coordinates, triangles) < 0
    return np.where(clockwise[:, None], triangles[:, ::-1], triangles)


def triangulate(coordinates: np.ndarray) -> np.ndarray:
    """Triangles int32 (M, 3), counter-clockwise, of a cloud of nodes (P, 2), with its holes open.

    Delaunay's triangles, without those whose circumradius is over REACH times the distance from a
    corner to its 6th neighbour: alpha shapes (Edelsbrunner et al. 1983) with a local alpha. A
    triangle that bridges a hole has a circle as large as the hole, however the mesh is graded.

    Raises InputError where the nodes allow no triangulation.
    """
    try:
        triangles = Delaunay(coordinates).simplices
    except QhullError:
        raise InputError(
            "the nodes allow no triangulation; "
            "a two-dimensional mesh of at least 3 different nodes is needed"
        ) from None

    corners = coordinates[triangles]  # (M, 3, 2)
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)  # (M, 3)
    areas = np.abs(signed_areas(coordinates, triangles))  # (M,)

    neighbours = min(7, len(coordinates))  # a node is its own first neighbour
    distances, _ = cKDTree(coordinates).query(coordinates, k=neighbours)
    spacing = distances[:, -1]  # (P,)

    # circumradius = product of the sides / (4 area), multiplied out because slivers have no area
    compact = sides.prod(1) <= 4 * areas * REACH * spacing[triangles].max(1)
    return counter_clockwise(coordinates, triangles[compact].astype(np.int32))


def check_nodes(coordinates: np.ndarray, path: Path) -> None:
    """Raises InputError for fewer than 3 nodes, nodes on one line and two nodes at one point."""
    count = len(coordinates)
    if count < 3:
        raise InputError(f"{path}: coordinates has {count} nodes; at least 3 are needed")

    # nodes on a line have one singular value only
    centred = coordinates - coordinates.mean(0)
    extent = np.abs(centred).max()
    scaled = centred / extent if extent else centred
    largest, smallest = np.linalg.svd(scaled, compute_uv=False)
    if smallest <= 1e-9 * largest:
        raise InputError(
            f"{path}: coordinates: all {count} nodes lie on one line; "
            "a two-dimensional mesh is needed"
        )

    distances, neighbours = cKDTree(coordinates).query(coordinates, k=2)
    twins = np.flatnonzero(distances[:, 1] <= 1e-9 * extent)
    if len(twins):
        first = twins[0]
        second = next(node for node in neighbours[first] if node != first)
        raise InputError(
            f"{path}: coordinates: nodes {first} and {second} are in the same place "
            f"({len(twins)} nodes have such a twin)"
        )


def check_triangles(triangles: np.ndarray, coordinates: np.ndarray, path: Path) -> np.ndarray:
    """The triangles as int32 (M, 3), counter-clockwise. Raises InputError where they do not fit."""
    if triangles.dtype.kind not in "iu" or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise InputError(
            f"{path}: triangles is {triangles.dtype} {triangles.shape}; "
            "needed are node numbers (triangle, 3)"
        )
    if triangles.size:
        low, high = triangles.min(), triangles.max()
        if low < 0 or high >= len(coordinates):
            raise InputError(
                f"{path}: triangles names nodes {low} to {high}; "
                f"there are 0 to {len(coordinates) - 1}"
            )
    return counter_clockwise(coordinates, triangles.astype(np.int32))
