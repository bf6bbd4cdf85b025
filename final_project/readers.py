"""What each kind of file or folder holds, as a dict of raw arrays; `data.check` looks them over.

Shape letters: N trajectories, T frames, P nodes (cells for OpenFOAM), F fields, K parameters, H rows, W columns, S mesh points, M triangles.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from einops import rearrange
from foamlib import FoamCase, FoamFieldFile, FoamFile
from scipy.sparse import csr_array

from common.cli import InputError

KEYS = ("fields", "coordinates", "parameters", "time", "field_names")
HDF5 = (".h5", ".hdf5")
OFFICIAL = ("field_data.npy", "coordinates.npy", "input_data.npy")
ALLOWED = ".h5, .hdf5, .npz, a folder with field_data.npy, or an OpenFOAM case folder"


def read(path: Path, case: str | None = None) -> dict[str, Any]:
    """Raw arrays by key, and `notes`; the kinds are those of `data.load_flow`. Raises InputError."""
    if case is not None and not path.name.endswith(".npz"):
        raise InputError(f"{path} has no cases to choose from; only the dam break file has")
    if path.suffix in HDF5:
        return _hdf5(path)
    if path.suffix == ".npz":
        return _npz(path, case)
    if path.is_dir() and any((path / name).exists() for name in OFFICIAL):
        return _official(path)
    if path.is_dir() and any(
        (path / name).exists() for name in ("constant", "system", "processor0")
    ):
        return _openfoam(path)
    raise InputError(f"{path} is not a flow; allowed are {ALLOWED}")


@contextlib.contextmanager
def _readable(path: Path, advice: str = "") -> Iterator[None]:
    """Turns any error in the block into one line: libraries fail on damaged files in many ways."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        advice = "; is it whole? gunzip shows it" if path.suffix == ".gz" else advice
        raise InputError(f"{path} cannot be read ({reason}){advice}") from None


# ------------------------------------------------------------------------------------------------------------ own format


def _provenance(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """The provenance a file says of itself, out of its JSON."""
    if "provenance" not in raw:
        return raw
    with _readable(path, "; provenance must be a JSON object"):
        kept = dict(json.loads(str(raw["provenance"])))
        return {**raw, "provenance": kept, "notes": [str(note) for note in kept.get("notes", [])]}


def _hdf5(path: Path) -> dict[str, Any]:
    raw = {}
    with _readable(path), h5py.File(path, "r") as file:
        for key, item in file.items():
            if not isinstance(item, h5py.Dataset):
                raise InputError(
                    f"{path}: {key} is a group; needed are the data sets {', '.join(KEYS)}"
                )
            text = h5py.check_string_dtype(item.dtype)
            raw[key] = np.array(item.asstr("utf-8")[()], dtype=np.str_) if text else item[()]
    return _provenance(raw, path)


def _npz(path: Path, case: str | None) -> dict[str, Any]:
    with _readable(path), open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
        raw = dict(file)
    if case is not None and "ahmed_U" not in raw:
        raise InputError(f"{path} has no cases to choose from; only the dam break file has")
    if {"uv", "xy", "t"} <= raw.keys():
        return _cylinder(raw)
    if "ahmed_U" in raw:
        return _dambreak(raw, path, case)
    if {"x", "y"} <= raw.keys() and "coordinates" not in raw:
        return _grid(_provenance(raw, path), path)
    return _provenance(raw, path)


def _grid(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """A regular grid: nodes row by row, two triangles a box."""
    if "fields" not in raw:
        raise InputError(
            f"{path}: the key fields is missing; needed are fields, x, y, parameters, time, field_names"
        )
    x, y, fields = raw.pop("x"), raw.pop("y"), raw["fields"]
    if x.ndim != 1 or y.ndim != 1 or fields.ndim != 5 or fields.shape[2:4] != (len(y), len(x)):
        raise InputError(
            f"{path}: fields has shape {fields.shape}, x {x.shape}, y {y.shape}; needed are (N, T, H, W, F), (W,), (H,)"
        )
    node = np.arange(x.size * y.size, dtype=np.int32).reshape(len(y), len(x))
    a, b, c, d = (
        node[:-1, :-1],
        node[:-1, 1:],
        node[1:, 1:],
        node[1:, :-1],
    )  # the corners of a box, around it
    triangles = np.concatenate(
        [np.stack(corners, -1).reshape(-1, 3) for corners in ((a, b, c), (a, c, d))]
    )
    coordinates = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)  # (P, 2)
    return {
        **raw,
        "fields": rearrange(fields, "n t h w f -> n t (h w) f"),
        "coordinates": coordinates,
        "triangles": triangles,
    }


# --------------------------------------------------------------------------------------------------- files of other people


def _cylinder(raw: dict[str, Any]) -> dict[str, Any]:
    """The flow behind a cylinder at Re 100 (github.com/nish-ant/parallel-pod): one trajectory of u, v on a cloud of nodes."""
    return {
        "fields": raw["uv"][None],
        "coordinates": raw["xy"],
        "parameters": np.array([[100.0]]),
        "time": raw["t"],
        "field_names": np.array(["u", "v"]),
        "parameter_names": np.array(["Re"]),
    }


def _dambreak(raw: dict[str, Any], path: Path, case: str | None) -> dict[str, Any]:
    """OpenFOAM dam breaks (github.com/ahmed-razic/dam_brake, luiscascelli/OpenFoam): the cases that share a mesh, or the one named."""
    cases = [key.removesuffix("_U") for key in raw if key.endswith("_U")]
    if case is not None and case not in cases:
        raise InputError(f"{path} has no case {case}; it has {', '.join(cases)}")
    missing = [
        key
        for name in cases
        for what in ("alpha", "p_rgh", "t", "xy")
        if (key := f"{name}_{what}") not in raw
    ]
    if missing:
        raise InputError(f"{path}: the key {', '.join(missing)} is missing")

    def like(name: str) -> list[str]:
        return [
            other
            for other in cases
            if all(
                np.array_equal(raw[f"{name}_{key}"], raw[f"{other}_{key}"]) for key in ("xy", "t")
            )
        ]

    chosen = [case] if case is not None else max(map(like, cases), key=len)
    with _readable(path):
        paths = [
            np.concatenate(
                [
                    raw[f"{name}_U"],
                    raw[f"{name}_alpha"][..., None],
                    raw[f"{name}_p_rgh"][..., None],
                ],
                -1,
            )
            for name in chosen
        ]
        fields = np.stack(paths)  # (N, T, P, 4)
    return {
        "fields": fields,
        "coordinates": raw[f"{chosen[0]}_xy"],
        "parameters": np.zeros((len(chosen), 0)),
        "time": raw[f"{chosen[0]}_t"],
        "field_names": np.array(["u", "v", "alpha", "p_rgh"]),
        "notes": [f"cases: {', '.join(chosen)}"],
    }


def _official(path: Path) -> dict[str, Any]:
    """The three arrays of the published SEA code, which name no fields and no times."""
    arrays = []
    for name in OFFICIAL:
        if not (path / name).exists():
            raise InputError(f"{path}: {name} is missing; needed are {', '.join(OFFICIAL)}")
        with _readable(path / name):
            arrays.append(np.load(path / name, allow_pickle=False))
    fields, coordinates, parameters = arrays
    if (
        fields.ndim != 4
        or coordinates.ndim != 2
        or len(coordinates) not in (2, 3)
        or parameters.ndim != 3
    ):
        shapes = ", ".join(
            f"{name} {array.shape}" for name, array in zip(OFFICIAL, arrays, strict=True)
        )
        raise InputError(
            f"{path}: {shapes}; needed are (trajectory, time, node, field), (2 or 3, node), (trajectory, time, parameter)"
        )
    if len(coordinates) == 3 and np.ptp(coordinates[2]) > 0:
        raise InputError(
            f"{path}: coordinates.npy: the third coordinate varies; only two-dimensional flows are read"
        )
    count = fields.shape[3]
    names = (
        ["u", "v", *(["p"] if count == 3 else [f"f{number}" for number in range(3, count + 1)])]
        if count > 1
        else ["f1"][:count]
    )
    notes = [
        f"the folder names no fields: taken as {', '.join(names)}",
        "the folder has no times: taken as 0, 1, 2, ...",
    ]
    return {
        "fields": fields,
        "coordinates": coordinates[:2].T,
        "parameters": parameters,
        "time": np.arange(fields.shape[1]),
        "field_names": np.array(names),
        "notes": notes,
    }


# --------------------------------------------------------------------------------------------------------------- OpenFOAM


def _text_list(element: bytes) -> bytes:
    """Pattern of an ascii list (...) of elements; it takes each sign once and never goes back (possessive quantifiers)."""
    return rb"\(\s*+(?:" + element + rb"\s*+)*+\)"


NUMBER, LABEL = rb"[0-9.+\-eEinfatyINFATY]++", rb"[0-9+\-]++"
LISTS = {
    "scalar": _text_list(NUMBER),
    "label": _text_list(LABEL),
    "face": _text_list(rb"\d++\(" + LABEL + rb"(?:\s++" + LABEL + rb")*+\s*+\)"),
}
LISTS |= {
    kind: _text_list(rb"\(" + rb"\s++".join([NUMBER] * count) + rb"\s*+\)")
    for kind, count in (("vector", 3), ("symmTensor", 6), ("tensor", 9))
}
MESH = {"points": "vector", "faces": "face", "owner": "label", "neighbour": "label"}
IN_FIELD = b"|".join(
    rb"List<" + kind.encode() + rb">\s*+\d*+\s*+" + LISTS[kind]
    for kind in ("scalar", "vector", "symmTensor", "tensor")
)


def _check_lists(place: Path) -> None:
    """Refuses an ascii file whose lists are broken off or hold what is no number: on such lists foamlib's patterns take exponential time."""
    content = place.read_bytes()
    content = gzip.decompress(content) if place.suffix == ".gz" else content
    if re.search(rb"format\s++binary", content[:2000]):
        return
    kind = MESH.get(place.name.removesuffix(".gz"))
    if kind:
        whole = (
            re.search(rb"\}[^(]*?^\s*+\d++\s*+" + LISTS[kind], content, re.MULTILINE) is not None
        )
    else:  # without its whole lists, a field file has no list and no long row of numbers
        rest = re.sub(rb"nonuniform\s++(?:" + IN_FIELD + rb")", b"", content)
        whole = not re.search(
            rb"nonuniform\s++List<\w++>\s*+\d*+\s*+\(|[\s0-9.+\-eE()]{1000}", rest
        )
    if not whole:
        raise InputError(
            f"{place} is damaged: a list in it is broken off or holds something that is no {kind or 'number'}"
        )


def _openfoam(path: Path) -> dict[str, Any]:
    """U, alpha.*, p or p_rgh of a two-dimensional case at its cell centres: one trajectory, K = 0."""
    times = FoamCase(path)[:]
    if not times and (path / "processor0").exists():
        raise InputError(
            f"{path}: the case is still divided into processor folders; run reconstructPar in it first"
        )
    if not times:
        raise InputError(f"{path} has no time folders (0, 0.1, ...); run the case first")
    time = np.array([folder.time for folder in times])
    steps = np.diff(time)
    if len(steps) and steps.max() > 1.5 * np.median(steps):
        late = int(np.argmax(steps))
        raise InputError(
            f"{path}: no time folder between {times[late].name} and {times[late + 1].name}, but steps of {np.median(steps):g} elsewhere; "
            "write at equal steps (writeControl adjustableRunTime)"
        )
    present = {file.path.name.removesuffix(".gz") for file in times[-1]}
    alphas = sorted(
        name for name in present if name.startswith("alpha.") and not name.endswith("_0")
    )
    wanted = ["U", *alphas, "p" if all("p" in folder for folder in times) else "p_rgh"]
    for folder in times:
        missing = [name for name in wanted if name not in folder]
        if missing:
            raise InputError(
                f"{path}: time {folder.name} has no {', '.join(missing)}; needed at every time are U, p or p_rgh, and alpha.*"
            )

    centres, points, incidence = _cells(path, times)
    flat = np.flatnonzero(np.ptp(centres, axis=0) <= 1e-6 * np.ptp(centres, axis=0).max())
    if len(flat) != 1:
        raise InputError(
            f"{path}: the cells extend in {3 - len(flat)} directions; only cases that are one cell thick are read"
        )
    plane = [axis for axis in range(3) if axis != flat[0]]
    front = np.flatnonzero(points[:, flat[0]] < points[:, flat[0]].mean())
    frames = []
    for folder in times:
        velocity = _values(folder["U"], len(centres), (3,))[:, plane]
        frames.append(
            np.column_stack(
                [velocity, *(_values(folder[name], len(centres), ()) for name in wanted[1:])]
            )
        )  # (P, F)
    names = ["u", "v", *(alphas if len(alphas) > 1 else ["alpha"] * len(alphas)), wanted[-1]]
    return {
        "fields": np.stack(frames)[None],
        "coordinates": centres[:, plane],
        "parameters": np.zeros((1, 0)),
        "time": time,
        "field_names": np.array(names),
        "triangles": _around_points(
            centres[:, plane], points[front][:, plane], incidence[:, front]
        ),
        "notes": [f"u, v are the components {' and '.join('xyz'[axis] for axis in plane)} of U"],
    }


def _values(file: FoamFieldFile, cells: int, shape: tuple[int, ...]) -> np.ndarray:
    """The internal field (P, *shape), spread where it is uniform."""
    with _readable(file.path):
        _check_lists(file.path)
        values = np.asarray(file.internal_field, dtype=np.float64)
        if values.shape not in (shape, (cells, *shape)):
            raise InputError(
                f"{file.path}: internalField has shape {values.shape}; needed is {(cells, *shape)}"
            )
        return np.broadcast_to(values, (cells, *shape))


def _cells(
    path: Path, times: Sequence[FoamCase.TimeDirectory]
) -> tuple[np.ndarray, np.ndarray, csr_array]:
    """Centres (P, 3) of the cells, the mesh points (S, 3), and which of them each cell has, sparse (P, S).

    Centres are those that writeCellCentres left (C), else as OpenFOAM computes them (primitiveMeshCellCentresAndVols): a face's centre is
    the area-weighted mean of the triangles around the mean of its corners, a cell's the volume-weighted mean of the pyramids on its faces.
    """
    points, faces, owner, neighbour = (
        _mesh_list(path, name) for name in ("points", "faces", "owner", "neighbour")
    )
    with (
        _readable(path / "constant/polyMesh"),
        np.errstate(invalid="ignore", divide="ignore"),
    ):  # a face without area: data.check says so
        corners, sizes = faces
        if len(owner) != len(sizes) or len(neighbour) > len(owner):
            raise InputError(
                f"{path}: constant/polyMesh has {len(sizes)} faces, {len(owner)} owners and {len(neighbour)} neighbours"
            )
        face = np.repeat(np.arange(len(sizes)), sizes)
        first = np.cumsum(sizes) - sizes
        following = np.arange(len(corners)) + 1
        following[first + sizes - 1] = first
        cells = 1 + max(owner.max(), neighbour.max(initial=0))
        if cells > len(sizes):  # a cell has at least four faces
            raise InputError(
                f"{path}: constant/polyMesh names cell {cells - 1}, more than its {len(sizes)} faces allow"
            )
        sides = np.concatenate(
            [np.arange(len(owner)), np.arange(len(neighbour))]
        )  # faces as seen from their one or two cells
        cell = np.concatenate([owner, neighbour])
        outward = np.concatenate([np.ones(len(owner)), -np.ones(len(neighbour))])

        a, b = points[corners], points[corners[following]]
        middle = _sums(a, face, len(sizes)) / sizes[:, None]
        areas = np.cross(a - middle[face], b - middle[face]) / 2
        weights = np.linalg.norm(areas, axis=1, keepdims=True)
        centres = _sums(weights * (a + b + middle[face]) / 3, face, len(sizes)) / _sums(
            weights, face, len(sizes)
        )
        area = _sums(areas, face, len(sizes))

        apex = _sums(centres[sides], cell, cells) / np.bincount(cell, minlength=cells)[:, None]
        height = centres[sides] - apex[cell]
        volume = (outward * (area[sides] * height).sum(1))[:, None]  # three times a pyramid's
        middles = apex + _sums(0.75 * volume * height, cell, cells) / _sums(volume, cell, cells)

        per_side = csr_array(
            (np.ones(len(corners), np.int32), corners, np.append(first, len(corners))),
            shape=(len(sizes), len(points)),
        )
        incidence = (
            csr_array((np.ones(len(cell), np.int32), (cell, sides)), shape=(cells, len(sizes)))
            @ per_side
        )
    written = next((folder["C"] for folder in times if "C" in folder), None)
    return (middles if written is None else _values(written, cells, (3,))), points, incidence


def _sums(values: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    """Sums of the rows of `values` (S, 3) that have the same number: (count, 3)."""
    return np.stack([np.bincount(number, column, count) for column in values.T], -1)


def _mesh_list(path: Path, name: str) -> Any:
    """A list of constant/polyMesh; faces as their corners, one after the other, and each face's number of corners."""
    place = path / "constant/polyMesh" / name
    place = place if place.exists() else place.with_name(f"{name}.gz")
    if not place.exists():
        raise InputError(
            f"{path}: constant/polyMesh/{name} is missing; the mesh belongs to the case"
        )
    with _readable(place):
        _check_lists(place)
        file: Any = FoamFile(place)  # (what an entry is depends on the file)
        long = file.format == "binary" and "label=64" in str(file["FoamFile"].get("arch", ""))
        value = file[None]

        def labels(array: np.ndarray) -> np.ndarray:  # foamlib takes 64-bit labels for float64
            return (
                array.view(np.int64)
                if long and array.dtype == np.float64
                else array.astype(np.int64, casting="same_kind")
            )

        if name == "points":
            return np.asarray(value, np.float64).reshape(-1, 3)
        if name != "faces":
            return labels(np.asarray(value))
        if isinstance(value, tuple):  # binary: where each face begins in the list of corners
            begins, corners = map(labels, value)
            return corners, np.diff(begins)
        return np.concatenate(value).astype(np.int64), np.array([len(face) for face in value])


def _around_points(centres: np.ndarray, points: np.ndarray, incidence: csr_array) -> np.ndarray:
    """Triangles int32 (M, 3) of the dual mesh: a fan of the cells around each mesh point (S, 2), so that none bridges a hole."""
    triangles = []
    around = incidence.T.tocsr()
    for point, cells in zip(points, np.split(around.indices, around.indptr[1:-1]), strict=True):
        if len(cells) < 3:
            continue
        angles = np.arctan2(*(centres[cells] - point).T[::-1])
        order = np.argsort(angles)
        gaps = np.diff(angles[order], append=angles.min() + 2 * np.pi)
        first, *others = np.roll(cells[order], -1 - gaps.argmax())  # at a wall, begin beside it
        triangles += [(first, *pair) for pair in itertools.pairwise(others)]
    return np.array(triangles, np.int32).reshape(-1, 3)
