"""Faces or code maps from what people have, as one checked data set.

Shape letters: N rows, H W = 48 x 48 grey levels, h w = 12 x 12 code indices, d code dimension.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from assignment1.readers import (
    CLASSES,
    IMAGE_ENDINGS,
    Pictures,
    checked,
    image_files,
    read_codemaps,
    read_csv,
    read_folder,
    read_image,
    read_npz,
)
from assignment1.synthetic import draw_faces
from common.cli import InputError, data_folder
from common.files import JsonObject, sha256

FER_NAMES = ("fer2013.csv", "fer2013.npz", "fer2013_48x48.npz", "fer2013")
CODEMAP_NAMES = ("codemaps", "codemaps.npy")
SYNTHETIC_TEST = 6  # every sixth built-in face is for testing
NOTICE = (
    "built-in synthetic faces, not real data; for FER-2013 put fer2013.csv into the folder that "
    "ADL_DATA_DIR names (default data/), or give --data PATH"
)


@dataclasses.dataclass(frozen=True)
class Faces:
    """Checked input: pictures, or code maps with their codebook.

    images uint8 (N, H, W) or codemaps uint8 (N, h, w), one of the two; codebook float32 (256, d)
    or None; labels int64 (N,) in 0..6 or None; part (N,) of "train" | "test" | "private".
    """

    source: str
    images: np.ndarray | None
    codemaps: np.ndarray | None
    codebook: np.ndarray | None
    labels: np.ndarray | None
    part: np.ndarray
    provenance: JsonObject
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return len(self.part)

    @property
    def given(self) -> np.ndarray:
        """The images, or else the code maps."""
        rows = self.codemaps if self.images is None else self.images
        if rows is None:
            raise InputError(f"{self.source}: images or code maps are needed")
        return rows

    @property
    def truth(self) -> np.ndarray:
        """The labels, where there must be some."""
        if self.labels is None:
            raise InputError(f"{self.source}: labels are needed")
        return self.labels


@dataclasses.dataclass(frozen=True)
class Split:
    """Row indices int64 of the three parts, disjoint; no group of duplicates is in two of them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


# ------------------------------------------------------------------------------------ sources


def load(source: str, path: Path | None, synthetic_faces: int = 6000, seed: int = 0) -> Faces:
    """Faces from `source`: "auto" | "fer2013" | "codemaps" | "synthetic".

    auto takes `path`, else FER-2013 in the data folder, else the built-in sample. Raises InputError
    with one line for anything that is missing, unreadable or out of range.
    """
    if path is not None and not Path(path).exists():
        raise InputError(f"--data {path} does not exist")
    if source == "auto":
        path = path or in_data_folder(FER_NAMES)
        source = source_of(path)
    if source == "synthetic":
        return synthetic(synthetic_faces, seed)

    if path is None:
        names = FER_NAMES if source == "fer2013" else CODEMAP_NAMES
        path = in_data_folder(names)
        if path is None:
            raise InputError(
                f"--source {source}: none of {', '.join(names)} in {data_folder()}; "
                "give the place with --data"
            )
    path = Path(path)
    faces = load_codemaps(path) if source == "codemaps" else load_images(path, labelled=True)
    check_classes(faces, path)
    return faces


def load_again(record: JsonObject) -> Faces:
    """The faces that a run was made from, by its run.json. Raises InputError as `load`."""
    config = record["config"]
    path = Path(config["data"]) if config["data"] else None
    return load(record["source"], path, config["synthetic_faces"], config["seed"])


def in_data_folder(names: tuple[str, ...]) -> Path | None:
    """The first of the names that the data folder holds."""
    paths = (data_folder() / name for name in names)
    return next((path for path in paths if path.exists()), None)


def source_of(path: Path | None) -> str:
    """What --source auto means for a path, or for no path."""
    if path is None:
        return "synthetic"
    is_codemaps = path.name == "codemaps.npy" or (path / "codemaps.npy").exists()
    return "codemaps" if is_codemaps else "fer2013"


def synthetic(count: int, seed: int) -> Faces:
    """The built-in sample."""
    images, labels = draw_faces(count, seed)
    testing = np.arange(count) % SYNTHETIC_TEST == SYNTHETIC_TEST - 1
    provenance = {"generator": "assignment1/synthetic.py", "faces": count, "notice": NOTICE}
    part = np.where(testing, "test", "train")
    return Faces("synthetic", images, None, None, labels, part, provenance)


def load_images(path: Path, labelled: bool) -> Faces:
    """Grey faces from a FER csv, an npz, an image folder or one image.

    `labelled` says whether labels must be there. Raises InputError.
    """
    if not path.exists():
        raise InputError(f"--data {path} does not exist")
    ending = path.suffix.lower()
    if path.is_dir():
        pictures = read_folder(path, labelled)
    elif ending == ".csv":
        pictures = read_csv(path)
    elif ending == ".npz":
        pictures = read_npz(path, labelled)
    elif ending in IMAGE_ENDINGS and not labelled:
        pictures = checked(path, read_image(path)[None], None, None)
    else:
        raise InputError(
            f"{path}: allowed are a FER csv (emotion, pixels, Usage), an npz (images, labels, "
            "usage) or a folder of images"
        )
    provenance: JsonObject = {
        "path": path.name,
        "sha256": sha256(path),
        "images": len(pictures.images),
    }
    if path.is_dir() and not labelled:
        provenance["files"] = [str(file.relative_to(path)) for file in image_files(path)]
    return as_faces(pictures, provenance)


def as_faces(pictures: Pictures, provenance: JsonObject) -> Faces:
    """Pictures as a data set; without a part, all are for training."""
    part = np.full(len(pictures.images), "train") if pictures.part is None else pictures.part
    return Faces("fer2013", pictures.images, None, None, pictures.labels, part, provenance)


def load_codemaps(path: Path) -> Faces:
    """Code maps in the course's format, from their folder or their codemaps.npy."""
    folder = path if path.is_dir() else path.parent
    codes = read_codemaps(folder)
    part = np.full(len(codes.maps), "train") if codes.part is None else codes.part
    digests = {file.name: sha256(file) for file in sorted(folder.glob("*.npy"))}
    provenance = {"path": folder.name, "sha256": digests}
    return Faces("codemaps", None, codes.maps, codes.codebook, codes.labels, part, provenance)


def check_classes(faces: Faces, path: Path) -> None:
    """Raises InputError where the training part, or a test part, has fewer than two classes."""
    for name in ("train", "test"):
        rows = faces.part == name
        classes = len(np.unique(faces.truth[rows]))
        if classes < 2 and (name == "train" or rows.any()):
            raise InputError(
                f"{path}: the {name} part has {classes} of the classes 0..6; "
                "at least two are needed"
            )
