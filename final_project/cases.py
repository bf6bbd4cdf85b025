"""A folder of sources that are one data set: cases with their parameters, or parts of a large set.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from common.cli import InputError
from final_project.openfoam import is_case
from final_project.raw import HDF5, RawFlow, Reading, readable

LISTING = "parameters.csv"
SAME = 1e-6  # largest distance between nodes of the same mesh, over the mesh's extent
SAME_TIME = 1e-3  # largest difference of times, in steps
Read = Callable[[Path, Reading], RawFlow]


def is_collection(path: Path) -> bool:
    """Whether a folder holds several sources: a listing, cases, or HDF5 files and nothing else."""
    if (path / LISTING).is_file():
        return True
    if is_case(path):
        return False
    return bool(sub_cases(path)) or bool(parts_of_a_set(path))


def sub_cases(path: Path) -> list[Path]:
    """The OpenFOAM cases right inside a folder."""
    return sorted(item for item in path.iterdir() if item.is_dir() and is_case(item))


def parts_of_a_set(path: Path) -> list[Path]:
    """The HDF5 files right inside a folder, as The Well divides its sets."""
    return sorted(item for item in path.iterdir() if item.suffix in HDF5 and item.is_file())


def read_collection(path: Path, reading: Reading, read: Read) -> RawFlow:
    """All trajectories of a folder of sources on one mesh and at the same times.

    With parameters.csv (a column `case` with names of folders or files, then one column for each
    parameter) the sources that it lists; else the HDF5 files. Raises InputError.
    """
    if (path / LISTING).is_file():
        return read_listed(path, reading, read)
    cases = sub_cases(path)
    if cases:
        raise InputError(
            f"{path} holds {len(cases)} OpenFOAM cases ({cases[0].name}, ...) and no {LISTING}; "
            "write one with a column case and a column for each parameter"
        )
    return joined(parts_of_a_set(path), path, reading, read)


def read_listed(path: Path, reading: Reading, read: Read) -> RawFlow:
    """The cases that parameters.csv lists, with their parameters."""
    cases, names, parameters = read_listing(path / LISTING)
    sources = [path / case for case in cases]
    missing = [case for case, source in zip(cases, sources, strict=True) if not source.exists()]
    if missing:
        raise InputError(f"{path / LISTING} names {missing[0]}, which is not in {path}")
    raw = joined(sources[: reading.trajectories], path, reading, read)
    count = len(raw.arrays["fields"])
    if count != len(cases[: reading.trajectories]):
        raise InputError(
            f"{path / LISTING} names {len(cases)} cases, which hold {count} trajectories; "
            "each must hold one"
        )
    raw.arrays["parameters"] = parameters[:count]
    raw.arrays["parameter_names"] = np.array(names, dtype=np.str_)
    unlisted = [item.name for item in sub_cases(path) if item.name not in cases]
    notes = [f"left out, because {LISTING} does not name them: {', '.join(unlisted)}"]
    return dataclasses.replace(raw, notes=(*raw.notes, *(notes if unlisted else [])))


def read_listing(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Cases, names of the parameters, and their values float64 (N, K). Raises InputError."""
    with readable(path, "; it must be a CSV file in UTF-8"):
        text = path.read_text(encoding="utf-8-sig")
    lines = text.splitlines()
    separator = next((mark for mark in ";\t" if lines and mark in lines[0]), ",")
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    table = [(number, row) for number, row in enumerate(rows, 1) if any(row)]
    if len(table) < 2 or table[0][1][0].lower() != "case":
        raise InputError(
            f"{path}: needed are a first line such as case,Re and one line for each case"
        )

    _, (_, *names) = table[0]
    cases = []
    values = []
    for number, (case, *cells) in table[1:]:
        try:
            values.append([float(cell) for cell in cells])
        except ValueError:
            raise InputError(f"{path}: line {number} holds what is no number: {cells}") from None
        if len(cells) != len(names):
            raise InputError(f"{path}: line {number} has {len(cells)} values, {len(names)} needed")
        if not case or case in cases:
            raise InputError(f"{path}: line {number} names {case or 'no case'} (again)")
        cases.append(case)
    return cases, names, np.array(values, np.float64).reshape(len(cases), len(names))


def joined(sources: Sequence[Path], path: Path, reading: Reading, read: Read) -> RawFlow:
    """The trajectories of all sources; those of different lengths are cut to the shortest.

    Raises InputError that names the source whose mesh, fields, times or parameters differ.
    """
    first: RawFlow | None = None
    parts: list[RawFlow] = []
    left = reading.trajectories
    for source in sources:
        if left == 0:
            break
        raw = read(source, dataclasses.replace(reading, trajectories=left))
        check_whole(raw, source)
        first = first or raw
        same(first, raw, sources[0], source)
        parts.append(raw)
        left = None if left is None else left - len(raw.arrays["fields"])
    if first is None:
        raise InputError(f"{path} holds nothing to read")

    frames = min(len(raw.arrays["time"]) for raw in parts)
    longest = max(len(raw.arrays["time"]) for raw in parts)
    notes = list(dict.fromkeys(note for raw in parts for note in raw.notes))
    if longest > frames:
        notes.append(f"cut to the {frames} frames that all have; the longest has {longest}")
    arrays = dict(first.arrays)
    arrays["fields"] = np.concatenate([raw.arrays["fields"][:, :frames] for raw in parts])
    arrays["time"] = first.arrays["time"][:frames]
    parameters = [raw.arrays["parameters"] for raw in parts]
    arrays["parameters"] = np.concatenate([np.atleast_2d(each) for each in parameters])
    advice = next((raw.advice for raw in parts if raw.advice), "")
    return RawFlow(arrays, tuple(notes), first.provenance, advice)


def check_whole(raw: RawFlow, source: Path) -> None:
    """Raises InputError for a source that lacks what is needed to join it with others."""
    shapes = {"fields": 4, "coordinates": 2, "time": 1, "field_names": 1, "parameters": 2}
    for key, axes in shapes.items():
        array = raw.arrays.get(key)
        if array is None or np.ndim(array) != axes:
            raise InputError(f"{source}: {key} is missing or has not {axes} axes")


def same(first: RawFlow, raw: RawFlow, one: Path, other: Path) -> None:
    """Raises InputError where two sources do not belong to one data set."""
    nodes = first.arrays["coordinates"]
    others = raw.arrays["coordinates"]
    extent = np.ptp(nodes, axis=0).max()
    if nodes.shape != others.shape or np.abs(nodes - others).max() > SAME * extent:
        raise InputError(
            f"{other} has another mesh ({len(others)} nodes) than {one} ({len(nodes)}); "
            "all cases need the same"
        )
    for key, word in (("field_names", "fields"), ("parameter_names", "parameters")):
        names = [", ".join(each.arrays.get(key, np.array([]))) for each in (first, raw)]
        if names[0] != names[1]:
            raise InputError(f"{other} has the {word} {names[1]}, {one} has {names[0]}")

    count = min(len(first.arrays["time"]), len(raw.arrays["time"]))
    times = [each.arrays["time"][:count] - each.arrays["time"][0] for each in (first, raw)]
    step = np.diff(times[0]).mean() if count > 1 else 1.0
    if np.abs(times[0] - times[1]).max() > SAME_TIME * step * count:
        steps = [f"{np.diff(each).mean():g}" for each in times]
        raise InputError(
            f"{other} is written at other times (steps of {steps[1]}) than {one} ({steps[0]}); "
            "all cases need the same"
        )
