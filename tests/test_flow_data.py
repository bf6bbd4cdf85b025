"""Final project: flows from every kind of file, the checks before work begins, field groups, the split, and files for ParaView."""

from __future__ import annotations

import dataclasses
import gzip
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import h5py
import meshio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.cli import InputError
from final_project.data import Flow, groups_of, load_flow, split, triangulate, write_flow
from final_project.export import write_vtk

ARRAYS = ("fields", "coordinates", "parameters", "time", "triangles")
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.4, 0.5]])
FANS = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]], np.int32)


def example(seed: int = 0, **changes) -> Flow:
    """Three trajectories of four frames of u, v, p on five nodes."""
    random = np.random.default_rng(seed)
    flow = Flow(
        random.normal(size=(3, 4, 5, 3)).astype(np.float32),
        SQUARE,
        random.normal(size=(3, 2)),
        np.array([0.0, 0.1, 0.2, 0.3]),
        ("u", "v", "p"),
        ("Re", "offset"),
        FANS,
        {"generator": "here", "viscosity": 1e-3},
    )
    return dataclasses.replace(flow, **changes)


def raw(flow: Flow) -> dict:
    """The arrays of a flow as somebody's own script writes them."""
    names = {key: np.array(getattr(flow, key)) for key in ("field_names", "parameter_names")}
    return {key: getattr(flow, key) for key in ARRAYS} | names


def refused(path: Path, message: str, **options) -> None:
    with pytest.raises(InputError) as caught:
        load_flow(path, **options)
    text = str(caught.value)
    assert message in text
    assert str(path) in text
    assert "\n" not in text


# ------------------------------------------------------------------------------------------------------------ own format


@pytest.mark.parametrize("ending", [".h5", ".hdf5", ".npz"])
@pytest.mark.parametrize(
    "kind", ["all", "no parameters", "no triangles", "one field", "other letters"]
)
def test_round_trip_is_exact(tmp_path, ending, kind):
    flow = {
        "all": example(),
        "no parameters": example(parameters=np.zeros((3, 0)), parameter_names=()),
        "no triangles": example(triangles=np.zeros((0, 3), np.int32)),
        "one field": example(fields=example().fields[..., :1], field_names=("alpha",)),
        "other letters": example(
            field_names=("α", "v", "p [m²/s²]"), provenance={"notice": "Strömung"}
        ),
    }[kind]
    path = tmp_path / f"flow{ending}"
    write_flow(path, flow)
    again = load_flow(path)
    for key in ARRAYS:
        one, two = getattr(flow, key), getattr(again, key)
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        assert one.tobytes() == two.tobytes()
    assert (again.field_names, again.parameter_names) == (flow.field_names, flow.parameter_names)
    assert again.provenance.items() >= flow.provenance.items()
    assert again.provenance["path"] == path.name
    assert len(again.provenance["sha256"]) == 64
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_write_replaces_whole_files_only(tmp_path):
    path = tmp_path / "flow.h5"
    write_flow(path, example())
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_flow(path, example(provenance={"not JSON": object()}))
    assert path.read_bytes() == before
    with pytest.raises(InputError, match=r"\.h5, \.hdf5 or \.npz"):
        write_flow(tmp_path / "flow.csv", example())
    with pytest.raises(InputError, match="cannot be written"):
        write_flow(tmp_path / "nowhere" / "flow.h5", example())
    assert [item.name for item in tmp_path.iterdir()] == ["flow.h5"]


@pytest.mark.parametrize("ending", [".h5", ".npz"])
def test_what_a_users_script_writes(tmp_path, ending):
    """float64 fields, int parameters tiled along time, clockwise triangles, names as text of any length, no optional keys."""
    flow, path = example(), tmp_path / f"flow{ending}"
    arrays = {
        "fields": flow.fields.astype(np.float64),
        "coordinates": SQUARE.astype(np.float32),
        "time": np.arange(4),
        "parameters": np.tile([[[100]], [[200]], [[300]]], (1, 4, 1)),
        "triangles": FANS[:, ::-1].astype(np.int64),
    }
    if ending == ".npz":
        np.savez(path, field_names=np.array(flow.field_names), **arrays)
    else:
        with h5py.File(path, "w") as file:
            file["field_names"] = list(flow.field_names)
            for key, array in arrays.items():
                file[key] = array
    again = load_flow(path)
    assert (again.fields == flow.fields).all()
    assert again.fields.dtype == np.float32
    assert again.coordinates.dtype == again.parameters.dtype == again.time.dtype == np.float64
    assert again.parameters.tolist() == [[100], [200], [300]]
    assert again.parameter_names == ("parameter1",)
    assert (again.triangles == FANS).all()
    assert again.triangles.dtype == np.int32


def test_notes_name_constant_parameters_and_uneven_steps_once(tmp_path):
    write_flow(
        tmp_path / "a.h5",
        example(
            parameters=np.array([[100.0, 1], [100, 2], [100, 3]]), time=np.array([0.0, 1, 2, 4])
        ),
    )
    flow = load_flow(tmp_path / "a.h5")
    assert flow.provenance["notes"] == [
        "parameter Re is 100 in every trajectory",
        "time steps differ: 1 to 2",
    ]
    write_flow(tmp_path / "b.npz", flow)
    assert load_flow(tmp_path / "b.npz").provenance["notes"] == flow.provenance["notes"]


def at(array: np.ndarray, place, value) -> np.ndarray:
    """A copy with another value at a place."""
    array = array.copy()
    array[place] = value
    return array


GOOD = raw(example())
BAD = {
    "missing key": ({"time": None}, "the key time is missing"),
    "missing keys": (
        {"fields": None, "field_names": None},
        "the key fields, field_names is missing",
    ),
    "nodes": ({"coordinates": SQUARE[:4]}, "coordinates has 4 nodes, fields 5"),
    "trajectories": ({"parameters": np.zeros((2, 2))}, "parameters has 2 trajectories, fields 3"),
    "frames": ({"time": np.arange(5.0)}, "time has 5 frames, fields 4"),
    "tiled frames": ({"parameters": np.zeros((3, 5, 2))}, "parameters has 5 frames, fields 4"),
    "names": ({"field_names": np.array(["u", "v"])}, "fields has 3 fields, field_names 2"),
    "same names": ({"field_names": np.array(["u", "u", "p"])}, "names must differ"),
    "empty name": ({"field_names": np.array(["u", "", "p"])}, "names must differ"),
    "comma": ({"field_names": np.array(["u", "a,b", "p"])}, "no comma"),
    "numbers for names": ({"field_names": np.arange(3)}, "field_names must be a list of names"),
    "parameter names": (
        {"parameter_names": np.array(["Re"])},
        "parameter_names has 1 names, parameters 2 columns",
    ),
    "NaN": (
        {"fields": at(GOOD["fields"], (1, 2, 3, 2), np.nan)},
        "fields holds 1 values that are NaN, inf or too large; the first at trajectory 1, frame 2, node 3, field p",
    ),
    "inf": (
        {"fields": at(GOOD["fields"], (2, slice(None), 0, 0), np.inf)},
        "fields holds 4 values that are NaN, inf or too large; the first at trajectory 2, frame 0, node 0, field u",
    ),
    "too large": (
        {"fields": at(GOOD["fields"].astype(np.float64), (0, 0, 0, 1), 1e39)},
        "too large; the first at trajectory 0, frame 0, node 0, field v",
    ),
    "NaN parameter": (
        {"parameters": at(GOOD["parameters"], (2, 1), np.nan)},
        "parameters holds 1 values that are NaN, inf or too large; the first at trajectory 2, parameter 1",
    ),
    "changing parameter": (
        {"parameters": at(np.zeros((3, 4, 2)), (1, 2, 0), 1.0)},
        "parameters change in time",
    ),
    "inf node": ({"coordinates": at(SQUARE, (4, 0), np.inf)}, "coordinates holds 1 values"),
    "duplicate nodes": (
        {"coordinates": at(SQUARE, 4, SQUARE[2])},
        "nodes 2 and 4 are in the same place (2 nodes",
    ),
    "nearly duplicate": (
        {"coordinates": at(SQUARE, 4, SQUARE[1] + 1e-12)},
        "nodes 1 and 4 are in the same place (2 nodes",
    ),
    "collinear": ({"coordinates": np.outer(np.arange(5.0), [1, 2])}, "all 5 nodes lie on one line"),
    "one place": ({"coordinates": np.ones((5, 2))}, "all 5 nodes lie on one line"),
    "three axes": (
        {"coordinates": np.zeros((5, 3))},
        "coordinates has shape (5, 3); needed is (node, 2)",
    ),
    "two nodes": (
        {"coordinates": SQUARE[:2], "fields": GOOD["fields"][:, :, :2], "triangles": None},
        "coordinates has 2 nodes; at least 3",
    ),
    "no trajectory": (
        {"fields": GOOD["fields"][:0], "parameters": GOOD["parameters"][:0]},
        "at least one trajectory",
    ),
    "one time step": (
        {"fields": GOOD["fields"][:, :1], "time": np.zeros(1)},
        "one time step: nothing to predict",
    ),
    "repeated time": (
        {"time": np.array([0.0, 0.1, 0.1, 0.2])},
        "time does not increase at frame 2",
    ),
    "falling time": ({"time": np.array([0.0, 0.3, 0.2, 0.4])}, "time does not increase at frame 2"),
    "text": ({"fields": np.full((3, 4, 5, 3), "1.0")}, "fields holds <U3, not numbers"),
    "complex": ({"fields": GOOD["fields"].astype(complex)}, "fields holds complex128, not numbers"),
    "bool": ({"parameters": np.zeros((3, 2), bool)}, "parameters holds bool, not numbers"),
    "too few axes": (
        {"fields": GOOD["fields"][0]},
        "fields has shape (4, 5, 3); needed is (trajectory, time, node, field)",
    ),
    "triangle of nowhere": (
        {"triangles": FANS + 1},
        "triangles names nodes 1 to 5; there are 0 to 4",
    ),
    "triangle axes": ({"triangles": FANS[:, :2]}, "triangles is int32 (4, 2)"),
    "provenance": ({"provenance": np.array("[1")}, "provenance must be a JSON object"),
}


@pytest.mark.parametrize("ending", [".npz", ".h5"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_names_file_and_key(tmp_path, case, ending):
    changes, message = BAD[case]
    arrays = {key: value for key, value in (GOOD | changes).items() if value is not None}
    path = tmp_path / f"flow{ending}"
    if ending == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for key, value in arrays.items():
                file.create_dataset(
                    key,
                    data=value.astype(h5py.string_dtype()) if value.dtype.kind == "U" else value,
                )
    refused(path, message)


def test_one_frame_is_enough_for_a_state_to_start_from(tmp_path):
    write_flow(tmp_path / "state.h5", example(fields=example().fields[:, :1], time=np.zeros(1)))
    assert load_flow(tmp_path / "state.h5", least_frames=1).fields.shape == (3, 1, 5, 3)


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "flow.npz", **(GOOD | {"fields": np.array([{}, "x"], dtype=object)}))
    refused(tmp_path / "flow.npz", "allow_pickle=False")


def test_unreadable_files_and_unknown_kinds(tmp_path):
    refused(tmp_path / "none.h5", "does not exist")
    for ending in (".npz", ".h5"):
        path = tmp_path / f"flow{ending}"
        path.write_bytes(b"")
        refused(path, "cannot be read")
        path.write_bytes(b"not a flow at all " * 100)
        refused(path, "cannot be read")
        write_flow(path, example())
        path.write_bytes(path.read_bytes()[:-200])
        refused(path, "cannot be read")
    (tmp_path / "flow.csv").write_text("u,v\n")
    refused(tmp_path / "flow.csv", "is not a flow; allowed are .h5")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "is not a flow; allowed are .h5")
    write_flow(tmp_path / "flow.h5", example())
    refused(tmp_path / "flow.h5", "no cases to choose from", case="ahmed")
    write_flow(tmp_path / "flow.npz", example())
    refused(tmp_path / "flow.npz", "no cases to choose from", case="ahmed")
    with h5py.File(tmp_path / "flow.h5", "w") as file:
        file.create_group("fields")
    refused(tmp_path / "flow.h5", "fields is a group")


def test_a_flipped_bit_in_the_fields_is_found(tmp_path):
    for ending in (".npz", ".h5"):
        path = tmp_path / f"flow{ending}"
        write_flow(
            path,
            example(
                fields=np.random.default_rng(0).normal(size=(3, 200, 5, 3)).astype(np.float32),
                time=np.arange(200.0),
            ),
        )
        content = bytearray(path.read_bytes())
        if ending == ".npz":
            place = content.index(b"fields.npy") + 2000
        else:
            with h5py.File(path) as file:
                place = file["fields"].id.get_chunk_info(7).byte_offset + 40
        content[place] ^= 1
        path.write_bytes(content)
        refused(path, "cannot be read")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, tuple[Path, bytes]]:
    folder = tmp_path_factory.mktemp("fuzz")
    found = {}
    for ending in (".npz", ".h5"):
        write_flow(folder / f"good{ending}", example())
        found[ending] = (folder / f"damaged{ending}", (folder / f"good{ending}").read_bytes())
    return found


@pytest.mark.parametrize("ending", [".npz", ".h5"])
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    end=st.none() | st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4),
)
def test_damage_gives_one_line_or_a_valid_flow(written, ending, end, flips):
    path, content = written[ending]
    damaged = bytearray(content if end is None else content[: int(end * len(content))])
    for place, change in flips:
        if damaged:
            damaged[int(place * len(damaged))] ^= change
    path.write_bytes(damaged)
    flow = error = None
    try:
        flow = load_flow(path)
    except InputError as caught:
        error = str(caught)
    if flow is None:
        assert len(error.splitlines()) == 1
    else:
        assert np.isfinite(flow.fields).all()
        assert flow.fields.shape == (
            len(flow.parameters),
            len(flow.time),
            len(flow.coordinates),
            len(flow.field_names),
        )


# ------------------------------------------------------------------------------------------------------- grid, official code


def test_grid_nodes_row_by_row_and_triangles_of_its_area(tmp_path):
    x, y = np.array([0.0, 1.0, 3.0, 4.0]), np.array([0.0, 2.0, 3.0])
    fields = np.random.default_rng(0).normal(size=(2, 3, 3, 4, 2)).astype(np.float32)
    common = {
        "parameters": np.zeros((2, 0)),
        "time": np.arange(3.0),
        "field_names": np.array(["u", "v"]),
    }
    np.savez(tmp_path / "grid.npz", fields=fields, x=x, y=y, **common)
    flow = load_flow(tmp_path / "grid.npz")
    for row in range(3):
        for column in range(4):
            assert flow.coordinates[4 * row + column].tolist() == [x[column], y[row]]
            assert (flow.fields[:, :, 4 * row + column] == fields[:, :, row, column]).all()
    assert len(flow.triangles) == 2 * 3 * 2
    assert areas(flow.coordinates, flow.triangles).min() > 0
    assert areas(flow.coordinates, flow.triangles).sum() == pytest.approx(12)
    np.savez(
        tmp_path / "grid.npz", fields=fields[:, :, :, ::-1], x=x[::-1], y=y, **common
    )  # a mirrored axis is still counter-clockwise
    assert (
        areas(
            load_flow(tmp_path / "grid.npz").coordinates, load_flow(tmp_path / "grid.npz").triangles
        ).min()
        > 0
    )
    np.savez(tmp_path / "grid.npz", fields=fields, x=y, y=x, **common)
    refused(tmp_path / "grid.npz", "fields has shape (2, 3, 3, 4, 2), x (3,), y (4,)")
    np.savez(tmp_path / "grid.npz", x=x, y=y, **common)
    refused(tmp_path / "grid.npz", "the key fields is missing")
    np.savez(tmp_path / "grid.npz", fields=fields, x=x, y=np.array(["a", "b", "c"]), **common)
    refused(tmp_path / "grid.npz", "not numbers")


def official(folder: Path, fields=None, coordinates=None, parameters=None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in (
        ("field_data", fields),
        ("coordinates", coordinates),
        ("input_data", parameters),
    ):
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    return folder


def test_official_codes_folder(tmp_path):
    flow = example()
    tiled = np.repeat(flow.parameters[:, None], 4, axis=1)
    folder = official(tmp_path / "CF", flow.fields, np.vstack([SQUARE.T, np.zeros(5)]), tiled)
    again = load_flow(folder)
    assert (again.fields == flow.fields).all()
    assert (again.coordinates == SQUARE).all()
    assert (again.parameters == flow.parameters).all()
    assert again.time.tolist() == [0, 1, 2, 3]
    assert again.field_names == ("u", "v", "p")
    assert any("taken as u, v, p" in note for note in again.provenance["notes"])
    four = np.concatenate([flow.fields, flow.fields[..., :1]], -1)
    assert load_flow(official(folder, four, SQUARE.T)).field_names == ("u", "v", "f3", "f4")
    assert load_flow(official(folder, four[..., :2])).field_names == ("u", "v")
    assert load_flow(official(folder, four[..., :1])).field_names == ("f1",)


def test_official_codes_folder_refused(tmp_path):
    flow = example()
    tiled = np.repeat(flow.parameters[:, None], 4, axis=1)
    folder = official(tmp_path / "CF", flow.fields, SQUARE.T)
    refused(folder, "input_data.npy is missing")
    refused(
        official(folder, parameters=flow.parameters),
        "needed are (trajectory, time, node, field), (2 or 3, node)",
    )
    refused(official(folder, coordinates=SQUARE, parameters=tiled), "coordinates.npy (5, 2)")
    refused(
        official(folder, coordinates=np.vstack([SQUARE.T, np.arange(5)])),
        "the third coordinate varies",
    )
    refused(official(folder, coordinates=SQUARE.T[:, :4]), "coordinates has 4 nodes, fields 5")
    refused(
        official(folder, coordinates=SQUARE.T, parameters=at(tiled, (0, 1, 0), 9)),
        "parameters change in time",
    )
    np.save(folder / "field_data.npy", np.array([None]))
    with pytest.raises(InputError, match=r"field_data\.npy cannot be read .*allow_pickle=False"):
        load_flow(folder)


# --------------------------------------------------------------------------------------------------------------- OpenFOAM


def block_mesh(
    columns: int, rows: int, hole: set[tuple[int, int]] = frozenset(), plane: str = "xy"
) -> dict:
    """A mesh one cell thick of (columns, rows) boxes, bent to trapezia, without those in `hole`: faces in OpenFOAM's order, inner ones first."""
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
    head = f"FoamFile\n{{\n version 2.0; format {encoding.rstrip('46')}; {arch}class {kind}; object {name};\n}}\n".encode()
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
        assert (flow.fields[0, frame] == np.column_stack(want).astype(np.float32)).all()
    assert len(flow.triangles) == 2 * 2 * 1
    assert areas(flow.coordinates, flow.triangles).min() > 0
    assert f"components x and {plane[1]} of U" in flow.provenance["notes"][0]


def test_openfoam_triangles_leave_a_hole_open(tmp_path):
    """Round the missing middle of 3 x 3 cells there are eight centres; only the four corner cells have two neighbours with a common point."""
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
        "FoamFile { format ascii; class volVectorField; }\ninternalField nonuniform List<vector> 6((0 0"
    )
    with pytest.raises(InputError, match=r"0\.1/U is damaged"):
        load_flow(path)
    path = case(
        "NaN", fields={**fields, "0.1": {**fields["0.1"], "p_rgh": at(np.zeros(6), 4, np.nan)}}
    )
    refused(
        path,
        "fields holds 1 values that are NaN, inf or too large; the first at trajectory 0, frame 1, node 4, field p_rgh",
    )


# ----------------------------------------------------------------------------------------------------------- public data sets


@pytest.mark.realdata
@pytest.mark.skipif("ADL_DATA_DIR" not in os.environ, reason="ADL_DATA_DIR names no folder")
def test_public_data_sets():
    folder = Path(os.environ.get("ADL_DATA_DIR", "."))
    flow = load_flow(folder / "cylinder_re100_cloud_201x1122.npz")
    assert flow.fields.shape == (1, 201, 1122, 2)
    assert (flow.field_names, flow.parameter_names, flow.parameters.tolist()) == (
        ("u", "v"),
        ("Re",),
        [[100.0]],
    )
    assert flow.time[[0, -1]].tolist() == [150, 170]
    flow = load_flow(folder / "dambreak_openfoam_3cases.npz")
    assert flow.fields.shape == (2, 21, 2268, 4)
    assert flow.field_names == ("u", "v", "alpha", "p_rgh")
    assert flow.provenance["notes"][0] == "cases: ahmed, luis"
    assert (
        flow.fields[1] == load_flow(folder / "dambreak_openfoam_3cases.npz", case="luis").fields[0]
    ).all()
    assert load_flow(folder / "dambreak_openfoam_3cases.npz", case="luis_mod").fields.shape == (
        1,
        21,
        1924,
        4,
    )
    refused(
        folder / "dambreak_openfoam_3cases.npz",
        "has no case other; it has ahmed, luis, luis_mod",
        case="other",
    )


def test_public_data_sets_by_their_keys(tmp_path):
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "cloud.npz",
        uv=random.random((4, 5, 2)),
        xy=SQUARE,
        t=np.arange(4.0),
        Cd=np.zeros(9),
    )
    flow = load_flow(tmp_path / "cloud.npz")
    assert (flow.fields.shape, flow.field_names, flow.parameters.tolist()) == (
        (1, 4, 5, 2),
        ("u", "v"),
        [[100.0]],
    )
    arrays = {}
    for name, nodes in (("wide", 5), ("ahmed", 4), ("luis", 4)):
        arrays |= {
            f"{name}_U": random.random((3, nodes, 2)),
            f"{name}_alpha": random.random((3, nodes)),
            f"{name}_p_rgh": random.random((3, nodes)),
            f"{name}_t": np.arange(3.0),
            f"{name}_xy": SQUARE[:nodes],
        }
    np.savez(tmp_path / "dam.npz", **arrays)
    flow = load_flow(tmp_path / "dam.npz")
    assert flow.fields.shape == (2, 3, 4, 4)
    for row, name in enumerate(("ahmed", "luis")):
        want = np.concatenate(
            [
                arrays[f"{name}_U"],
                arrays[f"{name}_alpha"][..., None],
                arrays[f"{name}_p_rgh"][..., None],
            ],
            -1,
        )
        assert (flow.fields[row] == want.astype(np.float32)).all()
    assert load_flow(tmp_path / "dam.npz", case="wide").fields.shape == (1, 3, 5, 4)
    refused(tmp_path / "dam.npz", "has no case other; it has wide, ahmed, luis", case="other")
    del arrays["luis_p_rgh"]
    np.savez(tmp_path / "dam.npz", **arrays)
    refused(tmp_path / "dam.npz", "the key luis_p_rgh is missing")
    arrays["luis_p_rgh"] = np.zeros((3, 2))
    np.savez(tmp_path / "dam.npz", **arrays)
    refused(tmp_path / "dam.npz", "cannot be read")


# ------------------------------------------------------------------------------------------------------------ triangulation


def areas(coordinates: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Signed areas, positive counter-clockwise."""
    a, b, c = (coordinates[triangles[:, corner]] for corner in range(3))
    return (
        (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    ) / 2


@pytest.mark.parametrize("growth", [1.0, 1.25])
def test_triangulation_leaves_a_ring_open(growth):
    """Rings of 40 nodes with equal or growing distances: the triangles cover the polygonal ring, and nothing of its hole."""
    angles = 2 * np.pi * np.arange(40) / 40
    gaps = 0.08 * growth ** np.arange(12)
    radii = 0.5 + np.concatenate([[0], np.cumsum(gaps)])
    coordinates = np.concatenate(
        [radius * np.stack([np.cos(angles), np.sin(angles)], -1) for radius in radii]
    )
    triangles = triangulate(coordinates)
    ring = 20 * np.sin(2 * np.pi / 40) * (radii[-1] ** 2 - radii[0] ** 2)
    found = areas(coordinates, triangles)
    assert found.min() > 0
    assert found.sum() == pytest.approx(ring, rel=1e-9)
    assert triangles.dtype == np.int32
    assert sorted(np.unique(triangles)) == list(range(len(coordinates)))


def test_triangulation_covers_stretched_grids_and_ignores_scale():
    x, y = np.meshgrid(np.arange(12.0), np.arange(9.0) / 5)
    coordinates = np.stack([x.ravel(), y.ravel()], -1)
    for scale in (1e-6, 1.0, 1e6):
        assert areas(scale * coordinates, triangulate(scale * coordinates)).sum() == pytest.approx(
            scale**2 * 11 * 8 / 5
        )


def test_triangulation_of_the_smallest_and_of_a_line():
    assert sorted(triangulate(SQUARE[:3])[0]) == [0, 1, 2]
    with pytest.raises(InputError, match="no triangulation"):
        triangulate(np.outer(np.arange(4.0), [1, 1]))


# ------------------------------------------------------------------------------------------------------- groups and split


def test_groups():
    assert groups_of(("u", "v", "p")) == ((0, 1), (2,))
    assert groups_of(("u", "v", "alpha", "p")) == ((0, 1), (2,), (3,))
    assert groups_of(("p", "v", "T", "u")) == ((0,), (2,), (3, 1))
    assert groups_of(("alpha",)) == ((0,),)
    assert groups_of(("u", "p")) == ((0,), (1,))
    assert groups_of(("u", "v", "p"), "p; v , u") == ((2,), (1, 0))
    assert groups_of(("u", "v", "p"), "u,v,p") == ((0, 1, 2),)


@pytest.mark.parametrize("wanted", ["u,v;q", "u,v", "u,v;p;p", "u,u;p", "", "u,v;p;"])
def test_groups_refused(wanted):
    with pytest.raises(InputError, match="each of the fields u, v, p must stand in one group"):
        groups_of(("u", "v", "p"), wanted)


PARTS = ("train", "validation", "interpolation", "gap", "extrapolation")


def cases(count: int, seed: int = 0) -> np.ndarray:
    """Parameters (N, 2): different Reynolds numbers in no order, and another column."""
    random = np.random.default_rng(seed)
    return np.column_stack([random.permutation(300 + 7.0 * np.arange(count)), random.random(count)])


@given(count=st.integers(4, 130), seed=st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_split_is_disjoint_covers_all_and_blocks_the_gap(count, seed):
    parameters = cases(count, seed)
    found = split(parameters, seed)
    rows = {name: getattr(found, name) for name in PARTS}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(count))
    assert all((np.diff(part) > 0).all() for part in rows.values())
    assert all(len(rows[name]) >= 1 for name in PARTS[:3])
    reynolds = {name: parameters[part, 0] for name, part in rows.items()}
    seen = np.concatenate([reynolds[name] for name in PARTS[:3]])
    assert seen.min() < reynolds["interpolation"].min()
    assert reynolds["interpolation"].max() < seen.max()
    if count < 12:
        assert len(rows["gap"]) == len(rows["extrapolation"]) == 0
        assert "no gap" in found.note
        return
    assert found.note == ""
    ranks = {name: np.sort((part - 300) / 7) for name, part in reynolds.items()}
    block = round(0.1 * count)
    assert ranks["extrapolation"].tolist() == list(range(count - block, count))
    assert (np.diff(ranks["gap"]) == 1).all()
    assert len(ranks["gap"]) == block
    assert abs(ranks["gap"].mean() - 0.55 * count) <= 1
    rest = count - 2 * block
    assert (len(rows["interpolation"]), len(rows["validation"])) == (
        max(1, round(0.2 * rest)),
        max(1, round(0.12 * rest)),
    )


def test_split_of_forty_and_of_four():
    assert [len(getattr(split(cases(40), 0), name)) for name in PARTS] == [22, 4, 6, 4, 4]
    assert [len(getattr(split(cases(4), 0), name)) for name in PARTS] == [2, 1, 1, 0, 0]


def test_split_depends_on_values_and_seed_only():
    parameters = cases(40)
    found = split(parameters, 3)
    order = np.random.default_rng(9).permutation(40)
    shuffled = split(parameters[order], 3)
    for name in PARTS:
        assert (getattr(split(parameters, 3), name) == getattr(found, name)).all()
        assert sorted(order[getattr(shuffled, name)]) == getattr(found, name).tolist()
    poisoned = split(
        np.column_stack([2 * parameters[:, 0], np.full(40, 1e9)]), 3
    )  # only the order of the first parameter counts
    assert all((getattr(poisoned, name) == getattr(found, name)).all() for name in PARTS)
    assert any(
        set(split(parameters, seed).interpolation) != set(found.interpolation) for seed in range(3)
    )


def test_split_never_divides_trajectories_of_one_value():
    parameters = np.repeat(np.arange(15.0), 4)[:, None]
    found = split(parameters, 0)
    parts = [
        set(parameters[rows, 0])
        for rows in (
            np.concatenate([found.train, found.validation, found.interpolation]),
            found.gap,
            found.extrapolation,
        )
    ]
    assert parts[2] == {13.0, 14.0}
    assert len(parts[1]) == 2
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]


@pytest.mark.parametrize(
    "parameters",
    [np.zeros((20, 0)), np.full((20, 1), 100.0), np.repeat([[1.0], [2.0]], 10, axis=0)],
)
def test_split_without_a_varied_parameter_is_random_and_says_so(parameters):
    found = split(parameters, 0)
    assert "the split is random" in found.note
    assert [len(getattr(found, name)) for name in PARTS] == [14, 2, 4, 0, 0]


@pytest.mark.parametrize("count", range(4))
def test_split_of_too_few(count):
    with pytest.raises(InputError, match=f"{count} trajectories are too few"):
        split(cases(count), 0)


# --------------------------------------------------------------------------------------------------------------- ParaView


@pytest.mark.parametrize("triangles", [FANS, np.zeros((0, 3), np.int32)])
def test_vtk_files_read_back(tmp_path, triangles):
    flow = example(
        triangles=triangles,
        field_names=("u", "v", "p"),
        time=np.array([0.0, 0.1, 0.30000000000000004, 1e-5 + 1]),
    )
    index = write_vtk(tmp_path / "new" / "vtk", flow, 2)
    sets = ET.parse(index).getroot().findall("Collection/DataSet")
    assert [float(entry.get("timestep")) for entry in sets] == flow.time.tolist()
    assert sorted(item.name for item in index.parent.iterdir()) == sorted(
        [index.name, *(entry.get("file") for entry in sets)]
    )
    for frame, entry in enumerate(sets):
        mesh = meshio.read(index.parent / entry.get("file"))
        assert (mesh.points == np.column_stack([SQUARE, np.zeros(5)])).all()
        found = mesh.cells_dict["triangle"]
        assert sorted(sorted(triangle) for triangle in found.tolist()) == sorted(
            sorted(triangle) for triangle in FANS.tolist()
        )
        assert areas(SQUARE, found).min() > 0
        assert set(mesh.point_data) == {"u", "v", "p", "velocity"}
        for number, name in enumerate(flow.field_names):
            assert mesh.point_data[name].dtype == np.float32
            assert (mesh.point_data[name] == flow.fields[2, frame, :, number]).all()
        assert (mesh.point_data["velocity"][:, :2] == flow.fields[2, frame, :, :2]).all()
        assert (mesh.point_data["velocity"][:, 2] == 0).all()


def test_vtk_without_velocity_and_refused(tmp_path):
    flow = example(fields=example().fields[..., :1], field_names=('α < "b" & c',))
    index = write_vtk(tmp_path / "vtk", flow)
    assert set(meshio.read(index.parent / "frame_0000.vtu").point_data) == {'α < "b" & c'}
    for trajectory in (-1, 3):
        with pytest.raises(
            InputError, match=f"trajectory {trajectory} does not exist; the flow has 0 to 2"
        ):
            write_vtk(tmp_path / "vtk", flow, trajectory)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_vtk(tmp_path / "file", flow)
