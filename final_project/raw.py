"""What a reader finds in a file, before it is checked."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.cli import InputError
from common.files import JsonObject

KEYS = ("fields", "coordinates", "parameters", "time", "field_names")
HDF5 = (".h5", ".hdf5")
MOST_MEMORY = 0.4  # of the machine's, for the fields that are read
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RawFlow:
    """Unchecked arrays by key (KEYS, optional parameter_names and triangles), and their origin.

    notes : remarks for the user. provenance : what the file says of itself, JSON values.
    advice : what may bring more frames, where the source has reason to think so.
    """

    arrays: Arrays
    notes: tuple[str, ...] = ()
    provenance: JsonObject = dataclasses.field(default_factory=dict)
    advice: str = ""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What of a source is read.

    case : one case of a file of several. thin : every so many-th point of a regular grid along x
    and y. every : every so many-th frame. trajectories : at most so many, the first; None: all.
    """

    case: str | None = None
    thin: int = 1
    every: int = 1
    trajectories: int | None = None

    def check_memory(self, shape: tuple[int, ...], dtype: np.dtype, path: Path) -> None:
        """Raises InputError for fields of a shape that would not fit into memory with their use."""
        needed = math.prod(shape) * dtype.itemsize
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > MOST_MEMORY * there:
            raise InputError(
                f"{path}: fields {shape} need {needed / 1e9:.0f} GB of this machine's "
                f"{there / 1e9:.0f} GB; take less of them with --trajectories, --every (frames) "
                "or --thin (points of a grid)"
            )


WHOLE = Reading()


@contextlib.contextmanager
def readable(path: Path, advice: str = "") -> Iterator[None]:
    """Turns every error in the block into one line: libraries fail on damaged files in many ways.

    Raises InputError that names the file.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # (a KeyError says the key alone)
        text = "" if isinstance(error, KeyError) else printable(str(error))[:120]
        reason = text or f"{type(error).__name__} {error}".strip()
        if path.suffix == ".gz":
            advice = "; is it whole? gunzip shows it"
        raise InputError(f"{path} cannot be read ({reason}){advice}") from None


def printable(text: str) -> str:
    """A text on one line up to where it holds the bytes of a binary file."""
    line = " ".join(text.split())
    binary = re.search("[^\\x20-\\x7e]", line)
    return line if binary is None else line[: binary.start()] + "..."
