"""What a reader finds in a file, before it is checked."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.cli import InputError
from common.files import JsonObject

KEYS = ("fields", "coordinates", "parameters", "time", "field_names")
HDF5 = (".h5", ".hdf5")
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RawFlow:
    """Unchecked arrays by key (KEYS, optional parameter_names and triangles), and their origin.

    notes : remarks for the user. provenance : what the file says of itself, JSON values.
    """

    arrays: Arrays
    notes: tuple[str, ...] = ()
    provenance: JsonObject = dataclasses.field(default_factory=dict)


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
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        if path.suffix == ".gz":
            advice = "; is it whole? gunzip shows it"
        raise InputError(f"{path} cannot be read ({reason}){advice}") from None
