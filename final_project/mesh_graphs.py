"""HDF5 files in the layout of MeshGraphNets (Pfaff et al. 2021): one group for each trajectory.

Each has mesh_pos (P, 2), cells (M, 3), and fields (T, P, k) such as velocity and pressure; the mesh
may be repeated for every time. Only trajectories on one mesh are a data set here.

Shape letters: N trajectories, T frames, P nodes, k components of a field, F fields, M triangles.
"""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np

from common.cli import InputError
from final_project.raw import RawFlow, Reading

NO_FIELDS = {"mesh_pos", "world_pos", "cells", "node_type", "time"}
NAMES = {"velocity": ("u", "v"), "pressure": ("p",)}


def mesh_groups(file: h5py.File) -> list[str]:
    """The groups that are trajectories, in the order of their numbers; empty for other files."""
    groups = [key for key in file if isinstance(file.get(key), h5py.Group)]
    if not groups or not all({"mesh_pos", "cells"} <= set(file[key]) for key in groups):
        return []
    return sorted(groups, key=lambda key: [int(word) for word in re.findall(r"\d+", key)])


def read_mesh_groups(file: h5py.File, groups: list[str], path: Path, reading: Reading) -> RawFlow:
    """The trajectories of a file. Raises InputError where they lie on several meshes."""
    if reading.thin > 1:
        raise InputError(f"--thin {reading.thin}: {path} is no regular grid; it is read whole")
    chosen = groups[: reading.trajectories]
    first = file[chosen[0]]
    nodes = of_one_time(first["mesh_pos"])  # (P, 2)
    names = field_names(first, len(nodes))
    if not names:
        raise InputError(f"{path}: {chosen[0]} has no field (time, node, component)")
    frames = min(len(first[name]) for name in names)
    shape = (len(chosen), frames, len(nodes), sum(len(each) for each in names.values()))
    reading.check_memory(shape, np.dtype(np.float32), path)

    trajectories = []
    for key in chosen:
        check_alike(file[key], first, names, path)
        columns = [np.atleast_3d(file[key][name][:: reading.every]) for name in names]
        trajectories.append(np.concatenate(columns, -1))  # (T, P, F)
    times = first["time"][()] if "time" in first else np.arange(frames)
    notes = () if "time" in first else ("the file names no times: taken as 0, 1, 2, ...",)
    arrays = {
        "fields": np.stack(trajectories),
        "coordinates": nodes,
        "parameters": np.zeros((len(chosen), 0)),
        "time": np.ravel(times)[:: reading.every],
        "field_names": np.array([word for words in names.values() for word in words]),
        "triangles": of_one_time(first["cells"]).astype(np.int32),
    }
    return RawFlow(arrays, notes)


def of_one_time(item: h5py.Dataset) -> np.ndarray:
    """A data set of the mesh, which may be repeated for every time, at the first."""
    return np.asarray(item[0] if item.ndim == 3 else item[()])


def field_names(group: h5py.Group, nodes: int) -> dict[str, tuple[str, ...]]:
    """The data sets (T, P) or (T, P, k) that are fields, with a name for each component."""
    found = {}
    for key, item in group.items():
        is_field = isinstance(item, h5py.Dataset) and item.ndim in (2, 3) and key not in NO_FIELDS
        if not is_field or item.dtype.kind != "f" or item.shape[1] != nodes:
            continue
        count = item.shape[2] if item.ndim == 3 else 1
        numbered = tuple(f"{key}{number + 1}" for number in range(count))
        own = NAMES.get(key, (key,))
        found[key] = own if len(own) == count else numbered
    return dict(sorted(found.items(), key=lambda each: each[0] != "velocity"))


def check_alike(
    group: h5py.Group, first: h5py.Group, names: dict[str, tuple[str, ...]], path: Path
) -> None:
    """Raises InputError for another mesh or other fields than the first trajectory's."""
    for key in ("mesh_pos", "cells"):
        if not np.array_equal(of_one_time(group[key]), of_one_time(first[key])):
            raise InputError(
                f"{path}: trajectory {group.name} has another mesh than {first.name}; a model is "
                "for one mesh: give a file of the trajectories that share one"
            )
    for name in names:
        item = group.get(name)
        if not isinstance(item, h5py.Dataset) or item.shape != first[name].shape:
            raise InputError(
                f"{path}: {name} of {group.name} is missing or has another shape than that of "
                f"{first.name}"
            )
