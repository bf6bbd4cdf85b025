"""A fitted model as one .npz file without pickle; the seed stands for the hidden layer."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

JsonObject: TypeAlias = dict[str, Any]
Arrays: TypeAlias = dict[str, np.ndarray]


def write(path: Path, facts: JsonObject, arrays: Arrays) -> None:
    """Writes facts and arrays under a temporary name and renames it. Raises OSError."""
    path = Path(path)
    content: dict[str, Any] = {"facts": np.array(json.dumps(facts)), **arrays}
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> tuple[JsonObject, Arrays]:
    """The facts and arrays of a file that `write` wrote."""
    with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    facts: JsonObject = json.loads(str(arrays.pop("facts")))
    return facts, arrays


@contextlib.contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Turns what a damaged or foreign file raises inside the block into one ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path}: not a file of an ELM ({error})") from None
