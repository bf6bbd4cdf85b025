"""Arrays of our own format: what of them is wanted, and what they say of their origin."""

from __future__ import annotations

import json
from pathlib import Path

from common.cli import InputError
from final_project.raw import Arrays, RawFlow, Reading, readable


def selected(arrays: Arrays, path: Path, reading: Reading, fields_too: bool = True) -> Arrays:
    """The trajectories, frames and points of a grid that are wanted; `fields_too`: also of fields.

    Raises InputError where a mesh that is no grid is to be thinned.
    """
    if reading == Reading(case=reading.case):
        return arrays
    rows = slice(0, reading.trajectories)
    frames = slice(None, None, reading.every)
    points = slice(None, None, reading.thin)
    is_grid = {"x", "y"} <= arrays.keys() and "coordinates" not in arrays
    if reading.thin > 1 and not is_grid:
        raise InputError(f"--thin {reading.thin}: {path} is no regular grid; it is read whole")

    taken = dict(arrays)
    if "fields" in taken and fields_too:
        cuts = (rows, frames, points, points) if is_grid else (rows, frames)
        if taken["fields"].ndim > len(cuts):
            taken["fields"] = taken["fields"][cuts]
    if "parameters" in taken:
        tiled = taken["parameters"].ndim == 3
        taken["parameters"] = taken["parameters"][(rows, frames) if tiled else rows]
    if "time" in taken and taken["time"].ndim:
        taken["time"] = taken["time"][frames]
    for axis in ("x", "y") if is_grid else ():
        taken[axis] = taken[axis][points] if taken[axis].ndim else taken[axis]
    return taken


def with_provenance(arrays: Arrays, path: Path) -> RawFlow:
    """The arrays, and what the file says of itself as JSON under the key provenance."""
    if "provenance" not in arrays:
        return RawFlow(arrays)
    with readable(path, "; provenance must be a JSON object"):
        provenance = dict(json.loads(str(arrays["provenance"])))
        notes = tuple(str(note) for note in provenance.get("notes", []))
    return RawFlow(arrays, notes, provenance)
