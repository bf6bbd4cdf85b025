"""One reader per kind of file or folder, each of which returns raw arrays for `data.check`.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, H rows, W columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from einops import rearrange

from common.cli import InputError
from final_project.openfoam import FOLDERS, read_openfoam
from final_project.raw import KEYS, Arrays, RawFlow, readable

OFFICIAL = ("field_data.npy", "coordinates.npy", "input_data.npy")
ALLOWED = ".h5, .hdf5, .npz, a folder with field_data.npy, or an OpenFOAM case folder"
NO_CASES = "has no cases to choose from; only the dam break file has"


def read(path: Path, case: str | None = None) -> RawFlow:
    """The arrays of a file or folder of the kinds that `data.load_flow` lists.

    `case` names one case of a file of several. Raises InputError.
    """
    if path.suffix == ".npz":
        return read_npz(path, case)
    if case is not None:
        raise InputError(f"{path} {NO_CASES}")
    reader = READERS.get(path.suffix)
    if reader is not None:
        return reader(path)
    if path.is_dir() and any((path / name).exists() for name in OFFICIAL):
        return read_official(path)
    if path.is_dir() and any((path / name).exists() for name in FOLDERS):
        return read_openfoam(path)
    raise InputError(f"{path} is not a flow; allowed are {ALLOWED}")


# ----------------------------------------------------------------------------------- own format


def read_hdf5(path: Path) -> RawFlow:
    """A file of `data.write_flow`, or of a user's script with the same keys."""
    arrays: Arrays = {}
    with readable(path), h5py.File(path, "r") as file:
        for key, item in file.items():
            if not isinstance(item, h5py.Dataset):
                raise InputError(
                    f"{path}: {key} is a group; needed are the data sets {', '.join(KEYS)}"
                )
            if h5py.check_string_dtype(item.dtype):
                arrays[key] = np.array(item.asstr("utf-8")[()], dtype=np.str_)
            else:
                arrays[key] = item[()]
    return with_provenance(arrays, path)


READERS: dict[str, Callable[[Path], RawFlow]] = {".h5": read_hdf5, ".hdf5": read_hdf5}


def read_npz(path: Path, case: str | None) -> RawFlow:
    """A file of `data.write_flow`, a regular grid, or a public set: its keys decide."""
    with readable(path), open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
        arrays = dict(file)
    if "ahmed_U" in arrays:
        return dam_breaks(arrays, path, case)
    if case is not None:
        raise InputError(f"{path} {NO_CASES}")
    if {"uv", "xy", "t"} <= arrays.keys():
        return cylinder_cloud(arrays)
    if {"x", "y"} <= arrays.keys() and "coordinates" not in arrays:
        return grid_of_nodes(arrays, path)
    return with_provenance(arrays, path)


def with_provenance(arrays: Arrays, path: Path) -> RawFlow:
    """The arrays, and what the file says of itself as JSON under the key provenance."""
    if "provenance" not in arrays:
        return RawFlow(arrays)
    with readable(path, "; provenance must be a JSON object"):
        provenance = dict(json.loads(str(arrays["provenance"])))
        notes = tuple(str(note) for note in provenance.get("notes", []))
    return RawFlow(arrays, notes, provenance)


def grid_of_nodes(arrays: Arrays, path: Path) -> RawFlow:
    """A regular grid: nodes row by row, and two triangles per box."""
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
    raw.arrays["fields"] = rearrange(fields, "n t h w f -> n t (h w) f")
    raw.arrays["coordinates"] = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)  # (P, 2)
    raw.arrays["triangles"] = grid_triangles(len(y), len(x))
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


# ---------------------------------------------------------------------------------- public sets


def cylinder_cloud(arrays: Arrays) -> RawFlow:
    """One trajectory of u, v behind a cylinder at Re 100 (github.com/nish-ant/parallel-pod)."""
    return RawFlow(
        {
            "fields": arrays["uv"][None],  # (1, T, P, 2)
            "coordinates": arrays["xy"],
            "parameters": np.array([[100.0]]),
            "time": arrays["t"],
            "field_names": np.array(["u", "v"]),
            "parameter_names": np.array(["Re"]),
        }
    )


def dam_breaks(arrays: Arrays, path: Path, case: str | None) -> RawFlow:
    """OpenFOAM dam breaks: the largest group of cases on one mesh, or the case that is named.

    github.com/ahmed-razic/dam_brake and github.com/luiscascelli/OpenFoam.
    """
    cases = [key.removesuffix("_U") for key in arrays if key.endswith("_U")]
    if case is not None and case not in cases:
        raise InputError(f"{path} has no case {case}; it has {', '.join(cases)}")
    needed = [f"{name}_{key}" for name in cases for key in ("alpha", "p_rgh", "t", "xy")]
    missing = [key for key in needed if key not in arrays]
    if missing:
        raise InputError(f"{path}: the key {', '.join(missing)} is missing")

    if case is not None:
        chosen = [case]
    else:
        groups = [[other for other in cases if same_mesh(arrays, name, other)] for name in cases]
        chosen = max(groups, key=len)

    trajectories = []
    with readable(path):
        for name in chosen:
            alpha = arrays[f"{name}_alpha"][..., None]
            pressure = arrays[f"{name}_p_rgh"][..., None]
            trajectories.append(np.concatenate([arrays[f"{name}_U"], alpha, pressure], -1))
        fields = np.stack(trajectories)  # (N, T, P, 4)
    return RawFlow(
        {
            "fields": fields,
            "coordinates": arrays[f"{chosen[0]}_xy"],
            "parameters": np.zeros((len(chosen), 0)),
            "time": arrays[f"{chosen[0]}_t"],
            "field_names": np.array(["u", "v", "alpha", "p_rgh"]),
        },
        notes=(f"cases: {', '.join(chosen)}",),
    )


def same_mesh(arrays: Arrays, name: str, other: str) -> bool:
    """Whether two dam breaks have the same nodes and times."""
    return all(
        np.array_equal(arrays[f"{name}_{key}"], arrays[f"{other}_{key}"]) for key in ("xy", "t")
    )


def read_official(path: Path) -> RawFlow:
    """The three arrays of the published SEA code, which name no fields and no times."""
    arrays = []
    for name in OFFICIAL:
        if not (path / name).exists():
            raise InputError(f"{path}: {name} is missing; needed are {', '.join(OFFICIAL)}")
        with readable(path / name):
            arrays.append(np.load(path / name, allow_pickle=False))
    fields, coordinates, parameters = arrays

    mesh_fits = coordinates.ndim == 2 and len(coordinates) in (2, 3)
    if fields.ndim != 4 or parameters.ndim != 3 or not mesh_fits:
        named = zip(OFFICIAL, arrays, strict=True)
        shapes = ", ".join(f"{name} {array.shape}" for name, array in named)
        raise InputError(
            f"{path}: {shapes}; needed are (trajectory, time, node, field), (2 or 3, node), "
            "(trajectory, time, parameter)"
        )
    if len(coordinates) == 3 and np.ptp(coordinates[2]) > 0:
        raise InputError(
            f"{path}: coordinates.npy: the third coordinate varies; "
            "only two-dimensional flows are read"
        )
    names = official_names(fields.shape[3])
    return RawFlow(
        {
            "fields": fields,
            "coordinates": coordinates[:2].T,  # (P, 2)
            "parameters": parameters,
            "time": np.arange(fields.shape[1]),
            "field_names": np.array(names),
        },
        notes=(
            f"the folder names no fields: taken as {', '.join(names)}",
            "the folder has no times: taken as 0, 1, 2, ...",
        ),
    )


def official_names(count: int) -> list[str]:
    """Names of the published code's fields: u, v, p where there are three."""
    if count == 3:
        return ["u", "v", "p"]
    if count > 1:
        return ["u", "v", *(f"f{number}" for number in range(3, count + 1))]
    return ["f1"][:count]
