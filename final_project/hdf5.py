"""HDF5 files: our own, regular grids, and the two-dimensional sets of PDEBench and The Well.

Those of MeshGraphNets are read by `mesh_graphs`.

Public sets are far larger than memory, so fields are read one trajectory at a time, and only the
points, frames and trajectories that `Reading` asks for.

Shape letters: N trajectories, T frames, X and Y points along x and y, H rows (Y) and W columns (X),
F fields, K parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from common.cli import InputError
from final_project.arrays import selected, with_provenance
from final_project.grids import check_axes, flat_grid, grid_of_nodes
from final_project.mesh_graphs import mesh_groups, read_mesh_groups
from final_project.raw import KEYS, Arrays, RawFlow, Reading, readable

KINDS = (
    f"the data sets {', '.join(KEYS)}; a grid with fields, x, y, time, parameters, field_names; "
    "PDEBench's two-dimensional sets; The Well's; MeshGraphNets' on one mesh"
)
OPTIONAL = ("parameter_names", "triangles", "x", "y", "provenance")
LISTED = 12  # keys of an unknown file that are named
COMPRESSIBLE = {"Vx": "u", "Vy": "v", "density": "density", "pressure": "pressure"}
# names of the fields of PDEBench's sets of groups, by their number
GROUPED = {1: ("h",), 2: ("activator", "inhibitor")}
ReadField = Callable[[int, int], np.ndarray]  # trajectory, field -> (T, X, Y)


def read_hdf5(path: Path, reading: Reading) -> RawFlow:
    """An HDF5 file by what its keys say it is. Raises InputError for a file of no known kind."""
    with readable(path), h5py.File(path, "r") as file:
        keys = set(file)
        if "t0_fields" in keys or "t1_fields" in keys:
            return read_well(file, path, reading)
        if "density" in keys and keys & {"Vx", "Vy"}:
            return read_compressible(file, path, reading)
        if "tensor" in keys:
            return read_tensor(file, path, reading)
        if {"velocity", "t"} <= keys:
            return read_incompressible(file, path, reading)
        trajectories = mesh_groups(file)
        if trajectories:
            return read_mesh_groups(file, trajectories, path, reading)
        groups = sorted(key for key in keys if key.isdigit())
        if groups:
            return read_groups(file, groups, path, reading)
        return read_own(file, path, reading)


def read_own(file: h5py.File, path: Path, reading: Reading) -> RawFlow:
    """A file of `data.write_flow`, or of a user's script with the same keys; a mesh or a grid."""
    arrays: Arrays = {}
    for key in (key for key in (*KEYS, *OPTIONAL) if key in file):
        item = file[key]
        if not isinstance(item, h5py.Dataset):
            raise InputError(f"{path}: {key} is a group; needed are {KINDS}")
        if h5py.check_string_dtype(item.dtype):
            arrays[key] = np.array(item.asstr("utf-8")[()], dtype=np.str_)
        elif key == "fields" and item.ndim in (4, 5):
            arrays[key] = read_selected(item, path, reading)
        else:
            arrays[key] = item[()]
    if not set(arrays) & set(KEYS):
        held = ", ".join(list(file)[:LISTED]) or "nothing"
        raise InputError(f"{path} holds {held}; needed are {KINDS}")
    grid = {"x", "y"} <= arrays.keys() and "coordinates" not in arrays
    taken = selected(arrays, path, reading, fields_too=False)
    return grid_of_nodes(taken, path) if grid else with_provenance(taken, path)


def read_selected(item: h5py.Dataset, path: Path, reading: Reading) -> np.ndarray:
    """Fields (N, T, P, F) or (N, T, H, W, F), only the trajectories, frames and points wanted."""
    cuts = [slice(0, reading.trajectories), slice(None, None, reading.every)]
    if item.ndim == 5:
        cuts += [slice(None, None, reading.thin)] * 2
    shape = tuple(
        len(range(*cut.indices(length))) for cut, length in zip(cuts, item.shape, strict=False)
    )
    reading.check_memory((*shape, *item.shape[len(cuts) :]), item.dtype, path)
    return item[tuple(cuts)]


# ---------------------------------------------------------------------------------------- grids


@dataclass(frozen=True)
class GridSet:
    """Trajectories on a regular grid, whose fields are read one at a time.

    x (X,), y (Y,), time (T,) : before thinning. count : N.
    read : the field of that number of a trajectory, thinned, (T, X, Y).
    """

    path: Path
    reading: Reading
    x: np.ndarray
    y: np.ndarray
    time: np.ndarray
    count: int
    names: Sequence[str]
    dtype: np.dtype
    read: ReadField

    @property
    def rows(self) -> int:
        """How many trajectories are read."""
        wanted = self.reading.trajectories
        return self.count if wanted is None else min(wanted, self.count)

    def raw(
        self,
        parameters: np.ndarray | None = None,
        parameter_names: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> RawFlow:
        """The fields on nodes, row by row, with parameters (N, K). Raises InputError."""
        check_axes(self.x, self.y, self.path)
        thin = self.reading.thin
        x = self.x[::thin]
        y = self.y[::thin]
        time = self.time[:: self.reading.every]
        shape = (self.rows, len(time), len(y), len(x), len(self.names))
        self.reading.check_memory(shape, self.dtype, self.path)

        fields = np.empty(shape, self.dtype)
        for row in range(self.rows):
            for number in range(len(self.names)):
                block = self.read(row, number)  # (T, X, Y)
                if block.shape != (len(time), len(x), len(y)):
                    raise InputError(
                        f"{self.path}: {self.names[number]} has (frames, x, y) {block.shape}; "
                        f"the coordinates have {(len(time), len(x), len(y))}"
                    )
                fields[row, ..., number] = np.swapaxes(block, 1, 2)
        known = np.zeros((self.rows, 0)) if parameters is None else parameters[: self.rows]
        arrays = flat_grid(fields, x, y) | {
            "parameters": known,
            "parameter_names": np.array(parameter_names, dtype=np.str_),
            "time": time,
            "field_names": np.array(self.names),
        }
        return RawFlow(arrays, tuple(notes))


def needed(file: h5py.File | h5py.Group, path: Path, *keys: str) -> list[h5py.Dataset]:
    """Data sets of a file or group. Raises InputError that names those that are missing."""
    missing = [key for key in keys if not isinstance(file.get(key), h5py.Dataset)]
    if missing:
        place = f"{file.name}/".lstrip("/")
        raise InputError(
            f"{path}: {place}{missing[0]} is missing; a two-dimensional set has {', '.join(keys)}"
        )
    return [file[key] for key in keys]


# ------------------------------------------------------------------------------------- PDEBench


def pdebench_axes(file: h5py.File, path: Path, frames: int) -> list[np.ndarray]:
    """x (X,), y (Y,) and time (T,); the file's times may be those of the cells' edges, T + 1."""
    x, y, time = (
        axis[()] for axis in needed(file, path, "x-coordinate", "y-coordinate", "t-coordinate")
    )
    if len(time) not in (frames, frames + 1):
        raise InputError(f"{path}: t-coordinate has {len(time)} times, the fields {frames}")
    return [x, y, time[:frames]]


def planar(item: h5py.Dataset, path: Path) -> None:
    """Refuses fields that are not (trajectory, time, x, y). Raises InputError."""
    if item.ndim != 4:
        raise InputError(
            f"{path}: {item.name.lstrip('/')} has shape {item.shape}; only two-dimensional sets "
            "(trajectory, time, x, y) are read"
        )


def read_compressible(file: h5py.File, path: Path, reading: Reading) -> RawFlow:
    """PDEBench's compressible flow: Vx, Vy, density and pressure, each (N, T, X, Y)."""
    items = needed(file, path, *COMPRESSIBLE)
    for item in items:
        planar(item, path)
        if item.shape != items[0].shape:
            raise InputError(f"{path}: {item.name} has shape {item.shape}, Vx {items[0].shape}")
    count, frames = items[0].shape[:2]
    cut = slice(None, None, reading.thin)

    def read(row: int, number: int) -> np.ndarray:
        return items[number][row, :: reading.every, cut, cut]

    axes = pdebench_axes(file, path, frames)
    names = list(COMPRESSIBLE.values())
    x, y, time = axes
    grid = GridSet(path, reading, x, y, time, count, names, items[0].dtype, read)
    return grid.raw(notes=("Vx, Vy are u, v",))


def read_tensor(file: h5py.File, path: Path, reading: Reading) -> RawFlow:
    """PDEBench's sets of one field: tensor (N, T, X, Y)."""
    (item,) = needed(file, path, "tensor")
    planar(item, path)
    cut = slice(None, None, reading.thin)

    def read(row: int, number: int) -> np.ndarray:
        return item[row, :: reading.every, cut, cut]

    count, frames = item.shape[:2]
    if "t-coordinate" in file:
        x, y, time = pdebench_axes(file, path, frames)
    else:  # a steady set has no times
        x, y = (axis[()] for axis in needed(file, path, "x-coordinate", "y-coordinate"))
        time = np.arange(frames)
    return GridSet(path, reading, x, y, time, count, ["tensor"], item.dtype, read).raw()


def read_groups(file: h5py.File, groups: list[str], path: Path, reading: Reading) -> RawFlow:
    """PDEBench's reaction and diffusion, and shallow water: groups 0000, ... of one trajectory.

    Each has data (T, X, Y, F) and grid/x, grid/y, grid/t.
    """
    first = file[groups[0]]
    (item,) = needed(first, path, "data")
    x, y, time = (axis[()] for axis in needed(first, path, "grid/x", "grid/y", "grid/t"))
    if item.ndim != 4:
        raise InputError(f"{path}: {item.name} has shape {item.shape}; needed is (T, X, Y, F)")
    count = item.shape[3]
    names = GROUPED.get(count, tuple(f"f{number + 1}" for number in range(count)))
    turned = item.shape[1:3] == (len(y), len(x)) != (len(x), len(y))
    cut = slice(None, None, reading.thin)

    def read(row: int, number: int) -> np.ndarray:
        (data,) = needed(file[groups[row]], path, "data")
        (times,) = needed(file[groups[row]], path, "grid/t")
        if data.shape != item.shape or not np.allclose(times[()], time):
            raise InputError(
                f"{path}: {data.name} has another shape or other times than {item.name}"
            )
        block = data[:: reading.every, cut, cut, number]
        return np.swapaxes(block, 1, 2) if turned else block

    grid = GridSet(path, reading, x, y, time, len(groups), names, item.dtype, read)
    return grid.raw(notes=(f"the file names no fields: taken as {', '.join(names)}",))


def read_incompressible(file: h5py.File, path: Path, reading: Reading) -> RawFlow:
    """PDEBench's incompressible flow: velocity (N, T, X, Y, 2), particles (.., 1), t (N, T)."""
    velocity, t = needed(file, path, "velocity", "t")
    particles = file.get("particles")
    if velocity.ndim != 5 or velocity.shape[4] != 2:
        raise InputError(f"{path}: velocity has shape {velocity.shape}; needed is (N, T, X, Y, 2)")
    if particles is not None and particles.shape != (*velocity.shape[:4], 1):
        raise InputError(
            f"{path}: particles has shape {particles.shape}; needed is (N, T, X, Y, 1)"
        )
    times = np.atleast_2d(t[()])
    if not np.allclose(times, times[0]):
        raise InputError(
            f"{path}: t differs between trajectories; needed are the same times in all"
        )
    cut = slice(None, None, reading.thin)

    def read(row: int, number: int) -> np.ndarray:
        source, column = (velocity, number) if number < 2 else (particles, 0)
        return source[row, :: reading.every, cut, cut, column]

    count, _, columns, rows, _ = velocity.shape
    names = ["u", "v"] + (["particles"] if particles is not None else [])
    notes = ["the file has no coordinates: taken as the centres of a unit square's cells"]
    if "force" in file:
        notes.append("force is left out: it is constant in time and no number")
    x = (np.arange(columns) + 0.5) / columns
    y = (np.arange(rows) + 0.5) / rows
    grid = GridSet(path, reading, x, y, times[0], count, names, velocity.dtype, read)
    return grid.raw(notes=notes)


# ------------------------------------------------------------------------------------- The Well


@dataclass(frozen=True)
class WellField:
    """One scalar of a field of The Well: its data set, and the component of a vector."""

    name: str
    item: h5py.Dataset
    component: int | None

    def read(self, row: int, reading: Reading) -> np.ndarray:
        """The values (T or 1, X or 1, Y or 1) of a trajectory, thinned."""
        item = self.item
        varying = [bool(each) for each in item.attrs.get("dim_varying", (True, True))]
        cuts: list[int | slice] = []
        if item.attrs.get("sample_varying", True):
            cuts.append(row)
        if item.attrs.get("time_varying", True):
            cuts.append(slice(None, None, reading.every))
        # an axis along which nothing varies is left out of the data, or has length 1
        places = item.ndim - len(cuts) - (self.component is not None)
        if places == len(varying):
            varying = [True] * places
        cuts += [slice(None, None, reading.thin) for each in varying if each]
        block = item[tuple(cuts) if self.component is None else (*cuts, self.component)]
        if not item.attrs.get("time_varying", True):
            block = block[None]
        for axis, each in enumerate(varying, 1):
            if not each:
                block = np.expand_dims(block, axis)
        return block


def read_well(file: h5py.File, path: Path, reading: Reading) -> RawFlow:
    """A file of The Well (Ohana et al. 2024): t0_fields, t1_fields, dimensions and scalars.

    Scalars and components of vectors that vary in time are fields; scalars of a trajectory are
    parameters.
    """
    dimensions = file.get("dimensions")
    if not isinstance(dimensions, h5py.Group):
        raise InputError(f"{path}: the group dimensions (x, y, time) is missing")
    axes = words(dimensions.attrs.get("spatial_dims", ("x", "y")))
    kind = str(file.attrs.get("grid_type", "cartesian"))
    if len(axes) != 2 or kind != "cartesian":
        raise InputError(
            f"{path}: a {kind} grid of {', '.join(axes)}; only two-dimensional cartesian ones are "
            "read"
        )
    backwards = axes == ["y", "x"]
    along = axes[::-1] if backwards else axes
    x, y, time = (axis[()] for axis in needed(dimensions, path, *along, "time"))
    if time.ndim == 2 and not np.allclose(time, time[0]):
        raise InputError(
            f"{path}: time differs between trajectories; needed are the same times in all"
        )
    time = time[0] if time.ndim == 2 else time
    fields, notes = well_fields(file, axes)
    if not fields:
        raise InputError(f"{path}: t0_fields and t1_fields hold no field that varies in time")

    varying = next((f.item for f in fields if f.item.attrs.get("sample_varying", True)), None)
    count = 1 if varying is None else varying.shape[0]
    size = (len(time[:: reading.every]), len(x[:: reading.thin]), len(y[:: reading.thin]))

    def read(row: int, number: int) -> np.ndarray:
        block = fields[number].read(row, reading)
        turned = backwards or block.shape == (size[0], size[2], size[1]) != size
        return np.broadcast_to(np.swapaxes(block, 1, 2) if turned else block, size)

    parameters, names, more = well_parameters(file, count)
    dtype = np.result_type(*(field.item.dtype for field in fields))
    named = [field.name for field in fields]
    grid = GridSet(path, reading, x, y, time, count, named, dtype, read)
    return grid.raw(parameters, names, [*notes, *more])


def words(given: Sequence[str | bytes]) -> list[str]:
    """Names that HDF5 stored as text or bytes."""
    return [word.decode() if isinstance(word, bytes) else str(word) for word in given]


def well_fields(file: h5py.File, axes: list[str]) -> tuple[list[WellField], list[str]]:
    """The scalars that vary in time, and remarks about what is left out.

    The velocity's components come first and are called u and v.
    """
    vectors: list[WellField] = []
    for name, item in dict(file.get("t1_fields", {})).items():
        velocity = ("v", "u") if axes == ["y", "x"] else ("u", "v")
        parts = velocity if name == "velocity" else [f"{name}_{axis}" for axis in axes]
        vectors += [WellField(part, item, number) for number, part in enumerate(parts)]
    vectors.sort(key=lambda field: "uv".index(field.name) if field.name in ("u", "v") else 2)
    scalars = [
        WellField(name, item, None) for name, item in dict(file.get("t0_fields", {})).items()
    ]
    everything = [*vectors, *scalars]

    fields = [field for field in everything if field.item.attrs.get("time_varying", True)]
    steady = [field.name for field in everything if field not in fields]
    notes = [f"constant in time and left out: {', '.join(steady)}"] if steady else []
    tensors = list(file.get("t2_fields", {}))
    if tensors:
        notes.append(f"tensors are left out: {', '.join(tensors)}")
    return fields, notes


def well_parameters(file: h5py.File, count: int) -> tuple[np.ndarray, list[str], list[str]]:
    """Scalars of each trajectory float64 (N, K), their names, and remarks."""
    columns = []
    names = []
    changing = []
    for name, item in dict(file.get("scalars", {})).items():
        values = np.asarray(item[()], np.float64).ravel()
        if item.attrs.get("time_varying", False):
            changing.append(name)
        elif len(values) in (1, count):
            columns.append(np.broadcast_to(values, count))
            names.append(name)
    notes = [f"scalars that change in time are left out: {', '.join(changing)}"] if changing else []
    parameters = np.stack(columns, 1) if columns else np.zeros((count, 0))
    return parameters, names, notes
