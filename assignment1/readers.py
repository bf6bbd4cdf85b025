"""Files of faces and code maps -> checked arrays; every bad file is one clear line.

What a file is, is told by its content: a csv, an npz, an image, or an archive or a folder of them.

Shape letters: N rows, H W = 48 x 48 grey levels, h w = 12 x 12 code indices, m = 256 codes of
d numbers, k = 7 classes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assignment1.checks import Pictures, checked, parts_of, whole_numbers
from assignment1.images import IMAGE_ENDINGS, SIDE, begins_as_image, read_images
from assignment1.layouts import images_of, labelled_pictures, no_images, unlabelled_pictures
from assignment1.listing import (
    DAMAGE,
    HEAD,
    Item,
    Listing,
    archive_listing,
    check_regular,
    folder_listing,
    read_file,
    reason,
    some,
    unpressed,
    whole,
)
from assignment1.tables import is_table, read_table
from assignment1.words import CLASSES, label_of
from common.cli import InputError

GRID = 12
CODES = 256
TABLES = ("fer2013.csv", "icml_face_data.csv", "ckextended.csv", "train.csv")
UNLABELLED_TABLES = ("test.csv", *TABLES)
ARCHIVES = ("fer2013.tar.gz", "fer2013.zip", "archive.zip")
ALLOWED = (
    "allowed are a FER csv (emotion, pixels, Usage), an npz (images, labels, usage), and a folder, "
    "zip or tar of images"
)


@dataclass(frozen=True)
class CodeMaps:
    """Checked code maps: uint8 (N, h, w), codebook float32 (m, d) or None, labels, part or None."""

    maps: np.ndarray
    codebook: np.ndarray | None
    labels: np.ndarray
    part: np.ndarray | None


# ----------------------------------------------------------------------------------- pictures


def read_pictures(path: Path, labelled: bool) -> Pictures:
    """Faces from whatever a path holds; `labelled`: their expressions must be there.

    Raises InputError.
    """
    if path.is_dir():
        return read_listing(folder_listing(path), labelled)
    if path.suffix.lower() == ".npz":
        return read_npz(path, labelled)
    with archive_listing(path) as listing:
        if listing is not None and not is_npz(listing):
            return read_listing(listing, labelled)
    if listing is not None:
        return read_npz(path, labelled)
    if is_image_file(path):
        if labelled:
            raise InputError(f"{path}: a single image has no label; {ALLOWED}")
        item = Item(path.name, path.stat().st_size, lambda: read_file(path))
        return Pictures(read_images([item], str(path.parent)), None, None, (path.name,))
    return read_table(table_content(path), path, labelled)


def is_npz(listing: Listing) -> bool:
    """Whether a zip archive holds arrays alone."""
    return bool(listing.items) and all(item.ending == ".npy" for item in listing.items)


def is_image_file(path: Path) -> bool:
    """Whether a file is one image, by its content or its ending."""
    with open(path, "rb") as stream:
        return path.suffix.lower() in IMAGE_ENDINGS or begins_as_image(stream)


def table_content(path: Path) -> bytes:
    """The content of a csv file, compressed or not. Raises InputError for all other files."""
    with unpressed(path) as stream:
        try:
            head = stream.read(HEAD)
            stream.seek(0)
        except DAMAGE as error:
            raise InputError(f"{path}: cannot be unpacked ({reason(error)})") from None
        if ".csv" in (ending.lower() for ending in path.suffixes) or is_table(head):
            return whole(stream, str(path))
    problem = ""
    if head.startswith((b"7z\xbc\xaf", b"Rar!")):
        problem = "unpack it first; "
    elif head and not head.strip(b"\0"):
        problem = "it begins with zeros, as a broken download does; "
    raise InputError(f"{path}: {problem}{ALLOWED}")


def read_listing(listing: Listing, labelled: bool) -> Pictures:
    """Faces from a folder or an archive: its images, else a table in it, else an archive in it.

    Where the expressions must be there, images count that stand in folders of classes. Raises
    InputError.
    """
    images, left_out = images_of(listing)
    read = labelled_pictures if labelled else unlabelled_pictures
    in_classes = any(label_of(name) is not None for item in images for name in item.folders)
    if images and (in_classes or not labelled):
        return read(listing, images, left_out)
    table = table_in(listing, labelled)
    if table is not None:
        pictures = read_table(table.read(), listing.place / table.name, labelled)
        return dataclasses.replace(pictures, inside=table.name)
    if images:
        return read(listing, images, left_out)
    for name in ARCHIVES:
        if listing.place.is_dir() and name in (item.name for item in listing.items):
            return dataclasses.replace(read_pictures(listing.place / name, labelled), inside=name)
    raise no_images(str(listing.place), left_out)


def table_in(listing: Listing, labelled: bool) -> Item | None:
    """The table of faces in a folder or archive: one of a known name, else the only one.

    Raises InputError where there are several of other names.
    """
    tables = sorted(
        (item for item in listing.items if item.ending == ".csv"),
        key=lambda item: (len(item.folders), item.name),
    )
    for name in TABLES if labelled else UNLABELLED_TABLES:
        for item in tables:
            if item.name.split("/")[-1].lower() == name:
                return item
    tables = [item for item in tables if is_table(item.read()[:HEAD])]
    if len(tables) > 1:
        names = some([item.name for item in tables])
        raise InputError(f"{listing.place}: several tables ({names}); give one of them")
    return tables[0] if tables else None


def read_npz(path: Path, labelled: bool) -> Pictures:
    """Arrays images (N, H, W) or (N, H, W, 1), labels (N,), usage (N,) and classes (k,).

    `labelled`: the labels must be there, else they are not read. Labels are numbers in the order of
    `classes`, words for expressions, by default FER-2013's. Raises InputError.
    """
    wanted = ("images", "labels", "usage", "classes") if labelled else ("images",)
    check_regular(path)
    try:
        # opened here, because numpy leaves a damaged file open
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in wanted if name in archive}
            names = sorted(archive)
    except Exception as error:  # a damaged archive: zipfile's, zlib's, struct's or numpy's errors
        raise InputError(f"{path}: not a readable npz without pickled objects ({error})") from None
    if "images" not in arrays or (labelled and "labels" not in arrays):
        needed = "images and labels" if labelled else "images"
        raise InputError(f"{path}: arrays {names}; {needed} are needed")
    images = arrays["images"]
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE) or len(images) == 0:
        raise InputError(f"{path}: images {images.shape}; (N, {SIDE}, {SIDE}) with N > 0 is needed")
    pixels = whole_numbers(images, path, 255).astype(np.uint8)
    if not labelled:
        return Pictures(pixels, None, None)
    labels = arrays["labels"]
    if "classes" in arrays and labels.dtype.kind in "biuf":
        labels = named(labels, arrays["classes"], path)
    return checked(path, pixels, labels, arrays.get("usage"))


def named(labels: np.ndarray, classes: np.ndarray, path: Path) -> np.ndarray:
    """Numbers (N,) as the words (N,) of `classes` that they stand for. Raises InputError."""
    if classes.ndim != 1 or classes.dtype.kind not in "US" or len(classes) == 0:
        raise InputError(
            f"{path}: classes {classes.dtype} {classes.shape}; words (k,), one per label, are "
            "needed"
        )
    numbers = whole_numbers(labels, path, len(classes) - 1, "label").astype(np.int64)
    return classes[numbers]


# ---------------------------------------------------------------------------------- code maps


def read_codemaps(folder: Path) -> CodeMaps:
    """The course's format: codemaps.npy (N, h, w), labels.npy (N, k) one-hot or (N,).

    codebook.npy (m, d) and usage.npy (N,) are read where they are present.
    """
    path = folder / "codemaps.npy"
    maps = read_npy(path)
    labels = read_npy(folder / "labels.npy")
    if maps.ndim != 3 or maps.shape[1:] != (GRID, GRID) or len(maps) == 0:
        raise InputError(f"{path}: shape {maps.shape}; (N, {GRID}, {GRID}) with N > 0 is needed")
    maps = whole_numbers(maps, path, CODES - 1)
    labels = label_indices(labels, folder / "labels.npy", len(maps))
    usage_path = folder / "usage.npy"
    part = None
    codebook = None
    if (folder / "codebook.npy").exists():
        codebook = read_codebook(folder / "codebook.npy")
    if usage_path.exists():
        part = parts_of(read_npy(usage_path), usage_path, len(maps))
    return CodeMaps(maps.astype(np.uint8), codebook, labels, part)


def label_indices(labels: np.ndarray, path: Path, rows: int) -> np.ndarray:
    """Labels (N, k) one-hot or (N,) -> indices int64 (N,). Raises InputError."""
    labels = whole_numbers(labels, path, len(CLASSES) - 1)
    if labels.ndim == 2:
        if labels.shape[1] != len(CLASSES):
            raise InputError(
                f"{path}: shape {labels.shape}; (N, {len(CLASSES)}) one-hot or (N,) is needed"
            )
        one_hot = np.isin(labels, (0, 1)).all(1) & (labels.sum(1) == 1)
        if not one_hot.all():
            row = int(np.flatnonzero(~one_hot)[0])
            raise InputError(f"{path}: row {row} is not one-hot (one 1, else 0)")
        labels = labels.argmax(1)
    if labels.shape != (rows,):
        count = labels.shape[0] if labels.ndim else 0
        raise InputError(f"{path}: {count} labels for {rows} code maps")
    return labels.astype(np.int64)


def read_codebook(path: Path) -> np.ndarray:
    """A codebook float32 (m, d). Raises InputError."""
    codebook = read_npy(path)
    if codebook.ndim != 2 or codebook.shape[0] != CODES or codebook.dtype.kind != "f":
        raise InputError(
            f"{path}: {codebook.dtype} {codebook.shape}; float ({CODES}, d) is needed, "
            "one row per code"
        )
    if not np.isfinite(codebook).all():
        raise InputError(f"{path}: NaN or infinity")
    return codebook.astype(np.float32)


def read_npy(path: Path) -> np.ndarray:
    """One array. Raises InputError where the file is missing, damaged or holds objects."""
    if not path.exists():
        raise InputError(f"{path} does not exist; codemaps.npy and labels.npy are needed")
    check_regular(path)
    try:
        with open(path, "rb") as stream:
            array = np.load(stream, allow_pickle=False)
    except Exception as error:  # a damaged file: tokenize's, zipfile's or numpy's errors
        raise InputError(f"{path}: not a readable npy without pickled objects ({error})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an npz archive under the name of an npy array")
    return array
