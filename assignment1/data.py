"""Faces or code maps from what people have, as one checked data set.

Shape letters: N rows, H W = 48 x 48 grey levels, h w = 12 x 12 code indices, d code dimension.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from assignment1.checks import Pictures
from assignment1.listing import archive_listing, check_regular, folder_listing
from assignment1.readers import TABLES, read_codemaps, read_pictures
from assignment1.synthetic import draw_faces
from assignment1.words import CLASSES, label_of
from common.cli import InputError, data_folder
from common.files import JsonObject, sha256

CHALLENGE = "challenges-in-representation-learning-facial-expression-recognition-challenge"
FER_NAMES = (
    "fer2013.csv",
    "fer2013.npz",
    "fer2013_48x48.npz",
    "fer2013",
    "icml_face_data.csv",
    "fer2013.tar.gz",
    "fer2013.zip",
    CHALLENGE,
    f"{CHALLENGE}.zip",
    "archive.zip",
)
ANYTHING = "archive.zip"  # Kaggle's name for the archive of any data set
CODEMAP_NAMES = ("codemaps", "codemaps.npy")
PART_NAMES = ("train", "validation", "test", "private")
SYNTHETIC_TEST = 6  # every sixth built-in face is for testing
NOTICE = (
    "built-in synthetic faces, not real data; for FER-2013 put fer2013.csv into the folder that "
    "ADL_DATA_DIR names (default data/), or give --data PATH"
)


@dataclasses.dataclass(frozen=True)
class Faces:
    """Checked input: pictures, or code maps with their codebook.

    images uint8 (N, H, W) or codemaps uint8 (N, h, w), one of the two; codebook float32 (256, d)
    or None; labels int64 (N,) in 0..6 or None; part (N,) of "train" | "validation" | "test" |
    "private"; names of the files (N,) where each face is one.
    """

    source: str
    images: np.ndarray | None
    codemaps: np.ndarray | None
    codebook: np.ndarray | None
    labels: np.ndarray | None
    part: np.ndarray
    provenance: JsonObject
    classes: tuple[str, ...] = CLASSES
    names: tuple[str, ...] | None = None

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
        if path is not None:
            raise InputError(f"--source synthetic draws its own faces; leave --data {path} out")
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


def in_data_folder(names: tuple[str, ...]) -> Path | None:
    """The first of the names that the data folder holds."""
    paths = (data_folder() / name for name in names)
    return next((path for path in paths if path.exists() and holds_faces(path)), None)


def holds_faces(path: Path) -> bool:
    """Whether an archive that may be of any data set holds a table or folders of faces."""
    if path.name != ANYTHING:
        return True
    try:
        with archive_listing(path) as listing:
            items = [] if listing is None else listing.items
            return any(
                item.name.split("/")[-1].lower() in TABLES[:2]
                or any(label_of(folder) is not None for folder in item.folders)
                for item in items
            )
    except InputError:
        return False


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
    part = np.where(testing, "test", "train")
    provenance: JsonObject = {
        "generator": "assignment1/synthetic.py",
        "faces": count,
        "read": f"built-in sample, seed {seed}: {counted(labels, part)}",
        "notice": NOTICE,
    }
    return Faces("synthetic", images, None, None, labels, part, provenance)


def load_images(path: Path, labelled: bool) -> Faces:
    """Grey faces from a table, an npz, images in a folder or an archive, or one image.

    `labelled` says whether labels must be there. Raises InputError.
    """
    if not path.exists():
        raise InputError(f"--data {path} does not exist")
    pictures = read_pictures(path, labelled)
    provenance: JsonObject = {
        "path": path.name,
        "sha256": digest_of(path),
        "images": len(pictures.images),
    }
    faces = as_faces(pictures, provenance)
    place = f"{path.name}/{pictures.inside}" if pictures.inside else path.name
    provenance["read"] = f"{place}: {counted(faces.labels, faces.part)}{outside(pictures)}"
    return faces


def as_faces(pictures: Pictures, provenance: JsonObject) -> Faces:
    """Pictures as a data set; without a part, all are for training."""
    part = np.full(len(pictures.images), "train") if pictures.part is None else pictures.part
    return Faces(
        "fer2013",
        pictures.images,
        None,
        None,
        pictures.labels,
        part,
        provenance,
        names=pictures.names,
    )


def load_codemaps(path: Path) -> Faces:
    """Code maps in the course's format, from their folder or their codemaps.npy."""
    folder = path if path.is_dir() else path.parent
    codes = read_codemaps(folder)
    part = np.full(len(codes.maps), "train") if codes.part is None else codes.part
    digests = {
        file.name: sha256(file)
        for file in sorted(folder.glob("*.npy"))
        if file.stem in ("codemaps", "labels", "codebook", "usage")
    }
    book = "without" if codes.codebook is None else "with"
    read = f"{folder.name}: code maps {book} a codebook, {counted(codes.labels, part)}"
    provenance: JsonObject = {"path": folder.name, "sha256": digests, "read": read}
    return Faces("codemaps", None, codes.maps, codes.codebook, codes.labels, part, provenance)


def digest_of(path: Path) -> str:
    """The sha256 of a file, or of the names and sizes of the files below a folder."""
    if not path.is_dir():
        check_regular(path)
        return sha256(path)
    digest = hashlib.sha256()
    for item in folder_listing(path).items:
        digest.update(f"{item.name}\0{item.size}\n".encode())
    return digest.hexdigest()


# ------------------------------------------------------------------------------ what was read


def counted(labels: np.ndarray | None, part: np.ndarray) -> str:
    """How many faces there are, in which parts and of which expressions."""
    if labels is None:
        return f"{len(part):,} faces"
    parts = [f"{name} {(part == name).sum():,}" for name in PART_NAMES if (part == name).any()]
    classes = [f"{name} {(labels == number).sum():,}" for number, name in enumerate(CLASSES)]
    return f"{len(part):,} faces ({', '.join(parts)}): {', '.join(classes)}"


def outside(pictures: Pictures) -> str:
    """What was left out, as a second sentence, or nothing."""
    return f". Left out: {'; '.join(pictures.left_out)}" if pictures.left_out else ""


def check_classes(faces: Faces, path: Path) -> None:
    """Raises InputError where the training part, or another that is there, has too few classes."""
    for name in ("train", "validation", "test"):
        rows = faces.part == name
        classes = len(np.unique(faces.truth[rows]))
        if classes < 2 and (name == "train" or rows.any()):
            raise InputError(
                f"{path}: the {name} part has {classes} of the classes 0..6; "
                "at least two are needed"
            )
