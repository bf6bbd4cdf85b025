"""Two-dimensional OpenFOAM cases, ascii or binary: fields at the cell centres, and a dual mesh.

Shape letters: T frames, P cells (the flow's nodes), F fields, S mesh points, Q faces, C corners of
all faces one after the other, D sides of faces (an inner face has two), M triangles.
"""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from foamlib import FoamCase, FoamFieldFile, FoamFile
from scipy.sparse import csr_array

from common.cli import InputError
from final_project.raw import RawFlow, readable

CELLS = ("C", "Cx", "Cy", "Cz", "V")  # what writeCellCentres and writeCellVolumes leave
HEAD = 2000  # bytes that hold the header of a file
FOLDERS = ("constant", "system")
PROCESSORS = r"processors?\d+(_\d+-\d+)?"
TIME = r"\d+(\.\d+)?(e[-+]?\d+)?"  # the name of a time folder
MESH = "constant/polyMesh"
FaceList: TypeAlias = tuple[np.ndarray, np.ndarray] | list[np.ndarray]  # binary, ascii


def is_case(path: Path) -> bool:
    """Whether a folder looks like a case, finished or not."""
    return any((path / name).is_dir() for name in FOLDERS) or bool(processor_folders(path))


def read_openfoam(path: Path) -> RawFlow:
    """U, alpha.*, p or p_rgh of a case at its cell centres: one trajectory, K = 0.

    Raises InputError for a case that is not complete or not one cell thick.
    """
    times = time_folders(path)
    names = field_names(path, times)
    mesh = read_mesh(path)
    centres = cell_centres(mesh, times)  # (P, 3)

    flat = flat_axis(centres, path)
    plane = [axis for axis in range(3) if axis != flat]
    frames = []
    for folder in times:
        columns = [cell_values(folder["U"], len(centres), (3,))[:, plane]]
        columns += [cell_values(folder[name], len(centres), ()) for name in names[1:]]
        frames.append(np.column_stack(columns))  # (P, F)

    # one phase is called alpha; several keep their names
    phases = names[1:-1]
    if len(phases) == 1:
        phases = ["alpha"]
    front = np.flatnonzero(mesh.points[:, flat] < mesh.points[:, flat].mean())
    triangles = dual_triangles(
        centres[:, plane], mesh.points[front][:, plane], mesh.incidence[:, front]
    )
    components = " and ".join("xyz"[axis] for axis in plane)
    return RawFlow(
        {
            "fields": np.stack(frames)[None],  # (1, T, P, F)
            "coordinates": centres[:, plane],  # (P, 2)
            "parameters": np.zeros((1, 0)),
            "time": np.array([folder.time for folder in times]),
            "field_names": np.array(["u", "v", *phases, names[-1]]),
            "triangles": triangles,
        },
        notes=(
            f"u, v are the components {components} of U",
            *left_out(path, times[-1], names),
            *not_joined(path, times),
        ),
        advice="; ".join(not_joined(path, times)),
    )


# ---------------------------------------------------------------------------------------- times


def time_folders(path: Path) -> Sequence[FoamCase.TimeDirectory]:
    """The time folders in order. Raises InputError where there are none or one seems to be lost."""
    times = FoamCase(path)[:]
    if not times and processor_folders(path):
        raise InputError(
            f"{path}: the case is still divided into processor folders; "
            "run reconstructPar in it first"
        )
    if not times:
        raise InputError(f"{path} has no time folders (0, 0.1, ...); run the case first")

    for folder in times:
        if (folder.path / "polyMesh").exists():
            raise InputError(
                f"{path}: time {folder.name} has a mesh of its own (polyMesh); only cases whose "
                "mesh stays as it is are read"
            )
    steps = np.diff([folder.time for folder in times])
    if len(steps) > 2 and steps.max() > 1.5 * np.median(steps):
        late = int(np.argmax(steps))
        raise InputError(
            f"{path}: no time folder between {times[late].name} and {times[late + 1].name}, "
            f"but steps of {np.median(steps):g} elsewhere; "
            "write at equal steps (writeControl adjustableRunTime)"
        )
    return times


def processor_folders(path: Path) -> list[Path]:
    """processor0, ... of a parallel run, or processorsN of a collated one."""
    named = [item for item in path.glob("processor*") if re.fullmatch(PROCESSORS, item.name)]
    return sorted(item for item in named if item.is_dir())


def not_joined(path: Path, times: Sequence[FoamCase.TimeDirectory]) -> tuple[str, ...]:
    """A remark about times that lie in processor folders alone."""
    for folder in processor_folders(path):
        written = {item.name for item in folder.iterdir() if re.fullmatch(TIME, item.name)}
        lost = written - {each.name for each in times}
        if lost:
            count = f"{len(lost)} time folder{'s' if len(lost) > 1 else ''}"
            return (
                f"{folder.name} holds {count} more than the case; run reconstructPar in {path} "
                "and read it again",
            )
    return ()


def field_names(path: Path, times: Sequence[FoamCase.TimeDirectory]) -> list[str]:
    """U, the phases, p or p_rgh: the files that every time folder has. Raises InputError."""
    last = {file.path.name.removesuffix(".gz") for file in times[-1]}
    phases = [name for name in last if name.startswith("alpha.") and not name.endswith("_0")]
    pressure = "p" if all("p" in folder for folder in times) else "p_rgh"
    names = ["U", *sorted(phases), pressure]
    for folder in times:
        missing = [name for name in names if name not in folder]
        if missing:
            raise InputError(
                f"{path}: time {folder.name} has no {', '.join(missing)}; "
                "needed at every time are U, p or p_rgh, and alpha.*"
            )
    return names


def left_out(path: Path, folder: FoamCase.TimeDirectory, names: list[str]) -> tuple[str, ...]:
    """A remark about the other fields of the cells in a time folder."""
    others = []
    for item in sorted((path / folder.name).iterdir()):
        name = item.name.removesuffix(".gz")
        if item.is_file() and name not in (*names, *CELLS) and holds_cells(item):
            others.append(name)
    return (f"fields left out: {', '.join(others)}",) if others else ()


def holds_cells(file: Path) -> bool:
    """Whether the head of a file says that it holds a field of the cells."""
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rb") as stream:
            return re.search(rb"class\s+vol\w+Field", stream.read(HEAD)) is not None
    except (OSError, EOFError):
        return False


def cell_values(file: FoamFieldFile, cells: int, shape: tuple[int, ...]) -> np.ndarray:
    """The internal field float64 (P, *shape), repeated where it is uniform. Raises InputError."""
    with readable(file.path):
        check_lists(file.path)
        values = np.asarray(file.internal_field, dtype=np.float64)
        if values.shape not in (shape, (cells, *shape)):
            raise InputError(
                f"{file.path}: internalField has shape {values.shape}; needed is {(cells, *shape)}"
            )
        return np.broadcast_to(values, (cells, *shape))


# ----------------------------------------------------------------------------------------- mesh


@dataclasses.dataclass(frozen=True)
class FoamMesh:
    """A case's mesh: points (S, 3), centres (P, 3) of the cells, and who has which point.

    incidence : sparse (P, S), not 0 where a cell has a point.
    """

    points: np.ndarray
    centres: np.ndarray
    incidence: csr_array


def read_mesh(path: Path) -> FoamMesh:
    """The mesh of constant/polyMesh, with centres as OpenFOAM computes them. Raises InputError."""
    points = read_points(path)
    corners, sizes = read_faces(path)
    owner = read_labels(path, "owner")
    neighbour = read_labels(path, "neighbour")
    folder = path / MESH
    # a face without area gives centres that are not finite, which data.check refuses
    with readable(folder), np.errstate(invalid="ignore", divide="ignore"):
        if len(owner) != len(sizes) or len(neighbour) > len(owner):
            raise InputError(
                f"{path}: {MESH} has {len(sizes)} faces, {len(owner)} owners "
                f"and {len(neighbour)} neighbours"
            )
        cells = 1 + max(owner.max(), neighbour.max(initial=0))
        if cells > len(sizes):  # a cell has at least four faces
            raise InputError(
                f"{path}: {MESH} names cell {cells - 1}, more than its {len(sizes)} faces allow"
            )

        # faces as seen from their one or two cells:
        faces = np.concatenate([np.arange(len(owner)), np.arange(len(neighbour))])  # (D,)
        cell = np.concatenate([owner, neighbour])  # (D,)
        outward = np.concatenate([np.ones(len(owner)), -np.ones(len(neighbour))])  # (D,)

        face_centres, areas = face_geometry(points, corners, sizes)
        sides = Sides(cell, face_centres[faces], outward[:, None] * areas[faces])
        centres = volume_centres(sides, cells)

        begins = np.append(np.cumsum(sizes) - sizes, len(corners))
        ones = np.ones(len(corners), np.int32)
        has_point = csr_array((ones, corners, begins), shape=(len(sizes), len(points)))
        ones = np.ones(len(cell), np.int32)
        has_face = csr_array((ones, (cell, faces)), shape=(cells, len(sizes)))
        return FoamMesh(points, centres, has_face @ has_point)


def face_geometry(
    points: np.ndarray, corners: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centres and area vectors (Q, 3) of faces with `sizes` (Q,) corners, of all corners (C,).

    A centre is the area-weighted mean of the triangles around the mean of the face's corners
    (primitiveMeshFaceCentresAndAreas).
    """
    face = np.repeat(np.arange(len(sizes)), sizes)  # (C,)
    first = np.cumsum(sizes) - sizes
    following = np.arange(len(corners)) + 1
    following[first + sizes - 1] = first  # the last corner is followed by the first

    a = points[corners]  # (C, 3)
    b = points[corners[following]]
    middle = sums(a, face, len(sizes)) / sizes[:, None]  # (Q, 3)
    triangle_areas = np.cross(a - middle[face], b - middle[face]) / 2  # (C, 3)
    weights = np.linalg.norm(triangle_areas, axis=1, keepdims=True)
    weighted = sums(weights * (a + b + middle[face]) / 3, face, len(sizes))
    centres = weighted / sums(weights, face, len(sizes))
    return centres, sums(triangle_areas, face, len(sizes))


@dataclasses.dataclass(frozen=True)
class Sides:
    """Faces as their cells see them: cell (D,), centre (D, 3) of the face, outward area (D, 3)."""

    cell: np.ndarray
    centres: np.ndarray
    areas: np.ndarray


def volume_centres(sides: Sides, cells: int) -> np.ndarray:
    """Centres (P, 3): the volume-weighted mean of the pyramids on a cell's faces.

    As primitiveMeshCellCentresAndVols computes them.
    """
    count = np.bincount(sides.cell, minlength=cells)[:, None]
    apex = sums(sides.centres, sides.cell, cells) / count  # (P, 3)
    height = sides.centres - apex[sides.cell]  # (D, 3)
    volume = (sides.areas * height).sum(1)[:, None]  # three times a pyramid's
    moment = sums(0.75 * volume * height, sides.cell, cells)
    return apex + moment / sums(volume, sides.cell, cells)


def cell_centres(mesh: FoamMesh, times: Sequence[FoamCase.TimeDirectory]) -> np.ndarray:
    """Centres (P, 3) that writeCellCentres left in a time folder (C), else the computed ones."""
    for folder in times:
        if "C" in folder:
            return cell_values(folder["C"], len(mesh.centres), (3,))
    return mesh.centres


def flat_axis(centres: np.ndarray, path: Path) -> int:
    """The axis along which the case is one cell thick. Raises InputError where it is not."""
    extents = np.ptp(centres, axis=0)
    flat = np.flatnonzero(extents <= 1e-6 * extents.max())
    if len(flat) != 1:
        raise InputError(
            f"{path}: the cells extend in {3 - len(flat)} directions; "
            "only cases that are one cell thick are read"
        )
    return int(flat[0])


def sums(values: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    """Sums of the rows of values (D, 3) that have the same number (D,): (count, 3)."""
    return np.stack([np.bincount(number, column, count) for column in values.T], -1)


def dual_triangles(centres: np.ndarray, points: np.ndarray, incidence: csr_array) -> np.ndarray:
    """Triangles int32 (M, 3) of cells: a fan around each mesh point (S, 2), so no hole is bridged.

    centres : (P, 2). incidence : sparse (P, S).
    """
    triangles: list[tuple[int, int, int]] = []
    around = incidence.T.tocsr()
    cells_of_points = np.split(around.indices, around.indptr[1:-1])
    for point, cells in zip(points, cells_of_points, strict=True):
        if len(cells) < 3:
            continue
        x, y = (centres[cells] - point).T
        angles = np.arctan2(y, x)
        order = np.argsort(angles)
        gaps = np.diff(angles[order], append=angles.min() + 2 * np.pi)
        # at a wall, the fan begins beside it
        first, *others = np.roll(cells[order], -1 - gaps.argmax())
        triangles += [(first, one, two) for one, two in itertools.pairwise(others)]
    return np.array(triangles, np.int32).reshape(-1, 3)


# --------------------------------------------------------------------------------- files of a mesh


def mesh_file(path: Path, name: str) -> Path:
    """The file of a mesh's list, with or without .gz. Raises InputError where it is missing."""
    plain = path / MESH / name
    for file in (plain, plain.with_name(f"{name}.gz")):
        if file.exists():
            return file
    raise InputError(f"{path}: {MESH}/{name} is missing; the mesh belongs to the case")


def read_points(path: Path) -> np.ndarray:
    """Points float64 (S, 3). Raises InputError."""
    file = mesh_file(path, "points")
    with readable(file):
        check_lists(file)
        return np.asarray(FoamFile(file)[None], np.float64).reshape(-1, 3)


def read_labels(path: Path, name: str) -> np.ndarray:
    """A list of cell numbers int64. Raises InputError."""
    file = mesh_file(path, name)
    with readable(file):
        check_lists(file)
        content = FoamFile(file)
        return as_labels(content, np.asarray(content[None]))


def read_faces(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The corners int64 (C,) of all faces one after the other, and each face's number of them (Q,).

    Raises InputError.
    """
    file = mesh_file(path, "faces")
    with readable(file):
        check_lists(file)
        content = FoamFile(file)
        value = cast(FaceList, content[None])
        if isinstance(value, tuple):  # binary: where each face begins in the list of corners
            begins, corners = value
            return as_labels(content, corners), np.diff(as_labels(content, begins))
        sizes = np.array([len(face) for face in value])
        return np.concatenate(value).astype(np.int64), sizes


def as_labels(content: FoamFile, array: np.ndarray) -> np.ndarray:
    """Labels as int64: foamlib takes binary labels of 64 bits for float64."""
    header = cast(Mapping[str, object], content["FoamFile"])
    long = content.format == "binary" and "label=64" in str(header.get("arch", ""))
    if long and array.dtype == np.float64:
        return array.view(np.int64)
    return array.astype(np.int64, casting="same_kind")


# --------------------------------------------------------------------------------- damaged lists


def text_list(element: bytes) -> bytes:
    """Pattern of an ascii list (...) of elements.

    Possessive quantifiers take each character once and never go back.
    """
    return rb"\(\s*+(?:" + element + rb"\s*+)*+\)"


def tuple_of(count: int) -> bytes:
    """Pattern of a vector or tensor of `count` numbers, such as (1 0 0)."""
    return rb"\(" + rb"\s++".join([NUMBER] * count) + rb"\s*+\)"


NUMBER = rb"[0-9.+\-eEinfatyINFATY]++"
LABEL = rb"[0-9+\-]++"
LISTS = {
    "scalar": text_list(NUMBER),
    "label": text_list(LABEL),
    "face": text_list(rb"\d++\(" + LABEL + rb"(?:\s++" + LABEL + rb")*+\s*+\)"),
    "vector": text_list(tuple_of(3)),
    "symmTensor": text_list(tuple_of(6)),
    "tensor": text_list(tuple_of(9)),
}
MESH_LISTS = {"points": "vector", "faces": "face", "owner": "label", "neighbour": "label"}
FIELD_LISTS = b"|".join(
    rb"List<" + kind.encode() + rb">\s*+\d*+\s*+" + LISTS[kind]
    for kind in ("scalar", "vector", "symmTensor", "tensor")
)


def check_lists(file: Path) -> None:
    """Refuses an ascii file whose lists are cut or hold what is no number.

    On such lists foamlib's patterns take exponential time. Raises InputError.
    """
    content = file.read_bytes()
    if file.suffix == ".gz":
        content = gzip.decompress(content)
    if re.search(rb"format\s++binary", content[:HEAD]):
        check_binary(file, content[:HEAD])
        return

    kind = MESH_LISTS.get(file.name.removesuffix(".gz"))
    if kind:
        pattern = rb"\}[^(]*?^\s*+\d++\s*+" + LISTS[kind]
        whole = re.search(pattern, content, re.MULTILINE) is not None
    else:
        # without its whole lists, a field file has no list and no long row of numbers
        rest = re.sub(rb"nonuniform\s++(?:" + FIELD_LISTS + rb")", b"", content)
        pattern = rb"nonuniform\s++List<\w++>\s*+\d*+\s*+\(|[\s0-9.+\-eE()]{1000}"
        whole = re.search(pattern, rest) is None
    if not whole:
        raise InputError(
            f"{file} is damaged: a list in it is broken off "
            f"or holds something that is no {kind or 'number'}"
        )


def check_binary(file: Path, head: bytes) -> None:
    """Refuses binary numbers that foamlib would misread. Raises InputError."""
    arch = re.search(rb'arch\s++"([^"]*)"', head)
    words = arch[1].decode(errors="replace") if arch else ""
    if "MSB" in words or "scalar=32" in words:
        raise InputError(
            f"{file}: binary numbers of the kind {words} are not read; write the case as ascii "
            "(foamFormatConvert with writeFormat ascii)"
        )
