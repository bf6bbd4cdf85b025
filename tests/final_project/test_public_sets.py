"""Files that others publish: PDEBench, The Well, grids, VTK series and folders of cases."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.cli import InputError
from final_project.data import Flow, load_flow, write_flow
from final_project.export import write_vtk
from final_project.raw import Reading
from tests.final_project.helpers import SQUARE, example, refused
from tests.final_project.test_openfoam import block_mesh, flow_fields, openfoam

N, T, X, Y = 3, 4, 5, 6
XS = np.linspace(0, 1, X)
YS = np.linspace(0, 2, Y)
TIMES = 0.1 * np.arange(T)


def block(number: int) -> np.ndarray:
    """A field float32 (N, T, X, Y) whose values tell where they belong."""
    n, t, i, j = np.meshgrid(*map(np.arange, (N, T, X, Y)), indexing="ij")
    return (10_000 * number + 1000 * n + 100 * t + 10 * i + j).astype(np.float32)


def at_nodes(field: np.ndarray) -> np.ndarray:
    """(N, T, X, Y) -> (N, T, P): nodes row by row from below."""
    return np.swapaxes(field, 2, 3).reshape(*field.shape[:2], -1)


def check_grid(flow: Flow, names: tuple[str, ...], blocks: list[np.ndarray]) -> None:
    """The flow has these fields (N, T, X, Y) on the grid of XS and YS."""
    assert flow.field_names == names
    assert (flow.fields == np.stack([at_nodes(each) for each in blocks], -1)).all()
    assert flow.coordinates[1].tolist() == [XS[1], YS[0]]
    assert flow.coordinates[X].tolist() == [XS[0], YS[1]]
    assert len(flow.triangles) == 2 * (X - 1) * (Y - 1)
    assert flow.time == pytest.approx(TIMES)


# ------------------------------------------------------------------------------------- PDEBench


def compressible(path: Path, times: np.ndarray = TIMES) -> Path:
    with h5py.File(path, "w") as file:
        for number, key in enumerate(("Vx", "Vy", "density", "pressure")):
            file[key] = block(number)
        file["x-coordinate"] = XS
        file["y-coordinate"] = YS
        file["t-coordinate"] = times
    return path


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("Vy", None, "Vy is missing; a two-dimensional set has Vx, Vy, density, pressure"),
        ("Vy", block(1)[:2], "Vy has shape (2, 4, 5, 6), Vx (3, 4, 5, 6)"),
        ("t-coordinate", None, "t-coordinate is missing; a two-dimensional set has x-coordinate"),
    ],
)
def test_pdebench_sets_that_are_not_whole(tmp_path, key, values, message):
    with h5py.File(compressible(tmp_path / "2D_CFD.hdf5"), "a") as file:
        del file[key]
        if values is not None:
            file[key] = values
    refused(tmp_path / "2D_CFD.hdf5", message)


@pytest.mark.parametrize("more", [0, 1])
def test_pdebench_compressible_flow_with_times_of_frames_or_of_their_edges(tmp_path, more):
    path = compressible(tmp_path / "2D_CFD.hdf5", 0.1 * np.arange(T + more))
    flow = load_flow(path)
    check_grid(flow, ("u", "v", "density", "pressure"), [block(number) for number in range(4)])
    assert flow.parameters.shape == (N, 0)
    assert flow.fields.dtype == np.float32


def test_pdebench_thinned(tmp_path):
    reading = Reading(thin=2, every=2, trajectories=2)
    flow = load_flow(compressible(tmp_path / "2D_CFD.hdf5"), reading=reading)
    thin = block(3)[:2, ::2, ::2, ::2]
    assert (flow.fields[..., 3] == at_nodes(thin)).all()
    assert flow.time == pytest.approx(TIMES[::2])
    assert len(flow.coordinates) == 3 * 3


def test_pdebench_tensor(tmp_path):
    path = tmp_path / "2D_diffusion.hdf5"
    with h5py.File(path, "w") as file:
        file["tensor"] = block(0)
        file["x-coordinate"], file["y-coordinate"], file["t-coordinate"] = XS, YS, TIMES
    check_grid(load_flow(path), ("tensor",), [block(0)])

    with h5py.File(path, "w") as file:  # Darcy flow is steady
        file["tensor"], file["nu"] = block(0)[:, :1], block(1)[:, 0]
        file["x-coordinate"], file["y-coordinate"] = XS, YS
    refused(path, "one time step: nothing to predict")
    with h5py.File(path, "w") as file:
        file["tensor"], file["x-coordinate"], file["t-coordinate"] = block(0)[..., 0], XS, TIMES
    refused(path, "only two-dimensional sets (trajectory, time, x, y) are read")


@pytest.mark.parametrize(
    ("count", "names"), [(2, ("activator", "inhibitor")), (1, ("h",)), (3, ("f1", "f2", "f3"))]
)
def test_pdebench_groups_of_trajectories(tmp_path, count, names):
    blocks = [block(number) for number in range(count)]
    with h5py.File(tmp_path / "2D.h5", "w") as file:
        for row in range(N):
            group = file.create_group(f"{row:04d}")
            group["data"] = np.stack([each[row] for each in blocks], -1)  # (T, X, Y, F)
            group["grid/x"], group["grid/y"], group["grid/t"] = XS, YS, TIMES
    check_grid(load_flow(tmp_path / "2D.h5"), names, blocks)


def test_pdebench_incompressible_flow(tmp_path):
    path = tmp_path / "ns_incom_inhom_2d.h5"
    with h5py.File(path, "w") as file:
        file["velocity"] = np.stack([block(0), block(1)], -1)
        file["particles"] = block(2)[..., None]
        file["force"] = np.zeros((N, X, Y, 2))
        file["t"] = np.tile(TIMES, (N, 1))
    flow = load_flow(path)
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["velocity"], file["particles"] = np.stack([block(0), block(1)], -1), block(2)
        file["t"] = TIMES
    refused(tmp_path / "flat.h5", "particles has shape (3, 4, 5, 6); needed is (N, T, X, Y, 1)")
    assert flow.field_names == ("u", "v", "particles")
    wanted = np.stack([at_nodes(block(number)) for number in range(3)], -1)
    assert (flow.fields == wanted).all()
    assert flow.coordinates[0] == pytest.approx([0.5 / X, 0.5 / Y])
    assert "force is left out" in flow.provenance["read"]


# ------------------------------------------------------------------------------------- The Well


def well(path: Path, rayleigh: float = 1e6, **changes: object) -> Path:
    """A file of The Well with a scalar, a velocity, a steady field, a tensor and three scalars."""

    def put(group: h5py.Group, name: str, values: np.ndarray, sample: bool, time: bool) -> None:
        group[name] = values
        group[name].attrs.update(sample_varying=sample, time_varying=time, dim_varying=[True, True])

    with h5py.File(path, "w") as file:
        file.attrs.update(grid_type="cartesian", n_spatial_dims=2, n_trajectories=N)
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        dimensions["x"], dimensions["y"] = XS.astype("f4"), YS.astype("f4")
        dimensions["time"] = TIMES.astype("f4")
        put(file.create_group("t0_fields"), "buoyancy", block(0), True, True)
        put(file["t0_fields"], "mask", block(0)[0, 0], False, False)
        put(
            file.create_group("t1_fields"),
            "velocity",
            np.stack([block(1), block(2)], -1),
            True,
            True,
        )
        put(file.create_group("t2_fields"), "stress", np.zeros((N, T, X, Y, 2, 2)), True, True)
        scalars = file.create_group("scalars")
        put(scalars, "Rayleigh", np.array(rayleigh), False, False)
        put(scalars, "amplitude", np.array([0.1, 0.2, 0.3]), True, False)
        put(scalars, "inflow", np.zeros(T), False, True)
        for key, value in changes.items():
            file.attrs[key] = value
    return path


def test_the_well(tmp_path):
    flow = load_flow(well(tmp_path / "rayleigh_benard.hdf5"))
    assert flow.field_names == ("u", "v", "buoyancy")
    wanted = np.stack([at_nodes(block(number)) for number in (1, 2, 0)], -1)
    assert (flow.fields == wanted).all()
    assert flow.coordinates[X] == pytest.approx([XS[0], YS[1]])
    assert flow.parameter_names == ("Rayleigh", "amplitude")
    assert flow.parameters == pytest.approx(np.array([[1e6, 0.1], [1e6, 0.2], [1e6, 0.3]]))
    for told in ("constant in time and left out: mask", "stress", "inflow"):
        assert told in flow.provenance["read"]
    assert flow.step == pytest.approx(0.1)


def test_a_folder_of_the_well_is_one_set(tmp_path):
    for number in (1, 2):
        well(tmp_path / f"part{number}.hdf5", rayleigh=number * 1e6)
    flow = load_flow(tmp_path)
    assert flow.fields.shape == (2 * N, T, X * Y, 3)
    assert flow.parameters[:, 0].tolist() == [1e6] * N + [2e6] * N
    assert len(load_flow(tmp_path, reading=Reading(trajectories=N + 1)).fields) == N + 1


def test_the_well_refused(tmp_path):
    with h5py.File(well(tmp_path / "c.hdf5"), "a") as file:
        times = file["dimensions/time"][()]
        del file["dimensions/time"]
        file["dimensions/time"] = times * np.arange(1, N + 1)[:, None]
    refused(tmp_path / "c.hdf5", "time differs between trajectories")
    (tmp_path / "set" / "data" / "train").mkdir(parents=True)
    well(tmp_path / "set" / "data" / "train" / "a.hdf5")
    refused(tmp_path / "set", "data/train; give the folder that holds them")
    refused(well(tmp_path / "a.hdf5", grid_type="spherical"), "a spherical grid of x, y")
    with h5py.File(well(tmp_path / "b.hdf5"), "a") as file:
        file["dimensions"].attrs["spatial_dims"] = ["x", "y", "z"]
    refused(tmp_path / "b.hdf5", "grid of x, y, z")


def swapped(item: h5py.Dataset, last: bool) -> None:
    """Stores a field with y before x, and with a vector's y component first."""
    values = np.swapaxes(item[()], 2, 3)
    attributes, name, group = dict(item.attrs), item.name, item.parent
    del group[name]
    group[name] = values[..., ::-1] if last else values
    group[name].attrs.update(attributes)


def test_the_well_with_y_before_x_is_the_same_flow(tmp_path):
    wanted = load_flow(well(tmp_path / "x.hdf5"))
    with h5py.File(well(tmp_path / "y.hdf5"), "a") as file:
        swapped(file["t0_fields/buoyancy"], last=False)
        swapped(file["t1_fields/velocity"], last=True)
        file["dimensions"].attrs["spatial_dims"] = ["y", "x"]
    flow = load_flow(tmp_path / "y.hdf5")
    assert flow.field_names == wanted.field_names
    assert (flow.fields == wanted.fields).all()
    assert (flow.coordinates == wanted.coordinates).all()


@pytest.mark.parametrize("kept", [True, False])
def test_the_well_with_a_field_that_varies_along_y_alone(tmp_path, kept):
    with h5py.File(well(tmp_path / "a.hdf5"), "a") as file:
        stripes = block(5)[:, :, :1] if kept else block(5)[:, :, 0]
        file["t0_fields/profile"] = stripes
        attributes = {"sample_varying": True, "time_varying": True, "dim_varying": [False, True]}
        file["t0_fields/profile"].attrs.update(attributes)
    flow = load_flow(tmp_path / "a.hdf5")
    wanted = at_nodes(np.broadcast_to(block(5)[:, :, :1], (N, T, X, Y)))
    assert (flow.fields[..., flow.field_names.index("profile")] == wanted).all()


# --------------------------------------------------------------------------------- MeshGraphNets


def mesh_graphs(path: Path, name: str = "{}", tiled: bool = True, move: float = 0.0) -> Path:
    """Four trajectories of `example` on one mesh, or with `move` on four."""
    flow = example()
    with h5py.File(path, "w") as file:
        for row in (10, 9, 1, 0):
            group = file.create_group(name.format(row))
            nodes = flow.coordinates + row * move
            group["mesh_pos"] = np.tile(nodes, (4, 1, 1)) if tiled else nodes
            group["cells"] = np.tile(flow.triangles, (4, 1, 1)) if tiled else flow.triangles
            group["node_type"] = np.zeros((4, 5, 1), np.int32)
            group["velocity"] = flow.fields[row % 3][..., :2]
            group["pressure"] = flow.fields[row % 3][..., 2:]
    return path


@pytest.mark.parametrize("name", ["{}", "trajectory_{}"])
@pytest.mark.parametrize("tiled", [True, False])
def test_mesh_graph_nets_on_one_mesh(tmp_path, name, tiled):
    flow = load_flow(mesh_graphs(tmp_path / "train.h5", name, tiled))
    assert flow.field_names == ("u", "v", "p")
    assert (flow.fields == example().fields[[0, 1, 0, 1]]).all()  # rows 0, 1, 9, 10
    assert flow.coordinates.tolist() == SQUARE.tolist()
    assert len(flow.triangles) == 4
    assert "the file names no times" in flow.provenance["read"]
    thin = load_flow(tmp_path / "train.h5", reading=Reading(every=3, trajectories=1))
    assert (thin.fields == example().fields[:1, ::3]).all()
    assert thin.time.tolist() == [0, 3]


def test_mesh_graph_nets_refused(tmp_path):
    refused(mesh_graphs(tmp_path / "a.h5", move=0.1), "trajectory /1 has another mesh than /0")
    with h5py.File(mesh_graphs(tmp_path / "b.h5"), "a") as file:
        del file["9/pressure"]
    refused(tmp_path / "b.h5", "pressure of /9 is missing or has another shape than that of /0")


# ------------------------------------------------------------------------------- grids, unknown


def test_a_grid_in_hdf5_is_read_as_in_npz(tmp_path):
    grids = np.moveaxis(np.stack([block(0), block(1)], -1), 2, 3)  # (N, T, H, W, F)
    arrays = {"fields": grids, "x": XS, "y": YS, "time": TIMES, "parameters": np.arange(N)[:, None]}
    np.savez(tmp_path / "grid.npz", field_names=np.array(["u", "v"]), **arrays)
    with h5py.File(tmp_path / "grid.h5", "w") as file:
        file["field_names"] = ["u", "v"]
        for key, values in arrays.items():
            file[key] = values
    for name in ("grid.npz", "grid.h5"):
        flow = load_flow(tmp_path / name)
        check_grid(flow, ("u", "v"), [block(0), block(1)])
        thin = load_flow(tmp_path / name, reading=Reading(thin=2, every=2))
        assert (thin.fields[..., 0] == at_nodes(block(0)[:, ::2, ::2, ::2])).all()


def test_an_unknown_hdf5_file_is_one_line_that_names_what_is_read(tmp_path):
    with h5py.File(tmp_path / "mesh_graph_nets.h5", "w") as file:
        file.create_group("trajectory_1")["world_pos"] = np.zeros((2, 3))
    refused(tmp_path / "mesh_graph_nets.h5", "holds trajectory_1; needed are the data sets fields")


def test_what_would_not_fit_into_memory_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.hdf5"
    with h5py.File(path, "w") as file:
        for key in ("Vx", "Vy", "density", "pressure"):
            file.create_dataset(key, (10_000, 101, 512, 512), "f4", chunks=(1, 1, 512, 512))
        file["x-coordinate"] = file["y-coordinate"] = np.linspace(0, 1, 512)
        file["t-coordinate"] = np.linspace(0, 1, 101)
    refused(path, "take less of them with --trajectories, --every (frames) or --thin")
    flow = load_flow(path, reading=Reading(thin=64, every=50, trajectories=4))
    assert flow.fields.shape == (4, 3, 64, 4)


# ------------------------------------------------------------------------------------------ VTK


@pytest.mark.parametrize("given", ["flow.pvd", "."])
def test_a_series_of_vtk_files_comes_back(tmp_path, given):
    flow = example()
    write_vtk(tmp_path, flow, trajectory=1)
    again = load_flow(tmp_path / given)
    assert again.field_names == ("u", "v", "p")
    assert (again.fields[0] == flow.fields[1]).all()
    assert again.coordinates.tolist() == SQUARE.tolist()
    assert again.time == pytest.approx(flow.time)
    assert len(again.triangles) == len(flow.triangles)


def test_vtk_files_without_an_index_and_a_single_one(tmp_path):
    write_vtk(tmp_path, example())
    (tmp_path / "flow.pvd").unlink()
    flow = load_flow(tmp_path)
    assert flow.time.tolist() == [0, 1, 2, 3]
    assert "the files name no times" in flow.provenance["read"]
    refused(tmp_path / "frame_0001.vtu", "one time step: nothing to predict")
    assert load_flow(tmp_path / "frame_0001.vtu", least_frames=1).fields.shape == (1, 1, 5, 3)

    (tmp_path / "frame_0002.vtu").write_bytes(b"<VTKFile")
    with pytest.raises(InputError, match=r"frame_0002\.vtu cannot be read"):
        load_flow(tmp_path)


# ---------------------------------------------------------------------------- folders of cases


def cases(folder: Path, count: int = 3, listing: str | None = None) -> Path:
    """A folder of OpenFOAM cases and its parameters.csv."""
    folder.mkdir()
    for number in range(count):
        openfoam(folder / f"case{number}", "ascii", block_mesh(3, 2), flow_fields(6))
    lines = ["case,Re,gate", *(f"case{number},{100 * number},0.5" for number in range(count))]
    (folder / "parameters.csv").write_text(listing or "\n".join(lines))
    return folder


def test_a_folder_of_cases_is_a_data_set(tmp_path):
    folder = cases(tmp_path / "set")
    flow = load_flow(folder)
    alone = load_flow(folder / "case1")
    assert flow.fields.shape == (3, *alone.fields.shape[1:])
    assert (flow.fields[1] == alone.fields[0]).all()
    assert flow.parameter_names == ("Re", "gate")
    assert flow.parameters.tolist() == [[0, 0.5], [100, 0.5], [200, 0.5]]
    assert (flow.triangles == alone.triangles).all()

    (folder / "parameters.csv").write_text("Case\tRe\ncase2\t7\ncase0\t8\n")
    assert load_flow(folder).parameters.tolist() == [[7], [8]]
    (folder / "parameters.csv").write_text("\ufeffcase;Re\ncase2;7\ncase0;8\n")
    flow = load_flow(folder)
    assert flow.parameters.tolist() == [[7], [8]]
    assert "left out, because parameters.csv does not name them: case1" in flow.provenance["read"]


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ("case,Re\ncase9,1\n", "names case9, which is not in"),
        ("case,Re\ncase0,fast\n", "line 2 holds what is no number"),
        ("case,Re\ncase0,1\ncase0,2\n", "line 3 names case0 (again)"),
        ("case,Re\ncase0\n", "line 2 has 0 values, 1 needed"),
        ("Re,case\n1,case0\n", "needed are a first line such as case,Re"),
        ("case,Re\n", "needed are a first line such as case,Re"),
    ],
)
def test_a_bad_listing_is_one_line(tmp_path, listing, message):
    folder = cases(tmp_path / "set", 2, listing)
    with pytest.raises(InputError) as caught:
        load_flow(folder)
    assert message in str(caught.value)
    assert "parameters.csv" in str(caught.value)


def test_cases_that_do_not_belong_together_are_named(tmp_path):
    folder = cases(tmp_path / "set", 2)
    (folder / "parameters.csv").unlink()
    refused(folder, "holds 2 OpenFOAM cases (case0, ...) and no parameters.csv")

    shutil.rmtree(folder)
    folder = cases(tmp_path / "set", 2)
    shutil.rmtree(folder / "case1")
    openfoam(folder / "case1", "ascii", block_mesh(2, 2), flow_fields(4))
    with pytest.raises(InputError, match="case1 has another mesh"):
        load_flow(folder)


def test_listed_files_of_any_kind_are_cases(tmp_path):
    flow = example()
    for row in range(2):
        single = dataclasses.replace(
            flow,
            fields=flow.fields[[row], : 4 - row],
            time=flow.time[: 4 - row],
            parameters=np.zeros((1, 0)),
            parameter_names=(),
        )
        write_flow(tmp_path / f"{row}.h5", single)
    (tmp_path / "parameters.csv").write_text("case,Re\n0.h5,1\n1.h5,2\n")
    joined = load_flow(tmp_path)
    assert (joined.fields == flow.fields[:2, :3]).all()
    assert "cut to the 3 frames that all have" in joined.provenance["read"]


@pytest.mark.parametrize("name", ["processor0", "processors4", "processors8_0-3"])
def test_times_that_were_not_reconstructed_are_told(tmp_path, name):
    case = openfoam(tmp_path / "case", "ascii", block_mesh(3, 2), flow_fields(6))
    for time in [item for item in case.iterdir() if item.name[0].isdigit() and item.name != "0"]:
        shutil.rmtree(time)
    (case / name / "0").mkdir(parents=True)
    (case / name / "0.1").mkdir()
    refused(case, f"{name} holds 1 time folder more than the case; run reconstructPar")
    assert "reconstructPar" in load_flow(case, least_frames=1).provenance["read"]
