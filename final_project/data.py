"""Flows from what people have -> checked arrays of one mesh, the field groups, and the split by trajectory.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, M triangles.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.spatial import Delaunay, QhullError, cKDTree

from common.cli import InputError
from common.run import atomic_path, sha256, write_arrays
from final_project import readers

REACH = 2.0  # a triangle's circumradius over the distance to the 6th neighbour; regular meshes have 0.3 to 0.8


@dataclasses.dataclass(frozen=True)
class Flow:
    """Checked trajectories on one fixed mesh, in physical units."""

    fields: np.ndarray  # float32 (N, T, P, F)
    coordinates: np.ndarray  # float64 (P, 2)
    parameters: np.ndarray  # float64 (N, K); K may be 0
    time: np.ndarray  # float64 (T,), increasing
    field_names: tuple[str, ...]
    parameter_names: tuple[str, ...]
    triangles: (
        np.ndarray
    )  # int32 (M, 3), counter-clockwise; (0, 3) where the source has none: see `triangulate`
    provenance: dict[
        str, Any
    ]  # JSON values: path, sha256, notes, and what the source says of itself


@dataclasses.dataclass(frozen=True)
class Split:
    """Row numbers int64 of the five parts, disjoint and together all N; `note` says what could not be had, or is empty."""

    train: np.ndarray
    validation: np.ndarray
    interpolation: np.ndarray
    gap: np.ndarray
    extrapolation: np.ndarray
    note: str = ""


# ---------------------------------------------------------------------------------------------------------------- files


def load_flow(path: Path, case: str | None = None, least_frames: int = 2) -> Flow:
    """A checked Flow of at least `least_frames` frames from a file or folder; what it is decides how it is read:

    .h5 .hdf5 .npz  fields (N, T, P, F), coordinates (P, 2), parameters (N, K) or constant in time (N, T, K), time (T,), field_names;
                    optional parameter_names, triangles (M, 3), provenance (JSON); as `write_flow` writes them
    .npz            a regular grid: fields (N, T, H, W, F), x (W,), y (H,), and the same others; nodes row by row, triangles made
    .npz            the two public sets cylinder_re100_cloud_201x1122 and dambreak_openfoam_3cases; of the latter the cases that share a
                    mesh (ahmed, luis), or the one that `case` names
    folder          field_data.npy (N, T, P, F), coordinates.npy (2 or 3, P), input_data.npy (N, T, K) of the published SEA code
    folder          a two-dimensional OpenFOAM case, ascii or binary, .gz or not: U, p or p_rgh, alpha.* -> one trajectory, K = 0

    Raises InputError with one line for anything that is missing, unreadable or does not fit together.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    return check(readers.read(path, case), path, least_frames)


def write_flow(path: Path, flow: Flow) -> None:
    """Writes a Flow atomically as .h5, .hdf5 or .npz; `load_flow` gives the same arrays and names, bit for bit. Raises InputError."""
    path = Path(path)
    names = {
        key: np.array(getattr(flow, key), dtype=np.str_)
        for key in ("field_names", "parameter_names")
    }
    arrays = {
        key: getattr(flow, key)
        for key in ("fields", "coordinates", "parameters", "time", "triangles")
    } | names
    arrays["provenance"] = np.array(json.dumps(flow.provenance))
    if path.suffix == ".npz":
        write_arrays(path, **arrays)
    elif path.suffix in readers.HDF5:
        # the format of HDF5 1.10 and the Fletcher sums make damage to the file show itself when it is read
        with (
            atomic_path(path) as temporary,
            h5py.File(temporary, "w", libver=("v110", "v110")) as file,
        ):
            for key, array in arrays.items():
                if key == "fields":  # a frame is a chunk: one frame can be read without the others
                    file.create_dataset(
                        key,
                        data=array,
                        chunks=(1, 1, *array.shape[2:]),
                        compression="gzip",
                        shuffle=True,
                        fletcher32=True,
                    )
                elif array.dtype.kind == "U":
                    file.create_dataset(key, data=np.char.encode(array, "utf-8"))
                else:
                    file.create_dataset(
                        key,
                        data=array,
                        chunks=array.shape if array.size else None,
                        fletcher32=array.size > 0,
                    )
    else:
        raise InputError(f"{path}: a flow is written as .h5, .hdf5 or .npz")


# --------------------------------------------------------------------------------------------------------------- checks


def _numbers(raw: dict[str, Any], key: str, path: Path, axes: str, dtype: type) -> np.ndarray:
    """raw[key] as finite numbers of `dtype` with the axes that `axes` spells, such as "node 2"."""
    array = np.asarray(raw[key])
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: {key} holds {array.dtype}, not numbers; allowed are float and int arrays"
        )
    shape = axes.split()
    if array.ndim != len(shape) or any(
        want.isdigit() and int(want) != have for want, have in zip(shape, array.shape, strict=True)
    ):
        raise InputError(f"{path}: {key} has shape {array.shape}; needed is ({', '.join(shape)})")
    with np.errstate(over="ignore"):  # too large for float32 is inf, which is refused
        array = array.astype(dtype, copy=False)
    bad = ~np.isfinite(array)
    if bad.any():
        where = ", ".join(
            f"{name} {at}"
            for name, at in zip(shape, np.argwhere(bad)[0], strict=True)
            if not name.isdigit()
        )
        if key == "fields":
            trajectory, frame, node, field = np.argwhere(bad)[0]
            where = f"trajectory {trajectory}, frame {frame}, node {node}, field {raw['field_names'][field]}"
        raise InputError(
            f"{path}: {key} holds {bad.sum()} values that are NaN, inf or too large; the first at {where}"
        )
    return array


def check(raw: dict[str, Any], path: Path, least_frames: int = 2) -> Flow:
    """A Flow from the arrays a reader found, after every check of shape, type, range, order and geometry.

    Raises InputError that names the file and the key.
    """
    missing = [key for key in readers.KEYS if key not in raw]
    if missing:
        raise InputError(
            f"{path}: the key {', '.join(missing)} is missing; needed are {', '.join(readers.KEYS)}"
        )
    notes: list[str] = list(raw.get("notes", []))
    raw["field_names"] = field_names = _names(raw, "field_names", path)
    if np.ndim(raw["fields"]) == 4 and np.shape(raw["fields"])[3] != len(field_names):
        raise InputError(
            f"{path}: fields has {np.shape(raw['fields'])[3]} fields, field_names {len(field_names)}"
        )
    fields = _numbers(raw, "fields", path, "trajectory time node field", np.float32)
    coordinates = _numbers(raw, "coordinates", path, "node 2", np.float64)
    time = _numbers(raw, "time", path, "time", np.float64)
    tiled = np.ndim(raw["parameters"]) == 3
    parameters = _numbers(
        raw,
        "parameters",
        path,
        "trajectory time parameter" if tiled else "trajectory parameter",
        np.float64,
    )

    trajectories, frames, nodes, _ = fields.shape
    counts = [
        ("coordinates", "nodes", len(coordinates), nodes),
        ("time", "frames", len(time), frames),
        ("parameters", "trajectories", len(parameters), trajectories),
    ]
    if tiled:
        counts.append(("parameters", "frames", parameters.shape[1], frames))
    for key, what, have, want in counts:
        if have != want:
            raise InputError(f"{path}: {key} has {have} {what}, fields {want}")
    if not fields.size:
        raise InputError(
            f"{path}: fields has shape {fields.shape}; needed is at least one trajectory, node and field"
        )
    if frames < least_frames:
        what = "one time step: nothing to predict" if frames == 1 else f"{frames} time steps"
        raise InputError(f"{path}: fields has {what}; at least {least_frames} are needed")
    if not (np.diff(time) > 0).all():
        raise InputError(
            f"{path}: time does not increase at frame {np.argmax(np.diff(time) <= 0) + 1}; it must at every frame"
        )
    if tiled:
        if (parameters != parameters[:, :1]).any():
            raise InputError(
                f"{path}: parameters change in time; allowed are parameters that are constant along a trajectory"
            )
        parameters = parameters[:, 0]  # (N, K)
    parameter_names = tuple(f"parameter{number + 1}" for number in range(parameters.shape[1]))
    if "parameter_names" in raw:
        parameter_names = _names(raw, "parameter_names", path)
    if len(parameter_names) != parameters.shape[1]:
        raise InputError(
            f"{path}: parameter_names has {len(parameter_names)} names, parameters {parameters.shape[1]} columns"
        )
    _check_mesh(coordinates, path)
    triangles = _oriented(raw, coordinates, path)

    for name, column in zip(parameter_names, parameters.T, strict=True):
        if trajectories > 1 and np.ptp(column) == 0:
            notes.append(f"parameter {name} is {column[0]:g} in every trajectory")
    steps = np.diff(time)
    if len(steps) and np.ptp(steps) > 1e-3 * steps.mean():
        notes.append(f"time steps differ: {steps.min():g} to {steps.max():g}")
    kept = {key: value for key, value in raw.get("provenance", {}).items() if key != "notes"}
    provenance = {
        **kept,
        "path": path.name,
        "sha256": sha256(path),
        "notes": list(dict.fromkeys(notes)),
    }
    return Flow(
        fields, coordinates, parameters, time, field_names, parameter_names, triangles, provenance
    )


def _names(raw: dict[str, Any], key: str, path: Path) -> tuple[str, ...]:
    """raw[key] as different, non-empty names."""
    array = np.asarray(raw[key])
    if array.ndim != 1 or (array.size and array.dtype.kind != "U"):
        raise InputError(f"{path}: {key} must be a list of names, one for each of the last axis")
    names = tuple(map(str, array))
    if len(set(names)) < len(names) or any(
        not name.strip() or set(name) & set(",;\n") for name in names
    ):
        raise InputError(
            f"{path}: {key} holds {', '.join(map(repr, names))}; names must differ and have no comma, semicolon or line break"
        )
    return names


def _check_mesh(coordinates: np.ndarray, path: Path) -> None:
    """Refuses fewer than 3 nodes, nodes on one line, and two nodes in one place."""
    if len(coordinates) < 3:
        raise InputError(f"{path}: coordinates has {len(coordinates)} nodes; at least 3 are needed")
    centred = coordinates - coordinates.mean(0)
    extent = np.abs(centred).max()
    values = np.linalg.svd(centred / extent if extent else centred, compute_uv=False)
    if values[1] <= 1e-9 * values[0]:
        raise InputError(
            f"{path}: coordinates: all {len(coordinates)} nodes lie on one line; a two-dimensional mesh is needed"
        )
    distance, other = cKDTree(coordinates).query(coordinates, k=2)
    twins = np.flatnonzero(distance[:, 1] <= 1e-9 * extent)
    if len(twins):
        first = twins[0]
        second = next(node for node in other[first] if node != first)
        raise InputError(
            f"{path}: coordinates: nodes {first} and {second} are in the same place ({len(twins)} nodes have such a twin)"
        )


def _oriented(raw: dict[str, Any], coordinates: np.ndarray, path: Path) -> np.ndarray:
    """raw["triangles"] checked and counter-clockwise, int32 (M, 3), or none: (0, 3)."""
    triangles = np.asarray(raw.get("triangles", np.zeros((0, 3), np.int32)))
    if triangles.dtype.kind not in "iu" or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise InputError(
            f"{path}: triangles is {triangles.dtype} {triangles.shape}; needed are node numbers (triangle, 3)"
        )
    if triangles.size and (triangles.min() < 0 or triangles.max() >= len(coordinates)):
        raise InputError(
            f"{path}: triangles names nodes {triangles.min()} to {triangles.max()}; there are 0 to {len(coordinates) - 1}"
        )
    triangles = triangles.astype(np.int32)
    return np.where(_area(coordinates, triangles)[:, None] < 0, triangles[:, ::-1], triangles)


def _area(coordinates: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Signed areas (M,), positive where the corners run counter-clockwise."""
    (ax, ay), (bx, by) = (
        (coordinates[triangles[:, corner]] - coordinates[triangles[:, 0]]).T for corner in (1, 2)
    )
    return (ax * by - ay * bx) / 2


def triangulate(coordinates: np.ndarray) -> np.ndarray:
    """Triangles int32 (M, 3), counter-clockwise, of a cloud of nodes (P, 2), by Delaunay without those that bridge a hole or a bay.

    Kept are triangles whose circumradius is at most REACH times the distance of a corner to its 6th neighbour (alpha shapes, Edelsbrunner
    et al. 1983, with a local alpha): the circles inside a hole that the nodes surround are as large as the hole, whatever the mesh's grading.

    Raises InputError where no triangle can be made.
    """
    try:
        triangles = Delaunay(coordinates).simplices
    except QhullError:
        raise InputError(
            "the nodes allow no triangulation; a two-dimensional mesh of at least 3 different nodes is needed"
        ) from None
    corners = coordinates[triangles]  # (M, 3, 2)
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)  # (M, 3)
    area = np.abs(_area(coordinates, triangles))
    spacing = cKDTree(coordinates).query(coordinates, k=min(7, len(coordinates)))[0][:, -1]  # (P,)
    # circumradius = product of the sides / (4 area); multiplied out, because slivers have no area
    kept = triangles[sides.prod(1) <= 4 * area * REACH * spacing[triangles].max(1)].astype(np.int32)
    return np.where(_area(coordinates, kept)[:, None] < 0, kept[:, ::-1], kept)


# ------------------------------------------------------------------------------------------------------ groups and split


def groups_of(
    field_names: tuple[str, ...], wanted: str | None = None
) -> tuple[tuple[int, ...], ...]:
    """Field numbers of each group (stream): u and v together and every other field alone, or as `wanted` says, such as "u,v;p".

    Raises InputError for fields that are unknown, named twice or left out.
    """
    if wanted is None:
        pair = tuple(field_names.index(name) for name in ("u", "v") if name in field_names)
        return tuple(
            pair if number in pair else (number,)
            for number in range(len(field_names))
            if number not in pair[1:]
        )
    groups = [[name.strip() for name in group.split(",")] for group in wanted.split(";")]
    named = [name for group in groups for name in group]
    if sorted(named) != sorted(field_names):
        raise InputError(
            f'groups "{wanted}": each of the fields {", ".join(field_names)} must stand in one group, as in "u,v;p"'
        )
    return tuple(tuple(field_names.index(name) for name in group) for group in groups)


def split(parameters: np.ndarray, seed: int) -> Split:
    """Five parts of the trajectories by their first parameter, from parameters (N, K): the top 10 % of its values (extrapolation), the
    10 % around its 55 % rank in one block (gap); of the rest, 20 % at random but never the lowest or highest (interpolation), 12 % at
    random (validation), and the remainder (train).

    A value is never in two of extrapolation, gap and the rest; with fewer than 12 values those two are empty, and the note says so.
    Depends on the values and the seed, not on the order of the rows. Raises InputError for N < 4.
    """
    count = len(parameters)
    if count < 4:
        raise InputError(
            f"{count} trajectories are too few to be split; at least 4 are needed (2 to train, 1 to choose by, 1 to score)"
        )
    # ranks by the first parameter, ties broken by the others
    order = np.lexsort(parameters.T[::-1]) if parameters.shape[1] else np.arange(count)
    values = np.unique(parameters[:, 0]) if parameters.shape[1] else np.zeros(1)
    gap, top, note = values[:0], values[:0], ""
    if len(values) < 12:
        note = f"no gap and no extrapolation part: the first parameter has {len(values)} different values, 12 are needed; the split is random"
    else:
        block = round(0.1 * len(values))
        first = round(0.55 * len(values)) - block // 2
        gap, top = values[first : first + block], values[len(values) - block :]
    is_gap, is_top = (
        np.isin(parameters[order, 0], part) if len(part) else np.zeros(count, bool)
        for part in (gap, top)
    )
    rest = order[~is_gap & ~is_top]
    shuffled = np.random.default_rng((seed, 60)).permutation(len(rest))
    inner = shuffled[(shuffled > 0) & (shuffled < len(rest) - 1)]
    scored = inner[: max(1, round(0.2 * len(rest)))]
    others = shuffled[~np.isin(shuffled, scored)]
    validation, train = np.split(others, [max(1, round(0.12 * len(rest)))])
    return Split(
        np.sort(rest[train]),
        np.sort(rest[validation]),
        np.sort(rest[scored]),
        np.sort(order[is_gap]),
        np.sort(order[is_top]),
        note,
    )
