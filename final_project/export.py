"""A trajectory as files that ParaView opens.

Shape letters: T frames, P nodes, M triangles.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import meshio
import numpy as np

from common.cli import InputError
from common.files import atomic_path, write_text
from final_project.data import Flow
from final_project.mesh import triangulate

HEAD = (
    '<?xml version="1.0"?>\n'
    '<VTKFile type="Collection" version="0.1" byte_order="LittleEndian">\n'
    "  <Collection>\n"
)
FOOT = "  </Collection>\n</VTKFile>\n"


def write_vtk(folder: Path, flow: Flow, trajectory: int = 0) -> Path:
    """Writes a trajectory as frame_0000.vtu, ... and returns the path of their index, flow.pvd.

    Each frame holds the nodes, the triangles (by Delaunay where the flow has none), every field as
    point data of its own type, and u, v also as the vector `velocity`. The index is written last,
    so that it never names a frame that is missing.

    Raises InputError for a trajectory that does not exist and a folder that cannot be written.
    """
    folder = Path(folder)
    if not 0 <= trajectory < len(flow.fields):
        raise InputError(
            f"trajectory {trajectory} does not exist; the flow has 0 to {len(flow.fields) - 1}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror})") from None

    points = np.pad(flow.coordinates, ((0, 0), (0, 1)))  # (P, 3)
    triangles = flow.triangles if len(flow.triangles) else triangulate(flow.coordinates)
    digits = max(4, len(str(len(flow.time) - 1)))
    entries = []
    for number, time in enumerate(flow.time):
        name = f"frame_{number:0{digits}d}.vtu"
        data = point_data(flow.fields[trajectory, number], flow.field_names)
        with atomic_path(folder / name) as temporary:
            frame = meshio.Mesh(points, [("triangle", triangles)], point_data=data)
            meshio.write(temporary, frame)
        entries.append(f'    <DataSet timestep="{float(time)!r}" part="0" file="{name}"/>\n')

    index = folder / "flow.pvd"
    write_text(index, HEAD + "".join(entries) + FOOT)
    return index


def point_data(fields: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Fields (P, F) of one frame by name, and the vector (P, 3) of u and v."""
    columns = np.ascontiguousarray(fields.T)  # (F, P)
    data = {}
    for name, column in zip(names, columns, strict=True):
        data[escape(name, {'"': "&quot;"})] = column  # meshio writes names unescaped
    if {"u", "v"} <= data.keys():
        zero = np.zeros_like(data["u"])
        data["velocity"] = np.stack([data["u"], data["v"], zero], -1)
    return data
