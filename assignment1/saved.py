"""What evaluate.py and encode.py take from the folder of a finished run; every damage is one line.

Shape letters: n faces.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from assignment1.artifacts import FINGERPRINTS_FILE
from assignment1.config import Config
from assignment1.data import Faces, load
from assignment1.figures import draw_figures
from common.cli import InputError
from common.files import JsonObject, read_json
from common.report import compile_report
from common.run import SavedRun

MOST_SYNTHETIC = 10**6  # faces that a run.json may ask for
DRAWN_ARRAYS = {
    "paths.npz": (),
    "predictions.npz": ("labels",),
    "units.npz": (),
    "reconstructions.npz": ("images", "colours", "reconstructions"),
}
DAMAGE = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OSError,
    EOFError,
    RuntimeError,  # torch's and typst's
    MemoryError,
    ArithmeticError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def damaged(what: object) -> Iterator[None]:
    """Turns what a damaged or foreign file raises inside the block into one line about `what`."""
    try:
        yield
    except DAMAGE as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{what}: damaged, or not of a run of assignment 1 ({words[:200]}); "
            "name the folder of a finished run with --run"
        ) from None


def own_options(saved: SavedRun) -> Config:
    """The options that decide a run's faces and their split. Raises InputError."""
    with damaged(saved.folder / "run.json"):
        chosen = {name: saved.config[name] for name in ("seed", "synthetic_faces", "validation")}
        if not all(type(chosen[name]) is int for name in ("seed", "synthetic_faces")):
            raise TypeError("seed and synthetic_faces must be whole numbers")
        if chosen["synthetic_faces"] > MOST_SYNTHETIC:
            raise ValueError(f"synthetic_faces above {MOST_SYNTHETIC}")
        path = saved.config["data"]
        return dataclasses.replace(Config(), **chosen, data=Path(path) if path else None)


def own_faces(saved: SavedRun) -> Faces:
    """The faces that a run was made from. Raises InputError where they are gone or others."""
    options = own_options(saved)
    source = saved.record["source"]
    if source not in ("fer2013", "codemaps", "synthetic"):
        raise InputError(f"{saved.folder / 'run.json'}: no source of faces is named {source!r:.40}")
    faces = load(source, options.data, options.synthetic_faces, options.seed)
    before, now = (about.get("sha256") for about in (saved.data, faces.provenance))
    if before != now:
        raise InputError(
            f"{faces.provenance['path']} is not what {saved.folder} was made from any more; "
            "put it back, or name faces with --data"
        )
    return faces


def known_faces(folder: Path) -> np.ndarray | None:
    """Fingerprints uint64 (n,) of the faces that a run was trained or stopped on, or None.

    None: the run was made before it kept them. Raises InputError for a damaged file.
    """
    path = folder / FINGERPRINTS_FILE
    if not path.exists():
        return None
    with damaged(path), open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
        known = archive["fingerprints"]
        if known.dtype != np.uint64 or known.ndim != 1:
            raise ValueError(f"{known.dtype} {known.shape}")
        return known


# -------------------------------------------------------------------------------------- output


def check_can_write(folder: Path) -> None:
    """Raises InputError where nothing can be written into a run folder."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written; name another place with --out")


def evaluation_file(folder: Path, data: Path | None, provenance: JsonObject) -> Path:
    """Where scores go by default: a file of its own for every data set."""
    if data is None:
        return folder / "evaluation-test.json"
    stem = data.resolve().name.split(".")[0] or "data"
    file = folder / f"evaluation-{stem}.json"
    digest = provenance.get("sha256")
    if stem != "test" and (not file.exists() or digest == digest_in(file)):
        return file
    short = hashlib.sha256(json.dumps(digest).encode()).hexdigest()[:8]
    return folder / f"evaluation-{stem}-{short}.json"


def digest_in(file: Path) -> object:
    """The sha256 of the data that a file of scores is about, or None where it tells none."""
    try:
        return read_json(file)["run"]["data"]["sha256"]
    except (InputError, KeyError, TypeError):
        return None


def check_drawable(folder: Path) -> None:
    """Raises InputError where a file that the figures are drawn from is missing or damaged.

    It is asked before any work begins, as the figures are drawn last.
    """
    with damaged(folder / "metrics.json"):
        if not isinstance(read_json(folder / "metrics.json")["rows"], list):
            raise TypeError("rows must be a list")
    with damaged(folder / "metrics.csv"):
        missing = {"step", "epoch", "split", "name", "value"} - set(
            pd.read_csv(folder / "metrics.csv").columns
        )
        if missing:
            raise KeyError(", ".join(sorted(missing)))
    for name, needed in DRAWN_ARRAYS.items():
        if name == "reconstructions.npz" and not (folder / name).exists():
            continue
        with (
            damaged(folder / name),
            open(folder / name, "rb") as stream,
            np.load(stream, allow_pickle=False) as arrays,
        ):
            for key in {*arrays, *needed}:
                arrays[key]


def draw_again(folder: Path, report: Path) -> None:
    """Draws the figures and the report of a finished run from its folder. Raises InputError."""
    with damaged(f"the files that the figures of {folder} are drawn from"):
        draw_figures(folder)
        compile_report(folder, report, folder / "report.pdf")
