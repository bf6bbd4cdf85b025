"""OpenFOAM cases, ascii and binary: cell centres, triangles, damaged and unsuitable cases."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from common.cli import InputError
from final_project.data import load_flow
from tests.final_project.helpers import areas, at, refused


def block_mesh(
    columns: int, rows: int, hole: set[tuple[int, int]] = frozenset(), plane: str = "xy"
) -> dict:
    """A mesh one cell thick of (columns, rows) boxes, bent to trapezia, without those in `hole`.

    Faces in OpenFOAM's order, inner ones first.
    """
    cells = {
        place: number
        for number, place in enumerate(
            (i, j) for j in range(rows) for i in range(columns) if (i, j) not in hole
        )
    }
    corner = np.array(
        [
            [(1 + 0.5 * j) * i + 0.1 * j, 0.7 * j + 0.05 * i]
            for j in range(rows + 1)
            for i in range(columns + 1)
        ]
    )
    count = len(corner)
    order = [0, 1, 2] if plane == "xy" else [0, 2, 1]
    points = np.array([[*place, z] for z in (0.0, 0.1) for place in corner])[:, order]

    def at(i: int, j: int) -> int:
        return j * (columns + 1) + i

    inner, outer = [], []
    for (i, j), cell in cells.items():
        for (a, b), other in (
            ((at(i + 1, j), at(i + 1, j + 1)), (i + 1, j)),
            ((at(i + 1, j + 1), at(i, j + 1)), (i, j + 1)),
            ((at(i, j + 1), at(i, j)), (i - 1, j)),
            ((at(i, j), at(i + 1, j)), (i, j - 1)),
        ):
            face = [a, b, b + count, a + count]
            if other not in cells:
                outer.append((face, cell, -1))
            elif cells[other] > cell:
                inner.append((face, cell, cells[other]))
        ring = [at(i, j), at(i, j + 1), at(i + 1, j + 1), at(i + 1, j)]
        outer += [(ring, cell, -1), ([node + count for node in ring[::-1]], cell, -1)]
    faces = [
        list(face) if plane == "xy" else list(face[::-1]) for face, _, _ in inner + outer
    ]  # swapped axes turn a face's normal
    rings = [corner[[at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)]] for i, j in cells]
    return {
        "points": points,
        "faces": faces,
        "owner": [owner for _, owner, _ in inner + outer],
        "neighbour": [other for _, _, other in inner],
        "centres": np.array([centroid(ring) for ring in rings]),
    }


def centroid(ring: np.ndarray) -> np.ndarray:
    """Centre of area of a polygon (the shoelace formula)."""
    following = np.roll(ring, -1, axis=0)
    cross = ring[:, 0] * following[:, 1] - ring[:, 1] * following[:, 0]
    return ((ring + following) * cross[:, None]).sum(0) / (3 * cross.sum())


def foam(path: Path, kind: str, name: str, body: bytes, encoding: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bits = 64 if encoding == "binary64" else 32
    arch = f'arch "LSB;label={bits};scalar=64"; ' if encoding != "ascii" else ""
    entries = f"version 2.0; format {encoding.rstrip('46')}; {arch}class {kind}; object {name};"
    head = f"FoamFile\n{{\n {entries}\n}}\n".encode()
    (path / name if path.is_dir() else path).write_bytes(head + body + b"\n")


def rows_of(values: np.ndarray, encoding: str) -> bytes:
    """A list as OpenFOAM writes it: `n(...)`."""
    values = np.asarray(values)
    if encoding != "ascii":
        return b"%d\n(" % len(values) + values.tobytes() + b")"
    words = [
        f"({' '.join(map(repr, row))})" if np.ndim(row) else repr(row) for row in values.tolist()
    ]
    return f"{len(values)}\n(\n".encode() + "\n".join(words).encode() + b"\n)"


def openfoam(
    path: Path, encoding: str, mesh: dict, fields: dict[str, dict[str, np.ndarray]]
) -> Path:
    """A case with fields {time: {name: values (P,) or (P, 3), or one value for all}}."""
    label = np.int64 if encoding == "binary64" else np.int32
    place = path / "constant" / "polyMesh"
    foam(place / "points", "vectorField", "points", rows_of(mesh["points"], encoding), encoding)
    for name in ("owner", "neighbour"):
        foam(
            place / name,
            "labelList",
            name,
            rows_of(np.array(mesh[name], label), encoding),
            encoding,
        )
    if encoding == "ascii":
        faces = "\n".join(f"{len(face)}({' '.join(map(str, face))})" for face in mesh["faces"])
        foam(
            place / "faces",
            "faceList",
            "faces",
            f"{len(mesh['faces'])}\n(\n{faces}\n)".encode(),
            encoding,
        )
    else:
        begins = np.cumsum([0, *map(len, mesh["faces"])]).astype(label)
        lists = (
            rows_of(begins, encoding)
            + b"\n"
            + rows_of(np.concatenate(mesh["faces"]).astype(label), encoding)
        )
        foam(place / "faces", "faceCompactList", "faces", lists, encoding)
    for time, values in fields.items():
        for name, value in values.items():
            value = np.asarray(value, float)
            vector = name in ("U", "C")
            if value.ndim == (1 if vector else 0):
                content = (
                    f"({' '.join(map(repr, value.tolist()))})" if vector else repr(float(value))
                )
                body = f"internalField uniform {content};".encode()
            else:
                body = (
                    f"internalField nonuniform List<{'vector' if vector else 'scalar'}> ".encode()
                    + rows_of(value, encoding)
                    + b";"
                )
            body = (
                b"dimensions [0 1 -1 0 0 0 0];\n"
                + body
                + b"\nboundaryField { walls { type zeroGradient; } }"
            )
            foam(
                path / time / name,
                "volVectorField" if vector else "volScalarField",
                name,
                body,
                encoding,
            )
    return path


def flow_fields(cells: int, plane: str = "xy") -> dict[str, dict[str, np.ndarray]]:
    """Uniform at the beginning, as in a folder 0, and any numbers later."""
    random = np.random.default_rng(1)
    order = [0, 1, 2] if plane == "xy" else [0, 2, 1]
    later = {
        time: {
            "U": np.column_stack([random.normal(size=(cells, 2)), np.zeros(cells)])[:, order],
            "alpha.water": random.random(cells),
            "p_rgh": random.normal(size=cells),
        }
        for time in ("0.1", "0.2")
    }
    return {
        "0": {"U": np.array([1.0, 0.0, 0.0]), "alpha.water": np.array(0.5), "p_rgh": np.array(0.0)},
        **later,
    }


@pytest.mark.parametrize("plane", ["xy", "xz"])
@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary64"])
def test_openfoam_case(tmp_path, encoding, plane):
    mesh, fields = block_mesh(3, 2, plane=plane), flow_fields(6, plane)
    flow = load_flow(openfoam(tmp_path / "case", encoding, mesh, fields))
    assert flow.fields.shape == (1, 3, 6, 4)
    assert flow.field_names == ("u", "v", "alpha", "p_rgh")
    assert flow.parameters.shape == (1, 0)
    assert flow.time.tolist() == [0, 0.1, 0.2]
    np.testing.assert_allclose(flow.coordinates, mesh["centres"], rtol=0, atol=1e-12)
    for frame, values in enumerate(fields.values()):
        want = [
            np.broadcast_to(values["U"], (6, 3))[:, axis]
            for axis in ((0, 1) if plane == "xy" else (0, 2))
        ]
        want += [np.broadcast_to(values[name], 6) for name in ("alpha.water", "p_rgh")]
        assert (flow.fields[0, frame] == np.column_stack(want)).all()
    assert len(flow.triangles) == 2 * 2 * 1
    assert areas(flow.coordinates, flow.triangles).min() > 0
    assert f"components x and {plane[1]} of U" in flow.provenance["notes"][0]


def test_openfoam_triangles_leave_a_hole_open(tmp_path):
    """Eight centres surround the missing middle of 3 x 3 cells.

    Only the four corner cells have two neighbours with a common point.
    """
    mesh = block_mesh(3, 3, hole={(1, 1)})
    flow = load_flow(openfoam(tmp_path / "case", "ascii", mesh, flow_fields(8)))
    assert sorted(sorted(triangle) for triangle in flow.triangles.tolist()) == [
        [0, 1, 3],
        [1, 2, 4],
        [3, 5, 6],
        [4, 6, 7],
    ]


def test_openfoam_written_centres_p_and_compressed_files(tmp_path):
    mesh, fields = block_mesh(3, 2), flow_fields(6)
    given = np.column_stack([mesh["centres"] + 0.01, np.full(6, 0.05)])
    for values in fields.values():
        values["p"] = values.pop("p_rgh")
        values["alpha.oil"] = np.array(0.25)
    fields["0"]["C"] = given
    path = openfoam(tmp_path / "case", "binary", mesh, fields)
    plain = load_flow(path)
    assert plain.field_names == ("u", "v", "alpha.oil", "alpha.water", "p")
    assert (plain.coordinates == given[:, :2]).all()
    for file in [item for item in path.rglob("*") if item.is_file()]:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    packed = load_flow(path)
    assert (packed.fields == plain.fields).all()
    assert (packed.coordinates == plain.coordinates).all()
    (path / "0.1" / "U.gz").write_bytes((path / "0.1" / "U.gz").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"0\.1/U\.gz cannot be read .*gunzip"):
        load_flow(path)


@pytest.mark.parametrize(
    "name",
    [
        "0.1/U",
        "0.1/p_rgh",
        "constant/polyMesh/points",
        "constant/polyMesh/faces",
        "constant/polyMesh/owner",
    ],
)
@pytest.mark.parametrize("damage", ["cut", "letter", "bracket", "keyword"])
def test_damaged_ascii_lists_are_refused_at_once(tmp_path, name, damage):
    """Lists so long that a parser which goes back and forth would not end."""
    path = openfoam(tmp_path / "case", "ascii", block_mesh(20, 20), flow_fields(400))
    content = bytearray((path / name).read_bytes())
    place = content.index(b"\n(") + 2000
    place = next(at for at in range(place, len(content)) if content[at : at + 1].isdigit())
    if damage == "cut":
        content = content[:place]
    elif damage == "keyword":
        content = content.replace(b"nonuniform List", b"nonunifrom List").replace(
            b"\n(\n", b"\n[\n"
        )
    else:
        content[place] = ord("x" if damage == "letter" else "(")
    (path / name).write_bytes(content)
    with pytest.raises(
        InputError,
        match=f"{name} is damaged: a list in it is broken off or holds something that is no",
    ):
        load_flow(path)


def test_openfoam_cells_of_any_number_of_corners(tmp_path):
    """A block of 2 x 2 cells whose left two are joined to one with six corners."""
    mesh = block_mesh(2, 2)
    cells = np.array([0, 1, 0, 2])  # the cells 0 and 2 are joined
    owner, other = (
        cells[mesh["owner"]],
        np.append(
            cells[mesh["neighbour"]], np.full(len(mesh["faces"]) - len(mesh["neighbour"]), -1)
        ),
    )
    keep = owner != other
    faces = [face for face, kept in zip(mesh["faces"], keep, strict=True) if kept]
    owner, other = owner[keep], other[keep]
    inner, outer = np.flatnonzero(other >= 0), np.flatnonzero(other < 0)
    flat = [
        number
        for number in outer
        if len({node // 9 for node in faces[number]}) == 1 and owner[number] == 0
    ]
    bottom, top = ([0, 3, 6, 7, 4, 1], [10, 13, 16, 15, 12, 9])
    outer = [number for number in outer if number not in flat]
    faces = [faces[number] for number in (*inner, *outer)] + [bottom, top]
    owners = [*owner[inner], *owner[outer], 0, 0]
    joined = {"points": mesh["points"], "faces": faces, "owner": owners, "neighbour": other[inner]}
    ring = mesh["points"][[0, 1, 4, 7, 6, 3], :2]
    for encoding in ("ascii", "binary"):
        flow = load_flow(openfoam(tmp_path / encoding, encoding, joined, flow_fields(3)))
        np.testing.assert_allclose(
            flow.coordinates, [centroid(ring), *mesh["centres"][[1, 3]]], atol=1e-12
        )
        assert [sorted(triangle) for triangle in flow.triangles.tolist()] == [[0, 1, 2]]


def test_openfoam_refused(tmp_path):
    mesh, fields = block_mesh(3, 2), flow_fields(6)

    def case(name: str, mesh=mesh, fields=fields) -> Path:
        return openfoam(tmp_path / name, "ascii", mesh, fields)

    refused(case("none", fields={}), "has no time folders")
    refused(case("one", fields={"0": fields["0"]}), "one time step: nothing to predict")
    assert load_flow(tmp_path / "one", least_frames=1).fields.shape == (1, 1, 6, 4)
    refused(
        case("lost time", fields={**fields, "0.5": fields["0.1"]}),
        "no time folder between 0.2 and 0.5, but steps of 0.1 elsewhere",
    )
    refused(
        case("lost field", fields={**fields, "0.1": {"U": fields["0.1"]["U"], "p_rgh": 0}}),
        "time 0.1 has no alpha.water",
    )
    refused(
        case(
            "lost pressure", fields={"0": fields["0"], "0.1": {"U": np.zeros(3), "alpha.water": 0}}
        ),
        "time 0.1 has no p_rgh",
    )
    refused(
        case(
            "thick",
            mesh={**mesh, "points": mesh["points"] + np.outer(mesh["points"][:, 0], [0, 0, 1])},
        ),
        "the cells extend in 3 directions",
    )
    other = case("other mesh", fields={**fields, "0.1": {**fields["0.1"], "p_rgh": np.zeros(5)}})
    with pytest.raises(
        InputError, match=r"0\.1/p_rgh: internalField has shape \(5,\); needed is \(6,\)"
    ):
        load_flow(other)
    path = case("no mesh")
    (path / "constant/polyMesh/owner").unlink()
    refused(path, "constant/polyMesh/owner is missing")
    path = case("parallel", fields={})
    (path / "processor0").mkdir()
    refused(path, "run reconstructPar")
    path = case("short mesh")
    foam(path / "constant/polyMesh/owner", "labelList", "owner", b"3\n(0 1 2)", "ascii")
    with pytest.raises(InputError, match="polyMesh has 29 faces, 3 owners and 7 neighbours"):
        load_flow(path)
    refused(
        case("cell of nowhere", mesh={**mesh, "owner": [2**31 - 1, *mesh["owner"][1:]]}),
        "names cell 2147483647, more than its 29 faces allow",
    )
    path = case("damaged")
    (path / "0.1" / "U").write_text(
        "FoamFile { format ascii; class volVectorField; }\n"
        "internalField nonuniform List<vector> 6((0 0"
    )
    with pytest.raises(InputError, match=r"0\.1/U is damaged"):
        load_flow(path)
    path = case(
        "NaN", fields={**fields, "0.1": {**fields["0.1"], "p_rgh": at(np.zeros(6), 4, np.nan)}}
    )
    refused(
        path,
        "1 values that are NaN, inf or too large; "
        "the first at trajectory 0, frame 1, node 4, field p_rgh",
    )


def test_a_mesh_that_moves_is_refused(tmp_path):
    path = openfoam(tmp_path / "case", "ascii", block_mesh(3, 2), flow_fields(6))
    (path / "0.1" / "polyMesh").mkdir()
    refused(path, "time 0.1 has a mesh of its own (polyMesh)")


@pytest.mark.parametrize("packed", [False, True])
def test_other_fields_of_the_cells_are_told(tmp_path, packed):
    fields = flow_fields(6)
    for values in fields.values():
        values["T"] = np.array(300.0)
    path = openfoam(tmp_path / "case", "ascii", block_mesh(3, 2), fields)
    file = path / "0.2" / "T"
    if packed:
        file.with_name("T.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    (path / "0.2" / "notes.txt").write_text("T is steady")
    assert "fields left out: T" in load_flow(path).provenance["notes"]


@pytest.mark.parametrize("arch", ["LSB;label=32;scalar=32", "MSB;label=32;scalar=64"])
def test_binary_numbers_that_would_be_misread_are_refused(tmp_path, arch):
    path = openfoam(tmp_path / "case", "binary", block_mesh(3, 2), flow_fields(6))
    file = path / "0.1" / "U"
    file.write_bytes(file.read_bytes().replace(b"LSB;label=32;scalar=64", arch.encode()))
    with pytest.raises(InputError, match=f"binary numbers of the kind {arch} are not read"):
        load_flow(path)


def test_the_reason_holds_no_bytes_of_a_binary_file(tmp_path):
    path = openfoam(tmp_path / "case", "binary", block_mesh(3, 2), flow_fields(6))
    file = path / "0.1" / "U"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read") as caught:
        load_flow(path)
    assert str(caught.value).isprintable()
