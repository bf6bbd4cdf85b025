"""Flows in files: exact round trips, checks before work begins, groups, triangles."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.cli import InputError
from final_project.data import groups_of, load_flow, write_flow
from final_project.mesh import triangulate
from final_project.raw import Reading
from tests.final_project.helpers import ARRAYS, FANS, SQUARE, areas, at, example, raw, refused

# --------------------------------------------------------------------------------------- own format


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
    """float64 fields, int parameters tiled in time, clockwise triangles, no optional keys."""
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
    parameters = np.array([[100.0, 1], [100, 2], [100, 3]])
    uneven = example(parameters=parameters, time=np.array([0.0, 1, 2, 4]))
    write_flow(tmp_path / "a.h5", uneven)
    refused(tmp_path / "a.h5", "time steps differ, 1 to 2; a model takes equal steps")

    flow = load_flow(tmp_path / "a.h5", least_frames=1)  # a state to start from may be read
    assert flow.provenance["notes"] == [
        "parameter Re is 100 in every trajectory",
        "time steps differ: 1 to 2",
    ]
    write_flow(tmp_path / "b.npz", flow)
    again = load_flow(tmp_path / "b.npz", least_frames=1)
    assert again.provenance["notes"] == flow.provenance["notes"]


def test_times_of_single_precision_are_equally_far_apart(tmp_path):
    time = np.float32(1000) + np.float32(0.01) * np.arange(4, dtype=np.float32)
    write_flow(tmp_path / "late.h5", example(time=time.astype(np.float64)))
    assert load_flow(tmp_path / "late.h5").step == pytest.approx(0.01, rel=0.01)


def test_fields_keep_the_digits_that_the_file_has(tmp_path):
    fields = 101_325 + 1e-4 * np.random.default_rng(0).normal(size=(3, 4, 5, 3))
    write_flow(tmp_path / "flow.h5", example(fields=fields))
    assert (load_flow(tmp_path / "flow.h5").fields == fields).all()


def test_what_was_read_is_told(tmp_path):
    write_flow(tmp_path / "flow.h5", example(parameters=np.array([[60.0, 1], [70, 2], [80, 3]])))
    path = tmp_path / "flow.h5"
    assert load_flow(path).provenance["read"] == (
        f"{path}: 3 trajectories of 4 frames (time 0 to 0.3, steps of 0.1) on 5 nodes; "
        "fields u, v, p; parameters Re 60 to 80, offset 1 to 3"
    )


@pytest.mark.parametrize("ending", [".h5", ".npz"])
def test_only_the_trajectories_frames_and_points_that_are_wanted(tmp_path, ending):
    path = tmp_path / f"flow{ending}"
    write_flow(path, example())
    flow = load_flow(path, reading=Reading(every=2, trajectories=2))
    assert (flow.fields == example().fields[:2, ::2]).all()
    assert flow.time.tolist() == [0.0, 0.2]
    assert (flow.parameters == example().parameters[:2]).all()
    refused(path, "is no regular grid", reading=Reading(thin=2))


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
        "1 values that are NaN, inf or too large; "
        "the first at trajectory 1, frame 2, node 3, field p",
    ),
    "inf": (
        {"fields": at(GOOD["fields"], (2, slice(None), 0, 0), np.inf)},
        "4 values that are NaN, inf or too large; "
        "the first at trajectory 2, frame 0, node 0, field u",
    ),
    "too large": (
        {"fields": at(GOOD["fields"].astype(np.float64), (0, 0, 0, 1), 1e39)},
        "too large; the first at trajectory 0, frame 0, node 0, field v",
    ),
    "NaN parameter": (
        {"parameters": at(GOOD["parameters"], (2, 1), np.nan)},
        "parameters holds 1 values that are NaN, inf or too large; "
        "the first at trajectory 2, parameter 1",
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
        {"coordinates": np.arange(15.0).reshape(5, 3)},
        "coordinates: the third coordinate varies",
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


# ------------------------------------------------------------------------------------ triangulation


@pytest.mark.parametrize("growth", [1.0, 1.25])
def test_triangulation_leaves_a_ring_open(growth):
    """Rings of 40 nodes: the triangles cover the polygonal ring, and nothing of its hole."""
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


# --------------------------------------------------------------------------------- field groups


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
