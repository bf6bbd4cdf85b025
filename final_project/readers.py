"""One reader per kind of file or folder, each of which returns raw arrays for `data.check`.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, H rows, W columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.cli import InputError
from final_project.arrays import selected, with_provenance
from final_project.cases import LISTING, is_collection, read_collection
from final_project.grids import grid_of_nodes
from final_project.hdf5 import read_hdf5
from final_project.openfoam import is_case, read_openfoam
from final_project.raw import HDF5, WHOLE, Arrays, RawFlow, Reading, readable
from final_project.vtk import VTK, holds_vtk, read_vtk

OFFICIAL = ("field_data.npy", "coordinates.npy", "input_data.npy")
ALLOWED = (
    ".h5, .hdf5, .npz, .pvd, .vtu, a folder with field_data.npy, an OpenFOAM case, a folder of "
    f".vtu or HDF5 files, or a folder of cases with {LISTING}"
)
NO_CASES = "has no cases to choose from; only the dam break file has"


def read(path: Path, reading: Reading = WHOLE) -> RawFlow:
    """The arrays of a file or folder of the kinds that `data.load_flow` lists.

    Raises InputError for a path that is none of them, and for a case where there are no cases.
    """
    if path.suffix == ".npz" and path.is_file():
        return read_npz(path, reading)
    if reading.case is not None:
        raise InputError(f"{path} {NO_CASES}")
    if path.is_file():
        reader = READERS.get(path.suffix.lower())
        if reader is not None:
            return reader(path, reading)
    elif path.is_dir():
        if any((path / name).exists() for name in OFFICIAL):
            return taken(read_official(path), path, reading)
        if is_collection(path):
            return read_collection(path, reading, read)
        if is_case(path):
            return taken(read_openfoam(path), path, reading)
        if holds_vtk(path):
            return read_vtk(path, reading)
        below = sorted({item.parent for item in path.glob("*/*") if item.suffix in HDF5})
        below += sorted({item.parent for item in path.glob("*/*/*") if item.suffix in HDF5})
        if below:
            raise InputError(
                f"{path} holds HDF5 files in {below[0]}; give the folder that holds them"
            )
    raise InputError(f"{path} is not a flow; allowed are {ALLOWED}")


READERS: dict[str, Callable[[Path, Reading], RawFlow]] = {
    **dict.fromkeys(HDF5, read_hdf5),
    **dict.fromkeys(VTK, read_vtk),
}


def taken(raw: RawFlow, path: Path, reading: Reading) -> RawFlow:
    """What of a source that is read whole is wanted."""
    return dataclasses.replace(raw, arrays=selected(raw.arrays, path, reading))


# ----------------------------------------------------------------------------------- own format


def read_npz(path: Path, reading: Reading) -> RawFlow:
    """A file of `data.write_flow`, a regular grid, or a public set: its keys decide."""
    with readable(path), open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
        arrays = dict(file)
    if "ahmed_U" in arrays:
        return taken(dam_breaks(arrays, path, reading.case), path, reading)
    if reading.case is not None:
        raise InputError(f"{path} {NO_CASES}")
    if {"uv", "xy", "t"} <= arrays.keys():
        return taken(cylinder_cloud(arrays), path, reading)
    arrays = selected(arrays, path, reading)
    if {"x", "y"} <= arrays.keys() and "coordinates" not in arrays:
        return grid_of_nodes(arrays, path)
    return with_provenance(arrays, path)


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
