"""Folders and archives of images: which expression and which part each image stands for.

Both are folders of its path, in either order: train/happy/, happy/train/, fer2013/train/3_happy/.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from assignment1.checks import Pictures, others_left_out
from assignment1.images import IMAGE_ENDINGS, is_image, read_images
from assignment1.listing import Item, Listing, count, some
from assignment1.words import (
    CLASSES,
    IN_ORDER,
    LEFT_OUT,
    OTHERS,
    counts_from_one,
    digit_of,
    label_of,
    letters,
    part_of,
)
from common.cli import InputError

NEEDED = f"images must stand in <train|val|test>/<class>/, with a class of {', '.join(CLASSES)}"


@dataclasses.dataclass(frozen=True)
class Placed:
    """An image with its label, LEFT_OUT where it is of no class, and its part or None."""

    item: Item
    label: int
    part: str | None


def images_of(listing: Listing) -> tuple[list[Item], list[str]]:
    """The images of a listing, and what else it holds, in words."""
    images = []
    endings: Counter[str] = Counter()
    for item in listing.items:
        if is_image(item):
            images.append(item)
        else:
            endings[item.ending or "no ending"] += 1
    left_out = list(listing.left_out)
    if endings:
        kinds = ", ".join(sorted(endings))
        left_out.append(f"{count(endings.total(), 'other file')} ({kinds})")
    return images, left_out


def unlabelled_pictures(listing: Listing, images: Sequence[Item], left_out: list[str]) -> Pictures:
    """Every image, wherever it stands, with its name."""
    pixels = read_images(images, str(listing.place))
    order = by_name(images)
    names = tuple(images[row].name for row in order)
    return Pictures(pixels[order], None, None, names, left_out=tuple(left_out))


def labelled_pictures(listing: Listing, images: Sequence[Item], left_out: list[str]) -> Pictures:
    """The images that stand in a folder of one of the seven expressions.

    Raises InputError for images whose expression or part cannot be told.
    """
    where = str(listing.place)
    placed, strays = place(images, where)
    kept = [image for image in placed if image.label != LEFT_OUT]
    if not kept:
        raise InputError(f"{where}: {NEEDED}")
    check_parts(kept, where)

    # what is left out, in words
    others = Counter(other_word(image.item) for image in placed if image.label == LEFT_OUT)
    words = [*left_out, *others_left_out(others)]
    if strays:
        words.append(f"images outside the folders of classes: {some(strays)}")

    pixels = read_images([image.item for image in kept], where)
    order = by_name([image.item for image in kept])
    labels = np.array([kept[row].label for row in order], dtype=np.int64)
    part = None
    if kept[0].part is not None:
        part = np.array([kept[row].part for row in order], dtype="U10")
    names = tuple(kept[row].item.name for row in order)
    return Pictures(pixels[order], labels, part, names, left_out=tuple(words))


def by_name(items: Sequence[Item]) -> list[int]:
    """The rows of items in the order of their names, folder by folder."""
    return sorted(range(len(items)), key=lambda row: items[row].name.split("/"))


# -------------------------------------------------------------------------- classes and parts


def place(images: Sequence[Item], where: str) -> tuple[list[Placed], list[str]]:
    """Images in folders of classes, and the names of those that stand above such folders."""
    worded = any(label_of(folder) is not None for item in images for folder in item.folders)
    placed = []
    unplaced = []
    for item in images:
        label = word_label(item, where) if worded else digit_label(item, where)
        if label is None:
            unplaced.append(item)
        else:
            placed.append(Placed(item, label, part_in(item, where)))

    if not worded and counts_from_one(image.label for image in placed):
        raise InputError(
            f"{where}: folders 1..6 without a 0: are they in FER-2013's order ({IN_ORDER})? name "
            "them by words"
        )
    # beside or above folders of classes lie pictures of no class; other folders are a mistake
    above = {()} | {
        tuple(image.item.folders[:depth])
        for image in placed
        for depth in range(len(image.item.folders))
    }
    strange = [item.name for item in unplaced if tuple(item.folders) not in above]
    if strange or not placed:
        names = some(strange or [item.name for item in unplaced])
        raise InputError(f"{where}: {names}: {NEEDED}")
    return placed, [item.name for item in unplaced]


def word_label(item: Item, where: str) -> int | None:
    """The label of the folder whose name is the word for an expression."""
    found = [label for label in map(label_of, item.folders) if label is not None]
    if len(set(found)) > 1:
        raise InputError(f"{where}: {item.name} stands in the folders of two classes")
    return found[0] if found else None


def digit_label(item: Item, where: str) -> int | None:
    """The label of the innermost folder whose name is a number in FER-2013's order."""
    found = [number for number in map(digit_of, item.folders) if number is not None]
    if not found:
        return None
    if found[-1] >= len(CLASSES):
        raise InputError(
            f"{where}: {item.name}: folders that are numbers must be FER-2013's ({IN_ORDER}); "
            "data sets with more or from 1 on have other orders: name the folders by words"
        )
    return found[-1]


def other_word(item: Item) -> str:
    """The class beside the seven that an image stands in."""
    return next(OTHERS[letters(name)] for name in item.folders if letters(name) in OTHERS)


def part_in(item: Item, where: str) -> str | None:
    """The part that a folder of an image's path names, or None."""
    found = {part_of(folder) for folder in item.folders} - {None}
    if len(found) > 1:
        raise InputError(f"{where}: {item.name} stands in the folders of two parts")
    return next(iter(found), None)


def check_parts(placed: Sequence[Placed], where: str) -> None:
    """Raises InputError where some images stand in a part and some in none."""
    outside = [image.item.name for image in placed if image.part is None]
    if outside and len(outside) < len(placed):
        raise InputError(
            f"{where}: {count(len(outside), 'image')} in no part while others stand in train, "
            f"validation or test: {some(outside)}"
        )


def no_images(where: str, left_out: Sequence[str]) -> InputError:
    """The refusal of a folder or archive that holds nothing to read."""
    endings = ", ".join(sorted(IMAGE_ENDINGS))
    found = f"; it holds {'; '.join(left_out)}" if left_out else ""
    return InputError(f"{where}: no images ({endings}) and no table of faces in it{found}")
