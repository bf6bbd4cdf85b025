"""What the folders of images mean: labels, and the parts that a user has made.

`train/rose/1.jpg` and `rose/train/1.jpg` are roses of the training part, `rose/1.jpg` is a rose.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from common.cli import InputError

PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
# words beside a part's in the name of a folder: training_set, seg_test, val_images
PLAIN = {
    *("set", "data", "dataset", "split", "part", "seg", "files"),
    *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"),
}
UNLABELLED = -1  # the label of an image of the test part that lies in no class


def without_shared(folders: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Folders less the first ones that all images share."""
    shared = 0
    while all(len(each) > shared for each in folders):
        if len({each[shared] for each in folders}) > 1:
            break
        shared += 1
    return [each[shared:] for each in folders]


def part_word(folder: str) -> str | None:
    """The part that a folder's name means, as train, Training_Set or seg_test; else None."""
    words = re.split(r"[\s_.-]+", folder.lower())
    parts = [PARTS[word] for word in words if word in PARTS]
    known = all(word in PARTS or word in PLAIN for word in words)
    return parts[0] if known and len(parts) == 1 else None


def kind_in(folders: tuple[str, ...], place: int) -> str:
    """The class of an image by its folders, of which that at `place` is the part.

    The part's folder may stand inside one of the same name, as archives are often unpacked.
    """
    part = folders[place]
    return "/".join(word for word in folders if word != part)


def layout_of(path: Path, names: Sequence[PurePosixPath]) -> tuple[list[str], list[str] | None]:
    """(class, part) of each image, by the folders it lies in; part is None where they name none.

    Raises InputError where images lie beside the parts.
    """
    folders = without_shared([name.parent.parts for name in names])
    if not any(folders):
        return [""] * len(names), None
    for place in (0, -1):  # train/rose or rose/train
        words = [part_word(each[place]) if each else None for each in folders]
        if None not in words:
            kinds = [kind_in(each, place) for each in folders]
            return kinds, [word or "" for word in words]
        if {"train", "test"} <= set(words) or {"train", "validation"} <= set(words):
            beside = names[words.index(None)]
            raise InputError(
                f"{path}/{beside} lies in none of the parts that other images lie in "
                "(train, validation, test); move it into one of them, or out"
            )
    return ["/".join(each) for each in folders], None


def known_parts(parts: list[str] | None) -> np.ndarray | None:
    """The parts as an array (N,); None where there is no training part, whose split is drawn."""
    return np.array(parts) if parts is not None and "train" in parts else None


def numbered(words: Sequence[str | None], parts: np.ndarray | None) -> np.ndarray | None:
    """Labels int64 (N,) from 0 of classes, or None where there are not two of them.

    Images of the user's test part may be UNLABELLED; where others lie in no class beside classes,
    these are a class of their own, as ever, unless the user made parts: then there are no labels.
    """
    array = np.array([word or "" for word in words])
    bare = (array == "") if parts is not None else np.zeros(len(array), bool)
    if parts is not None and bare[parts != "test"].any():
        return None
    kinds = np.unique(array[~bare])
    if len(kinds) < 2:
        return None
    labels = np.searchsorted(kinds, array).astype(np.int64)
    labels[bare] = UNLABELLED
    return labels


def names_of(words: Sequence[str], labels: np.ndarray | None) -> tuple[str, ...]:
    """The class of each label from 0, by the images that have it; () without labels."""
    if labels is None:
        return ()
    names = dict(zip(labels.tolist(), words, strict=True))
    return tuple(names[label] for label in sorted(names.keys() - {UNLABELLED}))


# ----------------------------------------------------------------------------- a table of labels


def read_labels(content: bytes, path: Path) -> dict[str, str]:
    """{file name: label} of a labels.csv. Raises InputError where its columns are missing."""
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str)
        table = table[["file", "label"]].dropna()
    except (KeyError, ValueError):
        raise InputError(f"{path}/labels.csv: the columns file, label are needed") from None
    twice = table.drop_duplicates()["file"].duplicated(keep=False)
    if twice.any():
        name = table.drop_duplicates()["file"][twice].iloc[0]
        raise InputError(f"{path}/labels.csv: {name} has two labels; keep one of them")
    return dict(zip(table["file"], table["label"], strict=True))


def label_in(table: dict[str, str], name: PurePosixPath, path: Path) -> str:
    """The label of one image. Raises InputError where the table has none."""
    label = table.get(str(name), table.get(name.name))
    if label is None:
        raise InputError(f"{path}/labels.csv: no label for {name}")
    return label
