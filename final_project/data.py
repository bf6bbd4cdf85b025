"""Flows from files -> checked arrays on one mesh, the field groups.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, M triangles.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from common.cli import InputError
from common.files import JsonObject, atomic_path, sha256, write_arrays
from final_project import readers
from final_project.mesh import check_nodes, check_triangles
from final_project.raw import HDF5, KEYS, WHOLE, RawFlow, Reading
from final_project.splits import Split as Split
from final_project.splits import split as split

ARRAYS = ("fields", "coordinates", "parameters", "time", "triangles")
NAMES = ("field_names", "parameter_names")
LARGEST = float(np.finfo(np.float32).max)  # of a field's values: more cannot be shown
NOTED_STEPS = 1e-3  # time steps that differ by more of their mean are remarked on ...
UNEVEN = 0.02  # ... and by more than this are no equal steps
FLAT = 1e-6  # largest extent of a flat mesh along z, over the whole
LISTED = 8  # names that are spelt out when a flow is read


@dataclasses.dataclass(frozen=True)
class Flow:
    """Checked trajectories on one fixed mesh, in physical units.

    fields : float32 (N, T, P, F), or float64 where float32 would lose digits, as it does of a
        pressure of 101,325. coordinates : float64 (P, 2).
    parameters : float64 (N, K); K may be 0. time : float64 (T,), increasing.
    triangles : int32 (M, 3), counter-clockwise; (0, 3) where the source has none, see
        `mesh.triangulate`.
    provenance : JSON values: path, sha256, notes, and what the source says of itself.
    """

    fields: np.ndarray
    coordinates: np.ndarray
    parameters: np.ndarray
    time: np.ndarray
    field_names: tuple[str, ...]
    parameter_names: tuple[str, ...]
    triangles: np.ndarray
    provenance: JsonObject

    @property
    def step(self) -> float:
        """The mean time step; NaN for a single frame."""
        steps = len(self.time) - 1
        return float((self.time[-1] - self.time[0]) / steps) if steps else float("nan")

    @property
    def dimensionless(self) -> bool:
        """Whether the flow is one of our simulations, whose fields are of order 1 by design."""
        return self.provenance.get("generator") == "final_project/simulate.py"


# ---------------------------------------------------------------------------------------- files


def load_flow(
    path: Path,
    case: str | None = None,
    least_frames: int = 2,
    reading: Reading = WHOLE,
) -> Flow:
    """A checked Flow of at least `least_frames` frames from a file or folder, by what it is.

    .h5 .hdf5 .npz  as `write_flow` writes them: fields (N, T, P, F), coordinates (P, 2), parameters
                    (N, K) or constant in time (N, T, K), time (T,), field_names; optional
                    parameter_names, triangles (M, 3), provenance (JSON)
    .h5 .hdf5 .npz  a regular grid: fields (N, T, H, W, F), x (W,), y (H,), and the same others;
                    nodes row by row, with triangles
    .h5 .hdf5       PDEBench's two-dimensional sets and The Well's (see `hdf5`)
    .pvd .vtu       a series of VTK files, one trajectory; also a folder of .vtu files
    .npz            two public sets: cylinder_re100_cloud_201x1122 and dambreak_openfoam_3cases; of
                    the latter the cases that share a mesh (ahmed, luis), or the one named by `case`
    folder          field_data.npy (N, T, P, F), coordinates.npy (2 or 3, P) and input_data.npy
                    (N, T, K) of the published SEA code
    folder          a two-dimensional OpenFOAM case, ascii or binary, .gz or not, with U, p or
                    p_rgh, and alpha.*: one trajectory, K = 0
    folder          several of these sources on one mesh, with parameters.csv (a column `case` and
                    one for each parameter); or HDF5 files that are parts of one set

    `reading` : what of it. Raises InputError for anything that is missing, unreadable or does not
    fit together, and for two frames or more that are not equally far apart.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if case is not None:
        reading = dataclasses.replace(reading, case=case)
    return check(readers.read(path, reading), path, least_frames)


def write_flow(path: Path, flow: Flow) -> None:
    """Writes a Flow atomically as .h5, .hdf5 or .npz; `load_flow` returns it bit for bit.

    Raises InputError for another ending and where the file cannot be written.
    """
    path = Path(path)
    arrays = {key: getattr(flow, key) for key in ARRAYS}
    for key in NAMES:
        arrays[key] = np.array(getattr(flow, key), dtype=np.str_)
    arrays["provenance"] = np.array(json.dumps(flow.provenance))

    if path.suffix == ".npz":
        write_arrays(path, **arrays)
    elif path.suffix in HDF5:
        _write_hdf5(path, arrays)
    else:
        raise InputError(f"{path}: a flow is written as .h5, .hdf5 or .npz")


def _write_hdf5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays as data sets whose Fletcher sums reveal damage when they are read."""
    version = ("v110", "v110")  # the format of HDF5 1.10 has sums of its metadata too
    with atomic_path(path) as temporary, h5py.File(temporary, "w", libver=version) as file:
        for key, array in arrays.items():
            if key == "fields":  # one chunk per frame, so that a frame can be read alone
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
            elif array.size:
                file.create_dataset(key, data=array, chunks=array.shape, fletcher32=True)
            else:
                file.create_dataset(key, data=array)


# --------------------------------------------------------------------------------------- checks


def check(raw: RawFlow, path: Path, least_frames: int = 2) -> Flow:
    """A Flow from the arrays of a reader, after checks of shape, type, range, order and geometry.

    Raises InputError that names the file and the key.
    """
    missing = [key for key in KEYS if key not in raw.arrays]
    if len(missing) == len(KEYS):
        held = listed(list(raw.arrays)) or "nothing"
        raise InputError(f"{path} holds {held}; needed are {', '.join(KEYS)}")
    if missing:
        raise InputError(
            f"{path}: the key {', '.join(missing)} is missing; needed are {', '.join(KEYS)}"
        )

    # every array alone:
    field_names = _names(raw.arrays["field_names"], "field_names", path)
    fields = _fields(raw.arrays["fields"], field_names, path)
    coordinates = _numbers(
        _planar(raw.arrays["coordinates"], path), "coordinates", ("node", 2), path
    )
    time = _numbers(raw.arrays["time"], "time", ("time",), path)
    axes = ("trajectory", "time", "parameter")
    tiled = np.ndim(raw.arrays["parameters"]) == 3  # the same at every time
    parameter_axes = axes if tiled else (axes[0], axes[2])
    parameters = _numbers(raw.arrays["parameters"], "parameters", parameter_axes, path)

    # together:
    _check_counts(fields, coordinates, time, parameters, path)
    _check_frames(time, least_frames, path, raw.advice)
    if tiled:
        parameters = _untiled(parameters, path)  # (N, K)
    parameter_names = _parameter_names(raw, parameters.shape[1], path)
    check_nodes(coordinates, path)
    no_triangles = np.zeros((0, 3), np.int32)
    triangles = np.asarray(raw.arrays.get("triangles", no_triangles))
    triangles = check_triangles(triangles, coordinates, path)

    notes = [*raw.notes, *_notes(parameters, parameter_names, time)]
    provenance = {key: value for key, value in raw.provenance.items() if key != "notes"}
    provenance["path"] = path.name
    provenance["sha256"] = sha256(path)
    provenance["notes"] = list(dict.fromkeys(notes))
    flow = Flow(
        fields, coordinates, parameters, time, field_names, parameter_names, triangles, provenance
    )
    provenance["read"] = described(flow, path)
    return flow


def described(flow: Flow, path: Path) -> str:
    """What was read, in a sentence or two."""
    trajectories, frames, nodes, _ = flow.fields.shape
    times = (
        f"{frames:,} frames (time {flow.time[0]:g} to {flow.time[-1]:g}, steps of {flow.step:g})"
    )
    if frames == 1:
        times = f"one frame (time {flow.time[0]:g})"
    ranges = [
        f"{name} {column.min():g} to {column.max():g}"
        for name, column in zip(flow.parameter_names, flow.parameters.T, strict=True)
    ]
    plural = "trajectory" if trajectories == 1 else "trajectories"
    what = f"{path}: {trajectories:,} {plural} of {times} on {nodes:,} nodes"
    fields = f"fields {listed(flow.field_names)}"
    parameters = f"parameters {listed(ranges)}" if ranges else "no parameters"
    # (repeated in later files; what was read is told anew)
    return ". ".join([f"{what}; {fields}; {parameters}", *flow.provenance["notes"]])


def listed(names: Sequence[str]) -> str:
    """The first names."""
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def _names(given: np.ndarray, key: str, path: Path) -> tuple[str, ...]:
    """An array of different, non-empty names as a tuple."""
    array = np.asarray(given)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.ndim != 1 or (array.size and array.dtype.kind != "U"):
        raise InputError(f"{path}: {key} must be a list of names, one for each of the last axis")
    names = tuple(map(str, array))
    different = len(set(names)) == len(names)
    if not different or not all(name.strip() and not set(name) & set(",;\n") for name in names):
        raise InputError(
            f"{path}: {key} holds {', '.join(map(repr, names))}; "
            "names must differ and have no comma, semicolon or line break"
        )
    return names


def _fields(given: np.ndarray, field_names: tuple[str, ...], path: Path) -> np.ndarray:
    """The fields (N, T, P, F), finite, one per name; in float64 where float32 loses digits."""
    array = np.asarray(given)
    if array.ndim == 4 and array.shape[3] != len(field_names):
        raise InputError(
            f"{path}: fields has {array.shape[3]} fields, field_names {len(field_names)}"
        )
    small = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    dtype = np.float32 if small else np.float64
    array = _typed(array, "fields", ("trajectory", "time", "node", "field"), dtype, path)
    if not small and all(_is_single(part) for part in array):
        array = array.astype(np.float32)
    finite = np.abs(array) <= LARGEST  # (NaN is not)
    if not finite.all():
        trajectory, frame, node, field = np.argwhere(~finite)[0]
        first = f"trajectory {trajectory}, frame {frame}, node {node}, field {field_names[field]}"
        raise _not_finite(path, "fields", finite, first)
    return array


def _is_single(values: np.ndarray) -> bool:
    """Whether float32 holds the values as they are."""
    with np.errstate(over="ignore", under="ignore"):
        return bool((values.astype(np.float32) == values).all())


def _planar(given: np.ndarray, path: Path) -> np.ndarray:
    """Coordinates (P, 3) of a mesh that is flat along z as (P, 2); others as they are.

    Raises InputError where z differs.
    """
    array = np.asarray(given)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu" or not len(array):
        return array
    if np.ptp(array[:, 2]) > FLAT * np.ptp(array[:, :2], axis=0).max():
        raise InputError(
            f"{path}: coordinates: the third coordinate varies; only two-dimensional flows are read"
        )
    return array[:, :2]


def _numbers(given: np.ndarray, key: str, axes: tuple[str | int, ...], path: Path) -> np.ndarray:
    """An array as finite float64 with axes of the given names, or lengths where a number stands."""
    array = _typed(np.asarray(given), key, axes, np.float64, path)
    finite = np.isfinite(array)
    if not finite.all():
        position = zip(axes, np.argwhere(~finite)[0], strict=True)
        named = [f"{axis} {index}" for axis, index in position if isinstance(axis, str)]
        raise _not_finite(path, key, finite, ", ".join(named))
    return array


def _typed(
    array: np.ndarray, key: str, axes: tuple[str | int, ...], dtype: type, path: Path
) -> np.ndarray:
    """An array of numbers of the type, with the axes; values too large for it become infinite."""
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: {key} holds {array.dtype}, not numbers; allowed are float and int arrays"
        )
    fits = array.ndim == len(axes)
    for axis, length in zip(axes, array.shape, strict=False):
        fits = fits and (isinstance(axis, str) or axis == length)
    if not fits:
        needed = ", ".join(map(str, axes))
        raise InputError(f"{path}: {key} has shape {array.shape}; needed is ({needed})")
    with np.errstate(over="ignore"):
        return array.astype(dtype, copy=False)


def _not_finite(path: Path, key: str, finite: np.ndarray, first: str) -> InputError:
    """The error of an array whose entries are not all finite, the first of them at `first`."""
    count = finite.size - np.count_nonzero(finite)
    return InputError(
        f"{path}: {key} holds {count} values that are NaN, inf or too large; the first at {first}"
    )


def _check_counts(
    fields: np.ndarray,
    coordinates: np.ndarray,
    time: np.ndarray,
    parameters: np.ndarray,
    path: Path,
) -> None:
    """Refuses arrays that disagree about the number of nodes, frames or trajectories."""
    trajectories, frames, nodes, _ = fields.shape
    counts = [
        ("coordinates", "nodes", len(coordinates), nodes),
        ("time", "frames", len(time), frames),
        ("parameters", "trajectories", len(parameters), trajectories),
    ]
    if parameters.ndim == 3:
        counts.append(("parameters", "frames", parameters.shape[1], frames))
    for key, name, count, needed in counts:
        if count != needed:
            raise InputError(f"{path}: {key} has {count} {name}, fields {needed}")
    if not fields.size:
        raise InputError(
            f"{path}: fields has shape {fields.shape}; "
            "needed is at least one trajectory, node and field"
        )


def _check_frames(time: np.ndarray, least: int, path: Path, advice: str) -> None:
    """Refuses fewer than `least` frames, times that do not increase, and steps that differ.

    A single state to start from (least = 1) may come from a source with uneven steps.
    """
    if len(time) < least:
        few = "one time step: nothing to predict" if len(time) == 1 else f"{len(time)} time steps"
        needed = advice or f"at least {least} are needed"
        raise InputError(f"{path}: fields has {few}; {needed}")
    steps = np.diff(time)
    if not (steps > 0).all():
        frame = np.argmax(steps <= 0) + 1
        raise InputError(f"{path}: time does not increase at frame {frame}; it must at every frame")
    if least > 1 and np.ptp(steps) > UNEVEN * steps.mean() + _rounding(time):
        raise InputError(
            f"{path}: time steps differ, {steps.min():g} to {steps.max():g}; a model takes equal "
            "steps: interpolate the fields to equally spaced times"
        )


def _rounding(time: np.ndarray) -> float:
    """How far time steps may differ because the times are of single precision."""
    return float(8 * np.finfo(np.float32).eps * np.abs(time).max())


def _untiled(parameters: np.ndarray, path: Path) -> np.ndarray:
    """Parameters (N, T, K) that are constant in time -> (N, K)."""
    if (parameters != parameters[:, :1]).any():
        raise InputError(
            f"{path}: parameters change in time; "
            "allowed are parameters that are constant along a trajectory"
        )
    return parameters[:, 0]


def _parameter_names(raw: RawFlow, count: int, path: Path) -> tuple[str, ...]:
    """The names of the parameters; numbered ones where the source has none."""
    if "parameter_names" not in raw.arrays:
        return tuple(f"parameter{number + 1}" for number in range(count))
    names = _names(raw.arrays["parameter_names"], "parameter_names", path)
    if len(names) != count:
        raise InputError(
            f"{path}: parameter_names has {len(names)} names, parameters {count} columns"
        )
    return names


def _notes(parameters: np.ndarray, names: tuple[str, ...], time: np.ndarray) -> list[str]:
    """Remarks about constant parameters and uneven time steps."""
    notes = []
    for name, column in zip(names, parameters.T, strict=True):
        if len(column) > 1 and np.ptp(column) == 0:
            notes.append(f"parameter {name} is {column[0]:g} in every trajectory")
    steps = np.diff(time)
    if len(steps) and np.ptp(steps) > NOTED_STEPS * steps.mean() + _rounding(time):
        notes.append(f"time steps differ: {steps.min():g} to {steps.max():g}")
    return notes


# ---------------------------------------------------------------------------- field groups


def groups_of(
    field_names: tuple[str, ...], wanted: str | None = None
) -> tuple[tuple[int, ...], ...]:
    """Field numbers of each group (stream), as in "u,v;p"; default: u with v, every other alone.

    Raises InputError for fields that are unknown, named twice or left out.
    """
    if wanted is None:
        pair = tuple(field_names.index(name) for name in ("u", "v") if name in field_names)
        groups: list[tuple[int, ...]] = []
        for number in range(len(field_names)):
            if number not in pair:
                groups.append((number,))
            elif number == pair[0]:
                groups.append(pair)
        return tuple(groups)

    named = [[name.strip() for name in group.split(",")] for group in wanted.split(";")]
    if sorted(name for group in named for name in group) != sorted(field_names):
        raise InputError(
            f'groups "{wanted}": each of the fields {", ".join(field_names)} '
            'must stand in one group, as in "u,v;p"'
        )
    return tuple(tuple(map(field_names.index, group)) for group in named)
