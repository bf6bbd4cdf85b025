"""Files for ParaView: read back, they hold the flow."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import meshio
import numpy as np
import pytest

from common.cli import InputError
from final_project.export import write_vtk
from tests.final_project.helpers import FANS, SQUARE, areas, example


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
