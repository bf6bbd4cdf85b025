"""A trajectory as files that ParaView opens.

Shape letters: T frames, P nodes.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import meshio
import numpy as np

from common.cli import InputError
from common.run import atomic_path, write_text
from final_project.data import Flow, triangulate


def write_vtk(folder: Path, flow: Flow, trajectory: int = 0) -> Path:
    """Writes a trajectory as a time series for ParaView: frame_0000.vtu, ... and the index flow.pvd, whose path is returned.

    Each frame holds the nodes, the triangles (by Delaunay where the flow has none), every field as float32 point data, and u, v also as
    the vector `velocity`. The index comes last, so that it never names a frame that is not there.

    Raises InputError for a trajectory that is not there and a folder that cannot be written.
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
    names = [
        escape(name, {'"': "&quot;"}) for name in flow.field_names
    ]  # meshio writes names as they are
    lines = []
    for number, (time, frame) in enumerate(zip(flow.time, flow.fields[trajectory], strict=True)):
        data = dict(zip(names, np.ascontiguousarray(frame.T), strict=True))
        if {"u", "v"} <= data.keys():
            data["velocity"] = np.stack(
                [data["u"], data["v"], np.zeros_like(data["u"])], -1
            )  # (P, 3)
        name = f"frame_{number:0{digits}d}.vtu"
        with atomic_path(folder / name) as temporary:
            meshio.write(temporary, meshio.Mesh(points, [("triangle", triangles)], point_data=data))
        lines.append(f'    <DataSet timestep="{float(time)!r}" part="0" file="{name}"/>')
    head = '<?xml version="1.0"?>\n<VTKFile type="Collection" version="0.1" byte_order="LittleEndian">\n  <Collection>\n'
    write_text(folder / "flow.pvd", head + "\n".join(lines) + "\n  </Collection>\n</VTKFile>\n")
    return folder / "flow.pvd"
