"""Flows in other formats: regular grids, the published code's folder, the two public data sets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from common.cli import InputError
from final_project.data import load_flow
from tests.final_project.helpers import SQUARE, areas, at, example, raw, refused

# ------------------------------------------------------------------------------ grid, official code


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


# --------------------------------------------------------------------------------- public data sets


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
        assert (flow.fields[row] == want).all()
    assert load_flow(tmp_path / "dam.npz", case="wide").fields.shape == (1, 3, 5, 4)
    refused(tmp_path / "dam.npz", "has no case other; it has wide, ahmed, luis", case="other")
    del arrays["luis_p_rgh"]
    np.savez(tmp_path / "dam.npz", **arrays)
    refused(tmp_path / "dam.npz", "the key luis_p_rgh is missing")
    arrays["luis_p_rgh"] = np.zeros((3, 2))
    np.savez(tmp_path / "dam.npz", **arrays)
    refused(tmp_path / "dam.npz", "cannot be read")


# ------------------------------------------------------------------------------ own format, relaxed


def test_names_as_bytes_and_a_flat_third_coordinate(tmp_path):
    arrays = raw(example())
    flat = np.column_stack([SQUARE, np.full(5, 7.0)])
    names = np.array([b"u", b"v", b"p"])
    np.savez(tmp_path / "a.npz", **arrays | {"coordinates": flat, "field_names": names})
    flow = load_flow(tmp_path / "a.npz")
    assert flow.field_names == ("u", "v", "p")
    assert flow.coordinates.tolist() == SQUARE.tolist()
    flat[2, 2] = 7.1
    np.savez(tmp_path / "a.npz", **arrays | {"coordinates": flat})
    refused(tmp_path / "a.npz", "the third coordinate varies")


def test_a_file_without_any_key_names_each_once(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros(3))
    refused(tmp_path / "a.npz", "holds image; needed are fields, coordinates")
