"""Regular grids as nodes and triangles.

Shape letters: N trajectories, T frames, H rows (along y), W columns (along x), F fields, P = H W
nodes, M triangles.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from einops import rearrange

from common.cli import InputError
from final_project.arrays import with_provenance
from final_project.raw import Arrays, RawFlow


def check_axes(x: np.ndarray, y: np.ndarray, path: Path) -> None:
    """Raises InputError unless x (W,) and y (H,) are numbers on one axis each."""
    if x.ndim != 1 or y.ndim != 1 or not {x.dtype.kind, y.dtype.kind} <= set("fiu"):
        raise InputError(
            f"{path}: x is {x.dtype} {x.shape}, y {y.dtype} {y.shape}; "
            "needed are numbers, (W,) and (H,)"
        )


def flat_grid(fields: np.ndarray, x: np.ndarray, y: np.ndarray) -> Arrays:
    """Fields (N, T, H, W, F) on nodes row by row, with coordinates and two triangles per box."""
    return {
        "fields": rearrange(fields, "n t h w f -> n t (h w) f"),
        "coordinates": np.stack(np.meshgrid(x, y), -1).reshape(-1, 2),  # (P, 2)
        "triangles": grid_triangles(len(y), len(x)),
    }


def grid_of_nodes(arrays: Arrays, path: Path) -> RawFlow:
    """A regular grid of a user's script: fields (N, T, H, W, F), x (W,) and y (H,)."""
    if "fields" not in arrays:
        raise InputError(
            f"{path}: the key fields is missing; "
            "needed are fields, x, y, parameters, time, field_names"
        )
    x = arrays["x"]
    y = arrays["y"]
    fields = arrays["fields"]
    flat = x.ndim == 1 and y.ndim == 1 and fields.ndim == 5
    if not flat or fields.shape[2:4] != (len(y), len(x)):
        raise InputError(
            f"{path}: fields has shape {fields.shape}, x {x.shape}, y {y.shape}; "
            "needed are (N, T, H, W, F), (W,), (H,)"
        )
    raw = with_provenance(arrays, path)
    raw.arrays.update(flat_grid(fields, x, y))
    return raw


def grid_triangles(rows: int, columns: int) -> np.ndarray:
    """Triangles int32 (M, 3) of a grid's nodes, two per box."""
    node = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    # the corners of a box, counter-clockwise:
    a = node[:-1, :-1]
    b = node[:-1, 1:]
    c = node[1:, 1:]
    d = node[1:, :-1]
    lower = np.stack((a, b, c), -1).reshape(-1, 3)
    upper = np.stack((a, c, d), -1).reshape(-1, 3)
    return np.concatenate([lower, upper])
