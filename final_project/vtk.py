"""Series of VTK files (.vtu, one per time) by meshio: one trajectory, without parameters.

Shape letters: T frames, P nodes, F fields, M triangles, C cells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import meshio
import numpy as np
from meshio import vtu

from common.cli import InputError
from final_project.raw import RawFlow, Reading, readable

VTK = (".vtu", ".pvd")
VELOCITIES = ("U", "u", "velocity", "Velocity")  # vectors whose components are called u and v
FLAT = 1e-6  # largest extent of a flat mesh along its third axis, over the whole
TIME = "TimeValue"  # a file's own time, as ParaView and OpenFOAM write it


def holds_vtk(path: Path) -> bool:
    """Whether a folder holds a series."""
    return any(item.suffix in VTK for item in path.iterdir())


def read_vtk(path: Path, reading: Reading) -> RawFlow:
    """The frames that an index (.pvd) lists, or all .vtu files of a folder, or a single one.

    Point data, or cell data at the cells' centres where there are none; the mesh must be flat and
    the same in every file. Raises InputError.
    """
    files, times = listed(path)
    files = files[:: reading.every]
    first = read_frame(files[0])
    names = list(first.fields)
    shape = (1, len(files), len(first.nodes), len(names))
    reading.check_memory(shape, np.dtype(np.float64), path)
    if reading.thin > 1:
        raise InputError(f"--thin {reading.thin}: {path} is no regular grid; it is read whole")

    frames = []
    own_times = []
    for file in files:
        frame = first if file == files[0] else read_frame(file)
        missing = [name for name in names if name not in frame.fields]
        same = frame.nodes.shape == first.nodes.shape and np.allclose(frame.nodes, first.nodes)
        if missing or not same:
            problem = f"lacks {missing[0]}" if missing else "has another mesh"
            raise InputError(
                f"{file} {problem}; every file needs the fields and mesh of {files[0]}"
            )
        frames.append(np.stack([frame.fields[name] for name in names], -1))  # (P, F)
        own_times.append(frame.time)
    return RawFlow(
        {
            "fields": np.stack(frames)[None],  # (1, T, P, F)
            "coordinates": first.nodes,
            "parameters": np.zeros((1, 0)),
            "time": times_of(times[:: reading.every], own_times, reading.every),
            "field_names": np.array(names),
            "triangles": first.triangles,
        },
        notes=(f"values at {first.place}",)
        if times or own_times[0] is not None
        else (
            f"values at {first.place}",
            "the files name no times: taken as 0, 1, 2, ...",
        ),
    )


def listed(path: Path) -> tuple[list[Path], list[float]]:
    """The files in order, and their times where an index names them."""
    indices = sorted(path.glob("*.pvd")) if path.is_dir() else []
    if len(indices) > 1:
        raise InputError(f"{path} holds {len(indices)} series (.pvd); give one of them")
    index = indices[0] if indices else path
    if index.suffix == ".pvd":
        with readable(index):
            entries = [
                (float(entry.attrib["timestep"]), index.parent / entry.attrib["file"])
                for entry in ElementTree.parse(index).iter("DataSet")
            ]
        if not entries:
            raise InputError(f"{index} lists no file; needed are DataSet entries with a timestep")
        entries.sort(key=lambda entry: entry[0])
        return [file for _, file in entries], [time for time, _ in entries]
    if path.is_dir():
        return sorted(path.glob("*.vtu"), key=natural), []
    return [path], []


def natural(path: Path) -> list[str | int]:
    """A name's words and numbers: frame_9 comes before frame_10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if part.isdigit() else part for part in parts]


def times_of(listed_times: list[float], own: list[float | None], every: int) -> np.ndarray:
    """Times (T,): those of the index, else the files' own, else 0, 1, 2, ..."""
    if listed_times:
        return np.array(listed_times)
    known = [time for time in own if time is not None]
    if len(known) == len(own):
        return np.array(known)
    return every * np.arange(len(own))


@dataclass(frozen=True)
class Frame:
    """One file: nodes (P, 2), triangles (M, 3), values (P,) by field, and its own time."""

    nodes: np.ndarray
    triangles: np.ndarray
    fields: dict[str, np.ndarray]
    time: float | None
    place: str


def read_frame(path: Path) -> Frame:
    """One .vtu file. Raises InputError."""
    if path.suffix != ".vtu":
        raise InputError(f"{path}: only .vtu files are read; write the series as such")
    with readable(path):
        mesh = vtu.read(str(path))
        points = np.asarray(mesh.points, np.float64)
        if points.shape[1] == 2:
            points = np.pad(points, ((0, 0), (0, 1)))
        centres = np.concatenate([points[block.data].mean(1) for block in mesh.cells])  # (C, 3)
        point_data = numbers(mesh.point_data)
        cell_data = numbers({name: np.concatenate(parts) for name, parts in mesh.cell_data.items()})
        time = mesh.field_data.get(TIME)
    if point_data and thin_axis(points) is not None:
        place, places, data, triangles = "the points", points, point_data, faces(mesh)
    elif cell_data:
        place, places, data = "the cells' centres", centres, cell_data
        triangles = np.zeros((0, 3), np.int32)
    else:
        kind = "is not flat" if point_data else "holds no point data and no cell data"
        raise InputError(f"{path} {kind}; a plane mesh with fields is needed")

    flat = thin_axis(places)
    if flat is None:
        raise InputError(f"{path}: the cells extend in three directions; a plane mesh is needed")
    plane = [axis for axis in range(3) if axis != flat]
    time = None if time is None else float(np.ravel(time)[0])
    return Frame(places[:, plane], triangles, scalars(data, plane), time, place)


def numbers(data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of numbers among point or cell data; whole ones where there are no others."""
    arrays = {name: np.asarray(values) for name, values in data.items()}
    floats = {name: values for name, values in arrays.items() if values.dtype.kind == "f"}
    return floats or {name: each for name, each in arrays.items() if each.dtype.kind in "iu"}


def thin_axis(points: np.ndarray) -> int | None:
    """The axis along which points (P, 3) do not extend, or None."""
    extents = np.ptp(points, axis=0)
    flat = np.flatnonzero(extents <= FLAT * extents.max())
    return int(flat[0]) if len(flat) else None


def faces(mesh: meshio.Mesh) -> np.ndarray:
    """Triangles int32 (M, 3) of a mesh's triangles and quadrangles."""
    parts = [np.zeros((0, 3), np.int64)]
    for block in mesh.cells:
        corners = np.asarray(block.data)
        if block.type == "triangle":
            parts.append(corners)
        elif block.type == "quad":
            parts += [corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]]
    return np.concatenate(parts).astype(np.int32)


def scalars(data: Mapping[str, np.ndarray], plane: list[int]) -> dict[str, np.ndarray]:
    """Scalars by name, and the components of vectors in the plane: of a velocity u and v."""
    found: dict[str, np.ndarray] = {}
    for name, values in data.items():
        if values.ndim == 2 and values.shape[1] in (2, 3):
            axes = plane if values.shape[1] == 3 else [0, 1]
            parts = ("u", "v") if name in VELOCITIES else [f"{name}_{'xyz'[axis]}" for axis in axes]
            for part, axis in zip(parts, axes, strict=True):
                found.setdefault(part, values[:, axis])
        elif values.ndim == 1 or values.shape[1:] == (1,):
            found[name] = values.reshape(len(values))
    order = sorted(found, key=lambda name: ("u", "v").index(name) if name in ("u", "v") else 2)
    return {name: found[name] for name in order}
